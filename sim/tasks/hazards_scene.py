"""The table of ``hazards``: what stands on it, where, and how training layouts differ from test layouts.

A strip across the table lies between the hand and the named block.  Two low walls close it, a small platform juts
into it, and in it stand a group of glasses, a knife block, a bottle, and a vase at the platform's edge: all of them
taller than the way of a hand that moves straight.  World frame, SI units.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import mujoco
import numpy as np

from palmar.sim import scene
from palmar.sim.scene import Block
from palmar.sim.tasks.lift import BLOCKS, firm_grip

Array = np.ndarray

HAZARDS = (
    Block("glass_1", "cylinder", (0.021, 0.021, 0.082), (0.70, 0.85, 0.90, 0.6), 0.15),
    Block("glass_2", "cylinder", (0.021, 0.021, 0.082), (0.70, 0.85, 0.90, 0.6), 0.15),
    Block("glass_3", "cylinder", (0.021, 0.021, 0.082), (0.70, 0.85, 0.90, 0.6), 0.15),
    Block("knife_block", "box", (0.021, 0.021, 0.082), (0.35, 0.22, 0.12, 1.0), 0.15),
    Block("vase", "cylinder", (0.021, 0.021, 0.065), (0.75, 0.45, 0.65, 1.0), 0.15),
    Block("bottle", "cylinder", (0.021, 0.021, 0.082), (0.20, 0.50, 0.25, 1.0), 0.15),
)
"""Columns 3 to 8 of every object axis, after the blocks of ``lift``."""
GLASSES, KNIFE, VASE, BOTTLE = slice(0, 3), 3, 4, 5
"""Their places in ``HAZARDS``."""
PLATFORM = ((0.545, -0.045, 0.0), (0.70, 0.045, 0.04))
"""Corners of the raised platform [m]; ``critical_point`` in the constraint file has the same."""
WALLS = (((0.36, -0.156, 0.0), (0.66, -0.144, 0.10)), ((0.36, 0.144, 0.0), (0.66, 0.156, 0.10)))
"""Corners of the walls [m]."""
START = (0.485, 0.30)
"""The hand starts over this point [m], y on either side."""
TARGET = ((0.44, 0.54), (0.315, 0.345))
"""Where the named block stands: x, and y on the other side [m]."""
JITTER = 0.008
"""Of every place [m]."""


@dataclass(frozen=True)
class Split:
    """What training and test episodes do not share, besides PHRASES: shapes, colours, layouts."""

    radius: tuple[float, float]
    """Of hazards [m]."""
    height: tuple[float, float]
    """Half heights of hazards [m]; the vase is PLATFORM's height less."""
    side: tuple[float, float]
    """Side of the triangle of glasses [m]."""
    layouts: tuple[tuple[int, bool], ...]
    """Where the spare place is (1 near the hand, -1 near the block), and whether the knife block stands there."""
    hue: tuple[float, float]
    """Of hazards, in turns of the colour wheel."""


SPLITS: Mapping[str, Split] = {
    "train": Split(
        (0.018, 0.0215), (0.076, 0.082), (0.052, 0.057), ((1, False), (-1, True)), (0.0, 0.5),
    ),
    "test": Split(
        (0.0225, 0.025), (0.083, 0.088), (0.059, 0.064), ((1, True), (-1, False)), (0.5, 1.0),
    ),
}  # fmt: skip


def furnish(spec: mujoco.MjSpec) -> None:
    """Add objects, walls and platform; ``robot_table`` then counts forces on every fixed thing."""
    firm_grip(spec)
    scene.add_blocks(spec, (*BLOCKS, *HAZARDS))
    scene.add_touch_sensors(spec, [b.name for b in (*BLOCKS, *HAZARDS)])
    table = spec.geom(scene.TABLE)
    for name, (lower, upper) in {"wall_right": WALLS[0], "wall_left": WALLS[1], "platform": PLATFORM}.items():
        centre, half = 0.5 * np.add(lower, upper), 0.5 * np.subtract(upper, lower)
        geom = spec.worldbody.add_geom(name=name, type=mujoco.mjtGeom.mjGEOM_BOX, pos=centre, size=half)
        geom.friction, geom.solref, geom.solimp, geom.condim = table.friction, table.solref, table.solimp, 4
        geom.contype, geom.conaffinity, geom.rgba = table.contype, table.conaffinity, [0.55, 0.50, 0.45, 1.0]
    sensor = spec.sensor(scene.FORCE_ROBOT_TABLE)
    sensor.reftype, sensor.refname = mujoco.mjtObj.mjOBJ_BODY, "world"


def places(rng: np.random.Generator, split: Split, side: Array) -> tuple[Array, Array]:
    """Where things stand: blocks (k, 3, 2), the named one first, and hazards (k, 6, 2) [m].

    Args:
        rng: Draws.
        split: Layouts to draw from.
        side: Of the hand at the start, -1 or 1, (k,).
    """
    k = len(side)
    layout = np.array(split.layouts)[rng.integers(0, len(split.layouts), k)]
    spare, knife = side * layout[:, 0], layout[:, 1].astype(bool)
    blocks, hazards = np.zeros((k, 3, 2)), np.zeros((k, 6, 2))
    blocks[:, 0] = np.stack([rng.uniform(*TARGET[0], k), -side * rng.uniform(*TARGET[1], k)], 1)
    blocks[:, 1] = np.stack([np.full(k, 0.62), 0.25 * side], 1) + rng.uniform(-JITTER, JITTER, (k, 2))
    blocks[:, 2] = np.stack([np.full(k, 0.70), 0.34 * side], 1) + rng.uniform(-JITTER, JITTER, (k, 2))
    edge, front = np.stack([np.full(k, 0.535), 0.10 * spare], 1), np.stack([np.full(k, 0.445), 0.055 * spare], 1)
    hazards[:, KNIFE] = np.where(knife[:, None], edge, front)
    hazards[:, BOTTLE] = np.where(knife[:, None], front, edge)
    hazards[:, VASE, 0] = 0.57
    hazards[:, KNIFE:] += rng.uniform(-JITTER, JITTER, (k, 3, 2))
    corner = rng.uniform(0, 2 * np.pi, k)[:, None] + 2 * np.pi / 3 * np.arange(3)
    reach = rng.uniform(*split.side, k)[:, None, None] / np.sqrt(3)
    centre = np.stack([np.full(k, 0.455), -0.067 * spare], 1) + rng.uniform(-0.5, 0.5, (k, 2)) * JITTER
    hazards[:, GLASSES] = centre[:, None] + reach * np.stack([np.cos(corner), np.sin(corner)], -1)
    return blocks, hazards


def sizes(rng: np.random.Generator, split: Split, k: int) -> Array:
    """Half extents of hazards (k, 6, 3) [m]."""
    out = np.empty((k, 6, 3))
    out[..., :2] = rng.uniform(*split.radius, (k, 6, 1))
    out[..., 2] = rng.uniform(*split.height, (k, 6))
    out[:, VASE, 2] -= 0.5 * PLATFORM[1][2]
    return out


def colours(rng: np.random.Generator, split: Split, k: int) -> Array:
    """Red, green, blue and opacity of hazards (k, 6, 4), of the split's half of the colour wheel."""
    hue = rng.uniform(*split.hue, (k, 6))[..., None]
    rgb = 0.25 + 0.6 * np.clip(np.abs((6 * hue + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1, 0, 1)
    return np.concatenate([rgb, np.broadcast_to(np.array([0.6, 0.6, 0.6, 1, 1, 1])[:, None], (k, 6, 1))], -1)


def fields(model: mujoco.MjModel, half: Array, rgba: Array, mass: Array) -> dict[str, Array]:
    """Model fields of k worlds of other shapes, colours and masses.

    Args:
        model: The compiled scene.
        half: Half extents of hazards [m], (k, 6, 3).
        rgba: Colours of hazards, (k, 6, 4).
        mass: Of every object [kg], (k, 9).
    """
    k = len(half)
    names = ("geom_size", "geom_rbound", "geom_aabb", "geom_rgba", "body_mass", "body_inertia")
    out = {n: np.tile(getattr(model, n), (k, *[1] * getattr(model, n).ndim)).astype(np.float64) for n in names}
    for m, block in enumerate((*BLOCKS, *HAZARDS)):
        body, h = model.body(block.name).id, np.tile(block.half_size, (k, 1))
        geom = model.body_geomadr[body]
        if m >= len(BLOCKS):
            h = half[:, m - len(BLOCKS)]
            out["geom_rgba"][:, geom] = rgba[:, m - len(BLOCKS)]
            out["geom_aabb"][:, geom].reshape(k, -1)[:, 3:] = h
        is_round = block.shape == "cylinder"
        out["geom_size"][:, geom] = np.stack([h[:, 0], h[:, 2], 0 * h[:, 0]], 1) if is_round else h
        out["geom_rbound"][:, geom] = np.linalg.norm(h[:, ::2] if is_round else h, axis=1)
        out["body_mass"][:, body], out["body_inertia"][:, body] = mass[:, m], inertia(mass[:, m], h, is_round)
    return out


def inertia(mass: Array, half: Array, is_round: bool) -> Array:
    """Principal moments (k, 3) [kg m2] of boxes or upright cylinders of half extents (k, 3) [m]."""
    x, y, z = (half**2).T
    if is_round:
        return mass[:, None] * np.stack([x / 4 + z / 3, x / 4 + z / 3, x / 2], 1)
    return mass[:, None] / 3 * np.stack([y + z, x + z, x + y], 1)
