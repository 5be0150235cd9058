"""The filter's distances at every physics step of a batch of scenes: what training pays for is what is enforced.

A control step is looked at as a whole.  At its middle sample every pair gets a bound; how far the joints turn within
the step says by how much a distance can change at most; only pairs that could still be the smallest are measured again.
What comes out are the same smallest distances, to rounding, as from measuring every pair at every sample.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import njit

from palmar.safety.constraints import ConstraintSet
from palmar.safety.distances import segment_segment
from palmar.safety.geometry import FAR, Kinematics
from palmar.safety.obstacles import Obstacles, keep_outs
from palmar.safety.robot import RobotModel
from palmar.safety.sight import joint_regions, pose_regions
from palmar.sim.engines.mujoco_cpu import Clearance, Regions
from palmar.sim.poses import THREADS, angles, chain_of, outline, place, shared

Array = np.ndarray
C2, C3, C4, C5, C6, C7, C8, C9, C10, C11, C12 = (1.0 / math.factorial(k) for k in range(2, 13))
"""Of the series of cosine and sine."""
ROUNDING = 1e-9
"""By how much bounds are loosened, because they are rounded [m]."""


def clearance_routine(robot: RobotModel) -> Clearance:
    """Self clearance, table clearance and palm at joint positions (S, B, n): samples of an interval, time first."""
    kinematics = Kinematics.from_model(robot)
    if not kinematics.plain:
        return lambda q: _sample_by_sample(kinematics, q)
    chain, pool = chain_of(kinematics), ThreadPoolExecutor(THREADS)

    def routine(q: Array) -> tuple[Array, Array, Array]:
        out = np.empty(q.shape[:2]), np.empty(q.shape[:2]), np.empty((*q.shape[:2], 3))
        shared(pool, q.shape[1], lambda first, last: _interval(chain, q, first, last, *out))
        return out

    return routine


def regions_routine(robot: RobotModel, constraints: ConstraintSet) -> Regions | None:
    """The filter's distances to the keep-out regions of a constraint file; None where it has none."""
    rows = tuple(c.name for c in constraints.constraints if c.margin == "keep_out")
    if not rows:
        return None
    obstacles = keep_outs(constraints.select(rows), 0.0)
    kinematics = Kinematics.from_model(robot)
    if not kinematics.plain:
        return lambda q: joint_regions(kinematics, obstacles, q)
    return _regions_of(kinematics, obstacles)


def _sample_by_sample(kinematics: Kinematics, q: Array) -> tuple[Array, Array, Array]:
    """For robots whose geoms are not all capsules: hulls and other shapes, one pose after the other."""
    lead, rows, palm = q.shape[:-1], [], []
    for row in np.ascontiguousarray(q).reshape(-1, q.shape[-1]):
        rows.append([x.min() for x in kinematics.clearances(row, near=FAR)])
        palm.append(kinematics.scratch[0][kinematics.tree.palm].copy())
    own, table = np.array(rows).T.reshape(2, *lead)
    return np.minimum(own, FAR), table, np.array(palm).reshape(*lead, 3)


def _regions_of(kinematics: Kinematics, obstacles: Obstacles) -> Regions:
    """``pose_regions`` at joint positions: its poses are where the links are."""
    geometry, chain = kinematics.batch(kinematics.geoms), chain_of(kinematics)
    long = np.linalg.norm(chain.half, axis=1)

    def routine(q: Array) -> Array:
        centre = np.empty((*q.shape[:-1], len(chain.link), 3))
        axis = np.empty_like(centre)
        every_geom(chain, q, centre, axis)
        turned = np.zeros((*centre.shape[:-1], 9))
        turned[..., 2::3] = axis / np.where(long > 0, long, 1.0)[:, None]
        return pose_regions(geometry, obstacles, centre, turned)

    return routine


@njit(cache=True, nogil=True, error_model="numpy")
def every_geom(chain, q, centre, half):
    """Centres and halves of all geoms [m], (S, B, g, 3) each, at joint positions q (S, B, n)."""
    n, g = len(chain.parent), len(chain.link)
    r, p, links, geoms = np.empty((n, 3, 3)), np.empty((n, 3)), np.arange(n), np.arange(g)
    cos, sin = np.empty(n), np.empty(n)
    for s in range(q.shape[0]):
        for w in range(q.shape[1]):
            angles(chain, q[s, w], cos, sin)
            place(chain, links, n, cos, sin, r, p)
            outline(chain, geoms, g, r, p, centre[s, w], half[s, w])


@njit(cache=True, nogil=True, error_model="numpy")
def _gap(centre, half, radius, a, b):
    """Distance of geoms a and b [m]."""
    square, _, _ = segment_segment(
        centre[a, 0] - centre[b, 0], centre[a, 1] - centre[b, 1], centre[a, 2] - centre[b, 2],
        half[a, 0], half[a, 1], half[a, 2], half[b, 0], half[b, 1], half[b, 2],
    )  # fmt: skip
    return math.sqrt(square) - radius[a] - radius[b]


@njit(cache=True, nogil=True, error_model="numpy")
def _away(centre, a, b):
    """Square distance of two centres [m2]."""
    x, y, z = centre[a, 0] - centre[b, 0], centre[a, 1] - centre[b, 1], centre[a, 2] - centre[b, 2]
    return x * x + y * y + z * z


@njit(cache=True, nogil=True, error_model="numpy")
def _turned(q, q0, cos0, sin0, cos, sin):
    """Cosines and sines of angles at q (n,), from those at q0: by the series of the difference where that is small."""
    largest = 0.0
    for j in range(len(q)):
        x = q[j] - q0[j]
        y = x * x
        largest = max(largest, y)
        c = 1.0 - y * (C2 - y * (C4 - y * (C6 - y * (C8 - y * (C10 - y * C12)))))
        s = x * (1.0 - y * (C3 - y * (C5 - y * (C7 - y * (C9 - y * C11)))))
        cos[j], sin[j] = cos0[j] * c - sin0[j] * s, sin0[j] * c + cos0[j] * s
    if largest < 0.06:
        return
    for j in range(len(q)):
        c, s = math.cos(q[j] - q0[j]), math.sin(q[j] - q0[j])
        cos[j], sin[j] = cos0[j] * c - sin0[j] * s, sin0[j] * c + cos0[j] * s


@njit(cache=True, nogil=True, error_model="numpy")
def _moved(reach, span, out):
    """How far joints that turn by ``span`` (n,) at most move what ``reach`` (n, m) speaks of [m], into out (m,)."""
    out[:] = ROUNDING
    for j in range(len(span)):
        for i in range(len(out)):
            out[i] += reach[j, i] * span[j]


@njit(cache=True, nogil=True, error_model="numpy")
def _near_pairs(chain, centre, half, moved, low, near):
    """Pairs that may be the nearest one within the interval, into ``near``: their number, and the smallest now [m]."""
    pairs, spheres, radius = chain.pairs, chain.spheres, chain.radius
    best, bound, count = FAR, FAR, 0
    for i in range(len(pairs)):
        a, b = pairs[i, 0], pairs[i, 1]
        within = bound + moved[i] + spheres[i]
        if _away(centre, a, b) >= within * within:
            continue
        d = _gap(centre, half, radius, a, b)
        best, bound = min(best, d), min(bound, d + moved[i])
        near[count], low[count] = i, d - moved[i]
        count += 1
    kept = 0
    for m in range(count):
        if low[m] < bound:
            near[kept] = near[m]
            kept += 1
    return kept, best


@njit(cache=True, nogil=True, error_model="numpy")
def _low_geoms(chain, centre, half, moved, near):
    """The same of the table: geoms that may be the lowest, their number, and the smallest height now [m]."""
    table, best, bound, count = chain.table, np.inf, np.inf, 0
    for i in range(len(table)):
        g = table[i]
        h = centre[g, 2] - abs(half[g, 2]) - chain.radius[g]
        best, bound = min(best, h), min(bound, h + moved[i])
    for i in range(len(table)):
        g = table[i]
        if centre[g, 2] - abs(half[g, 2]) - chain.radius[g] - moved[i] < bound:
            near[count] = g
            count += 1
    return count, best


@njit(cache=True, nogil=True, error_model="numpy")
def _needed(chain, near, n_near, low, n_low, links, geoms, marked):
    """Geoms of these pairs and of the table, and the links that carry them and the palm: how many of each."""
    marked[:] = False
    count, n_geoms, n = 0, 0, len(chain.parent)
    for m in range(2 * n_near + n_low):
        g = low[m - 2 * n_near] if m >= 2 * n_near else chain.pairs[near[m // 2], m % 2]
        if not marked[n + g]:
            marked[n + g] = True
            geoms[n_geoms] = g
            n_geoms += 1
            if chain.link[g] >= 0:
                marked[chain.link[g]] = True
    marked[chain.palm] = True
    for k in range(n - 1, -1, -1):
        if marked[k] and chain.parent[k] >= 0:
            marked[chain.parent[k]] = True
    for k in range(n):
        if marked[k]:
            links[count] = k
            count += 1
    return count, n_geoms


@njit(cache=True, nogil=True, error_model="numpy")
def _interval(chain, q, first, last, own, table, palm):
    """Self and table clearance (S, B) and palm (S, B, 3) [m] of worlds ``first`` to ``last``, at q (S, B, n)."""
    n, g, n_pairs, n_table = len(chain.parent), len(chain.link), len(chain.pairs), len(chain.table)
    r, p, centre, half = np.empty((n, 3, 3)), np.empty((n, 3)), np.empty((g, 3)), np.empty((g, 3))
    cos0, sin0, cos, sin, span = np.empty(n), np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    moved, low, near = np.empty(n_pairs), np.empty(n_pairs), np.empty(n_pairs, np.int64)
    lowered, lowest = np.empty(n_table), np.empty(n_table, np.int64)
    links, geoms, marked = np.arange(n), np.arange(g), np.empty(n + g, np.bool_)
    pairs, radius, at, steps = chain.pairs, chain.radius, chain.palm_at, q.shape[0]
    middle = steps // 2
    for w in range(first, last):
        n_links, n_geoms, n_near, n_low = n, g, 0, 0
        for k in range(n):
            links[k] = k
        for k in range(g):
            geoms[k] = k
        angles(chain, q[middle, w], cos0, sin0)
        for j in range(n):
            span[j] = 0.0
            for s in range(steps):
                span[j] = max(span[j], abs(q[s, w, j] - q[middle, w, j]))
        for m in range(steps):
            s = m - 1 if 0 < m <= middle else middle if m == 0 else m  # the middle first, then in order
            _turned(q[s, w], q[middle, w], cos0, sin0, cos, sin)
            place(chain, links, n_links, cos, sin, r, p)
            outline(chain, geoms, n_geoms, r, p, centre, half)
            if s == middle:
                _moved(chain.pair_reach, span, moved)
                n_near, own[s, w] = _near_pairs(chain, centre, half, moved, low, near)
                _moved(chain.table_reach, span, lowered)
                n_low, table[s, w] = _low_geoms(chain, centre, half, lowered, lowest)
                n_links, n_geoms = _needed(chain, near, n_near, lowest, n_low, links, geoms, marked)
            else:
                best = FAR
                for i in range(n_near):
                    a, b = pairs[near[i], 0], pairs[near[i], 1]
                    within = best + chain.spheres[near[i]]
                    if _away(centre, a, b) < within * within:
                        best = min(best, _gap(centre, half, radius, a, b))
                height = np.inf
                for i in range(n_low):
                    k = lowest[i]
                    height = min(height, centre[k, 2] - abs(half[k, 2]) - radius[k])
                own[s, w], table[s, w] = best, height
            for i in range(3):
                u, v, z = r[chain.palm, i, 0], r[chain.palm, i, 1], r[chain.palm, i, 2]
                palm[s, w, i] = p[chain.palm, i] + u * at[0] + v * at[1] + z * at[2]
