"""Kinematics of the robot alone, batched: palm and fingertip poses and one damped inverse-kinematics step.

Works from joint readings only, so that training and the deployed policy node compute the same thing.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np
from numba import njit

from palmar.safety import batched_tree, geometry
from palmar.safety.namespace import namespace
from palmar.safety.robot import RobotModel

try:
    from mujoco.batch import Batch
except ImportError:  # MuJoCo before 4.0, which Isaac Lab pins
    Batch = None

Array = np.ndarray
NEEDLESS = (
    mujoco.mjtDisableBit.mjDSBL_CONTACT
    | mujoco.mjtDisableBit.mjDSBL_CONSTRAINT
    | mujoco.mjtDisableBit.mjDSBL_ACTUATION
    | mujoco.mjtDisableBit.mjDSBL_SENSOR
)
"""What a forward pass need not compute for the sake of poses."""
DAMPING = 0.03
"""Damping of the pseudo-inverse [m or rad per rad]."""


@dataclass(frozen=True)
class Hand:
    """Where the palm and the fingertips are, world frame."""

    palm: Array
    """Palm origin [m], (B, 3)."""
    rotation: Array
    """Palm axes as columns, (B, 3, 3)."""
    tips: Array
    """Fingertip centres in the order of RobotModel.tip_geoms [m], (B, 4, 3)."""
    jacobian: Array
    """d(palm position, palm rotation vector) / d(arm joints), (B, 6, n_arm)."""


class Kinematics:
    """Forward kinematics of B robots of one model: MuJoCo's, or the batched filter's where MuJoCo has no batches."""

    def __init__(self, robot: RobotModel, batch: int, *, nthread: int = 1):
        model = mujoco.MjModel.from_xml_string(robot.xml)
        tips = np.array([model.geom(g).id for g in robot.tip_geoms])
        self.tip_radius = model.geom_size[tips, 0].copy()
        """Radius of each fingertip [m], (4,)."""
        self._placed = Placed(robot) if Batch is None else None
        if Batch is None:
            return
        model.opt.disableflags |= NEEDLESS
        self._batch = Batch(model, nsim=batch, nthread=nthread)
        self._qadr = np.array([model.joint(j).qposadr[0] for j in robot.joints])
        self._arm = np.array([model.joint(j).id for j in robot.joints[: robot.n_arm]])
        self._palm = model.body(robot.palm_body).id
        self._tips = tips
        b = self._batch
        self._qpos, self._xpos, self._xmat = b.bind("qpos"), b.bind("xpos"), b.bind("xmat")
        self._axis, self._anchor, self._geom = b.bind("xaxis"), b.bind("xanchor"), b.bind("geom_xpos")

    def hand(self, q: Array) -> Hand:
        """Palm, fingertips and Jacobian at joint positions q (B, n) [rad]."""
        if self._placed is not None:
            return self._placed.hand(q)
        self._qpos[:, self._qadr] = q
        self._batch.forward(stage=mujoco.mjtStage.mjSTAGE_POS)
        shape = (len(q), len(self._arm), 6)
        palm, tips, screws = np.empty((len(q), 3)), np.empty((len(q), len(self._tips), 3)), np.empty(shape)
        at = self._xpos, self._axis, self._anchor, self._geom
        _read(*at, self._palm, self._arm, self._tips, palm, tips, screws)
        return Hand(
            palm=palm,
            rotation=self._xmat[:, self._palm].reshape(-1, 3, 3).copy(),
            tips=tips,
            jacobian=screws.swapaxes(1, 2),
        )


@njit(cache=True, nogil=True)
def _read(xpos, xaxis, xanchor, geom_xpos, body, joints, geoms, palm, tips, screws):
    """Palm (B, 3), fingertips (B, 4, 3) and columns of the Jacobian (B, n_arm, 6) out of MuJoCo's fields."""
    for w in range(len(palm)):
        for i in range(3):
            palm[w, i] = xpos[w, body, i]
            for k in range(len(geoms)):
                tips[w, k, i] = geom_xpos[w, geoms[k], i]
        for k in range(len(joints)):
            j = joints[k]
            for i in range(3):
                a, b = (i + 1) % 3, (i + 2) % 3
                x, y = palm[w, a] - xanchor[w, j, a], palm[w, b] - xanchor[w, j, b]
                screws[w, k, i], screws[w, k, 3 + i] = xaxis[w, j, a] * y - xaxis[w, j, b] * x, xaxis[w, j, i]


class Placed:
    """The same from ``batched_tree``, for any MuJoCo."""

    def __init__(self, robot: RobotModel):
        kin = geometry.Kinematics.from_model(robot)
        self._links, self._parent, self._palm = batched_tree.links_of(kin), kin.tree.parent.tolist(), kin.tree.palm
        self._tips, self._n_arm = [kin.geoms.index(g) for g in robot.tip_geoms], robot.n_arm

    def hand(self, q: Array) -> Hand:
        """See ``Kinematics.hand``."""
        at = batched_tree.place(self._links, self._parent, np.asarray(q, dtype=np.float64))
        palm, screw = at.p[:, self._palm], at.screw[:, : self._n_arm]
        axis = screw[..., :3]
        linear = np.cross(axis, palm[:, None]) + screw[..., 3:]  # axis x (palm - anchor)
        return Hand(
            palm=palm,
            rotation=at.r[:, self._palm],
            tips=at.ends[:, self._tips].mean(axis=2),
            jacobian=np.concatenate([linear, axis], axis=-1).swapaxes(1, 2),
        )


def arm_step(hand: Hand, palm: Array, rotation: Array) -> Array:
    """Joint displacement of the arm that brings the palm nearer to a pose, damped least squares [rad].

    Args:
        hand: Where the palm is.
        palm: Wanted palm origin [m], (B, 3).
        rotation: Wanted palm axes, (B, 3, 3).

    Returns:
        (B, n_arm).
    """
    error = np.concatenate([palm - hand.palm, rotation_vector(rotation @ hand.rotation.swapaxes(1, 2))], axis=1)
    j = hand.jacobian
    gram = j @ j.swapaxes(1, 2) + DAMPING**2 * np.eye(6)
    return (j.swapaxes(1, 2) @ np.linalg.solve(gram, error[..., None]))[..., 0]


def rotation_vector(r: Array) -> Array:
    """Axis times angle of rotation matrices (B, 3, 3) [rad], (B, 3); angles well below pi.  numpy or torch."""
    xp = namespace(r)
    skew = xp.stack([r[:, 2, 1] - r[:, 1, 2], r[:, 0, 2] - r[:, 2, 0], r[:, 1, 0] - r[:, 0, 1]], axis=1)
    sine = 0.5 * xp.sqrt(xp.sum(skew * skew, axis=1))
    cosine = 0.5 * (r[:, 0, 0] + r[:, 1, 1] + r[:, 2, 2] - 1.0)
    angle = xp.atan2(sine, cosine)
    return skew * (0.5 * angle / xp.clip(sine, 1e-9, None))[:, None]


def rotation_z(angle: Array) -> Array:
    """Rotation about world z by angle (B,) [rad], (B, 3, 3).  numpy or torch."""
    xp = namespace(angle)
    c, s, o, i = xp.cos(angle), xp.sin(angle), xp.zeros_like(angle), xp.ones_like(angle)
    return xp.reshape(xp.stack([c, -s, o, s, c, o, o, o, i], axis=-1), (-1, 3, 3))


def matrix(quaternion: Array) -> Array:
    """Rotation matrices (..., 3, 3) of unit quaternions w-x-y-z (..., 4).  numpy or torch."""
    xp = namespace(quaternion)
    w, x, y, z = (quaternion[..., k] for k in range(4))
    rows = (
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    )  # fmt: skip
    return xp.reshape(xp.stack(rows, axis=-1), (*quaternion.shape[:-1], 3, 3))


def quaternion(rotation: Array) -> Array:
    """Unit quaternions w-x-y-z (B, 4) of rotation matrices (B, 3, 3)."""
    out = np.empty((len(rotation), 4))
    for k, r in enumerate(rotation):
        mujoco.mju_mat2Quat(out[k], r.ravel())
    return out
