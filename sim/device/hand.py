"""Where palm and fingertips are, on a device: ``sim.kinematics`` in torch, with static shapes and no host read."""

# Tensors where the protocols say array: numpy's, by name.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAssignmentType=false, reportAttributeAccessIssue=false
from __future__ import annotations

import mujoco
import torch
from torch import Tensor

from palmar.safety import batched_tree, geometry
from palmar.safety.robot import RobotModel
from palmar.sim.kinematics import DAMPING, Hand, rotation_vector


class Kinematics:
    """Forward kinematics of B robots of one model, float64."""

    def __init__(self, robot: RobotModel, device: str):
        kin = geometry.Kinematics.from_model(robot)
        like = torch.zeros(1, dtype=torch.float64, device=device)
        self._links = batched_tree.converted(batched_tree.links_of(kin), like)
        self._parent, self._palm, self._n_arm = kin.tree.parent.tolist(), kin.tree.palm, robot.n_arm
        self._tips = torch.tensor([kin.geoms.index(g) for g in robot.tip_geoms], device=device)
        model = mujoco.MjModel.from_xml_string(robot.xml)
        sizes = [model.geom(g).size[0] for g in robot.tip_geoms]
        self.tip_radius = torch.tensor(sizes, dtype=torch.float64, device=device)
        """Radius of each fingertip [m], (4,)."""

    def hand(self, q: Tensor) -> Hand:
        """Palm, fingertips and Jacobian at joint positions q (B, n) [rad]."""
        at = batched_tree.place(self._links, self._parent, q)
        palm, screw = at.p[:, self._palm], at.screw[:, : self._n_arm]
        axis = screw[..., :3]
        linear = torch.linalg.cross(axis, palm[:, None].expand_as(axis)) + screw[..., 3:]  # axis x (palm - anchor)
        return Hand(
            palm=palm,
            rotation=at.r[:, self._palm],
            tips=at.ends.index_select(1, self._tips).mean(dim=2),
            jacobian=torch.cat([linear, axis], dim=-1).transpose(1, 2),
        )


def arm_step(hand: Hand, palm: Tensor, rotation: Tensor) -> Tensor:
    """Joint displacement of the arm that brings the palm nearer to a pose, (B, n_arm) [rad]; ``kinematics.arm_step``.

    The 6 x 6 system is positive definite, so elimination needs no pivots: ``torch.linalg.solve`` asks the host
    whether it worked.
    """
    error = torch.cat([palm - hand.palm, rotation_vector(rotation @ hand.rotation.transpose(1, 2))], dim=1)
    j: Tensor = hand.jacobian
    gram = j @ j.transpose(1, 2) + DAMPING**2 * torch.eye(6, dtype=j.dtype, device=j.device)
    rows = torch.cat([gram, error[..., None]], dim=2)  # (B, 6, 7)
    for k in range(6):
        pivot = rows[:, k : k + 1] / rows[:, k : k + 1, k : k + 1]
        rows = rows - rows[:, :, k : k + 1] * pivot
        rows = torch.cat([rows[:, :k], pivot, rows[:, k + 1 :]], dim=1)
    return (j.transpose(1, 2) @ rows[..., 6:])[..., 0]
