"""``palmar bench sim``: the vector environment against bare ``mujoco.rollout``, interleaved.

The baseline is the same scene without contact sensors at the same decimation and the same recorded controls,
state in and state out; ``env_ratio`` is its time over the environment's (costs on).  ``cost_overhead`` compares
the environment with costs to the same one without.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from mujoco import rollout

from palmar.safety.constraints import load
from palmar.sim import scene
from palmar.sim.env import VectorEnv, make_env
from palmar.sim.robots import load_robot
from palmar.sim.tasks.lift import LiftConfig, LiftTask
from palmar.sim.tasks.lift_oracle import LiftOracle
from palmar.sim.tasks.reach import ReachConfig, ReachTask

Array = np.ndarray


def run(
    *, rounds: int = 9, steps: int = 25, num_envs: int = 128, progress: Callable[[str], None] | None = None
) -> dict:
    """Both tasks; medians over ``rounds`` interleaved rounds of ``steps`` control steps."""
    rows = []
    for task in (LiftTask(LiftConfig()), ReachTask(ReachConfig())):
        rows.append(_row(task, rounds, steps, num_envs, progress))
    return {"name": "sim", "rows": rows}


def _row(task: Any, rounds: int, steps: int, num_envs: int, progress: Callable[[str], None] | None) -> dict:
    robot = load_robot()
    path = Path(str(files("palmar.configs"))) / "constraints" / "arm_hand.yaml"
    constraints = load(path, robot.limits)
    with_costs = make_env(task, robot, constraints, num_envs=num_envs, seed=0)
    without = make_env(task, robot, None, num_envs=num_envs, seed=0)
    bare = _Bare(task, with_costs)
    times: dict[str, list[float]] = {"costs": [], "plain": [], "bare": []}
    policy = LiftOracle() if task.name == "lift" else None
    rng = np.random.default_rng(0)
    for k in range(rounds + 1):
        actions = _record(with_costs, bare, policy, steps, rng, times["costs"])
        times["plain"].append(_replay(without, actions))
        times["bare"].append(bare.run())
        if progress:
            progress(f"{task.name}: round {k} of {rounds}")
    median = {name: statistics.median(t[1:]) for name, t in times.items()}
    ratio = statistics.median(b / c for b, c in zip(times["bare"][1:], times["costs"][1:], strict=True))
    overhead = statistics.median(c / p for c, p in zip(times["costs"][1:], times["plain"][1:], strict=True)) - 1
    return {
        "task": task.name,
        "engine": "mujoco",
        "env_steps_per_s": round(num_envs * steps / median["costs"], 1),
        "env_ratio": round(ratio, 3),
        "cost_overhead": round(overhead, 3),
        "num_envs": num_envs,
        "rounds": rounds,
    }


def _record(env: VectorEnv, bare: _Bare, policy: Any, steps: int, rng: Any, out: list[float]) -> list[Array]:
    """Time ``steps`` steps from a fresh start with costs on; keep actions and controls for the other two."""
    obs = env.reset(1)
    carry = policy.start(env.num_envs) if policy else None
    bare.begin(env)
    actions, spent = [], 0.0
    for _ in range(steps):
        if policy:
            action, carry = policy.act(obs, carry)
        else:
            action = rng.uniform(-1, 1, (env.num_envs, env.action_dim))
        t = time.perf_counter()
        obs = env.step(action).obs
        spent += time.perf_counter() - t
        actions.append(action)
        bare.keep(env)
    out.append(spent)
    return actions


def _replay(env: VectorEnv, actions: list[Array]) -> float:
    """Time the same actions from the same start."""
    env.reset(1)
    t = time.perf_counter()
    for action in actions:
        env.step(action)
    return time.perf_counter() - t


class _Bare:
    """``mujoco.rollout`` of the scene without sensors, on as many threads as the environment."""

    def __init__(self, task: Any, env: VectorEnv):
        spec = scene.robot_spec()
        task.furnish(spec)
        self.model = spec.compile()
        self.substeps = env.substeps
        threads = env.engine.batch.nthread
        self.data = [mujoco.MjData(self.model) for _ in range(threads)]
        self.pool = rollout.Rollout(nthread=threads)
        self.controls: list[Array] = []

    def begin(self, env: VectorEnv) -> None:
        """Start from the environment's state."""
        self.state = self._state(env)
        self.controls = []

    def keep(self, env: VectorEnv) -> None:
        """Remember the control of the step just taken (held for its substeps)."""
        self.controls.append(env.engine.batch.ctrl.copy())

    def run(self) -> float:
        """Time the remembered steps."""
        state = self.state
        t = time.perf_counter()
        for control in self.controls:
            held = np.repeat(control[:, None], self.substeps, axis=1)
            states, _ = self.pool.rollout(self.model, self.data, state, held, nstep=self.substeps)
            state = states[:, -1]
        return time.perf_counter() - t

    def _state(self, env: VectorEnv) -> Array:
        spec = mujoco.mjtState.mjSTATE_FULLPHYSICS
        data, out = self.data[0], []
        for qpos, qvel in zip(env.engine.qpos, env.engine.qvel, strict=True):
            data.qpos[:], data.qvel[:] = qpos, qvel
            row = np.empty(mujoco.mj_stateSize(self.model, spec))
            mujoco.mj_getState(self.model, data, row, spec)
            out.append(row)
        return np.array(out)
