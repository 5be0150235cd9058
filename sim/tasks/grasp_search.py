"""Search for a collision-free three-finger pinch: where ``lift`` takes its open and closed hand from.

Least squares over the palm pose and the 16 finger joints with random restarts: thumb on one face of a 5 cm
block, index and middle fingertip beside each other on the opposite one, every other link of the hand clear of
the block, the table and each other.  Run ``python -m palmar.sim.tasks.grasp_search`` to repeat it.
"""

from __future__ import annotations

import argparse
import json

import mujoco
import numpy as np
from scipy.optimize import OptimizeResult, least_squares
from scipy.spatial.transform import Rotation

from palmar.safety.robot import RobotModel
from palmar.sim.robots import load_robot

Array = np.ndarray
HALF = 0.025
"""Half width of the block grasped [m]."""
MARGIN = 0.03
"""Distance wanted from the ends of the joints [rad]."""
CLEAR = 0.006
"""Distance wanted between links, and of links from the table [m]."""


class Pinch:
    """Residuals of a posture.  Block frame: origin at its centre, x the grasp axis, z up."""

    def __init__(self, robot: RobotModel):
        self.robot = robot
        self.model = mujoco.MjModel.from_xml_string(robot.xml)
        self.data = mujoco.MjData(self.model)
        m = self.model
        hand = robot.joints[robot.n_arm :]
        self.adr = np.array([m.joint(j).qposadr[0] for j in hand])
        self.low, self.high = (
            robot.limits.q_min[robot.n_arm :] + 0.03,
            robot.limits.q_max[robot.n_arm :] - 0.03,
        )
        self.palm = m.body(robot.palm_body).id
        self.tips = np.array([m.geom(g).id for g in robot.tip_geoms])
        own = [g for g in range(m.ngeom) if m.geom_group[g] == 3]
        self.hand_geoms = np.array([g for g in own if not m.body(m.geom_bodyid[g]).name.startswith("fr3")])
        self.wrist = np.array([g for g in own if m.body(m.geom_bodyid[g]).name in ("fr3_link6", "fr3_link7")])
        in_hand = set(self.hand_geoms.tolist())
        self.pairs = [
            (m.geom(a).id, m.geom(b).id) for a, b in robot.pairs if m.geom(a).id in in_hand and m.geom(b).id in in_hand
        ]
        self.radius = float(m.geom_size[self.tips[0], 0])

    def place(self, pose: Array, q: Array) -> tuple[Array, Array]:
        """Positions and z-axes of all geoms in the block frame for palm pose (rotvec, position) and hand q."""
        self.data.qpos[self.adr] = q
        mujoco.mj_kinematics(self.model, self.data)
        r_palm = self.data.xmat[self.palm].reshape(3, 3)
        turn = Rotation.from_rotvec(pose[:3]).as_matrix() @ r_palm.T
        x = (self.data.geom_xpos - self.data.xpos[self.palm]) @ turn.T + pose[3:]
        axis = self.data.geom_xmat.reshape(-1, 3, 3)[:, :, 2] @ turn.T
        return x, axis

    def clearances(self) -> Array:
        """Distances of the hand's own pairs for the posture last placed [m]."""
        fromto = np.zeros(6)
        return np.array([mujoco.mj_geomDistance(self.model, self.data, a, b, 0.05, fromto) for a, b in self.pairs])

    def residuals(self, pose: Array, q: Array, inside: float) -> Array:
        """Tips at ``inside`` metres beneath the faces; hinge losses for everything that may not touch."""
        x, axis = self.place(pose, q)
        reach = HALF + self.radius - inside
        wanted = {0: (reach, 0.0165, 0.006), 1: (reach, -0.0165, 0.006), 3: (-reach, 0.0, 0.006)}
        tip = np.concatenate([(x[self.tips[k]] - np.array(p)) / 0.001 for k, p in wanted.items()])
        own = np.minimum(self.clearances() - CLEAR, 0) / 0.0005
        lowest = x[:, 2] - np.abs(axis[:, 2]) * self.model.geom_size[:, 1] - self.model.geom_size[:, 0]
        moving = np.concatenate([self.hand_geoms, self.wrist])
        table = np.minimum(lowest[moving] + HALF - 0.010, 0) / 0.0005
        others = np.setdiff1d(self.hand_geoms, self.tips[[0, 1, 3]])
        block = np.minimum(self._block_gap(x, axis, others) - 0.012, 0) / 0.001
        block = block * (inside <= 0)  # closing squeezes a block that gives way to the tips only
        away = np.minimum(x[self.tips[2], 2:] - 0.07, 0) / 0.003  # the ring finger stays out of the way
        ends = np.concatenate([np.minimum(q - self.low, 0), np.minimum(self.high - q, 0)]) / 0.01
        down = Rotation.from_rotvec(pose[:3]).as_matrix() @ self._flange_axis()
        tilt = np.array([min(-down[2] - np.cos(np.deg2rad(40)), 0.0)]) / 0.02
        return np.concatenate([tip, own, table, block, away, ends, tilt, 0.02 * (q - self._relaxed())])

    def _block_gap(self, x: Array, axis: Array, geoms: Array) -> Array:
        """Distance from capsules to the block, at three points of each [m]."""
        s = self.model.geom_size[geoms]
        points = x[geoms][:, None] + axis[geoms][:, None] * (s[:, 1:2] * np.array([-1.0, 0.0, 1.0]))[..., None]
        d = np.abs(points) - HALF
        gap = np.linalg.norm(np.maximum(d, 0), axis=-1) + np.minimum(d.max(-1), 0)
        return gap.min(1) - s[:, 0]

    def _flange_axis(self) -> Array:
        """The flange's outward axis in the palm frame."""
        flange = self.model.site("flange").id
        z = self.data.site_xmat[flange].reshape(3, 3)[:, 2]
        return self.data.xmat[self.palm].reshape(3, 3).T @ z

    def _relaxed(self) -> Array:
        return 0.5 * (self.low + self.high) * 0.5


def search(robot: RobotModel, *, tries: int, seed: int) -> list[dict]:
    """Grasps found, best first: palm pose in the block frame, and hand joints open, touching and closed."""
    pinch, rng, found = Pinch(robot), np.random.default_rng(seed), []
    for _ in range(tries):
        # SciPy renames this argument to rng in a decorator and accepts both; rng would draw other rotations.
        turn = Rotation.random(random_state=int(rng.integers(1 << 31)))  # pyright: ignore[reportCallIssue]
        pose0 = np.concatenate([turn.as_rotvec(), [0, 0, 0.12]])
        q0 = rng.uniform(pinch.low, pinch.high)
        x0 = np.concatenate([pose0, np.clip(q0, pinch.low, pinch.high)])
        fit = least_squares(lambda x: pinch.residuals(x[:6], x[6:], 0.0), x0, max_nfev=60, loss="linear")
        if fit.cost > 40.0:
            continue
        pose, q = fit.x[:6], fit.x[6:]
        open_, close = (_posture(pinch, pose, q, inside) for inside in (-0.030, 0.015))
        cost = float(fit.cost + open_.cost + close.cost)
        clear = []
        for posture in (open_.x, q, close.x):
            pinch.place(pose, posture)
            clear.append(float(pinch.clearances().min()))
        found.append({"cost": cost, "clear": clear, "pose": pose.tolist(), "open": open_.x.tolist(),
                      "touch": q.tolist(), "close": close.x.tolist()})  # fmt: skip
        print(json.dumps({"cost": round(cost, 2), "clear": clear}), flush=True)
    return sorted(found, key=lambda g: g["cost"])


def _posture(pinch: Pinch, pose: Array, q: Array, inside: float) -> OptimizeResult:
    """Fingers at another depth with the palm at ``pose`` and the ring finger as in q."""
    fit = least_squares(lambda x: pinch.residuals(pose, _with_ring(x, q), inside), q, max_nfev=40)
    fit.x = _with_ring(fit.x, q)
    return fit


def _with_ring(q: Array, still: Array) -> Array:
    """Posture q with the ring finger of ``still``."""
    return np.concatenate([q[:8], still[8:12], q[12:]])


def main() -> None:
    """Print the best grasps as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for grasp in search(load_robot(), tries=args.tries, seed=args.seed)[:5]:
        print(json.dumps(grasp))


if __name__ == "__main__":
    main()
