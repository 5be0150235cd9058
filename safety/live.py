"""Clearances that a stop could use up: found at its first tick, looked at again at any other.

A clearance that the way of the whole stop cannot use up is proven by that and never looked at again; the others are
*live*.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from palmar.safety.distances import capsule_gap, detailed_gap, hull_gap, pair_bounds
from palmar.safety.hulls import CLOSE
from palmar.safety.obstacles import OBJECT, PERSON, SLOTS
from palmar.safety.solids import from_geom, near_geoms, solid
from palmar.safety.stop import KEEP_OUT, LONGEST, OK, SELF, SEPARATION, TABLE, WORKSPACE
from palmar.safety.tree import Tree, poses, room_of

Array = np.ndarray

SAMPLES = 40
"""Configurations at which a stop's geometry is evaluated at most."""


class Work(NamedTuple):
    """Scratch space of ``verify_stop``.

    A clearance that a stop could use up is *live*.  Row i of the arrays with L rows speaks of live clearance i.
    """

    path: Array
    turn: Array
    q: Array
    moved: Array
    way: Array
    """(g,) how far a stop could move a geom at most [m]."""
    fingers: Array
    """(g,) the same by the joints of the fingers alone."""
    found: Array
    """(m,) geoms."""
    live: Array
    """(L, 3) what it is (PAIR, HEIGHT or OBSTACLE), then pair, or geom, or geom and slot."""
    limit: Array
    """(L,) clearance needed at the stop's first tick [m]."""
    grow: Array
    """(L,) by how much more with time [m/s]."""
    reach: Array
    """(L, n) how far one radian of a joint changes it, at most [m/rad]."""
    value: Array
    """(SAMPLES, L) clearance beyond what is needed [m]."""
    palm: Array
    """(SAMPLES, 3)"""
    stack: Array
    """(SAMPLES + 2, 6) intervals to be proven: two ticks, their rows, and where in ``some`` its clearances are."""
    some: Array
    """(.,) live clearances of the intervals on the stack, one list after the other."""
    p: Array
    r: Array
    axis: Array
    anchor: Array
    ends: Array


PAIR, HEIGHT, OBSTACLE = range(3)
FAULT = (SELF, TABLE, KEEP_OUT)
"""Failure code of a live clearance of each kind."""


def work_of(tree: Tree) -> Work:
    """Scratch space for a robot."""
    n, g = len(tree.joint_body), len(tree.geom_body)
    p, r, axis, anchor, ends = room_of(tree)
    most = len(tree.pairs) + 1 + len(tree.table) + SLOTS * len(tree.moving)
    return Work(
        path=np.zeros((n, LONGEST + 2)),
        turn=np.zeros(n, dtype=np.int64),
        q=np.zeros(n),
        moved=np.zeros(n),
        way=np.zeros(g),
        fingers=np.zeros(g),
        found=np.zeros(len(tree.moving), dtype=np.int64),
        live=np.zeros((most, 3), dtype=np.int64),
        limit=np.zeros(most),
        grow=np.zeros(most),
        reach=np.zeros((most, n)),
        value=np.zeros((SAMPLES, most)),
        palm=np.zeros((SAMPLES, 3)),
        stack=np.zeros((SAMPLES + 2, 6), dtype=np.int64),
        some=np.zeros((SAMPLES + 2) * most, dtype=np.int64),
        p=p,
        r=r,
        axis=axis,
        anchor=anchor,
        ends=ends,
    )


@njit(cache=True, nogil=True)
def _place(tree, space, w, k, s):
    """Forward kinematics at tick k of the path and the palm into row s; whether that is in the workspace."""
    path, q = w.path, w.q
    for i in range(len(q)):
        end = int(path[i, LONGEST + 1])
        q[i] = path[i, k if k < end else end]
    poses(tree, q, w.p, w.r, w.axis, w.anchor, w.ends)
    inside = True
    for i in range(3):
        x = w.p[tree.palm, i]
        w.palm[s, i] = x
        inside = inside and space.lower[i] <= x <= space.upper[i]
    return inside


@njit(cache=True, nogil=True)
def _ways(moved, reach, fingers, way, part):
    """How far joints that move by ``moved`` (n,) move each geom at most, into ``way`` (g,); fingers alone, ``part``."""
    way[:] = 0.0
    part[:] = 0.0
    for j in range(len(moved)):
        m = moved[j]
        if m > 0.0:
            for i in range(len(way)):
                way[i] += m * reach[j, i]
            if fingers[j]:
                for i in range(len(way)):
                    part[i] += m * reach[j, i]


@njit(cache=True, nogil=True)
def _pair_travel(above, body, reach, moved, a, b, out):
    """How far joints that move by ``moved`` bring geoms a and b together at most; reach of each into ``out`` (n,)."""
    total, ba, bb = 0.0, body[a], body[b]
    for j in range(len(moved)):
        out[j] = 0.0
        if above[ba, j] != above[bb, j]:  # a joint above both moves them as one
            out[j] = reach[j, a] if above[ba, j] else reach[j, b]
            total += moved[j] * out[j]
    return total


@njit(cache=True, nogil=True)
def _first_pairs(tree, limit, w):
    """Live pairs of the first tick: failure code and how many.

    First a bound that takes the ways of both geoms for the pair's; for two of the hand, without the arm's part.
    """
    pairs, spheres, radius, near, ends, way, fingers = (
        tree.pairs, tree.spheres, tree.radius, tree.pair_near, w.ends, w.way, w.fingers
    )  # fmt: skip
    above, body, reach, moved, live, value, count = tree.above, tree.geom_body, tree.reach, w.moved, w.live, w.value, 0
    low = w.value[SAMPLES - 1]
    pair_bounds(pairs, spheres, ends, low)
    for i in range(len(pairs)):
        a, b = pairs[i, 0], pairs[i, 1]
        if low[i] >= limit + (fingers[a] + fingers[b] if near[i] < 1.0 else way[a] + way[b]):
            continue
        travel = _pair_travel(above, body, reach, moved, a, b, w.reach[count])
        if low[i] >= limit + travel:
            continue
        d = capsule_gap(ends, radius, a, b)
        if tree.hull[i, 0] >= 0 and d < limit + travel:
            d = min(d + tree.thick[i], hull_gap(tree, ends, i, min(d + tree.thick[i], limit + travel)))
        if d < limit:
            return SELF, 0
        if d - travel < limit:
            live[count, 0], live[count, 1] = PAIR, i
            value[0, count], w.limit[count], w.grow[count] = d - limit, limit, 0.0
            count += 1
    return OK, count


@njit(cache=True, nogil=True)
def _first_heights(tree, limit, w, count):
    """Live heights of the first tick: failure code and number of live clearances."""
    ends, live, reach = w.ends, w.live, w.reach
    for i in range(len(tree.table)):
        g = tree.table[i]
        d = min(ends[g, 0, 2], ends[g, 1, 2]) - tree.radius[g]
        if d < limit:
            return TABLE, 0
        if d - w.way[g] < limit:
            live[count, 0], live[count, 1] = HEIGHT, g
            w.value[0, count], w.limit[count], w.grow[count] = d - limit, limit, 0.0
            for j in range(reach.shape[1]):
                reach[count, j] = tree.reach[j, g]
            count += 1
    return OK, count


@njit(cache=True, nogil=True)
def _first_obstacles(tree, obstacles, w, seconds, count):
    """Live distances to obstacles of the first tick: failure code and number of live clearances.

    A person counts only where the robot moves, that is where the stop takes ``seconds`` > 0.
    """
    ends, radius, live, reach, moving = w.ends, tree.radius, w.live, w.reach, tree.moving
    furthest = 0.0
    for i in range(len(moving)):
        furthest = max(furthest, w.way[moving[i]])
    for o in range(obstacles.count):
        kind, limit, grow = obstacles.kind[o], obstacles.limit[o], obstacles.grow[o]
        if kind == OBJECT or limit == -np.inf or kind == PERSON and seconds == 0.0:
            continue
        limit += grow * obstacles.reaction
        body = solid(obstacles.centre, obstacles.frame, obstacles.half, obstacles.radius, o)
        far = limit + furthest + grow * seconds
        for i in range(near_geoms(ends, tree.around, moving, body, obstacles.around[o], far, w.found)):
            g = w.found[i]
            d = from_geom(ends, g, body)[0] - radius[g]
            if d < limit:
                return SEPARATION if kind == PERSON else KEEP_OUT, 0
            if d < limit + w.way[g] + grow * seconds:
                live[count, 0], live[count, 1], live[count, 2] = OBSTACLE, g, o
                w.value[0, count], w.limit[count], w.grow[count] = d - limit, limit, grow
                for j in range(reach.shape[1]):
                    reach[count, j] = tree.reach[j, g]
                count += 1
    return OK, count


@njit(cache=True, nogil=True)
def first_tick(tree, space, obstacles, w, seconds):
    """Geometry of the first tick, and what could come too close by ``w.moved`` at all: the live clearances.

    Returns:
        Failure code, number of live clearances, whether the palm is live.
    """
    if not _place(tree, space, w, 0, 0):
        return WORKSPACE, 0, False
    _ways(w.moved, tree.reach, tree.fingers, w.way, w.fingers)
    code, count = _first_pairs(tree, space.self_limit, w)
    if code != OK:
        return code, 0, False
    code, count = _first_heights(tree, space.table_limit, w, count)
    if code != OK:
        return code, 0, False
    if obstacles.count > 0:
        code, count = _first_obstacles(tree, obstacles, w, seconds, count)
        if code != OK:
            return code, 0, False
    palm, way = False, 0.0
    for j in range(len(w.moved)):
        way += w.moved[j] * tree.palm_reach[j]
    for i in range(3):
        x = w.palm[0, i]
        palm = palm or x - way < space.lower[i] or x + way > space.upper[i]
    return OK, count, palm


@njit(cache=True, nogil=True)
def sample(tree, space, obstacles, w, k, s, first, end, dt):
    """Live clearances ``w.some[first:end]`` at tick k of the path into row s; failure code."""
    if not _place(tree, space, w, k, s):
        return WORKSPACE
    pairs, radius, ends, live, value = tree.pairs, tree.radius, w.ends, w.live, w.value
    for at in range(first, end):
        i = w.some[at]
        if live[i, 0] == PAIR:
            d = capsule_gap(ends, radius, pairs[live[i, 1], 0], pairs[live[i, 1], 1])
            if tree.hull[live[i, 1], 0] >= 0 and d < CLOSE:
                d = detailed_gap(tree, ends, live[i, 1], d)
        elif live[i, 0] == HEIGHT:
            g = live[i, 1]
            d = min(ends[g, 0, 2], ends[g, 1, 2]) - radius[g]
        else:
            body = solid(obstacles.centre, obstacles.frame, obstacles.half, obstacles.radius, live[i, 2])
            d = from_geom(ends, live[i, 1], body)[0] - radius[live[i, 1]]
        value[s, i] = d - w.limit[i] - w.grow[i] * (k * dt)
        if value[s, i] < 0.0:
            return SEPARATION if w.grow[i] > 0.0 else FAULT[live[i, 0]]
    return OK
