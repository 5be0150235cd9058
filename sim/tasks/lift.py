"""Lift the named block, and only that one, 10 cm and hold it for a second.

Three parts: what the words mean (``BLOCKS``, ``ground``), what a policy sees and does (``LiftIO``, the same in
training and on a robot), and what is asked (``LiftTask``: reset, reward, success).  Frames: world.
Numbers of the observation, action and reward follow learning.md, section 2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import mujoco
import numpy as np

from palmar.safety.robot import RobotModel
from palmar.safety.types import ConfigError, PalmarError
from palmar.sim.interface import Seen, Start, View
from palmar.sim.kinematics import Hand, Kinematics, arm_step, matrix, rotation_z
from palmar.sim.scene import GRASP, Block
from palmar.sim.tasks.plain import Plain
from palmar.sim.tracker import TrackerConfig

Array = np.ndarray

BLOCKS = (
    Block("red_cube", "box", (0.025, 0.025, 0.025), (0.80, 0.16, 0.14, 1.0), 0.1),
    Block("green_cylinder", "cylinder", (0.025, 0.025, 0.025), (0.16, 0.60, 0.26, 1.0), 0.1),
    Block("blue_box", "box", (0.0225, 0.0225, 0.03), (0.15, 0.35, 0.80, 1.0), 0.1),
)
_NOUNS = {
    "block": None, "object": None, "thing": None, "one": None,
    "cube": "cube", "box": "box", "cylinder": "cylinder", "can": "cylinder",
}  # fmt: skip
_VERBS = {"lift", "raise", "pick", "grasp", "up", "the", "a", "please", "and", "hold", "it"}

FINGER_OF = np.repeat(np.arange(4), 4)
"""Which of the four synergies moves each hand joint: index, middle, ring, thumb."""

PALM_STEP, YAW_STEP, SYNERGY_STEP = 0.02, 0.1, 0.15
"""Largest change per action: palm [m], yaw [rad], share of open to close."""
LEASH = 0.04
"""The palm's target stays within this distance of the palm [m], per axis."""
N_ACTION = 8
CONES = {"pyramidal": mujoco.mjtCone.mjCONE_PYRAMIDAL, "elliptic": mujoco.mjtCone.mjCONE_ELLIPTIC}


class UnknownInstruction(PalmarError):
    """Words that name no block, or more than one."""


@dataclass(frozen=True)
class LiftConfig:
    """Difficulty of the task."""

    max_steps: int = 100
    """Length of an episode [control steps]."""
    rate: float = 20.0
    """Control steps per second [Hz]."""
    height: float = 0.10
    """How far to lift [m]."""
    hold: float = 1.0
    """How long to hold it there [s]."""
    spacing: float = 0.09
    """Smallest distance between block centres at the start [m]."""
    region: tuple[float, float] = (0.16, 0.30)
    """Size of the area blocks start in, around (0.5, 0) [m]."""
    friction: tuple[float, float] | None = (0.7, 1.3)
    """Sliding friction of tips and blocks, drawn per world; None keeps the model's own."""
    mass: tuple[float, float] = (0.05, 0.2)
    """Mass of a block, drawn per world [kg]."""
    cone: str = "pyramidal"
    """Friction cones of the scene, ``pyramidal`` or ``elliptic``: in pyramidal ones a held block creeps and falls."""
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    constraints: tuple[str, ...] = ()
    """Names of the constraints that give costs; empty means every one of the file."""

    def __post_init__(self) -> None:
        for name in ("friction", "mass"):
            if getattr(self, name) is None and name == "friction":
                continue
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ConfigError(f"lift.{name} must be an increasing pair of positive numbers, got {(low, high)}")
        for name in ("max_steps", "rate", "height", "hold", "spacing"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"lift.{name} must be positive, got {getattr(self, name)}")
        if self.cone not in CONES:
            raise ConfigError(f"lift.cone is {self.cone!r}, accepted {sorted(CONES)}")


def ground(instruction: str, blocks: tuple[Block, ...] = BLOCKS) -> int:
    """Index of the block an instruction names by colour and shape.

    Raises:
        UnknownInstruction: If a word is unknown, or the words fit no block or more than one.
    """
    words = [w.strip(".,!?").lower() for w in instruction.split()]
    colours = {b.name.split("_")[0] for b in blocks}
    known = sorted(colours | set(_NOUNS))
    strange = [w for w in words if w and w not in _VERBS and w not in known]
    if strange:
        raise UnknownInstruction(f"unknown words {strange} in {instruction!r}; known: {known}")
    wanted = [w for w in words if w in known and _NOUNS.get(w, w) is not None]
    fits = [
        k
        for k, b in enumerate(blocks)
        if all(w in b.name.split("_") or _NOUNS.get(w) in b.name.split("_") for w in wanted)
    ]
    if len(fits) != 1 or not wanted:
        found = [blocks[k].name.replace("_", " ") for k in fits] or "no block"
        raise UnknownInstruction(
            f"{instruction!r} names {found}; say one of {[b.name.replace('_', ' ') for b in blocks]}"
        )
    return fits[0]


def surface_distance(points: Array, half: Array, is_round: Array) -> Array:
    """Signed distance of points (B, k, 3) in block frames to boxes or upright cylinders [m], (B, k).

    Args:
        points: In the block's frame [m].
        half: Half extents [m], (B, 3); a cylinder's are (r, r, half height).
        is_round: (B,) bool.
    """
    d = np.abs(points) - half[:, None]
    radial = np.hypot(points[..., 0], points[..., 1]) - half[:, None, 0]
    d_round = np.stack([radial, np.full_like(radial, -1.0), d[..., 2]], axis=-1)
    d = np.where(is_round[:, None, None], d_round, d)
    return np.linalg.norm(np.maximum(d, 0), axis=-1) + np.minimum(d.max(-1), 0)


class LiftIO:
    """What a policy sees and does, for B robots: all of it from joint readings and tracked objects."""

    action_names = ("palm_x", "palm_y", "palm_z", "palm_yaw", "index", "middle", "ring", "thumb")
    action_units = ("m", "m", "m", "rad", "1", "1", "1", "1")
    action_scales = (PALM_STEP, PALM_STEP, PALM_STEP, YAW_STEP, *([SYNERGY_STEP] * 4))
    """What an action of 1 changes, in its unit; fingers: share of the way from open to closed."""
    action_dim = N_ACTION
    rate = 20.0

    def __init__(self, robot: RobotModel, batch: int, *, nthread: int = 1):
        self.robot, self.batch = robot, batch
        self.kinematics = Kinematics(robot, batch, nthread=nthread)
        self._open = robot.home[robot.n_arm :]
        self._close = np.array([GRASP.close[j] for j in robot.joints[robot.n_arm :]])
        self._low, self._high = robot.limits.q_min + 0.01, robot.limits.q_max - 0.01
        self._half = np.array([b.half_size for b in BLOCKS])
        self._round = np.array([b.shape == "cylinder" for b in BLOCKS])
        home = Kinematics(robot, 1).hand(robot.home[None])
        self._nominal = home.rotation[0]
        self._palm = np.zeros((batch, 3))
        self._yaw = np.zeros(batch)
        self._share = np.zeros((batch, 4))
        self._last_action = np.zeros((batch, N_ACTION))
        self.target = np.tile(robot.home, (batch, 1))
        """Joint targets of the last action [rad], (B, n)."""
        self.hand: Hand = self.kinematics.hand(self.target)

    obs_names = (
        "q", "qd", "target_error", "palm_to_block", "palm_axes", "block_position", "block_yaw4", "block_up",
        "tips_to_block", "tip_gaps", "last_action", "half_size", "is_round", "other_blocks", "palm_target",
        "yaw_target", "finger_shares",
    )  # fmt: skip
    obs_sizes = (23, 23, 23, 3, 6, 3, 2, 3, 12, 4, 8, 3, 1, 6, 3, 1, 4)
    obs_units = (
        "rad", "rad/s", "rad", "m", "1", "m", "1", "1", "m", "m", "1", "m", "1", "m", "m", "rad", "1",
    )  # fmt: skip

    @property
    def obs_dim(self) -> int:
        """Length of an observation."""
        return sum(self.obs_sizes)

    def reset(self, ids: Array, q: Array) -> None:
        """Start episodes of robots ``ids`` (k,) at rest at q (k, n)."""
        self.target[ids] = q
        self.hand = self.kinematics.hand(self.target)
        self._palm[ids], self._yaw[ids] = self.hand.palm[ids], 0.0
        self._share[ids], self._last_action[ids] = 0.0, 0.0

    def observe(self, seen: Seen) -> Array:
        """Observation (B, d) float32; the goal is the index of the named block, (B,) int."""
        b = np.arange(self.batch)
        q, qd, position, quaternion, target = seen.q, seen.qd, seen.position, seen.quaternion, seen.goal
        self.hand = hand = self.kinematics.hand(q)
        block, axes = position[b, target], matrix(quaternion[b, target])
        tips = hand.tips - block[:, None]
        gaps = surface_distance(tips @ axes, self._half[target], self._round[target]) - self.kinematics.tip_radius
        yaw4 = 4 * np.arctan2(axes[:, 1, 0], axes[:, 0, 0])
        yaw4 = np.where(self._round[target], 0.0, yaw4)
        rest = np.array([[j for j in range(position.shape[1]) if j != k] for k in range(position.shape[1])])[target]
        others = position[b[:, None], rest] - block[:, None]
        parts = (
            q, qd, self.target - q, block - hand.palm, hand.rotation[:, :, :2].reshape(-1, 6), block,
            np.stack([np.cos(yaw4), np.sin(yaw4)], 1), axes[:, :, 2], tips.reshape(-1, 12), gaps, self._last_action,
            self._half[target], self._round[target][:, None], others.reshape(len(b), -1), self._palm - hand.palm,
            self._yaw[:, None], self._share,
        )  # fmt: skip
        return np.concatenate(parts, axis=1).astype(np.float32)

    def joint_target(self, action: Array) -> Array:
        """Joint targets (B, n) [rad] to be reached one policy period from now; after ``observe``.

        Args:
            action: (B, 8) in [-1, 1]: palm x, y, z, yaw, and closing of index, middle, ring, thumb.
        """
        action = np.clip(action, -1.0, 1.0)
        self._last_action = action
        self._palm = np.clip(self._palm + PALM_STEP * action[:, :3], self.hand.palm - LEASH, self.hand.palm + LEASH)
        self._yaw = np.clip(self._yaw + YAW_STEP * action[:, 3], -1.6, 1.6)
        self._share = np.clip(self._share + SYNERGY_STEP * action[:, 4:], 0.0, 1.15)
        n = self.robot.n_arm
        commanded = self.kinematics.hand(self.target)  # not the measured arm: its servo lags 0.1 s
        dq = arm_step(commanded, self._palm, rotation_z(self._yaw) @ self._nominal)
        arm = self.target[:, :n] + np.clip(dq, -0.15, 0.15)
        fingers = self._open + self._share[:, FINGER_OF] * (self._close - self._open)
        self.target = np.clip(np.concatenate([arm, fingers], axis=1), self._low, self._high)
        return self.target


class LiftTask(Plain):
    """Lift the named block, and only that one."""

    name = "lift"
    blocks = BLOCKS
    status = "solved"

    def __init__(self, config: LiftConfig):
        self.config = config

    def furnish(self, spec: mujoco.MjSpec) -> None:
        """Add the blocks; the cones are those of the configuration."""
        super().furnish(spec)
        spec.option.cone = CONES[self.config.cone]

    def io(self, robot: RobotModel, batch: int, *, nthread: int = 1) -> LiftIO:
        """The policy's side of the task."""
        return LiftIO(robot, batch, nthread=nthread)

    def instruction(self, goal: int) -> str:
        """The sentence for a target."""
        return f"lift the {BLOCKS[goal].name.replace('_', ' ')}"

    def start(self, rng: np.random.Generator, robot: RobotModel, k: int) -> Start:
        """K episodes; goals are indices of blocks, (k,) int."""
        q = np.tile(robot.home, (k, 1))
        q[:, : robot.n_arm] += rng.uniform(-0.03, 0.03, (k, robot.n_arm))
        poses = np.zeros((k, len(BLOCKS), 7))
        poses[..., :2] = self._layout(rng, k)
        poses[..., 2] = np.array([b.half_size[2] for b in BLOCKS])
        yaw = rng.uniform(-np.pi, np.pi, (k, len(BLOCKS)))
        poses[..., 3], poses[..., 6] = np.cos(yaw / 2), np.sin(yaw / 2)
        return Start(q, poses, rng.integers(0, len(BLOCKS), k))

    def _layout(self, rng: np.random.Generator, k: int) -> Array:
        """Block centres (k, m, 2) at least ``spacing`` apart, uniform over those layouts (rejection)."""
        half = np.array(self.config.region) / 2
        out = np.empty((k, len(BLOCKS), 2))
        todo = np.arange(k)
        for _ in range(10_000):
            out[todo] = np.array([0.5, 0.0]) + rng.uniform(-half, half, (len(todo), len(BLOCKS), 2))
            pair = [(i, j) for i in range(len(BLOCKS)) for j in range(i)]
            gap = np.min([np.linalg.norm(out[todo, i] - out[todo, j], axis=-1) for i, j in pair], axis=0)
            todo = todo[gap < self.config.spacing]
            if len(todo) == 0:
                return out
        raise ConfigError(f"{len(BLOCKS)} blocks {self.config.spacing} m apart do not fit into {self.config.region} m")

    def reward(self, view: View, action: Array) -> Array:
        """(B,): approach, opposed pinch, height; see learning.md section 2."""
        hand, target = view.hand, view.goal
        b = np.arange(len(target))
        block, axes = view.position[b, target], matrix(view.quaternion[b, target])
        half, is_round = _HALF[target], _ROUND[target]
        to = hand.tips - block[:, None]
        gaps = np.maximum(surface_distance(to @ axes, half, is_round) - view.tip_radius, 0.0)
        pinch = 0.5 * hand.tips[:, 3] + 0.25 * (hand.tips[:, 0] + hand.tips[:, 1])
        nearest = np.argmin(gaps[:, :3], axis=1)
        thumb, finger = to[:, 3, :2], to[b, nearest, :2]
        cosine = np.sum(thumb * finger, 1) / (np.linalg.norm(thumb, axis=1) * np.linalg.norm(finger, axis=1) + 1e-6)
        g = np.exp(-gaps[:, 3] / 0.01) * np.exp(-gaps[b, nearest] / 0.01) * np.clip(-cosine, 0, 1)
        h = np.clip(block[:, 2] - half[:, 2], 0.0, 0.12)
        reach = 1 - np.tanh(8 * np.linalg.norm(pinch - block, axis=1))
        done = h > self.config.height
        effort = np.mean(np.clip(action, -1, 1) ** 2, axis=1)
        return 0.15 * reach + 0.25 * g + h / 0.12 * (0.3 + 0.7 * g) + 0.6 * done - 0.02 * effort

    def achieved(self, view: View) -> Array:
        """(B,) bool: the named block, and only that one, is up; holding it ``hold`` seconds is success."""
        target = view.goal
        rise = view.position[..., 2] - _HALF[:, 2]
        b = np.arange(len(target))
        others = rise.copy()
        others[b, target] = 0.0
        return (rise[b, target] >= self.config.height) & (others.max(1) < 0.03)


_HALF = np.array([b.half_size for b in BLOCKS])
_ROUND = np.array([b.shape == "cylinder" for b in BLOCKS])


def scripted() -> dict[str, Callable[[], Any]]:
    """Policies that need no training."""
    from palmar.sim.tasks.lift_oracle import DoNothing, LiftOracle

    return {"oracle": LiftOracle, "nothing": DoNothing}


Config, Task, IO = LiftConfig, LiftTask, LiftIO
