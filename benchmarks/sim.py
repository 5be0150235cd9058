"""``palmar bench sim``: the vector environment of every task against bare ``mujoco.rollout``, interleaved.

The baseline is the same scene without contact sensors, with the same geometry, decimation, controls and scripted
bodies, state in and state out.  ``env_ratio`` is its time over the environment's, costs on: by the wall clock, where
Python work that does not overlap with physics counts once per thread; ``cpu_ratio`` is the same in CPU seconds.
``cost_overhead`` compares the environment with costs to the same one without; ``mb_per_world`` is from ``sim_memory``.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from mujoco import rollout
from mujoco.batch import MODEL_FIELDS, Batch

from palmar.benchmarks import sim_meshes, sim_warp
from palmar.benchmarks.lift import reference_folder
from palmar.benchmarks.sim_memory import mb_per_world
from palmar.cli.config import compose
from palmar.cli.wiring import Setup, environment, setup
from palmar.sim import scene
from palmar.sim.env import VectorEnv, make_env
from palmar.sim.robots import arm_and_hand
from palmar.sim.tasks import find

Array = np.ndarray
Progress = Callable[[str], None]
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def run(
    *,
    rounds: int = 9,
    steps: int = 20,
    num_envs: int = 128,
    tasks: tuple[str, ...] = (),
    progress: Progress | None = None,
) -> dict:
    """A row per task, those of a GPU or why not, ``mujoco.batch`` against ``mujoco.rollout``, meshes against ours.

    Args:
        rounds: Interleaved rounds; medians of them are told.
        steps: Control steps of a round.
        num_envs: Worlds.
        tasks: Names; none for every task.
        progress: Told what is being measured.
    """
    rows = []
    for name in tasks or find.names():
        rows.append(_row(name, rounds, steps, num_envs, progress or (lambda _: None)))
    rows += _gpu_rows()
    rows.append(_routes(rounds, num_envs))
    rows.append(sim_meshes.row(reference_folder(), _cpu_seconds, rounds, min(num_envs, sim_meshes.WORLDS)))
    return {"name": "sim", "rows": rows}


def _gpu_rows() -> list[dict]:
    """Where the rows of engine ``mujoco_warp`` are, or that there are none."""
    import torch

    why = "bench sim_warp has it" if torch.cuda.is_available() else "no NVIDIA GPU here; bench sim_warp measures it"
    named = {"engine": "mujoco_warp", "device": "cuda", "not run": why}
    return [{"task": task, "worlds": worlds, **named} for task in sim_warp.TASKS for worlds in sim_warp.WORLDS]


def _cpu_seconds(work: Callable[[], Any]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def _row(name: str, rounds: int, steps: int, num_envs: int, progress: Progress) -> dict:
    words = [f"task={name}"]
    if (Path(str(files("palmar.configs"))) / "constraints" / f"{name}.yaml").is_file():
        words.append(f"constraints={name}")
    progress(f"{name}: memory")
    megabytes = mb_per_world(words, (2 * num_envs, 8 * num_envs))
    parts = setup(compose(words))
    env = environment(parts, num_envs=num_envs, seed=0)
    plain = environment(_without_costs(parts), num_envs=num_envs, seed=0)
    bare = _Bare(parts, env)
    policy = find.load(name).scripted().get("oracle")
    spent = {side: {clock: [] for clock in CLOCKS} for side in ("costs", "plain", "bare")}
    for k in range(rounds + 1):
        progress(f"{name}: round {k} of {rounds}")
        actions = _actions(env, policy() if policy else None, steps, k)
        bare.begin()
        _round({"costs": env, "plain": plain}, bare, actions, k, spent)
        bare.end()
    t = {side: {c: np.array(v[1:]) for c, v in clocks.items()} for side, clocks in spent.items()}
    return {
        "task": name,
        "engine": "mujoco",
        "device": "cpu",
        "worlds": num_envs,
        "env_steps_per_s": round(num_envs * steps / float(np.median(t["costs"]["wall"])), 1),
        "env_ratio": _ratio(t["bare"]["wall"], t["costs"]["wall"]),
        "cpu_ratio": _ratio(t["bare"]["cpu"], t["costs"]["cpu"]),
        "cost_overhead": round(_ratio(t["costs"]["cpu"], t["plain"]["cpu"]) - 1, 3),
        "mb_per_world": megabytes,
        "rounds": rounds,
    }


def _ratio(a: Array, b: Array) -> float:
    return round(float(np.median(a / b)), 3)


def _time(work: Callable[[], Any], into: dict[str, list[float]]) -> None:
    begin = {name: clock() for name, clock in CLOCKS.items()}
    work()
    for name, clock in CLOCKS.items():
        into[name].append(clock() - begin[name])


def _without_costs(parts: Setup) -> Setup:
    changed = copy.copy(parts)
    object.__setattr__(changed, "constraints", None)
    return changed


def _actions(env: Any, policy: Any, steps: int, seed: int) -> list[Array]:
    """What the oracle does, or random actions, from the start that ``_replay`` begins at."""
    rng, obs = np.random.default_rng(seed), env.reset(seed)
    carry = policy.start(env.num_envs) if policy else None
    actions = []
    for _ in range(steps):
        if policy:
            action, carry = policy.act(obs, carry)
        else:
            action = rng.uniform(-1, 1, (env.num_envs, env.action_dim))
        actions.append(action)
        obs = env.step(action).obs
    return actions


def _round(
    envs: dict[str, Any], bare: _Bare, actions: list[Array], seed: int, spent: dict[str, dict[str, list[float]]]
) -> None:
    """The same actions on both environments and what was sent on the bare scene, control step by control step.

    So close together the sides share what the machine does meanwhile; their sums over the round are remembered.
    """
    sums: dict[str, dict[str, list[float]]] = {side: {clock: [] for clock in CLOCKS} for side in spent}
    for side, env in envs.items():
        _time(partial(env.reset, seed), sums[side])
    for action in actions:
        for side, env in envs.items():
            _time(partial(env.step, action), sums[side])
        for clock, listening in bare.spent.items():
            sums["costs"][clock][-1] -= listening
        _time(bare.run, sums["bare"])
    for side, clocks in sums.items():
        for clock, values in clocks.items():
            spent[side][clock].append(sum(values))


class _Bare:
    """``mujoco.rollout`` of one environment's scene without sensors, on as many threads, with what it was sent."""

    def __init__(self, parts: Setup, env: VectorEnv):
        arm, hand = arm_and_hand(parts.robot.name)
        spec = scene.scene_spec(arm=arm, hand=hand, furnish=parts.task.furnish)
        for sensor in list(spec.sensors):
            spec.delete(sensor)
        self.env, self.model = env, spec.compile()
        threads = env.engine.batch.nthread
        self.data = [mujoco.MjData(self.model) for _ in range(threads)]
        self.pool = rollout.Rollout(nthread=threads)
        self.models: list[mujoco.MjModel] = []

    def begin(self) -> None:
        """Listen to what the environment sends from its next reset on."""
        self.sent: list[tuple[Array, int, int]] = []
        self.state: Array | None = None
        """Where the bare scene is, (B, nstate)."""
        self.spent: dict[str, float] = {}
        """Time that listening took in the newest step, by clock [s]: none of it is the environment's."""
        batch = self.env.engine.batch
        self._rollout = batch.rollout

        def listen(nstep: int, **given: Any) -> Any:
            begin = {name: clock() for name, clock in CLOCKS.items()}
            if self.state is None:
                self.models = self._models()
                self.state = self._state()
            self.sent.append((given["control"].copy(), given["control_spec"], nstep))
            self.spent = {name: clock() - begin[name] for name, clock in CLOCKS.items()}
            return self._rollout(nstep, **given)

        batch.rollout = listen  # type: ignore[method-assign]

    def end(self) -> None:
        """Stop listening."""
        self.env.engine.batch.rollout = self._rollout  # type: ignore[method-assign]

    def run(self) -> None:
        """The steps sent since the last call."""
        for control, spec, nstep in self.sent:
            states, _ = self.pool.rollout(self.models, self.data, self.state, control, control_spec=spec, nstep=nstep)
            self.state = states[:, -1]
        self.sent.clear()

    def _models(self) -> Any:
        """A model per world where the task made them differ, else one."""
        batch = self.env.engine.batch
        own = {f: v for f in sorted(MODEL_FIELDS) if (v := batch.expanded(f)) is not None and not f.startswith("opt.")}
        models = []
        for k in range(self.env.num_envs):
            model = copy.copy(self.model)
            for name, value in own.items():
                if getattr(model, name).shape == value.shape[1:]:
                    getattr(model, name)[:] = value[k]
            models.append(model)
        return models

    def _state(self) -> Array:
        spec = mujoco.mjtState.mjSTATE_FULLPHYSICS
        engine, data, out = self.env.engine, self.data[0], []
        for qpos, qvel in zip(engine.qpos, engine.qvel, strict=True):
            data.qpos[:], data.qvel[:] = qpos, qvel
            row = np.empty(mujoco.mj_stateSize(self.model, spec))
            mujoco.mj_getState(self.model, data, row, spec)
            out.append(row)
        return np.array(out)


def _routes(rounds: int, num_envs: int) -> dict:
    """``mujoco.batch`` against ``mujoco.rollout``: the lift scene, ten steps, states recorded, CPU seconds."""
    task = find.load("lift")
    env = make_env(task.task(task.config()), setup(compose(["task=lift"])).robot, None, num_envs=num_envs, nthread=1)
    env.step(np.zeros((num_envs, env.action_dim)))
    model, batch = env.engine.model, Batch(env.engine.model, num_envs, nthread=1)
    spec = mujoco.mjtState.mjSTATE_FULLPHYSICS
    state = np.empty((num_envs, mujoco.mj_stateSize(model, spec)))
    for k in range(num_envs):
        mujoco.mj_getState(model, env.engine.batch.get_data(k), state[k], spec)
    control = np.repeat(env.engine.batch.ctrl[:, None], 10, axis=1)
    pool, data = rollout.Rollout(nthread=1), [mujoco.MjData(model)]

    def by_batch() -> None:
        batch.qpos[:], batch.qvel[:] = env.engine.qpos, env.engine.qvel
        batch.rollout(10, control=control, record=("qpos", "qvel"))

    spent: dict[str, dict[str, list[float]]] = {side: {clock: [] for clock in CLOCKS} for side in ("batch", "rollout")}
    for _ in range(rounds + 1):
        _time(by_batch, spent["batch"])
        _time(lambda: pool.rollout(model, data, state, control, nstep=10), spent["rollout"])
    ratios = [a / b for a, b in zip(spent["batch"]["cpu"][1:], spent["rollout"]["cpu"][1:], strict=True)]
    return {
        "compared": "mujoco.batch / mujoco.rollout, CPU seconds",
        "worlds": num_envs,
        "ratio": round(statistics.median(ratios), 3),
    }
