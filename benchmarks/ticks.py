"""CPU time of a tick: per layer, at several numbers of constraints, for several robots, beside a naive filter.

All in one interleaved run: every tick of an adversarial episode is timed with each contender, on the same state.
Thread CPU time, one thread, garbage collector frozen.  *Constraints* are the scalar ones handed to the solver: two
bounds per joint, two torque rows per arm joint, and geometry rows, which are forced in here (nothing is pruned).
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from palmar.benchmarks.filter import DT, Adversary, Reading, start
from palmar.safety.barrier import Slots
from palmar.safety.chunks import ChunkConfig
from palmar.safety.constraints import ConstraintSet, load
from palmar.safety.filter import Filter, FilterConfig
from palmar.safety.hulls import shipped_detail
from palmar.safety.robot import RobotModel
from palmar.safety.types import CommandRefused, State
from palmar.sim.robots import load_robot

Array = np.ndarray
Row = dict[str, Any]
ROBOTS = ("fr3_leap", "fr3_allegro", "panda_leap")
CONSTRAINTS = (60, 120, 240)
EPISODE = 2000
FORCED = 10.0
"""Reach of the barriers that brings every pair into the QP [m]."""


def slots(robot: RobotModel, constraints: int) -> Slots:
    """Row slots that make ``constraints`` scalar constraints with the robot's bounds and torque rows."""
    rows = constraints - 2 * robot.n - 2 * robot.n_arm
    table = min(12, max(0, rows - 6))
    return Slots(pairs=max(0, rows - 6 - table), table=table, palm=rows >= 6, obstacles=0, contacts=0, prune=False)


def forced(robot: RobotModel, held: ConstraintSet, constraints: int | None) -> Filter:
    """A filter that times its layers, with ``constraints`` in its QP; None for the rows as they come."""
    config = FilterConfig(chunks=ChunkConfig(jump=10.0), detail=shipped_detail(robot), timing=True)
    if constraints is not None:
        config = replace(config, slots=slots(robot, constraints), barrier=replace(config.barrier, reach=FORCED))
    return Filter(robot, held, config)


def timed(filter_: Filter, ticks: int, seed: int) -> dict[str, Array]:
    """CPU seconds of each tick, in all and per layer, (ticks,) each; the layers' own sum is less than ``tick``."""
    robot, names = filter_.robot, None
    out: dict[str, Array] = {}
    for first in range(0, ticks, EPISODE):
        rng = np.random.default_rng(seed + first)
        adversary, fresh = Adversary(robot, rng), Filter(robot, filter_.constraints, filter_.config)
        start(fresh, robot, rng)
        zero = np.zeros(robot.n)
        for k in range(min(EPISODE, ticks - first)):
            now = (k + 1) * DT
            chunk = adversary.chunk(k, now, fresh.u)
            begin = time.thread_time_ns()
            if chunk is not None:
                try:
                    fresh.offer(chunk)
                except CommandRefused:
                    pass
            offered = time.thread_time_ns()
            _, verdict = fresh.tick(Reading(now, k + 1, fresh.u, fresh.ud, zero), now)
            end = time.thread_time_ns()
            if names is None:
                names = ("tick", "offer", *verdict.layers)
                out = {name: np.full(ticks, np.nan) for name in names}
            out["tick"][first + k] = (end - offered) * 1e-9
            out["offer"][first + k] = (offered - begin) * 1e-9 if chunk is not None else np.nan
            for name, used in verdict.layers.items():
                out[name][first + k] = used
            if fresh.state is State.LATCHED:
                fresh.reset()
    return out


def spread(seconds: Array) -> dict[str, float]:
    """Percentiles [us]."""
    p = np.percentile(1e6 * seconds[np.isfinite(seconds)], [50, 99, 99.9, 100])
    return {k: round(float(v), 1) for k, v in zip(("p50_us", "p99_us", "p999_us", "max_us"), p, strict=True)}


def overhead(filter_: Filter, ticks: int) -> tuple[float, float, float]:
    """CPU time of the QP wrapper over that of bare DAQP on the same problems: ratio of medians; both [us]."""
    robot, qp = filter_.robot, filter_.qp
    bare = qp.bare()
    ours, theirs = np.empty(ticks), np.empty(ticks)
    rng = np.random.default_rng(3)
    adversary = Adversary(robot, rng)
    start(filter_, robot, rng)
    zero, done, k = np.zeros(robot.n), 0, 0
    answer = qp.answer

    def measured(v: Array) -> int:
        nonlocal done
        code = 0
        for ours_now in (done % 2 == 0, done % 2 == 1):  # by turns: the second finds the caches warm
            begin = time.thread_time_ns()
            if ours_now:
                code = answer(v)
            else:
                bare.update(f=qp.cost, A=qp.matrix, bupper=qp.upper, blower=qp.lower)
                bare.solve()
            if done < ticks:
                (ours if ours_now else theirs)[done] = time.thread_time_ns() - begin
        done += 1
        return code

    qp.answer = measured  # type: ignore[method-assign]
    while done < ticks:
        k += 1
        chunk = adversary.chunk(k, k * DT, filter_.u)
        if chunk is not None:
            try:
                filter_.offer(chunk)
            except CommandRefused:
                pass
        filter_.tick(Reading(k * DT, k, filter_.u, filter_.ud, zero), k * DT)
        if filter_.state is State.LATCHED:
            filter_.reset()
    qp.answer = answer  # type: ignore[method-assign]
    a, b = float(np.median(ours)) / 1e3, float(np.median(theirs)) / 1e3
    return a / b, a, b


def naive(filter_: Filter, constraints: int, ticks: int) -> tuple[Array, Array]:
    """CPU seconds per tick of ours and of the naive filter on the same states, interleaved, (ticks,) each."""
    from palmar.benchmarks.naive import NaiveQP

    robot = filter_.robot
    theirs = NaiveQP(robot, filter_.constraints, rows=constraints - 2 * robot.n - 2 * robot.n_arm)
    used = np.empty((2, ticks))
    rng = np.random.default_rng(4)
    adversary, zero = Adversary(robot, rng), np.zeros(robot.n)
    start(filter_, robot, rng)
    for k in range(ticks):
        now = (k + 1) * DT
        chunk = adversary.chunk(k, now, filter_.u)
        if chunk is not None:
            try:
                filter_.offer(chunk)
            except CommandRefused:
                pass
        q, v, a, wanted = filter_.u, filter_.ud, filter_.udd, filter_.wanted
        begin = time.thread_time_ns()
        theirs.solve(q, v, a, wanted)
        middle = time.thread_time_ns()
        filter_.tick(Reading(now, k + 1, q, v, zero), now)
        used[:, k] = 1e-9 * (time.thread_time_ns() - middle), 1e-9 * (middle - begin)
        if filter_.state is State.LATCHED:
            filter_.reset()
    return used[0], used[1]


def rows(
    *, ticks: int, progress: Callable[..., None] | None = None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A row per robot and number of constraints, and a row per layer."""
    path = Path(str(files("palmar.configs"))) / "constraints" / "arm_hand.yaml"
    told, layers = [], []
    gc.collect()
    gc.freeze()
    for robot in map(load_robot, ROBOTS):
        held = load(path, robot.limits)
        for count in (None, *CONSTRAINTS):
            if progress:
                progress(f"{robot.name} {count or 'pruned'}", (len(told) + 1) / (len(ROBOTS) * (1 + len(CONSTRAINTS))))
            found = timed(forced(robot, held, count), ticks, 10_000)
            shown = count or "pruned"
            row = {"robot": robot.name, "constraints": shown}
            row |= {f"tick_{k}": v for k, v in spread(found["tick"]).items()}
            if count is not None:
                ratio, ours, bare = overhead(forced(robot, held, count), ticks // 4)
                row |= {"qp_overhead": round(ratio, 3), "qp_us": round(ours, 1), "daqp_us": round(bare, 1)}
                mine, theirs = naive(forced(robot, held, count), count, max(200, ticks // 20))
                p = [float(np.percentile(x, 99)) for x in (mine, theirs)]
                row |= {"naive_ratio_p99": round(p[1] / p[0], 2), "naive_p99_us": round(1e6 * p[1], 1)}
            told.append(row)
            layers += [
                {"robot": robot.name, "constraints": shown, "layer": name, **spread(x)}
                for name, x in found.items()
                if name != "tick" and np.isfinite(x).any()
            ]
    gc.unfreeze()
    return told, layers
