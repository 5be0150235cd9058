"""Scripted policies for ``coworker``: one that slows down and waits for people, one that does not.

Both follow ``unaware``, the script of ``hazards`` on a straight way.
"""

from __future__ import annotations

import numpy as np

from palmar.safety.margins import separation_speed
from palmar.sim import sightline
from palmar.sim.tasks.coworker import CoworkerIO
from palmar.sim.tasks.hazards_oracle import unaware
from palmar.sim.tasks.lift_oracle import Progress
from palmar.sim.tasks.oracles import begun, fresh, named
from palmar.sim.tasks.palm import LEASH, N_ACTION, PALM_STEP

Array = np.ndarray

HUMAN, REACTION, BRAKE, INTRUSION = 1.6, 0.06, 2.5, 0.07
"""Of ``speed_separation`` in the constraint file, its error included."""
LAG = 0.2
"""The palm follows its target at the distance between them divided by this [s]."""
AHEAD = 0.35
"""The person's approach is looked ahead by this: tracker, policy, servos [s]."""
OLD = 0.14
"""A report older than this counts as lost [s]."""
HAND, ARM, PERSON = 0.13, 0.09, 0.055
"""Radii around palm to wrist, wrist to shoulder, and the person's arm [m]."""
SHARE = 0.7
"""Of the allowed speed: other links are faster than the palm."""
CRAWL = 0.03
"""Below this speed nothing moves [m/s]."""


class Yielding:
    """The script, never faster than the distance of the person allows, and at rest where nothing is known."""

    def __init__(self) -> None:
        self._script = unaware()

    def start(self, batch: int) -> Progress:
        """Every robot at the beginning."""
        return self._script.start(batch)

    def act(self, obs: Array, carry: Progress) -> tuple[Array, Progress]:
        """Actions (B, 8) and the progress after them; a robot that waits makes none."""
        see, want, fingers, progress = self._script.aim(obs, carry)
        speed = self._allowed(obs)
        reach = np.linalg.norm(want, axis=1)
        leash = np.minimum(LEASH, LAG * speed)
        want = want * np.minimum(1.0, leash / np.maximum(reach, 1e-9))[:, None]
        rests = speed < CRAWL
        action = np.empty((len(obs), N_ACTION))
        action[:, :3] = (np.where(rests[:, None], 0.0, want) - see["palm_target"]) / PALM_STEP
        share = np.clip(speed / 0.3, 0.0, 1.0)[:, None]
        action[:, 3:] = np.where(rests[:, None], 0.0, np.clip(fingers, -share, share))
        back = rests & ~fresh(see)
        kept = Progress(
            np.where(back, carry.phase, progress.phase),
            np.where(back, carry.since, progress.since),
            np.where(back[:, None], carry.grasp, progress.grasp),
        )
        return begun(np.clip(action, -1, 1), np.ones(len(obs), dtype=bool)), kept

    def _allowed(self, obs: Array) -> Array:
        """Speed that the newest report allows [m/s], (B,)."""
        see = named(CoworkerIO, obs)
        ends, velocity = see["palm_to_person"].reshape(-1, 2, 3), see["person_velocity"]
        palm = see["block_position"] - see["palm_to_block"]
        wrist = np.array(sightline.WRIST_UP)
        shoulder = np.array(sightline.SHOULDER) - palm
        hand = sightline.segment_distance(ends[:, 0], ends[:, 1], 0 * palm, 0 * palm + wrist) - HAND
        arm = sightline.segment_distance(ends[:, 0], ends[:, 1], 0 * palm + wrist, shoulder) - ARM
        distance = np.minimum(hand, arm) - PERSON - AHEAD * self._coming(ends, velocity)
        room = np.where(see["person_age"][:, 0] > OLD, 0.0, np.maximum(0.0, distance))
        return SHARE * separation_speed(room, human=HUMAN, reaction=REACTION, brake=BRAKE, intrusion=INTRUSION)

    def _coming(self, ends: Array, velocity: Array) -> Array:
        """How fast the person's fingertips come nearer to the palm [m/s], (B,), >= 0."""
        towards = -ends[:, 0] / np.maximum(np.linalg.norm(ends[:, 0], axis=1, keepdims=True), 1e-6)
        return np.maximum(0.0, np.sum(towards * velocity, axis=1))
