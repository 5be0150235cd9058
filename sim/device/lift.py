"""Task ``lift`` on a device: observation, action and reward of ``sim.tasks.lift`` in torch, formula by formula."""

# Tensors where the protocols say array: numpy's, by name.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAssignmentType=false, reportAttributeAccessIssue=false
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from palmar.safety.robot import RobotModel
from palmar.sim.device.hand import Kinematics, arm_step
from palmar.sim.interface import Seen, View
from palmar.sim.kinematics import Hand, matrix, rotation_z
from palmar.sim.scene import GRASP
from palmar.sim.tasks.lift import BLOCKS, LiftConfig, LiftIO
from palmar.sim.tasks.palm import FINGER_OF, LEASH, N_ACTION, PALM_STEP, SYNERGY_STEP, YAW_STEP


class Lift:
    """B robots that lift the named block; the goal is its index, (B,) int64."""

    action_dim = LiftIO.action_dim
    obs_dim = sum(LiftIO.obs_sizes)

    def __init__(self, config: LiftConfig, robot: RobotModel, batch: int, device: str):
        self._make = {"dtype": torch.float64, "device": device}
        self.config, self._n = config, robot.n_arm
        self.kinematics = Kinematics(robot, device)
        home = self._of(robot.home)
        self._open, self._nominal = home[robot.n_arm :], self.kinematics.hand(home[None]).rotation[0]
        self._close = self._of([GRASP.close[j] for j in robot.joints[robot.n_arm :]])
        self._low, self._high = self._of(robot.limits.q_min + 0.01), self._of(robot.limits.q_max - 0.01)
        self._half = self._of([b.half_size for b in BLOCKS])
        self._round = torch.tensor([b.shape == "cylinder" for b in BLOCKS], device=device)
        self._rest = torch.tensor(
            [[j for j in range(len(BLOCKS)) if j != k] for k in range(len(BLOCKS))], device=device
        )
        self._finger = torch.as_tensor(FINGER_OF.copy(), device=device)
        self._palm, self._yaw = torch.zeros(batch, 3, **self._make), torch.zeros(batch, **self._make)
        self._share = torch.zeros(batch, 4, **self._make)
        self._last_action = torch.zeros(batch, N_ACTION, **self._make)
        self.target = home.expand(batch, -1).clone()
        """Joint targets of the last action [rad], (B, n)."""
        self._seen_palm = torch.zeros(batch, 3, **self._make)

    def _of(self, values: object) -> Tensor:
        return torch.tensor(np.asarray(values), **self._make)

    def reset(self, mask: Tensor, q: Tensor) -> None:
        """Start episodes in the worlds of ``mask`` (B,) at rest at q (B, n)."""
        self.target.copy_(torch.where(mask[:, None], q, self.target))
        palm = self.kinematics.hand(self.target).palm
        self._palm.copy_(torch.where(mask[:, None], palm, self._palm))
        self._yaw.masked_fill_(mask, 0.0)
        self._share.masked_fill_(mask[:, None], 0.0)
        self._last_action.masked_fill_(mask[:, None], 0.0)

    def observe(self, seen: Seen) -> tuple[Tensor, Hand]:
        """Observation (B, d) float32, and where the hand is."""
        q, target = seen.q, seen.goal
        hand = self.kinematics.hand(q)
        self._seen_palm.copy_(hand.palm)
        block, axes = _picked(seen.position, target), matrix(_picked(seen.quaternion, target))
        half, is_round = self._half[target], self._round[target]
        tips = hand.tips - block[:, None]
        gaps = surface_distance(tips @ axes, half, is_round) - self.kinematics.tip_radius
        yaw4 = 4 * torch.atan2(axes[:, 1, 0], axes[:, 0, 0])
        yaw4 = torch.where(is_round, torch.zeros_like(yaw4), yaw4)
        rest = self._rest[target]
        others = seen.position.gather(1, rest[..., None].expand(-1, -1, 3)) - block[:, None]
        parts = (
            q, seen.qd, self.target - q, block - hand.palm, hand.rotation[:, :, :2].reshape(-1, 6), block,
            torch.stack([torch.cos(yaw4), torch.sin(yaw4)], 1), axes[:, :, 2], tips.reshape(-1, 12), gaps,
            self._last_action, half, is_round[:, None].double(), others.reshape(len(q), -1), self._palm - hand.palm,
            self._yaw[:, None], self._share,
        )  # fmt: skip
        return torch.cat(parts, dim=1).float(), hand

    def joint_target(self, action: Tensor) -> Tensor:
        """Joint targets (B, n) [rad] to be reached one policy period from now; after ``observe``."""
        self._last_action.copy_(action.clamp(-1.0, 1.0))
        a, palm = self._last_action, self._seen_palm
        wanted = self._palm + PALM_STEP * a[:, :3]
        self._palm.copy_(torch.minimum(torch.maximum(wanted, palm - LEASH), palm + LEASH))
        self._yaw.copy_((self._yaw + YAW_STEP * a[:, 3]).clamp(-1.6, 1.6))
        self._share.copy_((self._share + SYNERGY_STEP * a[:, 4:]).clamp(0.0, 1.15))
        commanded = self.kinematics.hand(self.target)  # not the measured arm: its servo lags 0.1 s
        dq = arm_step(commanded, self._palm, rotation_z(self._yaw) @ self._nominal)
        arm = self.target[:, : self._n] + dq.clamp(-0.15, 0.15)
        fingers = self._open + self._share.index_select(1, self._finger) * (self._close - self._open)
        moved = torch.cat([arm, fingers], dim=1)
        self.target.copy_(torch.minimum(torch.maximum(moved, self._low), self._high))
        return self.target.clone()

    def reward(self, view: View, action: Tensor) -> Tensor:
        """(B,): approach, opposed pinch, height, as in ``tasks.lift``."""
        hand, target = view.hand, view.goal
        block, axes = _picked(view.position, target), matrix(_picked(view.quaternion, target))
        half, is_round = self._half[target], self._round[target]
        to = hand.tips - block[:, None]
        gaps = (surface_distance(to @ axes, half, is_round) - view.tip_radius).clamp(min=0.0)
        pinch = 0.5 * hand.tips[:, 3] + 0.25 * (hand.tips[:, 0] + hand.tips[:, 1])
        nearest = gaps[:, :3].argmin(dim=1)
        thumb, finger = to[:, 3, :2], _picked(to, nearest)[:, :2]
        cosine = (thumb * finger).sum(1) / (thumb.norm(dim=1) * finger.norm(dim=1) + 1e-6)
        near = gaps.gather(1, nearest[:, None])[:, 0]
        g = torch.exp(-gaps[:, 3] / 0.01) * torch.exp(-near / 0.01) * (-cosine).clamp(0, 1)
        h = (block[:, 2] - half[:, 2]).clamp(0.0, 0.12)
        reach = 1 - torch.tanh(8 * (pinch - block).norm(dim=1))
        effort = (action.clamp(-1, 1) ** 2).mean(dim=1)
        return (
            0.15 * reach
            + 0.25 * g
            + h / 0.12 * (0.3 + 0.7 * g)
            + 0.6 * (h > self.config.height).double()
            - 0.02 * effort
        )

    def achieved(self, view: View) -> Tensor:
        """(B,) bool: the named block, and only that one, is up."""
        rise = view.position[..., 2] - self._half[:, 2]
        named = rise.gather(1, view.goal[:, None])[:, 0]
        others = rise.scatter(1, view.goal[:, None], 0.0).amax(dim=1)
        return (named >= self.config.height) & (others < 0.03)

    def failed(self, view: View) -> Tensor:
        """Episodes end by time."""
        return torch.zeros_like(view.t, dtype=torch.bool)


def _picked(values: Tensor, index: Tensor) -> Tensor:
    """``values[b, index[b]]`` of (B, m, k), (B, k)."""
    return values.gather(1, index[:, None, None].expand(-1, 1, values.shape[2]))[:, 0]


def surface_distance(points: Tensor, half: Tensor, is_round: Tensor) -> Tensor:
    """Signed distance of points (B, k, 3) to boxes or upright cylinders [m], (B, k); ``tasks.lift``'s."""
    d = points.abs() - half[:, None]
    radial = torch.hypot(points[..., 0], points[..., 1]) - half[:, None, 0]
    d_round = torch.stack([radial, torch.full_like(radial, -1.0), d[..., 2]], dim=-1)
    d = torch.where(is_round[:, None, None], d_round, d)
    return d.clamp(min=0).norm(dim=-1) + d.amax(dim=-1).clamp(max=0)
