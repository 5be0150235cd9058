"""What is in the cell besides robot and table: forbidden boxes, people, things that may be touched.

Each is a slot of one fixed table: all points within ``radius`` of a box given by centre, axes and half sizes.
A box has no radius; a capsule is a box that is a segment, a sphere one that is a point.  So a distance is that
of a robot's segment to a box, exact outside and a true depth inside, less both radii.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from palmar.safety.constraints import ConstraintSet
from palmar.safety.geometry import point_row, segment_segment
from palmar.safety.types import CommandRefused, ConfigError, People

Array = np.ndarray

SLOTS = 16
"""Most obstacles at a time, of all kinds together."""
KEEP_OUT, PERSON, OBJECT = range(3)
"""A region nothing may enter; a person, to be kept away from; something that may be touched, gently."""
EVERYWHERE = 1e3
"""Radius of a person whose place is not known [m]."""
TOUCHING = 1e-9
"""A segment nearer to a box than this counts as inside, for its normal [m]."""


class Obstacles(NamedTuple):
    """The obstacles, as numba takes them: first the fixed ones, then people, then objects; world frame."""

    count: int
    """Slots in use."""
    fixed: int
    """The first slots: keep-out regions in the order of ``region``."""
    people: int
    """How many slots after them are people."""
    reaction: float
    """Age of a person's place plus what passes until the robot brakes [s]."""
    intrusion: float
    """Distance never to be gone below to a person while the robot moves [m]."""
    human: float
    """Speed at which a person may come [m/s]."""
    kind: Array
    """(SLOTS,) KEEP_OUT, PERSON or OBJECT."""
    region: Array
    """(SLOTS,) column of ``Measurement.clearance_keep_out``, -1 for none."""
    centre: Array
    """(SLOTS, 3) [m]"""
    frame: Array
    """(SLOTS, 3, 3) rows are the axes of the box; of a capsule only the last is set."""
    half: Array
    """(SLOTS, 3) half sizes along them [m]."""
    radius: Array
    """(SLOTS,) [m]"""
    around: Array
    """(SLOTS,) radius of the bounding sphere [m]."""
    limit: Array
    """(SLOTS,) clearance to be kept for ever [m]."""
    grow: Array
    """(SLOTS,) by how much the clearance needed grows with the time of a stop [m/s]."""


def nothing(*, reaction: float = 0.0, intrusion: float = 0.0, human: float = 0.0) -> Obstacles:
    """An empty cell.

    Args:
        reaction: Age of a person's place plus what passes until the robot brakes [s].
        intrusion: Distance never to be gone below to a person while the robot moves [m].
        human: Speed at which a person may come [m/s].
    """
    n = SLOTS
    return Obstacles(
        0,
        0,
        0,
        float(reaction),
        float(intrusion),
        float(human),
        np.zeros(n, dtype=np.int64),
        np.full(n, -1),
        np.zeros((n, 3)),
        np.zeros((n, 3, 3)),
        np.zeros((n, 3)),
        np.zeros(n),
        np.zeros(n),
        np.zeros(n),
        np.zeros(n),
    )


def keep_outs(constraints: ConstraintSet, keep: float) -> Obstacles:
    """The keep-out regions of a constraint file, and what its separation from people asks for.

    A region that is no hard row is measured but not enforced.

    Args:
        constraints: The constraint file.
        keep: Kept back from every limit, beside the row's own error [m].

    Raises:
        ConfigError: If the regions are not numbered 0, 1, 2, ..., a box is empty, or there are too many.
    """
    rows = sorted((c for c in constraints.constraints if c.margin == "keep_out"), key=lambda c: c.params["region"])
    if [c.params["region"] for c in rows] != list(range(len(rows))) or len(rows) > SLOTS:
        raise ConfigError(
            f"keep-out regions are numbered {[c.params['region'] for c in rows]}, need 0, 1, 2, ... below {SLOTS}"
        )
    people = [c for c in constraints.constraints if c.margin == "speed_separation" and c.runtime == "hard row"]
    out = nothing(
        reaction=max((c.params["reaction"] for c in people), default=0.0),
        intrusion=max((c.params["intrusion"] + c.error for c in people), default=0.0) + keep,
        human=max((c.params["human"] for c in people), default=0.0),
    )
    for k, c in enumerate(rows):
        lower, upper = (np.array(c.params[side], dtype=np.float64) for side in ("lower", "upper"))
        if lower.shape != (3,) or not np.all(lower < upper):
            raise ConfigError(f"constraint {c.name}: need lower < upper in 3 coordinates, got {lower} and {upper}")
        put_box(out, k, 0.5 * (lower + upper), np.eye(3), 0.5 * (upper - lower))
        out.kind[k], out.region[k] = KEEP_OUT, k
        out.limit[k] = c.params["limit"] + c.error + keep if c.runtime == "hard row" else -math.inf
    return out._replace(count=len(rows), fixed=len(rows))


def put_box(obstacles: Obstacles, slot: int, centre: Array, rotation: Array, half: Array) -> None:
    """Write an oriented box into a slot.

    Args:
        obstacles: Written to.
        slot: Which.
        centre: [m], (3,).
        rotation: Box to world, (3, 3).
        half: Half sizes [m], (3,).
    """
    o = obstacles
    o.centre[slot], o.frame[slot], o.half[slot], o.radius[slot] = centre, np.asarray(rotation).T, half, 0.0
    o.around[slot] = np.linalg.norm(half)


@njit(cache=True, nogil=True)
def _put_capsules(obstacles, slot, ends, radius, kind, limit, grow):
    """Write capsules into the slots from ``slot`` on; whether they were all finite."""
    for h in range(len(ends)):
        o, length, good = slot + h, 0.0, math.isfinite(radius[h]) and radius[h] >= 0.0
        for i in range(3):
            x, y = ends[h, 0, i], ends[h, 1, i]
            obstacles.centre[o, i] = 0.5 * (x + y)
            obstacles.frame[o, 2, i] = 0.5 * (y - x)
            length += 0.25 * (y - x) ** 2
        length = math.sqrt(length)
        if not (good and length < EVERYWHERE and abs(obstacles.centre[o].sum()) < EVERYWHERE):
            return False
        obstacles.frame[o, :2] = 0.0
        obstacles.frame[o, 2] /= length if length > 0.0 else 1.0
        obstacles.half[o, 0] = obstacles.half[o, 1] = 0.0
        obstacles.half[o, 2], obstacles.radius[o] = length, radius[h]
        obstacles.around[o] = length + radius[h]
        obstacles.kind[o], obstacles.region[o] = kind, -1
        obstacles.limit[o], obstacles.grow[o] = limit, grow
    return True


NOWHERE = (np.zeros((1, 2, 3)), np.full(1, EVERYWHERE))
"""A person who may be anywhere."""


def with_people(obstacles: Obstacles, people: People | None) -> Obstacles:
    """The obstacles with these people and without objects, in the same arrays.

    Args:
        obstacles: Made by ``keep_outs``; overwritten.
        people: From the tracker; None if it is lost, which counts as a person everywhere.

    Raises:
        CommandRefused: If shapes do not fit, a number is not finite, or there are more people than free slots.
    """
    ends, radius = NOWHERE if people is None else (people.ends, people.radius)
    room, h = SLOTS - obstacles.fixed, len(radius)
    if ends.shape != (h, 2, 3) or radius.shape != (h,) or h > room:
        raise CommandRefused(f"people: ends {ends.shape}, radius {radius.shape}; need (h, 2, 3), (h,), h <= {room}")
    limit, grow = obstacles.intrusion, obstacles.human
    if not _put_capsules(obstacles, obstacles.fixed, ends, radius, PERSON, limit, grow):
        raise CommandRefused(f"people: ends and radii must be finite metres, got {ends.tolist()}, {radius.tolist()}")
    count = obstacles.fixed + h
    same = obstacles.count == count and obstacles.people == h
    return obstacles if same else obstacles._replace(count=count, people=h)


def with_objects(obstacles: Obstacles, position: Array, radius: float) -> Obstacles:
    """The obstacles with these objects, as spheres, after regions and people; in the same arrays.

    Args:
        obstacles: Made by ``keep_outs`` and ``with_people``; overwritten.
        position: Centres [m], (m, 3).
        radius: Of the spheres [m].

    Raises:
        CommandRefused: If a number is not finite or there are more objects than free slots.
    """
    first, m = obstacles.fixed + obstacles.people, len(position)
    if position.shape != (m, 3) or first + m > SLOTS:
        raise CommandRefused(f"objects: positions {position.shape}, need (m, 3), m <= {SLOTS - first}")
    ends = np.repeat(position[:, None], 2, axis=1)
    if not _put_capsules(obstacles, first, ends, np.full(m, float(radius)), OBJECT, 0.0, 0.0):
        raise CommandRefused(f"objects: positions must be finite metres, got {position.tolist()}, radius {radius}")
    return obstacles if obstacles.count == first + m else obstacles._replace(count=first + m)


@njit(cache=True, nogil=True, inline="always")
def _slope(s, p, d, half):
    """Half the derivative along the segment of the square distance to the box, in box coordinates."""
    out = 0.0
    for k in range(3):
        x = p[k] + s * d[k]
        if x > half[k]:
            out += (x - half[k]) * d[k]
        elif x < -half[k]:
            out += (x + half[k]) * d[k]
    return out


@njit(cache=True, nogil=True)
def _nearest(p, d, half):
    """Parameter in [0, 1] of a point of the segment p + s d nearest to the box, in box coordinates.

    The square distance is convex and quadratic between the planes of the faces, so its slope is found to be
    zero on the one piece whose ends have slopes of different sign.
    """
    lo, hi = 0.0, 1.0
    at_lo, at_hi = _slope(lo, p, d, half), _slope(hi, p, d, half)
    if at_lo >= 0.0:
        return lo
    if at_hi <= 0.0:
        return hi
    for k in range(3):
        if d[k] == 0.0:
            continue
        for side in (-1.0, 1.0):
            s = (side * half[k] - p[k]) / d[k]
            if lo < s < hi:
                slope = _slope(s, p, d, half)
                if slope > 0.0:
                    hi, at_hi = s, slope
                else:
                    lo, at_lo = s, slope
    return min(hi, lo - at_lo * (hi - lo) / (at_hi - at_lo))


@njit(cache=True, nogil=True, inline="always")
def _highest(s, p, d, half):
    """The face furthest below the point at s: its value [m], its axis, its side."""
    best, axis, way = -1e300, 0, 1.0
    for k in range(3):
        x = p[k] + s * d[k]
        if abs(x) - half[k] > best:
            best, axis, way = abs(x) - half[k], k, 1.0 if x >= 0.0 else -1.0
    return best, axis, way


@njit(cache=True, nogil=True, inline="always")
def _unit(k, x):
    """Vector of length x along axis k."""
    return (x if k == 0 else 0.0, x if k == 1 else 0.0, x if k == 2 else 0.0)


@njit(cache=True, nogil=True)
def _deepest(p, d, half):
    """Depth of the segment p + s d in the box [m], negative, s, and the depth's gradient by the point.

    The depth of a point is its largest distance beyond a face.  Along the segment that is the highest of six
    straight lines.  Its lowest point lies at an end or where a falling and a rising one cross, and there the
    gradient is the mixture of both that does not change along the segment.
    """
    value, k, side = _highest(0.0, p, d, half)
    end, k1, side1 = _highest(1.0, p, d, half)
    fall, rise = side * d[k], side1 * d[k1]
    if fall >= 0.0:
        return value, 0.0, _unit(k, side)
    if rise <= 0.0:
        return end, 1.0, _unit(k1, side1)
    s = 0.0
    for _ in range(6):
        s = (side1 * p[k1] - half[k1] - side * p[k] + half[k]) / (fall - rise)
        level = side * (p[k] + s * d[k]) - half[k]
        value, top, way = _highest(s, p, d, half)
        if value <= level + 1e-15:
            break
        if way * d[top] < 0.0:
            k, side, fall = top, way, way * d[top]
        else:
            k1, side1, rise = top, way, way * d[top]
            if rise == 0.0:
                break
    part = rise / (rise - fall)
    a, b = _unit(k, part * side), _unit(k1, (1.0 - part) * side1)
    return value, s, (a[0] + b[0], a[1] + b[1], a[2] + b[2])


@njit(cache=True, nogil=True)
def segment_box(ends, g, centre, frame, half):
    """Signed distance of a segment to a box.

    Outside it is exact.  Inside it is minus the least way by which the segment's deepest point leaves the box.
    Both together are convex along the segment, and change by no more than a point moves.

    Args:
        ends: Segment ends [m], (g, 3, 3).
        g: Row of the segment.
        centre: Of the box [m], (3,).
        frame: Rows are the box's axes, (3, 3).
        half: Half sizes [m], (3,).

    Returns:
        Distance [m], negative inside; parameter s in [0, 1] of the segment's closest point; gradient of the
        distance by that point in the axes of the box, a tuple of 3.
    """
    x, y, z = ends[g, 0, 0] - centre[0], ends[g, 0, 1] - centre[1], ends[g, 0, 2] - centre[2]
    u, v, w = ends[g, 1, 0] - ends[g, 0, 0], ends[g, 1, 1] - ends[g, 0, 1], ends[g, 1, 2] - ends[g, 0, 2]
    p = (
        frame[0, 0] * x + frame[0, 1] * y + frame[0, 2] * z,
        frame[1, 0] * x + frame[1, 1] * y + frame[1, 2] * z,
        frame[2, 0] * x + frame[2, 1] * y + frame[2, 2] * z,
    )
    d = (
        frame[0, 0] * u + frame[0, 1] * v + frame[0, 2] * w,
        frame[1, 0] * u + frame[1, 1] * v + frame[1, 2] * w,
        frame[2, 0] * u + frame[2, 1] * v + frame[2, 2] * w,
    )
    h = (half[0], half[1], half[2])
    s = _nearest(p, d, h)
    x, y, z = p[0] + s * d[0], p[1] + s * d[1], p[2] + s * d[2]
    x -= min(h[0], max(-h[0], x))
    y -= min(h[1], max(-h[1], y))
    z -= min(h[2], max(-h[2], z))
    distance = math.sqrt(x * x + y * y + z * z)
    if distance > TOUCHING:
        return distance, s, (x / distance, y / distance, z / distance)
    return _deepest(p, d, h)


@njit(cache=True, nogil=True)
def _segments(ends, g, obstacles, o):
    """Square distance of the axes of geom g and of capsule o, and their closest points, in [-1, 1]."""
    c, u, h = obstacles.centre, obstacles.frame, obstacles.half[o, 2]
    return segment_segment(
        ends[g, 2, 0] - c[o, 0],
        ends[g, 2, 1] - c[o, 1],
        ends[g, 2, 2] - c[o, 2],
        0.5 * (ends[g, 1, 0] - ends[g, 0, 0]),
        0.5 * (ends[g, 1, 1] - ends[g, 0, 1]),
        0.5 * (ends[g, 1, 2] - ends[g, 0, 2]),
        h * u[o, 2, 0],
        h * u[o, 2, 1],
        h * u[o, 2, 2],
    )


@njit(cache=True, nogil=True)
def obstacle_distance(ends, g, obstacles, o):
    """Distance of the axis of geom g to obstacle o [m]: the geom's own radius is not taken off."""
    if obstacles.half[o, 0] == 0.0 and obstacles.half[o, 1] == 0.0:
        d = math.sqrt(_segments(ends, g, obstacles, o)[0])
    else:
        d = segment_box(ends, g, obstacles.centre[o], obstacles.frame[o], obstacles.half[o])[0]
    return d - obstacles.radius[o]


@njit(cache=True, nogil=True)
def obstacle_gap(tree, ends, g, obstacles, o, near):
    """Distance of geom g to obstacle o [m], or a lower bound by bounding spheres where that reaches ``near``."""
    x = ends[g, 2, 0] - obstacles.centre[o, 0]
    y = ends[g, 2, 1] - obstacles.centre[o, 1]
    z = ends[g, 2, 2] - obstacles.centre[o, 2]
    low = math.sqrt(x * x + y * y + z * z) - tree.around[g] - obstacles.around[o]
    return low if low >= near else obstacle_distance(ends, g, obstacles, o) - tree.radius[g]


@njit(cache=True, nogil=True)
def obstacle_touch(tree, ends, g, obstacles, o, n, x):
    """Distance of geom g to obstacle o [m], its gradient by the closest point of the geom's axis, that point."""
    if obstacles.half[o, 0] == 0.0 and obstacles.half[o, 1] == 0.0:
        square, s, t = _segments(ends, g, obstacles, o)
        d = math.sqrt(square)
        for i in range(3):
            x[i] = ends[g, 2, i] + 0.5 * s * (ends[g, 1, i] - ends[g, 0, i])
            y = obstacles.centre[o, i] + t * obstacles.half[o, 2] * obstacles.frame[o, 2, i]
            n[i] = (x[i] - y) / d if d > TOUCHING else 0.0
    else:
        d, s, m = segment_box(ends, g, obstacles.centre[o], obstacles.frame[o], obstacles.half[o])
        f = obstacles.frame[o]
        for i in range(3):
            x[i] = ends[g, 0, i] + s * (ends[g, 1, i] - ends[g, 0, i])
            n[i] = f[0, i] * m[0] + f[1, i] * m[1] + f[2, i] * m[2]
    return d - tree.radius[g] - obstacles.radius[o]


@njit(cache=True, nogil=True)
def obstacle_row(tree, g, obstacles, o, ends, axis, anchor, row, t):
    """Distance of geom g to obstacle o [m] and its gradient into ``row`` (n,).

    Scratch ``t`` (3, 3): row 0 the gradient by the closest point, row 1 that point on the geom's axis.
    """
    d = obstacle_touch(tree, ends, g, obstacles, o, t[0], t[1])
    row[:] = 0.0
    point_row(tree, tree.geom_body[g], t[1], t[0], axis, anchor, 1.0, row)
    return d
