"""An adversary within a budget: forces on bodies, torques on joints, changes of what the policy sees.

One interface for training and tests.  At each instant an ``Adversary`` sees a ``Moment`` and answers with an ``Attack``
for the control step to come; ``Limited`` stands between it and the simulator and lets nothing through that the
``Budget`` does not allow, whatever was answered.  Scripted adversaries are in ``sim.attacks``; a learned one is any
``Policy``, by ``Learned``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import mujoco
import numpy as np

from palmar.safety.config import unknown
from palmar.safety.robot import RobotModel
from palmar.safety.types import CommandRefused, ConfigError
from palmar.sim.interface import Policy

Array = np.ndarray
_ROUNDING = 1.0 - 1e-12
"""Keeps a rescaled length from exceeding its limit by rounding."""


@dataclass(frozen=True)
class Budget:
    """What an adversary may do.  The default is nothing."""

    force: float = 0.0
    """Largest force on a body at its centre of mass [N]."""
    torque: float = 0.0
    """Largest torque on a body [N m]."""
    joint_torque: float = 0.0
    """Largest torque on a joint [N m]."""
    impulse: float = float("inf")
    """Sum over bodies and time of |force|, per episode [N s]."""
    angular_impulse: float = float("inf")
    """Sum over bodies, joints and time of |torque|, per episode [N m s]."""
    bodies: tuple[str, ...] = ()
    """Bodies that may be pushed."""
    observation: Mapping[str, float] = field(default_factory=dict)
    """Largest change of each number of a named part of the observation, in the part's unit."""

    def __post_init__(self) -> None:
        for name in ("force", "torque", "joint_torque", "impulse", "angular_impulse"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} must be >= 0, got {getattr(self, name)}")
        wrong = {k: v for k, v in self.observation.items() if not 0 <= v < np.inf}
        if wrong:
            raise ConfigError(f"changes of observations must be finite and >= 0, got {wrong}")


@dataclass(frozen=True)
class Moment:
    """What an adversary sees: the truth of B worlds, and what their policy is about to see."""

    t: Array
    """Age of the episode [s], (B,).  Not later than at the call before: a fresh episode."""
    obs: Array
    """(B, d) float32."""
    q: Array
    """[rad], (B, n)."""
    qd: Array
    """[rad/s], (B, n)."""
    position: Array
    """Objects [m], (B, m, 3)."""
    quaternion: Array
    """w-x-y-z, (B, m, 4)."""


@dataclass(frozen=True)
class Attack:
    """What is done to B worlds during the coming control step."""

    wrench: Array
    """Force [N] and torque [N m] on each body at its centre of mass, world axes, (B, nbody, 6)."""
    torque: Array
    """On joints [N m], (B, n)."""
    delta: Array
    """Added to the observation, (B, d)."""

    def scaled(self, factor: float) -> Attack:
        """Every part times a factor."""
        return Attack(self.wrench * factor, self.torque * factor, self.delta * factor)


@dataclass(frozen=True)
class Surface:
    """What there is to attack, and how far, with a budget put on it."""

    nbody: int
    bodies: Array
    """Ids of the bodies that may be pushed, (p,)."""
    n: int
    """Joints."""
    eps: Array
    """Largest change of each number of an observation, (d,)."""
    budget: Budget

    @classmethod
    def of(cls, model: mujoco.MjModel, robot: RobotModel, io: Any, budget: Budget) -> Surface:
        """The surface of a scene, with the observation of ``io`` (its ``obs_names`` and ``obs_sizes``).

        Raises:
            ConfigError: If the budget names a body or a part of the observation that is not there.
        """
        known = {model.body(b).name: b for b in range(1, model.nbody)}
        for name in budget.bodies:
            if name not in known:
                raise ConfigError(unknown("body", name, known))
        for name in budget.observation:
            if name not in io.obs_names:
                raise ConfigError(unknown("part of the observation", name, io.obs_names))
        eps = [budget.observation.get(name, 0.0) for name in io.obs_names]
        return cls(
            nbody=model.nbody,
            bodies=np.array([known[b] for b in budget.bodies], dtype=int),
            n=robot.n,
            eps=np.repeat(np.array(eps, dtype=float), io.obs_sizes),
            budget=budget,
        )

    def nothing(self, batch: int) -> Attack:
        """The attack that does nothing."""
        return Attack(np.zeros((batch, self.nbody, 6)), np.zeros((batch, self.n)), np.zeros((batch, len(self.eps))))

    @property
    def size(self) -> int:
        """How many numbers choose an attack: per body that may be pushed 6, per joint and attacked number 1."""
        return 6 * len(self.bodies) + self.n + int(np.count_nonzero(self.eps))

    def unpack(self, action: Array) -> Attack:
        """The attack of actions (B, size) in [-1, 1]: shares of what the budget allows at an instant."""
        out, b, p = self.nothing(len(action)), self.budget, 6 * len(self.bodies)
        pushes = action[:, :p].reshape(len(action), -1, 6)
        out.wrench[:, self.bodies] = pushes * np.repeat([b.force, b.torque], 3)
        out.torque[:] = action[:, p : p + self.n] * b.joint_torque
        seen = np.flatnonzero(self.eps)
        out.delta[:, seen] = action[:, p + self.n :] * self.eps[seen]
        return out


class Adversary(Protocol):
    """Anything that chooses attacks.  All memory is in the carry."""

    def start(self, batch: int) -> Any:
        """Carry for B worlds."""
        ...

    def act(self, moment: Moment, carry: Any) -> tuple[Attack, Any]:
        """The attack for the coming control step."""
        ...


@dataclass(frozen=True)
class Learned:
    """A policy as an adversary: it sees what the robot's policy sees and answers with ``surface.size`` numbers."""

    policy: Policy
    surface: Surface

    def start(self, batch: int) -> Any:
        """The policy's carry."""
        return self.policy.start(batch)

    def act(self, moment: Moment, carry: Any) -> tuple[Attack, Any]:
        """The attack its action stands for; not finite is refused by ``Limited``."""
        action, carry = self.policy.act(moment.obs, carry)
        action = np.asarray(action, dtype=np.float64)
        need = (len(moment.obs), self.surface.size)
        if action.shape != need:
            raise CommandRefused(f"the adversary's action has shape {action.shape}, need {need}")
        return self.surface.unpack(np.where(np.isfinite(action), np.clip(action, -1.0, 1.0), action)), carry


@dataclass(frozen=True)
class Ledger:
    """What has been spent in the running episodes, (B,)."""

    impulse: Array
    """[N s]."""
    angular_impulse: Array
    """[N m s]."""


def limited(attack: Attack, ledger: Ledger, surface: Surface, *, period: float) -> tuple[Attack, Ledger]:
    """The part of an attack that the budget allows for a control step of ``period`` [s], and the ledger after it.

    Too long a force or torque is shortened, too large a number cut; where the episode's impulse would be overdrawn,
    all forces (or all torques) of that world shrink by one factor.

    Raises:
        CommandRefused: If a shape is wrong or a number not finite; nothing is spent.
    """
    batch, b = len(ledger.impulse), surface.budget
    for f in fields(Attack):
        got, need = getattr(attack, f.name), getattr(surface.nothing(batch), f.name).shape
        if np.shape(got) != need:
            raise CommandRefused(f"attack.{f.name} has shape {np.shape(got)}, need {need}")
        if not np.isfinite(got).all():
            raise CommandRefused(f"attack.{f.name} of world {int(np.argwhere(~np.isfinite(got))[0, 0])} is not finite")
    out = surface.nothing(batch)
    force = _shortened(attack.wrench[:, surface.bodies, :3], b.force)
    torque = _shortened(attack.wrench[:, surface.bodies, 3:], b.torque)
    joint = np.clip(attack.torque, -b.joint_torque, b.joint_torque)
    push = np.linalg.norm(force, axis=-1).sum(1) * period
    twist = (np.linalg.norm(torque, axis=-1).sum(1) + np.abs(joint).sum(1)) * period
    keep, turn = _share(push, b.impulse - ledger.impulse), _share(twist, b.angular_impulse - ledger.angular_impulse)
    out.wrench[:, surface.bodies, :3] = force * keep[:, None, None]
    out.wrench[:, surface.bodies, 3:] = torque * turn[:, None, None]
    out.torque[:] = joint * turn[:, None]
    out.delta[:] = np.clip(attack.delta, -surface.eps, surface.eps)
    return out, Ledger(ledger.impulse + push * keep, ledger.angular_impulse + twist * turn)


def perceived(obs: Array, attack: Attack, surface: Surface) -> Array:
    """The observation (B, d) as attacked, of the same type; never further from the true one than allowed."""
    changed = (obs.astype(np.float64) + attack.delta).astype(obs.dtype)
    over = np.abs(changed.astype(np.float64) - obs) > surface.eps  # by rounding to the observation's type
    changed = np.where(over, np.nextafter(changed, obs), changed)
    return np.where(attack.delta == 0.0, obs, changed)


class Limited:
    """An adversary that cannot exceed its budget, for B worlds whose episodes end one by one.

    Args:
        adversary: Scripted or learned.
        surface: What there is to attack, and the budget.
        batch: B.
        period: Control step [s].
    """

    def __init__(self, adversary: Adversary, surface: Surface, *, batch: int, period: float):
        self.adversary, self.surface, self.period = adversary, surface, period
        self._carry = adversary.start(batch)
        self._last = np.full(batch, np.inf)
        self.spent = Ledger(np.zeros(batch), np.zeros(batch))
        """By the running episodes."""

    def attack(self, moment: Moment) -> Attack:
        """The allowed attack of the coming control step; call once per step.

        Raises:
            CommandRefused: If the adversary answers with a wrong shape or a number that is not finite.
        """
        attack, self._carry = self.adversary.act(moment, self._carry)
        running = moment.t > self._last
        spent = Ledger(*(np.where(running, getattr(self.spent, f.name), 0.0) for f in fields(Ledger)))
        attack, self.spent = limited(attack, spent, self.surface, period=self.period)
        self._last = moment.t.copy()
        return attack

    def perceived(self, obs: Array, attack: Attack) -> Array:
        """What the policy sees of obs (B, d) under an attack."""
        return perceived(obs, attack, self.surface)


def _shortened(v: Array, most: float) -> Array:
    """Vectors (B, p, 3) of length at most ``most``, same direction; lengths that overflow included."""
    largest = np.abs(v).max(axis=-1, keepdims=True, initial=0.0)
    unit = v / np.where(largest > 0, largest, 1.0)
    length = np.linalg.norm(unit, axis=-1, keepdims=True)
    over = largest > most / np.where(length > 0, length, 1.0)
    return np.where(over, unit / np.where(length > 0, length, 1.0) * (most * _ROUNDING), v)


def _share(wanted: Array, left: Array) -> Array:
    """The share of what is wanted (B,) that is still left, in [0, 1]."""
    left = np.maximum(left, 0.0)
    return np.where(wanted > left, left / np.where(wanted > left, wanted, 1.0) * _ROUNDING, 1.0)
