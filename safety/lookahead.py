"""Layer 2: the pending chunk rolled forward, so that its first violating tick is known before it comes.

What is rolled is what would be sent if nothing were edited: the reference of the chunk (``chunks.follow``), the
tracking law (``intention.intend``) and the integrator (``intention.step``), the very kernels of a tick.  A few ticks
are rolled per control tick (``roll.roll``).  What counts as a violation are the margins of the constraint file for the
commanded motion; what a command alone does not decide (torque, forces, people) is not foreseen.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from palmar.safety.bounds import Bounds
from palmar.safety.chunks import ChunkPlayer
from palmar.safety.constraints import Constraint, ConstraintSet
from palmar.safety.roll import AHEAD, KINDS, limit_of, roll, work_of
from palmar.safety.tree import Tree

Array = np.ndarray

TICKS = 6
"""Ticks rolled per control tick: a chunk of 0.2 s is seen whole 34 ms after it came."""
FOLLOWED = 2e-4
"""A command further than this from where the roll expected it was not the intended one [rad]; less is the jitter of
the clock, for the reference is read when a tick runs, not when it was due."""


@njit(cache=True, nogil=True)
def _departed(expected, u, most):
    """Whether a joint is not where it was expected."""
    for i in range(len(u)):
        if abs(expected[i] - u[i]) > most:
            return True
    return False


def _bit(c: Constraint) -> int:
    """A constraint's bit in a roll's answer."""
    return 1 << (KINDS.index(c.margin) + (c.params["region"] if c.margin == "keep_out" else 0))


class LookAhead:
    """The roll of one robot.  One thread; each call does bounded work."""

    def __init__(
        self, tree: Tree, bounds: Bounds, constraints: ConstraintSet, dt: float, *, ticks: int = TICKS
    ) -> None:
        """Prepare.

        Args:
            tree: The robot's kinematics.
            bounds: Those of the filter's tracking law.
            constraints: What counts as a violation.
            dt: Control tick [s].
            ticks: Ticks rolled per ``advance``.
        """
        self.tree, self.bounds, self.limit, self.dt, self.ticks = tree, bounds, limit_of(constraints), dt, ticks
        self._names = [(c.name, _bit(c)) for c in constraints.constraints if c.margin in KINDS]
        self._work, self._state = work_of(tree, len(self.limit.out)), np.zeros((3, len(tree.joint_body)))
        self._begin, self._passed, self._rolled, self._plan = math.nan, 0, 0, -1
        self.foreseen: tuple[float, str] | None = None
        """Time of the tick that would send the first violation [s], and the constraint's name."""
        self.restarts, self.ticks_rolled, self.found = 0, 0, 0

    def restart(self, u: Array, ud: Array, udd: Array, now: float) -> None:
        """Forget what was rolled: begin at the tick at ``now``, which starts from this command, (n,) each."""
        self._state[0], self._state[1], self._state[2] = u, ud, udd
        self._begin, self._passed, self._rolled, self.foreseen = now, 0, 0, None
        self.restarts += 1

    def edited(self) -> None:
        """The command of this tick was not the intended one: begin anew at the next."""
        self._plan = -1

    def advance(self, player: ChunkPlayer, u: Array, ud: Array, udd: Array, now: float) -> tuple[float, str] | None:
        """Roll on, before the tick at ``now`` reads the reference; the first violation, if it is known.

        Begins anew by itself for a new chunk, a slipped clock, a passed violation, and a command that has
        left the rolled one by more than FOLLOWED.  After a smaller edit the caller says ``edited``.

        Args:
            player: Holds the pending chunk; only read.
            u: Commanded positions before this tick [rad], (n,).
            ud: Velocities [rad/s], (n,).
            udd: Accelerations of the tick before [rad/s2], (n,).
            now: Time of this tick [s].
        """
        if self._plan != player.plan or self._off(u, now):
            self._plan = player.plan
            self.restart(u, ud, udd, now)
        room, before = self._passed + AHEAD - self._rolled, self._rolled
        end = player.received + player.config.timeout  # what comes after is not followed
        if self.foreseen is None and self._begin + before * self.dt <= end:
            self._rolled, bits = roll(
                self.tree,
                self.bounds,
                self.limit,
                self._work,
                self._state,
                *player.line(),
                self._begin,
                before,
                min(self.ticks, room),
                end,
                self.dt,
            )
            self.ticks_rolled += self._rolled - before
            if bits:
                self.found += 1
                name = next(name for name, bit in self._names if bits & bit)
                self.foreseen = (self._begin + (self._rolled - 1) * self.dt, name)
        self._passed += 1
        return self.foreseen

    def _off(self, u: Array, now: float) -> bool:
        """Whether the present is not the one that was rolled, or the violation has passed."""
        k = self._passed
        if abs(now - self._begin - k * self.dt) > 0.5 * self.dt:
            return True
        if self.foreseen is not None and now > self.foreseen[0] + 0.5 * self.dt:
            return True
        return k < self._rolled and _departed(self._work.path[k % AHEAD], u, FOLLOWED)
