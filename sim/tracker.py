"""An object tracker as a robot has one: a rate, noise, delay and dropout."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from palmar.safety.types import ConfigError

Array = np.ndarray


@dataclass(frozen=True)
class TrackerConfig:
    """How well objects are seen."""

    rate: float = 15.0
    """Frames per second [Hz]."""
    noise: float = 0.002
    """Standard deviation of each coordinate of a position [m]."""
    angle_noise: float = 0.02
    """Standard deviation of the rotation about each axis [rad]."""
    delay: float = 0.06
    """From exposure to delivery [s]."""
    dropout: float = 0.05
    """Probability that a frame is lost."""

    def __post_init__(self) -> None:
        if not (self.rate > 0 and min(self.noise, self.angle_noise, self.delay) >= 0 and 0 <= self.dropout < 1):
            raise ConfigError(f"need rate > 0, noise, delay >= 0 and 0 <= dropout < 1, got {self}")
        if self.delay * self.rate > 8:
            raise ConfigError(f"delay {self.delay} s holds more than 8 frames of {self.rate} Hz")


class Tracker:
    """Poses of m objects in B worlds as a tracker reports them.

    Called once per control step: a frame is exposed at the first call after its time and delivered at the first
    call at least ``delay`` later, so at coarse steps it is up to one step older than configured.
    """

    def __init__(self, config: TrackerConfig, *, batch: int, objects: int, rng: np.random.Generator):
        self.config, self._rng = config, rng
        self._slots = max(1, int(np.ceil(config.delay * config.rate)) + 1)
        self._next = np.zeros(batch)
        self._due = np.full((self._slots, batch), np.inf)
        self._pending_p = np.zeros((self._slots, batch, objects, 3))
        self._pending_q = np.zeros((self._slots, batch, objects, 4))
        self.position = np.zeros((batch, objects, 3))
        """Last delivered positions [m], (B, m, 3)."""
        self.quaternion = np.zeros((batch, objects, 4))
        """Last delivered orientations, w-x-y-z, (B, m, 4)."""

    def reset(self, ids: Array, t: Array, position: Array, quaternion: Array) -> None:
        """Deliver a first frame for worlds ``ids`` (k,) at times t (k,); phases of the frames are random."""
        self._due[:, ids] = np.inf
        self._next[ids] = t + self._rng.uniform(0, 1 / self.config.rate, len(ids))
        self.position[ids], self.quaternion[ids] = self._noisy(position, quaternion)

    def update(self, t: Array, position: Array, quaternion: Array) -> None:
        """Expose and deliver what is due at times t (B,), given true poses (B, m, 3) and (B, m, 4)."""
        self._expose(t, position, quaternion)
        ready = self._due <= t
        if not ready.any():
            return
        world = np.flatnonzero(ready.any(axis=0))
        newest = np.argmax(np.where(ready, self._due, -np.inf), axis=0)[world]
        self.position[world], self.quaternion[world] = (
            self._pending_p[newest, world],
            self._pending_q[newest, world],
        )
        self._due[ready] = np.inf

    def _expose(self, t: Array, position: Array, quaternion: Array) -> None:
        frame = np.flatnonzero(t >= self._next)
        if not frame.size:
            return
        self._next[frame] += 1 / self.config.rate * np.ceil((t[frame] - self._next[frame]) * self.config.rate + 1e-9)
        seen = frame[self._rng.random(len(frame)) >= self.config.dropout]
        slot = np.argmax(np.isinf(self._due[:, seen]), axis=0)
        self._due[slot, seen] = t[seen] + self.config.delay
        self._pending_p[slot, seen], self._pending_q[slot, seen] = self._noisy(position[seen], quaternion[seen])

    def _noisy(self, position: Array, quaternion: Array) -> tuple[Array, Array]:
        c = self.config
        p = position + c.noise * self._rng.standard_normal(position.shape)
        half = 0.5 * c.angle_noise * self._rng.standard_normal(position.shape)
        w, v = quaternion[..., :1], quaternion[..., 1:]
        turned = np.concatenate([w - np.sum(v * half, -1, keepdims=True), v + w * half + np.cross(half, v)], axis=-1)
        return p, turned / np.linalg.norm(turned, axis=-1, keepdims=True)
