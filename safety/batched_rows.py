"""Barrier rows of a batch of robots: what ``rows.assemble`` writes for one, with static shapes.

Every kind asks at all its pairs and keeps the first that can matter, as many as there are places.  A place without a
row holds ``0 >= -1``.
"""

from __future__ import annotations

from typing import NamedTuple

from palmar.safety.barrier import FURTHER, Barrier
from palmar.safety.batched_obstacles import Boxes, Cell, to_boxes, to_segments
from palmar.safety.batched_tree import Links, Placed, dot, gradient, pair_distances, table_heights
from palmar.safety.bounds import Space
from palmar.safety.namespace import namespace
from palmar.safety.types import Array

NEAR_PAIRS = 128
"""Pairs of links that are looked at closely: the nearest, in parts of their reach."""


class Limits(NamedTuple):
    """What every kind of row needs to know of the tick."""

    v: Array
    """(B, n) [rad/s]"""
    low: Array
    """(B, n) [rad/s2]"""
    high: Array
    """(B, n) [rad/s2]"""
    bar: Barrier


class Rows(NamedTuple):
    """``g . x >= d`` with places for k rows."""

    g: Array
    """(B, k, n)"""
    d: Array
    """(B, k)"""
    crowded: Array
    """Whether more rows could matter than there are places, (B,)."""


def needed(h: Array, dh: Array, brake: float, soft: float, rate: float) -> Array:
    """``barrier.needed``: second derivative that a barrier asks for [m/s2]."""
    xp = namespace(h)
    w = xp.sqrt(2.0 * brake * xp.maximum(h, xp.zeros_like(h)) + soft * soft) - soft
    slope = brake / (w + soft)
    return -rate * (dh + w) - slope * dh


def needed_slow(h: Array, dh: Array, brake: float, impact: float, rate: float) -> Array:
    """``barrier.needed_slow``: the same where contact is allowed at ``impact`` [m/s]."""
    xp = namespace(h)
    w = xp.sqrt(2.0 * brake * xp.maximum(h, xp.zeros_like(h)) + impact * impact)
    return -rate * (dh + w) - xp.where(h > 0.0, brake / w * dh, xp.zeros_like(dh))


def first_that_matter(g: Array, need: Array, near: Array, limits: Limits, places: int) -> Rows:
    """The first rows that can matter in this tick, as many as there are places: ``rows._add``.

    Args:
        g: Gradients, (B, m, n).
        need: Needed second derivatives [m/s2], (B, m).
        near: Whether the row is within reach, (B, m) bool.
        limits: Of the tick.
        places: Rows that are kept.
    """
    xp = namespace(g)
    one, two = g * limits.low[:, None], g * limits.high[:, None]
    least, most = xp.sum(xp.minimum(one, two), axis=-1), xp.sum(xp.maximum(one, two), axis=-1)
    matters = near & (least < need)
    asked = xp.minimum(need, most - 1e-6 * (most - least) - 1e-9)
    order = xp.arange(g.shape[1], dtype=xp.int64, device=g.device) + xp.astype(~matters, xp.int64) * g.shape[1]
    chosen = xp.argsort(order, axis=-1)[:, :places]
    keep = pick(matters, chosen)
    kept, d = pick(g, chosen), pick(asked, chosen)
    crowded = xp.sum(xp.astype(matters, xp.int64), axis=-1) > places
    return Rows(xp.where(keep[..., None], kept, 0.0 * kept), xp.where(keep, d, -xp.ones_like(d)), crowded)


def pair_rows(k: Links, at: Placed, space: Space, limits: Limits) -> Rows:
    """Links from each other."""
    xp, bar = namespace(at.p), limits.bar
    distance, n, x = pair_distances(k, at)
    reach = bar.reach * k.near + space.self_limit
    chosen = xp.argsort((distance - space.self_limit) / k.near, axis=-1)[:, :NEAR_PAIRS]
    furthest = pick(distance < reach, chosen[:, -1:])[:, 0]
    chosen = xp.sort(chosen, axis=-1)
    flat = xp.reshape(chosen, (-1,))
    near = pick(distance < reach, chosen)
    moves = xp.reshape(xp.take(k.moves, flat, axis=0), (*chosen.shape, -1))
    g = gradient(at, pick(n, chosen), pick(x, chosen), moves)
    h = pick(distance, chosen) - space.self_limit - bar.buffer
    rows = first_that_matter(g, _needed(h, g, limits), near, limits, bar.pairs)
    if distance.shape[1] > NEAR_PAIRS:
        return rows._replace(crowded=rows.crowded | furthest)
    return rows


def table_rows(k: Links, at: Placed, space: Space, limits: Limits) -> Rows:
    """Moving links from the table."""
    xp, bar = namespace(at.p), limits.bar
    height, end = table_heights(k, at)
    up = 0.0 * end + xp.asarray([0.0, 0.0, 1.0], dtype=end.dtype, device=end.device)
    h = height - space.table_limit - bar.buffer
    g = gradient(at, up, end, _table_moves(k))
    return first_that_matter(g, _needed(h, g, limits), h < bar.reach, limits, bar.table)


def palm_rows(k: Links, at: Placed, palm: int, space: Space, limits: Limits) -> Rows:
    """The palm's origin from the sides of the workspace; a side without a limit is infinitely far."""
    xp, bar = namespace(at.p), limits.bar
    x = at.p[:, palm]
    eye = xp.eye(3, dtype=x.dtype, device=x.device)
    n = 0.0 * x[:, None] + xp.concat([eye, -eye], axis=0)
    h = xp.concat([x - space.lower, space.upper - x], axis=-1) - bar.buffer
    near = h < bar.reach
    h = xp.where(near, h, bar.reach + 0.0 * x[:, :1])
    g = gradient(at, n, 0.0 * n + x[:, None], k.above[palm])
    return first_that_matter(g, _needed(h, g, limits), near, limits, 6)


def obstacle_rows(
    k: Links, at: Placed, boxes: Boxes | None, cell: Cell, standing: float, limits: Limits
) -> Rows | None:
    """Moving links from forbidden boxes and from people; None where there are neither.

    ``standing`` is what is kept even from a person who stands, and what they may walk until the robot brakes [m].
    """
    xp, bar = namespace(at.p), limits.bar
    g, need, near = [], [], []
    if boxes is not None:
        distance, n, x = to_boxes(k, at, boxes)
        room = distance - boxes.limit[:, None]
        rows = _gradients(k, at, n, x)
        g.append(rows)
        need.append(_needed(_flat(room) - bar.buffer, rows, limits))
        near.append(_flat(room) < bar.buffer + bar.reach)
    if cell.people is not None:
        distance, n, x = to_segments(k, at, cell.people, cell.people_radius)
        h, rows = _flat(distance) - standing, _gradients(k, at, n, x)
        g.append(rows)
        need.append(needed(h, dot(rows, limits.v[:, None]), bar.human_brake, bar.human, bar.rate))
        near.append(h < FURTHER * bar.reach)
    if not g:
        return None
    g, need, near = (xp.concat(x, axis=1) for x in (g, need, near))
    return first_that_matter(g, need, near, limits, bar.obstacles)


def contact_rows(k: Links, at: Placed, cell: Cell, limits: Limits) -> Rows | None:
    """The hand's approach to what it may touch; None where there is nothing."""
    if cell.objects is None:
        return None
    xp, bar = namespace(at.p), limits.bar
    ends = xp.stack([cell.objects, cell.objects], axis=2)
    distance, n, x = to_segments(k, at, ends, 0.0 * cell.objects[..., 0] + cell.object_radius)
    h, g = _flat(distance), _gradients(k, at, n, x)
    need = needed_slow(h, dot(g, limits.v[:, None]), bar.brake, bar.impact, bar.rate)
    near = _flat((distance < bar.reach) & (k.hand > 0.5))
    return first_that_matter(g, need, near, limits, bar.contacts)


def _needed(h: Array, g: Array, limits: Limits) -> Array:
    """What ordinary barriers ask for at distances h (B, m) with gradients g (B, m, n)."""
    bar = limits.bar
    return needed(h, dot(g, limits.v[:, None]), bar.brake, bar.soft, bar.rate)


def _table_moves(k: Links) -> Array:
    """Whether a joint moves a table geom, (k, n)."""
    xp = namespace(k.above)
    return xp.take(k.above, xp.take(k.geom_body, k.table), axis=0)


def _gradients(k: Links, at: Placed, n: Array, x: Array) -> Array:
    """Gradients for the table geoms' points x and directions n (B, o, k, 3): (B, o k, n)."""
    xp = namespace(n)
    moves = _table_moves(k)
    moves = xp.concat([moves] * n.shape[1], axis=0)
    return gradient(at, xp.reshape(n, (n.shape[0], -1, 3)), xp.reshape(x, (x.shape[0], -1, 3)), moves)


def _flat(x: Array) -> Array:
    """(B, o, k) as (B, o k)."""
    return namespace(x).reshape(x, (x.shape[0], -1))


def pick(x: Array, chosen: Array) -> Array:
    """Entries ``chosen`` (B, k) of the second axis of x (B, m) or (B, m, c)."""
    xp = namespace(x)
    if x.ndim == 2:
        return xp.take_along_axis(x, chosen, axis=1)
    return xp.take_along_axis(x, xp.broadcast_to(chosen[..., None], (*chosen.shape, x.shape[-1])), axis=1)
