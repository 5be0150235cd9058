"""How long a tick of the filter takes, whether it misses periods, what adversarial commands get past it.

Violations are counted from the sent commands alone, by the integrator and the geometry of ``Count``: numpy
and MuJoCo's own distances, no code shared with the filter.
"""

from __future__ import annotations

import gc
import multiprocessing as mp
import os
import time
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import mujoco
import numpy as np

from palmar.safety.chunks import ChunkConfig
from palmar.safety.constraints import ConstraintSet, load
from palmar.safety.filter import Filter, FilterConfig
from palmar.safety.hulls import shipped_detail
from palmar.safety.robot import RobotModel
from palmar.safety.types import Chunk, CommandRefused, State
from palmar.safety.types import RobotState as Reading
from palmar.sim.robots import load_robot

Array = np.ndarray
Progress = Callable[[str, float], None]

DT = 0.001
EPISODE = 2000
"""Ticks of an adversarial episode."""
KINDS = ("step", "chatter", "saturated", "random", "limits", "table", "self", "sweep")
SHARED = 0.0005
"""A missed period is shared if the sentinel woke this late [s] ..."""
AROUND = 0.003
"""... within this time of it [s]."""


class Count:
    """Counts violations in a sequence of sent joint positions."""

    def __init__(self, robot: RobotModel, constraints: ConstraintSet, q: Array) -> None:
        """Start at rest at q (n,)."""
        self.limits, self.model = robot.limits, mujoco.MjModel.from_xml_string(robot.xml)
        self.data = mujoco.MjData(self.model)
        self.address = np.array([self.model.joint(j).qposadr[0] for j in robot.joints])
        self.pairs = np.array([[self.model.geom(a).id, self.model.geom(b).id] for a, b in robot.pairs])
        self.low = np.array([self.model.geom(g).id for g in robot.table_geoms])
        self.palm = self.model.body(robot.palm_body).id
        capsule = self.model.geom_type == int(mujoco.mjtGeom.mjGEOM_CAPSULE)
        self.half = np.where(capsule, self.model.geom_size[:, 1], 0.0)
        self.self_limit = constraints["self_clearance"].params["limit"]
        self.table_limit = constraints["table_clearance"].params["limit"]
        self.box = {k: np.array(v) for k, v in constraints["workspace"].params.items()}
        self.q, self.v, self.a = q.copy(), np.zeros(robot.n), np.zeros(robot.n)
        self.worst: dict[str, float] = {}
        self.violations = 0

    def sent(self, q: Array) -> None:
        """Note the next sent positions (n,)."""
        # Constant acceleration within a tick: the mean of the two velocities is the slope.
        v = 2.0 * (q - self.q) / DT - self.v
        a = (v - self.v) / DT
        jerk = (a - self.a) / DT
        margins = self._joints(q, v, a, jerk) | self._space(q)
        self.q, self.v, self.a = q.copy(), v, a
        for name, margin in margins.items():
            self.worst[name] = min(self.worst.get(name, np.inf), float(margin))
        self.violations += any(not margin >= 0.0 for margin in margins.values())

    def _joints(self, q: Array, v: Array, a: Array, jerk: Array) -> dict[str, float]:
        """Margins of the joint limits."""
        m = self.limits
        room = np.where(v > 0, m.curve_q_up - q, q - m.curve_q_low)
        with np.errstate(invalid="ignore"):
            curve = np.maximum(0.0, np.sqrt(np.maximum(0.0, m.curve_two_a * room)) - m.curve_offset)
        return {
            "joint_position": np.minimum(q - m.q_min, m.q_max - q).min(),
            "joint_velocity": (np.fmin(m.v_max, curve) - np.abs(v) + 1e-9 * (np.abs(v) < 1e-9)).min(),
            "joint_acceleration": (m.a_max - np.abs(a)).min(),
            "joint_jerk": (m.j_max - np.abs(jerk)).min(),
        }

    def _space(self, q: Array) -> dict[str, float]:
        """Margins of clearances and workspace; pairs with spheres 1 cm apart count as that."""
        model, data = self.model, self.data
        data.qpos[self.address] = q
        mujoco.mj_kinematics(model, data)
        x, one, two = data.geom_xpos, self.pairs[:, 0], self.pairs[:, 1]
        apart = np.linalg.norm(x[one] - x[two], axis=1) - model.geom_rbound[one] - model.geom_rbound[two]
        own = 0.01 + self.self_limit
        for a, b in self.pairs[apart < own]:
            own = min(own, mujoco.mj_geomDistance(model, data, a, b, 1.0, None))
        tilt = np.abs(data.geom_xmat[self.low, 8])
        low = (x[self.low, 2] - tilt * self.half[self.low] - model.geom_size[self.low, 0]).min()
        p = data.xpos[self.palm]
        return {
            "self_clearance": own - self.self_limit,
            "table_clearance": low - self.table_limit,
            "workspace": np.minimum(p - self.box["lower"], self.box["upper"] - p).min(),
        }


class Adversary:
    """Chunks that try to make the filter fail."""

    def __init__(self, robot: RobotModel, rng: np.random.Generator) -> None:
        """With poses that touch the table or the robot itself, found by MuJoCo."""
        self.robot, self.rng, self.seq = robot, rng, 0
        self.bad = {"table": [], "self": []}
        self.kind, self.goal = "random", robot.home
        model = mujoco.MjModel.from_xml_string(robot.xml)
        data = mujoco.MjData(model)
        address = [model.joint(j).qposadr[0] for j in robot.joints]
        low = [model.geom(g).id for g in robot.table_geoms]
        while min(map(len, self.bad.values())) < 8:
            q = self._anywhere()
            data.qpos[address] = q
            mujoco.mj_kinematics(model, data)
            if data.geom_xpos[low, 2].min() < 0:
                self.bad["table"].append(q)
            a, b = (model.geom(g).id for g in robot.pairs[rng.integers(len(robot.pairs))])
            if mujoco.mj_geomDistance(model, data, a, b, 1.0, None) < 0:
                self.bad["self"].append(q)

    def _anywhere(self) -> Array:
        return self.rng.uniform(self.robot.limits.q_min, self.robot.limits.q_max)

    def chunk(self, k: int, now: float, u: Array) -> Chunk | None:
        """What is published before tick k, if anything."""
        rng, m = self.rng, self.robot.limits
        if k % 200 == 0:
            self.kind = KINDS[rng.integers(len(KINDS))]
        if self.kind != "chatter" and k % 20:
            return None
        self.seq += 1
        ends = np.where(rng.random(len(u)) < 0.5, m.q_min - 0.2, m.q_max + 0.2)
        if self.kind == "chatter":
            q = u + np.where(k % 2, 1.0, -1.0) * rng.uniform(0, 0.5, len(u))
        elif self.kind in self.bad:
            bad = self.bad[self.kind]
            self.goal = bad[rng.integers(len(bad))] if k % 200 == 0 or self.seq % 10 == 0 else self.goal
            q = self.goal
        elif self.kind in ("limits", "saturated"):
            self.goal = ends if k % (100 if self.kind == "limits" else 20) == 0 else self.goal
            q = self.goal
        elif self.kind == "sweep":
            q = u + rng.choice([-1.0, 1.0]) * 0.4
        elif self.kind == "step":
            q = self._anywhere()
        else:
            q = u + rng.normal(size=len(u)) * rng.choice([0.03, 0.3])
        q = np.clip(q, u - 6.0, u + 6.0)
        t = now + np.array([0.0, 0.02, 0.05, 0.1]) + rng.uniform(0.002, 0.03)
        return Chunk(q=np.stack([q, q, q, q]), t=t, seq=self.seq, received=now)


def episode(robot: RobotModel, constraints: ConstraintSet, filter_: Filter, seed: int, ticks: int) -> Count:
    """Run an adversarial episode and count what was sent."""
    rng = np.random.default_rng(seed)
    adversary = Adversary(robot, rng)
    q, zero, now = start(filter_, robot, rng), np.zeros(robot.n), 0.0
    count = Count(robot, constraints, q)
    for k in range(ticks):
        now += DT if rng.random() > 0.001 else 4 * DT
        chunk = adversary.chunk(k, now, filter_.u)
        if chunk is not None:
            try:
                filter_.offer(chunk)
            except CommandRefused:
                pass
        if rng.random() < 0.0003:
            filter_.stop()
        if filter_.state is State.LATCHED:
            filter_.reset()
        command, _ = filter_.tick(Reading(now, k + 1, filter_.u, filter_.ud, zero), now)
        count.sent(command.q)
    return count


def start(filter_: Filter, robot: RobotModel, rng: np.random.Generator) -> Array:
    """Start at a random viable pose, at home if none is found."""
    zero, m = np.zeros(robot.n), robot.limits
    for spread in (0.4, 0.2, 0.1, 0.05, 0.0):
        q = np.clip(robot.home + rng.normal(size=robot.n) * spread, m.q_min + 1e-3, m.q_max - 1e-3)
        try:
            filter_.start(Reading(0.0, 0, q, zero, zero))
            return q
        except CommandRefused:
            continue
    raise CommandRefused(f"home pose of {robot.name} cannot be started from")


def make_filter(robot: RobotModel, constraints: ConstraintSet) -> Filter:
    """A filter that lets any jump of the reference through its chunk check, so that the QP has to stop it."""
    config = FilterConfig(chunks=ChunkConfig(jump=10.0), detail=shipped_detail(robot))
    return Filter(robot, constraints, config)


def _load() -> tuple[RobotModel, ConstraintSet]:
    robot = load_robot()
    path = files("palmar.configs") / "constraints" / "arm_hand.yaml"
    return robot, load(path, robot.limits)  # type: ignore[arg-type]


def _realtime() -> str:
    """Ask for real-time priority on the last core; which scheduler it became."""
    try:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(70))
        return "SCHED_FIFO"
    except (OSError, AttributeError):
        return "SCHED_OTHER"


def _loop(seconds: float, begin: float, work: bool, pipe: Any) -> None:
    """A 1 kHz loop; sends (scheduled, woke, finished) of every period [s], (N, 3), and the scheduler."""
    tick: Callable[[int], None] | None = None
    if work:
        robot, constraints = _load()
        filter_, adversary = make_filter(robot, constraints), Adversary(robot, np.random.default_rng(1))
        start(filter_, robot, np.random.default_rng(1))
        zero = np.zeros(robot.n)
        offset = time.monotonic()

        def filter_tick(k: int) -> None:
            now = time.monotonic() - offset
            chunk = adversary.chunk(k, now, filter_.u)
            if chunk is not None:
                filter_.offer(chunk)
            filter_.tick(Reading(now, k + 1, filter_.u, filter_.ud, zero), now)

        tick = filter_tick

    pipe.send("ready")
    begin = pipe.recv()
    rows, period, total = np.zeros((int(seconds / DT) + 1, 3)), 0, 0
    gc.collect()
    gc.freeze()
    gc.disable()
    scheduler = _realtime()
    while period < len(rows):
        due = begin + period * DT
        wait = due - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        woke = time.monotonic()
        if tick is not None:
            tick(period)
        end = time.monotonic()
        rows[total] = due, woke, end
        total += 1
        period = max(period + 1, int((end - begin) / DT) + (end > begin + (period + 1) * DT))
    pipe.send((rows[:total], scheduler))


def periods(seconds: float) -> dict[str, Any]:
    """Missed periods of a 1 kHz wall-clock loop of the filter beside a bare one of equal priority and core.

    A period is missed when its tick ends after the next one is due.  The sentinel's periods lie half a period
    later, so the two do not wait for each other as a rule.
    """
    context = mp.get_context("spawn")
    links, processes = [], []
    for work in (True, False):
        here, there = context.Pipe()
        processes.append(context.Process(target=_loop, args=(seconds, 0.0, work, there), daemon=True))
        links.append(here)
        processes[-1].start()
    for link in links:
        link.recv()
    begin = time.monotonic() + 0.05
    links[0].send(begin)
    links[1].send(begin + 0.5 * DT)
    (rows, scheduler), (bare, _) = (link.recv() for link in links)
    for process in processes:
        process.join()
    missed = rows[rows[:, 2] > rows[:, 0] + DT]
    late = bare[bare[:, 1] > bare[:, 0] + SHARED]
    unshared = sum(not np.any((late[:, 1] > row[0] - AROUND) & (late[:, 0] < row[2] + AROUND)) for row in missed)
    return {
        "missed_periods": len(missed),
        "missed_unshared": int(unshared),
        "periods": len(rows),
        "scheduler": scheduler,
        "sentinel_missed": int((bare[:, 1] > bare[:, 0] + DT).sum()),
    }


def run(
    *,
    ticks: int = 20_000,
    commands: int = 200_000,
    seconds: float = 60,
    progress: Progress | None = None,
    workers: int | None = None,
) -> dict[str, Any]:
    """The benchmark.

    Args:
        ticks: Ticks per robot and number of constraints whose thread CPU time is measured.
        commands: Adversarial commands that are counted (``bench attack`` counts more).
        seconds: Length of the wall-clock loop [s].
        progress: Called with the name of the part and the share of it that is done.
        workers: Processes that send commands; None for one per core.

    Returns:
        ``rows``: one per robot and number of constraints; ``layers``, ``loop`` and ``attack`` beside it.
    """
    from palmar.benchmarks import attack
    from palmar.benchmarks import ticks as timing

    loop = periods(seconds)
    rows, layers = timing.rows(ticks=ticks, progress=progress)
    attacked = attack.run(commands=commands, workers=workers, progress=progress)["rows"]
    rows[0] |= {k: loop[k] for k in ("missed_periods", "missed_unshared", "periods", "scheduler")}
    rows[0] |= {k: attacked[0][k] for k in ("violations", "commands")}
    return {"rows": rows, "layers": layers, "loop": loop, "attack": attacked, "ticks": ticks, "seconds": seconds}
