"""Joint encoders, torque sensing and wrist wrench as a robot has them: bias, noise, steps, lost and late readings.

A ``Device`` is what arrives in one packet: its columns share stamp, delay and loss.  ``read`` is a function of its
memory, the true samples of an interval and a generator; equal inputs give equal readings.  The object tracker is
``sim.tracker``; ``gate`` is what a careful robot does with its poses.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

import numpy as np

from palmar.safety.robot import RobotModel
from palmar.safety.types import CommandRefused, ConfigError

Array = np.ndarray


@dataclass(frozen=True)
class Channel:
    """Errors of one kind of reading, in its unit."""

    noise: float = 0.0
    """Standard deviation, drawn per reading."""
    bias: float = 0.0
    """Largest constant error, drawn per episode."""
    step: float = 0.0
    """Spacing of the values it can take; 0: none."""

    def __post_init__(self) -> None:
        for f in fields(self):
            if not 0 <= getattr(self, f.name) < np.inf:
                raise ConfigError(f"{f.name} must be >= 0, got {getattr(self, f.name)}")


@dataclass(frozen=True)
class Packet:
    """How readings of one bus arrive."""

    delay: float = 0.0
    """From the instant measured to delivery [s]."""
    dropout: float = 0.0
    """Probability that a packet is lost: the reading before it stands, with its stamp."""

    def __post_init__(self) -> None:
        if not (0 <= self.delay <= 1 and 0 <= self.dropout < 1):
            raise ConfigError(f"need delay in [0, 1] s and dropout in [0, 1), got {self}")


@dataclass(frozen=True)
class Joints(Packet):
    """Readings of a group of joints."""

    q: Channel = field(default_factory=Channel)
    """[rad]."""
    qd: Channel = field(default_factory=Channel)
    """[rad/s]."""
    tau: Channel = field(default_factory=Channel)
    """[N m]."""


@dataclass(frozen=True)
class Wrist(Packet):
    """Readings of a force-torque sensor."""

    force: Channel = field(default_factory=Channel)
    """[N]."""
    torque: Channel = field(default_factory=Channel)
    """[N m]."""


@dataclass(frozen=True)
class SensorConfig:
    """How well a robot knows itself; the default is perfectly."""

    arm: Joints = field(default_factory=Joints)
    hand: Joints = field(default_factory=Joints)
    wrist: Wrist = field(default_factory=Wrist)


@dataclass(frozen=True)
class Device:
    """Errors per column of one packet, (d,) each."""

    noise: Array
    bias: Array
    step: Array
    delay: float
    dropout: float

    @property
    def perfect(self) -> bool:
        """Whether it reads the truth, now; then nothing is drawn."""
        errors = self.noise.any() or self.bias.any() or self.step.any()
        return not (errors or self.delay or self.dropout)


@dataclass(frozen=True)
class Memory:
    """What a device remembers of B robots, and its reading."""

    value: Array
    """The reading, (B, d)."""
    t: Array
    """The instant it belongs to [s], (B,)."""
    bias: Array
    """(B, d)."""
    past: Array
    """True samples not yet delivered, oldest first, (D, B, d)."""
    past_t: Array
    """Their instants [s], (D, B)."""


def device(packet: Packet, channels: tuple[Channel, ...], counts: tuple[int, ...]) -> Device:
    """The device whose columns are ``counts[i]`` readings of ``channels[i]``."""
    column = {f.name: np.repeat([getattr(c, f.name) for c in channels], counts) for f in fields(Channel)}
    return Device(**column, delay=packet.delay, dropout=packet.dropout)


def start(dev: Device, rng: np.random.Generator, t: Array, x: Array, *, dt: float) -> Memory:
    """First readings of truths x (B, d) at times t (B,), delivered at once; samples will be ``dt`` apart."""
    bias = np.zeros(x.shape) if dev.perfect else rng.uniform(-1.0, 1.0, x.shape) * dev.bias
    slots = int(np.ceil(dev.delay / dt - 1e-9))
    past, past_t = np.tile(x, (slots, 1, 1)), np.tile(t, (slots, 1))
    return Memory(_corrupt(dev, rng, x, bias), np.array(t, dtype=float), bias, past, past_t)


def restart(dev: Device, memory: Memory, rng: np.random.Generator, ids: Array, t: Array, x: Array) -> Memory:
    """Fresh episodes for robots ``ids`` (k,): t (k,), x (k, d)."""
    fresh = start(dev, rng, t, x, dt=1.0)
    out = Memory(*(getattr(memory, f.name).copy() for f in fields(Memory)))
    out.value[ids], out.t[ids], out.bias[ids] = fresh.value, fresh.t, fresh.bias
    out.past[:, ids], out.past_t[:, ids] = x, t
    return out


def read(dev: Device, memory: Memory, rng: np.random.Generator, t: Array, x: Array) -> Memory:
    """The reading after an interval with true samples x (S, B, d) at times t (S, B), oldest first.

    Delivered is the newest sample at least ``delay`` old, plus bias and noise, rounded; unless its packet is lost
    or nothing new has arrived: then the reading before it stands, stamp and all.

    Raises:
        CommandRefused: If shapes do not fit what was started.
    """
    if x.shape[1:] != memory.value.shape or t.shape != x.shape[:2]:
        raise CommandRefused(f"samples {x.shape} at {t.shape} do not fit readings {memory.value.shape}")
    if dev.perfect:
        return replace(memory, value=x[-1].copy(), t=t[-1].copy())
    seen, seen_t = np.concatenate([memory.past, x]), np.concatenate([memory.past_t, t])
    due = seen_t <= t[-1] - dev.delay + 1e-9
    newest = len(seen) - 1 - np.argmax(due[::-1], axis=0)
    b = np.arange(x.shape[1])
    stamp = seen_t[newest, b]
    fresh = due.any(axis=0) & (stamp > memory.t) & (rng.random(len(b)) >= dev.dropout)
    value = _corrupt(dev, rng, seen[newest, b], memory.bias)
    return Memory(
        value=np.where(fresh[:, None], value, memory.value),
        t=np.where(fresh, stamp, memory.t),
        bias=memory.bias,
        past=seen[len(x) :],
        past_t=seen_t[len(x) :],
    )


def _corrupt(dev: Device, rng: np.random.Generator, x: Array, bias: Array) -> Array:
    """Truths (B, d) as read."""
    if dev.perfect:
        return x.copy()
    y = x + bias + dev.noise * rng.standard_normal(x.shape)
    step = np.where(dev.step > 0, dev.step, 1.0)
    return np.where(dev.step > 0, np.rint(y / step) * step, y)


class Sensors:
    """Arm, hand and wrist of B robots: the devices of a configuration with their memories."""

    def __init__(self, config: SensorConfig, robot: RobotModel, *, batch: int, dt: float, rng: np.random.Generator):
        self._rng, self._n_arm = rng, robot.n_arm
        arm, hand, wrist = robot.n_arm, robot.n - robot.n_arm, config.wrist
        self._devices = (
            device(config.arm, (config.arm.q, config.arm.qd, config.arm.tau), (arm,) * 3),
            device(config.hand, (config.hand.q, config.hand.qd, config.hand.tau), (hand,) * 3),
            device(wrist, (wrist.force, wrist.torque), (3, 3)),
        )
        blank = (np.zeros((batch, len(d.noise))) for d in self._devices)
        self._memories = [start(d, rng, np.zeros(batch), x, dt=dt) for d, x in zip(self._devices, blank, strict=True)]

    def reset(self, ids: Array, t: Array, q: Array, qd: Array, tau: Array, wrench: Array) -> None:
        """Fresh episodes for robots ``ids`` (k,) whose truth at t (k,) is q, qd, tau (k, n) and wrench (k, 6)."""
        truth = self._columns(q, qd, tau, wrench)
        self._memories = [
            restart(d, m, self._rng, ids, t, x) for d, m, x in zip(self._devices, self._memories, truth, strict=True)
        ]

    def update(self, t: Array, q: Array, qd: Array, tau: Array, wrench: Array) -> None:
        """Read after an interval of S samples: t (S, B), q, qd, tau (S, B, n), wrench (S, B, 6)."""
        truth = self._columns(q, qd, tau, wrench)
        self._memories = [
            read(d, m, self._rng, t, x) for d, m, x in zip(self._devices, self._memories, truth, strict=True)
        ]

    @property
    def q(self) -> Array:
        """Joint positions as read [rad], (B, n)."""
        return self._joint(0)

    @property
    def qd(self) -> Array:
        """Joint velocities as read [rad/s], (B, n)."""
        return self._joint(1)

    @property
    def tau(self) -> Array:
        """Joint torques as read [N m], (B, n)."""
        return self._joint(2)

    @property
    def wrench(self) -> Array:
        """Force [N] and torque [N m] as read, (B, 6)."""
        return self._memories[2].value

    @property
    def stamps(self) -> Array:
        """Instants the readings of arm, hand and wrist belong to [s], (B, 3)."""
        return np.stack([m.t for m in self._memories], axis=1)

    def _columns(self, q: Array, qd: Array, tau: Array, wrench: Array) -> tuple[Array, Array, Array]:
        a = self._n_arm
        arm, hand = (np.concatenate([x[..., s] for x in (q, qd, tau)], axis=-1) for s in (slice(a), slice(a, None)))
        return arm, hand, wrench

    def _joint(self, kind: int) -> Array:
        arm, hand = (np.split(m.value, 3, axis=1)[kind] for m in self._memories[:2])
        return np.concatenate([arm, hand], axis=1)


@dataclass(frozen=True)
class Gate:
    """When a tracked pose is believed.  Obj-Dex, arXiv 2411.04005: a jump is an outlier, the last pose is held."""

    distance: float = 0.05
    """Largest believed jump [m]."""
    angle: float = 0.5
    """Largest believed turn [rad]."""
    patience: int | None = None
    """Frames after which even a jump is believed, or an object that was knocked away is lost for good (ours).
    None: never, as published."""

    def __post_init__(self) -> None:
        if not (self.distance > 0 and self.angle > 0 and (self.patience is None or self.patience >= 1)):
            raise ConfigError(f"need distance, angle > 0 and patience >= 1 or null, got {self}")


def gate(
    config: Gate, position: Array, quaternion: Array, held: tuple[Array, Array, Array], fresh: Array
) -> tuple[Array, Array, Array]:
    """Believed positions (B, m, 3) [m], quaternions (B, m, 4), and how many frames were held back so far (B, m).

    Args:
        config: Thresholds.
        position: Tracked, as delivered now.
        quaternion: w-x-y-z.
        held: The result of the call before; at the start of an episode the first frame and zeros.
        fresh: Whether a frame was delivered since that call, (B,) or (B, m) bool.
    """
    p, q, missed = held
    fresh = np.broadcast_to(fresh if np.ndim(fresh) == 2 else np.asarray(fresh)[:, None], missed.shape)
    cosine = np.clip(np.abs(np.sum(q * quaternion, axis=-1)), 0.0, 1.0)
    near = (np.linalg.norm(position - p, axis=-1) <= config.distance) & (2 * np.arccos(cosine) <= config.angle)
    waited = np.zeros_like(near) if config.patience is None else missed + 1 > config.patience
    take = fresh & (near | waited) & np.isfinite(position).all(-1) & np.isfinite(quaternion).all(-1)
    missed = np.where(take, 0, missed + fresh)
    return np.where(take[..., None], position, p), np.where(take[..., None], quaternion, q), missed
