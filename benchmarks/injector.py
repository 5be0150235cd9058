"""One robot, one filter, one policy and whatever goes wrong between them, tick by tick on an injected clock.

A ``Fault`` stands on the wires: what the driver delivers, what the policy sends, what the clock says, what an
operator does.  Everything is seeded.  ``Rig.run`` leaves an ``Outcome``, which ``faults_case.broken`` judges.
"""

from __future__ import annotations

import json
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

Array = np.ndarray

DT = 0.001
BEGIN = 150
"""Tick at which faults begin unless they say otherwise: the robot moves by then."""
ENDLESS = 1 << 40
EVERY = 50
"""Ticks between chunks: a policy of 20 Hz."""
CELL = "arm_hand"
"""Constraint file of a case that names no other."""


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
def constraints(cell: str = CELL) -> ConstraintSet:
    """Those of a case."""
    return load(files("palmar.configs") / "constraints" / f"{cell}.yaml", robot().limits)  # type: ignore[arg-type]


@cache
def _count(cell: str = CELL) -> Count:
    return Count(robot(), constraints(cell))


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
        self.filter = Filter(model, constraints(cell), FilterConfig(chunks=ChunkConfig(jump=jump)))
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
