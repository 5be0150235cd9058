"""Energy tanks: what the set-points and the stiffness may still give to the robot, one tank for arm and one for hand.

A joint's servo is a virtual spring and damper whose torque is cut at F: ``tau = clip(k (u - q) - d qd, -F, F)``.
With e = u - q its spring stores ``U = k e^2 / 2`` up to F and ``F |e| - F^2 / (2 k)`` beyond; what is left of tau
without the spring's ``clip(k e)`` opposes qd, so it only dissipates.  While u and k stand, E_kin + U cannot rise
but by work from outside.  Energy enters through one port: u moves by du at force k e (``k du (e + du / 2)``),
or k rises by dk while the spring is stretched (``dk e^2 / 2``).

Ledger.  Port less dissipation is ``dU + tau dq``, both read off measurements: U is a function of the state, so its
error does not add up, and tau dq needs no model.  The tank pays what it says and gets ``efficiency`` of what
comes back, and ``loss`` of what joint damping and friction are known to take, up to ``capacity``:
``E_kin + U + T`` never exceeds its start plus the work from outside.

Errors are charged, not averaged: U for the declared error of q and for not knowing which command was in force, the
work for what that error makes of a changing torque, and every command that no reading has shown yet for its
port, at the worst position within the declared errors.

Row.  After a tick the level must suffice for the port of the stop that remains: the set-point moves on by at
most l = s^2 / (2 A) + (3 A / J + 3 dt) s, s the speed plus what an acceleration not yet let go may add.  Something
may push the joint away from it meanwhile by ``push`` times the duration; the port is then at most
U(e + l) - U(e) at that e.  A set-point that stands and stiffness that does not rise need nothing, so a stop
that has been paid for never empties the tank.  Set-point and acceleration enter convexly: the row is their chord.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import mujoco
import numpy as np

from palmar.safety.bounds import Bounds
from palmar.safety.geometry import Kinematics
from palmar.safety.ledger import INITIAL, LEFT, RING, SETTLED, WAITING, Book, tick
from palmar.safety.types import Chunk, CommandRefused, ConfigError

Array = np.ndarray


@dataclass(frozen=True)
class TankConfig:
    """One tank and the declared errors of the measurements it is metered from."""

    capacity: float
    """Largest level [J]."""
    initial: float
    """Level at the start [J]."""
    floor: float = 0.0
    """Level below which nothing more is given [J]."""
    efficiency: float = 1.0
    """Part of the energy coming back that is kept; the ledger's errors are charged on their own."""
    loss: float = 0.9
    """Part of the model's joint damping and friction that is surely there."""
    q_error: float = 1e-4
    """Bound of the error of a measured position [rad]: noise and quantisation."""
    qd_error: float = 1e-2
    """Bound of the error of a measured velocity [rad/s]."""
    acceleration: float = 200.0
    """Bound of a true joint acceleration, contact included [rad/s2]: how far dead reckoning may be wrong."""
    delay: float = 0.0
    """From a command's stamp until it is in force [s]."""
    skew: float = 0.001
    """Uncertainty of that [s]."""
    push: float = 0.5
    """Speed at which something outside may push a joint away from its set-point during a stop [rad/s]."""
    rate: float = 20.0
    """How fast the row lets the free level fall: this part of it per second [1/s]."""

    def __post_init__(self) -> None:
        for name, value in self.__dict__.items():
            if not 0.0 <= value < math.inf:
                raise ConfigError(f"tank.{name} must be a number >= 0, got {value!r}")
        if not self.floor < self.initial <= self.capacity or max(self.efficiency, self.loss) > 1.0:
            raise ConfigError(f"need floor < initial <= capacity, efficiency <= 1 and loss <= 1, got {self}")


ARM = TankConfig(capacity=120.0, initial=120.0)
HAND = TankConfig(capacity=10.0, initial=10.0, acceleration=2000.0, push=2.0)


class Servo(NamedTuple):
    """Virtual springs and dampers of the joints, (n,) each; as position servos the largest that is accepted."""

    stiffness: Array
    """[N m/rad]"""
    damping: Array
    """[N m s/rad]"""
    force: Array
    """Torque at which they are cut [N m]."""


def servo_of(kin: Kinematics) -> Servo:
    """The position servos of a robot's MJCF.

    Raises:
        ConfigError: If a joint has none, or one that is no spring with damper and a torque limit.
    """
    model, n = kin.model, len(kin.dof)
    out = np.zeros((3, n))
    for a in range(model.nu):
        joint = model.actuator_trnid[a, 0]
        at = np.flatnonzero(kin.dof == model.jnt_dofadr[joint])
        k, bias, top = model.actuator_gainprm[a, 0], model.actuator_biasprm[a], model.actuator_forcerange[a, 1]
        plain = model.actuator_trntype[a] == mujoco.mjtTrn.mjTRN_JOINT and model.actuator_gear[a, 0] == 1.0
        if len(at) != 1 or not plain or bias[1] != -k or k <= 0 or not model.actuator_forcelimited[a]:
            raise ConfigError(f"actuator {model.actuator(a).name} is no position servo with a torque limit")
        out[:, at[0]] = k, -bias[2], top
    if np.any(out[0] == 0):
        raise ConfigError("a joint of the robot has no position servo in its MJCF")
    return Servo(*out)


def check_impedance(chunk: Chunk, tank: Tank | None) -> None:
    """Refuse stiffness that nobody meters, and more than the servos have.

    Raises:
        CommandRefused: Naming what was asked for and what is accepted.
    """
    for name, given in (("stiffness", chunk.stiffness), ("damping", chunk.damping)):
        if given is None:
            continue
        if tank is None:
            raise CommandRefused(f"chunk {chunk.seq}: {name} needs an energy tank in the constraint file")
        most = getattr(tank.servo, name)
        values, n = np.asarray(given, dtype=np.float64), len(most)
        if values.ndim != 2 or values.shape[1] != n or not np.all((values >= 0) & (values <= most)):
            raise CommandRefused(
                f"chunk {chunk.seq}: {name} must be (H, {n}) in [0, {most.tolist()}], got "
                f"{values.shape} up to {np.max(values, initial=np.nan)}"
            )


class Tank:
    """The tanks of one robot.  Each tick: ``meter``, which also makes the rows, then ``sent``."""

    names = ("arm", "hand")

    def __init__(
        self,
        kin: Kinematics,
        bounds: Bounds,
        servo: Servo,
        *,
        arm: int,
        dt: float,
        configs: tuple[TankConfig, TankConfig] = (ARM, HAND),
    ) -> None:
        """Tanks for a robot, full as configured.

        Args:
            kin: Its kinematics; joint damping and friction are taken from its MJCF.
            bounds: Limits of the commands.
            servo: Its springs while nothing else is commanded.
            arm: Number of arm joints; the rest is the hand.
            dt: Tick [s].
            configs: Of arm and hand.
        """
        n, (first, second) = len(kin.dof), configs
        if (first.delay, first.skew) != (second.delay, second.skew):
            raise ConfigError("arm and hand must have the same delay and skew: one command carries both")
        own = kin.model.dof_damping[kin.dof], kin.model.dof_frictionloss[kin.dof]
        self.servo, self.dt = servo, dt
        self.book = Book(
            setting=np.array([list(vars(c).values()) for c in configs]),
            tank=np.where(np.arange(n) < arm, 0, 1),
            force=servo.force.copy(),
            model=np.array([bounds.a, bounds.j, *own]),
            level=np.zeros((2, 7)),
            last=np.zeros((4, n)),
            now=np.zeros((3, n)),
            stamp=np.full(RING, -np.inf),
            u=np.zeros((RING, n)),
            k=np.zeros((RING, n)),
            head=np.zeros(3, dtype=np.int64),
            row=np.zeros((2, n)),
            bound=np.zeros((2, 2)),
        )
        self.stiffness = servo.stiffness
        """Of the newest command [N m/rad], (n,)."""
        self._sent = (-np.inf, np.zeros(n))
        self.refill()

    def refill(self) -> None:
        """Fill to the initial level, as an operator decides: a new budget, outside the ledger."""
        level = self.book.level
        level[:, SETTLED] = level[:, LEFT] = self.book.setting[:, INITIAL]
        level[:, WAITING] = 0.0

    def start(self, seq: int, q: Array, u: Array, tau: Array) -> None:
        """Begin with a robot at rest at q (n,) whose servos hold u (n,) with tau (n,), as reading ``seq`` says."""
        b, k = self.book, self.servo.stiffness
        b.head[:] = 0, seq, 0
        b.stamp[:], b.u[:], b.k[:] = -np.inf, u, k
        e = np.abs(u - q)
        stretch = np.minimum(e, b.force / k)
        b.last[:3] = q, tau, k * stretch * (e - 0.5 * stretch)
        b.last[3], b.now[:], b.now[1] = 0.0, 0.0, q
        self.stiffness, self._sent = k, (-np.inf, np.array(u, dtype=np.float64))

    def meter(
        self,
        now: float,
        reading: tuple[float, int, Array, Array, Array],
        v: Array,
        a: Array,
        wanted: Array | None = None,
    ) -> Array:
        """Enter the newest reading, and make the rows of this tick; levels of arm and hand [J], (2,).

        The levels are what is left after every charge, of the last command sent too.

        Args:
            now: Monotonic time [s].
            reading: Time [s], number, positions [rad], velocities [rad/s] and torques without gravity's [N m], (n,)
                float64 each; a number seen before settles nothing, a gap is charged.
            v: Velocities of the set-points sent before [rad/s], (n,).
            a: Their accelerations [rad/s2], (n,).
            wanted: Stiffness wanted [N m/rad], (n,); None for the one in force.
        """
        stamp, u = self._sent
        k = self.stiffness
        tick(self.book, stamp, u, k, now, *reading, v, a, k if wanted is None else wanted, self.dt)
        return self.book.level[:, LEFT]

    @property
    def rows(self) -> tuple[Array, Array, Array]:
        """``row`` (2, n), ``grant`` (2,), ``upper`` (2,): need ``row . x + grant s <= upper`` of acceleration x and
        of the share s in [0, 1] of the wanted rise of stiffness.  Overwritten by the next ``meter``.
        """
        return self.book.row, self.book.bound[0], self.book.bound[1]

    def share(self, x: Array) -> Array:
        """Largest share in [0, 1] of the wanted rise that the rows leave beside acceleration x, (2,)."""
        row, grant, upper = self.rows
        room = np.maximum(0.0, upper - row @ x)
        return np.where(grant > room, room / np.where(grant > 0.0, grant, 1.0), 1.0)

    def granted(self, x: Array, wanted: Array) -> Array:
        """Stiffness to send with acceleration x: wanted where it falls, by the share where it rises, (n,)."""
        k, share = self.stiffness, self.share(x)[self.book.tank]
        return np.where(wanted > k, k + share * (wanted - k), wanted)

    def sent(self, stamp: float, u: Array, stiffness: Array | None = None) -> None:
        """Note a command: set-points (n,), in force from ``stamp`` [s] on, later than the one before; stiffness (n,).

        The arrays must not be written to afterwards; without stiffness the servos' own is meant.
        """
        self._sent, self.stiffness = (stamp, u), self.servo.stiffness if stiffness is None else stiffness
