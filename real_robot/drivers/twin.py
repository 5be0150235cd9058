"""Driver of the simulated hardware: ``Robot`` over the twin's shared file, as libfranka is one over UDP."""

from __future__ import annotations

import time
from pathlib import Path

from palmar.real_robot import shared
from palmar.real_robot.drivers.error import DriverError
from palmar.real_robot.layout import LAYOUTS
from palmar.safety.robot import RobotModel
from palmar.safety.types import Command
from palmar.sim.interface import RobotState

FRESH = 0.02
"""A state older than this counts as none [s]."""


class TwinRobot:
    """The driver's end of the twin's wire.

    ``stop`` makes the twin hold the last commanded position, which is what the FR3 does when a motion
    generator finishes at rest; from motion it is a jump that the drives have to absorb.
    """

    def __init__(self, model: RobotModel, path: Path, *, timeout: float = 5.0):
        self.model = model
        self._map = shared.wait_attach(path, LAYOUTS, kind="twin", robot=model.hash(), timeout=timeout)
        if self._map.description.joints != model.joints:
            raise shared.SharedMemoryError(f"{path} has other joints: {self._map.description.joints}")
        self._state, self._command = self._map.blocks["state"], self._map.blocks["command"]
        old = self._command.read()
        self._recover = int(old["recover"]) if old is not None else 0
        self._seq = int(old["seq"]) if old is not None else 0
        self._fault = ""

    @property
    def fault(self) -> str:
        """Name of the hardware's fault at the last ``read``, '' for none."""
        return self._fault

    def read(self) -> RobotState:
        """The newest state.

        Raises:
            DriverError: If none ever arrived, or none for ``FRESH`` seconds.
        """
        s = self._state.read()
        if s is None:
            raise DriverError("no state from the twin yet")
        age = time.monotonic() - float(s["t"])
        if age > FRESH:
            raise DriverError(f"the twin's newest state is {age * 1e3:.0f} ms old, at most {FRESH * 1e3:.0f} ms")
        # until the hardware has heeded a recovery it still reports the fault that was recovered from
        self._fault = s["fault"].decode() if int(s["recovered"]) == self._recover else ""
        return RobotState(t=float(s["t"]), seq=int(s["seq"]), q=s["q"], qd=s["qd"], tau=s["tau"])

    def write(self, command: Command) -> None:
        """Send one tick of joint targets, with stiffness and damping where the command has both.

        The twin ignores a command that asks for negative ones or more than its servos have.

        Raises:
            DriverError: If the hardware reported a fault: it does not follow until ``recover``.
        """
        if self._fault:
            raise DriverError(self._fault)
        r, gains = self._command.record, (command.stiffness, command.damping)
        r["impedance"] = all(g is not None for g in gains)
        if r["impedance"]:
            r["stiffness"], r["damping"] = gains
        self._send(command.q, command.stamp, active=1)

    def stop(self, reason: str) -> None:
        """The twin holds its last position; its watchdog no longer waits for commands."""
        self._send(self._command.record["q"].copy(), time.monotonic(), active=0)

    def recover(self) -> None:
        """Clear the hardware's fault (Franka's ``automaticErrorRecovery``); the next command is followed."""
        self._recover += 1
        state = self._state.read()
        q = state["q"] if state is not None else self.model.home
        self._send(q, time.monotonic(), active=0)

    def close(self) -> None:
        """Let go of the wire."""
        self._map.close()

    def _send(self, q: object, stamp: float, *, active: int) -> None:
        self._seq += 1
        r = self._command.record
        r["seq"], r["stamp"], r["q"], r["active"], r["recover"] = self._seq, stamp, q, active, self._recover
        self._command.write()
