"""``palmar bench lift``: the shipped policies beside each other on episodes none of them trained on.

Rows: the constrained policy, its twins (unconstrained; fixed penalty), the scripted oracle, doing nothing; then
the constrained policy with perfect object poses, and in the scene composed from reference models with *their*
geometry and friction where those are present.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from palmar.policies.bundle import BundlePolicy, load_bundle
from palmar.policies.evaluate import Evaluation, evaluate
from palmar.safety.constraints import ConstraintSet, load
from palmar.safety.robot import RobotModel
from palmar.sim import menagerie, scene
from palmar.sim.env import make_env
from palmar.sim.robots import load_robot
from palmar.sim.tasks.lift import BLOCKS, LiftConfig, LiftTask
from palmar.sim.tasks.lift_oracle import LiftOracle
from palmar.sim.tasks.oracles import DoNothing
from palmar.sim.tracker import TrackerConfig

SEED = 2_000_000
"""Training counts its seeds from 0, evaluations during training from 1,000,000."""
TRUTH = TrackerConfig(rate=1000.0, noise=0.0, angle_noise=0.0, delay=0.0, dropout=0.0)
BUNDLES = {"constrained": "lift", "unconstrained": "lift_unconstrained", "fixed penalty": "lift_penalty"}


@dataclass(frozen=True)
class Entry:
    """One policy in one scene."""

    name: str
    policy: Any
    config: LiftConfig = LiftConfig()
    model: mujoco.MjModel | None = None


def run(*, episodes: int = 300, progress: Callable[[str], None] | None = None) -> dict:
    """Evaluate every entry on the same ``episodes``."""
    robot = load_robot()
    path = Path(str(files("palmar.configs"))) / "constraints" / "arm_hand.yaml"
    constraints = load(path, robot.limits)
    rows = []
    for entry in _entries():
        if progress:
            progress(entry.name)
        rows.append(_row(entry, robot, constraints, episodes))
    if reference_folder() is None:
        rows.append({"policy": "constrained, reference models", "not run": "reference models are not present"})
    return {"name": "lift", "episodes": episodes, "seed": SEED, "rows": rows}


def reference_folder() -> Path | None:
    """Where the reference models of the developers are, if anywhere."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "assets"
    return folder if (folder / "franka_fr3_lite" / "fr3.xml").is_file() else None


def _entries() -> list[Entry]:
    assets = Path(str(files("palmar.assets"))) / "bundles"
    made = {name: assets / folder for name, folder in BUNDLES.items() if (assets / folder).is_dir()}
    policies = {name: BundlePolicy(load_bundle(path)) for name, path in made.items()}
    entries = [Entry(name, policy) for name, policy in policies.items()]
    entries += [Entry("scripted oracle", LiftOracle()), Entry("doing nothing", DoNothing(8))]
    if "constrained" in policies:
        best = policies["constrained"]
        entries.append(Entry("constrained, true object poses", best, replace(LiftConfig(), tracker=TRUTH)))
        folder = reference_folder()
        if folder is not None:
            fixed = replace(LiftConfig(), friction=None)
            entries.append(Entry("constrained, reference models", best, fixed, _reference(folder)))
    return entries


def _reference(folder: Path) -> mujoco.MjModel:
    """The scene of ``lift`` made of the reference arm and hand."""
    spec = menagerie.reference_robot_spec(folder)
    scene.add_blocks(spec, BLOCKS)
    scene.add_contact_sensors(spec)
    return spec.compile()


def _row(entry: Entry, robot: RobotModel, constraints: ConstraintSet, episodes: int) -> dict:
    env = make_env(
        LiftTask(entry.config), robot, constraints, num_envs=min(100, episodes), seed=SEED, model=entry.model
    )
    found: Evaluation = evaluate(env, entry.policy, episodes=episodes, seed=SEED + 1)
    told = found.to_json()
    force = told["peak_force_p50_p95_max"]
    tips = np.percentile(found.peak_force[:, 1:].max(axis=1), (50, 95, 100))
    return {
        "policy": entry.name,
        "episodes": found.episodes,
        "lifted": found.successes,
        "success_rate": round(found.success_rate, 4),
        "success_interval": [round(x, 4) for x in told["success_interval"]],
        "within_budgets": found.within_budgets,
        "table_force_p50_p95_max_N": [round(x, 1) for x in force[0]],
        "tip_force_p50_p95_max_N": [round(float(x), 1) for x in tips],
        "costs": {
            name: {k: _short(c[k]) for k in ("budget", "mean", "interval", "over_budget", "worst_margin")}
            for name, c in told["constraints"].items()
        },
    }


def _short(value: Any) -> Any:
    if isinstance(value, list):
        return [_short(v) for v in value]
    return round(value, 4) if isinstance(value, float) else value
