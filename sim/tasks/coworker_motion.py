"""What the person of ``coworker`` does in an episode: where the arm comes from, when, how fast, when nobody sees it.

Two motions one after the other, each one of KINDS.  A plan is one row of numbers, so that a goal can hold it.
World frame, SI units.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from palmar.sim.people import LENGTH, glide, poses

Array = np.ndarray

KINDS = ("reach", "sweep", "hover", "retreat")
"""In and out at one place; across the table; in, small movements for a while, out; there from the start, and out."""
POINTS = 12
"""Of the way of the fingertips, both motions together."""
BLINKS = 2
"""Times in which the tracker sees nothing."""
SHOULDER_UP, SHOULDER_OUT = 0.45, 1.35
"""Where shoulders are: above the table, and away from (0.45, 0) [m]."""
AWAY = 0.80
"""The fingertips of an arm that is not there yet are this far from (0.45, 0) [m]."""
SIZE = 2 + 3 + 4 * POINTS + 2 * BLINKS
"""Numbers of a goal: block, phrase; shoulder; per point time and place; per blink begin and end."""


@dataclass(frozen=True)
class Split:
    """What training and test episodes do not share, besides PHRASES: where people stand, how fast they are."""

    bearing: tuple[tuple[float, float], ...]
    """Sectors of the person's bearing from (0.45, 0), 0 is opposite the robot [rad]."""
    speed: tuple[tuple[float, float], ...]
    """Bands of the peak speed of the hand [m/s]."""


SPLITS: Mapping[str, Split] = {
    "train": Split(((-1.4, -0.7), (0.0, 0.7)), ((0.5, 1.0), (1.5, 2.0))),
    "test": Split(((-0.7, 0.0), (0.7, 1.4)), ((1.0, 1.5), (2.0, 2.5))),
}


def plan(rng: np.random.Generator, split: Split, near: Array, length: float) -> Array:
    """Plans of k persons (k, SIZE - 2), ending before ``length`` [s] or cut off by it.

    Args:
        rng: Draws.
        split: To draw from.
        near: Places that matter, around which the person works [m], (k, 2).
        length: Of an episode [s].
    """
    return np.stack([_plan(rng, split, place, length) for place in near])


def _plan(rng: np.random.Generator, split: Split, near: Array, length: float) -> Array:
    bearing = rng.uniform(*split.bearing[rng.integers(len(split.bearing))])
    out = np.array([np.cos(bearing), np.sin(bearing)])
    shoulder = np.array([0.45 + SHOULDER_OUT * out[0], SHOULDER_OUT * out[1], SHOULDER_UP])
    home = np.array([0.45 + AWAY * out[0], AWAY * out[1], 0.20])
    way: list[tuple[float, Array]] = []
    t = 0.0
    for turn in range(2):
        kind = KINDS[rng.integers(len(KINDS))] if turn == 0 else KINDS[rng.integers(len(KINDS) - 1)]
        speed = rng.uniform(*split.speed[rng.integers(len(split.speed))])
        if kind != "retreat":
            t += rng.uniform(0.3, 1.8) if turn == 0 else rng.uniform(1.0, 3.0)
            way.append((t, home))
        for pause, point in _stops(rng, kind, near, out):
            t += 1.5 * float(np.linalg.norm(point - way[-1][1])) / speed if way else 0.0
            way.append((t, point))
            if pause:
                t += pause
                way.append((t, point))
        t += 1.5 * float(np.linalg.norm(home - way[-1][1])) / speed
        way.append((t, home))
    rows = np.array([[time, *place] for time, place in way])
    padded = np.concatenate([rows, np.repeat(rows[-1:], POINTS - len(rows), 0)])
    padded[len(rows) :, 0] += np.arange(1, POINTS - len(rows) + 1)
    begin = np.sort(rng.uniform(0.5, length, BLINKS))
    blinks = np.stack([begin, begin + rng.uniform(0.2, 1.2, BLINKS)], 1)
    return np.concatenate([shoulder, padded.ravel(), blinks.ravel()])


def _stops(rng: np.random.Generator, kind: str, near: Array, out: Array) -> list[tuple[float, Array]]:
    """Where the fingertips go and how long they stay there [s]."""

    def place(spread: float) -> Array:
        return np.array([*(near + rng.uniform(-spread, spread, 2)), rng.uniform(0.08, 0.25)])

    if kind == "sweep":
        across = 0.25 * np.array([-out[1], out[0]]) * rng.choice([-1.0, 1.0])
        height = rng.uniform(0.10, 0.25)
        return [(0.0, np.array([*(near - across), height])), (0.0, np.array([*(near + across), height]))]
    if kind == "hover":
        here = place(0.10)
        return [(rng.uniform(0.3, 0.8), here + rng.uniform(-0.03, 0.03, 3)) for _ in range(2)]
    return [(rng.uniform(0.4, 1.2) + (0.8 if kind == "retreat" else 0.0), place(0.10))]


def where(t: Array, plans: Array) -> Array:
    """Poses (S, B, 2, 7) of hand and forearm at times t (S, B) [s] of plans (B, SIZE - 2)."""
    way = plans[:, 3 : 3 + 4 * POINTS].reshape(-1, POINTS, 4)
    return poses(glide(t, way[..., 0], way[..., 1:]), np.broadcast_to(plans[:, :3], (*t.shape, 3)))


def line(t: Array, plans: Array) -> Array:
    """Fingertips' end and elbow (B, 2, 3) [m] at times t (B,)."""
    way = plans[:, 3 : 3 + 4 * POINTS].reshape(-1, POINTS, 4)
    tip = glide(t[None], way[..., 0], way[..., 1:])[0]
    back = plans[:, :3] - tip
    return np.stack([tip, tip + LENGTH * back / np.linalg.norm(back, axis=1, keepdims=True)], 1)


def blinking(t: Array, plans: Array, *, late: float = 0.0) -> Array:
    """Whether the tracker sees nothing at times t (*S, B), or has not for ``late`` seconds, bool."""
    begin, end = np.moveaxis(plans[:, -2 * BLINKS :].reshape(-1, BLINKS, 2), -1, 0)
    return np.asarray(((t[..., None] >= begin + late) & (t[..., None] < end)).any(-1))
