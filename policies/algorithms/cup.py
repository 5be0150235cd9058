"""CUP: a step that improves the reward, then one that brings the costs back while staying near.

Source:
    Yang et al., "Constrained Update Projection Approach to Safe Policy Optimization", NeurIPS 2022, algorithm 1: the
    improvement is PPO's clipped surrogate as in the authors' code, the projection is eq. 20.  Its factor
    (1 - gamma lambda) / (1 - gamma) is left to nu: our budgets are not discounted, our advantages in units of spread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from palmar.policies.algorithms.ppo import ClipConfig, improve, reward_only
from palmar.policies.rl.adam import Saved
from palmar.policies.rl.config import number
from palmar.policies.rl.learner import Space
from palmar.policies.rl.minibatches import Moved, descend
from palmar.policies.rl.multipliers import MultiplierConfig, Multipliers, unit_advantage
from palmar.policies.rl.on_policy import OnPolicyConfig, OnPolicyLearner


@dataclass(frozen=True)
class Config(MultiplierConfig, ClipConfig, OnPolicyConfig):
    """Improvement, then projection; each takes ``epochs`` passes over a rollout."""

    algorithm: Literal["cup"] = "cup"
    grad_norm: float = number(10.0, 1e-12)
    """Larger than elsewhere: the length of the projection's gradient is what nu says, and a cut would hide it."""


class Learner(OnPolicyLearner[Config]):
    """Improvement, then projection."""

    constrained = True

    def __init__(self, config: Config, space: Space):
        super().__init__(config, space)
        self.multipliers = Multipliers(config, self.budgets, floor=config.budget_floor)

    def learn(self) -> dict[str, float]:
        """Clipped steps on the reward; then, the multipliers moved, down the costs without going far."""
        c, batch = self.config, self.batch()
        scalars = improve(self, batch, reward_only(batch), c)
        if self.iteration >= c.warmup:
            self.multipliers.update(self.window.mean())
        nu = torch.as_tensor(self.multipliers.value, dtype=torch.float32)
        if not nu.any():
            return scalars
        cost = unit_advantage(batch.advantage, c.cost_floor)[:, 1:] @ nu
        with torch.no_grad():
            improved = self.actor(batch.obs), self.actor.log_std.detach().clone()

        def loss(moved: Moved) -> Tensor:
            return (moved.kl + moved.ratio * cost[moved.pick]).mean()

        projected = descend(self, batch, loss, c, begin=improved)
        return scalars | {f"projection/{name}": value for name, value in projected.items()}

    def weights(self) -> np.ndarray:
        """The multipliers."""
        return self.multipliers.value

    def parts(self) -> dict[str, Saved]:
        """The multipliers too."""
        return {**super().parts(), "multipliers": self.multipliers}
