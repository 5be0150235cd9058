"""Boxes that no grasp fits as they lie: what ``edge`` and ``wall`` share.

The box of an episode (sizes in disjoint cells for training and testing, mass, inertia), the fixed thing it is moved
against, and how episodes begin.  What a policy sees and does is in ``extrinsic_io``.  The idea of using the environment
as a finger is ExDex's (arXiv:2503.23120).  Frames: world.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

from palmar.safety.geometry import Kinematics as Clearances
from palmar.safety.robot import RobotModel
from palmar.safety.types import ConfigError
from palmar.sim import scene
from palmar.sim.interface import Start
from palmar.sim.kinematics import Kinematics, arm_step, matrix
from palmar.sim.robots import arm_and_hand
from palmar.sim.tasks import plain
from palmar.sim.trajectories import yawed

Array = np.ndarray

APERTURE = 0.235
"""Widest box of 5 cm height the LEAP hand gets thumb and a finger around without touching it otherwise [m]; a test
searches for wider postures.  Every box of these tasks is wider both ways."""
AHEAD = 0.47
"""Distance of a fixture's middle from the arm's base [m]."""
CELLS, TEST_CELLS = 6, (1, 4)
"""A range is cut into this many equal cells; these belong to the test split, the others to training."""


def draw(rng: np.random.Generator, span: tuple[float, float], split: str, k: int) -> Array:
    """K numbers uniform over the cells of ``span`` that belong to ``split``."""
    mine = [c for c in range(CELLS) if (c in TEST_CELLS) == (split == "test")]
    return span[0] + (span[1] - span[0]) * (rng.choice(mine, k) + rng.uniform(0, 1, k)) / CELLS


def check(name: str, config: Any, spans: tuple[str, ...]) -> None:
    """Refuse what no episode can be made of.

    Raises:
        ConfigError: If a span is not increasing, a number not positive, the split unknown, or a box not too wide.
    """
    plain.check(name, config, positive=("height",), pairs=("width", "thickness", *spans))
    if config.width[0] <= APERTURE:
        raise ConfigError(f"{name}.width must be more than the hand opens, {APERTURE} m, got {config.width[0]}")


@dataclass(frozen=True)
class Fixture:
    """The fixed block of a scene: a shelf whose edge, or a wall whose face, is at some y."""

    name: str
    half: tuple[float, float]
    """Half extents in x and y [m]."""
    offset: float
    """Its middle's y less that of edge or face [m]."""
    top: float
    """Its height [m]."""

    def centre(self, y: Array) -> Array:
        """Middles (k, 3) [m] with edge or face at y (k,) [m]."""
        return np.stack([np.full(len(y), AHEAD), y + self.offset, np.full(len(y), self.top / 2)], axis=1)

    def add(self, spec: mujoco.MjSpec, y: float) -> mujoco.MjsGeom:
        """Add it to a scene, which the robot and every object touch."""
        body = spec.worldbody.add_body(name=self.name, pos=self.centre(np.array([y]))[0])
        size = [*self.half, self.top / 2]
        geom = body.add_geom(name=self.name, type=mujoco.mjtGeom.mjGEOM_BOX, size=size)
        geom.friction, geom.condim, geom.solref, geom.solimp = scene.FRICTION, 4, scene.SOLREF, scene.SOLIMP
        geom.contype, geom.conaffinity, geom.rgba = 1, 0, [0.55, 0.60, 0.66, 1.0]
        return geom


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


class Stage:
    """The compiled scene of a task and the posture its episodes start from: home, raised."""

    def __init__(self, robot: RobotModel, furnish: scene.Furnish, *, raise_by: float):
        arm, hand = arm_and_hand(robot.name)
        self.model = scene.compose(arm=arm, hand=hand, furnish=furnish)[0]
        self._n_arm = robot.n_arm
        kinematics, q = Kinematics(robot, 1), robot.home[None].copy()
        home = kinematics.hand(q)
        for _ in range(60):
            step = arm_step(kinematics.hand(q), home.palm + np.array([0.0, 0.0, raise_by]), home.rotation)
            q[:, : robot.n_arm] += np.clip(step, -0.05, 0.05)
        self.q = np.clip(q[0], robot.limits.q_min, robot.limits.q_max)
        self._clearances = Clearances.from_model(robot)

    def starts(self, rng: np.random.Generator, k: int, *, above: float) -> Array:
        """K postures near the raised one (k, n) [rad].

        Raises:
            ConfigError: If a link would start less than 1 cm above ``above`` [m], the top of what is there.
        """
        q = np.tile(self.q, (k, 1))
        q[:, : self._n_arm] += rng.uniform(-0.03, 0.03, (k, self._n_arm))
        height = min(float(self._clearances.clearances(row, near=0.02)[1].min()) for row in q)
        if height < above + 0.01:
            raise ConfigError(
                f"the hand starts {height:.3f} m above the table, inside what is up to {above:.3f} m high"
            )
        return q

    def begin(
        self,
        rng: np.random.Generator,
        config: Any,
        k: int,
        *,
        fixture: Fixture,
        box: str,
        lies: float,
        at: tuple[float, float],
        behind: tuple[float, float],
    ) -> Start:
        """K episodes with a box behind an edge or a face; goals are (k, 5), see ``ExtrinsicIO``.

        Args:
            rng: Drawn from.
            config: Of width, thickness, mass, yaw, side and split.
            k: How many.
            fixture: To be moved.
            box: Name of its body.
            lies: Height of what it lies on [m].
            at: Where edge or face may be, along y [m].
            behind: How far behind the box may begin [m].

        Raises:
            ConfigError: See ``starts``.
        """
        half = np.stack([draw(rng, s, config.split, k) / 2 for s in (config.width, config.width, config.thickness)], 1)
        y, mass = draw(rng, at, config.split, k), rng.uniform(config.mass[0], config.mass[1], k)
        yaw = rng.uniform(-config.yaw, config.yaw, k)
        across = np.abs(np.cos(yaw)) * half[:, 1] + np.abs(np.sin(yaw)) * half[:, 0]
        poses = np.zeros((k, 1, 7))
        poses[:, 0, 0] = AHEAD + rng.uniform(-config.side, config.side, k)
        poses[:, 0, 1], poses[:, 0, 2] = y - rng.uniform(*behind, k) - across, lies + half[:, 2]
        poses[:, 0, 3:] = yawed(yaw)
        fields = box_fields(self.model, box, half, mass)
        fields["body_pos"] = moved(self.model, fixture.name, fixture.centre(y))
        q = self.starts(rng, k, above=max(fixture.top, lies + 2 * float(half[:, 2].max())))
        return Start(q, poses, np.column_stack([half, y, np.full(k, fixture.top)]), fields)
