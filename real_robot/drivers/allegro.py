"""Allegro Hand V5 (four fingers): sixteen torque-controlled joints on a CAN bus.

The hand takes torques and nothing else, so the position loop is here: a thread of this driver answers every complete
report of the fingers (each 3 ms) with torques ``stiffness * (goal - q) - damping * qd``, clamped as the vendor's
driver clamps them.  It holds on whether or not anybody calls ``write``.

What happens physically:

* ``stop``, or no ``write`` for ``watchdog`` seconds: the loop goes on.  A finger that presses keeps its goal, so a
  held object stays held with the same force; every other joint holds where it is.
* A finger stops reporting: its true position is unknown, so the loop stops too.  Joints at rest are sent their last
  torque once more, moving ones zero; the hand keeps these torques.
* ``close``, or this process dead, or the cable cut: **the V5 keeps its last torque for ever**; it has no watchdog that
  we know of.  What was pressed stays pressed.  A finger that was moving freely goes on to its end stop, with at most
  the clamp's torque; ``close`` therefore waits for rest first.
* The hand's motor stage switched off: the fingers are limp, and nothing here can change that.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from palmar.real_robot.drivers.allegro_config import FINGERS, JOINTS, LIMITS, AllegroConfig
from palmar.real_robot.drivers.allegro_loop import Kept, Loop
from palmar.real_robot.drivers.error import DriverError, checked
from palmar.safety.types import Command, CommandRefused, ConfigError
from palmar.sim.interface import RobotState

Array = np.ndarray
OFF_RANGE = 0.35
"""A joint that reads farther outside its range [rad] is not calibrated."""
SETTLE, REST_WITHIN = 0.2, 0.5
"""Time for the mean torque to become that of the hold, and then for the joints to come to rest [s]."""
PATIENCE = 2.0
"""Time for the hand to answer while it is opened [s]."""


def open_driver(config: AllegroConfig, joints: Sequence[str]) -> Allegro:
    """The hand, checked, with its motor stage on, holding where it is.

    One that is on already keeps the torques that it has until the first ``write``: they may be a grip.

    Raises:
        ConfigError: If ``joints`` are not the hand's sixteen, or the hand on the bus is another than configured.
        DriverError: If the hand does not answer or not every finger reports; nothing has moved then.
    """
    if sorted(joints) != sorted(JOINTS):
        raise ConfigError(f"an Allegro hand has the joints {sorted(JOINTS)}, got {list(joints)}")
    return Allegro(config, tuple(joints))


class Allegro:
    """The driver; see the module for what its methods do physically."""

    def __init__(self, config: AllegroConfig, joints: tuple[str, ...]):
        self.config, self.joints = config, joints
        self._to = np.array([JOINTS.index(j) for j in joints])  # where each of ours is in the hand's order
        self._low, self._high = np.array([LIMITS[j] for j in JOINTS]).T
        self._loop: Loop | None = None
        self._kept: Kept | None = None
        self._reported = ""
        self.goals = 0
        """Commands handed to the loop so far."""
        self._open()

    @property
    def fault(self) -> str:
        """``<name>: <what>`` as of the last ``read``, '' for none; latched until ``recover``."""
        return self._reported

    def read(self) -> RobotState:
        """The newest complete report of all four fingers.

        ``qd`` is a filtered difference of counts; ``tau`` is what was last sent, for the hand measures no torque.

        Raises:
            DriverError: If a finger has not reported for ``stale`` seconds.
        """
        loop = self._opened()
        seen, self._reported = loop.newest()
        age = time.monotonic() - seen.t
        if age > self.config.stale:
            raise DriverError(self._reported or f"the hand's newest report is {age * 1e3:.0f} ms old")
        return RobotState(t=seen.t, seq=seen.seq, q=seen.q[self._to], qd=seen.qd[self._to], tau=seen.tau[self._to])

    def write(self, command: Command) -> None:
        """Goals of the position loop, clipped to the joints' ranges, with the command's gains where it has them.

        Raises:
            CommandRefused: If it is not sixteen finite numbers, or gains are beyond the configured ones; the loop
                goes on with what it had.
            DriverError: If the hand is in a fault.
        """
        q, stiffness, damping = checked(command, self.joints)
        c = self.config
        for name, gain, most in (("stiffness", stiffness, c.stiffness_max), ("damping", damping, c.damping_max)):
            if gain is not None and gain.max() > most:
                raise CommandRefused(f"{name} must be at most {most}, got {gain.max()}")
        loop = self._opened()
        self._reported = loop.newest()[1]
        if self._reported:
            raise DriverError(f"the hand does not follow: {self._reported}")
        ours = [q, np.full(16, c.stiffness) if stiffness is None else stiffness]
        ours.append(np.full(16, c.damping) if damping is None else damping)
        goal, k, d = (self._theirs(x) for x in ours)
        loop.follow(np.clip(goal, self._low, self._high), k, d)
        self.goals += 1

    def stop(self, reason: str) -> None:
        """Hold: joints that press keep their goal, the others stop where they are.  The loop goes on."""
        self._opened().hold()

    def recover(self) -> None:
        """Look for the hand again, switch its motor stage on if it is off, and hold where it is, with the same grip.

        Raises:
            DriverError: If the hand does not answer, a finger stays silent, or it is still too hot.
        """
        if self._loop is not None:
            self._loop.hold()
            self._kept = self._loop.kept()
            self._loop.close()
        self._open()

    def close(self) -> None:
        """Hold, wait for rest, and leave the hand with the torques that held it."""
        if self._loop is None:
            return
        self._loop.hold()
        time.sleep(SETTLE)
        self._loop.await_that(self._loop.rests, REST_WITHIN)
        self._loop.close(leave=True)
        self._loop = None

    def _open(self) -> None:
        c = self.config
        self._loop = loop = Loop(c)
        try:
            loop.await_that(lambda: loop.serial is not None and loop.info is not None, PATIENCE, loop.ask)
            if loop.serial is None or loop.info is None:
                raise DriverError(f"no Allegro hand answers as device {c.device} on {c.interface} {c.channel}")
            hand, kind = ("right" if loop.serial[3:4] == b"R" else "left"), loop.serial[2:3].decode(errors="replace")
            if (hand, kind) != (c.hand, c.kind):
                raise ConfigError(f"the hand on the bus is a {hand} {kind} ({loop.serial!r}), not a {c.hand} {c.kind}")
            loop.report()
            loop.await_that(lambda: loop.newest()[0].seq >= 2, PATIENCE)
            self._check(loop)
            loop.engage(self._kept)
            loop.await_that(lambda: loop.servo_on(), PATIENCE, loop.ask)
            if not loop.servo_on():
                raise DriverError("the hand's motor stage does not switch on: check its supply and its emergency stop")
        except BaseException:
            loop.close()
            self._loop = None
            raise
        self._reported = ""

    def _check(self, loop: Loop) -> None:
        seen, fault = loop.newest()
        if seen.seq < 2:
            silent = [f for f, t in zip(FINGERS, loop.heard, strict=True) if not np.isfinite(t)]
            raise DriverError(f"no complete report of the fingers: silent are {silent or 'none, but not together'}")
        if fault:
            raise DriverError(fault)
        for joint, angle, low, high in zip(JOINTS, seen.q, self._low, self._high, strict=True):
            if not low - OFF_RANGE <= angle <= high + OFF_RANGE:
                raise DriverError(f"{joint} reads {angle:.2f} rad, its range is {low} to {high}: calibrate the hand")

    def _opened(self) -> Loop:
        if self._loop is None:
            raise DriverError("the hand is closed")
        return self._loop

    def _theirs(self, ours: Array) -> Array:
        out = np.empty(16)
        out[self._to] = ours
        return out
