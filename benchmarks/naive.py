"""The filter's QP as one writes it first, to compare with: binding calls per pair, numpy rows, OSQP, no verification.

It asks for the same acceleration as ``safety.qp``: same bounds, same barriers, same torque rows.  The bounds come from
the compiled ``bounds.box``, which is in its favour.  Nothing here asks whether the robot could still stop afterwards.
"""

from __future__ import annotations

import math

import mujoco
import numpy as np
from scipy import sparse

from palmar.safety.bounds import bounds_of, box
from palmar.safety.constraints import ConstraintSet
from palmar.safety.enforced import KeepBack, enforced
from palmar.safety.qp import SLACK, BarrierConfig
from palmar.safety.robot import RobotModel
from palmar.safety.types import ConfigError

Array = np.ndarray

OPEN = 1e30
"""OSQP's infinity."""


class NaiveQP:
    """One robot's QP with OSQP, warm started."""

    def __init__(
        self,
        robot: RobotModel,
        constraints: ConstraintSet,
        rows: int,
        *,
        barrier: BarrierConfig | None = None,
        keep: KeepBack | None = None,
        dt: float = 0.001,
        accuracy: float = 1e-4,
    ) -> None:
        """Prepare for a robot.

        Args:
            robot: The robot.
            constraints: Its constraint file; joint limits, self and table clearance, workspace and torque are used.
            rows: Barrier rows at most; further ones are left out.
            barrier: Shape of the barriers; None for the filter's defaults.
            keep: Kept back from clearances; None for the filter's defaults.
            dt: Tick [s].
            accuracy: OSQP's absolute and relative tolerance.

        Raises:
            ConfigError: If ``rows`` is negative.
        """
        import osqp

        if rows < 0:
            raise ConfigError(f"rows must be >= 0, got {rows}")
        self.robot, self.dt, self.rows, self.bar = robot, dt, rows, barrier or BarrierConfig()
        self.bounds = bounds_of(constraints.limits, constraints["joint_position"].params["buffer"])
        space = enforced(constraints, keep or KeepBack()).space
        self.own, self.low, self.lower, self.upper = space.self_limit, space.table_limit, space.lower, space.upper
        self.torque = 1.0 - constraints["joint_torque"].error / robot.limits.tau_max[: robot.n_arm]
        self.model = mujoco.MjModel.from_xml_string(robot.xml)
        self.model.opt.gravity[:] = 0.0
        self.data = mujoco.MjData(self.model)
        self.qpos = np.array([self.model.joint(j).qposadr[0] for j in robot.joints])
        self.dof = np.array([self.model.joint(j).dofadr[0] for j in robot.joints])
        self._find(self.model)
        n, m = robot.n, rows + 2 * robot.n_arm
        self.matrix, self.l, self.u = np.zeros((m, n + 1)), np.full(n + 1 + m, -OPEN), np.full(n + 1 + m, OPEN)
        self.matrix[rows:, n] = np.repeat([-SLACK, SLACK], robot.n_arm)
        self.l[n] = 0.0
        self.solver = osqp.OSQP()
        self.solver.setup(
            sparse.identity(n + 1, format="csc"),
            np.zeros(n + 1),
            sparse.csc_matrix(np.ones((n + 1 + m, n + 1)) * np.vstack([np.eye(n + 1), np.ones((m, n + 1))])),
            self.l,
            self.u,
            verbose=False,
            warm_starting=True,
            eps_abs=accuracy,
            eps_rel=accuracy,
        )

    def _find(self, model: mujoco.MjModel) -> None:
        """Look up once what the loops need of the model: ids, reaches and sizes."""
        robot, reach = self.robot, self.bar.reach
        arm = {int(model.joint(j).bodyid[0]) for j in robot.joints[: robot.n_arm]}
        self.pairs: list[tuple[int, int, int, int, float]] = []
        for one, two in robot.pairs:
            a, b = model.geom(one), model.geom(two)
            i, j = int(a.bodyid[0]), int(b.bodyid[0])
            far = reach if (_above(model, i) & arm) != (_above(model, j) & arm) else 0.2 * reach
            self.pairs.append((a.id, b.id, i, j, far + self.own))
        self.table: list[tuple[int, int, float, float]] = []
        for name in robot.table_geoms:
            g = model.geom(name)
            half = g.size[1] if g.type[0] == mujoco.mjtGeom.mjGEOM_CAPSULE else 0.0
            self.table.append((g.id, int(g.bodyid[0]), half, g.size[0]))
        self.palm = model.body(robot.palm_body).id

    def solve(self, q: Array, v: Array, a: Array, wanted: Array) -> tuple[bool, Array]:
        """Whether OSQP solved it, and the acceleration nearest to ``wanted`` for commands (q, v, a) [rad/s2], (n,)."""
        n, m, scale = self.robot.n, self.rows, self.bounds.a
        self.data.qpos[self.qpos], self.data.qvel[self.dof] = q, v
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_comPos(self.model, self.data)
        lo, hi = np.empty(n), np.empty(n)
        box(q, v, a, self.bounds, self.dt, lo, hi)
        self.matrix[:m] = 0.0
        self.l[n + 1 : n + 1 + m] = -OPEN
        k = 0
        for h, row in [*self._pairs(), *self._table(), *self._palm()]:
            most, least = np.maximum(row * lo, row * hi).sum(), np.minimum(row * lo, row * hi).sum()
            need = self._needed(h, float(row @ v))
            if k == m or least >= need:
                continue
            self.matrix[k, :n] = row * scale
            self.l[n + 1 + k] = min(need, most - 1e-6 * (most - least) - 1e-9)
            k += 1
        self.l[:n], self.u[:n] = lo / scale, hi / scale
        self._torque()
        # Column by column: the entry of the bounds, then those of the rows.
        entries = np.vstack([np.ones(n + 1), self.matrix]).T.ravel()
        self.solver.update(q=np.append(-wanted / scale, 0.0), Ax=entries, l=self.l, u=self.u)
        found = self.solver.solve(raise_error=False)
        if found.info.status != "solved":
            return False, lo
        return True, np.clip(found.x[:n] * scale, lo, hi)

    def _needed(self, h: float, dh: float) -> float:
        """Second derivative that the barrier asks for at distance h and its rate dh [m/s2]."""
        bar = self.bar
        w = math.sqrt(2.0 * bar.brake * max(h, 0.0) + bar.soft**2) - bar.soft
        return -bar.rate * (dh + w) - bar.brake / (w + bar.soft) * dh

    def _jacobian(self, point: Array, body: int) -> Array:
        """Jacobian of a point fixed to a body, (3, n)."""
        out = np.zeros((3, self.model.nv))
        mujoco.mj_jac(self.model, self.data, out, None, point, body)
        return out[:, self.dof]

    def _pairs(self) -> list[tuple[float, Array]]:
        """Room and gradient of every pair within reach."""
        out, ends, model = [], np.zeros(6), self.model
        for a, b, i, j, reach in self.pairs:
            d = mujoco.mj_geomDistance(model, self.data, a, b, reach, ends)
            if d >= reach or abs(d) < 1e-9:
                continue
            normal = (ends[3:] - ends[:3]) / d
            row = normal @ (self._jacobian(ends[3:], j) - self._jacobian(ends[:3], i))
            out.append((d - self.own - self.bar.buffer, row))
        return out

    def _table(self) -> list[tuple[float, Array]]:
        """Room and gradient of every geom near the table."""
        out = []
        for g, body, half, radius in self.table:
            axis = self.data.geom_xmat[g, 2::3]
            point = self.data.geom_xpos[g] - axis * (half if axis[2] >= 0.0 else -half)
            h = point[2] - radius - self.low - self.bar.buffer
            if h < self.bar.reach:
                out.append((h, self._jacobian(point, body)[2]))
        return out

    def _palm(self) -> list[tuple[float, Array]]:
        """Room and gradient of the palm's origin to every near side of the workspace."""
        palm = self.data.xpos[self.palm]
        jacobian, out = self._jacobian(palm, self.palm), []
        for i in range(3):
            out.append((palm[i] - self.lower[i] - self.bar.buffer, jacobian[i]))
            out.append((self.upper[i] - palm[i] - self.bar.buffer, -jacobian[i]))
        return [(h, row) for h, row in out if h < self.bar.reach]

    def _torque(self) -> None:
        """Rows ``|M x + c| <= tau_max``, softened."""
        n, m, arm, model, data = self.robot.n, self.rows, self.robot.n_arm, self.model, self.data
        mujoco.mj_makeM(model, data)
        mujoco.mj_comVel(model, data)
        full, bias = np.zeros((model.nv, model.nv)), np.zeros(model.nv)
        mujoco.mj_fullM(model, data, full)
        mujoco.mj_rne(model, data, 0, bias)
        tau = self.robot.limits.tau_max[:arm]
        rows = full[np.ix_(self.dof[:arm], self.dof)] * (self.bounds.a / tau[:, None])
        self.matrix[m : m + arm, :n], self.matrix[m + arm :, :n] = rows, rows
        self.u[n + 1 + m : n + 1 + m + arm] = self.torque - bias[self.dof[:arm]] / tau
        self.l[n + 1 + m + arm :] = -self.torque - bias[self.dof[:arm]] / tau


def _above(model: mujoco.MjModel, body: int) -> set[int]:
    """A body and those it hangs from."""
    out: set[int] = set()
    while body > 0:
        out.add(body)
        body = int(model.body_parentid[body])
    return out
