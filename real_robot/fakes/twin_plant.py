"""The simulated robot as a plant: a fake arm and a fake hand move the same body, with its table and its objects.

Once per millisecond the body puts together what the fakes' motors do and sends it over the twin's wire.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import mujoco
import numpy as np

from palmar.real_robot.drivers.error import DriverError
from palmar.real_robot.drivers.wire import RECOVERING, WireRobot
from palmar.safety.types import Command, ConfigError

Array = np.ndarray
NEAR = 0.02
"""A torque is a spring to an end of the joint's range, which is not nearer than this [rad]."""


class TwinBody:
    """All joints of the twin; ``part`` gives a fake those of its own."""

    def __init__(self, wire: WireRobot, scene: str):
        """Hold where the twin stands now.

        Args:
            wire: The twin's.
            scene: MJCF of its world, for the servos' gains and ranges.
        """
        self.wire, n = wire, len(wire.joints)
        model = mujoco.MjModel.from_xml_string(scene)
        ids = [model.actuator(j).id for j in wire.joints]
        self.servo = np.stack([model.actuator_gainprm[ids, 0], -model.actuator_biasprm[ids, 2]])
        """Stiffness [N m/rad] and damping [N m s/rad] of the twin's servos, (2, n): no motor is stiffer."""
        low, high = np.array([model.joint(j).range for j in wire.joints]).T
        self._ends = np.stack([low - NEAR, high + NEAR])
        self._state = wire.read()
        self._q, self._tau, self._gains = self._state.q.copy(), np.zeros(n), self.servo.copy()
        self._servoed = np.ones(n, bool)
        self._lock, self._seq = threading.Lock(), 0
        self.faults = 0
        """How often the twin's own watchdog had to be recovered from."""

    def part(self, joints: Sequence[str]) -> TwinPlant:
        """The plant of some of the joints, in their order.

        Raises:
            ConfigError: If the twin has no such joint.
        """
        if missing := [j for j in joints if j not in self.wire.joints]:
            raise ConfigError(f"the twin has no joints {missing}, it has {list(self.wire.joints)}")
        return TwinPlant(self, np.array([self.wire.joints.index(j) for j in joints]))

    def step(self) -> None:
        """Read the twin and send it what its motors do; to be called once per millisecond."""
        try:
            self._state = self.wire.read()
            if not self.wire.fault:
                self.wire.write(self._command())
            elif self.wire.fault != RECOVERING:
                self.faults += 1
                self.wire.recover()
        except DriverError:
            return  # the twin was late: its next state is soon there

    def _command(self) -> Command:
        """Servo joints as they are told; a torque as a spring to the range's end, as soft as that torque wants it."""
        self._seq += 1
        with self._lock:
            q, (k, d) = self._q.copy(), self._gains.copy()
            free = ~self._servoed
            here, tau = self._state.q[free], self._tau[free]
            end = np.where(tau > 0.0, self._ends[1, free], self._ends[0, free])
            gap = end - here
            right = np.sign(gap) == np.sign(tau)
            q[free] = np.where(right, end, here)
            k[free] = np.where(right, np.minimum(tau / np.where(right, gap, 1.0), self.servo[0, free]), 0.0)
            d[free] = 0.0
        return Command(q, self._seq, time.monotonic(), stiffness=k, damping=d)

    def servoed(self, which: Array, q: Array, stiffness: Array | None, damping: Array | None) -> None:
        """Joints ``which`` follow ``q``, no stiffer than the twin's servos."""
        with self._lock:
            self._q[which], self._servoed[which] = q, True
            for row, asked in enumerate((stiffness, damping)):
                most = self.servo[row, which]
                self._gains[row, which] = most if asked is None else np.clip(asked, 0.0, most)

    def pushed(self, which: Array, tau: Array) -> None:
        """Joints ``which`` push with ``tau``."""
        with self._lock:
            self._tau[which], self._servoed[which] = tau, False

    def measured(self, which: Array) -> tuple[Array, Array, Array]:
        """As of the last step."""
        s = self._state
        return s.q[which], s.qd[which], s.tau[which]


class TwinPlant:
    """Some joints of the twin, as ``palmar.real_robot.fakes.plant.Plant``.

    A torque is what the twin's joint gets within a few per cent: the spring slackens as the joint moves within a
    millisecond.  Nothing is faster than that millisecond and the twin's latency.
    """

    def __init__(self, body: TwinBody, which: Array):
        self.body, self.n, self._which = body, len(which), which

    def target(self, q: Array, stiffness: Array | None = None, damping: Array | None = None) -> None:
        """See ``Plant``."""
        self.body.servoed(self._which, q, stiffness, damping)

    def torque(self, tau: Array) -> None:
        """See ``Plant``."""
        self.body.pushed(self._which, tau)

    def measure(self) -> tuple[Array, Array, Array]:
        """See ``Plant``; with the twin's noise and latency."""
        return self.body.measured(self._which)
