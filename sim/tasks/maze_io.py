"""What a policy of ``maze`` feels and does: the same in training and on a robot.  Frames: world."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

from palmar.safety.robot import RobotModel
from palmar.safety.types import ConfigError
from palmar.sim.interface import Seen
from palmar.sim.kinematics import Hand, Kinematics, arm_step, matrix
from palmar.sim.tasks.maze_impedance import CartesianStiffness, point_jacobian

Array = np.ndarray

PEG_LENGTH, PEG_RADIUS = 0.15, 0.010
"""From the palm's origin to the peg's end, and radius [m]."""
HOVER = 0.020
"""Height of the peg's end above the table [m]: softness in x lets it sink by a quarter of its deflection."""
STEP = 0.01
"""Largest change of the set-point per action [m]."""
LEASH = 0.05
"""The set-point stays within this of the peg, per axis [m]: the force stays below stiffness times leash."""
STIFF = 335.0
"""Stiffness of an action of 0 [N/m]."""
STIFF_RATIO = 5.0**0.5
"""An action of 1 multiplies it by this: 150 to 750 N/m."""
AREA = ((0.38, -0.13), (0.68, 0.13))
"""The set-point stays in this rectangle [m]."""
N_ACTION = 4


class MazeIO:
    """What a policy feels and does, for B robots."""

    action_names = ("set_point_x", "set_point_y", "stiffness_x", "stiffness_y")
    action_units = ("m", "m", "1", "1")
    action_scales = (STEP, STEP, STIFF_RATIO, STIFF_RATIO)
    """What an action of 1 changes; stiffness: the factor on STIFF."""
    action_dim = N_ACTION
    rate = 20.0
    obs_names = ("wrench", "peg", "set_point_error", "to_exit", "stiffness", "q", "qd", "last_action")
    obs_sizes = (6, 3, 2, 2, 2, 7, 7, N_ACTION)
    obs_units = ("N, N m", "m", "m", "m", "1", "rad", "rad/s", "1")

    def __init__(self, robot: RobotModel, batch: int, *, nthread: int = 1):
        self.robot, self.batch = robot, batch
        self.kinematics = Kinematics(robot, batch, nthread=nthread)
        self._stiffness = CartesianStiffness(robot)
        self._hanging, self._tip = Hanging(robot, self.kinematics), peg_end(robot)
        self._point = np.zeros((batch, 2))
        self._ratio = np.ones((batch, 2))
        self._last_action = np.zeros((batch, N_ACTION))
        self.target = np.tile(robot.home, (batch, 1))
        """Joint targets of the last action [rad], (B, n)."""
        self.hand: Hand = self.kinematics.hand(self.target)

    @property
    def obs_dim(self) -> int:
        """Length of an observation."""
        return sum(self.obs_sizes)

    @property
    def peg(self) -> Array:
        """The peg's end by the newest joint readings [m], (B, 3)."""
        return self.hand.palm + self.hand.rotation @ self._tip

    @property
    def impedance(self) -> tuple[Array, Array]:
        """Stiffness [N m/rad] and damping [N m s/rad] of the servos, (B, n) each."""
        offset = self.hand.rotation @ self._tip
        return self._stiffness.joints(point_jacobian(self.hand.jacobian, offset), STIFF * self._ratio)

    def reset(self, ids: Array, q: Array) -> None:
        """Start episodes of robots ``ids`` (k,) at rest at q (k, n)."""
        self.target[ids] = q
        self.hand = self.kinematics.hand(self.target)
        self._point[ids] = self.peg[ids, :2]
        self._ratio[ids], self._last_action[ids] = 1.0, 0.0

    def observe(self, seen: Seen) -> Array:
        """Observation (B, d) float32; the goal is the exit (B, 2) [m]."""
        self.hand = self.kinematics.hand(seen.q)
        n, peg = self.robot.n_arm, self.peg
        wrench = np.zeros((self.batch, 6)) if seen.wrench is None else seen.wrench
        parts = (
            wrench, peg, self._point - peg[:, :2], seen.goal - peg[:, :2], np.log(self._ratio) / np.log(STIFF_RATIO),
            seen.q[:, :n], seen.qd[:, :n], self._last_action,
        )  # fmt: skip
        return np.concatenate(parts, axis=1).astype(np.float32)

    def joint_target(self, action: Array) -> Array:
        """Joint targets (B, n) [rad] to be reached one policy period from now; after ``observe``.

        Args:
            action: (B, 4) in [-1, 1]: set-point x and y, stiffness in x and y.
        """
        action = np.clip(action, -1.0, 1.0)
        self._last_action, self._ratio = action, STIFF_RATIO ** action[:, 2:]
        at = self.peg[:, :2]
        point = np.clip(self._point + STEP * action[:, :2], at - LEASH, at + LEASH)
        self._point = np.clip(point, *np.array(AREA))
        self.target = self._hanging.nearer(self.target, self._point)
        return self.target.copy()


class Hanging:
    """Where the joints must be for the peg to hang straight down over a point.

    Args:
        robot: Its limits are kept.
        kinematics: Anything with ``hand(q)``.
    """

    def __init__(self, robot: RobotModel, kinematics: Any):
        self._kinematics, self._n = kinematics, robot.n_arm
        self._tip, self._upright = peg_end(robot), upright(robot)
        self._low, self._high = robot.limits.q_min + 0.01, robot.limits.q_max - 0.01

    def nearer(self, q: Array, point: Array) -> Array:
        """Joint positions (B, n) nearer to it than q (B, n), for points (B, 2) [m]."""
        hand = self._kinematics.hand(q)
        palm = np.concatenate([point, np.full((len(point), 1), HOVER)], axis=1) - self._upright @ self._tip
        dq = arm_step(hand, palm, np.broadcast_to(self._upright, (len(point), 3, 3)))
        q = q.copy()
        q[:, : self._n] += np.clip(dq, -0.15, 0.15)
        return np.clip(q, self._low, self._high)

    def over(self, q: Array, point: Array) -> Array:
        """Joint positions (B, n) with the peg over points (B, 2) [m], searched from q (B, n).

        Raises:
            ConfigError: If a point is out of reach.
        """
        for _ in range(200):
            before, q = q, self.nearer(q, point)
            far = np.abs(q - before).max(axis=1)
            if far.max() < 1e-5:
                return q
        raise ConfigError(f"the arm does not hang a peg over {point[int(far.argmax())].tolist()} m")


def peg_end(robot: RobotModel) -> Array:
    """The peg's end in the palm's frame [m], (3,): along the flange's axis."""
    return PEG_LENGTH * _palm_turn(robot).T @ np.array([0.0, 0.0, 1.0])


def upright(robot: RobotModel) -> Array:
    """Palm axes in the world (3, 3) with the flange pointing straight down and its x forward."""
    return np.diag([1.0, -1.0, -1.0]) @ _palm_turn(robot)


def _palm_turn(robot: RobotModel) -> Array:
    """Palm axes in the flange's frame, (3, 3)."""
    return matrix(mujoco.MjModel.from_xml_string(robot.xml).body(robot.palm_body).quat)
