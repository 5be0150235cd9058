"""Capsule kinematics of a robot: forward kinematics, clearances and their gradients, one robot or a batch.

Plain arrays taken from the MJCF once; numba kernels without a Python object after that.  Every collision geom
is a capsule or a sphere, a segment with a radius, or taken for one that contains it.  The distance of two of
them is the distance of the segments less the radii.  Training (``PoseGeometry``, on poses that MuJoCo
recorded) and the filter (``Kinematics``, on joint positions) share ``segment_segment``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import mujoco
import numpy as np
from numba import njit

from palmar.safety.capsules import enclosing_capsule
from palmar.safety.hulls import CLOSE, Detail, hull_distance
from palmar.safety.robot import RobotModel
from palmar.safety.types import ConfigError

Array = np.ndarray

FAR = 0.10
"""Self clearance is exact below this and this above [m]: nobody needs to know by how much far is far."""


class Tree(NamedTuple):
    """A robot as arrays: b bodies in topological order, n joints in hardware order, g geoms, P pairs."""

    parent: Array
    """(b,) parent body, -1 for the world."""
    position: Array
    """(b, 3) in the parent [m]."""
    rotation: Array
    """(b, 3, 3) to the parent."""
    joint: Array
    """(b,) joint that moves the body, -1 for none."""
    axis: Array
    """(b, 3) joint axis in the body."""
    anchor: Array
    """(b, 3) joint anchor in the body [m]."""
    zero: Array
    """(b,) joint position of the model's rest pose [rad]."""
    above: Array
    """(b, n) whether a joint moves a body, bool."""
    joint_body: Array
    """(n,) body moved by each joint."""
    geom_body: Array
    """(g,)"""
    ends: Array
    """(g, 2, 3) segment ends in the body [m]."""
    radius: Array
    """(g,) [m]"""
    pairs: Array
    """(P, 2) geoms."""
    table: Array
    """(k,) geoms that must stay above the table."""
    palm: int
    """Palm body."""
    spheres: Array
    """(P,) sum of the radii of the pair's bounding spheres [m]."""
    pair_reach: Array
    """(n, P) how far one radian of a joint moves a pair's points against each other, at most [m/rad]."""
    table_reach: Array
    """(n, k) how far one radian of a joint moves a geom, at most [m/rad]."""
    pair_near: Array
    """(P,) part of the barriers' reach for a pair: 1 if the arm can close it, less for fingers alone."""
    palm_reach: Array
    """(n,) how far one radian of a joint moves the palm origin, at most [m/rad]."""
    around: Array
    """(g,) radius of a geom's bounding sphere about its centre [m]."""
    moving: Array
    """(m,) geoms that a joint moves."""
    hand: Array
    """(g,) whether a geom belongs to the palm or to what it carries, bool."""
    fingers: Array
    """(n,) whether a joint moves within the hand, bool."""
    hull: Array
    """(P, 2) hulls of the pair's bodies, -1 where one has none."""
    thick: Array
    """(P,) what skins and the hulls' share of the keep-back add to the capsules of a pair with hulls [m]."""
    hull_body: Array
    """(h,) body of each hull; its rotation and position follow the geoms in what ``poses`` fills."""
    corners: Array
    """(V, 3) corners of all hulls in their bodies [m]."""
    first: Array
    """(h + 1,) first corner of each hull."""
    hull_work: Array
    """(18, 4) scratch."""
    reach: Array
    """(n, g) how far one radian of a joint moves a geom, at most [m/rad]."""


@njit(cache=True, nogil=True)
def segment_segment(rx, ry, rz, dx, dy, dz, ex, ey, ez):
    """Closest points of the segments s d and -r + t e, for s and t in [-1, 1].

    Source: Ericson, Real-Time Collision Detection, 5.1.9.  For (nearly) parallel and for point segments the
    closest points are among the four pairs of an end and its nearest point, which are compared.

    Args:
        rx: Centre of the first less centre of the second [m]; likewise ry, rz.
        ry: See rx.
        rz: See rx.
        dx: Half of the first segment [m]; likewise dy, dz.
        dy: See dx.
        dz: See dx.
        ex: Half of the second [m]; likewise ey, ez.
        ey: See ex.
        ez: See ex.

    Returns:
        Square distance [m2], s, t.
    """
    aa, ee = dx * dx + dy * dy + dz * dz, ex * ex + ey * ey + ez * ez
    ae = dx * ex + dy * ey + dz * ez
    c, g = dx * rx + dy * ry + dz * rz, ex * rx + ey * ry + ez * rz
    det = aa * ee - ae * ae
    if det > 1e-6 * aa * ee:
        s = min(1.0, max(-1.0, (ae * g - c * ee) / det))
        t = (g + s * ae) / ee
        if t < -1.0 or t > 1.0:
            t = min(1.0, max(-1.0, t))
            s = min(1.0, max(-1.0, (t * ae - c) / aa))
        x, y, z = rx + s * dx - t * ex, ry + s * dy - t * ey, rz + s * dz - t * ez
        return x * x + y * y + z * z, s, t
    best, bs, bt = 1e300, 0.0, 0.0
    for k in range(4):
        if k < 2:
            s = 2.0 * k - 1.0
            t = min(1.0, max(-1.0, (g + s * ae) / ee)) if ee > 0.0 else 0.0
        else:
            t = 2.0 * k - 5.0
            s = min(1.0, max(-1.0, (t * ae - c) / aa)) if aa > 0.0 else 0.0
        x, y, z = rx + s * dx - t * ex, ry + s * dy - t * ey, rz + s * dz - t * ez
        w = x * x + y * y + z * z
        if w < best:
            best, bs, bt = w, s, t
    return best, bs, bt


@njit(cache=True, nogil=True)
def segment_distance(ends, a, b):
    """Closest points of two segments.

    Args:
        ends: Segment ends and centres [m], (g, 3, 3).
        a: Row of one segment.
        b: Row of the other.

    Returns:
        Distance [m], parameters s and t of the closest points in [0, 1].
    """
    square, s, t = segment_segment(
        0.5 * (ends[a, 0, 0] + ends[a, 1, 0] - ends[b, 0, 0] - ends[b, 1, 0]),
        0.5 * (ends[a, 0, 1] + ends[a, 1, 1] - ends[b, 0, 1] - ends[b, 1, 1]),
        0.5 * (ends[a, 0, 2] + ends[a, 1, 2] - ends[b, 0, 2] - ends[b, 1, 2]),
        0.5 * (ends[a, 1, 0] - ends[a, 0, 0]),
        0.5 * (ends[a, 1, 1] - ends[a, 0, 1]),
        0.5 * (ends[a, 1, 2] - ends[a, 0, 2]),
        0.5 * (ends[b, 1, 0] - ends[b, 0, 0]),
        0.5 * (ends[b, 1, 1] - ends[b, 0, 1]),
        0.5 * (ends[b, 1, 2] - ends[b, 0, 2]),
    )
    return math.sqrt(square), 0.5 * (1.0 + s), 0.5 * (1.0 + t)


# A function that takes arrays or a tree counts references to each of them on every call.  So loops over pairs take the
# arrays they need out of the tree first, and what they call takes as few as possible.


@njit(cache=True, nogil=True)
def pair_bounds(pairs, spheres, ends, low):
    """Lower bounds of all pairs' distances by their bounding spheres [m], into ``low`` (P,)."""
    for i in range(len(pairs)):
        a, b = pairs[i, 0], pairs[i, 1]
        x, y, z = ends[a, 2, 0] - ends[b, 2, 0], ends[a, 2, 1] - ends[b, 2, 1], ends[a, 2, 2] - ends[b, 2, 2]
        low[i] = math.sqrt(x * x + y * y + z * z) - spheres[i]


@njit(cache=True, nogil=True)
def capsule_gap(ends, radius, a, b):
    """Distance of geoms a and b [m]."""
    square, _, _ = segment_segment(
        ends[a, 2, 0] - ends[b, 2, 0],
        ends[a, 2, 1] - ends[b, 2, 1],
        ends[a, 2, 2] - ends[b, 2, 2],
        0.5 * (ends[a, 1, 0] - ends[a, 0, 0]),
        0.5 * (ends[a, 1, 1] - ends[a, 0, 1]),
        0.5 * (ends[a, 1, 2] - ends[a, 0, 2]),
        0.5 * (ends[b, 1, 0] - ends[b, 0, 0]),
        0.5 * (ends[b, 1, 1] - ends[b, 0, 1]),
        0.5 * (ends[b, 1, 2] - ends[b, 0, 2]),
    )
    return math.sqrt(square) - radius[a] - radius[b]


@njit(cache=True, nogil=True)
def pair_gap(tree, ends, i, near):
    """Distance of pair i [m], or the lower bound of its bounding spheres where that reaches ``near``."""
    a, b = tree.pairs[i, 0], tree.pairs[i, 1]
    x, y, z = ends[a, 2, 0] - ends[b, 2, 0], ends[a, 2, 1] - ends[b, 2, 1], ends[a, 2, 2] - ends[b, 2, 2]
    low = math.sqrt(x * x + y * y + z * z) - tree.spheres[i]
    if low >= near:
        return low
    d = capsule_gap(ends, tree.radius, a, b)
    return d if tree.hull[i, 0] < 0 or d >= CLOSE else detailed_gap(tree, ends, i, d)


@njit(cache=True, nogil=True)
def detailed_gap(tree, ends, i, d):
    """Distance of pair i with hulls whose capsules, skins included, are ``d`` < CLOSE apart [m].

    The hulls' distance, but no more than that of the capsules without what skins add to them.
    """
    return min(d + tree.thick[i], hull_gap(tree, ends, i, d + tree.thick[i]))


@njit(cache=True, nogil=True)
def hull_gap(tree, ends, i, near):
    """Distance of the hulls of pair i [m], a lower bound where that reaches ``near``; closest points in scratch."""
    w, g = tree.hull_work, len(tree.geom_body)
    a, b = tree.hull[i, 0], tree.hull[i, 1]
    turn, shift, one, two = w[:3, :3], w[3, :3], g + 2 * a, g + 2 * b
    for j in range(3):
        shift[j] = 0.0
        for m in range(3):
            shift[j] += ends[one, m, j] * (ends[two + 1, 0, m] - ends[one + 1, 0, m])
        for k in range(3):
            turn[j, k] = (
                ends[one, 0, j] * ends[two, 0, k]
                + ends[one, 1, j] * ends[two, 1, k]
                + ends[one, 2, j] * ends[two, 2, k]
            )
    return hull_distance(
        tree.corners,
        tree.first[a],
        tree.first[a + 1],
        tree.first[b],
        tree.first[b + 1],
        turn,
        shift,
        near,
        w[6:],
        w[4],
        w[5],
    )


@njit(cache=True, nogil=True)
def poses(tree, q, p, r, axis, anchor, ends):
    """Forward kinematics: body poses (b, 3), (b, 3, 3), axes, anchors (n, 3), ends, centres (g, 3, 3)."""
    for b in range(len(tree.parent)):
        up = tree.parent[b]
        for i in range(3):
            if up < 0:
                p[b, i] = tree.position[b, i]
                for k in range(3):
                    r[b, i, k] = tree.rotation[b, i, k]
            else:
                x = p[up, i]
                for k in range(3):
                    x += r[up, i, k] * tree.position[b, k]
                    y = 0.0
                    for m in range(3):
                        y += r[up, i, m] * tree.rotation[b, m, k]
                    r[b, i, k] = y
                p[b, i] = x
        j = tree.joint[b]
        if j >= 0:
            _turn(tree, b, j, q[j] - tree.zero[b], p, r, axis, anchor)
    for g in range(len(tree.geom_body)):
        b = tree.geom_body[g]
        for i in range(3):
            r0, r1, r2, o = r[b, i, 0], r[b, i, 1], r[b, i, 2], p[b, i]
            u = o + r0 * tree.ends[g, 0, 0] + r1 * tree.ends[g, 0, 1] + r2 * tree.ends[g, 0, 2]
            v = o + r0 * tree.ends[g, 1, 0] + r1 * tree.ends[g, 1, 1] + r2 * tree.ends[g, 1, 2]
            ends[g, 0, i], ends[g, 1, i], ends[g, 2, i] = u, v, 0.5 * (u + v)
    g = len(tree.geom_body)
    for h in range(len(tree.hull_body)):
        b = tree.hull_body[h]
        for i in range(3):
            ends[g + 2 * h + 1, 0, i] = p[b, i]
            for k in range(3):
                ends[g + 2 * h, i, k] = r[b, i, k]


@njit(cache=True, nogil=True)
def _turn(tree, b, j, angle, p, r, axis, anchor):
    """Rotate body b by its joint: Rodrigues' formula about an axis through the anchor."""
    x, y, z = tree.axis[b, 0], tree.axis[b, 1], tree.axis[b, 2]
    c, s = math.cos(angle), math.sin(angle)
    v = 1.0 - c
    for i in range(3):
        r0, r1, r2 = r[b, i, 0], r[b, i, 1], r[b, i, 2]
        axis[j, i] = r0 * x + r1 * y + r2 * z
        at = p[b, i] + r0 * tree.anchor[b, 0] + r1 * tree.anchor[b, 1] + r2 * tree.anchor[b, 2]
        anchor[j, i] = at
        n0 = r0 * (c + x * x * v) + r1 * (y * x * v + z * s) + r2 * (z * x * v - y * s)
        n1 = r0 * (x * y * v - z * s) + r1 * (c + y * y * v) + r2 * (z * y * v + x * s)
        n2 = r0 * (x * z * v + y * s) + r1 * (y * z * v - x * s) + r2 * (c + z * z * v)
        r[b, i, 0], r[b, i, 1], r[b, i, 2] = n0, n1, n2
        p[b, i] = at - (n0 * tree.anchor[b, 0] + n1 * tree.anchor[b, 1] + n2 * tree.anchor[b, 2])


@njit(cache=True, nogil=True)
def point_row(tree, body, x, n, axis, anchor, sign, row):
    """Add ``sign`` times the gradient of ``n . x`` for a point x fixed to ``body`` to ``row`` (n,)."""
    for j in range(len(row)):
        if tree.above[body, j]:
            a, o = axis[j], anchor[j]
            rx, ry, rz = x[0] - o[0], x[1] - o[1], x[2] - o[2]
            row[j] += sign * (
                n[0] * (a[1] * rz - a[2] * ry) + n[1] * (a[2] * rx - a[0] * rz) + n[2] * (a[0] * ry - a[1] * rx)
            )


@njit(cache=True, nogil=True)
def pair_distances(pairs, spheres, radius, ends, near, pair):
    """Pair distances [m], exact below ``near`` and lower bounds above, into ``pair`` (P,)."""
    pair_bounds(pairs, spheres, ends, pair)
    for i in range(len(pairs)):
        if pair[i] < near:
            pair[i] = capsule_gap(ends, radius, pairs[i, 0], pairs[i, 1])


@njit(cache=True, nogil=True)
def heights(table, radius, ends, out):
    """Heights of the table's geoms above it [m], into ``out`` (k,)."""
    for i in range(len(table)):
        g = table[i]
        out[i] = min(ends[g, 0, 2], ends[g, 1, 2]) - radius[g]


@njit(cache=True, nogil=True)
def smallest_pair(pairs, spheres, radius, ends, low):
    """Smallest self clearance [m], clamped to FAR; ``low`` (P,) is scratch."""
    pair_bounds(pairs, spheres, ends, low)
    best = FAR
    for i in range(len(pairs)):
        if low[i] < best:
            best = min(best, capsule_gap(ends, radius, pairs[i, 0], pairs[i, 1]))
    return best


@njit(cache=True, nogil=True)
def distances(tree, ends, near, pair, table):
    """Pair distances (P,), exact below ``near`` and lower bounds above, and table heights (k,)."""
    pair_distances(tree.pairs, tree.spheres, tree.radius, ends, near, pair)
    for i in range(len(pair)):
        if tree.hull[i, 0] >= 0 and pair[i] < min(CLOSE, near):
            pair[i] = detailed_gap(tree, ends, i, pair[i])
    heights(tree.table, tree.radius, ends, table)


@njit(cache=True, nogil=True)
def pair_row(tree, i, ends, axis, anchor, row, n, xa, xb):
    """Distance of pair i [m] and its gradient into ``row`` (n,), closest points into xa, xb (on the axes)."""
    a, b = tree.pairs[i, 0], tree.pairs[i, 1]
    length, s, t = segment_distance(ends, a, b)
    row[:] = 0.0
    gap = length - tree.radius[a] - tree.radius[b]
    if tree.hull[i, 0] >= 0 and gap < CLOSE:
        gap += tree.thick[i]
        d = hull_gap(tree, ends, i, gap)
        if d < gap:
            _hull_row(tree, i, ends, axis, anchor, row, n, xa, xb)
            return d
    for k in range(3):
        xa[k] = ends[a, 0, k] + s * (ends[a, 1, k] - ends[a, 0, k])
        xb[k] = ends[b, 0, k] + t * (ends[b, 1, k] - ends[b, 0, k])
        n[k] = (xb[k] - xa[k]) / length if length > 1e-9 else 0.0
    point_row(tree, tree.geom_body[b], xb, n, axis, anchor, 1.0, row)
    point_row(tree, tree.geom_body[a], xa, n, axis, anchor, -1.0, row)
    return gap


@njit(cache=True, nogil=True)
def _hull_row(tree, i, ends, axis, anchor, row, n, xa, xb):
    """Gradient of the distance of two hulls, their closest points in the scratch as ``hull_gap`` left them."""
    w, one = tree.hull_work, len(tree.geom_body) + 2 * tree.hull[i, 0]
    length = 0.0
    for k in range(3):
        xa[k] = xb[k] = ends[one + 1, 0, k]
        for m in range(3):
            xa[k] += ends[one, k, m] * w[4, m]
            xb[k] += ends[one, k, m] * w[5, m]
        n[k] = xb[k] - xa[k]
        length += n[k] * n[k]
    for k in range(3):
        n[k] = n[k] / math.sqrt(length) if length > 1e-18 else 0.0
    point_row(tree, tree.geom_body[tree.pairs[i, 1]], xb, n, axis, anchor, 1.0, row)
    point_row(tree, tree.geom_body[tree.pairs[i, 0]], xa, n, axis, anchor, -1.0, row)


@njit(cache=True, nogil=True)
def table_row(tree, i, ends, axis, anchor, row, n):
    """Height of table geom i [m] and its gradient into ``row`` (n,)."""
    g = tree.table[i]
    k = 0 if ends[g, 0, 2] <= ends[g, 1, 2] else 1
    n[0], n[1], n[2] = 0.0, 0.0, 1.0
    row[:] = 0.0
    point_row(tree, tree.geom_body[g], ends[g, k], n, axis, anchor, 1.0, row)
    return ends[g, k, 2] - tree.radius[g]


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
        tree, geoms, joints = _tree(model, robot, detail or Detail(), own)
        b, n, g = len(tree.parent), robot.n, len(geoms)
        scratch = (np.zeros((b, 3)), np.zeros((b, 3, 3)), np.zeros((n, 3)), np.zeros((n, 3)))
        return Kinematics(
            tree,
            geoms,
            (*scratch, np.zeros((g + 2 * len(tree.hull_body), 3, 3))),
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


def _ids(model: mujoco.MjModel, kind: mujoco.mjtObj, names: Sequence[str]) -> list[int]:
    """MuJoCo ids of names, all of which must exist."""
    ids = [mujoco.mj_name2id(model, kind, name) for name in names]
    missing = [name for name, i in zip(names, ids, strict=True) if i < 0]
    if missing:
        raise ConfigError(f"the robot's MJCF has no {kind.name[6:].lower()} named {missing}")
    return ids


def _tree(model: mujoco.MjModel, robot: RobotModel, detail: Detail, own: float) -> tuple[Tree, tuple[str, ...], Array]:
    """The arrays of ``Tree``, the geom names in their order, MuJoCo joint ids in hardware order."""
    joints = np.array(_ids(model, mujoco.mjtObj.mjOBJ_JOINT, robot.joints))
    if np.any(model.jnt_type[joints] != mujoco.mjtJoint.mjJNT_HINGE) or model.nq != robot.n:
        raise ConfigError(f"the robot's joints must all be hinges: {model.nq} positions for {robot.n} joints")
    if model.body_jntnum.max() > 1:
        raise ConfigError("a body of the robot has more than one joint, accepted is one")
    names = list(dict.fromkeys([g for pair in robot.pairs for g in pair] + list(robot.table_geoms)))
    geoms = np.array(_ids(model, mujoco.mjtObj.mjOBJ_GEOM, names), dtype=np.int64)
    shapes = [enclosing_capsule(model, int(g)) for g in geoms]
    ends, size = np.array([e for e, _ in shapes]).reshape(-1, 2, 3), np.array([r for _, r in shapes])
    half = 0.5 * np.linalg.norm(ends[:, 1] - ends[:, 0], axis=-1)
    n, nb = robot.n, model.nbody - 1  # MuJoCo's body 0 is the world
    hardware = {int(j): k for k, j in enumerate(joints)}
    joint, axis, anchor, zero = np.full(nb, -1), np.zeros((nb, 3)), np.zeros((nb, 3)), np.zeros(nb)
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
    body = model.geom_bodyid[geoms].astype(np.int64) - 1
    if np.any(body < 0):
        raise ConfigError("geoms of the robot must belong to a body, not to the world")
    at = {name: k for k, name in enumerate(names)}
    pairs = np.array([[at[a], at[b]] for a, b in robot.pairs], dtype=np.int64).reshape(-1, 2)
    table = np.array([at[g] for g in robot.table_geoms], dtype=np.int64)
    (palm,) = _ids(model, mujoco.mjtObj.mjOBJ_BODY, [robot.palm_body])
    position = model.body_pos[1:].copy()
    rotation = np.array([_matrix(x) for x in model.body_quat[1:]]).reshape(nb, 3, 3)
    chain = (parent, position, rotation, joint, axis, anchor)
    outlines = [
        np.concatenate([e, detail.hulls.get(model.body(b + 1).name, e)]) for b, e in zip(body, ends, strict=True)
    ]
    reach = np.array([_reach(chain, b, e, n) for b, e in zip(body, outlines, strict=True)])
    pair_reach = np.zeros((len(pairs), n))
    for i, (a, b) in enumerate(pairs):
        apart = above[body[a]] ^ above[body[b]]  # a joint above both moves them as one
        pair_reach[i] = np.where(apart, np.where(above[body[a]], reach[a], reach[b]), 0.0)
    hand = np.array([_carried(parent, b, int(palm) - 1) for b in body])
    detail.check(robot)
    skin = np.array([detail.skin.get(name, 0.0) for name in names])
    radius = size + skin
    of = {b - 1: k for k, b in enumerate(_ids(model, mujoco.mjtObj.mjOBJ_BODY, list(detail.hulls)))}
    hull = np.array([[of.get(int(body[a]), -1), of.get(int(body[b]), -1)] for a, b in pairs], dtype=np.int64)
    hull = hull.reshape(-1, 2)
    hull[(hull < 0).any(axis=1)] = -1
    tree = Tree(
        parent=parent,
        position=position,
        rotation=rotation,
        joint=joint.astype(np.int64),
        axis=axis,
        anchor=anchor,
        zero=zero,
        above=above,
        joint_body=joint_body,
        geom_body=body,
        ends=ends,
        radius=radius,
        pairs=pairs,
        table=table,
        palm=int(palm) - 1,
        spheres=(half[pairs] + radius[pairs]).sum(axis=1),
        pair_reach=np.ascontiguousarray(pair_reach.T),
        pair_near=np.where(pair_reach[:, above[int(palm) - 1]].any(axis=1), 1.0, 0.2),
        table_reach=np.ascontiguousarray(reach[table].reshape(len(table), n).T),
        palm_reach=_reach(chain, int(palm) - 1, np.zeros((1, 3)), n),
        around=half + radius,
        moving=np.flatnonzero(above[body].any(axis=1)),
        hand=hand,
        hull=hull,
        thick=skin[pairs].sum(axis=1) + own,
        hull_body=np.array(list(of), dtype=np.int64),
        corners=np.concatenate([*detail.hulls.values(), np.zeros((0, 3))]),
        first=np.cumsum([0, *map(len, detail.hulls.values())]),
        hull_work=np.zeros((18, 4)),
        fingers=~above[int(palm) - 1],
        reach=np.ascontiguousarray(reach.reshape(len(body), n).T),
    )
    return tree, tuple(names), joints


def _carried(parent: Array, body: int, palm: int) -> bool:
    """Whether a body is the palm or a descendant of it."""
    while body >= 0 and body != palm:
        body = int(parent[body])
    return body == palm


def _reach(tree: tuple[Array, ...], body: int, points: Array, n: int) -> Array:
    """Largest distance of points fixed to ``body`` from each joint's axis in any configuration [m], (n,).

    From a joint's anchor to the point the links, anchor to anchor, can at most line up; the first of them
    counts without its part along the axis, which turning the joint does not move.
    """
    parent, position, rotation, joint, axis, anchor = tree
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
