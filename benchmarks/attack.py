"""Adversarial commands by the million, counted by code that shares nothing with the filter.

Every episode sends chunks that try to make the filter fail (``filter.Adversary``) to one of the robots under one of
the constraint files, and counts violations of what was *sent* (``count.Count``: numpy and MuJoCo).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from palmar.benchmarks.checkpoint import run_jobs
from palmar.benchmarks.count import Count, Counted
from palmar.benchmarks.filter import DT, Adversary, Reading, make_filter, start
from palmar.benchmarks.provenance import meaning
from palmar.safety.constraints import ConstraintSet, load
from palmar.safety.filter import Filter
from palmar.safety.robot import RobotModel
from palmar.safety.types import CommandRefused, People, State
from palmar.sim.robots import load_robot

EPISODE = 2000
"""Ticks of an episode."""
BATCH = 10
"""Episodes of a job."""
SEED = 20_000
CASES = (
    ("fr3_leap", "arm_hand"),
    ("fr3_leap", "shared_cell"),
    ("fr3_allegro", "arm_hand"),
    ("panda_leap", "arm_hand"),
)
"""Robot and constraint file by turns."""
SOFT = ("torque_rate", "contact_approach")
"""Constraints that the filter softens by their file: their violations are told, not counted as broken promises."""


class Walkers:
    """Up to two people who walk about at up to 1.6 m/s, seen at 30 Hz, and now and then not at all."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.place = rng.uniform([0.2, -1.5, 0.3], [1.8, 1.5, 1.0], (int(rng.integers(0, 3)), 3))
        self.velocity = np.zeros_like(self.place)
        self.seen: People | None = None

    def see(self, k: int, now: float) -> People | None:
        """The tracker's newest message before tick k."""
        rng, h = self.rng, len(self.place)
        if k % 300 == 0:
            self.velocity = rng.uniform(-1.0, 1.0, (h, 3)) * [1.3, 0.8, 0.2]
        self.place += DT * self.velocity
        if k % 33 == 0 and rng.random() > 0.01:
            ends = self.place[:, None] + np.array([[0.0, 0.0, 0.0], [0.0, 0.25, 0.1]])
            self.seen = People(ends.copy(), np.full(h, 0.06), self.velocity.copy(), now)
        return self.seen


@functools.cache
def _made(robot: str, constraints: str) -> tuple[Filter, Count]:
    model = load_robot(robot)
    held = load(Path(str(files("palmar.configs"))) / "constraints" / f"{constraints}.yaml", model.limits)
    return make_filter(model, held), Count(model, held)


def episode(filter_: Filter, seed: int, ticks: int) -> tuple[np.ndarray, dict[str, int]]:
    """Sent positions (ticks + 1, n) from the start pose on, and what the filter did."""
    rng, robot = np.random.default_rng(seed), filter_.robot
    adversary, zero, now = Adversary(robot, rng), np.zeros(robot.n), 0.0
    sent = np.empty((ticks + 1, robot.n))
    sent[0] = start(filter_, robot, rng)
    # People draw from a generator of their own: with and without them the same chunks are sent.
    walkers, did = Walkers(np.random.default_rng([seed, 1])), dict[str, int]()
    for k in range(ticks):
        now += DT if rng.random() > 0.001 else 4 * DT
        chunk = adversary.chunk(k, now, filter_.u)
        if chunk is not None:
            try:
                filter_.offer(chunk)
            except CommandRefused:
                did["refused"] = did.get("refused", 0) + 1
        if rng.random() < 0.0003:
            filter_.stop()
        if filter_.state is State.LATCHED:
            filter_.reset()
        people = walkers.see(k, now) if filter_.enforced.people is not None else None
        command, verdict = filter_.tick(Reading(now, k + 1, filter_.u, filter_.ud, zero), now, people=people)
        sent[k + 1] = command.q
        name = verdict.state.value
        did[name] = did.get(name, 0) + 1
        did["changed"] = did.get("changed", 0) + (verdict.changed and verdict.state is State.RUN)
    return sent, did


def counted(robot: RobotModel, constraints: ConstraintSet, filter_: Filter, seed: int, ticks: int) -> Counted:
    """What an episode's sent positions violate."""
    return Count(robot, constraints)(episode(filter_, seed, ticks)[0], DT)


def batch(job: list[Any]) -> dict[str, Any]:
    """Violations of one job: robot, constraint file, first seed, episodes, ticks of each."""
    robot, constraints, seed, episodes, ticks = job
    filter_, count = _made(robot, constraints)
    found: dict[str, list[float]] = {}
    did: dict[str, int] = {}
    for k in range(episodes):
        filter_ = make_filter(filter_.robot, filter_.constraints)
        sent, what = episode(filter_, seed + k, ticks)
        for name, (violations, worst, _) in count(sent, DT).tallies.items():
            before = found.get(name, [0, np.inf])
            found[name] = [before[0] + violations, min(before[1], worst)]
        did = {name: did.get(name, 0) + what.get(name, 0) for name in {*did, *what}}
    return {"commands": episodes * ticks, "found": found, "did": did}


def run(
    *,
    commands: int = 10_000_000,
    checkpoint: Path | None = None,
    progress: Callable[..., None] | None = None,
    workers: int | None = None,
) -> dict[str, Any]:
    """The benchmark.

    Args:
        commands: How many commands in all, spread over CASES.
        checkpoint: File to go on from and to append to.
        progress: Called with the name of the part and the share of it that is done.
        workers: Processes; None for one per core.

    Returns:
        ``rows``: one per case and one for all.
    """
    per = min(EPISODE, max(1, commands // len(CASES)))
    episodes = max(1, min(BATCH, commands // (per * len(CASES))))
    jobs = [[*CASES[i % len(CASES)], SEED + i * BATCH, episodes, per] for i in range(-(-commands // (episodes * per)))]
    rows = {case: _row(*case) for case in CASES}
    sent = 0
    for job, result in run_jobs(batch, jobs, checkpoint=checkpoint, meaning=meaning(), workers=workers):
        row = rows[job[0], job[1]]
        row["commands"] += result["commands"]
        for name, (violations, worst) in result["found"].items():
            if name not in SOFT:
                row["violations"] += int(violations)
            row["worst"][name] = min(worst, row["worst"].get(name, np.inf))
            if name in SOFT:
                row["soft"][name] = row["soft"].get(name, 0) + int(violations)
        for name, ticks in result["did"].items():
            row["did"][name] = row["did"].get(name, 0) + ticks
        sent += result["commands"]
        if progress:
            progress("commands", sent / commands)
    done = list(rows.values())
    all_ = {
        "robot": "all",
        "commands": sum(r["commands"] for r in done),
        "violations": sum(r["violations"] for r in done),
    }
    return {"rows": [all_, *done], "episode": EPISODE, "seed": SEED, "filter": meaning()}


def _row(robot: str, constraints: str) -> dict[str, Any]:
    return {
        "robot": robot,
        "constraints": constraints,
        "commands": 0,
        "violations": 0,
        "worst": {},
        "soft": {},
        "did": {},
    }
