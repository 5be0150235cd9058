"""Ticks of a motion ahead of time, compiled: follow the reference, apply the tracking law, look at the margins.

A distance is evaluated only where it can have been used up: between two looks at a pair its distance shrinks by at
most (reach of each joint) x (way of that joint), so a look that is skipped cannot hide a violation.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from palmar.safety.chunks import follow
from palmar.safety.constraints import ConstraintSet
from palmar.safety.distances import capsule_gap
from palmar.safety.intention import intend, step
from palmar.safety.obstacles import Obstacles, keep_outs, obstacle_gap
from palmar.safety.tree import Tree, poses, room_of

Array = np.ndarray

KINDS = (
    "joint_position",
    "joint_velocity",
    "joint_acceleration",
    "joint_jerk",
    "self_clearance",
    "table_clearance",
    "workspace",
    "keep_out",
)
"""Margins that a command alone decides, in the order of the bits of a roll's answer; regions have one bit each."""
AHEAD = 1000
"""Most ticks that are rolled ahead of the present one."""
ROUNDING = 1e-9
"""Taken off every distance between two looks [m]."""
NEAR = 0.02
"""Further apart than this beyond the limit the distance of the bounding spheres will do [m]."""


class Limit(NamedTuple):
    """The margins' limits, as the constraint file and the robot publish them."""

    low: Array
    high: Array
    buffer: float
    v: Array
    offset: Array
    two_a: Array
    up: Array
    down: Array
    a: Array
    j: Array
    own: float
    table: float
    lower: Array
    upper: Array
    cell: Obstacles
    """The keep-out regions."""
    out: Array
    """(K,) distances to keep from them [m]."""


class Work(NamedTuple):
    """State and scratch space of a roll."""

    u: Array
    """(n,) commanded positions [rad], and so on: the state before the next rolled tick."""
    v: Array
    a: Array
    path: Array
    """(AHEAD, n) positions before each rolled tick, a ring."""
    pair: Array
    """(P,) what is left of each pair's distance beyond its limit, at least [m]."""
    height: Array
    """(k,) the same of each geom's height."""
    palm: Array
    """(1,) the same of the palm in its box."""
    region: Array
    """(K, m) the same of each moving geom and keep-out region."""
    r: Array
    rd: Array
    x: Array
    q: Array
    qd: Array
    p: Array
    rotation: Array
    axis: Array
    anchor: Array
    ends: Array


def limit_of(constraints: ConstraintSet) -> Limit:
    """The tightest limit of each of KINDS in a constraint file; infinite where there is none."""
    limits, inf = constraints.limits, math.inf
    of = {kind: [c.params for c in constraints.constraints if c.margin == kind] for kind in KINDS}
    n, everything = len(limits.q_min), np.full(len(limits.q_min), inf)
    box = np.array([[p["lower"], p["upper"]] for p in of["workspace"]] or [[[-inf] * 3, [inf] * 3]], dtype=np.float64)
    held = bool(of["joint_position"])
    regions = sorted(of["keep_out"], key=lambda p: p["region"])
    return Limit(
        low=limits.q_min.copy() if held else -everything,
        high=limits.q_max.copy() if held else everything,
        buffer=max((float(p["buffer"]) for p in of["joint_position"]), default=0.0),
        v=limits.v_max.copy() if of["joint_velocity"] else everything,
        offset=limits.curve_offset.copy(),
        two_a=limits.curve_two_a.copy() if of["joint_velocity"] else np.full(n, inf),
        up=limits.curve_q_up.copy(),
        down=limits.curve_q_low.copy(),
        a=limits.a_max.copy() if of["joint_acceleration"] else everything,
        j=limits.j_max.copy() if of["joint_jerk"] else everything,
        own=max((float(p["limit"]) for p in of["self_clearance"]), default=-inf),
        table=max((float(p["limit"]) for p in of["table_clearance"]), default=-inf),
        lower=box[:, 0].max(axis=0),
        upper=box[:, 1].min(axis=0),
        cell=keep_outs(constraints, 0.0),
        out=np.array([p["limit"] for p in regions], dtype=np.float64),
    )


def work_of(tree: Tree, regions: int) -> Work:
    """Space for a robot and so many keep-out regions."""
    n = len(tree.joint_body)
    p, rotation, axis, anchor, ends = room_of(tree)
    return Work(
        u=np.zeros(n),
        v=np.zeros(n),
        a=np.zeros(n),
        path=np.zeros((AHEAD, n)),
        pair=np.full(len(tree.pairs), -1.0),  # nothing has been looked at
        height=np.full(len(tree.table), -1.0),
        palm=np.full(1, -1.0),
        region=np.full((regions, len(tree.moving)), -1.0),
        r=np.zeros(n),
        rd=np.zeros(n),
        x=np.zeros(n),
        q=np.zeros(n),
        qd=np.zeros(n),
        p=p,
        rotation=rotation,
        axis=axis,
        anchor=anchor,
        ends=ends,
    )


@njit(cache=True, nogil=True, inline="always")
def _speed(q, i, m):
    """Published speed limits of joint i, upwards and downwards; ``margins.speed_limit`` of one joint."""
    if m.two_a[i] == np.inf:
        return m.v[i], m.v[i]
    up = math.sqrt(max(0.0, m.two_a[i] * (m.up[i] - q))) - m.offset[i]
    down = math.sqrt(max(0.0, m.two_a[i] * (q - m.down[i]))) - m.offset[i]
    return min(m.v[i], max(0.0, up)), min(m.v[i], max(0.0, down))


@njit(cache=True, nogil=True)
def _joints(w, m, dt):
    """Bits of the joint margins that the tick from (u, v, a) to (q, qd) with acceleration x violates."""
    bits = 0
    for i in range(len(w.u)):
        if min(w.q[i] - m.low[i], m.high[i] - w.q[i]) - m.buffer < 0.0:
            bits |= 1
        up, down = _speed(w.q[i], i, m)
        if min(up - w.qd[i], w.qd[i] + down) < 0.0:
            bits |= 2
        if m.a[i] - abs(w.x[i]) < 0.0:
            bits |= 4
        if m.j[i] - abs((w.x[i] - w.a[i]) / dt) < 0.0:
            bits |= 8
    return bits


@njit(cache=True, nogil=True)
def _use_up(tree, w):
    """Take the way from u to q off every distance; whether one may be used up."""
    pair, height, region, moving = w.pair, w.height, w.region, tree.moving
    pair_reach, table_reach, reach = tree.pair_reach, tree.table_reach, tree.reach
    pair -= ROUNDING
    height -= ROUNDING
    region -= ROUNDING
    w.palm[0] -= ROUNDING
    for j in range(len(w.u)):
        way = abs(w.q[j] - w.u[j])
        if way > 0.0:
            for i in range(len(pair)):
                pair[i] -= way * pair_reach[j, i]
            for i in range(len(height)):
                height[i] -= way * table_reach[j, i]
            for k in range(len(region)):
                for i in range(len(moving)):
                    region[k, i] -= way * reach[j, moving[i]]
            w.palm[0] -= way * tree.palm_reach[j]
    used = w.palm[0] < 0.0
    for i in range(len(pair)):
        used |= pair[i] < 0.0
    for i in range(len(height)):
        used |= height[i] < 0.0
    for k in range(len(region)):
        for i in range(len(moving)):
            used |= region[k, i] < 0.0
    return used


@njit(cache=True, nogil=True)
def _pairs(pairs, spheres, radius, ends, limit, left):
    """Look anew at the pairs that may be used up; whether one is."""
    bad = False
    for i in range(len(left)):
        if left[i] >= 0.0:
            continue
        a, b = pairs[i, 0], pairs[i, 1]
        x, y, z = ends[a, 2, 0] - ends[b, 2, 0], ends[a, 2, 1] - ends[b, 2, 1], ends[a, 2, 2] - ends[b, 2, 2]
        left[i] = math.sqrt(x * x + y * y + z * z) - spheres[i] - limit
        if left[i] < NEAR:
            left[i] = capsule_gap(ends, radius, a, b) - limit
            bad |= left[i] < 0.0
    return bad


@njit(cache=True, nogil=True)
def _regions(tree, m, ends, left):
    """Look anew at the keep-out regions that may be used up; bits of those that are."""
    bits = 0
    for k in range(len(left)):
        for i in range(len(tree.moving)):
            if left[k, i] < 0.0:
                left[k, i] = obstacle_gap(tree, ends, tree.moving[i], m.cell, k, m.out[k] + NEAR) - m.out[k]
                if left[k, i] < 0.0:
                    bits |= 128 << k
    return bits


@njit(cache=True, nogil=True)
def _space(tree, m, w):
    """Bits of the geometry's margins that q violates, having looked anew at what may be used up."""
    poses(tree, w.q, w.p, w.rotation, w.axis, w.anchor, w.ends)
    bits = 16 if _pairs(tree.pairs, tree.spheres, tree.radius, w.ends, m.own, w.pair) else 0
    height, table, radius, ends = w.height, tree.table, tree.radius, w.ends
    for i in range(len(height)):
        if height[i] < 0.0:
            g = table[i]
            height[i] = min(ends[g, 0, 2], ends[g, 1, 2]) - radius[g] - m.table
            if height[i] < 0.0:
                bits |= 32
    if w.palm[0] < 0.0:
        w.palm[0] = np.inf
        for i in range(3):
            x = w.p[tree.palm, i]
            w.palm[0] = min(w.palm[0], min(x - m.lower[i], m.upper[i] - x))
        if w.palm[0] < 0.0:
            bits |= 64
    if len(w.region):
        bits |= _regions(tree, m, ends, w.region)
    return bits


@njit(cache=True, nogil=True)
def _go_to(tree, w, u, v, a):
    """Another state, wherever it is: the way there is taken off the distances like any other."""
    w.q[:] = u
    _use_up(tree, w)
    w.u[:] = u
    w.v[:] = v
    w.a[:] = a


@njit(cache=True, nogil=True)
def roll(tree, bounds, m, w, state, times, knots, at, begin, first, ticks, end, dt):
    """Roll at most ``ticks`` ticks, from number ``first`` on, while their time is not after ``end``.

    Number 0 begins at ``state`` (3, n): position, velocity, acceleration.

    Returns:
        Number of the tick after the last one rolled, and what that last one violates, 0 for nothing.
    """
    k = first
    if k == 0:
        _go_to(tree, w, state[0], state[1], state[2])
    for _ in range(ticks):
        now = begin + k * dt
        if now > end:
            break
        w.path[k % AHEAD] = w.u
        at = follow(times, knots, at, now, w.r, w.rd)
        intend(w.u, w.v, w.a, w.r, w.rd, bounds, dt, w.x)
        step(w.u, w.v, w.x, dt, w.q, w.qd)
        bits = _joints(w, m, dt)
        if _use_up(tree, w):
            bits |= _space(tree, m, w)
        w.u[:] = w.q
        w.v[:] = w.qd
        w.a[:] = w.x
        k += 1
        if bits != 0:
            return k, bits
    return k, 0
