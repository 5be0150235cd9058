"""Distances of a robot's links to an obstacle: all points within a radius of a box.

A box has no radius; a capsule is a box that is a segment, a sphere one that is a point.
"""

from __future__ import annotations

import math

from numba import njit

from palmar.safety.boxes import TOUCHING, to_box
from palmar.safety.distances import segment_segment

# Numbers, not arrays, are handed on from here: every array that a function takes costs more than a distance does.


@njit(cache=True, nogil=True)
def solid(centre, frame, half, radius, o):
    """Slot o as a tuple of 16 numbers: centre, axes, half sizes, radius; arrays as in ``Obstacles``."""
    return (
        centre[o, 0],
        centre[o, 1],
        centre[o, 2],
        frame[o, 0, 0],
        frame[o, 0, 1],
        frame[o, 0, 2],
        frame[o, 1, 0],
        frame[o, 1, 1],
        frame[o, 1, 2],
        frame[o, 2, 0],
        frame[o, 2, 1],
        frame[o, 2, 2],
        half[o, 0],
        half[o, 1],
        half[o, 2],
        radius[o],
    )


@njit(cache=True, nogil=True)
def from_segment(a, b, body):
    """Signed distance of a segment to a ``solid``.

    Args:
        a: One end of the segment [m], a tuple of 3.
        b: The other.
        body: The solid.

    Returns:
        Distance [m]; s in [0, 1] of the segment's closest point; gradient of the distance by that point, world frame.
    """
    x, y, z = a[0] - body[0], a[1] - body[1], a[2] - body[2]
    u, v, w = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    if body[12] == 0.0 and body[13] == 0.0:
        e0, e1, e2 = body[14] * body[9], body[14] * body[10], body[14] * body[11]
        u, v, w = 0.5 * u, 0.5 * v, 0.5 * w
        square, s, t = segment_segment(x + u, y + v, z + w, u, v, w, e0, e1, e2)
        d = math.sqrt(square)
        k = 1.0 / d if d > TOUCHING else 0.0
        x, y, z = x + (1.0 + s) * u - t * e0, y + (1.0 + s) * v - t * e1, z + (1.0 + s) * w - t * e2
        return d - body[15], 0.5 * (1.0 + s), (k * x, k * y, k * z)
    p = (
        body[3] * x + body[4] * y + body[5] * z,
        body[6] * x + body[7] * y + body[8] * z,
        body[9] * x + body[10] * y + body[11] * z,
    )
    q = (
        body[3] * u + body[4] * v + body[5] * w,
        body[6] * u + body[7] * v + body[8] * w,
        body[9] * u + body[10] * v + body[11] * w,
    )
    d, s, m = to_box(p, q, (body[12], body[13], body[14]))
    n = (
        body[3] * m[0] + body[6] * m[1] + body[9] * m[2],
        body[4] * m[0] + body[7] * m[1] + body[10] * m[2],
        body[5] * m[0] + body[8] * m[1] + body[11] * m[2],
    )
    return d - body[15], s, n


@njit(cache=True, nogil=True)
def from_geom(ends, g, body):
    """``from_segment`` of the axis of geom g: its own radius is not taken off."""
    a = (ends[g, 0, 0], ends[g, 0, 1], ends[g, 0, 2])
    b = (ends[g, 1, 0], ends[g, 1, 1], ends[g, 1, 2])
    return from_segment(a, b, body)


@njit(cache=True, nogil=True)
def near_geoms(ends, around, geoms, body, body_around, near, found):
    """Those of ``geoms`` whose bounding sphere is nearer than ``near`` [m] to that of a solid.

    Args:
        ends: Segment ends and centres [m], (g, 3, 3).
        around: Radii of the geoms' bounding spheres [m], (g,).
        geoms: Which geoms to look at, (m,).
        body: The solid.
        body_around: Radius of its bounding sphere [m].
        near: [m]
        found: Out: geoms, (m,).

    Returns:
        How many.
    """
    count = 0
    for i in range(len(geoms)):
        g = geoms[i]
        x, y, z = ends[g, 2, 0] - body[0], ends[g, 2, 1] - body[1], ends[g, 2, 2] - body[2]
        if math.sqrt(x * x + y * y + z * z) - around[g] - body_around < near:
            found[count] = g
            count += 1
    return count
