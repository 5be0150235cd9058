"""One robot, one filter, one policy and whatever goes wrong between them, tick by tick on an injected clock.

A ``Fault`` stands on the wires: what the driver delivers, what the policy sends, what the clock says, what an
operator does.  Everything is seeded.  ``Rig.run`` leaves an ``Outcome``, and ``broken`` names what in it must not be:
limits are counted by ``benchmarks.count``, which shares no code with the filter.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files

import numpy as np

from palmar.benchmarks.count import Count, Counted
from palmar.benchmarks.plant import Plant, Reading, robot_and_world
from palmar.real_robot.config import TwinConfig
from palmar.safety.chunks import ChunkConfig
from palmar.safety.constraints import ConstraintSet, load
from palmar.safety.filter import Filter, FilterConfig
from palmar.safety.robot import RobotModel
from palmar.safety.types import Chunk, CommandRefused, People, State
from palmar.safety.watchdog import rest_within

Array = np.ndarray

DT = 0.001
BEGIN = 150
"""Tick at which faults begin unless they say otherwise: the robot moves by then."""
ENDLESS = 1 << 40
EVERY = 50
"""Ticks between chunks: a policy of 20 Hz."""
CELL = "arm_hand"
"""Constraint file of a case that names no other."""
NAMED = re.compile(r"[a-z][a-z0-9_:]*")
"""A reason is a name, not a sentence."""
BINDING = ("joint_position", "joint_velocity", "joint_acceleration", "joint_jerk", "self_clearance", "table_clearance")


@dataclass(frozen=True)
class Fault:
    """What goes wrong, in ticks ``begin <= k < end``; what it does not touch it leaves None."""

    name: str
    reading: Callable[[Rig, Reading], Reading | None] | None = None
    """The reading that is delivered instead; None for none at all."""
    chunk: Callable[[Rig, Chunk], list[Chunk]] | None = None
    """The chunks that arrive instead, in this order."""
    clock: Callable[[Rig, float], float] | None = None
    """The monotonic time of the tick instead [s]; the machine's, so chunks are stamped by it too."""
    act: Callable[[Rig], object] | None = None
    """Anything else, before the tick: buttons, kicks, a solver that fails."""
    command: Callable[[Rig, Array], Array | None] | None = None
    """What reaches the drives instead of the sent positions (n,)."""
    people: Callable[[Rig], People | None] | None = None
    """The tracker's newest message; the cell must be one that separates from people."""
    begin: int = BEGIN
    end: int = ENDLESS

    def moved(self, ticks: int) -> Fault:
        """The same, so many ticks later."""
        return replace(self, begin=self.begin + ticks, end=self.end + ticks)


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


@dataclass
class Outcome:
    """A run, as it can be read from its log."""

    states: list[State] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    sent: list[Array] = field(default_factory=list)
    resets: list[int] = field(default_factory=list)
    """Ticks before which an operator's reset was accepted."""
    refused: list[str] = field(default_factory=list)
    counted: Counted | None = None
    begin: int = BEGIN

    def log(self) -> str:
        """What happened, one JSON object per change of state or reason."""
        lines, last = [], None
        for k, now in enumerate(zip(self.states, self.reasons, strict=True)):
            if now != last:
                lines.append(json.dumps({"tick": k, "state": now[0].value, "reason": now[1]}))
            last = now
        return "\n".join(lines)

    def left_run(self) -> int | None:
        """First tick from the fault's begin on that was not in RUN."""
        return next((k for k in range(self.begin, len(self.states)) if self.states[k] is not State.RUN), None)


def robot() -> RobotModel:
    """The robot of every case."""
    return robot_and_world(0)[0]


@cache
def _constraints(cell: str = CELL) -> ConstraintSet:
    return load(files("palmar.configs") / "constraints" / f"{cell}.yaml", robot().limits)  # type: ignore[arg-type]


@cache
def _count(cell: str = CELL) -> Count:
    return Count(robot(), _constraints(cell))


class Sway:
    """The policy without fault: arm and hand sway about where they started, softly at first."""

    def __init__(self, start: Array, n_arm: int, seed: int) -> None:
        """About ``start`` (n,)."""
        rng, n = np.random.default_rng(seed), len(start)
        self.start, self.phase = start, rng.uniform(0, 2 * np.pi, n)
        self.size = np.where(np.arange(n) < n_arm, 0.12, 0.2)
        self.pace = 2 * np.pi * np.where(np.arange(n) < n_arm, 0.7, 1.0)

    def __call__(self, rig: Rig, t: Array) -> Array:
        """Targets (H, n) at times (H,) since the start [s]."""
        angle = self.pace * t[:, None] + self.phase
        return self.start + np.minimum(1.0, 5 * t[:, None]) * self.size * (np.sin(angle) - np.sin(self.phase))


class Rig:
    """The robot, its filter, and the wires on which faults stand."""

    def __init__(
        self,
        *,
        seed: int,
        faults: tuple[Fault, ...] = (),
        start: Array | None = None,
        policy: Callable[[Rig, Array], Array] | None = None,
        jump: float = 1.5,
        config: TwinConfig | None = None,
        cell: str = CELL,
    ) -> None:
        """Started, in HOLD.

        Args:
            seed: Of everything.
            faults: In the order in which they stand on the wires.
            start: Joint positions [rad], (n,); None for the robot's home.
            policy: Targets (H, n) for times (H,) since the start; None for ``Sway``.
            jump: ``ChunkConfig.jump``.
            config: Imperfections of the readings.
            cell: Name of the constraint file.
        """
        model = robot()
        self.robot, self.rng, self.faults = model, np.random.default_rng(seed), faults
        self.plant = Plant(seed=seed, start=model.home if start is None else start, config=config)
        self.cell, self.people = cell, People(np.zeros((0, 2, 3)), np.zeros(0), np.zeros((0, 3)), self.plant.now)
        self.filter = Filter(model, _constraints(cell), FilterConfig(chunks=ChunkConfig(jump=jump)))
        self.policy = policy or Sway(self.plant.q, model.n_arm, seed)
        self.k = self.seq = 0
        self.origin = self.now = self.plant.now
        self.memory: dict[str, object] = {}
        """Scratch of the faults, by name."""
        self.late: list[tuple[int, Chunk]] = []
        """Chunks under way, with the tick of their arrival."""
        self.outcome = Outcome(begin=min((f.begin for f in faults), default=BEGIN))
        self.delivered = self.plant.read()
        self.filter.start(self.delivered)
        self.outcome.sent.append(self.filter.u.copy())

    def run(self, ticks: int) -> Outcome:
        """So many milliseconds."""
        for _ in range(ticks):
            self._tick()
        self.outcome.counted = _count(self.cell)(np.array(self.outcome.sent), DT)
        return self.outcome

    def active(self) -> list[Fault]:
        """Faults of this tick."""
        return [f for f in self.faults if f.begin <= self.k < f.end]

    def _tick(self) -> None:
        faults, now = self.active(), self.plant.now
        for f in faults:
            now = f.clock(self, now) if f.clock else now
        self.now = now
        self._publish(faults)
        reading: Reading | None = self.plant.read()
        for f in faults:
            if f.reading and reading is not None:
                reading = f.reading(self, reading)
            if f.act:
                f.act(self)
        self.delivered = reading or self.delivered
        self._track(faults, now)
        command, verdict = self.filter.tick(self.delivered, now, people=self.people)
        sent: Array | None = command.q
        self.outcome.sent.append(command.q)
        self.outcome.states.append(verdict.state)
        self.outcome.reasons.append(verdict.reason)
        for f in faults:
            sent = f.command(self, sent) if f.command and sent is not None else sent
        self.plant.step(sent)
        self.k += 1

    def _track(self, faults: list[Fault], now: float) -> None:
        """Let the tracker see that nobody is there, or what a fault says; None is silence."""
        seen: People | None = replace(self.people, received=now)
        for f in faults:
            seen = f.people(self) if f.people else seen
        self.people = seen or self.people

    def _publish(self, faults: list[Fault]) -> None:
        """Let the policy think, and what it sent arrive."""
        chunks = [self.make()] if self.k % EVERY == 5 else []
        for f in faults:
            if f.chunk:
                chunks = [c for x in chunks for c in f.chunk(self, x)]
        chunks += [c for k, c in self.late if k == self.k]
        self.late = [(k, c) for k, c in self.late if k > self.k]
        for c in chunks:
            self.offer(c)

    def make(self) -> Chunk:
        """The policy's next chunk."""
        self.seq += 1
        t = 0.02 + 0.05 * np.arange(4)
        return Chunk(
            q=self.policy(self, self.plant.now - self.origin + t), t=self.now + t, seq=self.seq, received=self.now
        )

    def offer(self, chunk: Chunk) -> None:
        """A chunk arrives."""
        try:
            self.filter.offer(chunk)
        except CommandRefused as error:
            self.outcome.refused.append(str(error))

    def reset(self) -> bool:
        """An operator asks for a reset; whether it was accepted."""
        try:
            self.filter.reset()
        except CommandRefused as error:
            self.outcome.refused.append(str(error))
            return False
        self.outcome.resets.append(self.k)
        return True


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
        fresh = Filter(rig.robot, _constraints())
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
