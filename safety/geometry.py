"""Clearances of one robot at joint positions, and of a batch of poses that MuJoCo recorded.

The filter measures with ``Kinematics``, training with ``PoseGeometry``; both share ``distances.segment_segment``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
from numba import njit

from palmar.safety.distances import FAR, distances, pair_row, segment_distance, table_row
from palmar.safety.hulls import Detail
from palmar.safety.mjcf import tree_of
from palmar.safety.robot import RobotModel
from palmar.safety.tree import Tree, poses, room_of
from palmar.safety.types import ConfigError

Array = np.ndarray


@njit(cache=True, nogil=True)
def _pose_clearances(xpos, xmat, half, radius, pairs, table, near, own, low):
    ends = np.empty((2, 3, 3))
    for v in range(xpos.shape[0]):
        for w in range(xpos.shape[1]):
            best = near
            for i in range(len(pairs)):
                a, b = pairs[i, 0], pairs[i, 1]
                reach = half[a] + half[b] + radius[a] + radius[b] + best
                x = xpos[v, w, a, 0] - xpos[v, w, b, 0]
                y = xpos[v, w, a, 1] - xpos[v, w, b, 1]
                z = xpos[v, w, a, 2] - xpos[v, w, b, 2]
                if x * x + y * y + z * z >= reach * reach:
                    continue
                for k in range(3):
                    ua, ub = half[a] * xmat[v, w, a, 3 * k + 2], half[b] * xmat[v, w, b, 3 * k + 2]
                    ends[0, 0, k], ends[0, 1, k] = xpos[v, w, a, k] - ua, xpos[v, w, a, k] + ua
                    ends[1, 0, k], ends[1, 1, k] = xpos[v, w, b, k] - ub, xpos[v, w, b, k] + ub
                best = min(best, segment_distance(ends, 0, 1)[0] - radius[a] - radius[b])
            own[v, w] = best
            height = np.inf
            for i in range(len(table)):
                g = table[i]
                height = min(height, xpos[v, w, g, 2] - half[g] * abs(xmat[v, w, g, 8]) - radius[g])
            low[v, w] = height


@dataclass(frozen=True)
class PoseGeometry:
    """Clearances from recorded world poses, for training.  Made by ``Kinematics.batch``."""

    half: Array
    """(c,) half length of each column's segment [m]."""
    radius: Array
    """(c,) [m]"""
    pairs: Array
    """(P, 2) columns."""
    table: Array
    """(k,) columns that must stay above the table."""
    moving: Array
    """(m,) columns that a joint moves."""

    def clearances(self, geom_xpos: Array, geom_xmat: Array) -> tuple[Array, Array]:
        """Smallest self clearance, clamped to FAR, and smallest table clearance [m].

        Args:
            geom_xpos: World positions of the columns' geoms [m], (*B, g, 3).
            geom_xmat: World rotations, row-major, (*B, g, 9).

        Returns:
            Self and table clearance, (*B,) float64.

        Raises:
            ConfigError: If the shapes do not fit the columns or each other.
        """
        lead, g = geom_xpos.shape[:-2], len(self.half)
        if geom_xpos.shape[-2:] != (g, 3) or geom_xmat.shape != (*lead, g, 9):
            raise ConfigError(
                f"geom_xpos {geom_xpos.shape}, geom_xmat {geom_xmat.shape}; need (*B, {g}, 3), (*B, {g}, 9)"
            )
        x, m = geom_xpos, geom_xmat
        if len(lead) != 2:  # two leading dimensions are read where they lie, a slice of a record included
            x, m = x.reshape(1, -1, g, 3), m.reshape(1, -1, g, 9)
        own, low = np.empty(x.shape[:2]), np.empty(x.shape[:2])
        _pose_clearances(x, m, self.half, self.radius, self.pairs, self.table, FAR, own, low)
        return own.reshape(lead), low.reshape(lead)


@dataclass(frozen=True)
class Kinematics:
    """A robot's tree and scratch space for its kernels.  Not for use by two threads at once."""

    tree: Tree
    geoms: tuple[str, ...]
    scratch: tuple[Array, ...]
    """Body positions, rotations, world axes, anchors, segment ends."""
    model: mujoco.MjModel
    """The compiled MJCF of the robot, without gravity."""
    qpos: Array
    """(n,) address of each hardware joint in MuJoCo's positions."""
    dof: Array
    """(n,) address of each hardware joint in MuJoCo's velocities."""

    @property
    def plain(self) -> bool:
        """Whether every geom is a capsule or sphere itself, not only inside one."""
        kinds = {int(self.model.geom(g).type[0]) for g in self.geoms}
        return kinds <= {int(mujoco.mjtGeom.mjGEOM_CAPSULE), int(mujoco.mjtGeom.mjGEOM_SPHERE)}

    @staticmethod
    def from_model(robot: RobotModel, detail: Detail | None = None, *, own: float = 0.0) -> Kinematics:
        """Take the kinematics out of a robot's MJCF.

        Args:
            robot: The robot.
            detail: What sticks out of its capsules: they get skins, and pairs with hulls the hulls' distance, or that
                of the capsules without skins where it is smaller.
            own: Part of the clearance asked for that capsules without skins need not keep [m].

        Raises:
            ConfigError: If a name is missing, a joint is no hinge, a body has two joints, or a named geom is
                no solid shape.
        """
        model = mujoco.MjModel.from_xml_string(robot.xml)
        model.opt.gravity[:] = 0.0
        tree, geoms, joints = tree_of(model, robot, detail or Detail(), own)
        return Kinematics(
            tree,
            geoms,
            room_of(tree),
            model,
            model.jnt_qposadr[joints].copy(),
            model.jnt_dofadr[joints].copy(),
        )

    def place(self, q: Array) -> tuple[Array, ...]:
        """Forward kinematics of q (n,) into the scratch space, which is returned."""
        poses(self.tree, q, *self.scratch)
        return self.scratch

    def palm(self, q: Array) -> Array:
        """Palm origin in the world [m], (3,)."""
        return self.place(q)[0][self.tree.palm].copy()

    def clearances(self, q: Array, *, near: float = np.inf) -> tuple[Array, Array]:
        """Distance of every pair (P,), lower bounds above ``near``, height of every table geom (k,) [m]."""
        pair, table = np.empty(len(self.tree.pairs)), np.empty(len(self.tree.table))
        distances(self.tree, self.place(q)[4], near, pair, table)
        return pair, table

    def rows(self, q: Array) -> tuple[Array, Array]:
        """Gradients of ``clearances``: (P, n) and (k, n) [m/rad]."""
        _, _, axis, anchor, ends = self.place(q)
        tree, n = self.tree, len(self.tree.joint_body)
        pair, table = np.empty((len(tree.pairs), n)), np.empty((len(tree.table), n))
        v = np.empty((3, 3))
        for i in range(len(pair)):
            pair_row(tree, i, ends, axis, anchor, pair[i], v[0], v[1], v[2])
        for i in range(len(table)):
            table_row(tree, i, ends, axis, anchor, table[i], v[0])
        return pair, table

    def batch(self, columns: Sequence[str]) -> PoseGeometry:
        """Clearances of recorded poses whose geom axis has these names (others than the robot's are ignored).

        Raises:
            ConfigError: If a geom of the robot is not among them, or is no capsule or sphere.
        """
        columns = list(columns)
        if not self.plain:
            raise ConfigError("recorded poses give distances of capsules and spheres only; this robot has other geoms")
        missing = [g for g in self.geoms if g not in columns]
        if missing:
            raise ConfigError(f"geoms {missing} are not among the recorded columns {columns}")
        at = np.array([columns.index(g) for g in self.geoms], dtype=np.int64)
        half, radius = np.zeros(len(columns)), np.zeros(len(columns))
        half[at] = 0.5 * np.linalg.norm(self.tree.ends[:, 1] - self.tree.ends[:, 0], axis=-1)
        radius[at] = self.tree.radius
        return PoseGeometry(half, radius, at[self.tree.pairs].reshape(-1, 2), at[self.tree.table], at[self.tree.moving])
