"""Layouts of the contact maze: a closed corridor along x with slanted cross walls, each with one gap.

A layout is six small integers: where the gap of each cross wall is, and how the wall is slanted.  They are split
into training and test layouts by a checksum, so that no layout is in both.  Frames: world.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from palmar.safety.config import unknown
from palmar.safety.types import ConfigError
from palmar.sim.forms import SPLITS

Array = np.ndarray

BAFFLES = 3
"""Cross walls; the last one's gap is the exit."""
SLOTS, SLOT = 7, 0.026
"""Places a gap can have across the corridor, and their distance [m]."""
SLANTS = (-0.105, 0.0, 0.105)
"""Angles of a cross wall about the centre of its gap [rad]."""
TEST_SHARE = 5
"""One checksum in so many is a test layout's."""
NEAR, HALF_WIDTH = 0.395, 0.115
"""Inner face of the back wall (x) and of the side walls (|y|) [m]."""
FIRST, SPACING = 0.455, 0.085
"""The gaps' x: of the first cross wall, and from one to the next [m]."""
LEAVING = 0.025
"""So far beyond its last gap the maze ends [m]: wall and peg are then behind each other."""
THICK, HIGH = 0.005, 0.025
"""Half thickness and half height of a wall [m]."""

WALLS = ("wall_left", "wall_right", "wall_back") + tuple(f"baffle{b}_{s}" for b in range(BAFFLES) for s in "lh")
"""Every wall; a cross wall has a part at low y and one at high y."""


@dataclass(frozen=True)
class Walls:
    """Boxes on the table of k worlds, in the order of WALLS."""

    position: Array
    """Centres [m], (k, w, 3)."""
    yaw: Array
    """About z [rad], (k, w)."""
    half: Array
    """Half sizes [m], (k, w, 3)."""


def exit_x() -> float:
    """Where the maze ends [m]."""
    return FIRST + (BAFFLES - 1) * SPACING + LEAVING


def gap_y(slot: Array) -> Array:
    """Centre of a gap across the corridor [m], of its slot."""
    return SLOT * (slot - (SLOTS - 1) / 2)


def split_of(slot: Array, slant: Array) -> Array:
    """Index into SPLITS of layouts: slots (k, BAFFLES) and indices into SLANTS (k, BAFFLES), (k,) int.

    The weights are such that changing any one wall by one step changes the checksum.
    """
    code = slot @ np.array([1, 2, 4]) + slant @ np.array([3, 1, 2])
    return (code % TEST_SHARE == 0).astype(int)


def draw(rng: np.random.Generator, k: int, split: str) -> tuple[Array, Array]:
    """Slots (k, BAFFLES) and indices into SLANTS (k, BAFFLES), uniform over the layouts of a split.

    Raises:
        ConfigError: If there is no such split.
    """
    if split not in SPLITS:
        raise ConfigError(unknown("split", split, SPLITS))
    slot, slant = np.zeros((k, BAFFLES), int), np.zeros((k, BAFFLES), int)
    todo = np.arange(k)
    while len(todo):
        slot[todo] = rng.integers(0, SLOTS, (len(todo), BAFFLES))
        slant[todo] = rng.integers(0, len(SLANTS), (len(todo), BAFFLES))
        todo = todo[split_of(slot[todo], slant[todo]) != SPLITS.index(split)]
    return slot, slant


def build(slot: Array, slant: Array, *, gap: float) -> Walls:
    """The walls of layouts, gaps ``gap`` wide [m].

    The parts of a slanted wall reach from the gap's edge to the middle of the side wall, which hides the corner.
    """
    k = len(slot)
    position, half, yaw = np.zeros((k, len(WALLS), 3)), np.full((k, len(WALLS), 3), HIGH), np.zeros((k, len(WALLS)))
    position[..., 2] = HIGH
    far = FIRST + BAFFLES * SPACING - SPACING + 2 * THICK
    side, middle = HALF_WIDTH + THICK, (NEAR + far) / 2
    position[:, 0, :2], position[:, 1, :2] = (middle, side), (middle, -side)
    half[:, :2, 0], half[:, :2, 1] = (far - NEAR) / 2 + 2 * THICK, THICK
    position[:, 2, :2], half[:, 2, 0], half[:, 2, 1] = (NEAR - THICK, 0.0), THICK, side + THICK
    for b in range(BAFFLES):
        angle = np.array(SLANTS)[slant[:, b]]
        centre = np.stack([np.full(k, FIRST + b * SPACING), gap_y(slot[:, b])], axis=1)
        along = np.stack([-np.sin(angle), np.cos(angle)], axis=1)
        for s, sign in enumerate((-1.0, 1.0)):
            reach = (side - sign * centre[:, 1]) / np.cos(angle)
            w = 3 + 2 * b + s
            position[:, w, :2] = centre + sign * along * ((reach + gap / 2) / 2)[:, None]
            half[:, w, 0], half[:, w, 1], yaw[:, w] = THICK, (reach - gap / 2) / 2, angle
    return Walls(position, yaw, half)


def inside(points: Array, walls: Walls) -> Array:
    """Distance in the plane of points (k, p, 2) to the nearest wall of their world [m], (k, p); < 0 is inside one."""
    c, s = np.cos(walls.yaw)[:, None], np.sin(walls.yaw)[:, None]  # (k, 1, w)
    to = points[:, :, None] - walls.position[:, None, :, :2]
    local = np.stack([c * to[..., 0] + s * to[..., 1], c * to[..., 1] - s * to[..., 0]], axis=-1)
    over = np.abs(local) - walls.half[:, None, :, :2]
    distance = np.linalg.norm(np.maximum(over, 0.0), axis=-1) + np.minimum(over.max(axis=-1), 0.0)
    return distance.min(axis=-1)
