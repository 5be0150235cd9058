"""Boxes that no grasp fits as they lie: what ``edge`` and ``wall`` share.

Three parts: the box of an episode (sizes in disjoint cells for training and testing, mass, inertia), what a policy
sees and does (``ExtrinsicIO``, the same in training and on a robot), and small geometry.  The idea of using the
environment as a finger is ExDex's (arXiv:2503.23120).  Frames: world.
"""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

from palmar.safety.geometry import Kinematics as Clearances
from palmar.safety.robot import RobotModel
from palmar.safety.types import ConfigError
from palmar.sim import scene
from palmar.sim.interface import Seen
from palmar.sim.kinematics import Hand, Kinematics, arm_step, matrix, rotation_z
from palmar.sim.robots import arm_and_hand
from palmar.sim.scene import GRASP

Array = np.ndarray

APERTURE = 0.235
"""Widest box of 5 cm height the LEAP hand gets thumb and a finger around without touching it otherwise [m]; a test
searches for wider postures.  Every box of these tasks is wider both ways."""
SPLITS = ("train", "test")
CELLS, TEST_CELLS = 6, (1, 4)
"""A range is cut into this many equal cells; these belong to the test split, the others to training."""

FINGER_OF = np.repeat((0, 1, 3, 2), 4)
"""Which synergy moves each hand joint: index, middle, thumb; 3 is the ring finger, which stays folded."""
PALM_STEP, YAW_STEP, PITCH_STEP, SYNERGY_STEP = 0.02, 0.1, 0.1, 0.15
"""Largest change per action: palm [m], yaw [rad], pitch [rad], share of open to close."""
LEASH = 0.04
"""The palm's target stays within this distance of the palm [m], per axis."""
TIGHTEST = np.array([1.4, 1.8, 1.15])
"""Largest shares: fingers close further than in ``lift``, for plates thinner than its blocks."""
N_ACTION = 8


def draw(rng: np.random.Generator, span: tuple[float, float], split: str, k: int) -> Array:
    """K numbers uniform over the cells of ``span`` that belong to ``split``."""
    mine = [c for c in range(CELLS) if (c in TEST_CELLS) == (split == "test")]
    return span[0] + (span[1] - span[0]) * (rng.choice(mine, k) + rng.uniform(0, 1, k)) / CELLS


def check(name: str, config: Any, spans: tuple[str, ...]) -> None:
    """Refuse what no episode can be made of.

    Raises:
        ConfigError: If a span is not increasing, a number not positive, the split unknown, or a box not too wide.
    """
    if config.split not in SPLITS:
        raise ConfigError(f"{name}.split must be one of {list(SPLITS)}, got {config.split!r}")
    for key in ("max_steps", "rate", "height", "hold"):
        if not getattr(config, key) > 0:
            raise ConfigError(f"{name}.{key} must be positive, got {getattr(config, key)}")
    for key in ("width", "thickness", "mass", *spans, *(["friction"] if config.friction is not None else [])):
        low, high = getattr(config, key)
        if not 0 < low <= high:
            raise ConfigError(f"{name}.{key} must be an increasing pair of positive numbers, got {(low, high)}")
    if config.width[0] <= APERTURE:
        raise ConfigError(f"{name}.width must be more than the hand opens, {APERTURE} m, got {config.width[0]}")


def box_fields(model: mujoco.MjModel, body: str, half: Array, mass: Array) -> dict[str, Array]:
    """Size, mass and inertia of a free box for k worlds: half extents (k, 3) [m], mass (k,) [kg].

    The box of ``model`` must be the largest of all: MuJoCo's bounding volumes are those of its compiled size.
    """
    k, b = len(half), model.body(body)
    g = int(b.geomadr[0])
    if (half > model.geom_size[g] + 1e-9).any():
        raise ConfigError(f"{body} of half size {half.max(0)} m is larger than the compiled {model.geom_size[g]} m")
    size, masses, inertia = (np.tile(x, (k, *[1] * x.ndim)) for x in (
        model.geom_size, model.body_mass, model.body_inertia
    ))  # fmt: skip
    square = half**2
    size[:, g], masses[:, b.id] = half, mass
    inertia[:, b.id] = (square.sum(1, keepdims=True) - square) * mass[:, None] / 3
    return {"geom_size": size, "body_mass": masses, "body_inertia": inertia}


def moved(model: mujoco.MjModel, body: str, position: Array) -> Array:
    """Field ``body_pos`` of k worlds with a fixed body at ``position`` (k, 3) [m]."""
    out = np.tile(model.body_pos, (len(position), 1, 1))
    out[:, model.body(body).id] = position
    return out


def lowest(position: Array, quaternion: Array, half: Array) -> Array:
    """Height of the lowest corner of boxes (B, 3), (B, 4), (B, 3), (B,) [m]."""
    return position[:, 2] - np.sum(np.abs(matrix(quaternion)[:, 2]) * half, axis=1)


def turned(yaw: Array) -> Array:
    """Quaternions w-x-y-z (k, 4) of rotations about z (k,) [rad]."""
    zero = np.zeros_like(yaw)
    return np.stack([np.cos(yaw / 2), zero, zero, np.sin(yaw / 2)], axis=1)


class Stage:
    """The compiled scene of a task and the posture its episodes start from: home, raised."""

    def __init__(self, robot: RobotModel, furnish: scene.Furnish, *, raise_by: float):
        arm, hand = arm_and_hand(robot.name)
        self.model = scene.compose(arm=arm, hand=hand, furnish=furnish)[0]
        kinematics, q = Kinematics(robot, 1), robot.home[None].copy()
        home = kinematics.hand(q)
        for _ in range(60):
            step = arm_step(kinematics.hand(q), home.palm + np.array([0.0, 0.0, raise_by]), home.rotation)
            q[:, : robot.n_arm] += np.clip(step, -0.05, 0.05)
        self.q = np.clip(q[0], robot.limits.q_min, robot.limits.q_max)
        self._clearances = Clearances.from_model(robot)

    def starts(self, rng: np.random.Generator, k: int, *, n_arm: int, above: float) -> Array:
        """K postures near the raised one (k, n) [rad].

        Raises:
            ConfigError: If a link would start less than 1 cm above ``above`` [m], the top of what is there.
        """
        q = np.tile(self.q, (k, 1))
        q[:, :n_arm] += rng.uniform(-0.03, 0.03, (k, n_arm))
        height = min(float(self._clearances.clearances(row, near=0.02)[1].min()) for row in q)
        if height < above + 0.01:
            raise ConfigError(
                f"the hand starts {height:.3f} m above the table, inside what is up to {above:.3f} m high"
            )
        return q


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
        self._open = robot.home[robot.n_arm :]
        self._close = np.array([GRASP.close[j] for j in robot.joints[robot.n_arm :]])
        self._low, self._high = robot.limits.q_min + 0.01, robot.limits.q_max - 0.01
        self._nominal = Kinematics(robot, 1).hand(robot.home[None]).rotation[0]
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
        n = self.robot.n_arm
        commanded = self.kinematics.hand(self.target)  # not the measured arm: its servo lags 0.1 s
        dq = arm_step(
            commanded, self._palm, rotation_z(self._turn[:, 0]) @ rotation_x(self._turn[:, 1]) @ self._nominal
        )
        arm = self.target[:, :n] + np.clip(dq, -0.15, 0.15)
        fingers = self._open + self._share[:, FINGER_OF] * (self._close - self._open)
        self.target = np.clip(np.concatenate([arm, fingers], axis=1), self._low, self._high)
        return self.target


def rotation_x(angle: Array) -> Array:
    """Rotation about x by angle (B,) [rad], (B, 3, 3)."""
    c, s, o, i = np.cos(angle), np.sin(angle), np.zeros_like(angle), np.ones_like(angle)
    return np.stack([i, o, o, o, c, -s, o, s, c], axis=-1).reshape(-1, 3, 3)
