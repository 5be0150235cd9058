"""The operator's end of a running control process: what it does, and the four things one may ask of it.

No ROS is needed: the control process's shared file says everything, and its block ``operator`` takes the requests.
The services of the bridge ask for the same four things over ROS.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from palmar.real_robot import records, shared
from palmar.real_robot.layout import FRESH, LAYOUTS, OPERATOR, STATES
from palmar.safety.types import PalmarError, State

ANSWER = 0.5
"""How long to wait for what was asked [s]."""
PATTERN = "palmar-*-control"
"""Names of control processes' shared files."""
OUTCOMES = {"estop": (State.STOP, State.LATCHED), "stop": (State.STOP, State.LATCHED), "reset": (State.HOLD, State.RUN)}
"""What a request leads to; ``release`` changes no state."""


class OperatorError(PalmarError):
    """There is no such control process, another operator has it, or it does not do what it was asked."""


@dataclass(frozen=True)
class Status:
    """One look at the control process."""

    silent: float
    """Age of what is shown [s]; above ``FRESH`` nobody controls the robot."""
    state: str
    reason: str
    active: tuple[str, ...]
    """Constraints whose row or bound is active in this tick."""
    margins: dict[str, float]
    """Margin per constraint now, in its own SI unit; constraints that no robot can measure are left out."""
    worst: dict[str, float]
    """The smallest of the whole run."""
    foreseen: str
    """What the chunk in use will violate, '' for nothing."""
    foreseen_in: float | None
    """In how long [s]."""
    chunk_age: float | None
    """Since the chunk in use came [s]; None before the first."""
    reading_age: float
    """Since the robot was read [s]."""
    compute_ms: float
    """Processor time of the last tick [ms]."""
    late_max_ms: float
    ticks: int
    missed: int
    chunks: int
    refused: int
    refusal: str
    driver_errors: int
    intervention_s: float
    realtime: bool

    @property
    def alive(self) -> bool:
        """Whether a control process runs."""
        return self.silent <= FRESH


def running(folder: Path | None = None) -> list[Path]:
    """Shared files of control processes that live, oldest first."""
    folder = folder or shared.directory()
    return [p for p in sorted(folder.glob(PATTERN), key=_age) if _lives(p)]


def the_one(paths: Iterable[Path]) -> Path:
    """The only one of them.

    Raises:
        OperatorError: If there is none, or more than one.
    """
    found = list(paths)
    if not found:
        raise OperatorError("no control process runs on this machine; start one with palmar deploy")
    if len(found) > 1:
        raise OperatorError(f"{len(found)} control processes run, say which with --memory: {[str(p) for p in found]}")
    return found[0]


class Operator:
    """Looks at one control process and, while it holds the lease, asks it for things.  Use as a context."""

    def __init__(self, path: Path, *, ask: bool = True):
        """Attach to the shared file ``path``; ``ask`` also takes the lease.

        Raises:
            OperatorError: If another operator holds the lease.
            SharedMemoryError: If it is no control process's file.
        """
        self._map = shared.attach(path, LAYOUTS, kind="control")
        self.names = self._map.description.constraints
        self._block = self._map.blocks["operator"]
        self._lease: int | None = self._take(path) if ask else None
        if (old := self._block.read()) is not None:
            self._block.record[()] = old

    def _take(self, path: Path) -> int:
        """A lock on the shared file itself: the kernel lets go of it however this process ends."""
        lease = os.open(path, os.O_RDWR)
        try:
            fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lease)
            self._map.close()
            raise OperatorError("another operator has this robot; watch it with palmar monitor --watch") from error
        return lease

    def look(self) -> Status:
        """What is going on now.

        Raises:
            OperatorError: If the control process has not begun yet.
        """
        s = self._map.blocks["state"].latest()
        if s is None:
            raise OperatorError("the control process has not begun yet")
        return status(s, self.names, time.monotonic())

    def ask(self, what: str) -> Status:
        """Ask for one of ``OPERATOR`` and wait for what comes of it.

        Raises:
            OperatorError: If there is no such request, no lease, or it had no effect; a reset names what is in its way.
        """
        if what not in OPERATOR:
            raise OperatorError(f"unknown request {what!r}, accepted {list(OPERATOR)}")
        if self._lease is None:
            raise OperatorError("this monitor only watches; open one without --watch")
        record = self._block.record
        record[what] = int(record[what]) + 1
        self._block.write()
        if what == "release":
            return self.look()
        return self._until(what)

    def _until(self, what: str) -> Status:
        end, wanted = time.monotonic() + ANSWER, {s.value for s in OUTCOMES[what]}
        while True:
            now = self.look()
            if now.alive and now.state in wanted:
                return now
            if time.monotonic() > end:
                raise OperatorError(_no_effect(what, now))
            time.sleep(0.005)

    def __enter__(self) -> Operator:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._lease is not None:
            os.close(self._lease)
        self._map.close()


def status(s: Any, names: tuple[str, ...], now: float) -> Status:
    """A record of the block ``state`` in words; ``now`` is monotonic time [s]."""
    ahead = float(s["foreseen_t"]) - now
    return Status(
        silent=now - float(s["t"]),
        state=STATES[int(s["state"])].value,
        reason=s["reason"].decode(),
        active=records.active(s, names),
        margins=_known(names, s["margins"]),
        worst=_known(names, s["worst"]),
        foreseen=s["foreseen"].decode(),
        foreseen_in=ahead if np.isfinite(ahead) else None,
        chunk_age=float(s["chunk_age"]) if np.isfinite(s["chunk_age"]) else None,
        reading_age=now - float(s["read_t"]),
        compute_ms=1e3 * float(s["compute_s"]),
        late_max_ms=1e3 * float(s["late_max"]),
        ticks=int(s["index"]),
        missed=int(s["missed"]),
        chunks=int(s["chunks"]),
        refused=int(s["refused"]),
        refusal=s["refusal"].decode(),
        driver_errors=int(s["driver_errors"]),
        intervention_s=float(s["intervention_s"]),
        realtime=bool(s["realtime"]),
    )


def _known(names: tuple[str, ...], values: np.ndarray) -> dict[str, float]:
    return {name: float(v) for name, v in zip(names, values, strict=True) if np.isfinite(v)}


def _no_effect(what: str, now: Status) -> str:
    if not now.alive:
        return f"{what}: the control process has been silent for {now.silent:.1f} s"
    if what == "reset":
        return f"reset had no effect: the filter is in {now.state} ({now.reason}); it takes one in latched, released"
    return f"{what} had no effect within {ANSWER} s: the filter is in {now.state} ({now.reason})"


def _lives(path: Path) -> bool:
    try:
        os.kill(shared.owner(path), 0)
    except (OSError, PalmarError):
        return False
    return True


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
