"""Pending chunks, consumed by time: the reference that the filter is asked to follow.

The newest chunk wins as a whole and never leads back in time: a target whose time has passed is dropped, and
the line to the first of the others starts at the last reference, so a switch of chunks makes no jump.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from palmar.safety.types import Chunk, CommandRefused, ConfigError

Array = np.ndarray

AHEAD = 10.0
"""Targets further ahead than this are a mistaken clock, not a plan [s]."""


@dataclass(frozen=True)
class ChunkConfig:
    """What a chunk must be like to be followed."""

    timeout: float = 0.2
    """Age by receive time from which the newest chunk is no reason to move any more [s]."""
    jump: float = 1.5
    """Largest distance of a joint's first pending target from the present reference [rad]."""
    longest: int = 256
    """Largest number of targets."""

    def __post_init__(self) -> None:
        if not (0 < self.timeout < math.inf and 0 < self.jump < math.inf and self.longest >= 1):
            raise ConfigError(f"chunk config must be positive and finite, got {self}")


class ChunkPlayer:
    """The reference of one robot over time."""

    def __init__(self, joints: tuple[str, ...], config: ChunkConfig) -> None:
        """For joints in hardware order."""
        self.joints, self.config = joints, config
        self.seq, self.received, self.refused = -1, -math.inf, 0
        self._times, self._knots = np.zeros(2), np.zeros((2, len(joints)))
        self._still = np.zeros(len(joints))
        self._now, self._at, self._last = -math.inf, 0, self._knots[0]

    def rest(self, q: Array, now: float) -> None:
        """Forget what is pending: the reference rests at q."""
        self._times, self._knots = np.array([now]), np.array([q])
        self._now, self._at, self._last = now, 0, self._knots[0]

    def offer(self, chunk: Chunk) -> None:
        """Take a chunk, which replaces the pending one.

        Raises:
            CommandRefused: If it cannot be followed.  Nothing is changed then, but ``refused`` counts it.
        """
        try:
            times, targets = self._checked(chunk)
        except CommandRefused:
            self.refused += 1
            raise
        self._times = np.concatenate([[self._now], times])
        self._knots = np.concatenate([self._last[None], targets])
        self._at, self.seq, self.received = 0, chunk.seq, chunk.received

    def reference(self, now: float) -> tuple[Array, Array]:
        """Position and velocity of the reference at ``now``, which never decreases; read only."""
        now = max(now, self._now)
        times, k = self._times, self._at
        while k + 1 < len(times) and times[k + 1] <= now:
            k += 1
        self._now, self._at = now, k
        if k + 1 == len(times):
            self._last = self._knots[k]
            return self._last, self._still
        span = times[k + 1] - times[k]
        rate = (self._knots[k + 1] - self._knots[k]) / span
        self._last = self._knots[k] + (now - times[k]) * rate
        return self._last, rate

    def age(self, now: float) -> float:
        """Time since the newest chunk was received [s]; infinite before the first."""
        return now - self.received

    def pending(self) -> tuple[Array, Array]:
        """Times (K,) and targets (K, n) still to come."""
        return self._times[self._at + 1 :], self._knots[self._at + 1 :]

    def _checked(self, chunk: Chunk) -> tuple[Array, Array]:
        """The pending times and targets of a chunk, in hardware order; see ``offer``."""
        n, name = len(self.joints), f"chunk {chunk.seq!r}"
        if isinstance(chunk.seq, bool) or not isinstance(chunk.seq, int | np.integer) or chunk.seq <= self.seq:
            raise CommandRefused(f"{name}: out of order, need a sequence number above {self.seq}")
        try:
            q, t = np.array(chunk.q, dtype=np.float64), np.array(chunk.t, dtype=np.float64)
            received = float(chunk.received)
        except (TypeError, ValueError) as error:
            raise CommandRefused(f"{name}: targets or times are not numbers: {error}") from error
        if q.ndim != 2 or q.shape[1] != n or t.shape != (len(q),) or not 1 <= len(q) <= self.config.longest:
            raise CommandRefused(
                f"{name}: targets {q.shape} and times {t.shape}, need (H, {n}) and (H,), "
                f"1 <= H <= {self.config.longest}"
            )
        for what, values in (("targets", q), ("times", t), ("receive time", np.array(received))):
            if not np.isfinite(values).all():
                raise CommandRefused(f"{name}: {what} not finite: {values[~np.isfinite(values)][:4].tolist()}")
        self._check_times(name, t, received)
        q = q[:, self._columns(name, tuple(chunk.joints))]
        first = int(np.searchsorted(t, self._now, side="right"))
        if first == len(t):
            raise CommandRefused(f"{name}: stale, its last target was due at {t[-1]:.6f}, now is {self._now:.6f}")
        far = np.abs(q[first] - self._last)
        if far.max() > self.config.jump:
            j = int(far.argmax())
            raise CommandRefused(
                f"{name}: jump of {far[j]:.4f} rad at {self.joints[j]} from the present reference, "
                f"accepted up to {self.config.jump}"
            )
        return t[first:], q[first:]

    def _check_times(self, name: str, t: Array, received: float) -> None:
        """Increasing, not of another clock, not received too long ago."""
        if np.any(np.diff(t) <= 0):
            raise CommandRefused(f"{name}: times must increase strictly, got {t[:8].tolist()}")
        if t[-1] > self._now + AHEAD or received > self._now + AHEAD:
            raise CommandRefused(
                f"{name}: times up to {max(t[-1], received):.3f} are more than {AHEAD} s after now, "
                f"{self._now:.3f}: another clock?"
            )
        if self._now - received > self.config.timeout:
            raise CommandRefused(
                f"{name}: stale, received {self._now - received:.3f} s ago, accepted {self.config.timeout}"
            )
        if self.age(self._now) < math.inf and received < self.received:
            raise CommandRefused(f"{name}: received at {received:.6f}, before the chunk in use, {self.received:.6f}")

    def _columns(self, name: str, joints: tuple[str, ...]) -> Array:
        """Which column of the chunk holds each joint."""
        if not joints:
            return np.arange(len(self.joints))
        unknown = [j for j in joints if j not in self.joints]
        missing = [j for j in self.joints if j not in joints]
        if unknown or missing or len(set(joints)) != len(joints):
            raise CommandRefused(
                f"{name}: joints {list(joints)}: unknown {unknown}, missing {missing}; "
                f"accepted once each: {list(self.joints)}"
            )
        return np.array([joints.index(j) for j in self.joints])
