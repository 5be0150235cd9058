"""Palm and fingers as a policy moves them: the actions of ``lift`` and of every task that pinches.

A policy moves a set-point of the palm, its yaw, and the closing of four fingers.  Actions *accumulate* in the
set-point, which stays within ``LEASH`` of where the palm is: to bring the palm to a place, command the error less
``palm_target`` (the set-point's lead in the observation), never the error again and again.  Frames: world.
"""

from __future__ import annotations

import numpy as np

from palmar.safety.robot import RobotModel
from palmar.safety.types import ConfigError
from palmar.sim.kinematics import Hand, Kinematics, arm_step, rotation_z
from palmar.sim.scene import GRASP

Array = np.ndarray

ROBOTS = ("fr3_leap", "panda_leap")
"""Robots here whose hand's pinch is known."""
FINGER_OF = np.repeat(np.arange(4), 4)
"""Which of the four synergies moves each hand joint: index, middle, ring, thumb."""
PALM_STEP, YAW_STEP, SYNERGY_STEP = 0.02, 0.1, 0.15
"""Largest change per action: palm [m], yaw [rad], share of open to close."""
LEASH = 0.04
"""The palm's set-point stays within this distance of the palm [m], per axis."""
CLOSEST = 1.15
"""Largest share of open to close."""
N_ACTION = 8


class Follower:
    """Joint targets of B robots: the arm brings the palm towards a pose, fingers are between open and closed.

    Raises:
        ConfigError: If the pinch of the robot's hand is not known.
    """

    def __init__(self, robot: RobotModel, kinematics: Kinematics):
        hand, n = robot.joints[robot.n_arm :], robot.n_arm
        if set(hand) != set(GRASP.close):
            raise ConfigError(f"the pinch is known of {ROBOTS}, whose finger joints are others than {robot.name!r} has")
        self._kinematics, self._n = kinematics, n
        self._open, self._close = robot.home[n:], np.array([GRASP.close[j] for j in hand])
        self._low, self._high = robot.limits.q_min + 0.01, robot.limits.q_max - 0.01
        self.nominal = Kinematics(robot, 1).hand(robot.home[None]).rotation[0]
        """Palm axes at home, (3, 3)."""

    def joints(self, target: Array, palm: Array, rotation: Array, share: Array) -> Array:
        """Targets (B, n) one period after targets (B, n) [rad].

        Args:
            target: The last ones, not the measured arm: its servo lags 0.1 s.
            palm: Wanted palm origin [m], (B, 3).
            rotation: Wanted palm axes, (B, 3, 3).
            share: How far each finger joint is from open to closed, (B, n - n_arm).
        """
        dq = arm_step(self._kinematics.hand(target), palm, rotation)
        arm = target[:, : self._n] + np.clip(dq, -0.15, 0.15)
        fingers = self._open + share * (self._close - self._open)
        return np.clip(np.concatenate([arm, fingers], axis=1), self._low, self._high)


class PalmIO:
    """Actions of B robots, and what of the hand an observation may hold; what is seen of objects a subclass adds."""

    action_names = ("palm_x", "palm_y", "palm_z", "palm_yaw", "index", "middle", "ring", "thumb")
    action_units = ("m", "m", "m", "rad", "1", "1", "1", "1")
    action_scales = (PALM_STEP, PALM_STEP, PALM_STEP, YAW_STEP, *([SYNERGY_STEP] * 4))
    """What an action of 1 changes, in its unit; fingers: share of the way from open to closed."""
    action_dim = N_ACTION
    rate = 20.0
    obs_sizes: tuple[int, ...] = ()

    def __init__(self, robot: RobotModel, batch: int, *, nthread: int = 1):
        self.robot, self.batch = robot, batch
        self.kinematics = Kinematics(robot, batch, nthread=nthread)
        self._follower = Follower(robot, self.kinematics)
        self.target = np.tile(robot.home, (batch, 1))
        """Joint targets of the last action [rad], (B, n)."""
        self.hand: Hand = self.kinematics.hand(self.target)
        self.palm = np.zeros((batch, 3))
        """Set-point of the palm [m], (B, 3)."""
        self.yaw = np.zeros(batch)
        """Of the set-point, from home [rad], (B,)."""
        self.share = np.zeros((batch, 4))
        """Of open to close, index, middle, ring, thumb, (B, 4)."""
        self.last_action = np.zeros((batch, N_ACTION))

    @property
    def obs_dim(self) -> int:
        """Length of an observation."""
        return sum(self.obs_sizes)

    def reset(self, ids: Array, q: Array) -> None:
        """Start episodes of robots ``ids`` (k,) at rest at q (k, n)."""
        self.target[ids] = q
        self.hand = self.kinematics.hand(self.target)
        self.palm[ids], self.yaw[ids] = self.hand.palm[ids], 0.0
        self.share[ids], self.last_action[ids] = 0.0, 0.0

    def joint_target(self, action: Array) -> Array:
        """Joint targets (B, n) [rad] to be reached one policy period from now; after ``observe``.

        Args:
            action: (B, 8) in [-1, 1]: palm x, y, z, yaw, and closing of index, middle, ring, thumb.
        """
        self.last_action = action = np.clip(action, -1.0, 1.0)
        self.palm = np.clip(self.palm + PALM_STEP * action[:, :3], self.hand.palm - LEASH, self.hand.palm + LEASH)
        self.yaw = np.clip(self.yaw + YAW_STEP * action[:, 3], -1.6, 1.6)
        self.share = np.clip(self.share + SYNERGY_STEP * action[:, 4:], 0.0, CLOSEST)
        rotation = rotation_z(self.yaw) @ self._follower.nominal
        self.target = self._follower.joints(self.target, self.palm, rotation, self.share[:, FINGER_OF])
        return self.target
