"""RCPO: PPO on ``reward - sum_k lambda_k cost_k``, the weights raised slowly while a budget is overrun.

One critic learns the value of the penalised reward; the critics of the costs are fitted but not used.  It can only
follow multipliers that move more slowly than it learns, so they are plain dual ascent with a small step (the paper's
third time scale).  lambda is reward per unit of cost: its step and its largest value are in the task's own units.

Source:
    Tessler, Mankowitz, Mannor, "Reward Constrained Policy Optimization", ICLR 2019, algorithm 1, eq. 6 and 10.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from palmar.policies.algorithms.ppo import ClipConfig, improve, reward_only
from palmar.policies.rl.adam import Saved
from palmar.policies.rl.config import number
from palmar.policies.rl.learner import Space
from palmar.policies.rl.multipliers import DualConfig, Multipliers
from palmar.policies.rl.on_policy import OnPolicyConfig, OnPolicyLearner


@dataclass(frozen=True)
class Config(DualConfig, ClipConfig, OnPolicyConfig):
    """PPO on a reward that pays for costs at a slowly moving price."""

    algorithm: Literal["rcpo"] = "rcpo"
    multiplier_p: float = number(0.0, 0)
    """Zero in the paper."""
    multiplier_i: float = number(0.02, 0)
    """Reward per unit of cost, per relative overrun and rollout: a small step."""
    multiplier_max: float = number(100.0, 1e-9)
    """Reward per unit of cost."""


class Learner(OnPolicyLearner[Config]):
    """PPO on a reward that pays for costs at a slowly moving price."""

    constrained = True

    def __init__(self, config: Config, space: Space):
        super().__init__(config, space)
        self.multipliers = Multipliers(config, self.budgets, floor=config.budget_floor)

    def learn(self) -> dict[str, float]:
        """Move the multipliers, then clipped steps on the penalised reward."""
        if self.iteration >= self.config.warmup:
            self.multipliers.update(self.window.mean())
        price = torch.as_tensor(self.multipliers.value, dtype=torch.float32)
        batch = self.batch(self.rollout.reward - self.rollout.cost @ price)
        return improve(self, batch, reward_only(batch), self.config)

    def weights(self) -> np.ndarray:
        """The multipliers."""
        return self.multipliers.value

    def parts(self) -> dict[str, Saved]:
        """The multipliers too."""
        return {**super().parts(), "multipliers": self.multipliers}
