"""Faults of what commands ask for: rows 10 (adversaries), 11 (ends), 12 (singular poses, solver), 13 (collisions)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from palmar.benchmarks.faults_case import Case, Expect
from palmar.benchmarks.filter import Adversary
from palmar.benchmarks.injector import BEGIN, Fault, Rig, robot
from palmar.safety.qp import SOLVED
from palmar.safety.types import Chunk

Array = np.ndarray

ADVERSARIES = ("step", "chatter", "saturated", "random", "limits", "table", "self", "sweep", "ramp", "mixed")
FREE = (("jump", 10.0),)
"""Let any jump of the reference through the chunk check, so that the QP has to stop it."""


class Hostile:
    """Chunks of the benchmark's adversary, of one kind or of all, in place of the policy's."""

    def __init__(self, kind: str) -> None:
        """See ``ADVERSARIES``."""
        self.kind = kind

    def __call__(self, rig: Rig) -> None:
        """Before each tick."""
        enemy: Adversary = rig.memory.setdefault("enemy", None) or Adversary(rig.robot, rig.rng)  # type: ignore[assignment]
        rig.memory["enemy"] = enemy
        if self.kind == "ramp":
            if rig.k % 20 == 0:
                rig.seq += 1
                enemy.seq += 1
                q = rig.filter.u + 2.0 * (rig.k - BEGIN) / 100 * np.sign(rig.rng.normal(size=rig.robot.n))
                rig.offer(Chunk(q=q[None], t=np.array([rig.now + 0.05]), seq=10_000 + rig.seq, received=rig.now))
            return
        chunk = enemy.chunk(rig.k, rig.now, rig.filter.u)
        if self.kind != "mixed":
            enemy.kind = self.kind
        if chunk is not None:
            rig.offer(replace(chunk, seq=10_000 + chunk.seq))


def adversarial() -> Iterator[Case]:
    """Row 10: commands chosen to break limits."""
    mute = Fault("mute", chunk=lambda rig, c: [])
    for kind in ADVERSARIES:
        for seed in range(6):
            fault = Fault(kind, act=Hostile(kind))
            smoke = seed == 0 and kind in ("chatter", "saturated")
            yield Case(10, f"{kind}-{seed}", (mute, fault), Expect(), ticks=600, options=FREE, smoke=smoke, seed=seed)


def ends() -> Iterator[Case]:
    """Row 11: every joint pushed into both of its ends at full speed."""
    m = robot()
    for j, name in enumerate(m.joints):
        for end, goal in (("lower", m.limits.q_min[j] - 0.5), ("upper", m.limits.q_max[j] + 0.5)):

            def push(rig: Rig, t: Array, j: int = j, goal: float = goal) -> Array:
                q = np.tile(rig.robot.home, (len(t), 1))
                q[:, j] = goal
                return q

            options = (*FREE, ("policy", push))
            yield Case(
                11,
                f"{name}-{end}",
                (),
                Expect(),
                ticks=1200,
                options=options,
                smoke=(j, end) in ((3, "upper"), (7, "lower")),
            )


def singular() -> Iterator[Case]:
    """Row 12: singular poses and elbow flips are joint motions like others; a solver that fails is not believed."""
    home = robot().home
    poses = {
        "elbow-straight": {3: -0.2},
        "wrist-aligned": {5: 0.56},
        "wrist-aligned-upper": {5: 4.4},
        "shoulder-above": {0: 0.0, 1: 0.0},
        "elbow-and-wrist": {3: -0.2, 5: 0.6},
        "all-arm-joints-near-zero": {0: 0.0, 1: 0.0, 2: 0.0, 4: 0.0, 6: 0.0},
        "elbow-flip-left": {2: 2.6, 4: 2.6},
        "elbow-flip-right": {2: -2.6, 4: -2.6},
        "shoulder-flip": {0: 2.6, 1: -1.5},
        "wrist-flip": {4: -2.5, 6: 2.8},
    }
    for name, change in poses.items():

        def go(rig: Rig, t: Array, change: dict[int, float] = change) -> Array:
            goal = home.copy()
            goal[list(change)] = list(change.values())
            return np.tile(goal, (len(t), 1))

        yield Case(12, name, (), Expect(), ticks=1200, options=(*FREE, ("policy", go)), smoke=name == "elbow-straight")
    faults = ("infeasible", "not-feasible", "not-stationary", "not-complementary", "not-finite")
    for code, name in enumerate(faults, start=1):
        for ms in (1, 200):
            fault = Fault(name, act=_failing(code), end=BEGIN + ms + 1)
            expect = Expect(stop=False, resumes=ms == 1, flagged=(f"qp_{name.replace('-', '_')}",))
            yield Case(12, f"qp-{name}-for-{ms}-ticks", (fault,), expect, smoke=(code, ms) == (1, 200))


def _failing(code: int) -> Callable[[Rig], None]:
    """A solver that says it failed, and gives a wild answer."""

    def act(rig: Rig) -> None:
        fault = next(f for f in rig.faults if f.act is not None)
        if rig.k == fault.begin:
            rig.memory["solve"] = rig.filter.qp.solve
            wild = np.full(rig.robot.n, np.nan if code == 5 else 1e6)
            solve = rig.filter.qp.solve
            rig.filter.qp.solve = lambda *a, **k: (code, wild, *solve(*a, **k)[2:])  # type: ignore[method-assign]
        if rig.k == fault.end - 1:
            rig.filter.qp.solve = rig.memory["solve"]  # type: ignore[method-assign]

    assert code != SOLVED
    return act


def collisions() -> Iterator[Case]:
    """Row 13: targets in which links meet each other, fingers meet, or the hand is in the table."""
    for kind, n in (("self", 16), ("fingers", 12), ("table", 12)):
        for seed in range(n):
            options = (*FREE, ("policy", Colliding(kind, seed)))
            yield Case(13, f"{kind}-{seed}", (), Expect(), ticks=900, options=options, smoke=seed == 0, seed=seed)


class Colliding:
    """Goes to poses that cannot be, one after the other."""

    def __init__(self, kind: str, seed: int) -> None:
        """Of ``self`` (any pair), ``fingers`` (the hand closes at random) or ``table``."""
        self.kind, self.seed = kind, seed
        self.poses: list[Array] | None = None

    def __call__(self, rig: Rig, t: Array) -> Array:
        """Targets (H, n)."""
        if self.poses is None:
            rng, m = np.random.default_rng(self.seed), rig.robot.limits
            if self.kind == "fingers":
                hand = rng.uniform(m.q_min, m.q_max, (4, rig.robot.n))
                hand[:, : rig.robot.n_arm] = rig.robot.home[: rig.robot.n_arm]
                self.poses = list(hand)
            else:
                self.poses = Adversary(rig.robot, rng).bad[self.kind]
        pose = self.poses[(rig.k // 250) % len(self.poses)]
        return np.tile(pose, (len(t), 1))


def cases() -> Iterator[Case]:
    """All of them."""
    yield from (*adversarial(), *ends(), *singular(), *collisions())
