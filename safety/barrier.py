"""The barriers of the filter's QP: what shapes them, and what they ask of an acceleration.

A barrier asks of a distance h, whose gradient by the joints is ``row``: d/dt (h' + w(h)) >= -rate (h' + w(h)), with
w(h) the speed at which it may still be approached; it is linear in the acceleration.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit

from palmar.safety.enforced import Separation
from palmar.safety.types import ConfigError

Array = np.ndarray

NOBODY = Separation(human=1.6, reaction=0.0, brake=2.5, distance=0.0)
"""Fills the place of people where nobody is tracked: rows of theirs never come."""
FURTHER = 10.0
"""Reach of the barrier of people, in parts of ``BarrierConfig.reach``."""


@dataclass(frozen=True)
class BarrierConfig:
    """Shape of the barriers: allowed approach speed ``sqrt(2 brake h + soft^2) - soft`` at distance h."""

    brake: float = 2.5
    """Deceleration of an approach [m/s2]; what 10 rad/s2 give at a lever of a quarter metre."""
    soft: float = 0.05
    """Speed below which the approach becomes exponential [m/s]."""
    rate: float = 60.0
    """How fast an approach that is too fast is corrected [1/s]."""
    buffer: float = 0.002
    """Distance kept beyond the limit [m]."""
    reach: float = 0.20
    """Pairs and geoms further away than this make no row [m]; a fifth of it for pairs of fingers."""

    def __post_init__(self) -> None:
        for name, value in self.__dict__.items():
            if not 0 < value < float("inf"):
                raise ConfigError(f"barrier.{name} must be a positive number, got {value!r}")


@dataclass(frozen=True)
class Slots:
    """How many rows of each kind a QP has room for."""

    pairs: int = 24
    table: int = 12
    palm: bool = True
    obstacles: int = 16
    contacts: int = 8
    prune: bool = True
    """Leave out rows that no acceleration within the bounds can bring into play in this tick."""

    @property
    def geometry(self) -> int:
        """Rows of pairs, table, palm and obstacles."""
        return self.pairs + self.table + 6 * self.palm + self.obstacles


class Barrier(NamedTuple):
    """``BarrierConfig``, what the separation from people and the contact speed ask for, and the slots, for numba."""

    brake: float
    soft: float
    rate: float
    buffer: float
    reach: float
    human: float
    """Speed of people [m/s]: the ``soft`` of their barrier."""
    human_brake: float
    """[m/s2]"""
    impact: float
    """Allowed approach speed at contact [m/s]."""
    found: Array
    """Scratch: geoms near an obstacle, (g,)."""
    pairs: int
    table: int
    palm: bool
    obstacles: int
    contacts: int
    prune: bool


def barrier_of(
    config: BarrierConfig, slots: Slots, people: Separation | None, impact: float, *, geoms: int = 0
) -> Barrier:
    """The barrier as the kernels take it.

    Args:
        config: Its shape.
        slots: Room for rows.
        people: What separation from people asks for; None where nobody is tracked.
        impact: Approach speed at which the hand may touch something [m/s]; inf for any.
        geoms: Length of the scratch for geoms near an obstacle.
    """
    people = people or NOBODY
    return Barrier(
        config.brake, config.soft, config.rate, config.buffer, config.reach, people.human, people.brake,
        min(impact, 1e3), np.zeros(geoms, dtype=np.int64), slots.pairs, slots.table, slots.palm, slots.obstacles,
        slots.contacts, slots.prune,
    )  # fmt: skip


@njit(cache=True, nogil=True)
def needed(h, dh, brake, soft, rate):
    """Second derivative of h that the barrier asks for [m/s2]: d/dt(h' + w(h)) >= -rate (h' + w(h)).

    Inside the buffer (h <= 0) no approach is allowed, and no retreat is asked for: a robot at rest there may always
    stay, however many rows it has.
    """
    w = math.sqrt(2.0 * brake * max(h, 0.0) + soft * soft) - soft
    return -rate * (dh + w) - brake / (w + soft) * dh


@njit(cache=True, nogil=True)
def needed_slow(h, dh, brake, impact, rate):
    """The same where contact is allowed, at ``impact`` [m/s] at most: w(h) = sqrt(2 brake h + impact^2)."""
    w = math.sqrt(2.0 * brake * max(h, 0.0) + impact * impact)
    return -rate * (dh + w) - (brake / w * dh if h > 0.0 else 0.0)
