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

from palmar.safety.geometry import Tree, pair_gap, poses
from palmar.safety.robot import Limits

Array = np.ndarray

OK, POSITION, VELOCITY, ACCELERATION, JERK, SELF, TABLE, WORKSPACE, EFFORT = range(9)
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


@njit(cache=True, nogil=True, inline="always")
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


@njit(cache=True, nogil=True, inline="always")
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


@njit(cache=True, nogil=True, inline="always")
def _too_fast(q, v, i, b):
    """Whether joint i exceeds the published position-dependent speed limit."""
    if abs(v) > b.v[i]:
        return True
    if v == 0.0 or b.two_a[i] == np.inf:
        return False
    room = b.up[i] - q if v > 0.0 else q - b.down[i]
    return (abs(v) + b.offset[i]) ** 2 > b.two_a[i] * room


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
        a_max, step = b.a[i], b.j[i] * dt
        if abs(f) > a_max * (1.0 + 1e-9):
            return 0, ACCELERATION
        path[i, 0] = x
        # While the speed is above this the law's answer is full deceleration, without a square root.
        m = math.ceil(a_max / step)
        full = dt * (m * a_max - 0.5 * step * m * (m - 1.0)) + a_max * dt
        while True:
            if x < b.low[i] or x > b.high[i]:
                return k, POSITION
            if _too_fast(x, s, i, b):
                return k, VELOCITY
            if abs(s) < 1e-13 and abs(f) < 1e-9 or k == LONGEST:
                break
            if s > full:
                f = max(-a_max, f - step)
            elif s < -full:
                f = min(a_max, f + step)
            else:
                f = stop_joint(s, f, a_max, b.j[i], dt)
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


@njit(cache=True, nogil=True, inline="always")
def _at(path, i, k):
    """Position of joint i at tick k of a stop path."""
    end = int(path[i, LONGEST + 1])
    return path[i, k if k < end else end]


class Work(NamedTuple):
    """Scratch space of ``verify_stop``."""

    path: Array
    turn: Array
    q: Array
    moved: Array
    travel: Array
    fall: Array
    live: Array
    low: Array
    pair: Array
    """(SAMPLES, P)"""
    table: Array
    """(SAMPLES, k)"""
    palm: Array
    """(SAMPLES, 3)"""
    stack: Array
    p: Array
    r: Array
    axis: Array
    anchor: Array
    ends: Array


def work_of(tree: Tree) -> Work:
    """Scratch space for a robot."""
    b, n, g = len(tree.parent), len(tree.joint_body), len(tree.geom_body)
    return Work(
        np.zeros((n, LONGEST + 2)),
        np.zeros(n, dtype=np.int64),
        np.zeros(n),
        np.zeros(n),
        np.zeros(len(tree.pairs)),
        np.zeros(len(tree.table)),
        np.zeros(len(tree.pairs), dtype=np.int64),
        np.zeros(len(tree.table), dtype=np.int64),
        np.zeros((SAMPLES, len(tree.pairs))),
        np.zeros((SAMPLES, len(tree.table))),
        np.zeros((SAMPLES, 3)),
        np.zeros((SAMPLES, 4), dtype=np.int64),
        np.zeros((b, 3)),
        np.zeros((b, 3, 3)),
        np.zeros((n, 3)),
        np.zeros((n, 3)),
        np.zeros((g, 3, 3)),
    )


@njit(cache=True, nogil=True)
def _place(tree, space, w, k, s):
    """Forward kinematics at tick k of the path and the palm into row s; whether that is in the workspace."""
    for i in range(len(w.q)):
        w.q[i] = _at(w.path, i, k)
    poses(tree, w.q, w.p, w.r, w.axis, w.anchor, w.ends)
    inside = True
    for i in range(3):
        x = w.p[tree.palm, i]
        w.palm[s, i] = x
        inside = inside and space.lower[i] <= x <= space.upper[i]
    return inside


@njit(cache=True, nogil=True)
def _first(tree, space, w):
    """Geometry of the first tick, and what could come too close by ``w.moved`` at all: the live ones.

    Returns:
        Failure code, number of live pairs, of live geoms, and whether the palm is live.
    """
    if not _place(tree, space, w, 0, 0):
        return WORKSPACE, 0, 0, False
    w.travel[:] = 0.0
    w.fall[:] = 0.0
    way = 0.0
    for j in range(len(w.moved)):
        if w.moved[j] > 0.0:
            m = w.moved[j]
            for i in range(len(w.travel)):
                w.travel[i] += m * tree.pair_reach[j, i]
            for i in range(len(w.fall)):
                w.fall[i] += m * tree.table_reach[j, i]
            way += m * tree.palm_reach[j]
    pairs, geoms, palm = 0, 0, False
    for i in range(len(tree.pairs)):
        d = pair_gap(tree, w.ends, i, space.self_limit + w.travel[i])
        if d < space.self_limit:
            return SELF, 0, 0, False
        if d - w.travel[i] < space.self_limit:
            w.live[pairs], w.pair[0, pairs] = i, d
            pairs += 1
    for i in range(len(tree.table)):
        g = tree.table[i]
        h = min(w.ends[g, 0, 2], w.ends[g, 1, 2]) - tree.radius[g]
        if h < space.table_limit:
            return TABLE, 0, 0, False
        if h - w.fall[i] < space.table_limit:
            w.low[geoms], w.table[0, geoms] = i, h
            geoms += 1
    for i in range(3):
        x = w.palm[0, i]
        palm = palm or x - way < space.lower[i] or x + way > space.upper[i]
    return OK, pairs, geoms, palm


@njit(cache=True, nogil=True)
def _sample(tree, space, w, k, s, pairs, geoms):
    """Geometry of the live pairs and geoms at tick k of the path into row s; failure code."""
    if not _place(tree, space, w, k, s):
        return WORKSPACE
    for i in range(pairs):
        w.pair[s, i] = pair_gap(tree, w.ends, w.live[i], np.inf)
        if w.pair[s, i] < space.self_limit:
            return SELF
    for i in range(geoms):
        g = tree.table[w.low[i]]
        w.table[s, i] = min(w.ends[g, 0, 2], w.ends[g, 1, 2]) - tree.radius[g]
        if w.table[s, i] < space.table_limit:
            return TABLE
    return OK


@njit(cache=True, nogil=True)
def posture(tree, bounds, space, q, w):
    """Failure code of standing still at q."""
    for i in range(len(q)):
        if not bounds.low[i] <= q[i] <= bounds.high[i]:
            return POSITION
        w.path[i, 0], w.path[i, LONGEST + 1], w.moved[i] = q[i], 0.0, 0.0
    return _first(tree, space, w)[0]


@njit(cache=True, nogil=True)
def _travel(bounds, w, k0, k1, dt):
    """How far each joint travels between two ticks, back and forth added up, into ``w.moved`` [rad]."""
    for i in range(len(w.q)):
        x0, x1 = _at(w.path, i, k0), _at(w.path, i, k1)
        t = w.turn[i]
        w.moved[i] = abs(x1 - x0)
        if k0 < t < k1:
            x = _at(w.path, i, t)
            # The reversal lies inside a tick: at most this much further.
            w.moved[i] = abs(x - x0) + abs(x1 - x) + bounds.a[i] * dt * dt


@njit(cache=True, nogil=True)
def _between(tree, bounds, space, w, k0, k1, s0, s1, pairs, geoms, palm, dt):
    """Whether every tick strictly between two samples is clear; a proof, not a test at points.

    A distance changes by at most (reach of each joint) x (how far that joint moves), so between two samples
    it is at least their mean less half of that.  Heights and the palm are moreover smooth: on an
    interval of length h they stay above the chord less h^2 / 8 times their largest acceleration.
    """
    _travel(bounds, w, k0, k1, dt)
    h = (k1 - k0) * dt
    for i in range(pairs):
        room = w.pair[s0, i] + w.pair[s1, i] - 2.0 * space.self_limit
        for j in range(len(w.q)):
            room -= tree.pair_reach[j, w.live[i]] * w.moved[j]
        if room < 0.0:
            return False
    for i in range(geoms):
        low = min(w.table[s0, i], w.table[s1, i]) - space.table_limit
        mean = 0.5 * (w.table[s0, i] + w.table[s1, i]) - space.table_limit
        if not _smooth(tree.table_reach[:, w.low[i]], bounds, w.moved, h, low, mean):
            return False
    for i in range(3 if palm else 0):
        x0, x1 = w.palm[s0, i], w.palm[s1, i]
        low = min(min(x0, x1) - space.lower[i], space.upper[i] - max(x0, x1))
        mean = min(0.5 * (x0 + x1) - space.lower[i], space.upper[i] - 0.5 * (x0 + x1))
        if not _smooth(tree.palm_reach, bounds, w.moved, h, low, mean):
            return False
    return True


@njit(cache=True, nogil=True)
def _smooth(reach, bounds, moved, h, low, mean):
    """Whether a coordinate of a point stays >= 0 between two samples; either of two bounds suffices."""
    travel, spin, speed, push = 0.0, 0.0, 0.0, 0.0
    for j in range(len(moved)):
        if moved[j] > 0.0 and reach[j] > 0.0:
            travel += reach[j] * moved[j]
            rate = moved[j] / h + 0.5 * bounds.a[j] * h
            spin += rate
            speed += reach[j] * rate
            push += reach[j] * bounds.a[j]
    return mean >= 0.5 * travel or low >= h * h / 8.0 * (push + spin * speed)


@njit(cache=True, nogil=True)
def verify_stop(tree, bounds, space, q, v, a, dt, w):
    """Whether the stop from (q, v, a) keeps every joint limit and clearance at every tick until rest.

    Joint limits are checked at every tick.  Clearances are evaluated at the start; those that the whole stop
    could use up also at the end and, by bisection, wherever ``_between`` cannot exclude a violation at a tick
    in between, at most SAMPLES times.  When those do not suffice the stop counts as not verified.

    Args:
        tree: Kinematics.
        bounds: Joint limits.
        space: Limits of the geometry.
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
    _travel(bounds, w, 0, last, dt)
    code, pairs, geoms, palm = _first(tree, space, w)
    if code != OK or pairs + geoms == 0 and not palm:
        return code, last, 1
    code = _sample(tree, space, w, last, 1, pairs, geoms)
    used = 2
    if code != OK:
        return code, last, used
    w.stack[0, 0], w.stack[0, 1], w.stack[0, 2], w.stack[0, 3] = 0, last, 0, 1
    depth = 1
    while depth > 0:
        depth -= 1
        k0, k1, s0, s1 = w.stack[depth, 0], w.stack[depth, 1], w.stack[depth, 2], w.stack[depth, 3]
        if k1 - k0 < 2 or _between(tree, bounds, space, w, k0, k1, s0, s1, pairs, geoms, palm, dt):
            continue
        if used == SAMPLES:
            return EFFORT, last, used
        # Speed falls along a stop: the middle of the way lies before the middle of the time.
        k = k0 + max(1, (k1 - k0) * 2 // 5)
        code = _sample(tree, space, w, k, used, pairs, geoms)
        if code != OK:
            return code, last, used + 1
        w.stack[depth, 0], w.stack[depth, 1], w.stack[depth, 2], w.stack[depth, 3] = k, k1, used, s1
        w.stack[depth + 1, 0], w.stack[depth + 1, 1] = k0, k
        w.stack[depth + 1, 2], w.stack[depth + 1, 3] = s0, used
        depth += 2
        used += 1
    return OK, last, used


@njit(cache=True, nogil=True, inline="always")
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


@njit(cache=True, nogil=True, inline="always")
def may_reach(q, v, x, i, b, dt, side):
    """Whether joint i at (q, v) may take acceleration x now, as seen from its upper (+1) or lower end.

    The state after the tick, carried on to where the acceleration has been ramped down to zero, must lie
    below the derived bound and, seen ``c`` seconds ahead, below the published curve; above ``corner`` below
    the parabola of full deceleration that meets the curve there.
    """
    s, p = side * (v + dt * x), side * (q + dt * v + 0.5 * dt * dt * x)
    f = side * x
    if f > 0.0:
        ramp = f / b.j[i] + dt
        p += s * ramp + f * ramp * ramp if s > 0.0 else f * ramp * ramp
        s += 0.5 * f * ramp
    room = (b.high[i] if side > 0.0 else -b.low[i]) - p
    if s <= 0.0:
        return room >= 0.0
    if s > b.v[i] or s > speed_bound(room, b.a[i], b.j[i], dt):
        return False
    if b.two_a[i] == np.inf:
        return True
    ahead = s * (0.5 * b.a[i] / b.j[i] + 2.0 * dt)
    curve = (b.up[i] if side > 0.0 else -b.down[i]) - p - ahead
    if s <= b.corner[i]:
        return (s + b.offset[i]) ** 2 <= b.two_a[i] * curve
    return s * s <= b.corner[i] ** 2 + 2.0 * b.a[i] * (curve - b.corner_room[i])


@njit(cache=True, nogil=True)
def box(q, v, a, b, dt, low, high):
    """Interval of accelerations per joint: jerk, acceleration, speed and position, into low, high (n,).

    Where an end demands more than jerk allows, the bound is the jerk limit nearest to it; where both do, the
    interval is the stop law's answer.
    """
    for i in range(len(q)):
        lo, hi = max(-b.a[i], a[i] - b.j[i] * dt), min(b.a[i], a[i] + b.j[i] * dt)
        low[i] = _furthest(q[i], v[i], lo, hi, i, b, dt, -1.0)
        high[i] = _furthest(q[i], v[i], lo, hi, i, b, dt, 1.0)
        if low[i] > high[i]:
            low[i] = high[i] = stop_joint(v[i], a[i], b.a[i], b.j[i], dt)


@njit(cache=True, nogil=True, inline="always")
def _furthest(q, v, lo, hi, i, b, dt, side):
    """Acceleration furthest towards ``side`` in [lo, hi] that ``may_reach``, by bisection."""
    good, bad = (lo, hi) if side > 0.0 else (hi, lo)
    if may_reach(q, v, bad, i, b, dt, side):
        return bad
    if not may_reach(q, v, good, i, b, dt, side):
        return good
    for _ in range(24):
        x = 0.5 * (good + bad)
        if may_reach(q, v, x, i, b, dt, side):
            good = x
        else:
            bad = x
    return good
