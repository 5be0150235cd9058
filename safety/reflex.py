"""Layer 3's slot: a risk critic between check and QP may choose another candidate motion and a softer robot.

It chooses what the QP is asked for; it never has the last word, and stiffness and damping can only fall.
The learned critic comes later; ``Threshold`` is its shape with any function as risk, for tests and scripts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from palmar.safety.types import Array, ConfigError, Measurement


@dataclass(frozen=True)
class Proposal:
    """What a reflex asks for in one tick."""

    x: Array
    """Acceleration to ask the QP for [rad/s2], (n,)."""
    soften: float = 1.0
    """Factor on the wanted stiffness and damping, in [0, 1]."""
    risk: float = math.nan
    """What it judged by, for the record; NaN where nothing was judged."""


class Reflex(Protocol):
    """Chooses the candidate motion from the measurement, between policy ticks."""

    counts: dict[str, int]
    """How often it acted, by name."""

    def propose(self, m: Measurement | None, wanted: Array, ud: Array) -> Proposal:
        """What to ask the QP for.

        Args:
            m: Measurement of the tick before, None in the first.
            wanted: Acceleration that follows the policy [rad/s2], (n,).
            ud: Commanded velocity [rad/s], (n,).
        """
        ...


@dataclass
class NoReflex:
    """Asks for what the policy wants."""

    counts: dict[str, int] = field(default_factory=dict)

    def propose(self, m: Measurement | None, wanted: Array, ud: Array) -> Proposal:
        """``wanted``."""
        return Proposal(wanted)


@dataclass
class Threshold:
    """Brakes and softens while a risk is above a threshold (Bresa's interruption with braking as recovery).

    Source: Zhang et al., Bresa, arXiv 2503.21989: a critic at control rate interrupts the task policy.
    """

    risk: Callable[[Measurement], float]
    """Any function of the measurement; NaN counts as above the threshold."""
    threshold: float
    soften: float = 0.5
    brake: float = 50.0
    """How fast the commanded speed is asked to fall [1/s]."""
    counts: dict[str, int] = field(default_factory=lambda: {"interrupted": 0})

    def __post_init__(self) -> None:
        if not (0.0 <= self.soften <= 1.0 and math.isfinite(self.threshold) and 0.0 < self.brake <= 1000.0):
            raise ConfigError(f"need 0 <= soften <= 1, a finite threshold and 0 < brake <= 1000, got {self}")

    def propose(self, m: Measurement | None, wanted: Array, ud: Array) -> Proposal:
        """``wanted`` below the threshold, braking above it."""
        if m is None:
            return Proposal(wanted)
        risk = float(self.risk(m))
        if risk < self.threshold:
            return Proposal(wanted, risk=risk)
        self.counts["interrupted"] += 1
        return Proposal(-self.brake * np.asarray(ud), self.soften, risk)
