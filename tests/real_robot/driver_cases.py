"""What the contract test needs of a driver: a fresh pair of driver and hardware, and ways to hurt the hardware.

A driver's cases live in ``<name>_case.py`` beside this file: ``cases() -> list[Case]``, cheap to call, and the
file's name stands in ``FILES``.  Everything happens inside ``make``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

FILES = ("wire_case", "leap_case", "allegro_case", "fr3_case", "ros2_control_case")


class Controls(Protocol):
    """The hardware's (or fake's) side of a case.  (n,) arrays in the driver's joint order [rad, N m]."""

    def cut(self) -> None:
        """Pull the cable: nothing passes in either direction."""

    def restore(self) -> None:
        """Plug it in again."""

    def raise_fault(self, name: str) -> None:
        """The hardware stops itself for ``name``, one of ``Case.faults``."""

    def reset(self) -> None:
        """What an operator does at the hardware before ``recover``: the cause of the fault goes away."""

    def position(self) -> Any:
        """Where the joints truly are, (n,)."""

    def holding(self) -> bool:
        """Whether the hardware resists: servos on, brakes closed, or (torque-only hands) its last torque."""

    def received(self) -> int:
        """Commands that reached the hardware so far."""


@dataclass(frozen=True)
class Case:
    """One driver against one (fake) hardware."""

    name: str
    make: Callable[[Path], AbstractContextManager[tuple[Any, Controls]]]
    """Gets an empty folder; yields (driver, controls) with the hardware at rest and the driver able to read."""
    rate: float
    """Cycles per second of write and read [Hz] at which the contract drives it."""
    faults: tuple[str, ...]
    """Faults that ``raise_fault`` knows, as ``driver.fault`` must name them (it may say more: the name is in it)."""
    cut_within: float = 0.1
    """Declared time after a cut within which ``read`` raises DriverError [s]."""
    watchdog: float | None = None
    """Declared time without commands after which the hardware acts by itself [s]; None: it has no watchdog."""
    reach: float = 0.1
    """How far from the start the contract moves each joint [rad]."""
    tolerance: float = 0.02
    """How near the joints come to a standing target, and how far they may drift while holding [rad]."""
    settle: float = 0.4
    """Time to come to rest [s]."""


def gather() -> list[Case]:
    """The cases of every file that is there."""
    found = [importlib.import_module(name) for name in FILES if find_spec(name) is not None]
    return [case for module in found for case in module.cases()]
