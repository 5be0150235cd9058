"""Lift a box that lies flat: push it against a wall, tip it up there, grasp it across its thickness, lift it.

Lying, the box is wider than the hand opens both ways; standing, its thickness is that of ``lift``'s blocks.  The wall
is lower than the standing box, so that fingers fit behind it above the wall.  Frames: world.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import mujoco
import numpy as np

from palmar.safety.robot import RobotModel
from palmar.safety.types import ConfigError
from palmar.sim import scene
from palmar.sim.interface import Start, View
from palmar.sim.kinematics import matrix
from palmar.sim.scene import Block
from palmar.sim.tasks.extrinsic import AHEAD, Fixture, Stage, check, lowest
from palmar.sim.tasks.extrinsic_io import ExtrinsicIO
from palmar.sim.tasks.palm import ROBOTS
from palmar.sim.tasks.plain import Plain
from palmar.sim.tracker import TrackerConfig

Array = np.ndarray
WALL = (0.25, 0.02)
"""Half extents of the wall in x and y [m]."""
REACH = (0.10, 0.28)
"""Where the wall's face may be, along y [m]: the hand must get behind the box, and above the wall."""


@dataclass(frozen=True)
class WallConfig:
    """Difficulty of the task."""

    max_steps: int = 300
    """Length of an episode [control steps]."""
    rate: float = 20.0
    """Control steps per second [Hz]."""
    height: float = 0.10
    """How far to lift the lowest corner above the table [m]."""
    hold: float = 1.0
    """How long to hold it there [s]."""
    width: tuple[float, float] = (0.24, 0.265)
    """Of the box, each way [m]; wider than the hand opens."""
    thickness: tuple[float, float] = (0.040, 0.055)
    """[m]."""
    wall: tuple[float, float] = (0.16, 0.24)
    """Where the wall's face is, along y [m]."""
    top: float = 0.10
    """Height of the wall [m]."""
    gap: tuple[float, float] = (0.01, 0.05)
    """Between box and wall at the start [m]."""
    side: float = 0.03
    """Boxes start within this of the wall's middle, along x [m]."""
    yaw: float = 0.15
    """... and turned by up to this [rad]."""
    split: str = "train"
    """``train`` or ``test``: sizes and walls of one are never those of the other."""
    friction: tuple[float, float] | None = (0.7, 1.3)
    """Sliding friction of tips and box, drawn per world; None keeps the model's own."""
    mass: tuple[float, float] = (0.08, 0.2)
    """[kg]."""
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    constraints: tuple[str, ...] = ()
    """Names of the constraints that give costs; empty means every one of the file."""

    def __post_init__(self) -> None:
        check("wall", self, ("gap",))
        if not REACH[0] <= self.wall[0] <= self.wall[1] <= REACH[1]:
            raise ConfigError(f"wall.wall must be within reach, {REACH} m, got {self.wall}")
        if not self.thickness[1] <= self.top <= self.width[0] - 0.08:
            raise ConfigError(
                f"wall.top must be between a lying box's height and 0.08 m below a standing one's, "
                f"{(self.thickness[1], round(self.width[0] - 0.08, 3))} m, got {self.top}"
            )
        if abs(self.yaw) > 0.5:
            raise ConfigError(f"wall.yaw must be at most 0.5 rad: a corner does not lie against a wall, got {self.yaw}")


class WallTask(Plain):
    """Tip a box up against a wall and lift it."""

    name = "wall"
    status = "solved"
    robots = ROBOTS

    def __init__(self, config: WallConfig):
        self.config = config
        w, t = config.width[1] / 2, config.thickness[1] / 2
        self.blocks = (Block("carton", "box", (w, w, t), (0.62, 0.44, 0.26, 1.0), float(np.mean(config.mass))),)
        self._wall = Fixture("wall", WALL, WALL[1], config.top)
        self._stage: Stage | None = None

    def furnish(self, spec: mujoco.MjSpec) -> None:
        """Add the box and the wall."""
        super().furnish(spec)
        scene.add_touch_sensors(spec, self.objects)
        y = float(np.mean(self.config.wall))
        self._wall.add(spec, y)
        spec.body("carton").pos = [AHEAD, y - 0.16, self.config.thickness[1] / 2]

    def io(self, robot: RobotModel, batch: int, *, nthread: int = 1) -> ExtrinsicIO:
        """The policy's side of the task."""
        return ExtrinsicIO(robot, batch, nthread=nthread)

    def instruction(self, goal: Array) -> str:
        """The sentence for a goal."""
        return "tip the box up against the wall and lift it"

    def start(self, rng: np.random.Generator, robot: RobotModel, k: int) -> Start:
        """K episodes; the goal is half size, y of the wall's face and height of the wall [m], (k, 5)."""
        c = self.config
        if self._stage is None:
            self._stage = Stage(robot, self.furnish, raise_by=0.05)
        return self._stage.begin(rng, c, k, fixture=self._wall, box="carton", lies=0.0, at=c.wall, behind=c.gap)

    def reward(self, view: View, action: Array) -> Array:
        """(B,): near the box, the box at the wall, tipped up, up."""
        position, goal = view.position[:, 0], view.goal
        tilt = 1 - np.abs(matrix(view.quaternion[:, 0])[:, 2, 2])
        near = 1 - np.tanh(8 * np.maximum(goal[:, 3] - position[:, 1] - goal[:, 1], 0.0))
        reach = 1 - np.tanh(6 * np.linalg.norm(view.hand.tips[:, :2].mean(1) - position, axis=1))
        rise = np.clip(lowest(position, view.quaternion[:, 0], goal[:, :3]), 0.0, 0.12) / 0.12
        effort = np.mean(np.clip(action, -1, 1) ** 2, axis=1)
        return 0.1 * reach + 0.1 * near + 0.3 * tilt + rise + 0.6 * self.achieved(view) - 0.02 * effort

    def achieved(self, view: View) -> Array:
        """(B,) bool: the whole box is up; holding it ``hold`` seconds is success."""
        return lowest(view.position[:, 0], view.quaternion[:, 0], view.goal[:, :3]) >= self.config.height

    def failed(self, view: View) -> Array:
        """(B,) bool: the box fell behind the wall."""
        return view.position[:, 0, 1] > view.goal[:, 3] + 2 * WALL[1] + view.goal[:, 2]


def scripted() -> dict[str, Callable[[], Any]]:
    """Policies that need no training."""
    from palmar.sim.tasks.grasp_in_place import scripts
    from palmar.sim.tasks.wall_oracle import oracle

    return {"oracle": oracle, **scripts()}


Config, Task, IO = WallConfig, WallTask, ExtrinsicIO
