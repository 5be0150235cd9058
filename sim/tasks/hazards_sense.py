"""What only ``hazards`` measures: which objects its camera sees, and how much room there is around the hand.

Both by simple geometry, one frame per control step: a camera above the table, the robot as a few capsules, the
hazards as upright cylinders of one size.  World frame, SI units.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from palmar.sim import sightline
from palmar.sim.kinematics import Hand
from palmar.sim.tasks.hazards_scene import WALLS

Array = np.ndarray

CAMERA = (0.5, 0.0, 1.05)
"""A D435 looking straight down, its wide side along y [m]."""
VIEW = (0.389, 0.692)
"""Half the view across x and y at 1 m: 42.5 and 69.4 degrees."""
REACH, CELL, WIDTH = 0.30, 0.06, 0.05
"""Cells of this side within this distance of the palm are looked at; half the width of the hand [m]."""
RADIUS, HALF_HEIGHT = 0.022, 0.082
"""Of hazards, nominal: a cell is wider than their differences [m]."""
WORKSPACE = ((0.25, 0.85), (-0.45, 0.45))
"""Cells outside are not free; the constraint file's workspace [m]."""


def _cells() -> Array:
    """Centres of the cells of a disc around the palm (c, 2) [m]."""
    steps = np.arange(-int(REACH / CELL), int(REACH / CELL) + 1) * CELL
    grid = np.stack(np.meshgrid(steps, steps, indexing="ij"), -1).reshape(-1, 2)
    return grid[np.linalg.norm(grid, axis=1) <= REACH + 1e-9]


CELLS = _cells()
"""81 of them, as in a disc of 1 m with cells of 0.2 m."""
_POSTS = np.concatenate(
    [np.stack([np.arange(a[0], b[0] + 1e-9, 0.05), np.full(7, (a[1] + b[1]) / 2)], 1) for a, b in WALLS]
)
_POST_RADIUS = 0.025


def visible(position: Array, quaternion: Array, hand: Hand) -> Array:
    """1 where the camera sees an object, else 0, (B, m): its centre or its top, not hidden by the robot.

    Args:
        position: Objects [m], (B, m, 3).
        quaternion: w-x-y-z, (B, m, 4).
        hand: Of the B robots.
    """
    x, y = quaternion[..., 1], quaternion[..., 2]
    w, z = quaternion[..., 0], quaternion[..., 3]
    axis = np.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], -1)
    top = position + 0.8 * HALF_HEIGHT * axis * np.where(axis[..., 2:] < 0, -1, 1)
    points = np.stack([position, top], 2)  # (B, m, 2, 3)
    free = sightline.clear(CAMERA, points.reshape(len(points), -1, 3), hand).reshape(points.shape[:3])
    ray = points - np.array(CAMERA)
    inside = (np.abs(ray[..., 0]) <= -VIEW[0] * ray[..., 2]) & (np.abs(ray[..., 1]) <= -VIEW[1] * ray[..., 2])
    return np.asarray((inside & free).any(-1), dtype=np.float64)


def free_cells(position: Array, quaternion: Array, hand: Hand, tip_radius: float) -> Array:
    """How many cells around the palm the hand could move to in a straight line at its height, (B,).

    In the way is a hazard (B, h, 3) or wall that is higher than the lowest fingertip, nearer to the line than half
    the hand's width and nearer than it is now.
    """
    low = hand.tips[..., 2].min(1) - tip_radius
    upright = np.abs(1 - 2 * (quaternion[..., 1] ** 2 + quaternion[..., 2] ** 2))
    top = position[..., 2] + HALF_HEIGHT * upright + RADIUS * np.sqrt(np.maximum(0, 1 - upright**2))
    centre = np.concatenate([position[..., :2], np.broadcast_to(_POSTS, (len(low), *_POSTS.shape))], 1)
    high = np.concatenate([top, np.full((len(low), len(_POSTS)), WALLS[0][1][2])], 1) > low[:, None]
    room = WIDTH + np.concatenate([np.full(position.shape[1], RADIUS), np.full(len(_POSTS), _POST_RADIUS)])
    cell = hand.palm[:, None, :2] + CELLS
    inside = np.all([(cell[..., i] >= lo) & (cell[..., i] <= hi) for i, (lo, hi) in enumerate(WORKSPACE)], axis=0)
    return (inside & ~_barred(hand.palm, centre, high, room)).sum(1).astype(np.float64)


@njit(cache=True, nogil=True, error_model="numpy")
def _barred(palm, centre, high, room):
    """Whether the straight way from palms (B, 3) to each of their CELLS is barred, (B, c) bool.

    Args:
        palm: [m], (B, 3).
        centre: Of what stands there [m], (B, o, 2).
        high: Whether it is in the way at all, (B, o) bool.
        room: That the hand needs beside it [m], (o,).
    """
    out = np.zeros((len(palm), len(CELLS)), dtype=np.bool_)
    for w in range(len(palm)):
        for o in range(len(room)):
            if not high[w, o]:
                continue
            x, y = centre[w, o, 0] - palm[w, 0], centre[w, o, 1] - palm[w, 1]
            now = math.sqrt(x * x + y * y)
            for c in range(len(CELLS)):
                i, j = CELLS[c, 0], CELLS[c, 1]
                along = min(max((x * i + y * j) / max(i * i + j * j, 1e-9), 0.0), 1.0)
                u, v = x - along * i, y - along * j
                gap = math.sqrt(u * u + v * v)
                out[w, c] |= gap < room[o] and gap < now - 1e-9
    return out
