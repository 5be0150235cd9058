"""Pending chunks, consumed by time: the reference that the filter is asked to follow.

The newest chunk wins as a whole and never leads back in time: a target whose time has passed is dropped, and
the line to the first of the others starts at the last reference, so a switch of chunks makes no jump.  Stiffness
and damping are held, not interpolated: a target's are in force from its time on, and until then those before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit

from palmar.safety.types import Chunk, CommandRefused, ConfigError

Array = np.ndarray

AHEAD = 10.0
"""Targets further ahead than this are a mistaken clock, not a plan [s]."""
FURTHEST = 100.0
"""A target further than this is no joint position [rad]."""
DUE = 1e-7
"""A target this near ahead is due [s]: the sums by which two clocks reach the same tick differ by less."""


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


@njit(cache=True, nogil=True)
def follow(times, knots, at, now, r, rd):
    """The reference at ``now`` on the lines between knots; the number of the knot passed last.

    Args:
        times: Times of the knots [s], (K,).
        knots: Positions [rad], (K, n).
        at: Knot passed last so far.
        now: Not before that knot [s].
        r: Out: position [rad], (n,).
        rd: Out: velocity [rad/s], (n,).
    """
    k = at
    while k + 1 < len(times) and times[k + 1] <= now + DUE:
        k += 1
    if k + 1 == len(times):
        r[:] = knots[k]
        rd[:] = 0.0
        return k
    span, since = times[k + 1] - times[k], now - times[k]
    for i in range(len(r)):
        rd[i] = (knots[k + 1, i] - knots[k, i]) / span
        r[i] = knots[k, i] + since * rd[i]
    return k


class ChunkPlayer:
    """The reference of one robot over time."""

    def __init__(self, joints: tuple[str, ...], config: ChunkConfig) -> None:
        """For joints in hardware order."""
        self.joints, self.config = joints, config
        self.seq, self.received, self.refused = -1, -math.inf, 0
        self._times, self._knots = np.zeros(2), np.zeros((2, len(joints)))
        self._held: Array | None = None
        self._rows: Array | None = None
        self.plan = 0
        """Counts what has been put in the place of the pending targets: chunks taken and rests."""
        self._now, self._at, self._last = -math.inf, 0, self._knots[0]

    def rest(self, q: Array, now: float) -> None:
        """Forget what is pending: the reference rests at q, stiffness and damping stay."""
        self._held, self._rows = self._in_force(now), None
        self.plan += 1
        self._times, self._knots = np.array([now]), np.array([q])
        self._now, self._at, self._last = now, 0, self._knots[0]

    def offer(self, chunk: Chunk) -> None:
        """Take a chunk, which replaces the pending one.

        Raises:
            CommandRefused: If it cannot be followed.  Nothing is changed then, but ``refused`` counts it.
        """
        try:
            times, targets, rows, passed = self._checked(chunk)
        except CommandRefused:
            self.refused += 1
            raise
        self._held = passed if passed is not None else self._in_force(self._now)
        self._rows = rows
        self.plan += 1
        self._times = np.concatenate([[self._now], times])
        # Taking columns may leave them in another order in memory, for which the kernels would be compiled anew.
        self._knots = np.ascontiguousarray(np.concatenate([self._last[None], targets]))
        self._at, self.seq, self.received = 0, chunk.seq, chunk.received

    def reference(self, now: float) -> tuple[Array, Array]:
        """Position and velocity of the reference at ``now``, which never decreases; read only."""
        now = max(now, self._now)
        r, rd = np.empty(len(self.joints)), np.empty(len(self.joints))
        self._at = follow(self._times, self._knots, self._at, now, r, rd)
        self._now, self._last = now, r
        return r, rd

    def impedance(self, now: float) -> tuple[Array | None, Array | None]:
        """Stiffness [N m/rad] and damping [N m s/rad] in force at ``now``, (n,) each; None until a chunk named some."""
        held = self._in_force(now)
        return (None, None) if held is None else (held[0], held[1])

    def age(self, now: float) -> float:
        """Time since the newest chunk was received [s]; infinite before the first."""
        return now - self.received

    def pending(self) -> tuple[Array, Array]:
        """Times (K,) and targets (K, n) still to come."""
        return self._times[self._at + 1 :], self._knots[self._at + 1 :]

    def line(self) -> tuple[Array, Array, int]:
        """Arguments of ``follow``: times and knots, of which some have passed, and the knot passed last; read only."""
        return self._times, self._knots, self._at

    def _in_force(self, now: float) -> Array | None:
        """Stiffness and damping at ``now``, (2, n)."""
        if self._rows is None:
            return self._held
        k = int(np.searchsorted(self._times[1:], max(now, self._now) + DUE, side="right"))
        return self._held if k == 0 else self._rows[k - 1]

    def _checked(self, chunk: Chunk) -> tuple[Array, Array, Array | None, Array | None]:
        """Of a chunk in hardware order what is pending: times, targets, stiffness and damping (H, 2, n).

        And, where it names them, the stiffness and damping (2, n) of its last target that has passed.
        """
        n, name = len(self.joints), f"chunk {chunk.seq!r}"
        if isinstance(chunk.seq, bool) or not isinstance(chunk.seq, int | np.integer) or chunk.seq <= self.seq:
            raise CommandRefused(f"{name}: out of order, need a sequence number above {self.seq}")
        most = self.config.longest
        for what, x in (("targets", chunk.q), ("times", chunk.t)):  # before anything is copied
            if isinstance(x, np.ndarray) and (x.dtype.kind not in "fiu" or x.size > most * n):
                raise CommandRefused(
                    f"{name}: {what} are {x.dtype} of shape {x.shape}, need at most ({most}, {n}) real numbers"
                )
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
        if np.abs(q).max() > FURTHEST:
            raise CommandRefused(f"{name}: a target of {np.abs(q).max():.4g} rad, accepted up to {FURTHEST}")
        self._check_times(name, t, received)
        columns = self._columns(name, tuple(chunk.joints))
        q, rows = q[:, columns], self._impedances(name, chunk, q.shape)
        rows = None if rows is None else rows[:, :, columns]
        first = int(np.searchsorted(t, self._now + DUE, side="right"))
        if first == len(t):
            raise CommandRefused(f"{name}: stale, its last target was due at {t[-1]:.6f}, now is {self._now:.6f}")
        far = np.abs(q[first] - self._last)
        if far.max() > self.config.jump:
            j = int(far.argmax())
            raise CommandRefused(
                f"{name}: jump of {far[j]:.4f} rad at {self.joints[j]} from the present reference, "
                f"accepted up to {self.config.jump}"
            )
        passed = rows[first - 1] if rows is not None and first > 0 else None
        return t[first:], q[first:], rows[first:] if rows is not None else None, passed

    def _impedances(self, name: str, chunk: Chunk, shape: tuple[int, ...]) -> Array | None:
        """Stiffness and damping per target, (H, 2, n), in the chunk's columns; None where it names neither."""
        if chunk.stiffness is None and chunk.damping is None:
            return None
        if chunk.stiffness is None or chunk.damping is None:
            raise CommandRefused(f"{name}: stiffness and damping belong together, got only one of them")
        try:
            k, d = np.array(chunk.stiffness, dtype=np.float64), np.array(chunk.damping, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise CommandRefused(f"{name}: stiffness or damping are not numbers: {error}") from error
        for what, values in (("stiffness", k), ("damping", d)):
            if values.shape != shape:
                raise CommandRefused(f"{name}: {what} {values.shape}, need {shape} like the targets")
            bad = ~(np.isfinite(values) & (values >= 0))
            if bad.any():
                raise CommandRefused(f"{name}: {what} must be finite and >= 0, got {values[bad][:4].tolist()}")
        return np.stack([k, d], axis=1)

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
