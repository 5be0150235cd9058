"""The filter's one QP: the joint acceleration nearest to the wanted one that respects bounds and rows.

Variables are z = (x / a_max, slack of the torque rows, slack of the contact rows, share of the wanted stiffness
rise that is granted), (n + 3,):

    minimise    1/2 |x / a_max - wanted|^2 + 1/2 |slacks|^2 + 1/2 (share - 1)^2
    subject to  jerk, acceleration, speed and position as bounds on x          (bounds.box)
                a barrier per close pair, low geom, side of the palm's box, keep-out region and person
                approach speed of the hand towards what it may touch, softened
                torque of the arm and its rate of change, softened
                the energy tank

Solved by DAQP, warm started; every answer is checked against the KKT conditions before it is believed.
What the rows miss (their linearisation, what lies beyond a tick) the verifier of the stop trajectory
catches, so they decide how smoothly the robot slows down, not whether it is safe.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import daqp
import numpy as np
from numba import njit

from palmar.safety.barrier import BarrierConfig, Slots, barrier_of
from palmar.safety.bounds import Bounds, Space
from palmar.safety.dynamics import inertia_of
from palmar.safety.enforced import Separation, Torque
from palmar.safety.geometry import Kinematics
from palmar.safety.obstacles import Obstacles
from palmar.safety.robot import RobotModel
from palmar.safety.rows import EXTRAS, POSITION_KIND, TANK_KIND, VELOCITY_KIND, assemble, torque_rows

Array = np.ndarray

SLACK = 1.0 / math.sqrt(1e4)
"""Torque overshoot per unit of slack, in parts of tau_max: one part costs 1e4 / 2."""
TANKS = 2
"""Of arm and hand."""
OPEN = 1e30
"""DAQP's infinity."""
KKT_TOLERANCE = 1e-6
"""In units of z, that is of a_max."""
SOLVED, INFEASIBLE, NOT_FEASIBLE, NOT_STATIONARY, NOT_COMPLEMENTARY, NOT_FINITE = range(6)
FAULTS = ("", "qp_infeasible", "qp_not_feasible", "qp_not_stationary", "qp_not_complementary", "qp_not_finite")
"""Named reasons."""


class TankRows(NamedTuple):
    """What the energy tanks allow in a tick: ``x . acceleration + share s <= room`` for each (``tank.Tank.rows``)."""

    x: Array
    """(*B, 2, n) [J s2/rad]."""
    share: Array
    """(*B, 2) [J]: energy of granting the whole wanted rise of stiffness."""
    room: Array
    """(*B, 2) [J]"""


@njit(cache=True, nogil=True)
def kkt(z, dual, wanted, matrix, lower, upper):
    """Which of the conditions of optimality the answer of the QP fails, if any.

    Args:
        z: Answer, (n,).
        dual: Multipliers of bounds then rows, (n + m,); positive at an upper bound, negative at a lower one.
        wanted: Centre of the cost, (n,).
        matrix: Rows, (m, n).
        lower: Lower bounds of z then rows, (n + m,).
        upper: Upper bounds, (n + m,).

    Returns:
        SOLVED, NOT_FEASIBLE, NOT_STATIONARY, NOT_COMPLEMENTARY or NOT_FINITE.
    """
    n, m, tol = len(z), len(matrix), KKT_TOLERANCE
    for i in range(n):
        g = z[i] - wanted[i] + dual[i]
        for k in range(m):
            if dual[n + k] != 0.0:
                g += matrix[k, i] * dual[n + k]
        if not (math.isfinite(z[i]) and math.isfinite(g)):
            return NOT_FINITE
        if abs(g) > tol * (1.0 + abs(wanted[i])):
            return NOT_STATIONARY
    for k in range(n + m):
        if lower[k] <= -OPEN and upper[k] >= OPEN:  # no row at all
            if abs(dual[k]) > tol:
                return NOT_COMPLEMENTARY
            continue
        y = z[k] if k < n else 0.0
        if k >= n:
            for i in range(n):
                y += matrix[k - n, i] * z[i]
        if not (lower[k] - tol <= y <= upper[k] + tol):
            return NOT_FEASIBLE
        if dual[k] > tol and upper[k] - y > tol or dual[k] < -tol and y - lower[k] > tol:
            return NOT_COMPLEMENTARY
    return SOLVED


@njit(cache=True, nogil=True)
def binding(dual, kind, v, v_max):
    """Bit set of the kinds that have a multiplier."""
    n, bits = len(v), 0
    for i in range(len(dual)):
        if abs(dual[i]) > KKT_TOLERANCE:
            if i >= n + EXTRAS:
                bits |= 1 << kind[i - n - EXTRAS]
            elif i < n:
                bits |= 1 << (VELOCITY_KIND if abs(v[i]) > 0.99 * v_max[i] else POSITION_KIND)
    return bits


@njit(cache=True, nogil=True)
def judge(z, dual, wanted, matrix, lower, upper, kind, v, v_max):
    """``kkt`` and, where the answer holds, ``binding``: one call instead of two."""
    code = kkt(z, dual, wanted, matrix, lower, upper)
    return code, binding(dual, kind, v, v_max) if code == SOLVED else 0


class AccelerationQP:
    """The QP of one robot, its memory and its solver."""

    def __init__(
        self,
        robot: RobotModel,
        kinematics: Kinematics,
        bounds: Bounds,
        space: Space,
        config: BarrierConfig,
        *,
        dt: float,
        torque: Torque | None,
        people: Separation | None = None,
        impact: float = math.inf,
        slots: Slots | None = None,
    ) -> None:
        """Prepare for a robot.

        Args:
            robot: The robot.
            kinematics: Its kinematics.
            bounds: Limits of the commands.
            space: Limits of the geometry.
            config: Shape of the barriers.
            dt: Tick [s].
            torque: Torque rows of the arm, None for none.
            people: How the separation from people shapes their barrier.
            impact: Approach speed at which the hand may touch something [m/s].
            slots: Room for rows.

        Raises:
            ConfigError: If the torque's error leaves nothing of a limit.
        """
        self.slots = slots = slots or Slots()
        n, m = robot.n, slots.geometry + slots.contacts
        self.kin, self.bounds, self.space, self.dt = kinematics, bounds, space, dt
        self.bar = barrier_of(config, slots, people, impact, geoms=len(kinematics.tree.geom_body))
        self.arm = robot.n_arm if torque is not None else 0
        torque = torque or Torque()
        self.part = torque.part(robot.limits.tau_max[: self.arm])
        self.rate, self.first_torque, self.tank = torque.rate, m, m + 2 * self.arm
        rows, variables = m + 2 * self.arm + TANKS, n + EXTRAS
        self.matrix, self.kind = np.zeros((rows, variables)), np.zeros(rows, dtype=np.int64)
        self.kind[-TANKS:] = TANK_KIND
        self.matrix[m : self.tank, n] = np.repeat([-SLACK, SLACK], self.arm)
        self.lower, self.upper = np.full(variables + rows, -OPEN), np.full(variables + rows, OPEN)
        self.lower[n : n + 2] = 0.0
        self.wanted, self.z = np.zeros(variables), np.zeros(variables)
        self.low, self.high = np.zeros(n), np.zeros(n)
        self.cost, self._row_lower = np.zeros(variables), np.zeros(m)
        near = np.zeros(len(kinematics.tree.pairs))
        self.scratch = (*kinematics.scratch, np.zeros((3, 3)), np.zeros(n), near)
        self.inertia = inertia_of(kinematics)
        self._mass, self._bias, self._zero = np.zeros((n, n)), np.zeros(n), np.zeros(n)
        self.solver = self._solver()
        self.kinds = 0
        """Bit set of the kinds of the rows that were active in the last answer."""
        self.counts = {name: 0 for name in ("solved", *FAULTS[1:])}

    def solve(
        self, q: Array, v: Array, a: Array, wanted: Array, *, obstacles: Obstacles, tank: TankRows | None = None
    ) -> tuple[int, Array, float]:
        """The acceleration nearest to ``wanted`` [rad/s2] for commands (q, v, a), and SOLVED or a fault.

        Args:
            q: Commanded positions [rad], (n,).
            v: Commanded velocities [rad/s], (n,).
            a: Commanded accelerations of the tick before [rad/s2], (n,).
            wanted: [rad/s2], (n,).
            obstacles: What is in the cell besides robot and table.
            tank: Row of the energy tank; without it stiffness is granted in full.

        Returns:
            SOLVED or a fault, the acceleration (overwritten by the next call), the granted share of the wanted
            rise of stiffness.
        """
        code = self._solve(q, v, a, wanted, obstacles, tank)
        self.counts[FAULTS[code] or "solved"] += 1
        n = len(q)
        if code == INFEASIBLE:
            return code, self.low, 0.0
        # Feasible to KKT_TOLERANCE: take the rounding away, so that the bounds hold exactly.
        np.multiply(self.z[:n], self.bounds.a, out=self.z[:n])
        return code, np.clip(self.z[:n], self.low, self.high), min(1.0, max(0.0, float(self.z[n + 2])))

    def _solve(self, q: Array, v: Array, a: Array, wanted: Array, obstacles: Obstacles, tank: TankRows | None) -> int:
        n, m = len(q), self.first_torque
        extras = n + EXTRAS
        _, k = assemble(
            self.kin.tree, self.bounds, self.space, obstacles, self.bar, q, v, a, self.dt, self.scratch,
            self.matrix, self._row_lower, self.kind, self.low, self.high,
        )  # fmt: skip
        self.matrix[k:m] = 0.0
        self._row_lower[k:] = -OPEN
        self.lower[extras : extras + m] = self._row_lower
        np.divide(self.low, self.bounds.a, out=self.lower[:n])
        np.divide(self.high, self.bounds.a, out=self.upper[:n])
        np.divide(wanted, self.bounds.a, out=self.wanted[:n])
        if self.arm:
            torque_rows(
                self.inertia, q, v, a, self._zero, self.part, self.rate, self.dt, self.bounds.a, self._mass,
                self._bias, self.matrix, self.lower, self.upper, m, self.kind,
            )  # fmt: skip
        self._tank(tank, n)
        np.negative(self.wanted, out=self.cost)
        return self.answer(v)

    def answer(self, v: Array) -> int:
        """Solve what has been assembled and check it; SOLVED or a fault."""
        if self.solver.update(f=self.cost, A=self.matrix, bupper=self.upper, blower=self.lower) < 0:
            return INFEASIBLE
        z, _, flag, info = self.solver.solve()
        if flag <= 0:
            return INFEASIBLE
        self.z[:] = z
        code, self.kinds = judge(
            z, info["lam"], self.wanted, self.matrix, self.lower, self.upper, self.kind, v, self.bounds.v
        )
        return code

    def bare(self) -> daqp.Model:
        """Another solver of the same size, as a benchmark wants it beside ours."""
        return self._solver()

    def _solver(self) -> daqp.Model:
        solver, sense = daqp.Model(), np.zeros(len(self.lower), np.int32)
        solver.setup(np.eye(len(self.wanted)), self.cost, self.matrix, self.upper, self.lower, sense)
        solver.settings = {"iter_limit": 300, "primal_tol": 1e-9}
        return solver

    def _tank(self, tank: TankRows | None, n: int) -> None:
        """The tanks' rows and the bounds of the granted share of stiffness."""
        rows, share = self.matrix[-TANKS:], n + 2
        if tank is None:
            rows[:] = 0.0
            self.upper[-TANKS:] = OPEN
            self.lower[share] = self.upper[share] = self.wanted[share] = 1.0
            return
        np.multiply(tank.x, self.bounds.a, out=rows[:, :n])
        rows[:, share] = tank.share
        # In parts of the largest entry: the joules of a tick are tiny beside the other rows.
        scale = np.maximum(np.abs(rows).max(axis=1), 1e-12)
        rows /= scale[:, None]
        self.upper[-TANKS:] = np.minimum(tank.room / scale, OPEN)
        self.lower[share], self.upper[share], self.wanted[share] = 0.0, 1.0, 1.0
