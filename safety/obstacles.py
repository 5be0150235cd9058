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
from palmar.safety.solids import from_geom, solid
from palmar.safety.tree import point_row
from palmar.safety.types import CommandRefused, ConfigError, People

Array = np.ndarray

SLOTS = 16
"""Most obstacles at a time, of all kinds together."""
KEEP_OUT, PERSON, OBJECT = range(3)
"""A region nothing may enter; a person, to be kept away from; something that may be touched, gently."""
EVERYWHERE = 1e3
"""Radius of a person whose place is not known [m]."""


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


@njit(cache=True, nogil=True)
def obstacle_gap(tree, ends, g, obstacles, o, near):
    """Distance of geom g to obstacle o [m], or a lower bound by bounding spheres where that reaches ``near``."""
    x = ends[g, 2, 0] - obstacles.centre[o, 0]
    y = ends[g, 2, 1] - obstacles.centre[o, 1]
    z = ends[g, 2, 2] - obstacles.centre[o, 2]
    low = math.sqrt(x * x + y * y + z * z) - tree.around[g] - obstacles.around[o]
    if low >= near:
        return low
    body = solid(obstacles.centre, obstacles.frame, obstacles.half, obstacles.radius, o)
    return from_geom(ends, g, body)[0] - tree.radius[g]


@njit(cache=True, nogil=True)
def obstacle_row(tree, g, obstacles, o, ends, axis, anchor, row, t):
    """Distance of geom g to obstacle o [m] and its gradient into ``row`` (n,).

    Scratch ``t`` (3, 3): row 0 the gradient by the closest point, row 1 that point on the geom's axis.
    """
    d, s, n = from_geom(ends, g, solid(obstacles.centre, obstacles.frame, obstacles.half, obstacles.radius, o))
    for i in range(3):
        t[0, i], t[1, i] = n[i], ends[g, 0, i] + s * (ends[g, 1, i] - ends[g, 0, i])
    row[:] = 0.0
    point_row(tree, tree.geom_body[g], t[1], t[0], axis, anchor, 1.0, row)
    return d - tree.radius[g]
