"""A driver whose hardware is a ``ServoPlant`` in the same process, and a device process that serves it.

``python toy_driver.py --config run.json --name arm`` is ``palmar.real_robot.device`` where ``toy_driver`` can be found.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from palmar.real_robot.drivers.error import DriverError, checked
from palmar.real_robot.fakes.plant import ServoPlant
from palmar.safety.types import Command
from palmar.sim.interface import RobotState


@dataclass(frozen=True)
class ToyConfig:
    home: tuple[float, ...]
    rate: float = 500.0
    report: str = ""
    """A file that every stop and close is noted in."""


class Toy:
    """``cut`` and ``raise_fault`` hurt it; ``received`` counts commands."""

    def __init__(self, config: ToyConfig, joints: Sequence[str]):
        self.config = config
        self.joints = tuple(reversed(joints))  # hardware has an order of its own
        self.plant = ServoPlant(np.array(config.home)[::-1])
        self.is_cut, self.received, self.stops, self.closed = False, 0, [], False
        self._fault, self._cause, self._seq = "", "", 0

    @property
    def fault(self):
        return self._fault

    def raise_fault(self, name):
        self._fault = self._cause = name
        self.plant.target(self.plant.measure()[0])

    def read(self):
        if self.is_cut:
            raise DriverError("cut")
        self._seq += 1
        return RobotState(time.monotonic(), self._seq, *self.plant.measure())

    def write(self, command: Command):
        q, _, _ = checked(command, self.joints)
        if self._fault or self.is_cut:
            raise DriverError(self._fault or "cut")
        self.received += 1
        self.plant.target(q)

    def stop(self, reason):
        self.note(f"stop {reason}")
        self.stops.append(reason)
        self.plant.target(self.plant.measure()[0])

    def recover(self):
        if self._cause:
            raise DriverError(f"{self._cause} is still there")
        self._fault = ""

    def close(self):
        self.note("close")
        self.closed = True

    def note(self, what):
        if self.config.report:
            with Path(self.config.report).open("a") as file:
                print(what, file=file)


def open_driver(config: ToyConfig, joints: Sequence[str]) -> Toy:
    return Toy(config, joints)


if __name__ == "__main__":
    import sys

    from palmar.real_robot import device

    sys.path.insert(0, str(Path(__file__).parent))  # PYTHONSAFEPATH keeps a script's own folder out

    raise SystemExit(device.main())
