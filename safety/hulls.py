"""Distance of two convex hulls: detailed links where capsules are too coarse, as between neighbouring fingers.

A hull is the convex hull of points fixed to a body.  ``hull_distance`` is the algorithm of Gilbert, Johnson and
Keerthi (1988) with closest-point routines of Ericson (Real-Time Collision Detection, 5.1 and 9.5).  It works in
the frame of the first body, so no point is transformed but the few that the algorithm asks for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import numpy as np
import yaml
from numba import njit

from palmar.safety.robot import RobotModel
from palmar.safety.types import ConfigError

MOST = 40
"""Iterations at most; hulls of a hand need about six."""
CLOSE = 0.006
"""Where capsules with their skins are less apart than this, hulls are looked at [m]."""
THICKEST = 0.05
"""A skin thicker than this is a mistake of units [m]."""


@dataclass(frozen=True)
class Detail:
    """What sticks out of a robot's capsules (``configs/filter``): the filter enforces it, no policy is bound to it.

    A pair of geoms is never nearer than its capsules less both skins.  Between bodies that both have hulls the
    distance of the hulls, which may be larger, holds too.
    """

    skin: dict[str, float] = field(default_factory=dict)
    """Geom to the distance [m] by which the real link sticks out of it at most; absent means 0."""
    hulls: dict[str, np.ndarray] = field(default_factory=dict)
    """Body to the corners of the convex hull of the real link, in the body's frame [m], (N, 3)."""

    def __post_init__(self) -> None:
        for name, value in self.skin.items():
            if not 0 <= value <= THICKEST:
                raise ConfigError(f"skin of {name} must be in [0, {THICKEST}] m, got {value!r}")
        for name, corners in self.hulls.items():
            array = np.asarray(corners, dtype=np.float64)
            if array.ndim != 2 or array.shape[1] != 3 or len(array) < 4 or not np.isfinite(array).all():
                raise ConfigError(f"hull of {name} needs finite corners (N >= 4, 3), got shape {array.shape}")
            self.hulls[name] = array

    def check(self, robot: RobotModel) -> None:
        """Refuse names that the robot does not have.

        Raises:
            ConfigError: Naming them and those accepted.
        """
        geoms = {g for pair in robot.pairs for g in pair} | set(robot.table_geoms)
        if strange := sorted(set(self.skin) - geoms):
            raise ConfigError(f"skins of {strange}; the geoms of {robot.name} are {sorted(geoms)}")


def load_detail(path: Path) -> Detail:
    """The file's skins and hulls.

    Raises:
        ConfigError: If it has other keys, or numbers that cannot be.
    """
    raw = yaml.safe_load(Path(path).read_text())
    if not isinstance(raw, dict) or set(raw) - {"skin", "hulls"}:
        raise ConfigError(f"{path}: accepted keys skin, hulls; got {sorted(raw) if isinstance(raw, dict) else raw!r}")
    return Detail(dict(raw.get("skin") or {}), dict(raw.get("hulls") or {}))


def shipped_detail(robot: RobotModel) -> Detail:
    """What ``configs/filter`` says of a robot of this name; nothing where it says nothing."""
    path = files("palmar.configs") / "filter" / f"{robot.name}.yaml"
    return load_detail(Path(str(path))) if path.is_file() else Detail()


@njit(cache=True, nogil=True, inline="always")
def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@njit(cache=True, nogil=True)
def _furthest(points, first, last, x, y, z):
    """Index of the point furthest along (x, y, z)."""
    best, at = -1e300, first
    for i in range(first, last):
        s = points[i, 0] * x + points[i, 1] * y + points[i, 2] * z
        if s > best:
            best, at = s, i
    return at


@njit(cache=True, nogil=True)
def _segment(s, i, j, c):
    """Closest point to the origin of segment (i, j) of simplex s as weights into c (4,); its square distance."""
    c[:] = 0.0
    den, num = 0.0, 0.0
    for k in range(3):
        e = s[j, k] - s[i, k]
        den += e * e
        num -= s[i, k] * e
    t = min(1.0, max(0.0, num / den)) if den > 0.0 else 0.0
    c[i], c[j] = 1.0 - t, t
    return _square(s, c)


@njit(cache=True, nogil=True)
def _square(s, c):
    """Square distance from the origin of the point of simplex s with weights c."""
    out = 0.0
    for k in range(3):
        x = c[0] * s[0, k] + c[1] * s[1, k] + c[2] * s[2, k] + c[3] * s[3, k]
        out += x * x
    return out


@njit(cache=True, nogil=True)
def _triangle(s, i, j, k, c, other):
    """The same of triangle (i, j, k): inside its plane's Voronoi region, else the best of its edges."""
    ux, uy, uz = s[j, 0] - s[i, 0], s[j, 1] - s[i, 1], s[j, 2] - s[i, 2]
    vx, vy, vz = s[k, 0] - s[i, 0], s[k, 1] - s[i, 1], s[k, 2] - s[i, 2]
    uu, uv, vv = ux * ux + uy * uy + uz * uz, ux * vx + uy * vy + uz * vz, vx * vx + vy * vy + vz * vz
    wu = -(s[i, 0] * ux + s[i, 1] * uy + s[i, 2] * uz)
    wv = -(s[i, 0] * vx + s[i, 1] * vy + s[i, 2] * vz)
    det = uu * vv - uv * uv
    if det > 1e-12 * uu * vv:
        a, b = (vv * wu - uv * wv) / det, (uu * wv - uv * wu) / det
        if a >= 0.0 and b >= 0.0 and a + b <= 1.0:
            c[:] = 0.0
            c[i], c[j], c[k] = 1.0 - a - b, a, b
            return _square(s, c)
    best = _segment(s, i, j, c)
    for e in range(2):
        d = _segment(s, i, k, other) if e == 0 else _segment(s, j, k, other)
        if d < best:
            best = d
            c[:] = other
    return best


@njit(cache=True, nogil=True)
def _tetrahedron(s, c, other, edge):
    """The same of a tetrahedron; 0 if the origin is inside."""
    best, inside = 1e300, True
    for face in range(4):
        i, j, k, apex = (face + 1) % 4, (face + 2) % 4, (face + 3) % 4, face
        ux, uy, uz = s[j, 0] - s[i, 0], s[j, 1] - s[i, 1], s[j, 2] - s[i, 2]
        vx, vy, vz = s[k, 0] - s[i, 0], s[k, 1] - s[i, 1], s[k, 2] - s[i, 2]
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        origin = -(nx * s[i, 0] + ny * s[i, 1] + nz * s[i, 2])
        top = nx * (s[apex, 0] - s[i, 0]) + ny * (s[apex, 1] - s[i, 1]) + nz * (s[apex, 2] - s[i, 2])
        if origin * top > 0.0:
            continue
        inside = False
        d = _triangle(s, i, j, k, other, edge)
        if d < best:
            best = d
            c[:] = other
    return 0.0 if inside else best


@njit(cache=True, nogil=True)
def hull_distance(points, first, last, other_first, other_last, turn, shift, near, work, xa, xb):
    """Distance of two hulls [m], 0 where they overlap; a lower bound of it where that reaches ``near``.

    Args:
        points: Points of all hulls, each in the frame of its body [m], (V, 3).
        first: First point of one hull.
        last: One beyond its last.
        other_first: First point of the other.
        other_last: One beyond its last.
        turn: Rotation of the other body seen from the first, (3, 3).
        shift: Its position there [m], (3,).
        near: Nobody asks how much further than this it is [m].
        work: Scratch, (12, 4).
        xa: Out: closest point of the first hull, in the frame of its body [m], (3,).
        xb: Out: closest point of the other hull, in the frame of the first body [m], (3,).
    """
    s, pa, c, trial, edge = work[0:4], work[4:8], work[8], work[9], work[10]
    n = 0
    vx, vy, vz = -shift[0], -shift[1], -shift[2]
    size = 1e300
    for _ in range(MOST):
        a = _furthest(points, first, last, -vx, -vy, -vz)
        b = _furthest(
            points,
            other_first,
            other_last,
            turn[0, 0] * vx + turn[1, 0] * vy + turn[2, 0] * vz,
            turn[0, 1] * vx + turn[1, 1] * vy + turn[2, 1] * vz,
            turn[0, 2] * vx + turn[1, 2] * vy + turn[2, 2] * vz,
        )
        for k in range(3):
            pa[n, k] = points[a, k]
            y = shift[k] + turn[k, 0] * points[b, 0] + turn[k, 1] * points[b, 1] + turn[k, 2] * points[b, 2]
            s[n, k] = points[a, k] - y
        along = vx * s[n, 0] + vy * s[n, 1] + vz * s[n, 2]
        length = math.sqrt(vx * vx + vy * vy + vz * vz)
        if along > near * length:
            return along / length
        if n > 0 and size - along <= 1e-10 * size:
            break  # no point lies further towards the other hull
        n += 1
        c[:] = 0.0
        if n == 1:
            c[0] = 1.0
            now = _square(s, c)
        elif n == 2:
            now = _segment(s, 0, 1, c)
        elif n == 3:
            now = _triangle(s, 0, 1, 2, c, trial)
        else:
            now = _tetrahedron(s, c, trial, edge)
        if now <= 1e-16:
            return 0.0
        if now >= size:
            break  # rounding: no progress any more
        size, kept = now, 0
        vx = vy = vz = 0.0
        for i in range(n):
            if c[i] > 0.0:
                c[kept] = c[i]
                for k in range(3):
                    s[kept, k], pa[kept, k] = s[i, k], pa[i, k]
                vx, vy, vz = vx + c[kept] * s[kept, 0], vy + c[kept] * s[kept, 1], vz + c[kept] * s[kept, 2]
                kept += 1
        n = kept
        for k in range(3):
            xa[k] = 0.0
            for i in range(n):
                xa[k] += c[i] * pa[i, k]
        xb[0], xb[1], xb[2] = xa[0] - vx, xa[1] - vy, xa[2] - vz
    return math.sqrt(size)
