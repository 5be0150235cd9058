"""Lift the named block while a person works at the same table: ``lift``, and an arm that comes and goes.

The person is scripted and does not look at the robot.  What the robot's speed towards it costs is written in
``configs/constraints/coworker.yaml``; what the robot knows of it comes from a tracker with a rate, noise, a delay,
dropouts, times without sight, and the robot's own arm in the way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import mujoco
import numpy as np

from palmar.safety.geometry import Kinematics as Tree
from palmar.safety.robot import RobotModel
from palmar.safety.types import Measurement
from palmar.sim import sightline
from palmar.sim.interface import Seen, Start, View
from palmar.sim.kinematics import Hand
from palmar.sim.people import PeopleTracker, PeopleTrackerConfig, add_arm, by_joints
from palmar.sim.tasks import coworker_motion as motion
from palmar.sim.tasks.lift import (
    BLOCKS,
    PHRASES,
    LiftConfig,
    LiftIO,
    LiftTask,
    alone_up,
    firm_grip,
    parts,
    progress,
    said,
)  # fmt: skip
from palmar.sim.tasks.palm import ROBOTS, PalmIO
from palmar.sim.tasks.plain import Plain, check
from palmar.sim.tracker import TrackerConfig

Array = np.ndarray
CAMERA = (0.9, -0.9, 1.6)
"""Of the people tracker [m]: it sees the arm unless the robot is in the way."""
NEVER = 10.0
"""Age that is shown where nothing was ever seen, and the highest that is shown [s]."""


@dataclass(frozen=True)
class CoworkerConfig:
    """Difficulty of the task."""

    split: str = "train"
    """``train`` or ``test``: bearings and speeds of people and words that the other has not."""
    max_steps: int = 300
    """Length of an episode [control steps]."""
    rate: float = 20.0
    """Control steps per second [Hz]."""
    height: float = 0.10
    """How far to lift [m]."""
    hold: float = 1.0
    """How long to hold it there [s]."""
    friction: tuple[float, float] | None = (0.6, 1.2)
    """Sliding friction of tips and blocks, drawn per world; None keeps the model's own."""
    mass: tuple[float, float] = (0.05, 0.2)
    """Mass of a block, drawn per world [kg]."""
    spacing: float = 0.12
    """Smallest distance between block centres at the start [m]."""
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    people: PeopleTrackerConfig = field(default_factory=PeopleTrackerConfig)
    constraints: tuple[str, ...] = ()
    """Names of the constraints that give costs; empty means every one of the file."""

    def __post_init__(self) -> None:
        check("coworker", self, positive=("height", "spacing"))


@dataclass(frozen=True)
class Report:
    """What is known of the person, for B robots."""

    ends: Array
    """Fingertips' end and elbow [m], (B, 2, 3)."""
    velocity: Array
    """[m/s], (B, 3)."""
    age: Array
    """Since the newest frame came [s], (B,)."""


class Watch(Protocol):
    """Where reports come from: a people tracker of the cell, or ``SimulatedWatch``."""

    def reset(self, ids: Array) -> None:
        """Forget robots ``ids`` (k,)."""
        ...

    def report(self, t: Array, goal: Array, hand: Hand) -> Report:
        """The newest report at episode times t (B,)."""
        ...


class SimulatedWatch:
    """The tracker of a simulated cell.  It alone knows the plans that goals hold."""

    def __init__(self, config: PeopleTrackerConfig, batch: int):
        self._tracker = PeopleTracker(config, batch=batch, seed=batch)

    def reset(self, ids: Array) -> None:
        """Forget robots ``ids`` (k,)."""
        self._tracker.reset(ids)

    def report(self, t: Array, goal: Array, hand: Hand) -> Report:
        """The newest report at episode times t (B,) for goals (B, SIZE)."""
        plans, tracker = goal[:, 2:], self._tracker
        ends = motion.line(t, plans)
        seen = sightline.clear(CAMERA, ends, hand).any(1) & ~motion.blinking(t, plans)
        tracker.update(t, ends, seen)
        return Report(tracker.ends, tracker.velocity, t - tracker.received)


class Nobody:
    """No tracker: a person is presumed present, nobody knows where."""

    def reset(self, ids: Array) -> None:
        """Nothing to forget."""

    def report(self, t: Array, goal: Array, hand: Hand) -> Report:
        """Infinitely old."""
        return Report(np.zeros((len(t), 2, 3)), np.zeros((len(t), 3)), np.full(len(t), np.inf))


class CoworkerIO(PalmIO):
    """What a policy sees and does: as in ``lift``, and the newest report on the person.

    On a robot ``watch`` is to be set to what receives the cell's people tracker; until then the person is lost.
    """

    obs_names = (*LiftIO.obs_names, "palm_to_person", "person_velocity", "person_age")
    obs_sizes = (*LiftIO.obs_sizes, 6, 3, 1)
    obs_units = (*LiftIO.obs_units, "m", "m/s", "s")

    def __init__(self, robot: RobotModel, batch: int, *, nthread: int = 1, watch: Watch | None = None):
        super().__init__(robot, batch, nthread=nthread)
        self.watch: Watch = watch or Nobody()
        self._t = np.zeros(batch)

    def reset(self, ids: Array, q: Array) -> None:
        """Start episodes of robots ``ids`` (k,) at rest at q (k, n)."""
        super().reset(ids, q)
        self.watch.reset(ids)
        self._t[ids] = 0.0

    def observe(self, seen: Seen) -> Array:
        """Observation (B, d) float32; of goals (B, >= 2) only the index of the named block is looked at."""
        known = parts(self, seen, seen.goal[:, 0].astype(int))
        person = self.watch.report(self._t, seen.goal, self.hand)
        age = np.minimum(person.age, NEVER)[:, None]
        away = (person.ends - self.hand.palm[:, None]).reshape(self.batch, 6)
        told = (np.where(age < NEVER, away, 0.0), person.velocity, age)
        return np.concatenate((*known, *told), axis=1).astype(np.float32)

    def joint_target(self, action: Array) -> Array:
        """Joint targets (B, n) [rad] to be reached one policy period from now, of actions (B, 8) as in ``lift``."""
        self._t += 1 / self.rate
        return super().joint_target(action)


class CoworkerTask(Plain):
    """Lift the named block while a person's arm comes and goes."""

    name = "coworker"
    status = "solved"
    robots = ROBOTS
    blocks = BLOCKS

    def __init__(self, config: CoworkerConfig):
        self.config = config
        self.split, self.phrases = motion.SPLITS[config.split], PHRASES[config.split]
        self._lift = LiftTask(LiftConfig(spacing=config.spacing))
        self._tree: Tree | None = None

    def furnish(self, spec: mujoco.MjSpec) -> None:
        """Add the blocks and the person's arm."""
        super().furnish(spec)
        firm_grip(spec)
        add_arm(spec)

    def io(self, robot: RobotModel, batch: int, *, nthread: int = 1) -> CoworkerIO:
        """The policy's side of the task, with the tracker of a simulated cell."""
        return CoworkerIO(robot, batch, nthread=nthread, watch=SimulatedWatch(self.config.people, batch))

    def instruction(self, goal: Array) -> str:
        """The sentence for a goal: index of the block and of the phrase, then the person's plan."""
        return said(self.phrases[int(goal[1])], int(goal[0]))

    def start(self, rng: np.random.Generator, robot: RobotModel, k: int) -> Start:
        """K episodes; goals are index of block and phrase and the person's plan, (k, SIZE)."""
        self._tree = self._tree or Tree.from_model(robot)
        start = self._lift.start(rng, robot, k)
        phrase = rng.integers(0, len(self.phrases), k)
        near = start.poses[np.arange(k), start.goal, :2]
        plans = motion.plan(rng, self.split, near, self.config.max_steps / self.config.rate)
        goal = np.concatenate([np.stack([start.goal, phrase], 1), plans], axis=1)
        return Start(start.q, start.poses, goal, mocap=motion.where(np.zeros((1, k)), plans)[0])

    def script(self, t: Array, goal: Array) -> Array:
        """Poses (S, B, 2, 7) of hand and forearm at times t (S, B) [s]."""
        return motion.where(t, goal[:, 2:])

    def sense(self, samples: Measurement, goal: Array) -> Measurement:
        """The samples with a distance of 0 and all of the robot's speed where the tracker is lost, as in the filter."""
        if samples.clearance_person is None or samples.approach_person is None:
            return samples
        late = self.config.people.timeout + self.config.people.delay
        lost = motion.blinking(samples.t, goal[:, 2:], late=late)
        clear, approach = samples.clearance_person.copy(), samples.approach_person.copy()
        assert self._tree is not None
        for index in zip(*np.nonzero(lost), strict=True):
            clear[index], approach[index] = by_joints(self._tree, None, samples.q[index], samples.qd[index])
        return samples.replace(clearance_person=clear, approach_person=approach)

    def reward(self, view: View, action: Array) -> Array:
        """(B,): that of ``lift``.  Costs are no part of it: the constraint file has them."""
        return progress(view, view.goal[:, 0].astype(int), action, height=self.config.height)

    def achieved(self, view: View) -> Array:
        """(B,) bool: the named block, and only that one, is up."""
        return alone_up(view, view.goal[:, 0].astype(int), height=self.config.height)


def scripted() -> dict[str, Callable[[], Any]]:
    """Policies that need no training: one that slows and waits, one that does not, and one that does nothing."""
    from palmar.sim.tasks.coworker_oracle import Yielding
    from palmar.sim.tasks.hazards_oracle import unaware
    from palmar.sim.tasks.oracles import DoNothing

    return {"oracle": Yielding, "unaware": unaware, "nothing": partial(DoNothing, CoworkerIO.action_dim)}


Config, Task, IO = CoworkerConfig, CoworkerTask, CoworkerIO
