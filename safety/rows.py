"""The rows of the filter's QP, assembled in one call: bounds, barriers, torques."""

from __future__ import annotations

import numpy as np
from numba import njit

from palmar.safety.barrier import FURTHER, needed, needed_slow
from palmar.safety.bounds import box
from palmar.safety.distances import pair_bounds, pair_row, segment_distance
from palmar.safety.dynamics import mass_and_bias
from palmar.safety.hulls import CLOSE
from palmar.safety.obstacles import OBJECT, PERSON
from palmar.safety.solids import from_geom, near_geoms, solid
from palmar.safety.tree import pair_gradient, point_gradient, point_row, poses

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
            need = needed(d - limit - buffer, _speed(row, v), brake, soft, rate)
            if _add(row, need, low, high, scale, prune, matrix, lower, k):
                kind[k] = SELF_KIND
                k += 1
            continue
        for c in range(3):
            t[1, c] = ends[a, 0, c] + x * (ends[a, 1, c] - ends[a, 0, c])
            t[2, c] = ends[b, 0, c] + y * (ends[b, 1, c] - ends[b, 0, c])
            t[0, c] = (t[2, c] - t[1, c]) / length if length > 1e-9 else 0.0
        pair_gradient(above, body[a], body[b], t[1], t[2], t[0], axis, anchor, row)
        need = needed(d - limit - buffer, _speed(row, v), brake, soft, rate)
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
        need = needed(h, _speed(row, v), brake, soft, rate)
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
            need = needed(h, _speed(row, v), bar.brake, bar.soft, bar.rate)
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
                soft, brake, reach, code = obstacles.grow[o], bar.human_brake, FURTHER * bar.reach, PERSON_KIND
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
                point_gradient(above, body[g], t[1], t[0], axis, anchor, row)
                dh = _speed(row, v)
                if touched == 1:
                    need = needed_slow(h, dh, bar.brake, bar.impact, bar.rate)
                else:
                    need = needed(h, dh, brake, soft, bar.rate)
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
