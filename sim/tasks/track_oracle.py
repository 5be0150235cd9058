"""Scripted policy for ``track``: the plan with feedback, or alone.  It sees only the deployed observation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from palmar.sim.tasks.oracles import named
from palmar.sim.tasks.palm import SYNERGY_STEP
from palmar.sim.tasks.track_io import N_ACTION, RESIDUAL, RESIDUAL_TURN, TrackIO

Array = np.ndarray
GAIN = 0.1
CLOSED = 0.75
"""Finger share after which the object is held, and feedback begins."""
SQUEEZE = 1.0
"""Finger share in which it is carried: 1 is 18 mm inside the faces of the object."""


@dataclass(frozen=True)
class Correction:
    """What is added to the plan, (B, 6) [m, rad]."""

    residual: Array


@dataclass(frozen=True)
class TrackOracle:
    """Close the fingers, follow the plan, and move the wrist against the object's error."""

    gain: float = GAIN
    """Share of the tracked error that is added to the residual per step; 0 follows the plan as it is."""

    def start(self, batch: int) -> Correction:
        """No correction yet."""
        return Correction(np.zeros((batch, 6)))

    def act(self, obs: Array, carry: Correction) -> tuple[Array, Correction]:
        """Actions (B, 10) and the correction they hold."""
        see = named(TrackIO, obs)
        held = see["finger_shares"].min(axis=1) > CLOSED
        error = np.concatenate([see["object_error"], see["object_turn"]], axis=1)
        residual = np.where(held[:, None], carry.residual + self.gain * error, 0.0)
        most = np.array([RESIDUAL] * 3 + [RESIDUAL_TURN] * 3)
        residual = np.clip(residual, -most, most)
        action = np.empty((len(obs), N_ACTION))
        action[:, :6] = residual / most
        action[:, 6:] = np.clip((SQUEEZE - see["finger_shares"]) / SYNERGY_STEP, -1.0, 1.0)
        return action, Correction(residual)
