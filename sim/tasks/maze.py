"""Bring a peg blindly through a contact maze on the table, by force and Cartesian stiffness.

The peg is bolted to the palm and hangs between the curled fingers (in SRL-VIC, arXiv 2406.13744, it is bolted to the
flange).  The policy feels the wrench at the palm and knows where the peg is; it sees neither walls nor the loose
obstacles.  It moves a set-point in the plane and chooses the stiffness in x and y.  An episode ends with the exit or
with a force above the limit.  Frames: world.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import mujoco
import numpy as np

from palmar.safety.robot import RobotModel
from palmar.safety.types import ConfigError
from palmar.sim import scene
from palmar.sim.arm_hand import arms
from palmar.sim.interface import Goal, Start, View
from palmar.sim.kinematics import Placed, matrix
from palmar.sim.robots import arm_and_hand
from palmar.sim.scene import Block
from palmar.sim.tasks import maze_layout as layout
from palmar.sim.tasks.maze_io import PEG_LENGTH, PEG_RADIUS, Hanging, MazeIO, peg_end
from palmar.sim.tasks.palm import ROBOTS
from palmar.sim.tasks.plain import Plain, check
from palmar.sim.tracker import TrackerConfig
from palmar.sim.trajectories import yawed

Array = np.ndarray

FIST = (2.09, -0.18, 0.23, 0.63, 2.09, 0.0, 0.23, 0.63, 2.09, 0.18, 0.23, 0.63, 0.52, 0.32, 0.02, -0.36)
"""Fingers out of the way, 11 mm from each other [rad]: found by random search; LEAP's order of joints."""
OBSTACLES = (
    Block("obstacle_can", "cylinder", (0.012, 0.012, 0.018), (0.85, 0.55, 0.15, 1.0), 0.08),
    Block("obstacle_box", "box", (0.011, 0.011, 0.018), (0.25, 0.55, 0.80, 1.0), 0.08),
)
SOLREF = (0.02, 1.0)
"""Contact time constant [s] and damping ratio of peg and walls: plastic; at the scene's 0.01 s a touch chatters."""


@dataclass(frozen=True)
class MazeConfig:
    """Difficulty of the task."""

    max_steps: int = 500
    """Length of an episode [control steps]."""
    rate: float = 20.0
    """Control steps per second [Hz]."""
    hold: float = 0.05
    """How long to be beyond the exit [s]: one control step."""
    split: str = "train"
    """Which layouts: train or test; none is in both."""
    gap: float = 0.05
    """Width of the gaps [m]."""
    force: float = 40.0
    """Force on the peg above which the episode ends [N]."""
    wall_friction: float = 0.3
    """Sliding friction of peg and walls."""
    friction_left: float = 0.1
    """Share of the arm joints' dry friction that the drives' compensation leaves."""
    friction: tuple[float, float] | None = (0.3, 0.8)
    """Sliding friction of the obstacles on the table, drawn per world."""
    mass: tuple[float, float] = (0.05, 0.2)
    """Mass of an obstacle, drawn per world [kg]."""
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    """Unused: the policy is blind."""
    constraints: tuple[str, ...] = ()
    """Names of the constraints that give costs; empty means every one of the file."""

    def __post_init__(self) -> None:
        check("maze", self, positive=("force", "wall_friction"))
        if not 2.5 * PEG_RADIUS <= self.gap <= 0.08:
            raise ConfigError(f"maze.gap must be in [{2.5 * PEG_RADIUS}, 0.08] m, got {self.gap}")
        if not 0 <= self.friction_left <= 1:
            raise ConfigError(f"maze.friction_left must be in [0, 1], got {self.friction_left}")


class MazeTask(Plain):
    """A peg through a blind contact maze."""

    name = "maze"
    status = "solved"
    robots = ROBOTS
    blocks = OBSTACLES

    def __init__(self, config: MazeConfig):
        self.config = config
        self._prepared: tuple[mujoco.MjModel, Hanging, Array] | None = None
        self._tip: Array = np.zeros(3)

    def io(self, robot: RobotModel, batch: int, *, nthread: int = 1) -> MazeIO:
        """The policy's side of the task."""
        self._tip = peg_end(robot)
        return MazeIO(robot, batch, nthread=nthread)

    def instruction(self, goal: Goal) -> str:
        """The same words for every layout."""
        return "bring the peg through the maze"

    def furnish(self, spec: mujoco.MjSpec) -> None:
        """Add peg with its force sensor, walls and obstacles, and let the drives compensate friction."""
        super().furnish(spec)
        for joint in spec.joints:
            if joint.name.startswith(tuple(arms())):
                joint.frictionloss *= self.config.friction_left
        self._add_peg(spec)
        # Walls have other sizes in every world: the tree over the geoms of one body would be out of date.
        spec.option.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_MIDPHASE)
        for k, name in enumerate(layout.WALLS):
            body = spec.worldbody.add_body(name=name, pos=[0.4 + 0.02 * k, 0.3, layout.HIGH])
            wall = body.add_geom(name=name, type=mujoco.mjtGeom.mjGEOM_BOX, size=[0.005, 0.05, layout.HIGH])
            wall.contype, wall.conaffinity, wall.condim = 2, 3, 3
            wall.friction, wall.solref, wall.solimp = self._friction, SOLREF, scene.SOLIMP
            wall.rgba = [0.45, 0.48, 0.52, 1.0]

    @property
    def _friction(self) -> tuple[float, float, float]:
        return (self.config.wall_friction, *scene.FRICTION[1:])

    def _add_peg(self, spec: mujoco.MjSpec) -> None:
        """A light capsule fixed to the palm.  Its sensors' axes are the world's while it hangs straight down."""
        palm = spec.body("palm")
        turn = matrix(np.array(palm.quat))
        axis, level = turn.T @ np.array([0.0, 0.0, 1.0]), np.zeros(4)
        mujoco.mju_mat2Quat(level, (np.diag([1.0, -1.0, -1.0]) @ turn).T.ravel())
        body = palm.add_body(name="peg")
        body.gravcomp = 1.0
        end = axis * (PEG_LENGTH - PEG_RADIUS)
        geom = body.add_geom(name="peg", type=mujoco.mjtGeom.mjGEOM_CAPSULE, size=[PEG_RADIUS, 0, 0])
        geom.fromto, geom.mass, geom.rgba = [*(-0.01 * axis), *end], 0.02, [0.75, 0.76, 0.78, 1.0]
        geom.contype, geom.conaffinity, geom.condim = 0, 3, 3
        geom.friction, geom.solref, geom.solimp = self._friction, SOLREF, scene.SOLIMP
        body.add_site(name="wrench", quat=level, size=[0.003] * 3, group=4)
        for name, kind in (
            ("wrench_force", mujoco.mjtSensor.mjSENS_FORCE),
            ("wrench_torque", mujoco.mjtSensor.mjSENS_TORQUE),
        ):
            spec.add_sensor(name=name, type=kind, objtype=mujoco.mjtObj.mjOBJ_SITE, objname="wrench")

    def start(self, rng: np.random.Generator, robot: RobotModel, k: int) -> Start:
        """K episodes; the goal is the exit (k, 2) [m], which says nothing of the walls."""
        slot, slant = layout.draw(rng, k, self.config.split)
        walls = layout.build(slot, slant, gap=self.config.gap)
        entrance = np.stack([rng.uniform(0.412, 0.420, k), rng.uniform(-0.08, 0.08, k)], axis=1)
        model, hanging, rest = self._prepare(robot)
        q = hanging.over(np.tile(rest, (k, 1)), entrance)
        exit_ = np.tile([layout.exit_x(), 0.0], (k, 1))
        return Start(q, self._obstacles(rng, walls), exit_, self._fields(model, walls))

    def _prepare(self, robot: RobotModel) -> tuple[mujoco.MjModel, Hanging, Array]:
        """The compiled scene, for the names of its arrays; what hangs the peg; and joints (n,) near the entrance.

        Tasks are shared by environments that step side by side, so nothing here remembers.
        """
        if robot.name not in ROBOTS:
            raise ConfigError(f"maze knows the fist of {ROBOTS}, got {robot.name!r}")
        if self._prepared is None:
            arm, hand = arm_and_hand(robot.name)
            hanging, rest = Hanging(robot, Placed(robot)), robot.home.copy()
            rest[robot.n_arm :] = FIST
            rest = hanging.over(rest[None], np.array([[0.416, 0.0]]))[0]
            self._prepared = scene.compose(arm=arm, hand=hand, furnish=self.furnish)[0], hanging, rest
        return self._prepared

    def _obstacles(self, rng: np.random.Generator, walls: layout.Walls) -> Array:
        """Poses (k, 2, 7): one obstacle at random in each inner chamber, clear of the walls."""
        k, m = len(walls.position), len(OBSTACLES)
        poses = np.zeros((k, m, 7))
        poses[..., 2] = [b.half_size[2] for b in OBSTACLES]
        for o in range(m):
            todo = np.arange(k)
            x = layout.FIRST + o * layout.SPACING
            while len(todo):
                low, high = (x, -layout.HALF_WIDTH), (x + layout.SPACING, layout.HALF_WIDTH)
                poses[todo, o, :2] = rng.uniform(low, high, (len(todo), 2))
                todo = todo[layout.inside(poses[todo, o : o + 1, :2], _some(walls, todo))[:, 0] < 0.018]
        poses[..., 3:] = yawed(rng.uniform(-np.pi, np.pi, (k, m)))
        return poses

    def _fields(self, model: mujoco.MjModel, walls: layout.Walls) -> dict[str, Array]:
        """The walls as fields of the model per world; the tree of bounding boxes follows from ``geom_aabb``."""
        k = len(walls.position)
        names = ("body_pos", "body_quat", "geom_size", "geom_aabb", "geom_rbound")
        out = {name: np.repeat(getattr(model, name).reshape(1, *getattr(model, name).shape), k, 0) for name in names}
        body = [model.body(w).id for w in layout.WALLS]
        geom = [model.geom(w).id for w in layout.WALLS]
        out["body_pos"][:, body] = walls.position
        out["body_quat"][:, body] = yawed(walls.yaw)
        out["geom_size"][:, geom], out["geom_aabb"][:, geom, 3:] = walls.half, walls.half
        out["geom_rbound"][:, geom] = np.linalg.norm(walls.half, axis=-1)
        return out

    def reward(self, view: View, action: Array) -> Array:
        """(B,): the share of the way along the corridor, a bonus at the exit, less effort."""
        way = 1.0 - np.clip((view.goal[:, 0] - self._peg(view)[:, 0]) / (layout.exit_x() - layout.NEAR), 0.0, 1.0)
        effort = np.mean(np.clip(action[:, :2], -1, 1) ** 2, axis=1)
        return 0.05 * way + 10.0 * self.achieved(view) - 0.002 * effort

    def achieved(self, view: View) -> Array:
        """(B,) bool: the peg has left by the last gap, at a force within the limit."""
        return (self._peg(view)[:, 0] >= view.goal[:, 0]) & ~self._too_strong(view)

    def failed(self, view: View) -> Array:
        """(B,) bool: out of the maze, or pressed too hard; either way it is over."""
        return self._too_strong(view) | (self._peg(view)[:, 0] >= view.goal[:, 0])

    def _too_strong(self, view: View) -> Array:
        assert view.samples.wrench is not None  # the sensor is in the scene
        return np.linalg.norm(view.samples.wrench[..., :3], axis=-1).max(axis=0) > self.config.force

    def _peg(self, view: View) -> Array:
        return view.hand.palm + view.hand.rotation @ self._tip


def _some(walls: layout.Walls, ids: Array) -> layout.Walls:
    """The walls of worlds ``ids``."""
    return layout.Walls(walls.position[ids], walls.yaw[ids], walls.half[ids])


def scripted() -> dict[str, Callable[[], Any]]:
    """Policies that need no training."""
    from palmar.sim.tasks.maze_oracle import MazeOracle, StraightOn
    from palmar.sim.tasks.oracles import DoNothing

    return {"oracle": MazeOracle, "straight": StraightOn, "nothing": partial(DoNothing, MazeIO.action_dim)}


Config, Task, IO = MazeConfig, MazeTask, MazeIO
