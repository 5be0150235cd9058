"""The three values every part of Palmar exchanges: Measurement, Command, Verdict.

Shapes: ``*B`` is any number of leading batch dimensions (none on a robot, ``(B,)`` in training,
``(S, B)`` for S samples of an interval, time first); ``n`` joints in the robot's hardware order;
``m`` objects; ``p`` named contact pairs.  SI units, world frame (z up, origin at the robot base, table
top at z = 0), quaternions w-x-y-z.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

Array = Any
"""An array of any namespace of the array API standard (numpy at runtime, torch in training)."""

CONTACT_PAIRS = ("robot_table", "if_tip", "mf_tip", "rf_tip", "th_tip")
"""Named pairs in the order of ``Measurement.contact_force``: the robot on the table, each fingertip on anything."""


@dataclass(frozen=True)
class Measurement:
    """What a robot, real or simulated, can be asked at one instant.

    ``u, ud, udd, uddd`` are what was *sent*: the commanded joint position and its derivatives, from which
    the transition constraints (velocity, acceleration, jerk) are read.
    """

    t: Array
    """Time of the sample [s], (*B,)."""
    q: Array
    """Measured joint positions [rad], (*B, n)."""
    qd: Array
    """Measured joint velocities [rad/s], (*B, n)."""
    tau: Array
    """Joint torques [N m], (*B, n): the actuators', gravity compensation excluded."""
    u: Array
    """Commanded joint positions [rad], (*B, n)."""
    ud: Array
    """Commanded joint velocities [rad/s], (*B, n)."""
    udd: Array
    """Commanded joint accelerations [rad/s2], (*B, n)."""
    uddd: Array
    """Commanded joint jerks [rad/s3], (*B, n)."""
    palm_position: Array
    """Origin of the palm body [m], (*B, 3)."""
    clearance_self: Array
    """Smallest distance between two links of the robot that may not touch [m], (*B,)."""
    clearance_table: Array
    """Smallest height of the moving links above the table top [m], (*B,)."""
    contact_force: Array
    """Force of each pair of CONTACT_PAIRS [N], (*B, p)."""
    object_position: Array
    """Objects' centres [m], (*B, m, 3)."""
    object_quaternion: Array
    """Objects' orientations, w-x-y-z, (*B, m, 4)."""
    tau_rate: Array | None = None
    """Rate of change of the joint torques [N m/s], (*B, n).  This and the rest: None where nothing supplies it."""
    clearance_keep_out: Array | None = None
    """Smallest distance of the moving links to each keep-out region of the constraint file [m], (*B, R)."""
    clearance_person: Array | None = None
    """Smallest distance of the moving links to a tracked person [m], (*B,): inf where nobody is, 0 where the
    tracker is lost, for then a person is presumed present."""
    approach_person: Array | None = None
    """Largest speed at which a link moves towards a person [m/s], (*B,), >= 0; the robot's part alone."""
    approach_contact: Array | None = None
    """Largest speed at which a link of the hand moves towards something it may touch and is near to [m/s], (*B,)."""
    tank: Array | None = None
    """Energy left in the tank [J], (*B,)."""
    wrench: Array | None = None
    """Force [N] and torque [N m] that the hand exerts on what it touches, at the palm's origin, world axes, (*B, 6)."""
    object_contact: Array | None = None
    """Force between the robot and each object [N], (*B, m)."""
    object_visible: Array | None = None
    """1 where the robot's cameras see the object, else 0, (*B, m)."""
    free_cells: Array | None = None
    """How many cells of the table around the hand it could move to, (*B,): few of them make a corner."""

    def replace(self, **changes: Array) -> Measurement:
        """A copy with some fields changed."""
        return replace(self, **changes)

    def at(self, index: Any) -> Measurement:
        """The measurement at ``index`` of the leading dimensions."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return Measurement(**{name: None if x is None else x[index] for name, x in fields.items()})


@dataclass(frozen=True)
class RobotState:
    """One reading of a driver."""

    t: float
    """Monotonic time of the reading [s]."""
    seq: int
    """Counts readings; a repeated number is a repeated reading."""
    q: Array
    """[rad], (n,), hardware order."""
    qd: Array
    """[rad/s], (n,)."""
    tau: Array
    """[N m], (n,)."""


@dataclass(frozen=True)
class Command:
    """One tick of joint targets, in the robot's hardware order.

    Stiffness and damping are optional; a position-controlled arm and hand ignore them.
    """

    q: Array
    """Target joint positions [rad], (n,)."""
    seq: int
    """Sequence number, strictly increasing."""
    stamp: float
    """Monotonic time at which the target applies [s]."""
    stiffness: Array | None = None
    """Joint stiffness [N m/rad], (n,)."""
    damping: Array | None = None
    """Joint damping [N m s/rad], (n,)."""


@dataclass(frozen=True)
class Chunk:
    """Time-stamped joint targets from a policy; consumed by time, newest wins, never back in time."""

    q: Array
    """Targets [rad], (H, n)."""
    t: Array
    """Monotonic time at which each target should be reached [s], (H,), strictly increasing."""
    seq: int
    """Publication sequence number, strictly increasing."""
    received: float
    """Monotonic receive time [s]."""
    joints: Sequence[str] = ()
    """Joint names of the columns; empty means hardware order."""
    stiffness: Array | None = None
    """Joint stiffness from each target on [N m/rad], (H, n); None where the robot is position controlled."""
    damping: Array | None = None
    """Joint damping likewise [N m s/rad], (H, n)."""


@dataclass(frozen=True)
class People:
    """What a person tracker says at one instant: capsules, world frame.  No capsule means that nobody is there."""

    ends: Array
    """Ends of each capsule's axis [m], (h, 2, 3)."""
    radius: Array
    """[m], (h,)."""
    velocity: Array
    """Velocity of each capsule [m/s], (h, 3)."""
    received: float
    """Monotonic receive time [s]; too old means lost, and lost means a person is present."""


class State(Enum):
    """What the filter is doing.  See docs/filter.md."""

    RUN = "run"
    """Following the policy."""
    HOLD = "hold"
    """Controlled stop, power kept (category 2); resumes with fresh chunks."""
    STOP = "stop"
    """Controlled stop, then the arm is released (category 1); a hand that holds something keeps its grip."""
    LATCHED = "latched"
    """At rest after a STOP, waits for an operator's reset."""


@dataclass(frozen=True)
class Verdict:
    """What the filter did with one tick, and why."""

    state: State
    reason: str
    """Why the state is not RUN or why the command was changed, '' otherwise; a name, not a sentence."""
    changed: bool
    """Whether the sent command differs from the intended one by more than rounding."""
    edit: float
    """Largest change of joint acceleration made by the filter [rad/s2]."""
    active: tuple[str, ...]
    """Names of the constraints whose QP row or bound was active."""
    margins: dict[str, float] = field(default_factory=dict)
    """Margin per constraint at this tick, of the sent command and the measured state; SI units, < 0 is violated."""
    compute_s: float = 0.0
    """Thread CPU time of the tick [s]."""
    layers: dict[str, float] = field(default_factory=dict)
    """Thread CPU time per layer [s], where ``FilterConfig.timing`` asks for it."""


class PalmarError(ValueError):
    """Bad input, refused before anything moves.  The message gives the value received and those accepted."""


class CommandRefused(PalmarError):
    """A command or chunk that cannot be followed: shape, names, order, age or non-finite values."""


class ConfigError(PalmarError):
    """A configuration with unknown keys or impossible values."""


class BundleRefused(PalmarError):
    """A policy bundle that does not fit this robot, constraint file or version."""


class RolloutRefused(PalmarError):
    """A rollout file that is foreign, truncated or newer than this version."""
