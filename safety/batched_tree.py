"""A batch of one robot in different poses: kinematics, distances and dynamics over an array namespace.

What ``tree``, ``distances`` and ``dynamics`` compute for one robot, formula by formula, for B of them at once, with
static shapes and no branch on data: numpy or torch, CPU or GPU.  A joint's screw (axis, anchor x axis) is seen from the
world's origin, so that every gradient of a distance and every column of the mass matrix is a product of matrices.
Source: Featherstone, Rigid Body Dynamics Algorithms (2008), chapters 2 and 6.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import mujoco
import numpy as np

from palmar.safety.geometry import Kinematics
from palmar.safety.namespace import namespace
from palmar.safety.types import Array


class Links(NamedTuple):
    """The arrays of ``tree.Tree`` that a batch needs, with masses, in one namespace; see there for the shapes."""

    turn: Array
    """(b, 3, 3) cross-product matrix of each body's joint axis, zero where no joint moves it."""
    position: Array
    rotation: Array
    anchor: Array
    axis: Array
    """(n, 3)"""
    joint: Array
    """(b,), 0 where there is none."""
    zero: Array
    above: Array
    """(b, n), 1.0 or 0.0."""
    joint_body: Array
    geom_body: Array
    ends: Array
    radius: Array
    one: Array
    """(P,) first geom of each pair."""
    two: Array
    moves: Array
    """(P, n) +1 where a joint moves only the second geom, -1 where only the first, else 0."""
    near: Array
    """(P,) part of the barriers' reach."""
    table: Array
    hand: Array
    """(k,) whether a table geom belongs to the hand, 1.0 or 0.0."""
    mass: Array
    """(b,) [kg]"""
    com: Array
    """(b, 3) centre of mass in the body [m]."""
    inertia: Array
    """(b, 3, 3) about the centre of mass, in the body [kg m2]."""
    armature: Array
    """(n,) [kg m2]"""


class Placed(NamedTuple):
    """Where B robots are, world frame."""

    p: Array
    """Bodies (B, b, 3) [m]."""
    r: Array
    """(B, b, 3, 3)"""
    screw: Array
    """Axis and anchor x axis of each joint, (B, n, 6)."""
    ends: Array
    """Segment ends of the geoms (B, g, 2, 3) [m]."""


def links_of(kin: Kinematics) -> Links:
    """Take a robot's arrays, as numpy."""
    tree, model, nb = kin.tree, kin.model, len(kin.tree.parent)
    above = tree.above.astype(np.float64)
    inner = np.empty((nb, 9))
    for b in range(nb):
        mujoco.mju_quat2Mat(inner[b], model.body_iquat[b + 1])
    inner = inner.reshape(nb, 3, 3)
    one, two = tree.pairs[:, 0], tree.pairs[:, 1]
    jointed = tree.joint >= 0
    return Links(
        turn=np.where(jointed[:, None, None], -np.cross(tree.axis[:, None], np.eye(3)), 0.0),
        position=tree.position,
        rotation=tree.rotation,
        anchor=tree.anchor,
        axis=tree.axis[tree.joint_body],
        joint=np.where(jointed, tree.joint, 0),
        zero=tree.zero,
        above=above,
        joint_body=tree.joint_body,
        geom_body=tree.geom_body,
        ends=tree.ends,
        radius=tree.radius,
        one=one,
        two=two,
        moves=above[tree.geom_body[two]] - above[tree.geom_body[one]],
        near=tree.pair_near,
        table=tree.table,
        hand=tree.hand[tree.table].astype(np.float64),
        mass=model.body_mass[1:].copy(),
        com=model.body_ipos[1:].copy(),
        inertia=inner @ (model.body_inertia[1:, :, None] * inner.swapaxes(1, 2)),
        armature=model.dof_armature[kin.dof].copy(),
    )


def converted(values: Any, like: Array) -> Any:
    """A NamedTuple of numpy arrays, numbers and such tuples in the namespace, precision and device of ``like``."""
    xp = namespace(like)

    def one(x: Any) -> Any:
        if isinstance(x, tuple):
            return converted(x, like)
        if not isinstance(x, np.ndarray):
            return x
        dtype = xp.int64 if x.dtype.kind == "i" else like.dtype
        return xp.asarray(np.ascontiguousarray(x), dtype=dtype, device=like.device)

    return type(values)(*(one(x) for x in values))


def dot(a: Array, b: Array) -> Array:
    """Inner product of the last axis."""
    return namespace(a).sum(a * b, axis=-1)


def place(k: Links, parent: Array, q: Array) -> Placed:
    """Forward kinematics of q (B, n) [rad]; ``parent`` is ``Tree.parent``, a loop's bounds and not data."""
    xp = namespace(q)
    angle = (xp.take(q, k.joint, axis=1) - k.zero)[..., None, None]
    spun = xp.sin(angle) * k.turn + (1.0 - xp.cos(angle)) * (k.turn @ k.turn)  # Rodrigues, less the identity
    local = k.rotation + k.rotation @ spun  # (B, b, 3, 3)
    shift = k.position - (k.rotation @ (spun @ k.anchor[..., None]))[..., 0]
    p: list[Array] = []
    r: list[Array] = []
    for b, up in enumerate(parent):
        if up < 0:
            r.append(local[:, b])
            p.append(shift[:, b])
        else:
            r.append(r[up] @ local[:, b])
            p.append(p[up] + (r[up] @ shift[:, b, :, None])[..., 0])
    rs, ps = xp.stack(r, axis=1), xp.stack(p, axis=1)
    own = xp.take(rs, k.joint_body, axis=1)
    axis = (own @ k.axis[..., None])[..., 0]
    anchor = xp.take(ps, k.joint_body, axis=1) + (own @ xp.take(k.anchor, k.joint_body, axis=0)[..., None])[..., 0]
    screw = xp.concat([axis, xp.linalg.cross(anchor, axis)], axis=-1)
    holds = xp.take(rs, k.geom_body, axis=1)
    ends = xp.take(ps, k.geom_body, axis=1)[:, :, None] + k.ends @ xp.matrix_transpose(holds)
    return Placed(ps, rs, screw, ends)


def gradient(at: Placed, n: Array, x: Array, moves: Array) -> Array:
    """Gradients of ``n . x`` for points fixed to bodies, (B, k, n).

    Args:
        at: Where the robots are.
        n: Directions, (B, k, 3).
        x: Points [m], (B, k, 3).
        moves: Whether a joint moves the point, (k, n) or (B, k, n); signed for the difference of two points whose
            distance lies along n.
    """
    xp = namespace(n)
    return (xp.concat([xp.linalg.cross(x, n), n], axis=-1) @ xp.matrix_transpose(at.screw)) * moves


def closest(r: Array, d: Array, e: Array) -> tuple[Array, Array]:
    """Closest points of segments s d and -r + t e, s and t in [-1, 1], (...,): ``distances.segment_segment``."""
    xp = namespace(d)
    aa, ee, ae, c, g = dot(d, d), dot(e, e), dot(d, e), dot(d, r), dot(e, r)
    nil, unit = xp.zeros_like(ae), xp.ones_like(ae)
    aa, ee = aa + nil, ee + nil
    det, rounding = aa * ee - ae * ae, max(1e-6, 16.0 * float(xp.finfo(ae.dtype).eps))
    over_a, over_e = xp.where(aa > 0.0, aa, unit), xp.where(ee > 0.0, ee, unit)
    crossed = det > rounding * aa * ee
    s = xp.clip((ae * g - c * ee) / xp.where(crossed, det, unit), -1.0, 1.0)
    t = (g + s * ae) / over_e
    beyond = (t < -1.0) | (t > 1.0)
    t = xp.clip(t, -1.0, 1.0)
    s = xp.where(beyond, xp.clip((t * ae - c) / over_a, -1.0, 1.0), s)
    best, bs, bt = nil + float("inf"), nil, nil
    for k in range(4):
        end = nil + (2.0 * (k % 2) - 1.0)
        if k < 2:
            one, two = end, xp.where(ee > 0.0, xp.clip((g + end * ae) / over_e, -1.0, 1.0), nil)
        else:
            one, two = xp.where(aa > 0.0, xp.clip((end * ae - c) / over_a, -1.0, 1.0), nil), end
        x = r + one[..., None] * d - two[..., None] * e
        w = dot(x, x)
        less = w < best
        best, bs, bt = xp.where(less, w, best), xp.where(less, one, bs), xp.where(less, two, bt)
    return xp.where(crossed, s, bs), xp.where(crossed, t, bt)


def apart(xa: Array, xb: Array) -> tuple[Array, Array]:
    """Distance of points (..., 3) and the direction from xa to xb, zero where they coincide."""
    xp = namespace(xa)
    square = dot(xb - xa, xb - xa)
    far = square > 1e-18
    length = xp.where(far, xp.sqrt(xp.where(far, square, xp.ones_like(square))), xp.zeros_like(square))
    n = xp.where(far[..., None], (xb - xa) / xp.where(far, length, xp.ones_like(length))[..., None], 0.0 * xa)
    return length, n


def middle(ends: Array) -> tuple[Array, Array]:
    """Centres and half segments (..., 3) of segment ends (..., 2, 3)."""
    return 0.5 * (ends[..., 0, :] + ends[..., 1, :]), 0.5 * (ends[..., 1, :] - ends[..., 0, :])


def pair_distances(k: Links, at: Placed) -> tuple[Array, Array, Array]:
    """Distance of every pair (B, P) [m], its direction and a point on its line (B, P, 3)."""
    xp = namespace(at.ends)
    one, d = middle(xp.take(at.ends, k.one, axis=1))
    two, e = middle(xp.take(at.ends, k.two, axis=1))
    s, t = closest(one - two, d, e)
    length, n = apart(one + s[..., None] * d, two + t[..., None] * e)
    return length - xp.take(k.radius, k.one) - xp.take(k.radius, k.two), n, two + t[..., None] * e


def table_heights(k: Links, at: Placed) -> tuple[Array, Array]:
    """Height of the lowest point of every table geom (B, k) [m] and the segment end above it (B, k, 3)."""
    xp = namespace(at.ends)
    low = xp.take(at.ends, k.table, axis=1)
    end = xp.where((low[:, :, 0, 2] <= low[:, :, 1, 2])[..., None], low[:, :, 0], low[:, :, 1])
    return end[..., 2] - xp.take(k.radius, k.table), end


def dynamics(k: Links, at: Placed, v: Array, arm: int) -> tuple[Array, Array]:
    """Mass matrix of the arm's joints (B, arm, n) [kg m2] and their torques at zero acceleration (B, arm) [N m].

    Without gravity.  Composite rigid bodies about the world's origin; spatial vectors are (angular, linear).
    """
    xp = namespace(v)
    m, mc, inertia = _about_origin(k, at)
    below = xp.matrix_transpose(k.above)
    joint_m, joint_mc = below @ m, below @ mc  # of all that each joint carries: (n, 1), (B, n, 3)
    joint_i = xp.reshape(below @ xp.reshape(inertia, (*mc.shape[:2], 9)), (len(v), -1, 3, 3))
    need = _momentum(joint_m, joint_mc, joint_i, at.screw)  # (B, n, 6)
    product = at.screw @ xp.matrix_transpose(need)  # [i, j] holds where joint i carries joint j
    carries = xp.take(k.above, k.joint_body, axis=0)
    mine = xp.where(carries > 0.0, xp.matrix_transpose(product), product * xp.matrix_transpose(carries))[:, :arm]
    mass = mine + (xp.eye(v.shape[1], dtype=v.dtype, device=v.device) * k.armature)[:arm]
    speed = at.screw * v[..., None]
    velocity = k.above @ speed  # (B, b, 6)
    joint_velocity = xp.take(velocity, k.joint_body, axis=1)
    acceleration = k.above @ _crossed(joint_velocity, speed)
    h = _momentum(m, mc, inertia, velocity)
    force = _momentum(m, mc, inertia, acceleration) + _crossed_force(velocity, h)
    return mass, dot(at.screw, below @ force)[:, :arm]


def _about_origin(k: Links, at: Placed) -> tuple[Array, Array, Array]:
    """Mass (b, 1), mass times centre (B, b, 3) and inertia about the world's origin (B, b, 3, 3) of every body."""
    xp = namespace(at.p)
    c = at.p + (at.r @ k.com[..., None])[..., 0]
    m = k.mass[:, None]
    eye = xp.eye(3, dtype=c.dtype, device=c.device)
    shift = dot(c, c)[..., None, None] * eye - c[..., :, None] * c[..., None, :]
    return m, m * c, at.r @ k.inertia @ xp.matrix_transpose(at.r) + m[..., None] * shift


def _momentum(m: Array, mc: Array, inertia: Array, motion: Array) -> Array:
    """Spatial inertia times motion, (B, k, 6)."""
    xp = namespace(motion)
    w, v = motion[..., :3], motion[..., 3:]
    angular = (inertia @ w[..., None])[..., 0] + xp.linalg.cross(mc, v)
    return xp.concat([angular, m * v + xp.linalg.cross(w, mc)], axis=-1)


def _crossed(a: Array, b: Array) -> Array:
    """Spatial cross product of motions."""
    xp = namespace(a)
    w, v = a[..., :3], a[..., 3:]
    linear = xp.linalg.cross(w, b[..., 3:]) + xp.linalg.cross(v, b[..., :3])
    return xp.concat([xp.linalg.cross(w, b[..., :3]), linear], axis=-1)


def _crossed_force(a: Array, f: Array) -> Array:
    """Spatial cross product of a motion and a force (or momentum)."""
    xp = namespace(a)
    w, v = a[..., :3], a[..., 3:]
    angular = xp.linalg.cross(w, f[..., :3]) + xp.linalg.cross(v, f[..., 3:])
    return xp.concat([angular, xp.linalg.cross(w, f[..., 3:])], axis=-1)
