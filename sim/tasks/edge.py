"""Lift a plate that lies flat: slide it over the edge of a shelf, grasp it there, lift it.

The plate is wider than the hand opens and thinner than a finger, so nothing can be grasped where it lies.  The shelf
is a block on the table, its edge on the robot's left; its top is polished (friction 0.25 to anything), so that a
plate can be dragged with the tips of the fingers: with one friction for tip and shelf alike it could not.
Frames: world.
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
from palmar.sim.scene import Block
from palmar.sim.tasks.extrinsic import AHEAD, Fixture, Stage, check, lowest
from palmar.sim.tasks.extrinsic_io import ExtrinsicIO
from palmar.sim.tasks.palm import ROBOTS
from palmar.sim.tasks.plain import Plain
from palmar.sim.tracker import TrackerConfig

Array = np.ndarray
SHELF = (0.21, 0.18)
"""Half extents of the shelf in x and y [m]."""
POLISH = 0.25
"""Sliding friction of the shelf against anything."""
REACH = (-0.05, 0.12)
"""Where an edge may be, along y [m]: the hand must get beside it, and above the plate behind it."""


@dataclass(frozen=True)
class EdgeConfig:
    """Difficulty of the task."""

    max_steps: int = 300
    """Length of an episode [control steps]."""
    rate: float = 20.0
    """Control steps per second [Hz]."""
    height: float = 0.10
    """How far to lift the lowest corner above the shelf [m]."""
    hold: float = 1.0
    """How long to hold it there [s]."""
    width: tuple[float, float] = (0.24, 0.265)
    """Of the plate, each way [m]; wider than the hand opens."""
    thickness: tuple[float, float] = (0.012, 0.020)
    """[m]."""
    edge: tuple[float, float] = (0.02, 0.08)
    """Where the shelf ends, along y [m]."""
    top: float = 0.14
    """Height of the shelf [m]."""
    behind: tuple[float, float] = (0.01, 0.04)
    """How far behind the edge the plate starts [m]."""
    side: float = 0.03
    """Plates start within this of the shelf's middle, along x [m]."""
    yaw: float = 0.2
    """... and turned by up to this [rad]."""
    split: str = "train"
    """``train`` or ``test``: sizes and edges of one are never those of the other."""
    friction: tuple[float, float] | None = (0.7, 1.3)
    """Sliding friction of tips and plate, drawn per world; None keeps the model's own."""
    mass: tuple[float, float] = (0.05, 0.15)
    """[kg]."""
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    constraints: tuple[str, ...] = ()
    """Names of the constraints that give costs; empty means every one of the file."""

    def __post_init__(self) -> None:
        check("edge", self, ("behind",))
        if not REACH[0] <= self.edge[0] <= self.edge[1] <= REACH[1]:
            raise ConfigError(f"edge.edge must be within reach, {REACH} m, got {self.edge}")
        if not 0.10 <= self.top <= 0.20:
            raise ConfigError(f"edge.top must be 0.10 to 0.20 m: fingers fit below, the arm above, got {self.top}")
        if self.behind[1] + self._across > 2 * SHELF[1] or self.side + self._across / 2 > SHELF[0]:
            raise ConfigError(f"a plate {self._across:.3f} m across does not fit onto the shelf {self.behind} m behind")

    @property
    def _across(self) -> float:
        """Extent of the largest plate at the largest yaw [m]."""
        return self.width[1] * (abs(np.cos(self.yaw)) + abs(np.sin(self.yaw)))


class EdgeTask(Plain):
    """Slide a plate to the edge and lift it."""

    name = "edge"
    status = "solved"
    robots = ROBOTS

    def __init__(self, config: EdgeConfig):
        self.config = config
        w, t = config.width[1] / 2, config.thickness[1] / 2
        self.blocks = (Block("plate", "box", (w, w, t), (0.85, 0.55, 0.15, 1.0), float(np.mean(config.mass))),)
        self._shelf = Fixture("shelf", SHELF, -SHELF[1], config.top)
        self._stage: Stage | None = None

    def furnish(self, spec: mujoco.MjSpec) -> None:
        """Add the plate and the shelf; the shelf's friction holds whatever lies on it."""
        super().furnish(spec)
        scene.add_touch_sensors(spec, self.objects)
        y = float(np.mean(self.config.edge))
        geom = self._shelf.add(spec, y)
        geom.friction, geom.priority = [POLISH, *scene.FRICTION[1:]], 1
        spec.body("plate").pos = [AHEAD, y - SHELF[1], self.config.top + 0.05]

    def io(self, robot: RobotModel, batch: int, *, nthread: int = 1) -> ExtrinsicIO:
        """The policy's side of the task."""
        return ExtrinsicIO(robot, batch, nthread=nthread)

    def instruction(self, goal: Array) -> str:
        """The sentence for a goal."""
        return "slide the plate to the edge and lift it"

    def start(self, rng: np.random.Generator, robot: RobotModel, k: int) -> Start:
        """K episodes; the goal is half size, y of the edge and height of the shelf [m], (k, 5)."""
        c = self.config
        if self._stage is None:
            self._stage = Stage(robot, self.furnish, raise_by=0.08)
        return self._stage.begin(rng, c, k, fixture=self._shelf, box="plate", lies=c.top, at=c.edge, behind=c.behind)

    def reward(self, view: View, action: Array) -> Array:
        """(B,): near the plate, the plate over the edge, grasped there, up."""
        position, goal = view.position[:, 0], view.goal
        over = np.clip(overhang(position, goal) / 0.06, -1.0, 1.0)
        rise = self._rise(view)
        tips = np.linalg.norm(view.hand.tips[:, (0, 1, 3)].mean(1) - position, axis=1)
        reach = 1 - np.tanh(6 * np.maximum(tips - goal[:, 0], 0.0))
        effort = np.mean(np.clip(action, -1, 1) ** 2, axis=1)
        return (
            0.1 * reach
            + 0.15 * (1 + over)
            + np.clip(rise, 0.0, 0.12) / 0.12
            + 0.6 * self.achieved(view)
            - 0.02 * effort
        )

    def achieved(self, view: View) -> Array:
        """(B,) bool: the whole plate is up; holding it ``hold`` seconds is success."""
        return self._rise(view) >= self.config.height

    def failed(self, view: View) -> Array:
        """(B,) bool: the plate fell from the shelf."""
        return view.position[:, 0, 2] < self.config.top - 0.03

    def _rise(self, view: View) -> Array:
        """Of the lowest corner above the shelf [m], (B,)."""
        return lowest(view.position[:, 0], view.quaternion[:, 0], view.goal[:, :3]) - self.config.top


def overhang(position: Array, goal: Array) -> Array:
    """How far plates are over the edge [m], (B,), for small turns."""
    return position[:, 1] + goal[:, 1] - goal[:, 3]


def scripted() -> dict[str, Callable[[], Any]]:
    """Policies that need no training."""
    from palmar.sim.tasks.edge_oracle import oracle
    from palmar.sim.tasks.grasp_in_place import scripts

    return {"oracle": oracle, **scripts()}


Config, Task, IO = EdgeConfig, EdgeTask, ExtrinsicIO
