"""The control process's end of a wire: ``Robot`` over a shared file whose other end is a device process or the twin."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from palmar.real_robot import shared
from palmar.real_robot.drivers.error import DriverError, checked
from palmar.real_robot.layout import LAYOUTS
from palmar.safety.types import Command
from palmar.sim.interface import RobotState

FRESH = 0.02
"""A state older than this counts as none, where nothing else is declared [s]."""

RECOVERING = "recovering"
"""Fault while the other end has not heeded a recovery yet."""


class WireRobot:
    """A ``Robot`` somewhere else on this machine.

    ``stop`` asks the other end to rest by its own means: the twin holds its last target, a device process calls its
    driver's ``stop``.  If this end falls silent, the other end's watchdog does the same.
    """

    def __init__(
        self,
        joints: Sequence[str],
        path: Path,
        *,
        kind: str = "device",
        robot: str | None = None,
        fresh: float = FRESH,
        timeout: float = 5.0,
    ):
        """Attach to the wire at ``path``.

        Args:
            joints: Joints of the wire, in its order.
            path: The shared file.
            kind: ``device`` or ``twin``.
            robot: Hash of the robot model it must have been made for; None takes any.
            fresh: A state older than this counts as none [s].
            timeout: How long to wait for the file [s].

        Raises:
            SharedMemoryError: If there is none in time, or it is of another kind, robot or order of joints.
        """
        self.joints, self.fresh = tuple(joints), fresh
        self._map = shared.wait_attach(path, LAYOUTS, kind=kind, robot=robot, timeout=timeout)
        if self._map.description.joints != self.joints:
            raise shared.SharedMemoryError(f"{path} has other joints: {self._map.description.joints}")
        self._state, self._command = self._map.blocks["state"], self._map.blocks["command"]
        old = self._command.read()
        self._recover = int(old["recover"]) if old is not None else 0
        self._seq = int(old["seq"]) if old is not None else 0
        self._fault, self._q = "", np.full(len(self.joints), np.nan)

    @property
    def fault(self) -> str:
        """Name of the hardware's fault at the last ``read``, '' for none."""
        return self._fault

    def read(self) -> RobotState:
        """The newest state.

        Raises:
            DriverError: If none ever arrived, or none for ``fresh`` seconds.
        """
        try:
            s = self._state.read()
        except shared.TornRead as error:
            raise DriverError(f"no state of {self.joints[0]} and the others on its wire: {error}") from error
        if s is None or not int(s["seq"]):
            raise DriverError(f"no state yet of {self.joints[0]} and the others on its wire")
        # until the hardware has heeded a recovery it still reports the fault that was recovered from
        self._fault = s["fault"].decode() if int(s["recovered"]) == self._recover else RECOVERING
        age = time.monotonic() - float(s["t"])
        if age > self.fresh:
            why = f" ({self._fault})" if self._fault else ""
            raise DriverError(
                f"the newest state of {self.joints[0]} and the others on its wire is {age * 1e3:.0f} ms old, "
                f"at most {self.fresh * 1e3:.0f} ms{why}"
            )
        self._q = s["q"]
        return RobotState(t=float(s["t"]), seq=int(s["seq"]), q=s["q"], qd=s["qd"], tau=s["tau"])

    def write(self, command: Command) -> None:
        """Send one tick of joint targets, with stiffness and damping where the command has both.

        The twin ignores a command that asks for more stiffness or damping than its servos have.

        Raises:
            CommandRefused: If it is not finite, of another shape, or a gain is negative.
            DriverError: If the hardware reported a fault: it does not follow until ``recover``.
        """
        q, stiffness, damping = checked(command, self.joints)
        if self._fault:
            raise DriverError(self._fault)
        r = self._command.record
        r["impedance"] = stiffness is not None
        if stiffness is not None:
            r["stiffness"], r["damping"] = stiffness, damping
        self._send(q, command.stamp, active=1)

    def stop(self, reason: str) -> None:
        """The other end rests by itself and no longer waits for commands."""
        self._command.record["reason"] = reason
        self._send(self._command.record["q"].copy(), time.monotonic(), active=0)

    def recover(self) -> None:
        """Clear the hardware's fault (Franka's ``automaticErrorRecovery``); the next command is followed."""
        self._recover += 1
        q = self._q if np.isfinite(self._q).all() else self._command.record["q"].copy()
        self._send(q, time.monotonic(), active=0)

    def close(self) -> None:
        """Let go of the wire; the other end's watchdog sees that nobody commands it."""
        self._map.close()

    def _send(self, q: object, stamp: float, *, active: int) -> None:
        self._seq += 1
        r = self._command.record
        r["seq"], r["stamp"], r["q"], r["active"], r["recover"] = self._seq, stamp, q, active, self._recover
        self._command.write()
