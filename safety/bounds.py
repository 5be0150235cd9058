"""Limits of commands and geometry, and the accelerations after which the stop law still ends inside them.

The interval that ``box`` makes of them is what the QP and the naive clamp it is compared with may choose from.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from palmar.safety.robot import Limits
from palmar.safety.stop import stop_joint

Array = np.ndarray

HALVINGS = 24
"""Of the interval between what jerk and acceleration allow, to find the largest that is allowed."""
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
    for _ in range(HALVINGS):
        x = 0.5 * (good + bad)
        if may_reach(q, v, x, a_max, j_max, v_max, end, corner, corner_room, offset, two_a, curve_end, dt):
            good = x
        else:
            bad = x
    return good
