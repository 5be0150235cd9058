"""A robot as plain arrays: its tree of bodies, forward kinematics, and how a joint moves a point.

Taken from the MJCF once (``mjcf.tree_of``); numba kernels without a Python object after that.  Every collision geom
is a capsule or a sphere, a segment with a radius, or taken for one that contains it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

Array = np.ndarray


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


def room_of(tree: Tree) -> tuple[Array, ...]:
    """Room for what ``poses`` fills: body positions, rotations, joint axes, anchors, segment ends with hull poses."""
    b, n, rows = len(tree.parent), len(tree.joint_body), len(tree.geom_body) + 2 * len(tree.hull_body)
    return np.zeros((b, 3)), np.zeros((b, 3, 3)), np.zeros((n, 3)), np.zeros((n, 3)), np.zeros((rows, 3, 3))


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


# What is called in a loop takes arrays, not the tuples that hold them: a tuple is passed with all its arrays.
@njit(cache=True, nogil=True)
def pair_gradient(above, one, two, xa, xb, n, axis, anchor, row):
    """Gradient of ``n . (xb - xa)`` for points fixed to bodies ``one`` and ``two`` into ``row`` (n,)."""
    for j in range(len(row)):
        row[j] = 0.0
        if above[one, j] == above[two, j]:
            continue  # a joint above both moves them as one
        x, sign = (xb, 1.0) if above[two, j] else (xa, -1.0)
        rx, ry, rz = x[0] - anchor[j, 0], x[1] - anchor[j, 1], x[2] - anchor[j, 2]
        ax, ay, az = axis[j, 0], axis[j, 1], axis[j, 2]
        row[j] = sign * (n[0] * (ay * rz - az * ry) + n[1] * (az * rx - ax * rz) + n[2] * (ax * ry - ay * rx))


@njit(cache=True, nogil=True)
def point_gradient(above, body, x, n, axis, anchor, row):
    """Gradient of ``n . x`` for a point fixed to ``body`` into ``row`` (n,)."""
    for j in range(len(row)):
        row[j] = 0.0
        if above[body, j]:
            rx, ry, rz = x[0] - anchor[j, 0], x[1] - anchor[j, 1], x[2] - anchor[j, 2]
            ax, ay, az = axis[j, 0], axis[j, 1], axis[j, 2]
            row[j] = n[0] * (ay * rz - az * ry) + n[1] * (az * rx - ax * rz) + n[2] * (ax * ry - ay * rx)
