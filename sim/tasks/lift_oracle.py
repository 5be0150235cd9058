"""Scripted policies for ``lift``, for comparison: one that knows the grasp, one that does nothing.

Both see only the deployed observation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from palmar.sim.kinematics import rotation_z
from palmar.sim.scene import GRASP
from palmar.sim.tasks.lift import N_ACTION, PALM_STEP, YAW_STEP, LiftIO

Array = np.ndarray
ABOVE, RAISE = 0.10, 0.16
"""Heights above the grasp: before the descent, and at the end [m]."""
CLOSING_STEPS = 12


@dataclass(frozen=True)
class Progress:
    """Where each robot is in the script."""

    phase: Array
    """0 go above, 1 descend, 2 close, 3 raise; (B,) int."""
    since: Array
    """Control steps in this phase, (B,) int."""
    grasp: Array
    """Palm position of the grasp, fixed when the fingers start to close [m], (B, 3)."""


class LiftOracle:
    """Above, down, close, raise; restarted by the age of the episode (all fingers open again)."""

    def __init__(self) -> None:
        edges = np.cumsum((0, *LiftIO.obs_sizes))
        self._slices = {n: slice(a, b) for n, a, b in zip(LiftIO.obs_names, edges[:-1], edges[1:], strict=True)}

    def start(self, batch: int) -> Progress:
        """Every robot at the beginning."""
        return Progress(np.zeros(batch, int), np.zeros(batch, int), np.zeros((batch, 3)))

    def act(self, obs: Array, carry: Progress) -> tuple[Array, Progress]:
        """Actions (B, 8) and the progress after them."""
        see = {n: obs[:, s].astype(np.float64) for n, s in self._slices.items()}
        fresh = np.abs(see["last_action"]).sum(1) == 0
        phase, since = np.where(fresh, 0, carry.phase), np.where(fresh, 0, carry.since)
        block, palm = see["block_position"], see["block_position"] - see["palm_to_block"]
        yaw = self._yaw(see)
        now = block + (rotation_z(GRASP.yaw + yaw) @ np.array(GRASP.palm_pos))
        grasp = np.where((phase < 2)[:, None], now, carry.grasp)
        height = np.choose(phase, [ABOVE, 0.0, 0.0, RAISE])
        want = grasp + np.stack([0 * height, 0 * height, height], 1)
        action = np.zeros((len(obs), N_ACTION))
        action[:, :3] = (want - palm - see["palm_target"]) / PALM_STEP
        action[:, 3] = np.where(phase < 2, (yaw - see["yaw_target"][:, 0]) / YAW_STEP, 0.0)
        action[:, 4:] = np.where((phase >= 2)[:, None], 1.0, -1.0)
        error = np.linalg.norm(want - palm, axis=1)
        done: list[Any] = [error < 0.02, error < 0.006, since >= CLOSING_STEPS, False]
        ready = np.choose(phase, done)
        patience = np.choose(phase, [30, 25, 99, 10**9])
        ready |= since > patience
        action = np.clip(action, -1, 1)
        action[fresh & (np.abs(action).sum(1) == 0), 0] = 1e-6  # so that a started episode does not look fresh
        return action, Progress(phase + ready, np.where(ready, 0, since + 1), grasp)

    def _yaw(self, see: dict[str, Array]) -> Array:
        """Turn from the nominal grasp to the nearest face of the block [rad], (B,), within 45 degrees."""
        block = np.arctan2(see["block_yaw4"][:, 1], see["block_yaw4"][:, 0]) / 4
        turn = block - GRASP.yaw
        turn -= np.pi / 2 * np.round(turn / (np.pi / 2))
        return np.where(see["is_round"][:, 0] > 0.5, 0.0, turn)


class DoNothing:
    """Keeps the arm where it is."""

    def start(self, batch: int) -> None:
        """No memory."""
        return None

    def act(self, obs: Array, carry: None) -> tuple[Array, None]:
        """Zero actions (B, 8)."""
        return np.zeros((len(obs), N_ACTION)), None
