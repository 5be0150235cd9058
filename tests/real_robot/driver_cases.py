"""What the contract test needs of a driver: a fresh pair of driver and hardware, and ways to hurt the hardware.

A driver's cases live in ``<name>_case.py`` beside this file, which is found by its name: ``cases() -> list[Case]``,
cheap to call.  Everything happens inside ``make``.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

PRIORITY = 15
"""Real-time priority of driver and fake, where it is allowed: a busy machine is no broken hardware."""


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

    def grip(self) -> Any:
        """How hard each joint presses on the object, (n,); hands only."""


@dataclass(frozen=True)
class Case:
    """One driver against one (fake) hardware."""

    name: str
    make: Callable[..., AbstractContextManager[tuple[Any, Controls]]]
    """Gets an empty folder; yields (driver, controls) with the hardware at rest and the driver able to read.

    A hand's also takes ``ahead``: an object that stops every joint so far from where it starts [rad], see ``Grasp``.
    """
    rate: float
    """Cycles per second of write and read [Hz] at which the contract drives it."""
    faults: tuple[str, ...]
    """Faults that ``raise_fault`` knows, as ``driver.fault`` must name them (it may say more: the name is in it).

    () for hardware that tells of none: the law about faults is then skipped, and says so.
    """
    cut_within: float = 0.1
    """Declared time after a cut within which ``read`` raises DriverError [s]."""
    watchdog: float | None = None
    """Declared time without commands after which the hardware acts by itself [s]; None: it has no watchdog."""
    reach: float = 0.1
    """How far from the start the contract moves each joint [rad]."""
    tolerance: float = 0.02
    """How near the joints come to a standing target, and how far they may drift while holding [rad]."""
    hand: bool = False
    """Whether it may hold something, and so goes on pressing after ``stop`` and ``close``."""


def gather() -> list[Case]:
    """The cases of every ``*_case.py`` that has some."""
    names = sorted(path.stem for path in Path(__file__).parent.glob("*_case.py"))
    found = [importlib.import_module(name) for name in names]
    return [case for module in found if hasattr(module, "cases") for case in module.cases()]


@contextmanager
def as_a_device(*, children: bool = True):
    """This thread at a device's real-time priority, where that is allowed; and those it starts, if ``children``."""
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    policy = os.SCHED_FIFO if children else os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
    try:
        os.sched_setscheduler(0, policy, os.sched_param(PRIORITY))
    except PermissionError:
        pass
    try:
        yield
    finally:
        os.sched_setscheduler(0, *before)
