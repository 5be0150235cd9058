"""How long a tick of the filter takes, whether it misses periods, what adversarial commands get past it.

The parts are ``ticks``, ``periods`` and ``attack``; the adversary that all of them send is here.
"""

from __future__ import annotations

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
from palmar.safety.types import Chunk, CommandRefused
from palmar.safety.types import RobotState as Reading
from palmar.sim.robots import load_robot

Array = np.ndarray
Progress = Callable[[str, float], None]

DT = 0.001
EPISODE = 2000
"""Ticks of an adversarial episode."""
KINDS = ("step", "chatter", "saturated", "random", "limits", "table", "self", "sweep")


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


def load_shipped() -> tuple[RobotModel, ConstraintSet]:
    """The shipped robot and its constraint file."""
    robot = load_robot()
    path = files("palmar.configs") / "constraints" / "arm_hand.yaml"
    return robot, load(path, robot.limits)  # type: ignore[arg-type]


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
    from palmar.benchmarks import attack, periods
    from palmar.benchmarks import ticks as timing

    loop = periods.missed(seconds)
    rows, layers = timing.rows(ticks=ticks, progress=progress)
    attacked = attack.run(commands=commands, workers=workers, progress=progress)["rows"]
    rows[0] |= {k: loop[k] for k in ("missed_periods", "missed_unshared", "periods", "scheduler")}
    rows[0] |= {k: attacked[0][k] for k in ("violations", "commands")}
    return {"rows": rows, "layers": layers, "loop": loop, "attack": attacked, "ticks": ticks, "seconds": seconds}
