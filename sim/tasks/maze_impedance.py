"""Cartesian stiffness of a tool, made by joints that each have a stiffness of their own.

A Cartesian impedance controller asks for the joint stiffness ``J^T K J``, a full matrix.  Our servos, and the
``stiffness`` of a ``Command``, are one number per joint.  So the problem is turned around: *compliances* add up.
With joint compliances ``c >= 0`` a tool with Jacobian ``J`` gives way by ``J diag(c) J^T F``, which is linear in
``c``.  The c that comes nearest to the wanted give in x and y, with as little coupling to z as there can be, is a
least-squares problem with bounds in seven numbers.  Every answer is passive, being a positive diagonal stiffness.

How near it comes is measured in ``tests/sim/test_maze.py`` and told in ``docs/tasks/maze.md``.
"""

from __future__ import annotations

import mujoco
import numpy as np
from numba import njit

from palmar.safety.robot import RobotModel
from palmar.safety.types import ConfigError

Array = np.ndarray
SOFTEST = 8.0
"""Least stiffness of an arm joint [N m/rad]."""
COUPLED, UPRIGHT, TILTED = 0.5, 0.1, 0.02
"""Weights of give in z under a force in the plane, of give in z, and of turning, beside 1 for the plane."""
SWEEPS = 60


class CartesianStiffness:
    """Joint stiffness and damping of B robots that give a tool a stiffness in x and y.

    Args:
        robot: Its model supplies the greatest stiffness of each joint, its own servo's, and inertias.
    """

    def __init__(self, robot: RobotModel):
        model = mujoco.MjModel.from_xml_string(robot.xml)
        data = mujoco.MjData(model)
        act = np.array([model.actuator(j).id for j in robot.joints])
        data.qpos[[model.joint(j).qposadr[0] for j in robot.joints]] = robot.home
        mujoco.mj_forward(model, data)
        full = np.zeros((model.nv, model.nv))
        mujoco.mj_fullM(model, data, full)
        dof = np.array([model.joint(j).dofadr[0] for j in robot.joints])
        self._n = robot.n_arm
        self._inertia = np.diag(full)[dof[: self._n]]
        self._servo, self._drag = model.actuator_gainprm[act, 0], -model.actuator_biasprm[act, 2]
        self._stiffest = self._servo[: self._n]

    def joints(self, jacobian: Array, stiffness: Array) -> tuple[Array, Array]:
        """Stiffness [N m/rad] and damping [N m s/rad] of all joints, (B, n) each.

        Fingers keep their servo's; arm joints are critically damped for their own inertia at the rest pose.

        Args:
            jacobian: Of the tool's point, d(position, rotation vector) / d(arm joints), (B, 6, n_arm).
            stiffness: Wanted in world x and y [N/m], (B, 2), > 0.

        Raises:
            ConfigError: If a wanted stiffness is not positive and finite.
        """
        if not (np.isfinite(stiffness).all() and (stiffness > 0).all()):
            raise ConfigError(f"stiffness must be finite and > 0, got {np.min(stiffness)} to {np.max(stiffness)}")
        arm = 1.0 / self._compliance(jacobian, 1.0 / stiffness)
        k, d = np.tile(self._servo, (len(arm), 1)), np.tile(self._drag, (len(arm), 1))
        k[:, : self._n], d[:, : self._n] = arm, 2.0 * np.sqrt(arm * self._inertia)
        return k, d

    def _compliance(self, j: Array, give: Array) -> Array:
        """Joint compliances (B, n_arm) [rad/(N m)]: least squares within bounds."""
        x, y, z = j[:, 0], j[:, 1], j[:, 2]
        gx, gy, most = give[:, :1], give[:, 1:], give.max(axis=1, keepdims=True)
        rows = np.stack(
            [
                x * x / gx, y * y / gy, x * y / np.sqrt(gx * gy), COUPLED * x * z / gx, COUPLED * y * z / gy,
                UPRIGHT * z * z / most, *(TILTED * j[:, k] ** 2 / most for k in (3, 4, 5)),
            ],
            axis=1,
        )  # fmt: skip
        gram, wanted = rows.swapaxes(1, 2) @ rows, rows[:, 0] + rows[:, 1]
        return _bounded_least_squares(gram, wanted, 1.0 / self._stiffest, 1.0 / SOFTEST)


@njit(cache=True)
def _bounded_least_squares(gram: Array, wanted: Array, low: Array, high: float) -> Array:
    """Minimum of c gram c / 2 - wanted c with low <= c <= high, (B, n): SWEEPS of coordinate descent."""
    c = np.empty_like(wanted)
    for b in range(len(wanted)):
        c[b] = low
        for _ in range(SWEEPS):
            for i in range(len(low)):
                slope = wanted[b, i] - gram[b, i] @ c[b]
                c[b, i] = min(max(c[b, i] + slope / max(gram[b, i, i], 1e-12), low[i]), high)
    return c


def point_jacobian(jacobian: Array, offset: Array) -> Array:
    """Jacobian (B, 6, n) of a point that moves with the palm, ``offset`` (B, 3) from its origin in world axes [m]."""
    turned = np.cross(jacobian[:, 3:], offset[:, :, None], axis=1)  # w x r per joint
    return np.concatenate([jacobian[:, :3] + turned, jacobian[:, 3:]], axis=1)
