"""Where a robot's capsules are at many joint positions, compiled: what training measures distances with.

The tree of ``safety.tree`` with one link per joint: bodies that no joint moves are part of the link before, and
every link's frame stands on its joint's axis with z along it, so that a joint only turns two columns of a matrix.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numba import njit

from palmar.safety.geometry import Kinematics

Array = np.ndarray
THREADS = min(4, os.cpu_count() or 1)
"""Threads that share out worlds (the kernels hold no lock)."""


class Chain(NamedTuple):
    """A robot as n links in topological order, g capsules or spheres, P pairs of them."""

    parent: Array
    """(n,) link before, -1 for the world."""
    joint: Array
    """(n,) joint that turns the link, by hardware order."""
    turn: Array
    """(n, 3, 3) to the link before, at angle 0."""
    shift: Array
    """(n, 3) joint in the link before [m]."""
    zero: Array
    """(n,) joint positions at angle 0 [rad], by hardware order."""
    link: Array
    """(g,) link of each geom, -1 for the world."""
    centre: Array
    """(g, 3) in the link [m]."""
    half: Array
    """(g, 3) half of the segment, in the link [m]."""
    radius: Array
    """(g,) [m]"""
    pairs: Array
    """(P, 2) geoms."""
    spheres: Array
    """(P,) sum of the radii of the pair's bounding spheres [m]."""
    pair_reach: Array
    """(n, P) how far one radian of a joint moves the pair's points against each other, at most [m/rad]."""
    table: Array
    """(k,) geoms that must stay above the table."""
    table_reach: Array
    """(n, k) how far one radian of a joint moves a geom, at most [m/rad]."""
    palm: int
    """Link of the palm."""
    palm_at: Array
    """(3,) its origin in that link [m]."""


def chain_of(kinematics: Kinematics) -> Chain:
    """A robot's links; its geoms must be capsules or spheres (``kinematics.plain``)."""
    t = kinematics.tree
    link, frame, origin = np.full(len(t.parent), -1), *_still(len(t.parent))
    order, parent, turn, shift = [], [], [], []
    for b in range(len(t.parent)):
        up = t.parent[b]
        above, at, r = (link[up], origin[up], frame[up]) if up >= 0 else (-1, np.zeros(3), np.eye(3))
        at, r = at + r @ t.position[b], r @ t.rotation[b]  # of the body in the link before, at angle 0
        if t.joint[b] < 0:
            link[b], frame[b], origin[b] = above, r, at
            continue
        along = _onto(t.axis[b])
        link[b], frame[b], origin[b] = len(order), along.T, -along.T @ t.anchor[b]
        order.append(t.joint[b])
        parent.append(above)
        turn.append(r @ along)
        shift.append(at + r @ t.anchor[b])
    body, mid, half = t.geom_body, t.ends.mean(axis=1), 0.5 * (t.ends[:, 1] - t.ends[:, 0])
    return Chain(
        parent=np.array(parent),
        joint=np.array(order),
        turn=np.array(turn),
        shift=np.array(shift),
        zero=np.array([t.zero[t.joint_body[j]] for j in range(len(order))]),
        link=link[body],
        centre=origin[body] + np.einsum("gij,gj->gi", frame[body], mid),
        half=np.einsum("gij,gj->gi", frame[body], half),
        radius=t.radius,
        pairs=t.pairs,
        spheres=t.spheres,
        pair_reach=t.pair_reach,
        table=t.table,
        table_reach=t.table_reach,
        palm=int(link[t.palm]),
        palm_at=origin[t.palm].copy(),
    )


def _still(bodies: int) -> tuple[Array, Array]:
    return np.tile(np.eye(3), (bodies, 1, 1)), np.zeros((bodies, 3))


def _onto(axis: Array) -> Array:
    """A rotation whose third column is ``axis`` (3,) of length 1."""
    other = np.eye(3)[np.argmin(np.abs(axis))]
    x = np.cross(other, axis)
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(axis, x), axis], axis=1)


def shared(pool: ThreadPoolExecutor, worlds: int, work: Callable[[int, int], None]) -> None:
    """Run ``work(first, last)`` over parts of the worlds, on the pool's threads where there are enough of them."""
    if worlds < 16 * THREADS:
        return work(0, worlds)
    cut = np.linspace(0, worlds, THREADS + 1).astype(int).tolist()
    waiting = [pool.submit(work, a, b) for a, b in zip(cut[1:-1], cut[2:], strict=True)]
    work(cut[0], cut[1])
    for part in waiting:
        part.result()
    return None


@njit(cache=True, nogil=True, error_model="numpy")
def angles(chain, q, cos, sin):
    """Cosines and sines of the joints' angles at positions q (n,)."""
    for j in range(len(q)):
        x = q[j] - chain.zero[j]
        cos[j], sin[j] = math.cos(x), math.sin(x)


@njit(cache=True, nogil=True, error_model="numpy")
def place(chain, links, count, cos, sin, r, p):
    """Frames of the first ``count`` of ``links``, in topological order, into r (n, 3, 3) and p (n, 3) [m].

    ``cos`` and ``sin`` are of the joints' angles, (n,) by hardware order.
    """
    parent, joint, turn, shift = chain.parent, chain.joint, chain.turn, chain.shift
    for m in range(count):
        k = links[m]
        up, c, s = parent[k], cos[joint[k]], sin[joint[k]]
        for i in range(3):
            if up < 0:
                x, y, z, o = turn[k, i, 0], turn[k, i, 1], turn[k, i, 2], shift[k, i]
            else:
                u, v, w = r[up, i, 0], r[up, i, 1], r[up, i, 2]
                x = u * turn[k, 0, 0] + v * turn[k, 1, 0] + w * turn[k, 2, 0]
                y = u * turn[k, 0, 1] + v * turn[k, 1, 1] + w * turn[k, 2, 1]
                z = u * turn[k, 0, 2] + v * turn[k, 1, 2] + w * turn[k, 2, 2]
                o = p[up, i] + u * shift[k, 0] + v * shift[k, 1] + w * shift[k, 2]
            r[k, i, 0], r[k, i, 1], r[k, i, 2] = c * x + s * y, c * y - s * x, z
            p[k, i] = o


@njit(cache=True, nogil=True, error_model="numpy")
def outline(chain, geoms, count, r, p, centre, half):
    """Centres (g, 3) and halves (g, 3) of the first ``count`` of ``geoms`` in the world [m], for frames r and p."""
    link, at, along = chain.link, chain.centre, chain.half
    for m in range(count):
        g = geoms[m]
        k = link[g]
        for i in range(3):
            if k < 0:
                centre[g, i], half[g, i] = at[g, i], along[g, i]
            else:
                u, v, w = r[k, i, 0], r[k, i, 1], r[k, i, 2]
                centre[g, i] = p[k, i] + u * at[g, 0] + v * at[g, 1] + w * at[g, 2]
                half[g, i] = u * along[g, 0] + v * along[g, 1] + w * along[g, 2]
