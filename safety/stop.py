"""The stop law and the trajectory it leads along, checked against the joint limits at every tick.

A command is a discrete integrator per joint (``tracking.integrate``): each tick an acceleration a is chosen,
``v' = v + a dt`` and ``q' = q + v dt + a dt^2 / 2``, within ``|a| <= A`` and ``|a - a_before| <= J dt``.

The law is memoryless: what it does depends on (v, a) alone.  So the tail of a verified stop trajectory is the
stop trajectory of the state it has reached, and following it needs no second verification.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

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
