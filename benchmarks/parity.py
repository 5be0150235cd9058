"""``palmar bench parity``: engine ``mujoco_warp`` beside engine ``mujoco``, from equal states and commands.

Rows ``{task, pair, quantity, steps, error, tolerance, within, worst}`` of ``sim.parity`` for reach, for lift coming
down on a block and for lift with the block in the fingers; then the shipped policy of lift on whole episodes of both
engines, success and every cost as distributions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch

from palmar.policies.bundle import BundlePolicy, load_bundle
from palmar.policies.evaluate import Evaluation, evaluate
from palmar.safety.constraints import ConstraintSet, load
from palmar.safety.robot import RobotModel
from palmar.sim import parity
from palmar.sim.device.env import make_device_env
from palmar.sim.device.starts import with_constants
from palmar.sim.engines import plain
from palmar.sim.engines.mujoco_warp import WarpEngine
from palmar.sim.engines.warp_config import WarpConfig
from palmar.sim.env import VectorEnv, make_env
from palmar.sim.robots import load_robot
from palmar.sim.tasks.lift import LiftConfig, LiftTask
from palmar.sim.tasks.lift_oracle import LiftOracle
from palmar.sim.tasks.reach import ReachConfig, ReachTask

Array = np.ndarray
PAIR = "mujoco - mujoco_warp"
SEED = 3_000_000
"""Of no training and no other evaluation."""


class Wander:
    """Steps in one direction for a quarter of a second, then in another: for reach, which has no oracle."""

    def __init__(self, action_dim: int, seed: int = 0):
        self._dim, self._rng = action_dim, np.random.default_rng(seed)

    def start(self, batch: int) -> tuple[int, Array]:
        """The count of steps and the direction of each world."""
        return 0, np.zeros((batch, self._dim))

    def act(self, obs: Array, carry: tuple[int, Array]) -> tuple[Array, tuple[int, Array]]:
        """Actions (B, a)."""
        count, way = carry
        if count % 5 == 0:
            way = self._rng.uniform(-1, 1, way.shape)
        return way, (count + 1, way)


@dataclass(frozen=True)
class Part:
    """One stretch of a task."""

    name: str
    task: Any
    policy: Any
    before: int
    """Control steps before it."""


def parts() -> tuple[Part, ...]:
    """The stretches.  Coming down starts when the blocks have settled: at the very start of an episode they touch the
    table with nothing between, and rounding decides whether they touch it.
    """
    lift = LiftTask(LiftConfig())
    return (
        Part("reach", ReachTask(ReachConfig()), Wander(7), 0),
        Part("lift/approach", lift, LiftOracle(), 2),
        Part("lift/grasp", lift, LiftOracle(), 40),
    )


def told_of(part: Part, drive: parity.Drive, robot: RobotModel) -> dict[str, Any]:
    """What ``parity.compare`` asks of a stretch; a touch matters where the tolerances are those of free motion."""
    steps = parity.load_tolerances()["steps"]
    split = part.name == "lift/approach"
    return {
        "objects": tuple(part.task.objects),
        "touched": plain.touched(drive, part.task, robot, steps=steps) if split else None,
    }


def run(
    *, worlds: int = 32, episodes: int = 300, device: str = "auto", progress: Callable[[str], None] | None = None
) -> dict:
    """Every stretch with ``worlds`` worlds, then ``episodes`` whole episodes per engine (0: none)."""
    tell = progress or (lambda told: None)
    robot = load_robot()
    constraints = load(Path(str(files("palmar.configs"))) / "constraints" / "arm_hand.yaml", robot.limits)
    lift = LiftTask(LiftConfig())
    rows: list[dict[str, Any]] = []
    for part in parts():
        tell(part.name)
        rows += _part(part, robot, constraints, worlds, device)
    policies = _policies(lift, robot, constraints, episodes, device, tell) if episodes else []
    return {"name": "parity", "worlds": worlds, "seed": SEED, "rows": rows, "policies": policies}


def _part(part: Part, robot: RobotModel, constraints: ConstraintSet, worlds: int, device: str) -> list[dict[str, Any]]:
    tolerances = parity.load_tolerances()
    env = make_env(part.task, robot, constraints, num_envs=worlds, seed=SEED)
    last = max(tolerances["steps"])
    drive = parity.record(env, part.policy, name=part.name, seed=SEED, before=part.before, steps=last)
    known = {"task": part.task, "robot": robot, "constraints": constraints, "dt": env.engine.dt}
    known["steps"] = tolerances["steps"]
    warp = WarpEngine(
        env.engine.model, robot, objects=part.task.objects, nworld=worlds, substeps=env.substeps,
        config=WarpConfig(device=device),
    )  # fmt: skip
    traces = [parity.play(advance, drive, **known) for advance in (_mujoco(env, drive), _warp(warp, drive))]
    warp.check()
    told = told_of(part, drive, robot)
    return parity.compare(*traces, drive=drive, pair=PAIR, tolerances=tolerances, **told)


def _mujoco(env: VectorEnv, drive: parity.Drive) -> parity.Advance:
    """The environment's engine in the drive's state; its worlds have the drive's fields already."""
    env.engine.reset(np.arange(env.num_envs), drive.qpos, drive.qvel)
    return env.engine.advance


def _warp(engine: WarpEngine, drive: parity.Drive) -> parity.Advance:
    """The engine in the drive's state."""

    def on(values: Array) -> torch.Tensor:
        return torch.as_tensor(np.ascontiguousarray(values), device=engine.device)

    everyone = torch.ones(engine.nworld, dtype=torch.bool, device=engine.device)
    fields = with_constants(engine.model, drive.fields)
    known = {name: on(value) for name, value in fields.items() if name in drive.fields or engine.holds(name)}
    engine.set_fields(everyone, known)
    engine.reset(everyone, on(drive.qpos), on(drive.qvel))

    def advance(*sent: Array) -> Any:
        u, ud, udd, uddd = map(on, sent)
        return engine.advance(u, ud, udd, uddd)

    return advance


def _policies(
    task: Any, robot: RobotModel, constraints: ConstraintSet, episodes: int, device: str, tell: Callable[[str], None]
) -> list[dict[str, Any]]:
    """The shipped policy on both engines: the same first episodes, noise drawn anew."""
    bundle = load_bundle(Path(str(files("palmar.assets"))) / "bundles" / "lift")
    batch = min(episodes, 60)
    envs = {
        "mujoco": make_env(task, robot, constraints, num_envs=batch, seed=SEED),
        "mujoco_warp": make_device_env(
            task, robot, constraints, num_envs=batch, seed=SEED, config=WarpConfig(device=device)
        ),
    }
    found: dict[str, Evaluation] = {}
    for name, env in envs.items():
        tell(f"shipped policy of lift on {name}")
        found[name] = evaluate(env, BundlePolicy(bundle), episodes=episodes, seed=SEED)
    envs["mujoco_warp"].check()
    rows = [{"task": "lift", "engine": name, **result.to_json()} for name, result in found.items()]
    return rows + [_difference(found["mujoco"], found["mujoco_warp"])]


def _difference(a: Evaluation, b: Evaluation) -> dict[str, Any]:
    """Mean of engine mujoco_warp less that of engine mujoco, with bootstrapped 95 % intervals."""
    rng = np.random.default_rng(0)

    def apart(x: Array, y: Array) -> list[float]:
        draws = [rng.choice(y, len(y)).mean() - rng.choice(x, len(x)).mean() for _ in range(2000)]
        return [float(y.mean() - x.mean()), *(float(p) for p in np.percentile(draws, (2.5, 97.5)))]

    costs = {name: apart(a.costs[:, k], b.costs[:, k]) for k, name in enumerate(a.constraint_names)}
    return {
        "task": "lift", "engine": f"{PAIR}: difference, [mean, low, high]",
        "success": apart(a.success.astype(float), b.success.astype(float)), "return": apart(a.returns, b.returns),
        "constraints": costs,
    }  # fmt: skip
