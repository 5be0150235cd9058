"""Turn a cube that lies in the upturned hand to a goal orientation, with the fingers alone.

The arm holds still with the palm up; the policy moves the sixteen finger joints.  Goals are turns about the
vertical and, with ``tilt``, about a level axis as well.  An episode ends early when the cube has left the hand.
Frames: world; in the palm's, the fingers curl towards -z.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from palmar.safety.robot import RobotModel
from palmar.safety.types import ConfigError
from palmar.sim.interface import Goal, Seen, Start, View
from palmar.sim.kinematics import Hand, Kinematics, Placed, matrix, quaternion, rotation_vector
from palmar.sim.scene import Block
from palmar.sim.tasks.palm import ROBOTS
from palmar.sim.tasks.plain import Plain, check
from palmar.sim.tracker import TrackerConfig
from palmar.sim.trajectories import angle_between, axis_angle, product

Array = np.ndarray
BIN = 0.05
"""Goal turns are drawn from bins of this width [rad]; every TEST_BIN-th bin is for testing."""
TEST_BIN = 5
PALM_UP = (-1.407, -0.756, 1.744, -2.157, -0.755, 1.709, 2.101)
"""Arm joints with the palm up, 35 cm above the table, the fingers to the robot's right [rad]."""
CRADLE = (0.66, -0.06, 0.71, 0.72, 0.66, 0.0, 0.71, 0.72, 0.66, 0.06, 0.71, 0.72, 0.98, 1.0, -0.26, 0.08)
"""Fingers in which the cube lies still: found by dropping it into 400 random postures [rad]; LEAP's order."""
LIES = (-0.039, -0.023, -0.075)
"""Where it then lies in the palm's frame [m]."""
STEP = 0.08
"""Largest change of a finger joint's target per action [rad]."""
LEASH = 0.35
"""A target stays within this of its joint [rad]."""
CUBE = Block("cube", "box", (0.03, 0.03, 0.03), (0.20, 0.50, 0.80, 1.0), 0.08)
N_ACTION = 16


@dataclass(frozen=True)
class ReorientConfig:
    """Difficulty of the task."""

    max_steps: int = 200
    """Length of an episode [control steps]."""
    rate: float = 20.0
    """Control steps per second [Hz]."""
    hold: float = 0.5
    """How long to keep the goal's orientation [s]."""
    angle: float = 0.3
    """Tolerance [rad]."""
    turn: tuple[float, float] = (0.6, 1.6)
    """Turn of the goal about the vertical, either way [rad]."""
    tilt: float = 0.0
    """Largest turn about a level axis besides [rad]."""
    split: str = "train"
    """Which goal turns: train or test; none is in both."""
    lost: float = 0.08
    """The cube is lost when it is so far from where it lay [m]."""
    friction: tuple[float, float] | None = (0.7, 1.3)
    """Sliding friction of tips and cube, drawn per world."""
    mass: tuple[float, float] = (0.05, 0.12)
    """Mass of the cube, drawn per world [kg]."""
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    constraints: tuple[str, ...] = ()
    """Names of the constraints that give costs; empty means every one of the file."""

    def __post_init__(self) -> None:
        check("reorient", self, positive=("angle", "lost"))
        if not (0 < self.turn[0] and self.turn[0] + TEST_BIN * BIN <= self.turn[1] <= np.pi):
            need = f"0 < low, low + {TEST_BIN * BIN} <= high <= pi"
            raise ConfigError(f"reorient.turn must be (low, high) with {need}, got {self.turn}")
        if not 0 <= self.tilt <= np.pi / 2:
            raise ConfigError(f"reorient.tilt must be in [0, pi/2] rad, got {self.tilt}")


class ReorientIO:
    """What a policy sees and does: finger joints and the tracked cube; changes of the finger joints' targets."""

    action_units = ("rad",) * N_ACTION
    action_scales = (STEP,) * N_ACTION
    action_dim = N_ACTION
    rate = 20.0
    obs_names = ("q", "qd", "target_error", "cube", "cube_axes", "to_goal", "tips_to_cube", "last_action")
    obs_sizes = (16, 16, 16, 3, 6, 3, 12, N_ACTION)
    obs_units = ("rad", "rad/s", "rad", "m", "1", "rad", "m", "1")

    def __init__(self, robot: RobotModel, batch: int, *, nthread: int = 1):
        self.robot, self.batch = robot, batch
        self.kinematics = Kinematics(robot, batch, nthread=nthread)
        self.action_names = robot.joints[robot.n_arm :]
        self._low, self._high = robot.limits.q_min + 0.01, robot.limits.q_max - 0.01
        self._last_action = np.zeros((batch, N_ACTION))
        self._q = np.tile(robot.home, (batch, 1))
        self.target = self._q.copy()
        """Joint targets of the last action [rad], (B, n)."""
        self.hand: Hand = self.kinematics.hand(self.target)

    @property
    def obs_dim(self) -> int:
        """Length of an observation."""
        return sum(self.obs_sizes)

    def reset(self, ids: Array, q: Array) -> None:
        """Start episodes of robots ``ids`` (k,) at rest at q (k, n)."""
        self.target[ids], self._q[ids], self._last_action[ids] = q, q, 0.0

    def observe(self, seen: Seen) -> Array:
        """Observation (B, d) float32; positions and turns in the palm's frame; the goal is a quaternion (B, 4)."""
        self._q, n = seen.q, self.robot.n_arm
        self.hand = hand = self.kinematics.hand(seen.q)
        back, axes = hand.rotation.swapaxes(1, 2), matrix(seen.quaternion[:, 0])
        cube = (back @ (seen.position[:, 0] - hand.palm)[..., None])[..., 0]
        turn = rotation_vector(matrix(seen.goal) @ axes.swapaxes(1, 2))
        tips = (hand.tips - seen.position[:, :1]) @ hand.rotation
        parts = (
            seen.q[:, n:], seen.qd[:, n:], (self.target - seen.q)[:, n:], cube - np.array(LIES),
            (back @ axes)[:, :, :2].reshape(-1, 6), (back @ turn[..., None])[..., 0], tips.reshape(-1, 12),
            self._last_action,
        )  # fmt: skip
        return np.concatenate(parts, axis=1).astype(np.float32)

    def joint_target(self, action: Array) -> Array:
        """Joint targets (B, n) [rad] to be reached one policy period from now; after ``observe``."""
        self._last_action = action = np.clip(action, -1.0, 1.0)
        n = self.robot.n_arm
        fingers = self.target[:, n:] + STEP * action
        fingers = np.clip(fingers, self._q[:, n:] - LEASH, self._q[:, n:] + LEASH)
        self.target = np.clip(np.concatenate([self.target[:, :n], fingers], axis=1), self._low, self._high)
        return self.target.copy()


class ReorientTask(Plain):
    """Turn the cube in the hand."""

    name = "reorient"
    status = "unsolved"
    robots = ROBOTS
    blocks = (CUBE,)

    def __init__(self, config: ReorientConfig):
        self.config = config
        self._held: tuple[RobotModel, Hand] | None = None

    def io(self, robot: RobotModel, batch: int, *, nthread: int = 1) -> ReorientIO:
        """The policy's side of the task."""
        return ReorientIO(robot, batch, nthread=nthread)

    def instruction(self, goal: Goal) -> str:
        """Which way; how far is in the goal."""
        return "turn the blue cube in the hand to the orientation shown"

    def start(self, rng: np.random.Generator, robot: RobotModel, k: int) -> Start:
        """K episodes with the cube lying in the hand; goals are orientations (k, 4), w-x-y-z.

        Raises:
            ConfigError: If the robot is none of ROBOTS.
        """
        if robot.name not in ROBOTS:
            raise ConfigError(f"reorient knows the palm-up posture of {ROBOTS}, got {robot.name!r}")
        q = np.tile(np.array([*PALM_UP, *CRADLE]), (k, 1))
        if self._held is None or self._held[0] is not robot:
            self._held = robot, Placed(robot).hand(q[:1])
        hand = self._held[1]
        poses = np.empty((k, 1, 7))
        poses[:, 0, :3] = hand.palm[0] + (np.array(LIES) + rng.normal(0, 0.001, (k, 3))) @ hand.rotation[0].T
        level = quaternion(hand.rotation)[0]
        yaw = np.stack([axis_angle(np.array([0.0, 0.0, 1.0]), a) for a in rng.uniform(-0.08, 0.08, k)])
        poses[:, 0, 3:] = product(yaw, np.tile(level, (k, 1)))
        return Start(q, poses, self._goals(rng, poses[:, 0, 3:]))

    def _goals(self, rng: np.random.Generator, now: Array) -> Array:
        """Orientations (k, 4): the cube's, turned about the vertical and tilted."""
        k = len(now)
        angle = self._turns(rng, k) * rng.choice([-1.0, 1.0], k)
        about, lean = rng.uniform(-np.pi, np.pi, k), rng.uniform(0.0, 1.0, k) * self.config.tilt
        up = np.array([0.0, 0.0, 1.0])
        turn = np.stack([axis_angle(up, a) for a in angle])
        tip = np.stack([axis_angle(np.array([np.cos(b), np.sin(b), 0.0]), a) for a, b in zip(lean, about, strict=True)])
        return product(tip, product(turn, now))

    def _turns(self, rng: np.random.Generator, k: int) -> Array:
        """Turns of the split [rad], (k,): uniform over its bins."""
        low, high = self.config.turn
        bins = np.arange(int((high - low) / BIN + 1e-9))
        bins = bins[(bins % TEST_BIN == TEST_BIN - 1) == (self.config.split == "test")]
        return low + BIN * (rng.choice(bins, k) + rng.uniform(0.0, 1.0, k))

    def reward(self, view: View, action: Array) -> Array:
        """(B,): nearness to the goal's orientation, a bonus inside the tolerance, a cube that stays, less effort."""
        angle = self._angle(view)
        near = 0.1 / (0.1 + angle) + 0.4 * (1.0 - np.minimum(angle / np.pi, 1.0))
        effort = np.mean(np.clip(action, -1, 1) ** 2, axis=1)
        return near + 1.0 * (angle < self.config.angle) - 4.0 * np.minimum(self._away(view), 0.1) - 0.01 * effort

    def achieved(self, view: View) -> Array:
        """(B,) bool: the cube is in the hand, turned as asked."""
        return (self._angle(view) < self.config.angle) & ~self.failed(view)

    def failed(self, view: View) -> Array:
        """(B,) bool: the cube has left the hand."""
        return self._away(view) > self.config.lost

    def _angle(self, view: View) -> Array:
        return angle_between(view.quaternion[:, 0], view.goal)

    def _away(self, view: View) -> Array:
        """Distance of the cube from where it lay [m], (B,)."""
        lay = view.hand.palm + view.hand.rotation @ np.array(LIES)
        return np.linalg.norm(view.position[:, 0] - lay, axis=1)


def scripted() -> dict[str, Callable[[], Any]]:
    """Policies that need no training; there is no oracle."""
    from palmar.sim.tasks.oracles import DoNothing

    return {"nothing": partial(DoNothing, N_ACTION)}


Config, Task, IO = ReorientConfig, ReorientTask, ReorientIO
