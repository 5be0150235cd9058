"""Distances of links from each other and from the table, and their gradients by the joints.

The distance of two capsules is that of their segments less the radii; where a pair has hulls, theirs counts too.
"""

from __future__ import annotations

import math

from numba import njit

from palmar.safety.hulls import CLOSE, hull_distance
from palmar.safety.tree import point_row

FAR = 0.10
"""Self clearance is exact below this and this above [m]: nobody needs to know by how much far is far."""


@njit(cache=True, nogil=True)
def segment_segment(rx, ry, rz, dx, dy, dz, ex, ey, ez):
    """Closest points of the segments s d and -r + t e, for s and t in [-1, 1].

    Source: Ericson, Real-Time Collision Detection, 5.1.9.  For (nearly) parallel and for point segments the
    closest points are among the four pairs of an end and its nearest point, which are compared.

    Args:
        rx: Centre of the first less centre of the second [m]; likewise ry, rz.
        ry: See rx.
        rz: See rx.
        dx: Half of the first segment [m]; likewise dy, dz.
        dy: See dx.
        dz: See dx.
        ex: Half of the second [m]; likewise ey, ez.
        ey: See ex.
        ez: See ex.

    Returns:
        Square distance [m2], s, t.
    """
    aa, ee = dx * dx + dy * dy + dz * dz, ex * ex + ey * ey + ez * ez
    ae = dx * ex + dy * ey + dz * ez
    c, g = dx * rx + dy * ry + dz * rz, ex * rx + ey * ry + ez * rz
    det = aa * ee - ae * ae
    if det > 1e-6 * aa * ee:
        s = min(1.0, max(-1.0, (ae * g - c * ee) / det))
        t = (g + s * ae) / ee
        if t < -1.0 or t > 1.0:
            t = min(1.0, max(-1.0, t))
            s = min(1.0, max(-1.0, (t * ae - c) / aa))
        x, y, z = rx + s * dx - t * ex, ry + s * dy - t * ey, rz + s * dz - t * ez
        return x * x + y * y + z * z, s, t
    best, bs, bt = 1e300, 0.0, 0.0
    for k in range(4):
        if k < 2:
            s = 2.0 * k - 1.0
            t = min(1.0, max(-1.0, (g + s * ae) / ee)) if ee > 0.0 else 0.0
        else:
            t = 2.0 * k - 5.0
            s = min(1.0, max(-1.0, (t * ae - c) / aa)) if aa > 0.0 else 0.0
        x, y, z = rx + s * dx - t * ex, ry + s * dy - t * ey, rz + s * dz - t * ez
        w = x * x + y * y + z * z
        if w < best:
            best, bs, bt = w, s, t
    return best, bs, bt


@njit(cache=True, nogil=True)
def segment_distance(ends, a, b):
    """Closest points of two segments.

    Args:
        ends: Segment ends and centres [m], (g, 3, 3).
        a: Row of one segment.
        b: Row of the other.

    Returns:
        Distance [m], parameters s and t of the closest points in [0, 1].
    """
    square, s, t = segment_segment(
        0.5 * (ends[a, 0, 0] + ends[a, 1, 0] - ends[b, 0, 0] - ends[b, 1, 0]),
        0.5 * (ends[a, 0, 1] + ends[a, 1, 1] - ends[b, 0, 1] - ends[b, 1, 1]),
        0.5 * (ends[a, 0, 2] + ends[a, 1, 2] - ends[b, 0, 2] - ends[b, 1, 2]),
        0.5 * (ends[a, 1, 0] - ends[a, 0, 0]),
        0.5 * (ends[a, 1, 1] - ends[a, 0, 1]),
        0.5 * (ends[a, 1, 2] - ends[a, 0, 2]),
        0.5 * (ends[b, 1, 0] - ends[b, 0, 0]),
        0.5 * (ends[b, 1, 1] - ends[b, 0, 1]),
        0.5 * (ends[b, 1, 2] - ends[b, 0, 2]),
    )
    return math.sqrt(square), 0.5 * (1.0 + s), 0.5 * (1.0 + t)


# A function that takes arrays or a tree counts references to each of them on every call.  So loops over pairs take the
# arrays they need out of the tree first, and what they call takes as few as possible.


@njit(cache=True, nogil=True)
def pair_bounds(pairs, spheres, ends, low):
    """Lower bounds of all pairs' distances by their bounding spheres [m], into ``low`` (P,)."""
    for i in range(len(pairs)):
        a, b = pairs[i, 0], pairs[i, 1]
        x, y, z = ends[a, 2, 0] - ends[b, 2, 0], ends[a, 2, 1] - ends[b, 2, 1], ends[a, 2, 2] - ends[b, 2, 2]
        low[i] = math.sqrt(x * x + y * y + z * z) - spheres[i]


@njit(cache=True, nogil=True)
def capsule_gap(ends, radius, a, b):
    """Distance of geoms a and b [m]."""
    square, _, _ = segment_segment(
        ends[a, 2, 0] - ends[b, 2, 0],
        ends[a, 2, 1] - ends[b, 2, 1],
        ends[a, 2, 2] - ends[b, 2, 2],
        0.5 * (ends[a, 1, 0] - ends[a, 0, 0]),
        0.5 * (ends[a, 1, 1] - ends[a, 0, 1]),
        0.5 * (ends[a, 1, 2] - ends[a, 0, 2]),
        0.5 * (ends[b, 1, 0] - ends[b, 0, 0]),
        0.5 * (ends[b, 1, 1] - ends[b, 0, 1]),
        0.5 * (ends[b, 1, 2] - ends[b, 0, 2]),
    )
    return math.sqrt(square) - radius[a] - radius[b]


@njit(cache=True, nogil=True)
def detailed_gap(tree, ends, i, d):
    """Distance of pair i with hulls whose capsules, skins included, are ``d`` < CLOSE apart [m].

    The hulls' distance, but no more than that of the capsules without what skins add to them.
    """
    return min(d + tree.thick[i], hull_gap(tree, ends, i, d + tree.thick[i]))


@njit(cache=True, nogil=True)
def hull_gap(tree, ends, i, near):
    """Distance of the hulls of pair i [m], a lower bound where that reaches ``near``; closest points in scratch."""
    w, g = tree.hull_work, len(tree.geom_body)
    a, b = tree.hull[i, 0], tree.hull[i, 1]
    turn, shift, one, two = w[:3, :3], w[3, :3], g + 2 * a, g + 2 * b
    for j in range(3):
        shift[j] = 0.0
        for m in range(3):
            shift[j] += ends[one, m, j] * (ends[two + 1, 0, m] - ends[one + 1, 0, m])
        for k in range(3):
            turn[j, k] = (
                ends[one, 0, j] * ends[two, 0, k]
                + ends[one, 1, j] * ends[two, 1, k]
                + ends[one, 2, j] * ends[two, 2, k]
            )
    return hull_distance(
        tree.corners,
        tree.first[a],
        tree.first[a + 1],
        tree.first[b],
        tree.first[b + 1],
        turn,
        shift,
        near,
        w[6:],
        w[4],
        w[5],
    )


@njit(cache=True, nogil=True)
def pair_distances(pairs, spheres, radius, ends, near, pair):
    """Pair distances [m], exact below ``near`` and lower bounds above, into ``pair`` (P,)."""
    pair_bounds(pairs, spheres, ends, pair)
    for i in range(len(pairs)):
        if pair[i] < near:
            pair[i] = capsule_gap(ends, radius, pairs[i, 0], pairs[i, 1])


@njit(cache=True, nogil=True)
def heights(table, radius, ends, out):
    """Heights of the table's geoms above it [m], into ``out`` (k,)."""
    for i in range(len(table)):
        g = table[i]
        out[i] = min(ends[g, 0, 2], ends[g, 1, 2]) - radius[g]


@njit(cache=True, nogil=True)
def smallest_pair(pairs, spheres, radius, ends, low):
    """Smallest self clearance [m], clamped to FAR; ``low`` (P,) is scratch."""
    pair_bounds(pairs, spheres, ends, low)
    best = FAR
    for i in range(len(pairs)):
        if low[i] < best:
            best = min(best, capsule_gap(ends, radius, pairs[i, 0], pairs[i, 1]))
    return best


@njit(cache=True, nogil=True)
def distances(tree, ends, near, pair, table):
    """Pair distances (P,), exact below ``near`` and lower bounds above, and table heights (k,)."""
    pair_distances(tree.pairs, tree.spheres, tree.radius, ends, near, pair)
    for i in range(len(pair)):
        if tree.hull[i, 0] >= 0 and pair[i] < min(CLOSE, near):
            pair[i] = detailed_gap(tree, ends, i, pair[i])
    heights(tree.table, tree.radius, ends, table)


@njit(cache=True, nogil=True)
def pair_row(tree, i, ends, axis, anchor, row, n, xa, xb):
    """Distance of pair i [m] and its gradient into ``row`` (n,), closest points into xa, xb (on the axes)."""
    a, b = tree.pairs[i, 0], tree.pairs[i, 1]
    length, s, t = segment_distance(ends, a, b)
    row[:] = 0.0
    gap = length - tree.radius[a] - tree.radius[b]
    if tree.hull[i, 0] >= 0 and gap < CLOSE:
        gap += tree.thick[i]
        d = hull_gap(tree, ends, i, gap)
        if d < gap:
            _hull_row(tree, i, ends, axis, anchor, row, n, xa, xb)
            return d
    for k in range(3):
        xa[k] = ends[a, 0, k] + s * (ends[a, 1, k] - ends[a, 0, k])
        xb[k] = ends[b, 0, k] + t * (ends[b, 1, k] - ends[b, 0, k])
        n[k] = (xb[k] - xa[k]) / length if length > 1e-9 else 0.0
    point_row(tree, tree.geom_body[b], xb, n, axis, anchor, 1.0, row)
    point_row(tree, tree.geom_body[a], xa, n, axis, anchor, -1.0, row)
    return gap


@njit(cache=True, nogil=True)
def _hull_row(tree, i, ends, axis, anchor, row, n, xa, xb):
    """Gradient of the distance of two hulls, their closest points in the scratch as ``hull_gap`` left them."""
    w, one = tree.hull_work, len(tree.geom_body) + 2 * tree.hull[i, 0]
    length = 0.0
    for k in range(3):
        xa[k] = xb[k] = ends[one + 1, 0, k]
        for m in range(3):
            xa[k] += ends[one, k, m] * w[4, m]
            xb[k] += ends[one, k, m] * w[5, m]
        n[k] = xb[k] - xa[k]
        length += n[k] * n[k]
    for k in range(3):
        n[k] = n[k] / math.sqrt(length) if length > 1e-18 else 0.0
    point_row(tree, tree.geom_body[tree.pairs[i, 1]], xb, n, axis, anchor, 1.0, row)
    point_row(tree, tree.geom_body[tree.pairs[i, 0]], xa, n, axis, anchor, -1.0, row)


@njit(cache=True, nogil=True)
def table_row(tree, i, ends, axis, anchor, row, n):
    """Height of table geom i [m] and its gradient into ``row`` (n,)."""
    g = tree.table[i]
    k = 0 if ends[g, 0, 2] <= ends[g, 1, 2] else 1
    n[0], n[1], n[2] = 0.0, 0.0, 1.0
    row[:] = 0.0
    point_row(tree, tree.geom_body[g], ends[g, k], n, axis, anchor, 1.0, row)
    return ends[g, k, 2] - tree.radius[g]
