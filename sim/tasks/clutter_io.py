"""What a policy of ``clutter`` sees: joints, the named object and the others, as a tracker and the words give them."""

from __future__ import annotations

import numpy as np

from palmar.sim.forms import FAMILIES
from palmar.sim.interface import Seen
from palmar.sim.kinematics import matrix
from palmar.sim.tasks.lift import surface_distance
from palmar.sim.tasks.palm import PalmIO

Array = np.ndarray
MOST = 6
"""Objects in a scene; worlds with fewer have the rest parked out of sight."""
GOAL = (
    "named", "present", "family", "half_x", "half_y", "half_z", "vertical", "horizontal", "colour", "x", "y", "choice",
)  # fmt: skip
"""Columns of a goal (B, MOST, 12): of each object, whether it is meant and there, its shape,
its place at the start and what is said."""
HALF, EXPONENT = slice(3, 6), slice(6, 8)


class ClutterIO(PalmIO):
    """What a policy sees and does, for B robots; the actions and their meaning are those of ``lift``."""

    obs_names = (
        "q", "qd", "target_error", "palm_to_object", "palm_axes", "object_position", "object_yaw2", "object_up",
        "tips_to_object", "tip_gaps", "last_action", "half_size", "family", "exponents", "others", "palm_target",
        "yaw_target", "finger_shares",
    )  # fmt: skip
    obs_sizes = (23, 23, 23, 3, 6, 3, 2, 3, 12, 4, 8, 3, len(FAMILIES), 2, 9 * (MOST - 1), 3, 1, 4)
    obs_units = (
        "rad", "rad/s", "rad", "m", "1", "m", "1", "1", "m", "m", "1", "m", "1", "1", "m", "m", "rad", "1",
    )  # fmt: skip

    def observe(self, seen: Seen) -> Array:
        """Observation (B, d) float32; the goal is ``GOAL``, (B, MOST, 12)."""
        b, goal = np.arange(self.batch), seen.goal
        self.hand = hand = self.kinematics.hand(seen.q)
        named = np.argmax(goal[..., 0], axis=1)
        mine, place = goal[b, named], seen.position[b, named]
        axes = matrix(seen.quaternion)
        body = axes[b, named]
        tips = hand.tips - place[:, None]
        family = mine[:, 2:3] == np.arange(len(FAMILIES))
        gaps = surface_distance(tips @ body, mine[:, HALF], family[:, FAMILIES.index("cylinder")])
        parts = (
            seen.q, seen.qd, self.target - seen.q, place - hand.palm, hand.rotation[:, :, :2].reshape(-1, 6), place,
            yaw2(body), body[:, :, 2], tips.reshape(-1, 12), gaps - self.kinematics.tip_radius, self.last_action,
            mine[:, HALF], family, mine[:, EXPONENT], self._others(seen, axes, place, named), self.palm - hand.palm,
            self.yaw[:, None], self.share,
        )  # fmt: skip
        return np.concatenate(parts, axis=1).astype(np.float32)

    def _others(self, seen: Seen, axes: Array, place: Array, named: Array) -> Array:
        """The other objects, nearest first, (B, 45): where from the named one, yaw, half extents, there or not."""
        away = seen.position - place[:, None]
        there = seen.goal[..., 1] > 0.5
        there[np.arange(self.batch), named] = False
        order = np.argsort(np.where(there, np.linalg.norm(away, axis=-1), np.inf), axis=1)[:, : MOST - 1]
        each = np.concatenate([away, yaw2(axes), seen.goal[..., HALF], there[..., None]], axis=-1)
        each = np.where(there[..., None], each, 0.0)
        return np.take_along_axis(each, order[..., None], axis=1).reshape(self.batch, -1)


def yaw2(axes: Array) -> Array:
    """Cosine and sine of twice the yaw of axes (..., 3, 3), (..., 2): of y, which a rolling capsule keeps."""
    yaw = 2 * np.arctan2(-axes[..., 0, 1], axes[..., 1, 1])
    return np.stack([np.cos(yaw), np.sin(yaw)], axis=-1)
