"""What the filter does to a task: success, costs and intervention with it and without, and doing nothing beside it.

The environment, episodes and costs are those of ``palmar bench lift``, but at physics steps of 1 ms with one filter
per world in the loop, as on a robot.  "Without" is the same filter in shadow mode: it passes every command on and
says what it would have done.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from palmar.benchmarks.lift import BUNDLES, SEED
from palmar.policies.bundle import BundlePolicy, load_bundle
from palmar.policies.evaluate import evaluate
from palmar.safety.constraints import ConstraintSet, load
from palmar.safety.filter import Filter, FilterConfig
from palmar.safety.geometry import FAR, Kinematics
from palmar.safety.hulls import shipped_detail
from palmar.safety.robot import RobotModel
from palmar.safety.types import Array, Chunk, CommandRefused, Measurement, State
from palmar.sim import scene
from palmar.sim.engines.mujoco_cpu import MujocoEngine
from palmar.sim.env import VectorEnv
from palmar.sim.interface import RobotState
from palmar.sim.robots import load_robot
from palmar.sim.tasks.lift import LiftConfig, LiftTask
from palmar.sim.tasks.oracles import DoNothing

DT = 0.001
MakeFilter = Callable[[RobotModel, ConstraintSet, str], Filter]


def make_filter(robot: RobotModel, constraints: ConstraintSet, mode: str) -> Filter:
    """The filter as it is deployed."""
    return Filter(robot, constraints, FilterConfig(detail=shipped_detail(robot)), mode=mode)


class Filtered:
    """An engine whose worlds are each driven by a filter; ``advance`` takes targets instead of commands."""

    def __init__(self, engine: MujocoEngine, constraints: ConstraintSet, mode: str, make: MakeFilter) -> None:
        self._engine, self._robot = engine, engine.robot
        self._kinematics = Kinematics.from_model(engine.robot)
        self._new = lambda: make(engine.robot, constraints, mode)
        self._filters: dict[int, Filter] = {}
        self._ticks = 0
        self.changed, self.stopped, self.ticks = 0, 0, 0
        """Ticks whose command the filter changed, ticks outside RUN, ticks of all worlds."""
        self.reasons: dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def reset(self, ids: Array, qpos: Array, qvel: Array, mocap: Array | None = None) -> None:
        """As the engine's; a new filter each, started at rest where the robot is."""
        self._engine.reset(ids, qpos, qvel, mocap)
        zero, now = np.zeros(self._robot.n), self._ticks * DT
        for i in ids:
            self._filters[int(i)] = f = self._new()
            f.start(RobotState(now, self._ticks, self._engine.q[i].copy(), zero, zero))

    def advance(self, target: Array, *_: Array, **given: Array | None) -> Measurement:
        """Let every filter follow its target (1, B, n) for one period; the measurements, (S, B, ...)."""
        steps = round(1 / (LiftConfig.rate * DT))
        now = self._ticks * DT
        for i, f in self._filters.items():
            try:
                f.offer(Chunk(q=target[0, i][None], t=np.array([now + steps * DT]), seq=self._ticks, received=now))
            except CommandRefused:
                self._count("chunk_refused")
        return self._with_geometry(_stacked([self._tick() for _ in range(steps)]))

    def _tick(self) -> Measurement:
        self._ticks += 1
        now, (b, n) = self._ticks * DT, (self._engine.nworld, self._robot.n)
        q, qd, sent = self._engine.q, self._engine.qd, np.empty((4, 1, b, n))
        for i, f in self._filters.items():
            before = f.udd
            _, verdict = f.tick(RobotState(now, self._ticks, q[i].copy(), qd[i].copy(), np.zeros(n)), now)
            sent[:, 0, i] = f.u, f.ud, f.udd, (f.udd - before) / DT
            self.changed += verdict.changed
            self.stopped += verdict.state is not State.RUN
            self.ticks += 1
            if verdict.changed:
                self._count(verdict.reason)
        return self._engine.advance(*sent)

    def _with_geometry(self, m: Measurement) -> Measurement:
        """Clearances and palm of the measured robot, by the routine that training uses."""
        k, shape = self._kinematics, m.q.shape[:-1]
        own, table, palm = np.empty(shape), np.empty(shape), np.empty((*shape, 3))
        for at in np.ndindex(shape):
            pair, height = k.clearances(m.q[at], near=FAR)
            own[at], table[at] = min(FAR, pair.min()), height.min()
            palm[at] = k.scratch[0][k.tree.palm]
        return m.replace(clearance_self=own, clearance_table=table, palm_position=palm)

    def _count(self, reason: str) -> None:
        self.reasons[reason] = self.reasons.get(reason, 0) + 1


def _stacked(parts: list[Measurement]) -> Measurement:
    """Measurements (1, B, ...) one after the other, (S, B, ...)."""
    fields = {}
    for name in Measurement.__dataclass_fields__:
        values = [getattr(m, name) for m in parts]
        fields[name] = None if values[0] is None else np.concatenate(values)
    return Measurement(**fields)


class FilteredEnv(VectorEnv):
    """The vector environment with the targets of its policy going through filters."""

    def behind(self, constraints: ConstraintSet, mode: str, make: MakeFilter) -> Filtered:
        """Put a filter before every world, from the next reset on."""
        self.engine: Any = Filtered(self.engine, constraints, mode, make)
        return self.engine

    def _commands(self, target: Array) -> tuple[Array, Array, Array, Array]:
        self._reference = target.copy()
        return target[None], target[None], target[None], target[None]


def row(
    name: str, policy: Any, mode: str, *, episodes: int, worlds: int = 10, make: MakeFilter = make_filter
) -> dict[str, Any]:
    """One line of the table.

    Args:
        name: Of the policy.
        policy: By the protocol of ``sim.interface``.
        mode: ``enforce``, or ``shadow`` for without.
        episodes: Unseen ones, the same for every row.
        worlds: Simulated side by side.
        make: Makes the filter.
    """
    robot = load_robot()
    constraints = load(Path(str(files("palmar.configs"))) / "constraints" / "arm_hand.yaml", robot.limits)
    task = LiftTask(LiftConfig())
    model, _ = scene.compose(furnish=task.furnish)
    model.opt.timestep = DT
    env = FilteredEnv(
        task,
        robot,
        constraints,
        model=model,
        num_envs=min(worlds, episodes),
        seed=SEED,
    )
    engine = env.behind(constraints, mode, make)
    found = evaluate(env, policy, episodes=episodes, seed=SEED + 1)
    per_episode = task.config.max_steps / task.config.rate / max(engine.ticks, 1)
    return {
        "policy": name,
        "filter": "on" if mode == "enforce" else "off",
        "episodes": found.episodes,
        "success": round(found.success_rate, 4),
        "success_interval": [round(x, 4) for x in found.to_json()["success_interval"]],
        "intervention_s": round(engine.changed * per_episode, 4),
        "not_running_s": round(engine.stopped * per_episode, 4),
        "interventions": {k: round(v * per_episode, 4) for k, v in sorted(engine.reasons.items())},
        "costs": dict(zip(found.constraint_names, np.round(found.costs.mean(axis=0), 4).tolist(), strict=True)),
        "worst_margin": dict(zip(found.constraint_names, np.round(found.margins.min(axis=0), 5).tolist(), strict=True)),
    }


def run(*, episodes: int = 100, progress: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Every shipped policy and doing nothing, without and with the filter."""
    assets = Path(str(files("palmar.assets"))) / "bundles"
    policies: dict[str, Any] = {
        name: BundlePolicy(load_bundle(assets / folder))
        for name, folder in BUNDLES.items()
        if (assets / folder).is_dir()
    }
    rows = []
    for name, policy in {**policies, "doing nothing": DoNothing(8)}.items():
        for mode in ("shadow", "enforce"):
            if progress:
                progress(f"{name}, {mode}")
            rows.append(row(name, policy, mode, episodes=episodes))
    return {"name": "lift_filter", "episodes": episodes, "seed": SEED, "rows": rows}
