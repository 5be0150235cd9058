"""Plays a drive of ``sim.parity`` in Isaac Lab's environment: on Isaac Lab, or on what it stands on, of its version.

    python -m palmar.sim.engines.isaaclab_parity {isaaclab|mujoco|mujoco_warp} <task> <drive.npz> <trace.npz> <step>...

The others separate what is Isaac Lab's from what is MuJoCo Warp's, and both from MuJoCo's version.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import torch

from palmar.safety import constraints as constraint_file
from palmar.safety.constraints import ConstraintSet
from palmar.safety.robot import RobotModel
from palmar.safety.types import Measurement
from palmar.sim import parity
from palmar.sim.engines import plain
from palmar.sim.engines.isaaclab import PalmarEnv
from palmar.sim.engines.isaaclab_cfg import PalmarEnvCfg, PhysicsCfg
from palmar.sim.engines.isaaclab_plant import DTYPE
from palmar.sim.engines.isaaclab_scene import scene_of
from palmar.sim.robots import load_robot
from palmar.sim.tasks import find

Array = np.ndarray


def on_isaaclab(drive: parity.Drive, task: Any, robot: RobotModel, held: ConstraintSet) -> tuple[parity.Advance, float]:
    """Isaac Lab in the drive's state, and its physics step [s]."""
    cfg, b = PalmarEnvCfg(stagger=False), len(drive.qpos)
    cfg.scene.num_envs, cfg.sim.device, cfg.sim.physics = b, "cpu", PhysicsCfg().newton_cpu
    env = PalmarEnv(cfg, parts=(task, robot, held))
    env.reset(seed=0)
    plant, model = env.plant, scene_of(task, robot, num_envs=1)[1].model
    q, qd, poses, twists = (torch.as_tensor(x, dtype=DTYPE) for x in _state(model, drive, task, robot))
    if task.objects:
        bodies = [model.body(name).id for name in task.objects]
        mu = drive.fields["geom_friction"][:, model.geom(robot.tip_geoms[0]).id, 0]
        plant.draw(mu, drive.fields["body_mass"][:, bodies])
    plant.reset(torch.arange(b), q, poses, qd=qd, twists=twists)
    now = torch.zeros(b, dtype=DTYPE)

    def advance(*sent: Array) -> Measurement:
        nonlocal now
        commands, samples = [torch.as_tensor(x, dtype=DTYPE) for x in sent], []
        for u in commands[0]:
            plant.command(u)
            env.scene.write_data_to_sim()
            env.sim.step(render=False)
            env.scene.update(dt=env.physics_dt)
            samples.append(plant.sample())
        t = now + env.physics_dt * torch.arange(1, len(samples) + 1, dtype=DTYPE)[:, None]
        now = t[-1]
        plant.check()
        return plant.measurement(samples, t, commands)

    return advance, env.physics_dt


def _state(model: mujoco.MjModel, drive: parity.Drive, task: Any, robot: RobotModel) -> tuple[Array, ...]:
    """Joint positions and velocities (B, n), poses (B, m, 7) and twists (B, m, 6) in the world frame, of a drive."""
    q = drive.qpos[:, [model.joint(j).qposadr[0] for j in robot.joints]]
    qd = drive.qvel[:, [model.joint(j).dofadr[0] for j in robot.joints]]
    worlds, m = len(q), len(task.objects)
    poses, twists = np.zeros((worlds, m, 7)), np.zeros((worlds, m, 6))
    for k, name in enumerate(task.objects):
        joint = model.joint(f"{name}_free")
        poses[:, k] = drive.qpos[:, joint.qposadr[0] : joint.qposadr[0] + 7]
        twists[:, k] = drive.qvel[:, joint.dofadr[0] : joint.dofadr[0] + 6]
    for pose, twist in zip(poses.reshape(-1, 7), twists.reshape(-1, 6), strict=True):
        mujoco.mju_rotVecQuat(twist[3:], twist[3:].copy(), pose[3:])  # MuJoCo's spin of a free joint is the body's
    return q, qd, poses, twists


ENGINES = {"isaaclab": on_isaaclab, "mujoco": plain.on_mujoco, "mujoco_warp": plain.on_mujoco_warp}


def main(words: Sequence[str]) -> None:
    """Play and store the trace."""
    engine, name, source, target, *steps = words
    drive, robot = parity.Drive.load(Path(source)), load_robot()
    text = (files("palmar.configs") / "constraints" / "arm_hand.yaml").read_text()
    held, found = constraint_file.parse(text, robot.limits), find.load(name)
    task = found.task(found.config())
    advance, dt = ENGINES[engine](drive, task, robot, held)
    trace = parity.play(advance, drive, task=task, robot=robot, constraints=held, dt=dt, steps=[int(k) for k in steps])
    np.savez(target, allow_pickle=False, **trace)


if __name__ == "__main__":
    main(sys.argv[1:])
