"""What the filter measures of the space around a pose: clearances, and how fast the robot comes nearer.

One kernel per tick, with the same distances as the verifier's and the QP's rows.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from palmar.safety.distances import smallest_pair
from palmar.safety.geometry import Kinematics, PoseGeometry
from palmar.safety.obstacles import EVERYWHERE, KEEP_OUT, OBJECT, PERSON, SLOTS, Obstacles
from palmar.safety.solids import from_geom, from_segment, near_geoms, solid
from palmar.safety.tree import Tree, poses, room_of
from palmar.safety.types import ConfigError

Array = np.ndarray

CONTACT_NEAR = 0.05
"""A link of the hand nearer than this to something it may touch is about to touch it [m]."""
OWN, TABLE, PALM, NEAREST_PERSON, TOWARDS_PERSON, TOWARDS_CONTACT, REGIONS = 0, 1, 2, 5, 6, 7, 8
"""Places of ``measure_space``'s answer: self clearance, table clearance, palm (3), ..., keep-out regions (R)."""


class Sight(NamedTuple):
    """Scratch space of ``measure_space``."""

    p: Array
    r: Array
    axis: Array
    anchor: Array
    ends: Array
    twist: Array
    """(b, 6) velocity of each body: angular [rad/s], then of its point at the world's origin [m/s]."""
    low: Array
    """(P,)"""
    found: Array
    """(m,) geoms."""


def sight_of(tree: Tree) -> Sight:
    """Scratch space for a robot."""
    return Sight(
        *room_of(tree),
        twist=np.zeros((len(tree.parent), 6)),
        low=np.zeros(len(tree.pairs)),
        found=np.zeros(len(tree.moving), dtype=np.int64),
    )


def answer_of() -> Array:
    """Room for ``measure_space``'s answer."""
    return np.zeros(REGIONS + SLOTS)


@njit(cache=True, nogil=True)
def twists(parent, joint, axis, anchor, v, twist):
    """Velocities of all bodies, (b, 6): angular [rad/s], then of the point at the world's origin [m/s]."""
    for b in range(len(parent)):
        for i in range(6):
            twist[b, i] = twist[parent[b], i] if parent[b] >= 0 else 0.0
        j = joint[b]
        if j >= 0:
            s = v[j]
            x, y, z = axis[j, 0], axis[j, 1], axis[j, 2]
            o0, o1, o2 = anchor[j, 0], anchor[j, 1], anchor[j, 2]
            twist[b, 0] += s * x
            twist[b, 1] += s * y
            twist[b, 2] += s * z
            twist[b, 3] += s * (o1 * z - o2 * y)
            twist[b, 4] += s * (o2 * x - o0 * z)
            twist[b, 5] += s * (o0 * y - o1 * x)


@njit(cache=True, nogil=True)
def _approach(twist, b, ends, g, s, n):
    """Speed of geom g of body b against direction n at place s of its axis [m/s]; all of it where n is zero."""
    x = ends[g, 0, 0] + s * (ends[g, 1, 0] - ends[g, 0, 0])
    y = ends[g, 0, 1] + s * (ends[g, 1, 1] - ends[g, 0, 1])
    z = ends[g, 0, 2] + s * (ends[g, 1, 2] - ends[g, 0, 2])
    u = twist[b, 3] + twist[b, 1] * z - twist[b, 2] * y
    v = twist[b, 4] + twist[b, 2] * x - twist[b, 0] * z
    w = twist[b, 5] + twist[b, 0] * y - twist[b, 1] * x
    if n[0] == 0.0 and n[1] == 0.0 and n[2] == 0.0:
        return math.sqrt(u * u + v * v + w * w)
    return -(n[0] * u + n[1] * v + n[2] * w)


@njit(cache=True, nogil=True)
def _around(moving, hand, geom_body, radius, around, obstacles, s, out):
    """Clearances to and approach speeds towards everything in the cell."""
    ends, twist, still = s.ends, s.twist, (0.0, 0.0, 0.0)
    for o in range(obstacles.count):
        kind = obstacles.kind[o]
        body = solid(obstacles.centre, obstacles.frame, obstacles.half, obstacles.radius, o)
        lost = kind == PERSON and body[15] >= EVERYWHERE
        place = REGIONS + obstacles.region[o] if kind == KEEP_OUT else NEAREST_PERSON
        near = CONTACT_NEAR if kind == OBJECT else out[place] if kind == KEEP_OUT else np.inf
        for i in range(near_geoms(ends, around, moving, body, obstacles.around[o], near, s.found)):
            g = s.found[i]
            d, at, n = from_geom(ends, g, body)
            d -= radius[g]
            if kind != OBJECT:
                out[place] = min(out[place], d)
            if kind == PERSON:
                if lost:
                    speed = _approach(twist, geom_body[g], ends, g, 0.0, still)
                    speed = max(speed, _approach(twist, geom_body[g], ends, g, 1.0, still))
                else:
                    speed = _approach(twist, geom_body[g], ends, g, at, n)
                out[TOWARDS_PERSON] = max(out[TOWARDS_PERSON], speed)
            elif kind == OBJECT and hand[g] and d < CONTACT_NEAR:
                out[TOWARDS_CONTACT] = max(out[TOWARDS_CONTACT], _approach(twist, geom_body[g], ends, g, at, n))
    out[NEAREST_PERSON] = max(0.0, out[NEAREST_PERSON])


@njit(cache=True, nogil=True)
def measure_space(tree, obstacles, q, v, s, out):
    """Clearances and approach speeds at (q, v).

    Args:
        tree: Kinematics.
        obstacles: What is in the cell.
        q: Positions [rad], (n,).
        v: Velocities [rad/s], (n,).
        s: Scratch.
        out: Out, by OWN, TABLE, ...: self clearance, clamped to FAR, smallest height above the table, palm (3) [m];
            distance of the nearest person [m], not below 0; largest speeds at which a link moves towards a person,
            and a link of the hand within CONTACT_NEAR towards the table or an object [m/s], not below 0; distance
            to each keep-out region (R,) [m].
    """
    poses(tree, q, s.p, s.r, s.axis, s.anchor, s.ends)
    twists(tree.parent, tree.joint, s.axis, s.anchor, v, s.twist)
    for i in range(3):
        out[PALM + i] = s.p[tree.palm, i]
    out[OWN] = smallest_pair(tree.pairs, tree.spheres, tree.radius, s.ends, s.low)
    low, towards = np.inf, 0.0
    for i in range(len(tree.table)):
        g = tree.table[i]
        k = 0 if s.ends[g, 0, 2] <= s.ends[g, 1, 2] else 1
        h = s.ends[g, k, 2] - tree.radius[g]
        low = min(low, h)
        if tree.hand[g] and h < CONTACT_NEAR:
            t = s.twist[tree.geom_body[g]]
            towards = max(towards, t[1] * s.ends[g, k, 0] - t[0] * s.ends[g, k, 1] - t[5])
    out[TABLE], out[NEAREST_PERSON], out[TOWARDS_PERSON], out[TOWARDS_CONTACT] = low, np.inf, 0.0, towards
    for k in range(REGIONS, len(out)):
        out[k] = np.inf
    if obstacles.count > 0:
        _around(tree.moving, tree.hand, tree.geom_body, tree.radius, tree.around, obstacles, s, out)


@njit(cache=True, nogil=True)
def _pose_regions(xpos, xmat, half, radius, geoms, obstacles, out):
    for o in range(obstacles.fixed):
        body = solid(obstacles.centre, obstacles.frame, obstacles.half, obstacles.radius, o)
        for w in range(len(xpos)):
            best = np.inf
            for i in range(len(geoms)):
                g = geoms[i]
                x, y, z = xpos[w, g, 0], xpos[w, g, 1], xpos[w, g, 2]
                away = math.sqrt((x - body[0]) ** 2 + (y - body[1]) ** 2 + (z - body[2]) ** 2)
                if away - obstacles.around[o] - half[g] - radius[g] >= best:
                    continue
                u, v, t = half[g] * xmat[w, g, 2], half[g] * xmat[w, g, 5], half[g] * xmat[w, g, 8]
                d = from_segment((x - u, y - v, z - t), (x + u, y + v, z + t), body)[0] - radius[g]
                best = min(best, d)
            out[w, o] = best


def pose_regions(geometry: PoseGeometry, obstacles: Obstacles, geom_xpos: Array, geom_xmat: Array) -> Array:
    """Distance to each keep-out region [m], (*B, R), from recorded world poses, for training.

    Args:
        geometry: Made by ``Kinematics.batch``.
        obstacles: Made by ``keep_outs``.
        geom_xpos: World positions of the columns' geoms [m], (*B, c, 3).
        geom_xmat: World rotations, row-major, (*B, c, 9).

    Raises:
        ConfigError: If the shapes do not fit the columns or each other.
    """
    lead, c = geom_xpos.shape[:-2], len(geometry.half)
    if geom_xpos.shape[-2:] != (c, 3) or geom_xmat.shape != (*lead, c, 9):
        raise ConfigError(f"geom_xpos {geom_xpos.shape}, geom_xmat {geom_xmat.shape}; need (*B, {c}, 3), (*B, {c}, 9)")
    x = np.ascontiguousarray(geom_xpos).reshape(-1, c, 3)
    out = np.empty((len(x), obstacles.fixed))
    m = np.ascontiguousarray(geom_xmat).reshape(-1, c, 9)
    _pose_regions(x, m, geometry.half, geometry.radius, geometry.moving, obstacles, out)
    return out.reshape(*lead, obstacles.fixed)


def joint_regions(kinematics: Kinematics, obstacles: Obstacles, q: Array) -> Array:
    """Distance to each keep-out region [m], (*B, R), at joint positions q (*B, n)."""
    v, out = np.zeros(q.shape[-1]), answer_of()
    s, rows = sight_of(kinematics.tree), np.empty((q[..., 0].size, obstacles.fixed))
    for k, row in enumerate(q.reshape(-1, q.shape[-1])):
        measure_space(kinematics.tree, obstacles, np.ascontiguousarray(row), v, s, out)
        rows[k] = out[REGIONS : REGIONS + obstacles.fixed]
    return rows.reshape(*q.shape[:-1], obstacles.fixed)
