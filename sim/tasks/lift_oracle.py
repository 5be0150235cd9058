"""The scripted pinch of a block, for ``lift`` and for tasks that lift among other things; sees what a policy sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from palmar.sim.kinematics import rotation_z
from palmar.sim.scene import GRASP
from palmar.sim.tasks.lift import LiftIO
from palmar.sim.tasks.oracles import begun, fresh, named
from palmar.sim.tasks.palm import PALM_STEP, SYNERGY_STEP, YAW_STEP

Array = np.ndarray
ABOVE = 0.10
"""Height above the grasp before the descent [m]."""
CLOSING_STEPS = 12


@dataclass(frozen=True)
class Progress:
    """Where each robot is in the script."""

    phase: Array
    """0 across, 1 down, 2 close, 3 raise; (B,) int."""
    since: Array
    """Control steps in this phase, (B,) int."""
    grasp: Array
    """Palm position of the grasp, fixed when the fingers start to close [m], (B, 3)."""


@dataclass(frozen=True)
class PinchScript:
    """Across, down, close, raise; restarted with the episode.  Observations may be longer than ``LiftIO``'s."""

    travel: float | None = None
    """Height of the palm on its way [m]; None is ABOVE the grasp."""
    raised: float = 0.16
    """Height above the grasp at the end [m]."""
    squeeze: float = np.inf
    """How far the fingers close; without an end they press as hard as they can."""
    near: float = 0.02
    """The descent begins within this of the way's end [m]."""
    patience: tuple[int, int] = (30, 25)
    """Control steps after which across and down are over anyway."""

    def start(self, batch: int) -> Progress:
        """Every robot at the beginning."""
        return Progress(np.zeros(batch, int), np.zeros(batch, int), np.zeros((batch, 3)))

    def act(self, obs: Array, carry: Progress) -> tuple[Array, Progress]:
        """Actions (B, 8) and the progress after them."""
        see, want, fingers, progress = self.aim(obs, carry)
        action = np.concatenate([(want - see["palm_target"]) / PALM_STEP, fingers], axis=1)
        return begun(np.clip(action, -1, 1), fresh(see)), progress

    def aim(self, obs: Array, carry: Progress) -> tuple[dict[str, Array], Array, Array, Progress]:
        """What is next: observation by name, palm's way still to go [m], actions of yaw and fingers, progress."""
        see = named(LiftIO, obs)
        just = fresh(see)
        phase, since = np.where(just, 0, carry.phase), np.where(just, 0, carry.since)
        block, palm = see["block_position"], see["block_position"] - see["palm_to_block"]
        yaw = nearest_face(see)
        now = block + rotation_z(GRASP.yaw + yaw) @ np.array(GRASP.palm_pos)
        grasp = np.where((phase < 2)[:, None], now, carry.grasp)
        want = self._want(phase, grasp) - palm
        turning = np.where(phase < 2, (yaw - see["yaw_target"][:, 0]) / YAW_STEP, 0.0)
        closing = np.where((phase >= 2)[:, None], (self.squeeze - see["finger_shares"]) / SYNERGY_STEP, -1.0)
        error = np.linalg.norm(want, axis=1)
        done: list[Any] = [error < self.near, error < 0.006, since >= CLOSING_STEPS, False]
        ready = np.choose(phase, done) | (since > np.choose(phase, [*self.patience, 99, 10**9]))
        after = Progress(phase + ready, np.where(ready, 0, since + 1), grasp)
        return see, want, np.column_stack([turning, closing]), after

    def _want(self, phase: Array, grasp: Array) -> Array:
        """Where the palm should be [m], (B, 3)."""
        across, raised = grasp.copy(), grasp.copy()
        across[:, 2] = grasp[:, 2] + ABOVE if self.travel is None else self.travel
        raised[:, 2] += self.raised
        return np.choose(phase[:, None], [across, grasp, grasp, raised])


def nearest_face(see: dict[str, Array]) -> Array:
    """Turn from the nominal grasp to the nearest face of the block [rad], (B,), within 45 degrees."""
    block = np.arctan2(see["block_yaw4"][:, 1], see["block_yaw4"][:, 0]) / 4
    turn = block - GRASP.yaw
    turn -= np.pi / 2 * np.round(turn / (np.pi / 2))
    return np.where(see["is_round"][:, 0] > 0.5, 0.0, turn)


LiftOracle = PinchScript
