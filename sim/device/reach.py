"""Task ``reach`` on a device: observation, action and reward of ``sim.tasks.reach`` in torch, formula by formula."""

# Tensors where the protocols say array: numpy's, by name.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAssignmentType=false, reportAttributeAccessIssue=false
from __future__ import annotations

import torch
from torch import Tensor

from palmar.safety.robot import RobotModel
from palmar.sim.device.hand import Kinematics
from palmar.sim.interface import Seen, View
from palmar.sim.kinematics import Hand, matrix, rotation_vector
from palmar.sim.tasks.reach import JOINT_STEP, ReachConfig, ReachIO


class Reach:
    """B robots that bring their palms to poses; the goal is (B, 7): position [m], w-x-y-z."""

    action_dim = ReachIO.action_dim
    obs_dim = sum(ReachIO.obs_sizes)

    def __init__(self, config: ReachConfig, robot: RobotModel, batch: int, device: str):
        make = {"dtype": torch.float64, "device": device}
        self.config, self._n = config, robot.n_arm
        self.kinematics = Kinematics(robot, device)
        self._low = torch.tensor(robot.limits.q_min + 0.01, **make)
        self._high = torch.tensor(robot.limits.q_max - 0.01, **make)
        self._last_action = torch.zeros(batch, 7, **make)
        self.target = torch.zeros(batch, robot.n, **make)
        """Joint targets of the last action [rad], (B, n)."""

    def reset(self, mask: Tensor, q: Tensor) -> None:
        """Start episodes in the worlds of ``mask`` (B,) at rest at q (B, n)."""
        self.target.copy_(torch.where(mask[:, None], q, self.target))
        self._last_action.masked_fill_(mask[:, None], 0.0)

    def observe(self, seen: Seen) -> tuple[Tensor, Hand]:
        """Observation (B, d) float32, and where the hand is."""
        q, n, goal = seen.q, self._n, seen.goal
        hand = self.kinematics.hand(q)
        turn = rotation_vector(matrix(goal[:, 3:]) @ hand.rotation.transpose(1, 2))
        parts = (
            q[:, :n], seen.qd[:, :n], self.target[:, :n] - q[:, :n], goal[:, :3] - hand.palm, turn,
            hand.rotation[:, :, :2].reshape(-1, 6), self._last_action,
        )  # fmt: skip
        return torch.cat(parts, dim=1).float(), hand

    def joint_target(self, action: Tensor) -> Tensor:
        """Joint targets (B, n) [rad] to be reached one policy period from now."""
        self._last_action.copy_(action.clamp(-1.0, 1.0))
        moved = torch.cat(
            [self.target[:, : self._n] + JOINT_STEP * self._last_action, self.target[:, self._n :]], dim=1
        )
        self.target.copy_(torch.minimum(torch.maximum(moved, self._low), self._high))
        return self.target.clone()

    def reward(self, view: View, action: Tensor) -> Tensor:
        """(B,): nearness in position and angle, a bonus inside the tolerance, less effort."""
        dp, dw = self._errors(view.hand, view.goal)
        near = 0.5 * (1 - torch.tanh(4 * dp)) + 0.3 * (1 - torch.tanh(1.5 * dw))
        sharp = 0.4 * torch.exp(-((dp / 0.03) ** 2) - (dw / 0.25) ** 2)
        return near + sharp + 0.5 * self._inside(dp, dw) - 0.02 * (action.clamp(-1, 1) ** 2).mean(dim=1)

    def achieved(self, view: View) -> Tensor:
        """(B,) bool: inside the tolerance."""
        return self._inside(*self._errors(view.hand, view.goal))

    def failed(self, view: View) -> Tensor:
        """Episodes end by time."""
        return torch.zeros_like(view.t, dtype=torch.bool)

    def _inside(self, dp: Tensor, dw: Tensor) -> Tensor:
        return (dp < self.config.position) & (dw < self.config.angle)

    def _errors(self, hand: Hand, goal: Tensor) -> tuple[Tensor, Tensor]:
        turn = rotation_vector(matrix(goal[:, 3:]) @ hand.rotation.transpose(1, 2))
        return (goal[:, :3] - hand.palm).norm(dim=1), turn.norm(dim=1)
