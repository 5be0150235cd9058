"""``palmar bench isaaclab_parity``: engine ``isaaclab`` beside engine ``mujoco``, from equal states and commands.

Rows as of ``palmar bench parity`` and by the same tolerances, for four pairs: the engines; and what lies between them,
one change at a time: MuJoCo of the version that Isaac Lab pins (the version), MuJoCo Warp of it (the engine), Isaac Lab
on top of that (the conversion, and Newton).
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from palmar.benchmarks.parity import SEED, Part, parts, told_of
from palmar.safety.constraints import ConstraintSet, load
from palmar.safety.robot import RobotModel
from palmar.safety.types import PalmarError
from palmar.sim import parity
from palmar.sim.engines.isaaclab_client import interpreter
from palmar.sim.env import make_env
from palmar.sim.robots import load_robot

PLAYER = "palmar.sim.engines.isaaclab_parity"
PAIRS = (
    ("mujoco", "isaaclab"),
    ("mujoco", "mujoco 3.12"),
    ("mujoco 3.12", "mujoco_warp 3.12"),
    ("mujoco_warp 3.12", "isaaclab"),
)
"""Ours is MuJoCo 4.0."""


def run(*, worlds: int = 16, progress: Callable[..., None] | None = None) -> dict[str, Any]:
    """Every stretch with ``worlds`` worlds."""
    robot = load_robot()
    held = load(Path(str(files("palmar.configs"))) / "constraints" / "arm_hand.yaml", robot.limits)
    rows: list[dict[str, Any]] = []
    for part in parts():
        if progress is not None:
            progress(part.name)
        rows += _part(part, robot, held, worlds)
    return {"name": "isaaclab_parity", "worlds": worlds, "seed": SEED, "rows": rows}


def _part(part: Part, robot: RobotModel, held: ConstraintSet, worlds: int) -> list[dict[str, Any]]:
    tolerances = parity.load_tolerances()
    env = make_env(part.task, robot, held, num_envs=worlds, seed=SEED)
    last = max(tolerances["steps"])
    drive = parity.record(env, part.policy, name=part.name, seed=SEED, before=part.before, steps=last)
    env.engine.reset(np.arange(worlds), drive.qpos, drive.qvel)
    traces = {
        "mujoco": parity.play(
            env.engine.advance, drive, task=part.task, robot=robot, constraints=held, dt=env.engine.dt,
            steps=tolerances["steps"],
        ),
        "mujoco 3.12": elsewhere("mujoco", part.task.name, drive, tolerances["steps"]),
        "mujoco_warp 3.12": elsewhere("mujoco_warp", part.task.name, drive, tolerances["steps"]),
        "isaaclab": elsewhere("isaaclab", part.task.name, drive, tolerances["steps"]),
    }  # fmt: skip
    told = {"drive": drive, "tolerances": tolerances, **told_of(part, drive, robot)}
    return [
        row for one, two in PAIRS for row in parity.compare(traces[one], traces[two], pair=f"{one} - {two}", **told)
    ]


def elsewhere(engine: str, task: str, drive: parity.Drive, steps: list[int]) -> parity.Trace:
    """The trace that an engine in Isaac Lab's environment leaves.

    Raises:
        PalmarError: If it fails, with its last words.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "drive.npz", Path(folder) / "trace.npz"
        drive.save(source)
        command = [str(interpreter()), "-m", PLAYER, engine, task, str(source), str(target), *map(str, steps)]
        plain = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH")}
        done = subprocess.run(
            command, env=plain | {"OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"}, capture_output=True, text=True
        )
        if done.returncode or not target.is_file():
            raise PalmarError(f"{engine} of Isaac Lab's environment failed:\n{(done.stdout + done.stderr)[-2000:]}")
        with np.load(target, allow_pickle=False) as file:
            return dict(file)
