"""The filter's one QP: the joint acceleration nearest to the wanted one that respects bounds and barriers.

Variables are z = x / a_max (n,) and one slack for the soft torque rows:

    minimise    1/2 |z - z_wanted|^2 + 1/2 s^2
    subject to  jerk, acceleration, speed and position as bounds on z      (stop.box)
                a barrier per close pair, low geom and side of the palm's box
                torque of the arm below its limit, softened by s

Solved by DAQP, warm started; every answer is checked against the KKT conditions before it is believed.
What the rows miss (their linearisation, what lies beyond a tick) the verifier of the stop trajectory
catches, so they decide how smoothly the robot slows down, not whether it is safe.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import daqp
import mujoco
import numpy as np
from numba import njit

from palmar.safety.geometry import Kinematics, pair_gap, pair_row, point_row, poses, table_row
from palmar.safety.robot import RobotModel
from palmar.safety.stop import Bounds, Space, box
from palmar.safety.types import ConfigError

Array = np.ndarray

PAIR_ROWS, TABLE_ROWS, PALM_ROWS = 24, 12, 6
SELF_KIND, TABLE_KIND, PALM_KIND, TORQUE_KIND = range(4)
KIND_NAMES = (
    "self_clearance",
    "table_clearance",
    "workspace",
    "joint_torque",
    "joint_position",
    "joint_velocity",
)
SLACK = 1.0 / math.sqrt(1e4)
"""Torque overshoot per unit of slack, in parts of tau_max: one part costs 1e4 / 2."""
OPEN = 1e30
"""DAQP's infinity."""
KKT_TOLERANCE = 1e-6
"""In units of z, that is of a_max."""
SOLVED, INFEASIBLE, NOT_FEASIBLE, NOT_STATIONARY, NOT_COMPLEMENTARY, NOT_FINITE = range(6)


@dataclass(frozen=True)
class BarrierConfig:
    """Shape of the barriers: allowed approach speed ``sqrt(2 brake h + soft^2) - soft`` at distance h."""

    brake: float = 2.5
    """Deceleration of an approach [m/s2]; what 10 rad/s2 give at a lever of a quarter metre."""
    soft: float = 0.05
    """Speed below which the approach becomes exponential [m/s]."""
    rate: float = 60.0
    """How fast an approach that is too fast is corrected [1/s]."""
    buffer: float = 0.002
    """Distance kept beyond the limit [m]."""
    reach: float = 0.20
    """Pairs and geoms further away than this make no row [m]; a fifth of it for pairs of fingers."""

    def __post_init__(self) -> None:
        for name, value in self.__dict__.items():
            if not 0 < value < float("inf"):
                raise ConfigError(f"barrier.{name} must be a positive number, got {value!r}")


class Barrier(NamedTuple):
    """``BarrierConfig`` for numba."""

    brake: float
    soft: float
    rate: float
    buffer: float
    reach: float


@njit(cache=True, nogil=True, inline="always")
def _needed(h, dh, bar):
    """Second derivative of h that the barrier asks for [m/s2]: d/dt(h' + w(h)) >= -rate (h' + w(h))."""
    if h > 0.0:
        w = math.sqrt(2.0 * bar.brake * h + bar.soft * bar.soft) - bar.soft
        slope = bar.brake / (w + bar.soft)
    else:
        slope = bar.brake / bar.soft
        w = slope * h
    return -bar.rate * (dh + w) - slope * dh


@njit(cache=True, nogil=True)
def _add(row, h, v, bar, low, high, scale, matrix, lower, k):
    """Put a barrier into row k if it can matter in this tick; whether it did.

    What no acceleration inside the bounds can reach is asked for as far as it can be reached: one row alone
    never makes the QP infeasible.
    """
    dh, least, most = 0.0, 0.0, 0.0
    for j in range(len(v)):
        g = row[j]
        dh += g * v[j]
        least += min(g * low[j], g * high[j])
        most += max(g * low[j], g * high[j])
    need = _needed(h, dh, bar)
    if least >= need:
        return False
    need = min(need, most - 1e-6 * (most - least) - 1e-9)
    for j in range(len(v)):
        matrix[k, j] = row[j] * scale[j]
    matrix[k, len(v)] = 0.0
    lower[k] = need
    return True


@njit(cache=True, nogil=True)
def assemble(tree, bounds, space, bar, q, v, a, dt, s, matrix, lower, kind, low, high):
    """Bounds and barrier rows at (q, v, a).

    Args:
        tree: Kinematics.
        bounds: Joint limits.
        space: Limits of the geometry.
        bar: Barrier.
        q: Positions [rad], (n,).
        v: Velocities [rad/s], (n,).
        a: Accelerations of the tick before [rad/s2], (n,).
        dt: Tick [s].
        s: Scratch: body positions, rotations, axes, anchors, ends, (3, 3), (n,).
        matrix: Out: rows, (m, n + 1), in z.
        lower: Out: their lower bounds, (m,).
        kind: Out: kind of each row, (m,).
        low: Out: lower bounds of the acceleration [rad/s2], (n,).
        high: Out: upper bounds [rad/s2], (n,).

    Returns:
        Number of rows.
    """
    p, r, axis, anchor, ends, t, row = s
    poses(tree, q, p, r, axis, anchor, ends)
    box(q, v, a, bounds, dt, low, high)
    k = 0
    for i in range(len(tree.pairs)):
        near = bar.reach * tree.pair_near[i] + space.self_limit
        if k == PAIR_ROWS or pair_gap(tree, ends, i, near) >= near:
            continue
        d = pair_row(tree, i, ends, axis, anchor, row, t[0], t[1], t[2])
        if _add(row, d - space.self_limit - bar.buffer, v, bar, low, high, bounds.a, matrix, lower, k):
            kind[k] = SELF_KIND
            k += 1
    full = k + TABLE_ROWS
    for i in range(len(tree.table)):
        g = tree.table[i]
        h = min(ends[g, 0, 2], ends[g, 1, 2]) - tree.radius[g] - space.table_limit - bar.buffer
        if h >= bar.reach or k == full:
            continue
        table_row(tree, i, ends, axis, anchor, row, t[0])
        if _add(row, h, v, bar, low, high, bounds.a, matrix, lower, k):
            kind[k] = TABLE_KIND
            k += 1
    for i in range(3):
        for side in (1.0, -1.0):
            x = p[tree.palm, i]
            h = (x - space.lower[i] if side > 0.0 else space.upper[i] - x) - bar.buffer
            if h >= bar.reach:
                continue
            t[0, 0] = t[0, 1] = t[0, 2] = 0.0
            t[0, i] = side
            row[:] = 0.0
            point_row(tree, tree.palm, p[tree.palm], t[0], axis, anchor, 1.0, row)
            if _add(row, h, v, bar, low, high, bounds.a, matrix, lower, k):
                kind[k] = PALM_KIND
                k += 1
    return k


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
    """Bit set of what has a multiplier: the row kinds, then position, then velocity."""
    n, bits = len(v), 0
    for i in range(len(dual)):
        if abs(dual[i]) > KKT_TOLERANCE:
            if i > n:
                bits |= 1 << kind[i - n - 1]
            elif i < n:
                bits |= 32 if abs(v[i]) > 0.99 * v_max[i] else 16
    return bits


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
        torque_error: float | None,
    ) -> None:
        """Prepare for a robot.

        Args:
            robot: The robot.
            kinematics: Its kinematics.
            bounds: Limits of the commands.
            space: Limits of the geometry.
            config: Shape of the barriers.
            dt: Tick [s].
            torque_error: Part of tau_max kept back for the error of the inverse dynamics [N m], or None
                for no torque rows.
        """
        n, m = robot.n, PAIR_ROWS + TABLE_ROWS + PALM_ROWS
        self.kin, self.bounds, self.space, self.dt = kinematics, bounds, space, dt
        self.bar = Barrier(config.brake, config.soft, config.rate, config.buffer, config.reach)
        self.arm = robot.n_arm if torque_error is not None else 0
        self.tau = robot.limits.tau_max[: self.arm]
        self.tau_part = 1.0 - (torque_error or 0.0) / self.tau
        if np.any(self.tau_part <= 0):
            raise ConfigError(f"torque error {torque_error} leaves nothing of tau_max {self.tau.tolist()}")
        rows = m + 2 * self.arm
        self.first_torque = m
        self.matrix, self.kind = np.zeros((rows, n + 1)), np.zeros(rows, dtype=np.int64)
        self.kind[m:] = TORQUE_KIND
        self.matrix[m:, n] = np.repeat([-SLACK, SLACK], self.arm)
        self.lower, self.upper = np.full(n + 1 + rows, -OPEN), np.full(n + 1 + rows, OPEN)
        self.lower[n] = 0.0
        self.wanted, self.z = np.zeros(n + 1), np.zeros(n + 1)
        self.low, self.high = np.zeros(n), np.zeros(n)
        self._cost, self._row_lower = np.zeros(n + 1), np.zeros(m)
        self._scratch = (*kinematics.scratch, np.zeros((3, 3)), np.zeros(n))
        self._data = mujoco.MjData(kinematics.model)
        self._full, self._bias = np.zeros((kinematics.model.nv,) * 2), np.zeros(kinematics.model.nv)
        self._cross = np.ix_(kinematics.dof[: self.arm], kinematics.dof)
        self.solver = daqp.Model()
        self.solver.setup(
            np.eye(n + 1), self._cost, self.matrix, self.upper, self.lower, np.zeros(n + 1 + rows, np.int32)
        )
        self.solver.settings = {"iter_limit": 300, "primal_tol": 1e-9}
        self.active: tuple[str, ...] = ()

    def solve(self, q: Array, v: Array, a: Array, wanted: Array) -> tuple[int, Array]:
        """The acceleration nearest to ``wanted`` [rad/s2] for commands (q, v, a), and SOLVED or a fault.

        The returned array is overwritten by the next call.
        """
        n, m = len(q), self.first_torque
        k = assemble(
            self.kin.tree,
            self.bounds,
            self.space,
            self.bar,
            q,
            v,
            a,
            self.dt,
            self._scratch,
            self.matrix,
            self._row_lower,
            self.kind,
            self.low,
            self.high,
        )
        self.matrix[k:m] = 0.0
        self._row_lower[k:] = -OPEN
        self.lower[n + 1 : n + 1 + m] = self._row_lower
        np.divide(self.low, self.bounds.a, out=self.lower[:n])
        np.divide(self.high, self.bounds.a, out=self.upper[:n])
        np.divide(wanted, self.bounds.a, out=self.wanted[:n])
        if self.arm:
            self._torque(q, v)
        np.negative(self.wanted, out=self._cost)
        if self.solver.update(f=self._cost, A=self.matrix, bupper=self.upper, blower=self.lower) < 0:
            return INFEASIBLE, self.low
        z, _, flag, info = self.solver.solve()
        if flag <= 0:
            return INFEASIBLE, self.low
        dual = info["lam"]
        code = kkt(z, dual, self.wanted, self.matrix, self.lower, self.upper)
        self.active = self._active(dual, v) if code == SOLVED else ()
        # Feasible to KKT_TOLERANCE: take the rounding away, so that the bounds hold exactly.
        np.multiply(z[:n], self.bounds.a, out=self.z[:n])
        return code, np.clip(self.z[:n], self.low, self.high)

    def _torque(self, q: Array, v: Array) -> None:
        """Rows ``|M x + c| <= tau_max``: gravity is left out, the arm compensates it itself."""
        model, data, n, arm, m = self.kin.model, self._data, len(q), self.arm, self.first_torque
        data.qpos[self.kin.qpos], data.qvel[self.kin.dof] = q, v
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_makeM(model, data)
        mujoco.mj_comVel(model, data)
        mujoco.mj_fullM(model, data, self._full)
        mujoco.mj_rne(model, data, 0, self._bias)
        rows = self._full[self._cross] * (self.bounds.a / self.tau[:, None])
        bias = self._bias[self.kin.dof[:arm]] / self.tau
        self.matrix[m : m + arm, :n] = rows
        self.matrix[m + arm :, :n] = rows
        self.upper[n + 1 + m : n + 1 + m + arm] = self.tau_part - bias
        self.lower[n + 1 + m + arm :] = -self.tau_part - bias

    def _active(self, dual: Array, v: Array) -> tuple[str, ...]:
        """Names of the constraints with a multiplier."""
        bits = binding(dual, self.kind, v, self.bounds.v)
        return tuple(name for k, name in enumerate(KIND_NAMES) if bits >> k & 1) if bits else ()
