"""The filter's distances over the recorded poses of a batch of scenes: what training pays for is what is enforced."""

from __future__ import annotations

import os
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial

import mujoco
import numpy as np

from palmar.safety.constraints import ConstraintSet
from palmar.safety.geometry import FAR, Kinematics, PoseGeometry
from palmar.safety.obstacles import keep_outs
from palmar.safety.robot import RobotModel
from palmar.safety.sight import joint_regions, pose_regions
from palmar.sim.engines.mujoco_cpu import Clearance, Regions

Array = np.ndarray
THREADS = min(4, os.cpu_count() or 1)
"""Threads that share out clearances."""


def clearance_routine(robot: RobotModel, model: mujoco.MjModel) -> Clearance:
    """The filter's distance routine over a scene's recorded poses, or over joints where its geoms differ."""
    kinematics = Kinematics.from_model(robot)
    columns = [model.geom(g).name for g in range(model.ngeom)]
    if kinematics.plain and all(g in columns for g in kinematics.geoms):
        return partial(_from_poses, kinematics.batch(columns), ThreadPoolExecutor(THREADS))

    def from_joints(q: Array, xpos: Array, xmat: Array) -> tuple[Array, Array]:
        rows = [kinematics.clearances(row, near=FAR) for row in q.reshape(-1, q.shape[-1])]
        own, table = (np.array([r[k].min() for r in rows]).reshape(q.shape[:-1]) for k in (0, 1))
        return np.minimum(own, FAR), table

    return from_joints


def regions_routine(robot: RobotModel, model: mujoco.MjModel, constraints: ConstraintSet) -> Regions | None:
    """The filter's distances to the keep-out regions of a constraint file; None where it has none."""
    rows = tuple(c.name for c in constraints.constraints if c.margin == "keep_out")
    if not rows:
        return None
    obstacles = keep_outs(constraints.select(rows), 0.0)
    kinematics = Kinematics.from_model(robot)
    columns = [model.geom(g).name for g in range(model.ngeom)]
    if not (kinematics.plain and all(g in columns for g in kinematics.geoms)):
        return lambda q, xpos, xmat: joint_regions(kinematics, obstacles, q)
    geometry = kinematics.batch(columns)
    return lambda q, xpos, xmat: pose_regions(geometry, obstacles, xpos, xmat.reshape(*xmat.shape[:-2], -1, 9))


def _from_poses(geometry: PoseGeometry, pool: Executor, q: Array, xpos: Array, xmat: Array) -> tuple[Array, Array]:
    """Clearances of recorded poses; many are shared out over threads (the kernel holds no lock)."""
    xmat = xmat.reshape(*xmat.shape[:-2], -1, 9)
    if xpos.ndim < 3 or len(xpos) < 2 * THREADS:
        return geometry.clearances(xpos, xmat)
    parts = pool.map(geometry.clearances, np.array_split(xpos, THREADS), np.array_split(xmat, THREADS))
    own, table = zip(*parts, strict=True)
    return np.concatenate(own), np.concatenate(table)
