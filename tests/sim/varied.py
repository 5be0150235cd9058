"""A tabletop with an object of every primitive, and materials to choose from: what randomisation is tried on."""

import numpy as np

from palmar.sim import appearance, scene

BLOCKS = (
    scene.Block("cube", "box", (0.025, 0.02, 0.03), (0.8, 0.2, 0.1, 1), 0.1),
    scene.Block("ball", "sphere", (0.02, 0.02, 0.02), (0.1, 0.7, 0.2, 1), 0.05),
    scene.Block("can", "cylinder", (0.02, 0.02, 0.03), (0.1, 0.3, 0.8, 1), 0.2),
    scene.Block("pill", "capsule", (0.02, 0.02, 0.03), (0.5, 0.3, 0.8, 1), 0.2),
)
NAMES = tuple(b.name for b in BLOCKS)
K = 3
"""Worlds."""


def spec():
    out = scene.scene_spec(BLOCKS)
    appearance.add_materials(out, n=3, seed=0)
    return out


def geoms_of(model, *names):
    return np.array([model.geom(f"{n}_geom").id for n in names])
