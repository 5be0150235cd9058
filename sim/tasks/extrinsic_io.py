"""What a policy of ``edge`` and ``wall`` sees and does: the same in training and on a robot.  Frames: world."""

from __future__ import annotations

import numpy as np

from palmar.safety.robot import RobotModel
from palmar.sim.interface import Seen
from palmar.sim.kinematics import Hand, Kinematics, matrix, rotation_z
from palmar.sim.tasks.palm import LEASH, PALM_STEP, SYNERGY_STEP, YAW_STEP, Follower

Array = np.ndarray

FINGER_OF = np.repeat((0, 1, 3, 2), 4)
"""Which synergy moves each hand joint: index, middle, thumb; 3 is the ring finger, which stays folded."""
PITCH_STEP = 0.1
"""Largest change of the palm's pitch per action [rad]."""
TIGHTEST = np.array([1.4, 1.8, 1.15])
"""Largest shares: fingers close further than in ``lift``, for plates thinner than its blocks."""
N_ACTION = 8


class ExtrinsicIO:
    """What a policy sees and does, for B robots.

    The goal is (B, 5): half size of the box, place and height of the edge or wall [m], as whoever sets the task up
    measures them.
    """

    action_names = ("palm_x", "palm_y", "palm_z", "palm_yaw", "palm_pitch", "index", "middle", "thumb")
    action_units = ("m", "m", "m", "rad", "rad", "1", "1", "1")
    action_scales = (PALM_STEP, PALM_STEP, PALM_STEP, YAW_STEP, PITCH_STEP, *([SYNERGY_STEP] * 3))
    """What an action of 1 changes, in its unit; fingers: share of the way from open to closed."""
    action_dim = N_ACTION
    rate = 20.0
    obs_names = (
        "q", "qd", "target_error", "palm_to_box", "palm_axes", "box_position", "box_axes", "tips_to_box",
        "last_action", "goal", "palm_target", "turn_target", "finger_shares",
    )  # fmt: skip
    obs_sizes = (23, 23, 23, 3, 6, 3, 6, 12, N_ACTION, 5, 3, 2, 3)
    obs_units = ("rad", "rad/s", "rad", "m", "1", "m", "1", "m", "1", "m", "m", "rad", "1")

    def __init__(self, robot: RobotModel, batch: int, *, nthread: int = 1):
        self.robot, self.batch = robot, batch
        self.kinematics = Kinematics(robot, batch, nthread=nthread)
        self._follower = Follower(robot, self.kinematics)
        self._palm, self._turn = np.zeros((batch, 3)), np.zeros((batch, 2))
        self._share, self._last_action = np.zeros((batch, 4)), np.zeros((batch, N_ACTION))
        self.target = np.tile(robot.home, (batch, 1))
        """Joint targets of the last action [rad], (B, n)."""
        self.hand: Hand = self.kinematics.hand(self.target)

    @property
    def obs_dim(self) -> int:
        """Length of an observation."""
        return sum(self.obs_sizes)

    def reset(self, ids: Array, q: Array) -> None:
        """Start episodes of robots ``ids`` (k,) at rest at q (k, n)."""
        self.target[ids] = q
        self.hand = self.kinematics.hand(self.target)
        self._palm[ids], self._turn[ids] = self.hand.palm[ids], 0.0
        self._share[ids], self._last_action[ids] = 0.0, 0.0

    def observe(self, seen: Seen) -> Array:
        """Observation (B, d) float32."""
        self.hand = hand = self.kinematics.hand(seen.q)
        box, axes = seen.position[:, 0], matrix(seen.quaternion[:, 0])
        tips = (hand.tips - box[:, None]) @ axes
        parts = (
            seen.q, seen.qd, self.target - seen.q, box - hand.palm, hand.rotation[:, :, :2].reshape(-1, 6), box,
            axes[:, :, ::2].reshape(-1, 6), tips.reshape(-1, 12), self._last_action, seen.goal,
            self._palm - hand.palm, self._turn, self._share[:, :3],
        )  # fmt: skip
        return np.concatenate(parts, axis=1).astype(np.float32)

    def joint_target(self, action: Array) -> Array:
        """Joint targets (B, n) [rad] to be reached one policy period from now; after ``observe``.

        Args:
            action: (B, 8) in [-1, 1]: palm x, y, z, yaw about z, then pitch about the hand's own grasp-free
                horizontal axis, and closing of index, middle, thumb.
        """
        self._last_action = action = np.clip(action, -1.0, 1.0)
        self._palm = np.clip(self._palm + PALM_STEP * action[:, :3], self.hand.palm - LEASH, self.hand.palm + LEASH)
        step = np.array([YAW_STEP, PITCH_STEP]) * action[:, 3:5]
        self._turn = np.clip(self._turn + step, [-1.7, -1.7], [1.7, 0.4])
        self._share[:, :3] = np.clip(self._share[:, :3] + SYNERGY_STEP * action[:, 5:], 0.0, TIGHTEST)
        rotation = rotation_z(self._turn[:, 0]) @ rotation_x(self._turn[:, 1]) @ self._follower.nominal
        self.target = self._follower.joints(self.target, self._palm, rotation, self._share[:, FINGER_OF])
        return self.target


def rotation_x(angle: Array) -> Array:
    """Rotation about x by angle (B,) [rad], (B, 3, 3)."""
    c, s, o, i = np.cos(angle), np.sin(angle), np.zeros_like(angle), np.ones_like(angle)
    return np.stack([i, o, o, o, c, -s, o, s, c], axis=-1).reshape(-1, 3, 3)
