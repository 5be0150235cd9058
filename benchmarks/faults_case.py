"""A named case of the fault matrix: what goes wrong, what must come of it, and what must never be.

Limits are counted by ``benchmarks.count``, which shares no code with the filter.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from palmar.benchmarks.injector import DT, Fault, Outcome, Rig, constraints, robot
from palmar.safety.filter import Filter
from palmar.safety.types import CommandRefused, State
from palmar.safety.watchdog import rest_within

Array = np.ndarray

NAMED = re.compile(r"[a-z][a-z0-9_:]*")
"""A reason is a name, not a sentence."""


@dataclass(frozen=True)
class Expect:
    """What must come of a fault, besides what always must."""

    within: int | None = None
    """Ticks from the fault's begin in which the filter must have left RUN; None: it need not."""
    reasons: tuple[str, ...] = ()
    """Names of which the first reason must be one; empty for any."""
    stop: bool | None = None
    """Whether the run must end in STOP or LATCHED (True), must never be there (False), or may (None)."""
    calm: bool = False
    """The filter must not leave RUN at all."""
    resumes: bool = False
    """The run must end in RUN."""
    refused: int = 0
    """Chunks that must at least have been refused."""
    flagged: tuple[str, ...] = ()
    """Reasons that must each have been given at some tick."""
    also: Callable[[Rig], list[str]] | None = None
    """Anything else that must not be, looked at after the run."""


@dataclass(frozen=True)
class Case:
    """A named case of a row of the fault matrix, run in process."""

    row: int
    name: str
    faults: tuple[Fault, ...]
    expect: Expect
    ticks: int = 500
    smoke: bool = False
    """Whether every test run includes it."""
    options: tuple[tuple[str, object], ...] = ()
    """Further arguments of ``Rig``."""
    seed: int = 0
    refuses: Callable[[Array], Array] | None = None
    """If given, the start itself is what must be refused, from the positions that this makes of true ones."""

    @property
    def id(self) -> str:
        """As it is listed."""
        return f"row{self.row:02d}-{self.name}"

    def run(self) -> list[str]:
        """What is broken, empty if nothing is."""
        rig = Rig(seed=self.seed, faults=self.faults, **dict(self.options))  # type: ignore[arg-type]
        if self.refuses is not None:
            return self._refused(rig)
        found = broken(rig.run(self.ticks), self.expect)
        return found + (self.expect.also(rig) if self.expect.also else [])

    def _refused(self, rig: Rig) -> list[str]:
        """Whether a fresh filter refuses to start, and names a joint or what it needs."""
        assert self.refuses is not None
        fresh = Filter(rig.robot, constraints())
        try:
            fresh.start(replace(rig.delivered, q=self.refuses(rig.delivered.q)))
        except CommandRefused as error:
            return [] if str(error) else ["refused without a reason"]
        return ["started from positions that cannot be"]


def broken(outcome: Outcome, expect: Expect) -> list[str]:
    """What must not be: the invariants of every run, then what was expected of this one."""
    return [*_invariants(outcome), *_surprises(outcome, expect)]


def _invariants(o: Outcome) -> list[str]:
    """Limits kept, reasons named, no way out of a stop without a reset, rest in the declared time, a log."""
    found, counted = [], o.counted
    assert counted is not None
    if counted.violations:
        worst = {k: t for k, t in counted.tallies.items() if t.violations}
        found.append(f"limits exceeded: {worst}")
    for k, (state, reason) in enumerate(zip(o.states, o.reasons, strict=True)):
        if (state is not State.RUN or reason) and not NAMED.fullmatch(reason):
            found.append(f"tick {k}: {state.value} for {reason!r}, which is no name")
            break
    stopped = (State.STOP, State.LATCHED)
    for k in range(1, len(o.states)):
        if o.states[k - 1] in stopped and o.states[k] not in stopped and k not in o.resets:
            found.append(f"tick {k}: from {o.states[k - 1].value} to {o.states[k].value} without a reset")
        if o.states[k - 1] is State.LATCHED and o.states[k] is State.STOP and k not in o.resets:
            found.append(f"tick {k}: from latched to stop")
    longest = round(rest_within(robot().limits, 0.0, DT) / DT)
    run = 0
    for k, state in enumerate(o.states):
        run = run + 1 if state is State.STOP else 0
        if run > longest:
            found.append(f"tick {k}: no rest after {longest} ticks of STOP")
            break
    if not all(isinstance(json.loads(line), dict) for line in o.log().splitlines()):
        found.append("the log cannot be read")
    return found


def _surprises(o: Outcome, e: Expect) -> list[str]:
    """What is not as expected."""
    found = []
    if o.begin and o.begin <= len(o.states) and (e.within is not None or e.calm):
        if State.RUN not in o.states[: o.begin]:
            return [f"never in RUN before the fault: {o.log()}"]
    left = o.left_run()
    if e.calm and left is not None:
        found.append(f"left RUN at tick {left} for {o.reasons[left]!r}")
    if e.within is not None:
        if left is None or left - o.begin > e.within:
            found.append(f"left RUN {'never' if left is None else left - o.begin} ticks after, need <= {e.within}")
        elif e.reasons and o.reasons[left] not in e.reasons:
            found.append(f"reason {o.reasons[left]!r}, expected {e.reasons}")
    ended = o.states[-1] in (State.STOP, State.LATCHED)
    if e.stop is True and not ended:
        found.append(f"ended in {o.states[-1].value}, expected a stop: {o.log()}")
    if e.stop is False and any(s in (State.STOP, State.LATCHED) for s in o.states):
        found.append(f"stopped: {o.log()}")
    if e.resumes and o.states[-1] is not State.RUN:
        found.append(f"ended in {o.states[-1].value}, expected run: {o.log()}")
    found += [f"never flagged {name!r}" for name in e.flagged if name not in o.reasons]
    if len(o.refused) < e.refused:
        found.append(f"{len(o.refused)} refused, expected at least {e.refused}")
    return found
