"""Distance of a segment to an oriented box: exact outside, a true depth inside."""

from __future__ import annotations

import math

from numba import njit

TOUCHING = 1e-9
"""A segment nearer to a box than this counts as inside, for its normal [m]."""


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def _highest(s, p, d, half):
    """The face furthest below the point at s: its value [m], its axis, its side."""
    best, axis, way = -1e300, 0, 1.0
    for k in range(3):
        x = p[k] + s * d[k]
        if abs(x) - half[k] > best:
            best, axis, way = abs(x) - half[k], k, 1.0 if x >= 0.0 else -1.0
    return best, axis, way


@njit(cache=True, nogil=True)
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
def to_box(p, d, half):
    """Signed distance of the segment p + s d, s in [0, 1], to a box about the origin, in the box's axes.

    Outside it is exact.  Inside it is minus the least way by which the segment's deepest point leaves the box.
    Both together are convex along the segment, and change by no more than a point moves.

    Args:
        p: One end of the segment [m], a tuple of 3.
        d: Other end less the first [m], likewise.
        half: Half sizes of the box [m], likewise.

    Returns:
        Distance [m], negative inside; s of the segment's closest point; gradient of the distance by that point.
    """
    s = _nearest(p, d, half)
    x, y, z = p[0] + s * d[0], p[1] + s * d[1], p[2] + s * d[2]
    x -= min(half[0], max(-half[0], x))
    y -= min(half[1], max(-half[1], y))
    z -= min(half[2], max(-half[2], z))
    distance = math.sqrt(x * x + y * y + z * z)
    if distance > TOUCHING:
        return distance, s, (x / distance, y / distance, z / distance)
    return _deepest(p, d, half)
