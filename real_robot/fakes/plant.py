"""What a fake's motors move: second-order joints of their own, or the joints of the simulated robot.

A fake speaks the bytes of a real bus or network and hands positions and torques on to a plant.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

import numpy as np

Array = np.ndarray


class Plant(Protocol):
    """``n`` joints, moved by position servos or by plain torques.  Every method may be called from any thread."""

    n: int

    def target(self, q: Array, stiffness: Array | None = None, damping: Array | None = None) -> None:
        """Position servos pull towards ``q`` [rad], (n,), with their own gains or those given, until the next call."""
        ...

    def torque(self, tau: Array) -> None:
        """No servo: joint torques [N m], (n,), until the next call; zeros are a limp robot."""
        ...

    def measure(self) -> tuple[Array, Array, Array]:
        """Positions [rad], velocities [rad/s] and torques [N m] of the motors now, (n,) each, exact."""
        ...


class ServoPlant:
    """Independent joints ``inertia * qdd = tau - friction * qd`` under position servos, on a clock of its own.

    It advances by that clock whenever it is looked at, in steps of at most ``STEP``, so no thread is needed.
    """

    STEP = 0.0005
    """Longest integration step [s]."""
    LONGEST = 0.5
    """Time that is made up for after nobody looked [s]; what is longer did not happen."""

    def __init__(
        self,
        q: Array,
        *,
        inertia: float = 0.05,
        friction: float = 0.5,
        stiffness: float = 100.0,
        damping: float = 4.0,
        tau_max: float = 50.0,
        load: Array | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.n = len(q)
        self.inertia, self.friction, self.tau_max = inertia, friction, tau_max
        self.load = np.zeros(self.n) if load is None else np.asarray(load, dtype=float)
        """Torque of the world on the joints [N m], (n,): a held weight pulls a limp robot away."""
        self._q, self._qd, self._tau = np.array(q, dtype=float), np.zeros(self.n), np.zeros(self.n)
        self._gains = np.full(self.n, float(stiffness)), np.full(self.n, float(damping))
        self._servo: tuple[Array, Array, Array] | None = (self._q.copy(), *self._gains)
        self._clock, self._t, self._lock = clock, clock(), threading.Lock()

    @property
    def servoed(self) -> bool:
        """Whether position servos pull, and not plain torques."""
        return self._servo is not None

    def target(self, q: Array, stiffness: Array | None = None, damping: Array | None = None) -> None:
        """See ``Plant``."""
        with self._lock:
            self._advance()
            k = self._gains[0] if stiffness is None else np.asarray(stiffness, dtype=float)
            d = self._gains[1] if damping is None else np.asarray(damping, dtype=float)
            self._servo = np.array(q, dtype=float), k, d

    def torque(self, tau: Array) -> None:
        """See ``Plant``."""
        with self._lock:
            self._advance()
            self._servo, self._tau = None, np.array(tau, dtype=float)

    def measure(self) -> tuple[Array, Array, Array]:
        """See ``Plant``."""
        with self._lock:
            self._advance()
            return self._q.copy(), self._qd.copy(), self._tau.copy()

    def _advance(self) -> None:
        now = self._clock()
        rest, self._t = min(now - self._t, self.LONGEST), now
        while rest > 0.0:
            dt = min(rest, self.STEP)
            rest -= dt
            if self._servo is not None:
                u, k, d = self._servo
                self._tau = np.clip(k * (u - self._q) - d * self._qd, -self.tau_max, self.tau_max)
            self._qd += dt * (self._tau + self.load - self.friction * self._qd) / self.inertia
            self._q += dt * self._qd
