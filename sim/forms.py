"""The mesh library of procedural objects: superquadrics and convex polytopes that stand on a flat base.

Made from a fixed seed, the same in every run; the splits differ in exponents and in the number of cut corners.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

Array = np.ndarray
FAMILIES = ("box", "cylinder", "capsule", "superquadric", "polytope")
MESHED = ("superquadric", "polytope")
SPLITS = ("train", "test")
"""Of every task's episodes: for training and testing, with nothing in both."""
PER_KIND = 4
"""Meshes per family, size and split."""
_EXPONENT: dict[str, tuple[float, float]] = {"train": (0.30, 0.50), "test": (0.55, 0.75)}
"""Of superquadrics, both: 0 is a box, 1 an ellipsoid."""
_CUTS: dict[str, tuple[int, int]] = {"train": (4, 6), "test": (8, 10)}
"""How many corners of a polytope are cut off."""
_FLAT = 0.92
"""A superquadric is cut flat at this share of its height, so that it stands."""
_SEED = 20261121


@dataclass(frozen=True)
class Form:
    """One mesh of the library."""

    name: str
    family: str
    split: str
    large: bool
    half: tuple[float, float, float]
    exponents: tuple[float, float]
    vertices: Array
    """Of its convex hull, in the thing's frame [m], (n, 3)."""


@functools.lru_cache(maxsize=1)
def library() -> tuple[Form, ...]:
    """The meshes, the same in every run: ``PER_KIND`` for each family, split and size."""
    make = {"superquadric": _superquadric, "polytope": _polytope}
    out = []
    for a, family in enumerate(MESHED):
        for b, split in enumerate(SPLITS):
            for large in (False, True):
                for k in range(PER_KIND):
                    rng = np.random.default_rng([_SEED, a, b, int(large), k])
                    half = _extents(rng, large)
                    points, exponents = make[family](rng, split, half)
                    low, high = points.min(0), points.max(0)
                    vertices = (points - (low + high) / 2) * (2 * half / (high - low))
                    name = f"{family}_{split}_{'large' if large else 'small'}_{k}"
                    x, y, z = half.tolist()
                    out.append(Form(name, family, split, large, (x, y, z), exponents, vertices))
    return tuple(out)


def _extents(rng: np.random.Generator, large: bool) -> Array:
    """Half extents a mesh is made in [m], (3,)."""
    x = rng.uniform(0.0205, 0.027)
    return np.array([x, rng.uniform(0.038, 0.045) if large else x * rng.uniform(1.0, 1.1), rng.uniform(0.024, 0.031)])


def _superquadric(rng: np.random.Generator, split: str, half: Array) -> tuple[Array, tuple[float, float]]:
    """Points on ``|x/a|^(2/h) + |y/b|^(2/h)``, to the power h/v, ``+ |z/c|^(2/v) = 1``, its top and bottom cut flat.

    Source: Barr, "Superquadrics and Angle-Preserving Transformations", 1981; convex for exponents in (0, 2).
    """
    v, h = (float(e) for e in rng.uniform(*_EXPONENT[split], 2))
    z = np.array([-1.0, -0.75, -0.35, 0.35, 0.75, 1.0]) * _FLAT
    ring = (1 - np.abs(z) ** (2 / v)) ** (v / 2)
    angle = np.arange(16) * np.pi / 8
    c, s = np.cos(angle), np.sin(angle)
    plan = np.stack([np.sign(c) * np.abs(c) ** h, np.sign(s) * np.abs(s) ** h], 1)
    points = np.concatenate([ring[:, None, None] * plan, np.broadcast_to(z[:, None, None] / _FLAT, (6, 16, 1))], axis=2)
    return points.reshape(-1, 3) * half, (v, h)


def _polytope(rng: np.random.Generator, split: str, half: Array) -> tuple[Array, tuple[float, float]]:
    """A box with its x faces tilted by up to 5 degrees and random corners cut off; the base stays flat."""
    from scipy.spatial import HalfspaceIntersection  # slow to load, and a policy's side never needs it

    tilt = rng.uniform(-0.087, 0.087, (2, 2))
    sides = np.array([[0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], dtype=float)
    faces = np.concatenate([[[1, *tilt[0]], [-1, *tilt[1]]], sides])
    faces /= np.linalg.norm(faces, axis=1, keepdims=True)
    offset = np.array([half[0], half[0], half[1], half[1], half[2], half[2]])
    cuts = rng.normal(size=(int(rng.integers(_CUTS[split][0], _CUTS[split][1] + 1)), 3))
    cuts = np.sign(cuts) * (0.35 + np.abs(cuts)) / half  # towards corners, whatever the proportions
    cuts /= np.linalg.norm(cuts, axis=1, keepdims=True)
    depth = rng.uniform(0.72, 0.88, len(cuts)) * (np.abs(cuts) @ half)
    planes = np.concatenate([np.c_[faces, -offset], np.c_[cuts, -depth]])
    points = HalfspaceIntersection(planes, np.zeros(3)).intersections
    return np.unique(points.round(9), axis=0), (0.0, 0.0)
