"""The arrays of a robot's tree, taken out of its MJCF."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import mujoco
import numpy as np

from palmar.safety.capsules import enclosing_capsule
from palmar.safety.hulls import Detail
from palmar.safety.robot import RobotModel
from palmar.safety.tree import Tree
from palmar.safety.types import ConfigError

Array = np.ndarray

FINGERS = 0.2
"""Part of the barriers' reach for pairs that fingers alone can close."""


class Bodies(NamedTuple):
    """The part of ``Tree`` that speaks of bodies and joints, under the same names."""

    parent: Array
    position: Array
    rotation: Array
    joint: Array
    axis: Array
    anchor: Array
    zero: Array
    above: Array
    joint_body: Array


def tree_of(
    model: mujoco.MjModel, robot: RobotModel, detail: Detail, own: float
) -> tuple[Tree, tuple[str, ...], Array]:
    """The arrays of ``Tree``, the geom names in their order, MuJoCo joint ids in hardware order.

    Args:
        model: The compiled MJCF of the robot.
        robot: The robot.
        detail: What sticks out of its capsules.
        own: Part of the clearance asked for that capsules without skins need not keep [m].

    Raises:
        ConfigError: If a name is missing, a joint is no hinge, a body has two joints, or a geom stands on the world.
    """
    detail.check(robot)
    joints = np.array(_ids(model, mujoco.mjtObj.mjOBJ_JOINT, robot.joints))
    if np.any(model.jnt_type[joints] != mujoco.mjtJoint.mjJNT_HINGE) or model.nq != robot.n:
        raise ConfigError(f"the robot's joints must all be hinges: {model.nq} positions for {robot.n} joints")
    if model.body_jntnum.max() > 1:
        raise ConfigError("a body of the robot has more than one joint, accepted is one")
    names = list(dict.fromkeys([g for pair in robot.pairs for g in pair] + list(robot.table_geoms)))
    geoms = np.array(_ids(model, mujoco.mjtObj.mjOBJ_GEOM, names), dtype=np.int64)
    body = model.geom_bodyid[geoms].astype(np.int64) - 1  # MuJoCo's body 0 is the world
    if np.any(body < 0):
        raise ConfigError("geoms of the robot must belong to a body, not to the world")
    palm = _ids(model, mujoco.mjtObj.mjOBJ_BODY, [robot.palm_body])[0] - 1
    n, bodies = robot.n, _bodies(model, joints)
    above = bodies.above
    shapes = [enclosing_capsule(model, int(g)) for g in geoms]
    ends, size = np.array([e for e, _ in shapes]).reshape(-1, 2, 3), np.array([r for _, r in shapes])
    half = 0.5 * np.linalg.norm(ends[:, 1] - ends[:, 0], axis=-1)
    skin = np.array([detail.skin.get(name, 0.0) for name in names])
    radius = size + skin
    at = {name: k for k, name in enumerate(names)}
    pairs = np.array([[at[a], at[b]] for a, b in robot.pairs], dtype=np.int64).reshape(-1, 2)
    table = np.array([at[g] for g in robot.table_geoms], dtype=np.int64)
    outlines = [
        np.concatenate([e, detail.hulls.get(model.body(b + 1).name, e)]) for b, e in zip(body, ends, strict=True)
    ]
    reach = np.array([_reach(bodies, b, e, n) for b, e in zip(body, outlines, strict=True)])
    pair_reach = _pair_reach(pairs, above[body], reach)
    hull_body, hull = _hulls(model, detail, body, pairs)
    tree = Tree(
        **bodies._asdict(),
        geom_body=body,
        ends=ends,
        radius=radius,
        pairs=pairs,
        table=table,
        palm=palm,
        spheres=(half[pairs] + radius[pairs]).sum(axis=1),
        pair_reach=np.ascontiguousarray(pair_reach.T),
        pair_near=np.where(pair_reach[:, above[palm]].any(axis=1), 1.0, FINGERS),
        table_reach=np.ascontiguousarray(reach[table].reshape(len(table), n).T),
        palm_reach=_reach(bodies, palm, np.zeros((1, 3)), n),
        around=half + radius,
        moving=np.flatnonzero(above[body].any(axis=1)),
        hand=np.array([_carried(bodies.parent, b, palm) for b in body]),
        hull=hull,
        thick=skin[pairs].sum(axis=1) + own,
        hull_body=hull_body,
        corners=np.concatenate([*detail.hulls.values(), np.zeros((0, 3))]),
        first=np.cumsum([0, *map(len, detail.hulls.values())]),
        hull_work=np.zeros((18, 4)),
        fingers=~above[palm],
        reach=np.ascontiguousarray(reach.reshape(len(body), n).T),
    )
    return tree, tuple(names), joints


def _bodies(model: mujoco.MjModel, joints: Array) -> Bodies:
    """Bodies of a model and what moves them; ``joints`` are MuJoCo's ids in hardware order."""
    n, nb = len(joints), model.nbody - 1
    hardware = {int(j): k for k, j in enumerate(joints)}
    joint, axis, anchor, zero = np.full(nb, -1, dtype=np.int64), np.zeros((nb, 3)), np.zeros((nb, 3)), np.zeros(nb)
    above, joint_body = np.zeros((nb, n), dtype=np.bool_), np.zeros(n, dtype=np.int64)
    parent = model.body_parentid[1:].astype(np.int64) - 1
    for b in range(nb):
        if parent[b] >= 0:
            above[b] = above[parent[b]]
        if model.body_jntnum[b + 1]:
            j = int(model.body_jntadr[b + 1])
            k = hardware[j]
            joint[b], joint_body[k], above[b, k] = k, b, True
            axis[b], anchor[b] = model.jnt_axis[j], model.jnt_pos[j]
            zero[b] = model.qpos0[model.jnt_qposadr[j]]
    rotation = np.array([_matrix(x) for x in model.body_quat[1:]]).reshape(nb, 3, 3)
    return Bodies(parent, model.body_pos[1:].copy(), rotation, joint, axis, anchor, zero, above, joint_body)


def _pair_reach(pairs: Array, above: Array, reach: Array) -> Array:
    """How far one radian of a joint moves the points of a pair (P, 2) against each other, at most [m/rad], (P, n).

    Args:
        pairs: Geoms.
        above: Whether a joint moves a geom, (g, n).
        reach: How far, (g, n) [m/rad].
    """
    out = np.zeros((len(pairs), reach.shape[-1]))
    for i, (a, b) in enumerate(pairs):
        apart = above[a] ^ above[b]  # a joint above both moves them as one
        out[i] = np.where(apart, np.where(above[a], reach[a], reach[b]), 0.0)
    return out


def _hulls(model: mujoco.MjModel, detail: Detail, body: Array, pairs: Array) -> tuple[Array, Array]:
    """Body of each hull (h,) and the hulls of each pair of geoms (P, 2), -1 where one of its bodies has none."""
    bodies = [b - 1 for b in _ids(model, mujoco.mjtObj.mjOBJ_BODY, list(detail.hulls))]
    of = {b: k for k, b in enumerate(bodies)}
    hull = np.array([[of.get(int(body[a]), -1), of.get(int(body[b]), -1)] for a, b in pairs], dtype=np.int64)
    hull = hull.reshape(-1, 2)
    hull[(hull < 0).any(axis=1)] = -1
    return np.array(bodies, dtype=np.int64), hull


def _ids(model: mujoco.MjModel, kind: mujoco.mjtObj, names: Sequence[str]) -> list[int]:
    """MuJoCo ids of names, all of which must exist."""
    ids = [mujoco.mj_name2id(model, kind, name) for name in names]
    missing = [name for name, i in zip(names, ids, strict=True) if i < 0]
    if missing:
        raise ConfigError(f"the robot's MJCF has no {kind.name[6:].lower()} named {missing}")
    return ids


def _carried(parent: Array, body: int, palm: int) -> bool:
    """Whether a body is the palm or a descendant of it."""
    while body >= 0 and body != palm:
        body = int(parent[body])
    return body == palm


def _reach(bodies: Bodies, body: int, points: Array, n: int) -> Array:
    """Largest distance of points fixed to ``body`` from each joint's axis in any configuration [m], (n,).

    From a joint's anchor to the point the links, anchor to anchor, can at most line up; the first of them
    counts without its part along the axis, which turning the joint does not move.
    """
    parent, position, rotation, joint, axis, anchor, *_ = bodies
    out, length, tip, b = np.zeros(n), 0.0, points, body
    while b >= 0:
        if joint[b] >= 0:
            link = tip - anchor[b]
            out[joint[b]] = length + np.linalg.norm(link - np.outer(link @ axis[b], axis[b]), axis=-1).max()
            length += float(np.linalg.norm(link, axis=-1).max())
            tip = anchor[b][None]
        tip = position[b] + tip @ rotation[b].T
        b = int(parent[b])
    return out


def _matrix(quaternion: Array) -> Array:
    """Rotation matrix of a w-x-y-z quaternion, (3, 3)."""
    out = np.empty(9)
    mujoco.mju_quat2Mat(out, quaternion)
    return out.reshape(3, 3)
