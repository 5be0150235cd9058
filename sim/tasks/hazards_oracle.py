"""Scripted policies for ``hazards``: one that goes over what it may not touch, and one that does not know of it.

Both are one script and differ only in the height of the way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from palmar.sim.kinematics import rotation_z
from palmar.sim.scene import GRASP
from palmar.sim.tasks.lift import N_ACTION, PALM_STEP, SYNERGY_STEP, YAW_STEP, LiftIO
from palmar.sim.tasks.lift_oracle import CLOSING_STEPS

Array = np.ndarray
TRAVEL = 0.30
"""Height of the palm on its way: the fingertips are 8 cm lower, the highest hazard ends at 0.18 [m]."""
ABOVE, RAISE = 0.10, 0.13
"""Heights above the grasp: on a straight way, and at the end [m]."""
SQUEEZE = 0.9
"""How far the fingers close: with more a cylinder creeps out of the grip within 2 s, with less a heavy cube does."""


@dataclass(frozen=True)
class Progress:
    """Where each robot is in the script."""

    phase: Array
    """0 across, 1 down, 2 close, 3 raise; (B,) int."""
    since: Array
    """Control steps in this phase, (B,) int."""
    grasp: Array
    """Palm position of the grasp, fixed when the fingers start to close [m], (B, 3)."""


class Script:
    """Across, down, close, raise: the grasp of ``lift``'s oracle, at a height of one's own on the way.

    Args:
        travel: Height of the palm on the way [m]; None goes straight, as the oracle of ``lift`` does.
    """

    def __init__(self, travel: float | None) -> None:
        self._travel = travel
        edges = np.cumsum((0, *LiftIO.obs_sizes))
        self._slices = {n: slice(a, b) for n, a, b in zip(LiftIO.obs_names, edges[:-1], edges[1:], strict=True)}

    def start(self, batch: int) -> Progress:
        """Every robot at the beginning."""
        return Progress(np.zeros(batch, int), np.zeros(batch, int), np.zeros((batch, 3)))

    def act(self, obs: Array, carry: Progress) -> tuple[Array, Progress]:
        """Actions (B, 8) and the progress after them."""
        see, fresh, want, fingers, progress = self.aim(obs, carry)
        action = np.zeros((len(obs), N_ACTION))
        action[:, :3] = (want - see["palm_target"]) / PALM_STEP
        action[:, 3:] = fingers
        action = np.clip(action, -1, 1)
        action[fresh & (np.abs(action).sum(1) == 0), 0] = 1e-6  # so that a started episode does not look fresh
        return action, progress

    def aim(self, obs: Array, carry: Progress) -> tuple[dict[str, Array], Array, Array, Array, Progress]:
        """What is next: observation by name, which are fresh, palm's way still to go [m], yaw and fingers, progress."""
        see = {n: obs[:, s].astype(np.float64) for n, s in self._slices.items()}
        fresh = np.abs(see["last_action"]).sum(1) == 0
        phase, since = np.where(fresh, 0, carry.phase), np.where(fresh, 0, carry.since)
        block, palm = see["block_position"], see["block_position"] - see["palm_to_block"]
        yaw = nearest_face(see)
        now = block + rotation_z(GRASP.yaw + yaw) @ np.array(GRASP.palm_pos)
        grasp = np.where((phase < 2)[:, None], now, carry.grasp)
        want = self._want(phase, grasp) - palm
        fingers = np.empty((len(obs), N_ACTION - 3))
        fingers[:, 0] = np.where(phase < 2, (yaw - see["yaw_target"][:, 0]) / YAW_STEP, 0.0)
        closing = (SQUEEZE - see["finger_shares"]) / SYNERGY_STEP
        fingers[:, 1:] = np.where((phase >= 2)[:, None], closing, -1.0)
        error = np.linalg.norm(want, axis=1)
        done: list[Any] = [error < 0.012, error < 0.006, since >= CLOSING_STEPS, False]
        ready = np.choose(phase, done) | (since > np.choose(phase, [90, 40, 99, 10**9]))
        return see, fresh, want, fingers, Progress(phase + ready, np.where(ready, 0, since + 1), grasp)

    def _want(self, phase: Array, grasp: Array) -> Array:
        """Where the palm should be [m], (B, 3)."""
        across, raised = grasp.copy(), grasp.copy()
        across[:, 2] = grasp[:, 2] + ABOVE if self._travel is None else self._travel
        raised[:, 2] += RAISE
        return np.choose(phase[:, None], [across, grasp, grasp, raised])


def nearest_face(see: dict[str, Array]) -> Array:
    """Turn from the nominal grasp to the nearest face of the block [rad], (B,), within 45 degrees."""
    block = np.arctan2(see["block_yaw4"][:, 1], see["block_yaw4"][:, 0]) / 4
    turn = block - GRASP.yaw
    turn -= np.pi / 2 * np.round(turn / (np.pi / 2))
    return np.where(see["is_round"][:, 0] > 0.5, 0.0, turn)


def careful() -> Script:
    """Over everything that may not be touched."""
    return Script(TRAVEL)


def unaware() -> Script:
    """Straight to the block."""
    return Script(None)
