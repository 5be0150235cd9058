"""What a policy of ``track`` sees and does: residuals of a planned wrist path, and finger synergies.  Frames: world."""

from __future__ import annotations

import numpy as np

from palmar.safety.robot import RobotModel
from palmar.sim.interface import Seen
from palmar.sim.kinematics import Hand, Kinematics, Placed, matrix, rotation_vector, rotation_z
from palmar.sim.scene import GRASP
from palmar.sim.tasks.palm import CLOSEST, FINGER_OF, SYNERGY_STEP, Follower
from palmar.sim.trajectories import between

Array = np.ndarray

GOAL_RATE = 20.0
"""Poses per second of a goal [Hz]."""
AHEAD = (2, 4, 8, 12, 16)
"""Goals that are seen, so many poses ahead of now."""
RESIDUAL, RESIDUAL_TURN = 0.04, 0.5
"""Largest departure from the planned wrist path [m, rad]; Obj-Dex's (arXiv 2411.04005)."""
SMOOTH = 0.5
"""Weight of the newest residual (Obj-Dex smooths actions likewise)."""
LEAD = 0.15
"""The plan is read so far ahead [s]: one control step, and the servos' 0.1 s."""
N_ACTION = 10


class TrackIO:
    """Observations and joint targets of B robots; the goal is a trajectory of the object (B, N, 7) at GOAL_RATE."""

    action_names = (
        "residual_x", "residual_y", "residual_z", "turn_x", "turn_y", "turn_z", "index", "middle", "ring", "thumb",
    )  # fmt: skip
    action_units = (*["m"] * 3, *["rad"] * 3, *["1"] * 4)
    action_scales = (*[RESIDUAL] * 3, *[RESIDUAL_TURN] * 3, *[SYNERGY_STEP] * 4)
    action_dim = N_ACTION
    rate = 20.0
    obs_names = (
        "q", "qd", "target_error", "object_error", "object_turn", "ahead", "ahead_turn", "palm_to_object", "palm_axes",
        "tips_to_object", "residual", "finger_shares", "last_action", "time_left",
    )  # fmt: skip
    obs_sizes = (23, 23, 23, 3, 3, 3 * len(AHEAD), 3 * len(AHEAD), 3, 6, 12, 6, 4, N_ACTION, 1)
    obs_units = ("rad", "rad/s", "rad", "m", "rad", "m", "rad", "m", "1", "m", "m, rad", "1", "1", "s")

    def __init__(self, robot: RobotModel, batch: int, *, nthread: int = 1):
        self.robot, self.batch = robot, batch
        self.kinematics = Kinematics(robot, batch, nthread=nthread)
        self._follower = Follower(robot, self.kinematics)
        self._place = grasp_of(robot)
        self._goal: Array | None = None
        self._age = np.zeros(batch)
        self._residual, self._share = np.zeros((batch, 6)), np.zeros((batch, 4))
        self._last_action = np.zeros((batch, N_ACTION))
        self.target = np.tile(robot.home, (batch, 1))
        """Joint targets of the last action [rad], (B, n)."""
        self.hand: Hand = self.kinematics.hand(self.target)

    @property
    def obs_dim(self) -> int:
        """Length of an observation."""
        return sum(self.obs_sizes)

    def reset(self, ids: Array, q: Array) -> None:
        """Start episodes of robots ``ids`` (k,) at rest at q (k, n), the hand open around the object."""
        self.target[ids] = q
        self._age[ids], self._residual[ids], self._share[ids], self._last_action[ids] = 0.0, 0.0, 0.0, 0.0

    def observe(self, seen: Seen) -> Array:
        """Observation (B, d) float32."""
        self.hand, self._goal = self.kinematics.hand(seen.q), seen.goal
        hand, at, turned = self.hand, seen.position[:, 0], matrix(seen.quaternion[:, 0])
        now = goal_at(seen.goal, self._age)
        ahead = [goal_at(seen.goal, self._age + k / GOAL_RATE) for k in AHEAD]
        turns = [rotation_vector(matrix(g[:, 3:]) @ turned.swapaxes(1, 2)) for g in (now, *ahead)]
        left = seen.goal.shape[1] / GOAL_RATE - self._age
        parts = (
            seen.q, seen.qd, self.target - seen.q, now[:, :3] - at, turns[0],
            np.concatenate([g[:, :3] - at for g in ahead], axis=1), np.concatenate(turns[1:], axis=1), at - hand.palm,
            hand.rotation[:, :, :2].reshape(-1, 6), (hand.tips - at[:, None]).reshape(-1, 12), self._residual,
            self._share, self._last_action, left[:, None],
        )  # fmt: skip
        return np.concatenate(parts, axis=1).astype(np.float32)

    def joint_target(self, action: Array) -> Array:
        """Joint targets (B, n) [rad] to be reached one policy period from now; after ``observe``.

        Args:
            action: (B, 10) in [-1, 1]: departure from the plan (x, y, z, rotation vector), closing of each finger.
        """
        action = np.clip(action, -1.0, 1.0)
        self._last_action = action
        asked = action[:, :6] * np.array(self.action_scales[:6])
        self._residual = (1 - SMOOTH) * self._residual + SMOOTH * asked
        self._share = np.clip(self._share + SYNERGY_STEP * action[:, 6:], 0.0, CLOSEST)
        assert self._goal is not None, "observe comes first"
        palm, turned = self._place(goal_at(self._goal, self._age + LEAD))
        self._age = self._age + 1 / self.rate
        palm, turned = palm + self._residual[:, :3], rotation_of(self._residual[:, 3:]) @ turned
        self.target = self._follower.joints(self.target, palm, turned, self._share[:, FINGER_OF])
        return self.target.copy()


def goal_at(goal: Array, t: Array) -> Array:
    """Wanted object poses (B, 7) at ages t (B,) [s]; at its ends a trajectory stands still."""
    x = np.clip(t * GOAL_RATE, 0.0, goal.shape[1] - 1.0)
    k = np.minimum(x.astype(int), goal.shape[1] - 2)
    b = np.arange(len(goal))
    return between(goal[b, k], goal[b, k + 1], x - k)


def grasp_of(robot: RobotModel):
    """The function from object poses (B, 7) to the palm of the pinch: position (B, 3) [m], axes (B, 3, 3)."""
    nominal = Placed(robot).hand(robot.home[None]).rotation[0]
    offset = rotation_z(np.array([GRASP.yaw]))[0] @ np.array(GRASP.palm_pos)

    def place(pose: Array) -> tuple[Array, Array]:
        turned = matrix(pose[:, 3:])
        return pose[:, :3] + turned @ offset, turned @ nominal

    return place


def rotation_of(vector: Array) -> Array:
    """Rotation matrices (B, 3, 3) of rotation vectors (B, 3) [rad]."""
    half = 0.5 * np.linalg.norm(vector, axis=1, keepdims=True)
    return matrix(np.concatenate([np.cos(half), 0.5 * np.sinc(half / np.pi) * vector], axis=1))
