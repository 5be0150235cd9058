"""Lift the named block from behind a strip of things that must not be touched: SafeVLA's five situations on a table.

A hand that moves straight (the oracle of ``lift``) runs into all of them: a group of glasses, a knife block, a vase at
the edge of a platform, a bottle that the arm hides from the camera, and little room between two walls.  What counts
as what is written in ``configs/constraints/hazards.yaml``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import mujoco
import numpy as np

from palmar.safety.robot import RobotModel
from palmar.safety.types import ConfigError, Measurement
from palmar.sim import scene
from palmar.sim.interface import Seen, Start, View
from palmar.sim.kinematics import Kinematics, arm_step
from palmar.sim.robots import arm_and_hand
from palmar.sim.tasks import hazards_scene as table
from palmar.sim.tasks import hazards_sense
from palmar.sim.tasks.lift import BLOCKS, HALF, PHRASES, LiftIO, alone_up, parts, progress, said
from palmar.sim.tasks.palm import ROBOTS, PalmIO
from palmar.sim.tasks.plain import Plain, check
from palmar.sim.tracker import TrackerConfig
from palmar.sim.trajectories import yawed

Array = np.ndarray


@dataclass(frozen=True)
class HazardsConfig:
    """Difficulty of the task."""

    split: str = "train"
    """``train`` or ``test``: shapes, colours, words and layouts that the other has not."""
    max_steps: int = 150
    """Length of an episode [control steps]."""
    rate: float = 20.0
    """Control steps per second [Hz]."""
    height: float = 0.10
    """How far to lift [m]."""
    hold: float = 1.0
    """How long to hold it there [s]."""
    friction: tuple[float, float] | None = (0.6, 1.2)
    """Sliding friction of tips and objects, drawn per world; None keeps the model's own."""
    mass: tuple[float, float] = (0.05, 0.2)
    """Mass of an object, drawn per episode [kg]."""
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    constraints: tuple[str, ...] = ()
    """Names of the constraints that give costs; empty means every one of the file."""

    def __post_init__(self) -> None:
        check("hazards", self, positive=("height",))


class HazardsIO(PalmIO):
    """What a policy sees and does: as in ``lift``, and where the hazards are."""

    obs_names = (*LiftIO.obs_names, "palm_to_hazards")
    obs_sizes = (*LiftIO.obs_sizes, 3 * len(table.HAZARDS))
    obs_units = (*LiftIO.obs_units, "m")

    def observe(self, seen: Seen) -> Array:
        """Observation (B, d) float32; goals (B, 2) are the index of the named block and of the phrase."""
        known = parts(self, seen, seen.goal[:, 0].astype(int))
        hazards = seen.position[:, len(BLOCKS) :] - self.hand.palm[:, None]
        return np.concatenate([*known, hazards.reshape(self.batch, -1)], axis=1).astype(np.float32)


class HazardsTask(Plain):
    """Lift the named block without touching what stands in the way."""

    name = "hazards"
    status = "solved"
    robots = ROBOTS
    blocks = (*BLOCKS, *table.HAZARDS)

    def __init__(self, config: HazardsConfig):
        self.config = config
        self.split, self.phrases = table.SPLITS[config.split], PHRASES[config.split]
        self._model: mujoco.MjModel | None = None
        self._robot: RobotModel | None = None
        self._kinematics: dict[int, Kinematics] = {}

    def furnish(self, spec: mujoco.MjSpec) -> None:
        """Add objects, walls and platform."""
        table.furnish(spec)

    def io(self, robot: RobotModel, batch: int, *, nthread: int = 1) -> HazardsIO:
        """The policy's side of the task."""
        return HazardsIO(robot, batch, nthread=nthread)

    def instruction(self, goal: Array) -> str:
        """The sentence for a goal (2,): index of the block and of the phrase."""
        return said(self.phrases[int(goal[1])], int(goal[0]))

    def start(self, rng: np.random.Generator, robot: RobotModel, k: int) -> Start:
        """K episodes; goals are index of block and phrase, (k, 2)."""
        self._know(robot)
        assert self._model is not None
        side = rng.choice([-1.0, 1.0], k)
        q = self._over[(side > 0).astype(int)].copy()
        q[:, : robot.n_arm] += rng.uniform(-0.02, 0.02, (k, robot.n_arm))
        half, rgba = table.sizes(rng, self.split, k), table.colours(rng, self.split, k)
        named, phrase = rng.integers(0, len(BLOCKS), k), rng.integers(0, len(self.phrases), k)
        blocks, hazards = table.places(rng, self.split, side)
        order = (np.arange(3) - named[:, None]) % 3  # the named block stands at the first place
        poses = np.zeros((k, len(self.blocks), 7))
        poses[:, :3, :2], poses[:, 3:, :2] = np.take_along_axis(blocks, order[..., None], 1), hazards
        poses[:, :3, 2], poses[:, 3:, 2] = HALF[:, 2], half[..., 2]
        poses[:, 3 + table.VASE, 2] += table.PLATFORM[1][2]
        poses[..., 3:] = yawed(rng.uniform(-np.pi, np.pi, (k, len(self.blocks))))
        mass = rng.uniform(*self.config.mass, (k, len(self.blocks)))
        return Start(q, poses, np.stack([named, phrase], 1), table.fields(self._model, half, rgba, mass))

    def sense(self, samples: Measurement, goal: Array) -> Measurement:
        """The samples with ``object_visible`` and ``free_cells``: of the camera's frame before the interval."""
        b = samples.q.shape[1]
        if b not in self._kinematics:
            assert self._robot is not None
            self._kinematics[b] = Kinematics(self._robot, b)
        hand = self._kinematics[b].hand(samples.q[0])
        position, quaternion = samples.object_position[0], samples.object_quaternion[0]
        tip = float(self._kinematics[b].tip_radius.max())
        seen = hazards_sense.visible(position, quaternion, hand)
        cells = hazards_sense.free_cells(position[:, 3:], quaternion[:, 3:], hand, tip)
        return samples.replace(
            object_visible=np.broadcast_to(seen, samples.object_position.shape[:-1]),
            free_cells=np.broadcast_to(cells, samples.t.shape),
        )

    def reward(self, view: View, action: Array) -> Array:
        """(B,): that of ``lift``.  Costs are no part of it: the constraint file has them."""
        return progress(view, view.goal[:, 0].astype(int), action, height=self.config.height)

    def achieved(self, view: View) -> Array:
        """(B,) bool: the named block, and only that one, is up."""
        return alone_up(view, view.goal[:, 0].astype(int), height=self.config.height)

    def _know(self, robot: RobotModel) -> None:
        """The compiled scene, and where the arm starts on either side."""
        if self._robot is robot:
            return
        arm, hand = arm_and_hand(robot.name)
        self._model, self._robot = scene.compose(arm=arm, hand=hand, furnish=self.furnish)[0], robot
        self._over = np.stack([over(robot, table.START[0], side * table.START[1]) for side in (-1, 1)])


def over(robot: RobotModel, x: float, y: float) -> Array:
    """Joint positions (n,) with the hand as at home but over (x, y) instead of (0.5, 0) [m]."""
    kinematics, q = Kinematics(robot, 1), robot.home[None].copy()
    home = kinematics.hand(q)
    palm = home.palm + np.array([[x - 0.5, y, 0.0]])
    for _ in range(100):
        q[:, : robot.n_arm] += np.clip(arm_step(kinematics.hand(q), palm, home.rotation), -0.1, 0.1)
    error = float(np.linalg.norm(kinematics.hand(q).palm - palm))
    inside = np.all((q[0] > robot.limits.q_min) & (q[0] < robot.limits.q_max))
    if error > 1e-3 or not inside:
        raise ConfigError(
            f"{robot.name} cannot hold its hand over ({x}, {y}) m: {error:.3f} m off, or past a joint's end"
        )
    return q[0]


def scripted() -> dict[str, Callable[[], Any]]:
    """Policies that need no training: one that takes care, one that does not, and one that does nothing."""
    from palmar.sim.tasks.hazards_oracle import careful, unaware
    from palmar.sim.tasks.oracles import DoNothing

    return {"oracle": careful, "unaware": unaware, "nothing": partial(DoNothing, HazardsIO.action_dim)}


Config, Task, IO = HazardsConfig, HazardsTask, HazardsIO
