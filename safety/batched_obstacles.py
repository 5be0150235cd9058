"""Distances of a batch of robots to boxes, people and objects: what ``obstacles`` computes, over an array namespace."""

from __future__ import annotations

from typing import NamedTuple

from palmar.safety.batched_tree import Links, Placed, apart, closest, dot, middle
from palmar.safety.boxes import TOUCHING
from palmar.safety.namespace import namespace
from palmar.safety.types import Array


class Cell(NamedTuple):
    """Who and what is in the cells of a batch besides robot, table and the constraint file's regions."""

    people: Array | None = None
    """Ends of people's capsules [m], (B, h, 2, 3)."""
    people_radius: Array | None = None
    """[m], (B, h)."""
    objects: Array | None = None
    """Centres of what the hand may touch [m], (B, m, 3)."""
    object_radius: float = 0.0
    """Of spheres around them [m]."""


class Boxes(NamedTuple):
    """Forbidden boxes, the same for the whole batch."""

    centre: Array
    """(o, 3) [m]"""
    frame: Array
    """(o, 3, 3) rows are the axes."""
    half: Array
    """(o, 3) [m]"""
    limit: Array
    """(o,) clearance to be kept [m]."""


def to_segments(k: Links, at: Placed, ends: Array, radius: Array) -> tuple[Array, Array, Array]:
    """Distances of the table geoms to capsules of ends (B, h, 2, 3) and radii (B, h).

    Returns:
        Distance [m], (B, h, k); its gradient by the geom's closest point, and that point, (B, h, k, 3).
    """
    xp = namespace(at.ends)
    one, d = middle(xp.take(at.ends, k.table, axis=1)[:, None])
    two, e = middle(ends[:, :, None])
    s, t = closest(one - two, d, e)
    x = one + s[..., None] * d
    length, n = apart(two + t[..., None] * e, x)
    return length - xp.take(k.radius, k.table) - radius[..., None], n, x


def to_boxes(k: Links, at: Placed, boxes: Boxes) -> tuple[Array, Array, Array]:
    """The same for boxes, (B, o, k), signed: exact outside, a true depth inside."""
    xp = namespace(at.ends)
    ends = xp.take(at.ends, k.table, axis=1)[:, None]  # (B, 1, k, 2, 3)
    turn = xp.matrix_transpose(boxes.frame)  # of row vectors into the box
    p = (ends[..., 0, :] - boxes.centre[:, None]) @ turn
    d = (ends[..., 1, :] - ends[..., 0, :]) @ turn
    half = xp.zeros_like(p) + boxes.half[:, None]
    s = _nearest(p, d, half)
    y = p + s[..., None] * d
    gap, n = apart(xp.clip(y, -half, half), y)
    depth, deep_s, deep_n = _deepest(p, d, half)
    out = gap > TOUCHING
    s, n = xp.where(out, s, deep_s)[..., None], xp.where(out[..., None], n, deep_n) @ boxes.frame
    distance = xp.where(out, gap, depth) - xp.take(k.radius, k.table)
    return distance, n, ends[..., 0, :] + s * (ends[..., 1, :] - ends[..., 0, :])


def _slope(s: Array, p: Array, d: Array, half: Array) -> Array:
    """Half the derivative along the segment of the square distance to the box, in box coordinates."""
    xp = namespace(p)
    x = p + s[..., None] * d
    return dot(x - xp.clip(x, -half, half), d)


def _nearest(p: Array, d: Array, half: Array) -> Array:
    """Parameter in [0, 1] of a point of the segment p + s d nearest to the box."""
    xp = namespace(p)
    lo = xp.zeros_like(p[..., 0])
    hi = xp.ones_like(lo)
    at_lo, at_hi = _slope(lo, p, d, half), _slope(hi, p, d, half)
    before, after = at_lo >= 0.0, at_hi <= 0.0
    for k in range(3):
        moves = d[..., k] != 0.0
        over = xp.where(moves, d[..., k], xp.ones_like(lo))
        for side in (-1.0, 1.0):
            s = (side * half[..., k] - p[..., k]) / over
            slope = _slope(s, p, d, half)
            inside = moves & (lo < s) & (s < hi)
            up, down = inside & (slope > 0.0), inside & ~(slope > 0.0)
            hi, at_hi = xp.where(up, s, hi), xp.where(up, slope, at_hi)
            lo, at_lo = xp.where(down, s, lo), xp.where(down, slope, at_lo)
    rise = at_hi - at_lo
    s = xp.minimum(hi, lo - at_lo * (hi - lo) / xp.where(rise > 0.0, rise, xp.ones_like(rise)))
    return xp.where(before, xp.zeros_like(s), xp.where(after, xp.ones_like(s), s))


def _deepest(p: Array, d: Array, half: Array) -> tuple[Array, Array, Array]:
    """Depth of the segment in the box, negative, its parameter and gradient.

    The depth is the lowest point of the highest of six lines, one per face: value ``c + m s``.
    """
    xp = namespace(p)
    c, m = xp.concat([-p - half, p - half], axis=-1), xp.concat([-d, d], axis=-1)  # (..., 6)
    eye = xp.eye(3, dtype=p.dtype, device=p.device)
    faces = xp.concat([-eye, eye], axis=0)
    one = xp.ones_like(c[..., :1])
    fall, rise = _highest(c), _highest(c + m)
    start, end = _at(m, fall) >= 0.0, _at(m, rise) <= 0.0
    first, last = fall, rise
    s = 0.0 * one
    for _ in range(6):
        steep = _at(m, fall) - _at(m, rise)
        s = (_at(c, rise) - _at(c, fall)) / xp.where(steep < 0.0, steep, -one)
        top = _highest(c + s * m)
        higher = _at(c + s * m, top) > _at(c + s * m, fall) + 1e-15
        falls = _at(m, top) < 0.0
        fall, rise = xp.where(higher & falls, top, fall), xp.where(higher & ~falls, top, rise)
    s = xp.where(start, 0.0 * one, xp.where(end, one, s))
    up, down = _at(m, rise), _at(m, fall)
    part = xp.where(up > down, up / xp.where(up > down, up - down, one), one)
    n = part * _face(faces, fall) + (1.0 - part) * _face(faces, rise)
    n = xp.where(start, _face(faces, first), xp.where(end, _face(faces, last), n))
    value = xp.max(c + s * m, axis=-1)
    return value, s[..., 0], n


def _highest(lines: Array) -> Array:
    """Index of the largest of the last axis, which is kept."""
    return namespace(lines).argmax(lines, axis=-1, keepdims=True)


def _at(lines: Array, index: Array) -> Array:
    return namespace(lines).take_along_axis(lines, index, axis=-1)


def _face(faces: Array, index: Array) -> Array:
    """Outward normals (..., 3) of the faces with these indices (..., 1)."""
    xp = namespace(faces)
    return xp.reshape(xp.take(faces, xp.reshape(index, (-1,)), axis=0), (*index.shape[:-1], 3))
