"""From commands that come by one clock to a set-point that a robot takes by another.

The filter makes a command per millisecond of its clock, the arm wants one per millisecond of its own.  Passed on
as they come, a command that is late by one tick is a set-point that stands still for one: from 1 rad/s an
acceleration of 1,000 rad/s2, which an FR3 refuses.  ``Follower`` goes on along the newest command's own velocity
and acceleration instead and comes back to the commands within the limits of the interface.  Where there is one
command per tick and they keep the limits, it hands them on unchanged.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray
DT = 0.001
"""Of the arm and of the commands [s]."""
COAST = 20
"""Ticks without a new command that are bridged along the old one; after them it brakes to rest."""
CURVED = 3
"""The first of them follow the command's acceleration, too."""
RATE = 30.0
"""How fast it comes back to the commands, critically damped [1/s]."""
REST = 1e-6
"""Below it a set-point stands [rad/s]."""
ROUGH = 3
"""Ticks after ``resume`` with reserve in the limits: what a robot says of its set-point has single precision,
1.2e-7 rad, twice and three times differentiated over a millisecond 0.3 rad/s2 and 500 rad/s3."""
RESERVE_A, RESERVE_J = 0.3, 500.0


class Follower:
    """Set-point (n,) with limits on acceleration [rad/s2] and jerk [rad/s3]; one ``step`` per tick of the robot."""

    def __init__(self, q: Array, *, v_max: Array, a_max: Array, j_max: Array):
        self.q = np.array(q, dtype=float)
        """Last set-point sent [rad]."""
        self.v, self.a = np.zeros_like(self.q), np.zeros_like(self.q)
        self._v_max, self._a_max, self._j_max = (np.asarray(x, dtype=float) for x in (v_max, a_max, j_max))
        self._u, self._ud, self._udd = self.q.copy(), np.zeros_like(self.q), np.zeros_like(self.q)
        self._seq, self._age = -1, 0
        self._stopping, self._rough = False, 0

    def put(self, q: Array, seq: int) -> None:
        """The newest command; one with a number already seen is no news."""
        if seq <= self._seq:
            return
        ticks = seq - self._seq if self._seq >= 0 else 0
        ud = (q - self._u) / (ticks * DT) if 0 < ticks <= COAST else np.zeros_like(q)
        # a difference over several ticks, or to the start, is no acceleration
        self._udd = (ud - self._ud) / DT if ticks == 1 else np.zeros_like(q)
        self._u, self._ud, self._seq, self._age, self._stopping = np.array(q), ud, seq, 0, False

    def resume(self, q: Array, v: Array, a: Array) -> None:
        """Packets were lost: the robot went on by itself to (q, v, a), and from there it goes on."""
        self.q, self.v, self.a = np.array(q), np.array(v), np.array(a)
        self._rough = ROUGH

    def stop(self) -> None:
        """From now on brake to rest, until the next command, which may be numbered anew."""
        self._stopping, self._seq = True, -1

    @property
    def at_rest(self) -> bool:
        """Whether the set-point stands."""
        return bool(np.all(np.abs(self.v) < REST) and np.all(np.abs(self.a) * DT < REST))

    def step(self) -> Array:
        """The set-point of this tick, (n,)."""
        a = self._braking() if self._stopping or self._age > COAST else self._following()
        rough = self._rough > 0
        a_max, da = self._a_max - rough * RESERVE_A, DT * (self._j_max - rough * RESERVE_J)
        # where the last acceleration is beyond what is allowed now, the jerk decides how fast it comes back
        low = np.minimum(np.maximum(-a_max, self.a - da), self.a + da)
        high = np.maximum(np.minimum(a_max, self.a + da), self.a - da)
        a = np.clip(a, low, high)
        self._rough -= rough
        self._age += 1
        self.a, self.v = a, self.v + DT * a
        self.q = self.q + DT * self.v
        return self.q

    def _following(self) -> Array:
        """Acceleration that would be on the command one tick from now, and comes back to it where it is not."""
        curve = self._udd if self._age < CURVED else np.zeros_like(self._udd)
        bent = min(self._age, CURVED)
        target_v = self._ud + DT * bent * self._udd
        target = self._u + DT * self._age * self._ud + DT * DT * bent * (self._age - 0.5 * (bent - 1)) * self._udd
        ahead = self.q + DT * (self.v + DT * curve)
        a = curve + 2.0 * RATE * (target_v - self.v - DT * curve) + RATE**2 * (target - ahead)
        if self._age == 0:
            exact = (target - self.q) / DT
            onto = (exact - self.v) / DT
            reachable = (np.abs(onto) <= self._a_max) & (np.abs(onto - self.a) <= self._j_max * DT)
            reachable &= np.abs(exact - target_v) <= 0.5 * DT * self._a_max
            a = np.where(reachable, onto, a)
        slowest, fastest = (-self._v_max - self.v) / DT, (self._v_max - self.v) / DT
        return np.clip(a, np.minimum(slowest, 0.0), np.maximum(fastest, 0.0))

    def _braking(self) -> Array:
        """Down to rest: the deceleration itself must have ended when the speed has."""
        fade = np.sqrt(2.0 * 0.5 * self._j_max * np.abs(self.v))
        return -np.sign(self.v) * np.minimum(np.minimum(self._a_max, fade), np.abs(self.v) / DT)
