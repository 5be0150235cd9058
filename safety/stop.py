"""The stop law, the trajectory it leads along, its verification, and the speed from which it ends in time.

A command is a discrete integrator per joint (``tracking.integrate``): each tick an acceleration a is chosen,
``v' = v + a dt`` and ``q' = q + v dt + a dt^2 / 2``, within ``|a| <= A`` and ``|a - a_before| <= J dt``.

The law is memoryless: what it does depends on (v, a) alone.  So the tail of a verified stop trajectory is the
stop trajectory of the state it has reached, and following it needs no second verification.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from palmar.safety.geometry import Tree, capsule_gap, detailed_gap, hull_gap, pair_bounds, poses
from palmar.safety.hulls import CLOSE
from palmar.safety.obstacles import OBJECT, PERSON, SLOTS, from_geom, near_geoms, solid
from palmar.safety.robot import Limits

Array = np.ndarray

OK, POSITION, VELOCITY, ACCELERATION, JERK, SELF, TABLE, WORKSPACE, EFFORT, KEEP_OUT, SEPARATION = range(11)
FAILURES = (
    "",
    "joint_position",
    "joint_velocity",
    "joint_acceleration",
    "joint_jerk",
    "self_clearance",
    "table_clearance",
    "workspace",
    "verifier_effort",
    "keep_out",
    "speed_separation",
)
"""What ``verify_stop`` found; ``verifier_effort`` means it could not decide within its samples."""

LONGEST = 1500
"""Longest stop that is followed [ticks]."""
SAMPLES = 40
"""Configurations at which a stop's geometry is evaluated at most."""
SHRINK = 1e-6
"""Relative part of every limit kept back, so that rounding in a caller's own derivatives is no violation."""


class Bounds(NamedTuple):
    """Limits of the commands, less what is kept back for rounding; (n,) each."""

    low: Array
    high: Array
    v: Array
    a: Array
    j: Array
    offset: Array
    two_a: Array
    up: Array
    down: Array
    corner: Array
    """Speed above which the published curve asks for more deceleration than ``a`` [rad/s], inf for never."""
    corner_room: Array
    """Distance to the end of the curve at that speed [rad]."""


class Space(NamedTuple):
    """Limits of the geometry."""

    self_limit: float
    """[m]"""
    table_limit: float
    """[m]"""
    lower: Array
    """(3,) [m]"""
    upper: Array
    """(3,) [m]"""


def bounds_of(limits: Limits, buffer: float) -> Bounds:
    """The filter's bounds of a robot's limits, ``buffer`` [rad] inside its joint ranges."""
    keep = 1.0 - SHRINK
    # Along v = sqrt(2 a r) - o a joint decelerates by a v / (v + o); that reaches A at v = A o / (a - A).
    excess = 0.5 * limits.curve_two_a - limits.a_max
    steep = np.isfinite(excess) & (excess > 0)
    corner = np.where(steep, limits.a_max * limits.curve_offset / np.where(steep, excess, 1.0), np.inf)
    room = np.where(steep, (np.where(steep, corner, 0.0) + limits.curve_offset) ** 2, 0.0)
    return Bounds(
        low=limits.q_min + buffer + 1e-7,
        high=limits.q_max - buffer - 1e-7,
        v=limits.v_max * keep,
        a=limits.a_max * keep,
        j=limits.j_max * keep,
        offset=limits.curve_offset + SHRINK,
        two_a=limits.curve_two_a,
        up=limits.curve_q_up - 1e-7,
        down=limits.curve_q_low + 1e-7,
        corner=corner,
        corner_room=room / limits.curve_two_a,
    )


@njit(cache=True, nogil=True)
def landing(speed, step):
    """Deceleration x >= 0 after which ramping it down by ``step`` per tick ends exactly at speed 0.

    Args:
        speed: Speed in units of one tick's acceleration, v / dt [rad/s2], >= 0.
        step: Change of acceleration in one tick, J dt [rad/s2].

    It solves ``speed = x + (x - step) + (x - 2 step) + ...`` over the positive terms, m of them:
    ``speed = m x - step m (m - 1) / 2`` with ``step m (m - 1) / 2 < speed <= step m (m + 1) / 2``.
    """
    m = math.ceil(0.5 * (math.sqrt(1.0 + 8.0 * speed / step) - 1.0) - 1e-12)
    if m < 1.0:
        m = 1.0
    return speed / m + 0.5 * step * (m - 1.0)


@njit(cache=True, nogil=True)
def stop_joint(v, a, a_max, j_max, dt):
    """Acceleration of the next tick that brings one joint to rest without overshoot [rad/s2].

    The hardest deceleration from which a jerk-limited ramp still lands at v = 0 and a = 0 in the same tick,
    clipped to what jerk and acceleration limits allow now.  Once unclipped it stays unclipped: the next
    tick's answer is this one less ``j_max dt``, so it arrives exactly and does not chatter.  Overshoot
    remains where the joint already decelerates too hard for its speed; it is then reversed the same way.
    """
    step = j_max * dt
    x = min(a_max, landing(abs(v) / dt, step))
    if v > 0.0:
        x = -x
    return min(min(a_max, a + step), max(max(-a_max, a - step), x))


@njit(cache=True, nogil=True)
def stop_law(v, a, bounds, dt, out):
    """``stop_joint`` of every joint into ``out`` (n,)."""
    for i in range(len(v)):
        out[i] = stop_joint(v[i], a[i], bounds.a[i], bounds.j[i], dt)


@njit(cache=True, nogil=True)
def _too_fast(q, v, v_max, offset, two_a, up, down):
    """Whether a joint exceeds the published position-dependent speed limit."""
    if abs(v) > v_max:
        return True
    if v == 0.0 or two_a == np.inf:
        return False
    room = up - q if v > 0.0 else q - down
    return (abs(v) + offset) ** 2 > two_a * room


@njit(cache=True, nogil=True)
def stop_path(q, v, a, b, dt, path, turn):
    """Positions of the stop from (q, v, a), checked against every joint limit at every tick.

    Args:
        q: Positions [rad], (n,).
        v: Velocities [rad/s], (n,).
        a: Accelerations of the tick that led here [rad/s2], (n,).
        b: Bounds.
        dt: Tick [s].
        path: Out: positions, (n, LONGEST + 2); row i ends at the tick in its last column.
        turn: Out: tick at which each joint reverses, -1 for never, (n,).

    Returns:
        Ticks until rest, failure code.
    """
    n, last = len(q), 0
    for i in range(n):
        x, s, f, k = q[i], v[i], a[i], 0
        turn[i] = -1
        a_max, j_max, low, high, corner = b.a[i], b.j[i], b.low[i], b.high[i], b.corner[i]
        step = j_max * dt
        v_max, offset, two_a, up, down = b.v[i], b.offset[i], b.two_a[i], b.up[i], b.down[i]
        if abs(f) > a_max * (1.0 + 1e-9):
            return 0, ACCELERATION
        path[i, 0] = x
        # While the speed is above this the law's answer is full deceleration, without a square root.
        m = math.ceil(a_max / step)
        full, per_tick = dt * (m * a_max - 0.5 * step * m * (m - 1.0)) + a_max * dt, 1.0 / (a_max * dt)
        while True:
            if x < low or x > high:
                return k, POSITION
            if _too_fast(x, s, v_max, offset, two_a, up, down):
                return k, VELOCITY
            if abs(s) < 1e-13 and abs(f) < 1e-9 or k == LONGEST:
                break
            speed, way = abs(s), 1.0 if s > 0.0 else -1.0
            if speed > full:
                f = min(max(-way * a_max, f - step), f + step)
                run = min(int((speed - full) * per_tick), LONGEST - k) if f == -way * a_max else 0
                if run > 0:
                    # The room up to the curve is least at an end of the run or at ``corner``.
                    if speed > corner > speed - run / per_tick:
                        t = float(int((speed - corner) * per_tick))
                        for _ in range(2):
                            y, u = x + dt * t * (s + 0.5 * dt * t * f), s + dt * t * f
                            if t <= run and _too_fast(y, u, v_max, offset, two_a, up, down):
                                return k, VELOCITY
                            t += 1.0
                    for t in range(1, run + 1):
                        path[i, k + t] = x + dt * t * (s + 0.5 * dt * t * f)
                    x, s, k = x + dt * run * (s + 0.5 * dt * run * f), s + dt * run * f, k + run
                    continue
            else:
                g = landing(speed / dt, step)
                if g <= a_max and abs(way * g + f) <= step:
                    # Unclipped it stays: the ramp ends at rest, its positions lie between those of its ends.
                    while True:
                        f = -way * g
                        x += dt * (s + 0.5 * dt * f)
                        s += dt * f
                        k += 1
                        path[i, k] = x
                        if _too_fast(x, s, v_max, offset, two_a, up, down):
                            return k, VELOCITY
                        g -= step
                        if g <= 0.0 or k == LONGEST:
                            break
                    s = 0.0
                    continue
                f = min(min(a_max, f + step), max(max(-a_max, f - step), -way * min(a_max, g)))
            x += dt * s + 0.5 * dt * dt * f
            before, s = s, s + dt * f
            k += 1
            if before * s < 0.0 and abs(s) > 1e-13:
                turn[i] = k
            path[i, k] = x
        if k == LONGEST:
            return k, EFFORT
        path[i, LONGEST + 1] = k
        last = max(last, k)
    return last, OK


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
    b, n, g, pairs = len(tree.parent), len(tree.joint_body), len(tree.geom_body), len(tree.pairs)
    most = pairs + 1 + len(tree.table) + SLOTS * len(tree.moving)
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
        p=np.zeros((b, 3)),
        r=np.zeros((b, 3, 3)),
        axis=np.zeros((n, 3)),
        anchor=np.zeros((n, 3)),
        ends=np.zeros((g + 2 * len(tree.hull_body), 3, 3)),
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
def _first(tree, space, obstacles, w, seconds):
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
def _sample(tree, space, obstacles, w, k, s, first, end, dt):
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


@njit(cache=True, nogil=True)
def posture(tree, bounds, space, obstacles, q, w):
    """Failure code of standing still at q."""
    for i in range(len(q)):
        if not bounds.low[i] <= q[i] <= bounds.high[i]:
            return POSITION
        w.path[i, 0], w.path[i, LONGEST + 1], w.moved[i] = q[i], 0.0, 0.0
    return _first(tree, space, obstacles, w, 0.0)[0]


@njit(cache=True, nogil=True)
def _travel(path, turn, a_max, moved, k0, k1, dt):
    """How far each joint travels between two ticks, back and forth added up, into ``moved`` (n,) [rad]."""
    for i in range(len(moved)):
        end = int(path[i, LONGEST + 1])
        x0, x1 = path[i, min(k0, end)], path[i, min(k1, end)]
        t = turn[i]
        moved[i] = abs(x1 - x0)
        if k0 < t < k1:
            x = path[i, min(t, end)]
            # The reversal lies inside a tick: at most this much further.
            moved[i] = abs(x - x0) + abs(x1 - x) + a_max[i] * dt * dt


@njit(cache=True, nogil=True)
def _doubtful(tree, bounds, space, w, k0, k1, s0, s1, first, end, palm, dt):
    """Which of ``w.some[first:end]`` may be violated strictly between two samples; a proof of the others.

    A distance changes by at most (reach of each joint) x (how far that joint moves), so between two samples
    it is at least their mean less half of that; what is needed of a person's distance grows meanwhile.  Heights
    and the palm are moreover smooth: on an interval of length h they stay above the chord less h^2 / 8 times
    their largest acceleration.

    Returns:
        One beyond the last of the doubtful ones, which begin at ``end``; whether the palm is doubtful.
    """
    moved, value, reach, live, some = w.moved, w.value, w.reach, w.live, w.some
    _travel(w.path, w.turn, bounds.a, moved, k0, k1, dt)
    h = (k1 - k0) * dt
    top = end
    for at in range(first, end):
        i = some[at]
        room = value[s0, i] + value[s1, i] - w.grow[i] * h
        for j in range(len(moved)):
            room -= reach[i, j] * moved[j]
        if room < 0.0 and live[i, 0] == HEIGHT:
            mean = 0.5 * (value[s0, i] + value[s1, i])
            if _smooth(reach[i], bounds.a, moved, h, min(value[s0, i], value[s1, i]), mean):
                continue
        if room < 0.0:
            some[top] = i
            top += 1
    for i in range(3 if palm else 0):
        x0, x1 = w.palm[s0, i], w.palm[s1, i]
        low = min(min(x0, x1) - space.lower[i], space.upper[i] - max(x0, x1))
        mean = min(0.5 * (x0 + x1) - space.lower[i], space.upper[i] - 0.5 * (x0 + x1))
        if not _smooth(tree.palm_reach, bounds.a, moved, h, low, mean):
            return top, True
    return top, False


@njit(cache=True, nogil=True)
def _smooth(reach, a_max, moved, h, low, mean):
    """Whether a coordinate of a point stays >= 0 between two samples; either of two bounds suffices."""
    travel, spin, speed, push = 0.0, 0.0, 0.0, 0.0
    for j in range(len(moved)):
        if moved[j] > 0.0 and reach[j] > 0.0:
            travel += reach[j] * moved[j]
            rate = moved[j] / h + 0.5 * a_max[j] * h
            spin += rate
            speed += reach[j] * rate
            push += reach[j] * a_max[j]
    return mean >= 0.5 * travel or low >= h * h / 8.0 * (push + spin * speed)


@njit(cache=True, nogil=True)
def verify_stop(tree, bounds, space, obstacles, q, v, a, dt, w):
    """Whether the stop from (q, v, a) keeps every joint limit and clearance at every tick until rest.

    Joint limits are checked at every tick.  Clearances are evaluated at the start; those that the whole stop
    could use up also at the end and, by bisection, wherever ``_between`` cannot exclude a violation at a tick
    in between, at most SAMPLES times.  When those do not suffice the stop counts as not verified.

    People are where they are said to be, and come from there: k ticks into the stop they have come nearer by
    ``grow * (reaction + k dt)``, which the clearance must exceed by their ``limit``.  Who has come too close to a
    robot that stands is no violation, for standing is all it can do about it.

    Args:
        tree: Kinematics.
        bounds: Joint limits.
        space: Limits of the geometry.
        obstacles: What else is in the cell.
        q: Positions [rad], (n,).
        v: Velocities [rad/s], (n,).
        a: Accelerations of the tick that led here [rad/s2], (n,).
        dt: Tick [s].
        w: Scratch.

    Returns:
        Failure code (OK is 0), ticks until rest, samples used.
    """
    last, code = stop_path(q, v, a, bounds, dt, w.path, w.turn)
    if code != OK:
        return code, last, 0
    _travel(w.path, w.turn, bounds.a, w.moved, 0, last, dt)
    code, count, palm = _first(tree, space, obstacles, w, last * dt)
    if code != OK or count == 0 and not palm:
        return code, last, 1
    for i in range(count):
        w.some[i] = i
    code = _sample(tree, space, obstacles, w, last, 1, 0, count, dt)
    used = 2
    if code != OK:
        return code, last, used
    stack = w.stack
    stack[0, 0], stack[0, 1], stack[0, 2], stack[0, 3], stack[0, 4], stack[0, 5] = 0, last, 0, 1, 0, count
    depth = 1
    while depth > 0:
        depth -= 1
        k0, k1, s0, s1, first, end = stack[depth]
        if k1 - k0 < 2:
            continue
        # What is proven here is proven of every part of it: only the doubtful ones are looked at again.
        top, doubt = _doubtful(tree, bounds, space, w, k0, k1, s0, s1, first, end, palm, dt)
        if top == end and not doubt:
            continue
        if used == SAMPLES:
            return EFFORT, last, used
        # Speed falls along a stop: the middle of the way lies before the middle of the time.
        k = k0 + max(1, (k1 - k0) * 2 // 5)
        code = _sample(tree, space, obstacles, w, k, used, end, top, dt)
        if code != OK:
            return code, last, used + 1
        stack[depth, 0], stack[depth, 1], stack[depth, 2], stack[depth, 3] = k, k1, used, s1
        stack[depth, 4], stack[depth, 5] = end, top
        depth += 1
        stack[depth, 0], stack[depth, 1], stack[depth, 2], stack[depth, 3] = k0, k, s0, used
        stack[depth, 4], stack[depth, 5] = end, top
        depth += 1
        used += 1
    return OK, last, used


@njit(cache=True, nogil=True)
def speed_bound(room, a_max, j_max, dt):
    """Largest speed from which the stop law, starting at a = 0, surely ends within ``room`` [rad/s].

    Braking takes ``v^2 / (2 A)``; ramping the deceleration in and out, and the tick, delay it by at most
    ``c = A / (2 J) + 2 dt``.  It solves ``v^2 / (2 A) + c v = room``.  A joint that moves along this bound
    decelerates by less than A, so the bound is control-invariant, which the published curve of the FR3's
    joints 5 and 7 is not (it asks for 17 rad/s2 of a joint that may brake with 10).
    """
    if room <= 0.0:
        return 0.0
    c = 0.5 * a_max / j_max + 2.0 * dt
    return a_max * (math.sqrt(c * c + 2.0 * room / a_max) - c)


@njit(cache=True, nogil=True)
def may_reach(q, v, x, a_max, j_max, v_max, end, corner, corner_room, offset, two_a, curve_end, dt):
    """Whether a joint at (q, v) may take acceleration x now, as seen from its upper end.

    The state after the tick, carried on to where the acceleration has been ramped down to zero, must lie
    below the derived bound and, seen ``c`` seconds ahead, below the published curve; above ``corner`` below
    the parabola of full deceleration that meets the curve there.

    Args:
        q: Position [rad].
        v: Velocity [rad/s].
        x: Acceleration asked about [rad/s2].
        a_max: Its limit [rad/s2].
        j_max: Limit of the jerk [rad/s3].
        v_max: Limit of the velocity [rad/s].
        end: Upper end of the range [rad].
        corner: See ``Bounds``.
        corner_room: See ``Bounds``.
        offset: See ``Bounds``.
        two_a: See ``Bounds``.
        curve_end: ``up`` of ``Bounds`` [rad].
        dt: Tick [s].
    """
    s, p = v + dt * x, q + dt * v + 0.5 * dt * dt * x
    if x > 0.0:
        ramp = x / j_max + dt
        p += s * ramp + x * ramp * ramp if s > 0.0 else x * ramp * ramp
        s += 0.5 * x * ramp
    room = end - p
    if s <= 0.0:
        return room >= 0.0
    if s > v_max or s > speed_bound(room, a_max, j_max, dt):
        return False
    if two_a == np.inf:
        return True
    curve = curve_end - p - s * (0.5 * a_max / j_max + 2.0 * dt)
    if s <= corner:
        return (s + offset) ** 2 <= two_a * curve
    return s * s <= corner**2 + 2.0 * a_max * (curve - corner_room)


@njit(cache=True, nogil=True)
def box(q, v, a, b, dt, low, high):
    """Interval of accelerations per joint: jerk, acceleration, speed and position, into low, high (n,).

    Where an end demands more than jerk allows, the bound is the jerk limit nearest to it; where both do, the
    interval is the stop law's answer.  The lower end of a joint is the upper end of its mirror image.
    """
    for i in range(len(q)):
        a_max, j_max, v_max, corner, room = b.a[i], b.j[i], b.v[i], b.corner[i], b.corner_room[i]
        offset, two_a = b.offset[i], b.two_a[i]
        lo, hi = max(-a_max, a[i] - j_max * dt), min(a_max, a[i] + j_max * dt)
        high[i] = _furthest(
            q[i], v[i], lo, hi, a_max, j_max, v_max, b.high[i], corner, room, offset, two_a, b.up[i], dt
        )
        low[i] = -_furthest(
            -q[i], -v[i], -hi, -lo, a_max, j_max, v_max, -b.low[i], corner, room, offset, two_a, -b.down[i], dt
        )
        if low[i] > high[i]:
            low[i] = high[i] = stop_joint(v[i], a[i], a_max, j_max, dt)


@njit(cache=True, nogil=True)
def _furthest(q, v, lo, hi, a_max, j_max, v_max, end, corner, corner_room, offset, two_a, curve_end, dt):
    """Largest acceleration in [lo, hi] that ``may_reach``, by bisection; ``lo`` if none."""
    good, bad = lo, hi
    if may_reach(q, v, bad, a_max, j_max, v_max, end, corner, corner_room, offset, two_a, curve_end, dt):
        return bad
    if not may_reach(q, v, good, a_max, j_max, v_max, end, corner, corner_room, offset, two_a, curve_end, dt):
        return good
    for _ in range(24):
        x = 0.5 * (good + bad)
        if may_reach(q, v, x, a_max, j_max, v_max, end, corner, corner_room, offset, two_a, curve_end, dt):
            good = x
        else:
            bad = x
    return good
