"""PPO: clipped policy steps on the reward's advantage.  Costs are measured, and nothing is done about them.

Source:
    Schulman et al., "Proximal Policy Optimization Algorithms", 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from palmar.policies.rl.config import number
from palmar.policies.rl.minibatches import Moved, StepConfig, descend
from palmar.policies.rl.multipliers import mixed_advantage
from palmar.policies.rl.on_policy import Batch, OnPolicyConfig, OnPolicyLearner


@dataclass(frozen=True)
class ClipConfig(StepConfig):
    """The clipped step."""

    clip: float = number(0.2, 1e-9, 1)


@dataclass(frozen=True)
class Config(ClipConfig, OnPolicyConfig):
    """PPO."""

    algorithm: Literal["ppo"] = "ppo"


class Learner(OnPolicyLearner[Config]):
    """PPO."""

    def learn(self) -> dict[str, float]:
        """Clipped steps on the standardised advantage of the reward."""
        batch = self.batch()
        return improve(self, batch, reward_only(batch), self.config)


def reward_only(batch: Batch) -> Tensor:
    """The reward's advantage, centred and in units of its spread, (N,)."""
    return mixed_advantage(batch.advantage, np.zeros(batch.advantage.shape[1] - 1), 1e-8)


def improve(learner: OnPolicyLearner, batch: Batch, advantage: Tensor, config: ClipConfig) -> dict[str, float]:
    """Clipped steps of the actor on ``advantage`` (N,), each with one of the critics; scalars for the log."""
    clipped: list[float] = []

    def loss(moved: Moved) -> Tensor:
        clipped.append(((moved.ratio - 1).abs() > config.clip).float().mean().item())
        return clipped_loss(moved, advantage, config.clip)

    return descend(learner, batch, loss, config) | {"clipped": float(np.mean(clipped))}


def clipped_loss(moved: Moved, advantage: Tensor, clip: float) -> Tensor:
    """What is lost on ``advantage`` (N,) at least, where moving further than ``clip`` earns nothing (eq. 7)."""
    ratio, a = moved.ratio, advantage[moved.pick]
    return -torch.minimum(ratio * a, ratio.clamp(1 - clip, 1 + clip) * a).mean()
