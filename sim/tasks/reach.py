"""Bring the palm to a pose: the smallest task, for a first minute with Palmar and for tests.

Goals are palm poses of random joint vectors that clear the table and the robot itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from palmar.safety.geometry import Kinematics as Clearances
from palmar.safety.robot import RobotModel
from palmar.safety.types import ConfigError
from palmar.sim.interface import Seen, Start, View
from palmar.sim.kinematics import Hand, Kinematics, matrix, quaternion, rotation_vector
from palmar.sim.tasks.plain import Plain, check
from palmar.sim.tracker import TrackerConfig

Array = np.ndarray
JOINT_STEP = 0.08
"""Largest change of an arm joint per action [rad]."""


@dataclass(frozen=True)
class ReachConfig:
    """Difficulty of the task."""

    max_steps: int = 60
    """Length of an episode [control steps]."""
    rate: float = 20.0
    """Control steps per second [Hz]."""
    hold: float = 0.5
    """How long to stay at the goal [s]."""
    position: float = 0.02
    """Tolerance of the palm's position [m]."""
    angle: float = 0.2
    """Tolerance of its orientation [rad]."""
    spread: float = 0.5
    """Goals and starts are drawn within this of the rest pose, per arm joint [rad]."""
    height: float = 0.06
    """Links of starts and goals are this far above the table [m]."""
    friction: tuple[float, float] = (1.0, 1.0)
    """Unused: nothing is touched; drawn like every task's."""
    mass: tuple[float, float] = (0.1, 0.1)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    constraints: tuple[str, ...] = ()
    """Names of the constraints that give costs; empty means every one of the file."""

    def __post_init__(self) -> None:
        check("reach", self, positive=("position", "angle", "spread"))


class ReachIO:
    """What a policy sees and does: joint readings and the goal; changes of the arm's joint targets."""

    action_names = tuple(f"joint{k}" for k in range(1, 8))
    action_units = ("rad",) * 7
    action_scales = (JOINT_STEP,) * 7
    action_dim = 7
    rate = 20.0
    obs_names = ("q", "qd", "target_error", "goal_position", "goal_turn", "palm_axes", "last_action")
    obs_sizes = (7, 7, 7, 3, 3, 6, 7)
    obs_units = ("rad", "rad/s", "rad", "m", "rad", "1", "1")

    def __init__(self, robot: RobotModel, batch: int, *, nthread: int = 1):
        self.robot, self.batch = robot, batch
        self.kinematics = Kinematics(robot, batch, nthread=nthread)
        self._low, self._high = robot.limits.q_min + 0.01, robot.limits.q_max - 0.01
        self._last_action = np.zeros((batch, 7))
        self.target = np.tile(robot.home, (batch, 1))
        """Joint targets of the last action [rad], (B, n)."""
        self.hand: Hand = self.kinematics.hand(self.target)

    @property
    def obs_dim(self) -> int:
        """Length of an observation."""
        return sum(self.obs_sizes)

    def reset(self, ids: Array, q: Array) -> None:
        """Start episodes of robots ``ids`` (k,) at rest at q (k, n)."""
        self.target[ids], self._last_action[ids] = q, 0.0

    def observe(self, seen: Seen) -> Array:
        """Observation (B, d) float32; the goal is the wanted palm pose (B, 7): position [m], w-x-y-z."""
        q, qd, goal = seen.q, seen.qd, seen.goal
        self.hand = hand = self.kinematics.hand(q)
        n = self.robot.n_arm
        turn = rotation_vector(matrix(goal[:, 3:]) @ hand.rotation.swapaxes(1, 2))
        parts = (
            q[:, :n], qd[:, :n], self.target[:, :n] - q[:, :n], goal[:, :3] - hand.palm, turn,
            hand.rotation[:, :, :2].reshape(-1, 6), self._last_action,
        )  # fmt: skip
        return np.concatenate(parts, axis=1).astype(np.float32)

    def joint_target(self, action: Array) -> Array:
        """Joint targets (B, n) [rad] to be reached one policy period from now."""
        self._last_action = action = np.clip(action, -1.0, 1.0)
        n = self.robot.n_arm
        self.target[:, :n] += JOINT_STEP * action
        self.target = np.clip(self.target, self._low, self._high)
        return self.target.copy()


class ReachTask(Plain):
    """Bring the palm to a pose."""

    name = "reach"
    status = "solved"

    def __init__(self, config: ReachConfig):
        self.config = config
        self._kinematics: Kinematics | None = None

    def io(self, robot: RobotModel, batch: int, *, nthread: int = 1) -> ReachIO:
        """The policy's side of the task."""
        return ReachIO(robot, batch, nthread=nthread)

    def start(self, rng: np.random.Generator, robot: RobotModel, k: int) -> Start:
        """K episodes without objects; goals are poses of the palm (k, 7)."""
        if self._kinematics is None:
            self._kinematics, self._clearances = Kinematics(robot, 1), Clearances.from_model(robot)
        q, goals = np.empty((k, robot.n)), np.empty((k, 7))
        for i in range(k):
            q[i] = self._free(rng, robot)
            hand = self._kinematics.hand(self._free(rng, robot)[None])
            goals[i] = np.concatenate([hand.palm[0], quaternion(hand.rotation)[0]])
        return Start(q, np.zeros((k, 0, 7)), goals)

    def _free(self, rng: np.random.Generator, robot: RobotModel) -> Array:
        """Joint positions that touch nothing."""
        low, high = robot.limits.q_min + 0.1, robot.limits.q_max - 0.1
        for _ in range(1000):
            q = robot.home.copy()
            q[: robot.n_arm] += rng.uniform(-self.config.spread, self.config.spread, robot.n_arm)
            q[: robot.n_arm] = np.clip(q[: robot.n_arm], low[: robot.n_arm], high[: robot.n_arm])
            own, table = self._clearances.clearances(q, near=0.02)
            if own.min() > 0.002 and table.min() > self.config.height:
                return q
        raise ConfigError(f"no free pose within {self.config.spread} rad of home and {self.config.height} m up")

    def reward(self, view: View, action: Array) -> Array:
        """(B,): nearness in position and angle, a bonus inside the tolerance, less effort."""
        dp, dw = self._errors(view.hand, view.goal)
        near = 0.5 * (1 - np.tanh(4 * dp)) + 0.3 * (1 - np.tanh(1.5 * dw))
        sharp = 0.4 * np.exp(-((dp / 0.03) ** 2) - (dw / 0.25) ** 2)
        inside = (dp < self.config.position) & (dw < self.config.angle)
        return near + sharp + 0.5 * inside - 0.02 * np.mean(np.clip(action, -1, 1) ** 2, axis=1)

    def achieved(self, view: View) -> Array:
        """(B,) bool: inside the tolerance; staying ``hold`` seconds is success."""
        dp, dw = self._errors(view.hand, view.goal)
        return (dp < self.config.position) & (dw < self.config.angle)

    def _errors(self, hand: Hand, goal: Array) -> tuple[Array, Array]:
        turn = rotation_vector(matrix(goal[:, 3:]) @ hand.rotation.swapaxes(1, 2))
        return np.linalg.norm(goal[:, :3] - hand.palm, axis=1), np.linalg.norm(turn, axis=1)


Config, Task, IO = ReachConfig, ReachTask, ReachIO
