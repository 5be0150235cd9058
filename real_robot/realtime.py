"""Keeping a 1 kHz beat in Python: absolute deadlines, real-time priority, a core of its own, no garbage collection."""

from __future__ import annotations

import ctypes
import gc
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from palmar.safety.types import ConfigError

SPIN = 60e-6
"""The last stretch before a deadline is spun, at most; a longer spin meets the kernel's throttling [s]."""


@dataclass
class Beat:
    """Absolute deadlines every ``period`` seconds."""

    period: float
    missed: int = 0
    """Periods that began or ended too late to keep their deadline."""
    late_max: float = 0.0
    """Largest wake-up delay [s]."""
    late: float = 0.0
    """The last one [s]."""
    _next: float = 0.0

    def start(self) -> None:
        """The first deadline is one period from now."""
        self._next = time.monotonic() + self.period

    def wait(self) -> tuple[float, int]:
        """Sleep to the next deadline; the time now and how many periods were missed since the last call.

        Missed periods are skipped, never made up for in a burst.
        """
        remaining = self._next - time.monotonic()
        if remaining > SPIN:
            time.sleep(remaining - SPIN)
        now = time.monotonic()
        while now < self._next:
            now = time.monotonic()
        self.late = now - self._next
        self.late_max = max(self.late_max, self.late)
        skipped = int(self.late / self.period)
        self.missed += skipped
        self._next += (1 + skipped) * self.period
        return now, skipped


def go_realtime(priority: int) -> str:
    """Ask for SCHED_FIFO and locked memory; what was granted, in words."""
    granted = []
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
        granted.append(f"SCHED_FIFO {priority}")
    except (OSError, AttributeError) as error:
        granted.append(f"no real-time priority ({error})")
    libc = ctypes.CDLL(None, use_errno=True)
    locked = libc.mlockall(1) == 0  # MCL_CURRENT: MCL_FUTURE would fail later allocations at a low limit
    granted.append("memory locked" if locked else f"memory not locked ({os.strerror(ctypes.get_errno())})")
    return ", ".join(granted)


def reserve(asked: str | Sequence[int], *, least: int = 2) -> tuple[int, ...]:
    """The cores that the control process has for itself, of those that this process may use; () for none.

    Args:
        asked: ``auto`` takes the last core where there are ``least``; otherwise the cores by number, none of them too.
        least: With fewer cores than this ``auto`` takes none: the rest of the run would starve on what is left.

    Raises:
        ConfigError: If one of them is not ours to use, or none would be left for the other processes.
    """
    allowed = sorted(os.sched_getaffinity(0))
    if isinstance(asked, str):
        if asked != "auto":
            raise ConfigError(f"cores is {asked!r}, accepted 'auto' or a list of {allowed}")
        return (allowed[-1],) if len(allowed) >= least else ()
    if not set(asked) <= set(allowed) or set(asked) == set(allowed):
        raise ConfigError(f"cores is {list(asked)}, accepted 'auto' or a list of {allowed} that leaves one over")
    return tuple(sorted(set(asked)))


def keep(reserved: Sequence[int], *, inside: bool) -> str:
    """Keep this process, its threads and children, on the reserved cores or off them; where it is, in words."""
    if not reserved:
        return "on any core"
    cores = {core for core in os.sched_getaffinity(0) if (core in reserved) is inside}
    try:
        for task in Path("/proc/self/task").iterdir():
            os.sched_setaffinity(int(task.name), cores)
    except (OSError, ValueError) as error:
        return f"on any core ({error})"
    return f"on core {', '.join(map(str, sorted(cores)))}"


def prefer(nice: int) -> bool:
    """Ask for a larger share of the processor, or with a positive number for a smaller one; whether granted."""
    try:
        os.nice(nice)
    except OSError:
        return False
    return True


def is_realtime() -> bool:
    """Whether this process has real-time priority."""
    return hasattr(os, "sched_getscheduler") and os.sched_getscheduler(0) == os.SCHED_FIFO


def freeze_collector() -> None:
    """No garbage collection from here on; what exists is kept out of its sight."""
    gc.collect()
    gc.freeze()
    gc.disable()
