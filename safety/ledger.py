"""What the energy tanks are metered by: the ledger of port and dissipation, and the row of what may still be given.

See ``palmar.safety.tank`` for what is charged and why.  Arrays and kernels only; g tanks, n joints.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

Array = np.ndarray

RING = 64
"""Commands remembered; readings older than this many ticks settle nothing."""


class Book(NamedTuple):
    """State of the tanks."""

    setting: Array
    """(g, 12) the numbers of ``TankConfig`` in their order."""
    tank: Array
    """(n,) tank of each joint."""
    force: Array
    """(n,) torque at which the servo is cut [N m]"""
    model: Array
    """(4, n): acceleration [rad/s2] and jerk [rad/s3] of a command, the joint's own damping [N m s/rad] and
    friction [N m]."""
    level: Array
    """(g, 7): settled level, ledger not credited yet, charge of U's error, charge of commands not seen, what is left
    after the charges, what the stop in hand may take of it, and a running sum [J]."""
    last: Array
    """(4, n): position, torque, U and lower bound of the speed at the newest reading settled."""
    now: Array
    """(3, n): velocity of the newest reading; position and its error when the next command comes into force."""
    stamp: Array
    """(RING,) [s]"""
    u: Array
    """(RING, n) [rad]"""
    k: Array
    """(RING, n) [N m/rad]"""
    head: Array
    """(3,): newest command, newest settled reading, command in force then."""
    row: Array
    """(g, n) [J s2/rad]"""
    bound: Array
    """(2, g): ``grant`` and ``upper`` [J]."""


CAPACITY, INITIAL, FLOOR, EFFICIENCY, LOSS, Q_ERROR, QD_ERROR, ACCELERATION, DELAY, SKEW, PUSH, RATE = range(12)
SETTLED, WAITING, UNSURE, UNSEEN, LEFT, HELD, SUM = range(7)


@njit(cache=True, nogil=True, inline="always")
def spring(k, e, force):
    """Energy of a spring cut at ``force`` [J]."""
    e = abs(e)
    return 0.5 * k * e * e if k * e <= force else force * (e - 0.5 * force / k)


@njit(cache=True, nogil=True, inline="always")
def port(k0, k1, e, du, error, force):
    """Most energy that k0 -> k1 and a set-point moving by du put into a spring stretched by e +- error [J]."""
    up = spring(k1, e + error + du, force) - spring(k0, e + error, force)
    down = spring(k1, e - error + du, force) - spring(k0, e - error, force)
    return max(up, down)


@njit(cache=True, nogil=True)
def settle(b, t, seq, q, qd, tau, dt):
    """Enter a reading taken at t into the ledger: pay at once, credit what exceeds the reading's own error."""
    c = int(b.head[0])
    while c > b.head[0] - RING + 1 and b.stamp[c % RING] + b.setting[0, DELAY] > t + 0.5 * dt:
        c -= 1
    gap = seq - b.head[1]
    b.level[:, UNSURE] = 0.0
    u, k = b.u[c % RING], b.k[c % RING]
    before, after = max(0, c - 1) % RING, min(c + 1, int(b.head[0])) % RING
    for i in range(len(q)):
        g, e = b.tank[i], u[i] - q[i]
        s = b.setting[g]
        stored, moved = spring(k[i], e, b.force[i]), q[i] - b.last[0, i]
        work = b.last[1, i] * moved
        if gap > 1:  # the torque between is not known: the dearer of its two ends
            work = max(work, tau[i] * moved)
        b.level[g, WAITING] -= stored - b.last[2, i] + work + s[Q_ERROR] * abs(tau[i] - b.last[1, i])
        slow = max(0.0, abs(qd[i]) - s[QD_ERROR])
        if gap == 1:
            w = min(slow, b.last[3, i])
            b.level[g, WAITING] += s[LOSS] * dt * w * (b.model[2, i] * w + b.model[3, i])
        other = max(
            abs(spring(b.k[before, i], b.u[before, i] - q[i], b.force[i]) - stored),
            abs(spring(b.k[after, i], b.u[after, i] - q[i], b.force[i]) - stored),
        )
        slip = min(k[i] * (abs(e) + 0.5 * s[Q_ERROR]), b.force[i]) * s[Q_ERROR]
        b.level[g, UNSURE] += slip + s[SKEW] / dt * other
        b.last[0, i], b.last[1, i], b.last[2, i], b.last[3, i] = q[i], tau[i], stored, slow
    for g in range(len(b.level)):
        x = b.level[g]
        if x[WAITING] < 0.0 or x[WAITING] > 2.0 * x[UNSURE] + 1e-6:
            back = x[WAITING] * (b.setting[g, EFFICIENCY] if x[WAITING] > 0.0 else 1.0)
            x[SETTLED], x[WAITING] = min(b.setting[g, CAPACITY], x[SETTLED] + back), 0.0
    b.head[1], b.head[2] = seq, c


@njit(cache=True, nogil=True)
def unseen(b, now, t, qd, dt):
    """Charge the commands that the newest reading, taken at t, has not shown; place the joints for the next one."""
    b.level[:, UNSEEN] = 0.0
    b.level[:, SUM] = 0.0
    newest = int(b.head[0])
    first = max(int(b.head[2]), newest - RING + 2)
    for c in range(first + 1, newest + 2):
        i, p = c % RING, (c - 1) % RING
        ahead = max(0.0, (b.stamp[i] if c <= newest else now + dt) + b.setting[0, DELAY] - t)
        for j in range(len(qd)):
            g = b.tank[j]
            s = b.setting[g]
            x = b.last[0, j] + qd[j] * ahead
            error = s[Q_ERROR] + ahead * s[QD_ERROR] + 0.5 * ahead * ahead * s[ACCELERATION] + s[SKEW] * abs(qd[j])
            if c > newest:
                b.now[0, j], b.now[1, j], b.now[2, j] = qd[j], x, error
            else:
                b.level[g, SUM] += port(b.k[p, j], b.k[i, j], b.u[p, j] - x, b.u[i, j] - b.u[p, j], error, b.force[j])
        for g in range(len(b.level)):  # nobody knows how many of them are in force already
            b.level[g, UNSEEN] = max(b.level[g, UNSEEN], b.level[g, SUM])
    for g in range(len(b.level)):
        x = b.level[g]
        x[LEFT] = x[SETTLED] + min(0.0, x[WAITING]) - x[UNSURE] - x[UNSEEN]


@njit(cache=True, nogil=True, inline="always")
def reserve(k, e, v, a_max, j_max, error, push, skew, force, dt):
    """Most energy that the set-point's stop from speed v puts into the spring [J]; the stretch at its end [rad]."""
    s = abs(v) + 0.5 * a_max * a_max / j_max + a_max * dt
    way = 0.5 * s * s / a_max + s * (3.0 * a_max / j_max + 3.0 * dt)
    away = (e if v > 0.0 else -e if v < 0.0 else abs(e)) + error + push * (s / a_max + 2.0 * a_max / j_max + 3.0 * dt)
    away = max(0.0, away)
    slip = skew * s * min(k * (away + way), force)  # and of that, what two neighbouring commands differ by
    return spring(k, away + way, force) - spring(k, away, force) + slip, away + way


@njit(cache=True, nogil=True)
def rows(b, u, v, a, wanted, dt):
    """A row per tank, ``row . x + grant s <= upper``, into ``b.row`` and ``b.bound``.

    x is the acceleration of the tick, s the share granted of the wanted rise of stiffness; a wanted fall is granted.

    Args:
        b: Book, settled and charged.
        u: Set-points of the tick before [rad], (n,).
        v: Their velocities [rad/s], (n,).
        a: Their accelerations [rad/s2], (n,).
        wanted: Stiffness wanted [N m/rad], (n,).
        dt: Tick [s].
    """
    row, grant, upper, k = b.row, b.bound[0], b.bound[1], b.k[b.head[0] % RING]
    row[:, :] = 0.0
    grant[:] = 0.0
    for g in range(len(upper)):
        upper[g] = 0.0
        b.level[g, HELD] = 0.0
    for i in range(len(u)):
        g, e, error, force = b.tank[i], u[i] - b.now[1, i], b.now[2, i], b.force[i]
        push, skew, least, ends = b.setting[g, PUSH], b.setting[g, SKEW], min(k[i], wanted[i]), (0.0, 0.0)
        top, jerk = b.model[0, i], b.model[1, i]
        low, high = max(-top, a[i] - jerk * dt), min(top, a[i] + jerk * dt)
        held, far = reserve(k[i], e, v[i], top, jerk, error, push, skew, force, dt)
        b.level[g, HELD] += held
        for side in range(2):
            x = high if side else low
            du = dt * v[i] + 0.5 * dt * dt * x
            held, end = reserve(least, e + du, v[i] + dt * x, top, jerk, error, push, skew, force, dt)
            ends = (ends[1], port(k[i], least, e, du, error, force) + held)
            far = max(far, end, abs(e) + error + abs(du))
        row[g, i] = (ends[1] - ends[0]) / (high - low) if high > low else 0.0
        upper[g] += row[g, i] * low - ends[0]
        if wanted[i] > k[i]:
            # charged when sent, and once more for ``skew`` when it shows
            stretch = min(far, force / k[i]) if k[i] > 0.0 else far
            grant[g] += 0.5 * (1.0 + skew / dt) * (wanted[i] - k[i]) * stretch * stretch
    for g in range(len(upper)):
        left = b.level[g, LEFT] - b.setting[g, FLOOR]
        upper[g] += left - (1.0 - b.setting[g, RATE] * dt) * max(0.0, left - b.level[g, HELD])


@njit(cache=True, nogil=True)
def tick(b, stamp, u, k, now, t, seq, q, qd, tau, v, a, wanted, dt):
    """Note the command sent before, settle the reading if it is new, charge what it has not shown, make the rows.

    Args:
        b: Book.
        stamp: Time from which the newest command is in force [s]; noted if later than the one before.
        u: Its set-points [rad], (n,).
        k: Its stiffness [N m/rad], (n,).
        now: Monotonic time [s].
        t: Time of the newest reading [s].
        seq: Its number.
        q: Measured positions [rad], (n,).
        qd: Measured velocities [rad/s], (n,).
        tau: Measured torques of the servos, without gravity's [N m], (n,).
        v: Velocities of the set-points [rad/s], (n,).
        a: Their accelerations [rad/s2], (n,).
        wanted: Stiffness wanted [N m/rad], (n,).
        dt: Tick [s].
    """
    if stamp > b.stamp[b.head[0] % RING]:
        b.head[0] += 1
        i = b.head[0] % RING
        b.stamp[i] = stamp
        b.u[i], b.k[i] = u, k
    if seq > b.head[1]:
        settle(b, t, seq, q, qd, tau, dt)
    unseen(b, now, t, qd, dt)
    rows(b, u, v, a, wanted, dt)
