"""Whether a stop can be driven: the torques of a stop trajectory against the joints' limits.

Two answers, the cheap one first.  A *bound* of every torque along the whole stop from its first state alone:
the mass matrix there, how much of it the way of the stop can change, and the largest centrifugal terms its speeds
can make; where that is below the limits, no tick of the stop exceeds them, proven.  Otherwise *samples* of the
inverse dynamics, each followed, now and then, by the bound for what is left of the stop.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from palmar.safety.bounds import Bounds
from palmar.safety.dynamics import Inertia, inverse_dynamics, mass_matrix
from palmar.safety.stop import LONGEST
from palmar.safety.types import ConfigError

Array = np.ndarray

FIRST = 12
"""Ticks at the start of a stop that are all sampled: by then every acceleration has reversed."""
EVERY = 10
"""Ticks between samples after that."""
AGAIN = 3
"""Samples between two tries of the bound."""


class Effort(NamedTuple):
    """A robot's torque limits and what the bound needs; n joints and links in hardware order."""

    limit: Array
    """(n,) [N m], less the reserve."""
    a: Array
    """(n,) largest acceleration [rad/s2]."""
    j: Array
    """(n,) largest jerk [rad/s3]."""
    arm: int
    """Number of arm joints."""
    lever: Array
    """(n, n) row l, column i: largest distance of link l's centre of mass from the axis of joint i below it [m]."""
    inertia: Array
    """(n,) largest moment of inertia of a link about its centre of mass [kg m2]."""
    drift: Array
    """(n, n) change of joint i's torque per radian of joint k, all joints at full acceleration [N m/rad]."""
    matrix: Array
    """Scratch, (n, n)."""
    row: Array
    """Scratch, (10, n)."""
    speed: Array
    """Scratch, (n, LONGEST + 2)."""
    sampled: Array
    """Scratch, (LONGEST + 2,) bool."""


def effort_of(b: Inertia, tau_max: Array, bounds: Bounds, *, arm: int, reserve: float = 0.05) -> Effort:
    """What ``stop_torque`` needs for a robot.

    Args:
        b: Its links.
        tau_max: Torque limits [N m], (n,).
        bounds: Limits of its commands.
        arm: Number of arm joints.
        reserve: Part of every torque limit kept back for what lies between the samples.
    """
    if not 0.0 <= reserve < 1.0:
        raise ConfigError(f"torque reserve must be at least 0 and below 1, got {reserve!r}")
    n = len(tau_max)
    reach = _reach(b)
    largest, spread = _principal(b)
    return Effort(
        limit=tau_max * (1.0 - reserve),
        a=bounds.a.copy(),
        j=bounds.j.copy(),
        arm=arm,
        lever=np.ascontiguousarray(reach[0]),
        inertia=largest,
        drift=_drift(b, reach, largest, spread, bounds.a),
        matrix=np.zeros((n, n)),
        row=np.zeros((10, n)),
        speed=np.zeros((n, LONGEST + 2)),
        sampled=np.zeros(LONGEST + 2, dtype=np.bool_),
    )


def _chain(b: Inertia, link: int) -> list[int]:
    """Joints that move a link, from the root to its own."""
    out = [link]
    while b.parent[out[0]] >= 0:
        out.insert(0, int(b.parent[out[0]]))
    return out


def _principal(b: Inertia) -> tuple[Array, Array]:
    """Largest principal moment of each link about its centre of mass, and the difference to the smallest, (n,)."""
    largest, spread = np.zeros(len(b.body)), np.zeros(len(b.body))
    for j, (m, *x) in enumerate(b.body):
        h, (xx, yy, zz, xy, xz, yz) = np.array(x[:3]), x[3:]
        about = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
        if m > 0:
            about -= (h @ h * np.eye(3) - np.outer(h, h)) / m
        values = np.linalg.eigvalsh(about)
        largest[j], spread[j] = values[-1], values[-1] - values[0]
    return largest, spread


def _reach(b: Inertia) -> tuple[Array, Array, Array]:
    """Largest distances over all configurations.

    Returns:
        From a joint's axis and from its origin to a link's centre of mass, (n, n) each, row link, column joint;
        and from a joint's axis to another joint's origin, row the other.
    """
    n = len(b.body)
    axis, origin, between = np.zeros((n, n)), np.zeros((n, n)), np.zeros((n, n))
    for link in range(n):
        m = b.body[link, 0]
        centre = b.body[link, 1:4] / m if m > 0 else np.zeros(3)
        for j, near, far in _swept(b, link, centre):
            axis[link, j], origin[link, j] = near, far
        for j, near, _ in _swept(b, link, np.zeros(3)):
            between[link, j] = near
    return axis, origin, between


def _swept(b: Inertia, link: int, y: Array) -> list[tuple[int, float, float]]:
    """Joint by joint down to the root: largest distance of a point of a link from its axis and its origin.

    The point lies in a ball of radius ``s`` about ``y``; turning the joint moves the ball around the axis, so
    that it lies in a larger one about the axis.
    """
    out, s = [], 0.0
    for j in reversed(_chain(b, link)):
        near = float(np.hypot(y[0], y[1]))
        out.append((j, near + s, float(np.linalg.norm(y)) + s))
        s += near
        y = b.frame[j, :9].reshape(3, 3)[:, 2] * y[2] + b.frame[j, 9:]
    return out


def _drift(b: Inertia, reach: tuple[Array, Array, Array], largest: Array, spread: Array, a: Array) -> Array:
    """Bound of ``sum_j |d M_ij / d q_k| a_j``, (n, n): row i, column k.

    With J_i the lever of joint i to a link's centre of mass, M_ij sums m J_i . J_j and the axes' product over the
    link's inertia.  For i <= j along the chain the derivative is 0 for k <= i (both turn together), at most
    m |J_k| (|J_i| + |J_j|) + spread for k > j, and for i < k <= j at most m |J_j| times what J_i changes by seen
    from j: the distance of the mass from joint k plus that of joint k from axis i, or |J_k| + |J_i|.
    """
    axis, origin, between = reach
    out = np.zeros((len(a), len(a)))
    for link in range(len(a)):
        chain, m = _chain(b, link), b.body[link, 0]
        for x, i in enumerate(chain):
            for y, j in enumerate(chain[x:], x):
                for z, k in enumerate(chain[x + 1 :], x + 1):
                    if z > y:
                        d = m * axis[link, k] * (axis[link, i] + axis[link, j]) + spread[link]
                    else:
                        seen = min(origin[link, k] + between[k, i], axis[link, k] + axis[link, i])
                        d = m * axis[link, j] * seen + largest[link]
                    out[i, k] += d * a[j]
                    out[j, k] += d * a[i] if i != j else 0.0
    return out


@njit(cache=True, nogil=True)
def travel_bound(v, a, a_max, j_max, dt):
    """Largest speed [rad/s] and displacement [rad] along the stop of one joint from (v, a).

    Reversing the acceleration takes ``(A + |a|) / J``, letting it go ``A / J``, and three ticks for rounding up;
    in between the speed falls at the full rate.
    """
    if v == 0.0 and a == 0.0:
        return 0.0, 0.0
    s = abs(v) + 0.5 * a * a / j_max + abs(a) * dt
    return s, 0.5 * s * s / a_max + s * ((2.0 * a_max + abs(a)) / j_max + 3.0 * dt)


@njit(cache=True, nogil=True)
def hull(v, a, a_max, j_max, dt):
    """Interval that holds every acceleration of the stop of one joint from (v, a), (v, a)'s own included.

    A joint that still moves fast enough to let its acceleration go brakes in one direction until it rests;
    a slower one overshoots, and then may do either.
    """
    if v == 0.0 and a == 0.0:
        return 0.0, 0.0
    if a * v < 0.0 and abs(v) < 0.5 * a * a / j_max + 0.5 * abs(a) * dt + j_max * dt * dt:
        return -a_max, a_max
    brake = -a_max if v > 0.0 else a_max if v < 0.0 else -a_max if a > 0.0 else a_max
    return min(brake, a, 0.0), max(brake, a, 0.0)


@njit(cache=True, nogil=True)
def bounded(b, e, q, v, a, dt):
    """Whether no torque exceeds its limit anywhere along the stop from (q, v, a); False where unknown."""
    speed, travel, spin, top, low, high = e.row[0], e.row[1], e.row[2], e.row[3], e.row[8], e.row[9]
    n = len(q)
    for j in b.order:
        speed[j], travel[j] = travel_bound(v[j], a[j], e.a[j], e.j[j], dt)
        low[j], high[j] = hull(v[j], a[j], e.a[j], e.j[j], dt)
        spin[j] = speed[j] + (spin[b.parent[j]] if b.parent[j] >= 0 else 0.0)
    mass_matrix(b, q, e.matrix)
    for i in range(n):
        x, least, most = 0.0, 0.0, 0.0
        for j in range(n):
            m = e.matrix[i, j]
            x += e.drift[i, j] * travel[j]
            most += max(m * low[j], m * high[j])
            least += min(m * low[j], m * high[j])
        top[i] = x + max(most, -least)
        if top[i] > e.limit[i]:
            return False
    for k in range(n):
        # centrifugal acceleration of link k's centre: axes nearer to the root carry those further out
        x, i = 0.0, k
        while i >= 0:
            x += e.lever[k, i] * speed[i] * (2.0 * spin[i] - speed[i])
            i = b.parent[i]
        x, turn, i = x * b.body[k, 0], 1.5 * e.inertia[k] * spin[k] * spin[k], k
        while i >= 0:
            top[i] += e.lever[k, i] * x + turn
            if top[i] > e.limit[i]:
                return False
            i = b.parent[i]
    return True


@njit(cache=True, nogil=True)
def _speeds(e, v, path, dt):
    """Speeds at every tick from the positions of a stop, into ``e.speed``, and the ticks to sample.

    ``q' = q + (v + v') dt / 2`` is solved for v'.
    """
    last = 0
    for i in range(len(v)):
        s, end = v[i], int(path[i, LONGEST + 1])
        e.speed[i, 0] = s
        for k in range(end):
            s = 2.0 * (path[i, k + 1] - path[i, k]) / dt - s
            e.speed[i, k + 1] = s
        last = max(last, end)
    for k in range(last + 1):
        e.sampled[k] = k < FIRST or k % EVERY == 0
    for i in range(len(v)):
        e.sampled[int(path[i, LONGEST + 1])] = True
    return last


@njit(cache=True, nogil=True)
def stop_torque(b, e, v, a, path, dt):
    """Whether the stop along ``path`` keeps every torque below its limit less the reserve.

    Proven for every tick where ``bounded`` says so, at the start or later on the way.  Otherwise checked at the
    candidate tick, those after it up to FIRST, where a joint comes to rest (its acceleration ends), and every EVERY
    ticks; for what lies between those the reserve is kept back.

    Args:
        b: Links.
        e: Limits.
        v: Velocities at the start of the stop [rad/s], (n,).
        a: Accelerations of the tick that led there [rad/s2], (n,).
        path: Positions at every tick [rad], (n, LONGEST + 2); row i ends at the tick in its last column.
        dt: Tick [s].

    Returns:
        Whether it does, and the number of samples used.
    """
    q, s, x, tau = e.row[4], e.row[5], e.row[6], e.row[7]
    for i in range(len(v)):
        q[i] = path[i, 0]
    if bounded(b, e, q, v, a, dt):
        return True, 0
    last, used = _speeds(e, v, path, dt), 0
    for k in range(last + 1):
        if not e.sampled[k]:
            continue
        for i in range(len(v)):
            end = int(path[i, LONGEST + 1])
            at = min(k, end)
            q[i], s[i] = path[i, at], e.speed[i, at] if k < end else 0.0
            x[i] = a[i] if k == 0 else (e.speed[i, k] - e.speed[i, k - 1]) / dt if k <= end else 0.0
        inverse_dynamics(b, q, s, x, tau)
        used += 1
        for i in range(len(v)):
            if not abs(tau[i]) <= e.limit[i]:
                return False, used
        if used % AGAIN == 0 and k > FIRST and bounded(b, e, q, s, x, dt):
            return True, used
    return True, used
