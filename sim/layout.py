"""Where things stand on a table: rectangles that keep a distance, on the cells of a checkerboard.

The splits' layouts are disjoint by construction: training puts every centre on white cells, tests on black ones.
"""

from __future__ import annotations

import numpy as np

from palmar.safety.types import ConfigError
from palmar.sim.forms import SPLITS
from palmar.sim.kinematics import matrix
from palmar.sim.objects import footprint

Array = np.ndarray
CELL = 0.04
"""Side of a cell of the checkerboard [m]."""
SUNK = 0.001
"""How far an object may start in or above the table [m]."""
TRIES = 200
"""Draws per thing before a layout is begun again, and layouts before giving up."""


def gap(a: Array, b: Array) -> Array:
    """Distance between rectangles with corners (..., 4, 2) [m], (...), negative where they overlap.

    By separating axes: exact where a face looks at the other, less than the distance between corners.
    Source: Gottschalk et al., "OBBTree", 1996.
    """
    a, b = np.broadcast_arrays(a, b)
    edges = np.stack([r[..., k + 1, :] - r[..., k, :] for r in (a, b) for k in (0, 1)], axis=-2)
    axes = edges / np.linalg.norm(edges, axis=-1, keepdims=True)
    on_a, on_b = (r @ np.swapaxes(axes, -1, -2) for r in (a, b))  # (..., 4 corners, 4 axes)
    apart = np.maximum(on_b.min(-2) - on_a.max(-2), on_a.min(-2) - on_b.max(-2))
    return apart.max(-1)


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
        poses: list[Array] = []
        for h in half:
            drawn = _place(rng, h, poses, half, SPLITS.index(split), centre, side, apart)
            if drawn is None:
                break
            poses.append(drawn)
        if len(poses) == len(half):
            return np.array(poses)
    raise ConfigError(f"{len(half)} objects {apart} m apart do not fit into {region} m")


def _place(
    rng: np.random.Generator,
    h: Array,
    poses: list[Array],
    half: Array,
    cells: int,
    centre: Array,
    side: Array,
    apart: float,
) -> Array | None:
    """One more pose (7,) at a distance from ``poses``; the first of ``TRIES`` draws that fits, None where none does."""
    position = centre + rng.uniform(-side, side, (TRIES, 2))
    yaw = rng.uniform(-np.pi, np.pi, TRIES)
    turn = np.stack([np.cos(yaw / 2), 0 * yaw, 0 * yaw, np.sin(yaw / 2)], 1)
    good = split_of(position) == cells
    if poses:
        placed = np.array(poses)
        others = corners(half[: len(poses)], placed)
        mine = position[:, None] + footprint(h, turn)
        good &= gap(mine[:, None], others[None]).min(1) >= apart
    if not good.any():
        return None
    k = int(np.argmax(good))
    return np.concatenate([position[k], h[2:], turn[k]])


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
