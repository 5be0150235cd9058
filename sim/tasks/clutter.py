"""Lift the named object, and only that one, out of three to six procedural ones of all shapes, sizes and colours.

Words name it by shape, colour, size or its place among the others (``sim.words``).  The robot sees tracked poses and
what a tracker knows of shapes: families, bounding boxes, exponents.  Splits differ in shapes, colours, words and
layouts (``sim.forms``, ``sim.objects``, ``sim.words``, ``sim.layout``).  Actions are those of ``lift``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import mujoco
import numpy as np

from palmar.safety.config import unknown
from palmar.safety.robot import RobotModel
from palmar.safety.types import ConfigError
from palmar.sim import layout, objects, scene, words
from palmar.sim.forms import FAMILIES, SPLITS
from palmar.sim.interface import Start, View
from palmar.sim.kinematics import matrix
from palmar.sim.objects import Thing
from palmar.sim.robots import arm_and_hand
from palmar.sim.tasks.clutter_io import GOAL, HALF, MOST, ClutterIO
from palmar.sim.tasks.lift import grasping
from palmar.sim.tasks.palm import ROBOTS
from palmar.sim.tasks.plain import Plain, check
from palmar.sim.tracker import TrackerConfig
from palmar.sim.words import Described

Array = np.ndarray
CENTRE, REACH = np.array([0.47, 0.0]), (0.26, 0.40)
"""Rectangle of positions from which the hand reaches an object with any turn of up to 90 degrees [m] (tested)."""
PARKED = -1.0
"""Height of parked objects, without weight [m]."""
COLOURS = tuple(c for split in SPLITS for c in words.COLOURS[split])


@dataclass(frozen=True)
class ClutterConfig:
    """Difficulty of the task."""

    max_steps: int = 120
    """Length of an episode [control steps]."""
    rate: float = 20.0
    """Control steps per second [Hz]."""
    height: float = 0.10
    """How far to lift [m]."""
    hold: float = 1.0
    """How long to hold it there [s]."""
    objects: tuple[int, int] = (3, 6)
    """Fewest and most objects of a scene."""
    gap: float = 0.05
    """Least distance between two objects at the start [m]: the clutter."""
    region: tuple[float, float] = (0.24, 0.40)
    """Size of the area objects start in, around CENTRE [m]."""
    families: tuple[str, ...] = FAMILIES
    split: str = "train"
    """Whose shapes, colours, words and layouts: train or test."""
    friction: tuple[float, float] | None = (0.6, 1.2)
    """Sliding friction of tips and objects, drawn per world; None keeps the model's own."""
    density: tuple[float, float] = (200.0, 700.0)
    """Of an object, drawn per object [kg/m3]."""
    mass: tuple[float, float] = (0.03, 0.25)
    """Density times volume is kept within this [kg]."""
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    constraints: tuple[str, ...] = ()
    """Names of the constraints that give costs; empty means every one of the file."""

    def __post_init__(self) -> None:
        check("clutter", self, positive=("height",), pairs=("density",))
        for name in self.families:
            if name not in FAMILIES:
                raise ConfigError(unknown("family of objects", name, FAMILIES))
        if not self.families or not 1 <= self.objects[0] <= self.objects[1] <= MOST:
            raise ConfigError(f"need a family and 1 to {MOST} objects, got {self.families} and {self.objects}")
        if self.gap < 0:
            raise ConfigError(f"clutter.gap must be >= 0, or objects would penetrate, got {self.gap}")
        if not all(0 < side <= most for side, most in zip(self.region, REACH, strict=True)):
            raise ConfigError(f"clutter.region must be within what the hand reaches, {REACH} m, got {self.region}")


class ClutterTask(Plain):
    """Lift the named object out of clutter, and only that one."""

    name = "clutter"
    status = "solved"
    robots = ROBOTS

    def __init__(self, config: ClutterConfig):
        self.config = config
        self._scenes: dict[str, mujoco.MjModel] = {}

    @property
    def objects(self) -> tuple[str, ...]:
        """Names of the free bodies."""
        return tuple(f"object{k}" for k in range(MOST))

    def furnish(self, spec: mujoco.MjSpec) -> None:
        """Add the mesh library and the bodies."""
        objects.add(spec, self.objects)

    def io(self, robot: RobotModel, batch: int, *, nthread: int = 1) -> ClutterIO:
        """The policy's side of the task."""
        return ClutterIO(robot, batch, nthread=nthread)

    def described(self, goal: Array) -> list[Described]:
        """The objects of one world's goal (MOST, 12) that are there."""
        rows = goal[goal[:, 1] > 0.5]
        large = 2 * rows[:, HALF].max(axis=1) >= objects.LARGE
        return [
            Described(COLOURS[int(r[8])], FAMILIES[int(r[2])], bool(big), (float(r[9]), float(r[10])))
            for r, big in zip(rows, large, strict=True)
        ]

    def instruction(self, goal: Array) -> str:
        """The sentence for a goal (MOST, 12)."""
        named = int(np.argmax(goal[:, 0]))
        return words.tell(self.described(goal), named, self.config.split, int(goal[named, 11]))

    def start(self, rng: np.random.Generator, robot: RobotModel, k: int) -> Start:
        """K episodes; goals are (k, MOST, 12)."""
        q = np.tile(robot.home, (k, 1))
        q[:, : robot.n_arm] += rng.uniform(-0.03, 0.03, (k, robot.n_arm))
        drawn = [self._draw(rng) for _ in range(k)]
        density = rng.uniform(*self.config.density, (k, MOST))
        return self._begin(robot, q, drawn, density)

    def arranged(
        self, robot: RobotModel, things: Sequence[Thing], colours: Sequence[str], poses: Array, instruction: str
    ) -> Start:
        """One episode with given things at given poses (m, 7), the named one by an instruction; at rest pose.

        Raises:
            ConfigError: If a colour is unknown, objects are too many, penetrate each other or the table, float, or
                the named one is out of reach.
            UnknownInstruction: If the words do not name one of them.
        """
        poses, half = np.asarray(poses, dtype=float), np.array([t.half for t in things]).reshape(-1, 3)
        if not 1 <= len(things) <= MOST or poses.shape != (len(things), 7) or len(colours) != len(things):
            raise ConfigError(
                f"need 1 to {MOST} things, a colour and a pose each, got {len(things)}, {len(colours)}, {poses.shape}"
            )
        for colour in colours:
            if colour not in COLOURS:
                raise ConfigError(unknown("colour", colour, COLOURS))
        layout.check(half, poses)
        seen = [Described(c, t.family, t.large, (p[0], p[1])) for c, t, p in zip(colours, things, poses, strict=True)]
        named = words.ground(instruction, seen)
        if np.any(np.abs(poses[named, :2] - CENTRE) > np.array(REACH) / 2):
            raise ConfigError(f"{seen[named]} at {poses[named, :2]} m is out of reach: within {REACH} m of {CENTRE}")
        drawn = Drawn(list(things), [COLOURS.index(c) for c in colours], poses, named, 0)
        return self._begin(robot, robot.home[None].copy(), [drawn], np.full((1, MOST), np.mean(self.config.density)))

    def _draw(self, rng: np.random.Generator) -> Drawn:
        """The objects of one scene, no two of one kind, size and colour."""
        c = self.config
        count = int(rng.integers(c.objects[0], c.objects[1] + 1))
        palette = [COLOURS.index(name) for name in words.COLOURS[c.split]]
        kinds = [(f, s, p) for f in c.families for s in (False, True) for p in palette]
        if count > len(kinds):
            raise ConfigError(f"{count} objects of {len(c.families)} families cannot be told apart")
        picked = [kinds[i] for i in rng.choice(len(kinds), count, replace=False)]
        things = [objects.draw(rng, c.split, f, large=large) for f, large, _ in picked]
        half = np.array([t.half for t in things])
        poses = layout.scatter(rng, half, split=c.split, centre=CENTRE, region=c.region, apart=c.gap)
        return Drawn(things, [p for *_, p in picked], poses, int(rng.integers(count)), int(rng.integers(1 << 16)))

    def _begin(self, robot: RobotModel, q: Array, drawn: Sequence[Drawn], density: Array) -> Start:
        """Start of worlds with drawn objects and joint positions q (k, n)."""
        model = self._scene(robot)
        things = [d.things + [_SPARE] * (MOST - len(d.things)) for d in drawn]
        solids = objects.solids(model, things)
        mass = np.clip(density * np.array([[s.volume for s in row] for row in solids]), *self.config.mass)
        made = objects.fields(model, self.objects, solids, mass)
        poses, goal = np.zeros((len(drawn), MOST, 7)), np.zeros((len(drawn), MOST, len(GOAL)))
        poses[..., 0], poses[..., 2], poses[..., 3] = 0.3 * np.arange(MOST), PARKED, 1.0
        rgba = np.zeros((len(drawn), MOST, 4))
        for k, d in enumerate(drawn):
            m = len(d.things)
            poses[k, :m], rgba[k, :m] = d.poses, [_RGBA[c] for c in d.colours]
            goal[k, :m] = [
                (0, 1, FAMILIES.index(t.family), *t.half, *t.exponents, c, *p[:2], d.choice)
                for t, c, p in zip(d.things, d.colours, d.poses, strict=True)
            ]
            goal[k, d.named, 0] = 1
        geom, body = ([of(f"{n}{s}").id for n in self.objects] for of, s in ((model.geom, "_geom"), (model.body, "")))
        made["geom_rgba"] = np.tile(model.geom_rgba, (len(drawn), 1, 1))
        made["geom_rgba"][:, geom] = rgba
        made["body_gravcomp"] = np.tile(model.body_gravcomp, (len(drawn), 1))
        made["body_gravcomp"][:, body] = 1.0 - goal[..., 1]
        return Start(q, poses, goal, made)

    def _scene(self, robot: RobotModel) -> mujoco.MjModel:
        """The compiled scene whose fields the worlds change."""
        if robot.name not in self._scenes:
            arm, hand = arm_and_hand(robot.name)
            self._scenes[robot.name] = scene.compose(arm=arm, hand=hand, furnish=self.furnish)[0]
        return self._scenes[robot.name]

    def reward(self, view: View, action: Array) -> Array:
        """(B,): that of ``lift`` for the named object."""
        b, named = np.arange(len(view.t)), np.argmax(view.goal[..., 0], axis=1)
        mine, place, axes = view.goal[b, named], view.position[b, named], matrix(view.quaternion[b, named])
        is_round = mine[:, 2] == FAMILIES.index("cylinder")
        return grasping(view, place, axes, mine[:, HALF], is_round, action, height=self.config.height)

    def achieved(self, view: View) -> Array:
        """(B,) bool: the named object, and only that one, is up; holding it ``hold`` seconds is success."""
        rise = view.position[..., 2] - view.goal[..., 5]
        named, there = view.goal[..., 0] > 0.5, view.goal[..., 1] > 0.5
        others = np.where(there & ~named, rise, 0.0).max(axis=1)
        return (rise[named] >= self.config.height) & (others < 0.03)


@dataclass(frozen=True)
class Drawn:
    """One scene."""

    things: list[Thing]
    colours: list[int]
    """Indices into COLOURS."""
    poses: Array
    """(m, 7)."""
    named: int
    choice: int
    """What ``words.tell`` says."""


_SPARE = Thing("box", (0.025, 0.025, 0.025))
_RGBA = [words.COLOURS[split][c] for split in SPLITS for c in words.COLOURS[split]]


def scripted() -> dict[str, Callable[[], Any]]:
    """Policies that need no training."""
    from palmar.sim.tasks.clutter_oracle import ClutterOracle
    from palmar.sim.tasks.oracles import DoNothing

    return {"oracle": ClutterOracle, "nothing": partial(DoNothing, ClutterIO.action_dim)}


Config, Task, IO = ClutterConfig, ClutterTask, ClutterIO
