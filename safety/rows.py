"""The rows of the filter's QP, assembled in one call: bounds, barriers, torques.

A barrier asks of a distance h, whose gradient by the joints is ``row``: d/dt (h' + w(h)) >= -rate (h' + w(h)), with
w(h) the speed at which it may still be approached; it is linear in the acceleration.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit

from palmar.safety.dynamics import mass_and_bias
from palmar.safety.geometry import pair_bounds, pair_row, point_row, poses, segment_distance
from palmar.safety.hulls import CLOSE
from palmar.safety.obstacles import OBJECT, PERSON, from_geom, near_geoms, solid
from palmar.safety.stop import box
from palmar.safety.types import ConfigError

Array = np.ndarray

SELF_KIND, TABLE_KIND, PALM_KIND, TORQUE_KIND, POSITION_KIND, VELOCITY_KIND = range(6)
PERSON_KIND, CONTACT_KIND, TANK_KIND, RATE_KIND = range(6, 10)
REGION_KIND = 16
"""Kind of keep-out region r is ``REGION_KIND + r``."""
KINDS = {
    SELF_KIND: "self_clearance",
    TABLE_KIND: "table_clearance",
    PALM_KIND: "workspace",
    TORQUE_KIND: "joint_torque",
    POSITION_KIND: "joint_position",
    VELOCITY_KIND: "joint_velocity",
    PERSON_KIND: "speed_separation",
    CONTACT_KIND: "contact_approach",
    TANK_KIND: "energy_tank",
    RATE_KIND: "joint_torque_rate",
}
"""The margin that each kind of row keeps."""
EXTRAS = 3
"""Variables besides the accelerations: torque slack, contact slack, granted share."""
CONTACT_SLACK = 0.1
"""Missing deceleration of an approach per unit of slack [m/s2]: one m/s2 costs 50."""


@dataclass(frozen=True)
class BarrierConfig:
    """Shape of the barriers: allowed approach speed ``sqrt(2 brake h + soft^2) - soft`` at distance h."""

    brake: float = 2.5
    """Deceleration of an approach [m/s2]; what 10 rad/s2 give at a lever of a quarter metre."""
    soft: float = 0.05
    """Speed below which the approach becomes exponential [m/s]."""
    rate: float = 60.0
    """How fast an approach that is too fast is corrected [1/s]."""
    buffer: float = 0.002
    """Distance kept beyond the limit [m]."""
    reach: float = 0.20
    """Pairs and geoms further away than this make no row [m]; a fifth of it for pairs of fingers."""

    def __post_init__(self) -> None:
        for name, value in self.__dict__.items():
            if not 0 < value < float("inf"):
                raise ConfigError(f"barrier.{name} must be a positive number, got {value!r}")


@dataclass(frozen=True)
class Slots:
    """How many rows of each kind a QP has room for."""

    pairs: int = 24
    table: int = 12
    palm: bool = True
    obstacles: int = 16
    contacts: int = 8
    prune: bool = True
    """Leave out rows that no acceleration within the bounds can bring into play in this tick."""

    @property
    def geometry(self) -> int:
        """Rows of pairs, table, palm and obstacles."""
        return self.pairs + self.table + 6 * self.palm + self.obstacles


class Barrier(NamedTuple):
    """``BarrierConfig``, what the separation from people and the contact speed ask for, and the slots, for numba."""

    brake: float
    soft: float
    rate: float
    buffer: float
    reach: float
    human: float
    """Speed of people [m/s]: the ``soft`` of their barrier."""
    human_brake: float
    """[m/s2]"""
    impact: float
    """Allowed approach speed at contact [m/s]."""
    found: Array
    """Scratch: geoms near an obstacle, (g,)."""
    pairs: int
    table: int
    palm: bool
    obstacles: int
    contacts: int
    prune: bool


@njit(cache=True, nogil=True)
def _needed(h, dh, brake, soft, rate):
    """Second derivative of h that the barrier asks for [m/s2]: d/dt(h' + w(h)) >= -rate (h' + w(h)).

    Inside the buffer (h <= 0) no approach is allowed, and no retreat is asked for: a robot at rest there may always
    stay, however many rows it has.
    """
    w = math.sqrt(2.0 * brake * max(h, 0.0) + soft * soft) - soft
    return -rate * (dh + w) - brake / (w + soft) * dh


@njit(cache=True, nogil=True)
def _needed_slow(h, dh, brake, impact, rate):
    """The same where contact is allowed, at ``impact`` [m/s] at most: w(h) = sqrt(2 brake h + impact^2)."""
    w = math.sqrt(2.0 * brake * max(h, 0.0) + impact * impact)
    return -rate * (dh + w) - (brake / w * dh if h > 0.0 else 0.0)


@njit(cache=True, nogil=True)
def _speed(row, v):
    """Rate of change of the distance whose gradient is ``row`` [m/s]."""
    dh = 0.0
    for j in range(len(v)):
        dh += row[j] * v[j]
    return dh


@njit(cache=True, nogil=True)
def _add(row, need, low, high, scale, prune, matrix, lower, k):
    """Put ``row . x >= need`` into row k if it can matter in this tick; whether it did.

    What no acceleration inside the bounds can reach is asked for as far as it can be reached: one row alone
    never makes the QP infeasible.
    """
    least, most = 0.0, 0.0
    for j in range(len(low)):
        g = row[j]
        least += min(g * low[j], g * high[j])
        most += max(g * low[j], g * high[j])
    if prune and least >= need:
        return False
    need = min(need, most - 1e-6 * (most - least) - 1e-9)
    for j in range(len(low)):
        matrix[k, j] = row[j] * scale[j]
    for j in range(len(low), matrix.shape[1]):
        matrix[k, j] = 0.0
    lower[k] = need
    return True


@njit(cache=True, nogil=True)
def assemble(tree, bounds, space, obstacles, bar, q, v, a, dt, s, matrix, lower, kind, low, high):
    """Bounds and barrier rows at (q, v, a).

    Args:
        tree: Kinematics.
        bounds: Joint limits.
        space: Limits of the geometry.
        obstacles: What else is in the cell.
        bar: Barrier.
        q: Positions [rad], (n,).
        v: Velocities [rad/s], (n,).
        a: Accelerations of the tick before [rad/s2], (n,).
        dt: Tick [s].
        s: Scratch: body positions, rotations, axes, anchors, ends, (3, 3), (n,), (P,).
        matrix: Out: rows, (m, n + EXTRAS), in z.
        lower: Out: their lower bounds, (m,).
        kind: Out: kind of each row, (m,).
        low: Out: lower bounds of the acceleration [rad/s2], (n,).
        high: Out: upper bounds [rad/s2], (n,).

    Returns:
        Number of hard rows, number of rows with those of contact, which follow them.
    """
    p, r, axis, anchor, ends, t, row, near = s
    poses(tree, q, p, r, axis, anchor, ends)
    box(q, v, a, bounds, dt, low, high)
    k = _pair_rows(
        tree, tree.hull, tree.pairs, tree.spheres, tree.pair_near, tree.radius, tree.geom_body, tree.above, ends,
        axis, anchor, v, space.self_limit, bar.buffer, bar.reach, bar.brake, bar.soft, bar.rate, low, high, bounds.a,
        bar.prune, bar.pairs, t, row, near, matrix, lower, kind,
    )  # fmt: skip
    k = _table_rows(
        tree.table, tree.radius, tree.geom_body, tree.above, ends, axis, anchor, v, space.table_limit, bar.buffer,
        bar.reach, bar.brake, bar.soft, bar.rate, low, high, bounds.a, bar.prune, k + bar.table, t, row, matrix,
        lower, kind, k,
    )  # fmt: skip
    if bar.palm:
        k = _palm_rows(tree, bounds, space, bar, v, s, low, high, matrix, lower, kind, k)
    if obstacles.count == 0:
        return k, k
    return _obstacle_rows(tree, bounds, obstacles, bar, v, s, low, high, matrix, lower, kind, k)


# What is called in a loop takes arrays, not the tuples that hold them: a tuple is passed with all its arrays.
@njit(cache=True, nogil=True)
def _gradient(above, one, two, xa, xb, n, axis, anchor, row):
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
def _gradient_of_point(above, body, x, n, axis, anchor, row):
    """Gradient of ``n . x`` for a point fixed to ``body`` into ``row`` (n,)."""
    for j in range(len(row)):
        row[j] = 0.0
        if above[body, j]:
            rx, ry, rz = x[0] - anchor[j, 0], x[1] - anchor[j, 1], x[2] - anchor[j, 2]
            ax, ay, az = axis[j, 0], axis[j, 1], axis[j, 2]
            row[j] = n[0] * (ay * rz - az * ry) + n[1] * (az * rx - ax * rz) + n[2] * (ax * ry - ay * rx)


@njit(cache=True, nogil=True)
def _pair_rows(
    tree, hull, pairs, spheres, reach_of, radius, body, above, ends, axis, anchor, v, limit, buffer, reach, brake,
    soft, rate, low, high, scale, prune, slots, t, row, near, matrix, lower, kind,
):  # fmt: skip
    """Pairs of links that are near; the number of their rows."""
    k = 0
    pair_bounds(pairs, spheres, ends, near)
    for i in range(len(pairs)):
        if k == slots:
            break
        a, b, within = pairs[i, 0], pairs[i, 1], reach * reach_of[i] + limit
        if near[i] >= within:
            continue
        length, x, y = segment_distance(ends, a, b)
        d = length - radius[a] - radius[b]
        if d >= within:
            continue
        if hull[i, 0] >= 0 and d < CLOSE:
            d = pair_row(tree, i, ends, axis, anchor, row, t[0], t[1], t[2])
            need = _needed(d - limit - buffer, _speed(row, v), brake, soft, rate)
            if _add(row, need, low, high, scale, prune, matrix, lower, k):
                kind[k] = SELF_KIND
                k += 1
            continue
        for c in range(3):
            t[1, c] = ends[a, 0, c] + x * (ends[a, 1, c] - ends[a, 0, c])
            t[2, c] = ends[b, 0, c] + y * (ends[b, 1, c] - ends[b, 0, c])
            t[0, c] = (t[2, c] - t[1, c]) / length if length > 1e-9 else 0.0
        _gradient(above, body[a], body[b], t[1], t[2], t[0], axis, anchor, row)
        need = _needed(d - limit - buffer, _speed(row, v), brake, soft, rate)
        if _add(row, need, low, high, scale, prune, matrix, lower, k):
            kind[k] = SELF_KIND
            k += 1
    return k


@njit(cache=True, nogil=True)
def _table_rows(
    table, radius, body, above, ends, axis, anchor, v, limit, buffer, reach, brake, soft, rate, low, high, scale,
    prune, full, t, row, matrix, lower, kind, k,
):  # fmt: skip
    """Links that are low; the number of rows after them."""
    for i in range(len(table)):
        g = table[i]
        e = 0 if ends[g, 0, 2] <= ends[g, 1, 2] else 1
        h = ends[g, e, 2] - radius[g] - limit - buffer
        if h >= reach or k == full:
            continue
        for j in range(len(row)):  # the gradient of a height
            rx, ry = ends[g, e, 0] - anchor[j, 0], ends[g, e, 1] - anchor[j, 1]
            row[j] = axis[j, 0] * ry - axis[j, 1] * rx if above[body[g], j] else 0.0
        need = _needed(h, _speed(row, v), brake, soft, rate)
        if _add(row, need, low, high, scale, prune, matrix, lower, k):
            kind[k] = TABLE_KIND
            k += 1
    return k


@njit(cache=True, nogil=True)
def _palm_rows(tree, bounds, space, bar, v, s, low, high, matrix, lower, kind, k):
    """The sides of the palm's box; the number of rows after them."""
    p, _, axis, anchor, _, t, row, _ = s
    for i in range(3):
        for side in (1.0, -1.0):
            x = p[tree.palm, i]
            h = (x - space.lower[i] if side > 0.0 else space.upper[i] - x) - bar.buffer
            if h >= bar.reach:
                continue
            t[0, 0] = t[0, 1] = t[0, 2] = 0.0
            t[0, i] = side
            row[:] = 0.0
            point_row(tree, tree.palm, p[tree.palm], t[0], axis, anchor, 1.0, row)
            need = _needed(h, _speed(row, v), bar.brake, bar.soft, bar.rate)
            if _add(row, need, low, high, bounds.a, bar.prune, matrix, lower, k):
                kind[k] = PALM_KIND
                k += 1
    return k


@njit(cache=True, nogil=True)
def _obstacle_rows(tree, bounds, obstacles, bar, v, s, low, high, matrix, lower, kind, k):
    """Keep-out regions and people, then what may be touched; numbers of rows after each."""
    _, _, axis, anchor, ends, t, row, _ = s
    around, radius, body, above, hand, found = (
        tree.around,
        tree.radius,
        tree.geom_body,
        tree.above,
        tree.hand,
        bar.found,
    )
    scale, hard, last = bounds.a, k, k + bar.obstacles
    for touched in range(2):
        for o in range(obstacles.count):
            what, limit = obstacles.kind[o], obstacles.limit[o]
            if (what == OBJECT) != (touched == 1) or limit == -np.inf:
                continue
            person, reach = what == PERSON, bar.reach
            soft, brake, code = bar.soft, bar.brake, REGION_KIND + obstacles.region[o]
            if person:
                limit += obstacles.grow[o] * obstacles.reaction
                soft, brake, reach, code = obstacles.grow[o], bar.human_brake, 10.0 * bar.reach, PERSON_KIND
            elif touched == 0:
                limit += bar.buffer
            solid_ = solid(obstacles.centre, obstacles.frame, obstacles.half, obstacles.radius, o)
            for i in range(near_geoms(ends, around, tree.moving, solid_, obstacles.around[o], limit + reach, found)):
                g = found[i]
                if k == last or touched == 1 and not hand[g]:
                    continue
                d, x, n = from_geom(ends, g, solid_)
                h = d - radius[g] - limit
                if h >= reach:
                    continue
                for c in range(3):
                    t[0, c], t[1, c] = n[c], ends[g, 0, c] + x * (ends[g, 1, c] - ends[g, 0, c])
                _gradient_of_point(above, body[g], t[1], t[0], axis, anchor, row)
                dh = _speed(row, v)
                if touched == 1:
                    need = _needed_slow(h, dh, bar.brake, bar.impact, bar.rate)
                else:
                    need = _needed(h, dh, brake, soft, bar.rate)
                if _add(row, need, low, high, scale, bar.prune, matrix, lower, k):
                    if touched == 1:
                        matrix[k, len(v) + 1] = CONTACT_SLACK
                    kind[k] = CONTACT_KIND if touched == 1 else code
                    k += 1
        if touched == 0:
            hard, last = k, k + bar.contacts
    return hard, k


@njit(cache=True, nogil=True)
def torque_rows(inertia, q, v, a, zero, part, rate, dt, scale, mass, bias, matrix, lower, upper, m, kind):
    """Rows ``|M x + c| <= part`` and ``|M (x - a)| <= rate dt`` of the arm, softened, two per joint.

    Both limits bound the same row, so the tighter counts.  Gravity is left out, the arm compensates it itself.

    Args:
        inertia: Masses.
        q: Positions [rad], (n,).
        v: Velocities [rad/s], (n,).
        a: Accelerations of the tick before [rad/s2], (n,).
        zero: Zeros, (n,).
        part: Torque limits less what is kept back [N m], (arm,).
        rate: Limit of the torque's rate of change [N m/s], inf for none.
        dt: Tick [s].
        scale: a_max [rad/s2], (n,).
        mass: Scratch, (n, n).
        bias: Scratch, (n,).
        matrix: Out: rows from m on, (., n + EXTRAS), in z and parts of the limit.
        lower: Out: bounds of variables then rows.
        upper: Out: likewise.
        m: First row.
        kind: Out: what bounds each row.
    """
    mass_and_bias(inertia, q, v, zero, mass, bias)
    n, arm, first = len(v), len(part), matrix.shape[1] + m
    for i in range(arm):
        before = 0.0
        for j in range(n):
            x = mass[i, j] / part[i]
            before += x * a[j]
            matrix[m + i, j] = x * scale[j]
            matrix[m + arm + i, j] = x * scale[j]
        high, low, most = 1.0 - bias[i] / part[i], -1.0 - bias[i] / part[i], rate * dt / part[i]
        kind[m + i] = RATE_KIND if before + most < high else TORQUE_KIND
        kind[m + arm + i] = RATE_KIND if before - most > low else TORQUE_KIND
        upper[first + i] = min(high, before + most)
        lower[first + arm + i] = max(low, before - most)
