"""Where things stand on a table: rectangles that keep a distance, on the cells of a checkerboard.

The splits' layouts are disjoint by construction: training puts every centre on white cells, tests on black ones.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from palmar.safety.types import ConfigError
from palmar.sim.forms import SPLITS
from palmar.sim.kinematics import matrix
from palmar.sim.objects import footprint
from palmar.sim.trajectories import yawed

Array = np.ndarray
CELL = 0.04
"""Side of a cell of the checkerboard [m]."""
SUNK = 0.001
"""How far an object may start in or above the table [m]."""
TRIES, FEW = 200, 12
"""Draws per thing before a layout is begun again, and layouts before giving up; so many are looked at first."""


def gap(a: Array, b: Array) -> Array:
    """Distance between rectangles with corners (..., 4, 2) [m], (...), negative where they overlap.

    By separating axes: exact where a face looks at the other, less than the distance between corners.
    Source: Gottschalk et al., "OBBTree", 1996.
    """
    both = np.stack(np.broadcast_arrays(a, b), axis=-3)
    return _gaps(both.reshape(-1, 2, 4, 2)).reshape(both.shape[:-3])


@njit(cache=True, nogil=True, error_model="numpy")
def _gaps(pairs):
    """``gap`` of pairs (n, 2, 4, 2): the most that two faces of either keep them apart, (n,)."""
    out, least, most = np.full(len(pairs), -np.inf), np.empty(2), np.empty(2)
    for n in range(len(pairs)):
        for whose in range(2):
            for edge in range(2):
                x, y = pairs[n, whose, edge + 1] - pairs[n, whose, edge]
                long = math.sqrt(x * x + y * y)
                least[:], most[:] = np.inf, -np.inf
                for i in range(2):
                    for corner in pairs[n, i]:
                        at = corner[0] * (x / long) + corner[1] * (y / long)
                        least[i], most[i] = min(least[i], at), max(most[i], at)
                out[n] = max(out[n], least[1] - most[0], least[0] - most[1])
    return out


def split_of(position: Array) -> Array:
    """Index into ``SPLITS`` of positions (..., 2) [m] by their cell, (...)."""
    return np.floor(position / CELL).astype(int).sum(-1) % len(SPLITS)


def corners(half: Array, poses: Array) -> Array:
    """Corners (..., 4, 2) of things of half extents (..., 3) at poses (..., 7) seen from above [m], world frame."""
    return poses[..., None, :2] + footprint(half, poses[..., 3:])


def closest(half: Array, poses: Array) -> float:
    """Distance between the two things nearest to each other [m], negative where they overlap; inf for one alone."""
    rectangles = corners(half, poses)
    i, j = np.triu_indices(len(rectangles), 1)
    return float(gap(rectangles[i], rectangles[j]).min(initial=np.inf))


def scatter(
    rng: np.random.Generator, half: Array, *, split: str, centre: Array, region: tuple[float, float], apart: float
) -> Array:
    """Poses (m, 7) of things standing on the table with any yaw, uniform among a split's cells (rejection).

    Args:
        rng: Drawn from.
        half: Half extents [m], (m, 3).
        split: ``train`` or ``test``.
        centre: Of the region [m], (2,).
        region: Its sides [m].
        apart: Least distance between two things [m].

    Raises:
        ConfigError: If they do not fit.
    """
    side = np.array(region) / 2
    for _ in range(TRIES):
        poses, taken = np.empty((len(half), 7)), np.empty((len(half), 4, 2))
        for m, h in enumerate(half):
            position = centre + rng.uniform(-side, side, (TRIES, 2))
            turn = yawed(rng.uniform(-np.pi, np.pi, TRIES))
            mine = np.flatnonzero(split_of(position) == SPLITS.index(split))
            k = _first(mine, position, turn, h, taken[:m], apart)
            if k is None:
                break
            poses[m] = *position[k], h[2], *turn[k]
            taken[m] = corners(h, poses[m])
        else:
            return poses
    raise ConfigError(f"{len(half)} objects {apart} m apart do not fit into {region} m")


def _first(drawn: Array, position: Array, turn: Array, half: Array, taken: Array, apart: float) -> int | None:
    """The first of ``drawn`` positions and turns at which a thing is ``apart`` from rectangles ``taken`` (m, 4, 2)."""
    for some in (drawn[:FEW], drawn[FEW:]):
        rectangles = position[some, None] + footprint(half, turn[some])
        fits = some[gap(rectangles[:, None], taken[None]).min(axis=1, initial=np.inf) >= apart]
        if len(fits):
            return int(fits[0])
    return None


def check(half: Array, poses: Array) -> None:
    """Refuse things of half extents (m, 3) at poses (m, 7) that penetrate each other or the table, or float.

    Raises:
        ConfigError: Naming how far.
    """
    if not np.isfinite(poses).all():
        raise ConfigError("a pose is not finite")
    axes = matrix(poses[:, 3:] / np.linalg.norm(poses[:, 3:], axis=1, keepdims=True))
    if np.any(axes[:, 2, 2] < 0.9999):
        raise ConfigError("objects start upright: give quaternions that turn about z only")
    lift = poses[:, 2] - half[:, 2]
    if np.any(np.abs(lift) > SUNK):
        k = int(np.argmax(np.abs(lift)))
        raise ConfigError(f"object {k} starts {lift[k]:.4f} m above the table; need at most {SUNK} m in or above it")
    nearest = closest(half, poses)
    if nearest < 0:
        raise ConfigError(f"two objects penetrate each other by {-nearest:.4f} m at the start")
