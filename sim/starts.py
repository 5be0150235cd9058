"""What every engine's environment is made of and begins with: the task's own constraints, and draws that are no part
of an episode's start.  Equal generators give equal worlds on every engine.
"""

from __future__ import annotations

import mujoco
import numpy as np

from palmar.safety.constraints import ConstraintSet
from palmar.safety.robot import RobotModel
from palmar.sim.interface import Start, Task
from palmar.sim.randomize import Fields, current

Array = np.ndarray


def asked_of(task: Task, constraints: ConstraintSet | None) -> ConstraintSet | None:
    """Those of the constraints that a task names; all of them where it names none."""
    names = tuple(task.config.constraints)
    return constraints.select(names) if constraints is not None and names else constraints


def scene_positions(task: Task, robot: RobotModel, model: mujoco.MjModel, start: Start) -> Array:
    """Positions of all joints of the scene at k starts, (k, nq): the robot's and the objects', else the model's."""
    qpos = np.tile(model.qpos0, (len(start.q), 1))
    for k, joint in enumerate(robot.joints):
        qpos[:, model.joint(joint).qposadr[0]] = start.q[:, k]
    for m, name in enumerate(task.objects):
        adr = model.joint(f"{name}_free").qposadr[0]
        qpos[:, adr : adr + 7] = start.poses[:, m]
    return qpos


def drawn_contents(task: Task, rng: np.random.Generator, k: int) -> tuple[Array | None, Array | None]:
    """Friction [-] (k,) of tips and objects, one for both, and mass of the objects [kg] (k, m), of k worlds.

    None is what the task leaves as it is.
    """
    c = task.config
    if not task.objects:
        return None, None
    friction = None if c.friction is None else rng.uniform(c.friction[0], c.friction[1], k)
    return friction, rng.uniform(c.mass[0], c.mass[1], (k, len(task.objects)))


def drawn_fields(task: Task, robot: RobotModel, model: mujoco.MjModel, rng: np.random.Generator, k: int) -> Fields:
    """``drawn_contents`` as fields of MjModel, (k, ...); inertia grows with mass."""
    friction, mass = drawn_contents(task, rng, k)
    out: Fields = {}
    if friction is not None:
        out |= current(model, k, None, "geom_friction")
        for name in robot.tip_geoms:
            out["geom_friction"][:, model.geom(name).id, 0] = friction
        for name in task.objects:
            first = model.body(name).geomadr[0]
            out["geom_friction"][:, first : first + model.body(name).geomnum[0], 0] = friction[:, None]
    if mass is not None:
        out |= current(model, k, None, "body_mass", "body_inertia")
        for m, name in enumerate(task.objects):
            body = model.body(name).id
            out["body_mass"][:, body] = mass[:, m]
            out["body_inertia"][:, body] = model.body_inertia[body] * (mass[:, m] / model.body_mass[body])[:, None]
    return out
