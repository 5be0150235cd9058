"""The protocols between Palmar's parts: Env, Task, Policy, Robot, and what passes between them.

Where an observation comes from, in simulation: an engine (``sim.engines``) advances worlds and makes a ``Measurement``;
an environment (``sim.env``) reads joints through ``sim.sensors`` and objects through ``sim.tracker``, as a robot would,
into a ``Seen``; the task's side of the policy, a ``TaskIO`` of ``sim.tasks``, makes the observation of it.  On hardware
``real_robot.nodes`` fills the same ``Seen``.  Rewards alone are of the truth, a ``View``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from palmar.safety.robot import RobotModel
from palmar.safety.types import Array, Command, Measurement, RobotState

Carry = Any
Obs = Any
Goal = Any
"""What an episode asks, drawn by the task: an array whose first axis is the world."""


@dataclass(frozen=True)
class Start:
    """How k episodes begin."""

    q: Array
    """Joint positions, at rest [rad], (k, n)."""
    poses: Array
    """Poses of the objects: position [m], w-x-y-z, (k, m, 7)."""
    goal: Goal
    """(k, ...)."""
    fields: Mapping[str, Array] = field(default_factory=dict)
    """Fields of the model that differ per world, by MuJoCo's name, whole: ``geom_size`` (k, ngeom, 3), ..."""
    mocap: Array | None = None
    """Poses of the scripted bodies (k, c, 7), in the model's order; None where there are none."""


@dataclass(frozen=True)
class Seen:
    """What a robot can see, for B robots: the input of a policy's side, in training and on hardware."""

    q: Array
    """Joint readings [rad], (B, n)."""
    qd: Array
    """[rad/s], (B, n)."""
    position: Array
    """Tracked objects [m], (B, m, 3)."""
    quaternion: Array
    """Tracked orientations, w-x-y-z, (B, m, 4)."""
    goal: Goal
    """(B, ...)."""
    wrench: Array | None = None
    """Force [N] and torque [N m] at the palm, world axes, (B, 6); None where no sensor supplies it."""


@dataclass(frozen=True)
class View:
    """The truth of B simulated worlds after a control step: what a task may look at."""

    t: Array
    """Age of the episode [s], (B,)."""
    q: Array
    """[rad], (B, n)."""
    qd: Array
    """[rad/s], (B, n)."""
    hand: Any
    """``sim.kinematics.Hand``: palm, fingertips, Jacobian."""
    tip_radius: Array
    """[m], (4,)."""
    position: Array
    """Objects [m], (B, m, 3)."""
    quaternion: Array
    """w-x-y-z, (B, m, 4)."""
    goal: Goal
    """(B, ...)."""
    samples: Measurement
    """Every physics step of the control step, (S, B, ...)."""
    mocap: Array | None = None
    """Poses of the scripted bodies now, (B, c, 7)."""


@dataclass(frozen=True)
class Step:
    """Result of one control step of a batch of B environments."""

    obs: Array
    """Observation after the step; of a fresh episode where one ended, (B, d) float32."""
    reward: Array
    """(B,) float32."""
    cost: Array
    """Cost of the action just taken per constraint, in its unit (seconds or events), (B, K) float32."""
    terminated: Array
    """Episode ended by its task, (B,) bool."""
    truncated: Array
    """Episode ended by time, (B,) bool."""
    info: Mapping[str, Array] = field(default_factory=dict)
    """``terminal_obs`` (B, d) where an episode ended, ``success`` (B,), ``margin`` (B, K) smallest of the step."""


class Env(Protocol):
    """B environments of one task on any engine: all that learning and evaluation know of a simulator."""

    num_envs: int
    """B."""
    obs_dim: int
    action_dim: int
    max_steps: int
    """Length of an episode [control steps]."""
    constraint_names: tuple[str, ...]
    """The cost channels, in order; () with costs off."""

    def reset(self, seed: int | None = None) -> Array:
        """Start every environment afresh; a seed also redraws what lasts longer than an episode.  obs (B, d)."""
        ...

    def step(self, action: Array) -> Step:
        """One control step with actions (B, a) in [-1, 1]; an ended episode restarts within it.

        Raises:
            CommandRefused: If the shape is wrong or a number is not finite; nothing is stepped.
        """
        ...


class TaskIO(Protocol):
    """A task's policy side: the same in training and on a robot.

    It may have a property ``impedance``: stiffness [N m/rad] and damping [N m s/rad] of the servos, (B, n) each,
    to go with the newest joint targets.
    """

    action_names: tuple[str, ...]
    action_units: tuple[str, ...]
    action_scales: tuple[float, ...]
    """What an action of 1 changes, in its unit."""
    action_dim: int
    rate: float
    """Of the policy [Hz]."""
    obs_names: tuple[str, ...]
    obs_sizes: tuple[int, ...]
    obs_units: tuple[str, ...]
    kinematics: Any
    """``sim.kinematics.Kinematics`` of the robot."""
    hand: Any
    """``sim.kinematics.Hand`` of the newest joint readings."""

    @property
    def obs_dim(self) -> int:
        """Length of an observation."""
        ...

    def reset(self, ids: Array, q: Array) -> None:
        """Start episodes of robots ``ids`` (k,) at rest at q (k, n)."""
        ...

    def observe(self, seen: Seen) -> Array:
        """Observation (B, d) float32."""
        ...

    def joint_target(self, action: Array) -> Array:
        """Joint targets (B, n) [rad] to be reached one policy period from now, of actions (B, a) in [-1, 1]."""
        ...


class Task(Protocol):
    """What is asked.  One module of ``sim.tasks`` each; optional methods have their default in ``sim.tasks.plain``."""

    name: str
    status: str
    """``solved`` or ``unsolved``, shown by ``palmar envs``."""
    config: Any
    """Frozen; at least max_steps, rate, hold, friction, mass, tracker, constraints."""

    @property
    def objects(self) -> tuple[str, ...]:
        """Names of the free bodies, the order of every object axis."""
        ...

    def furnish(self, spec: Any) -> None:
        """Add to the ``MjSpec`` of robot and table what the task needs: objects, walls, scripted bodies."""
        ...

    def io(self, robot: RobotModel, batch: int, *, nthread: int = 1) -> Any:
        """The policy's side, by the protocol TaskIO."""
        ...

    def instruction(self, goal: Goal) -> str:
        """What is said for the goal of one world."""
        ...

    def start(self, rng: Any, robot: RobotModel, k: int) -> Start:
        """Draw k episodes."""
        ...

    def script(self, t: Array, goal: Goal) -> Array | None:
        """Poses of scripted bodies at episode times t (S, B) [s], (S, B, c, 7); None where there are none."""
        ...

    def sense(self, samples: Measurement, goal: Goal) -> Measurement:
        """The samples (S, B, ...) with the optional fields filled that only this task knows of."""
        ...

    def reward(self, view: View, action: Array) -> Array:
        """(B,)."""
        ...

    def achieved(self, view: View) -> Array:
        """(B,) bool; for ``config.hold`` seconds it is success."""
        ...

    def failed(self, view: View) -> Array:
        """(B,) bool: nothing more can be gained, the episode ends."""
        ...


class Policy(Protocol):
    """Anything that chooses commands.  All memory is in the carry."""

    def start(self, batch: int) -> Carry:
        """Carry for freshly reset robots."""
        ...

    def act(self, obs: Obs, carry: Carry) -> tuple[Array, Carry]:
        """Actions or chunks for obs; equal inputs give equal outputs."""
        ...


class Robot(Protocol):
    """A driver: one device, real or simulated, that moves some of a robot's joints, or the whole robot.

    It is used by one thread.  Nothing in it substitutes: a reading that did not come is an error.
    """

    joints: tuple[str, ...]
    """Palmar's names of the joints it moves, in the order of every (n,) array here."""

    @property
    def fault(self) -> str:
        """Name of the hardware's fault as of the last ``read``, '' for none."""
        ...

    def read(self) -> RobotState:
        """The newest state, with its own time of reading.

        Raises:
            DriverError: If none arrived or the newest is too old; never the previous one instead.
        """
        ...

    def write(self, command: Command) -> None:
        """Send one tick of joint targets, with stiffness and damping where the hardware takes them.

        Raises:
            CommandRefused: If it is not finite or of another shape; nothing was sent then.
            DriverError: If the hardware is in a fault, or does not follow.
        """
        ...

    def stop(self, reason: str) -> None:
        """Bring the hardware to rest by its own means; see each driver for what that does physically.

        It never lets go of a held object: servos stay on.
        """
        ...

    def recover(self) -> None:
        """Clear a fault, after an operator's reset; holds where it is and does not jump.

        Raises:
            DriverError: If the fault does not go away.
        """
        ...

    def close(self) -> None:
        """Let go of the port and leave the hardware holding."""
        ...
