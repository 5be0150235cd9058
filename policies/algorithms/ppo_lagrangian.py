"""PPO-Lagrangian: the reward, while the mean cost of an episode stays within each budget.

``max_theta min_{lambda >= 0} J_R - sum_k lambda_k (J_k - d_k)``: multipliers follow the episodes that ended, *before*
the policy moves; the policy takes PPO's clipped steps on advantages mixed with them.

Source:
    Ray, Achiam, Amodei, "Benchmarking Safe Exploration in Deep RL", 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from palmar.policies.algorithms.ppo import ClipConfig, improve
from palmar.policies.rl.adam import Saved
from palmar.policies.rl.learner import Space
from palmar.policies.rl.multipliers import MultiplierConfig, Multipliers, mixed_advantage
from palmar.policies.rl.on_policy import OnPolicyConfig, OnPolicyLearner


@dataclass(frozen=True)
class Config(MultiplierConfig, ClipConfig, OnPolicyConfig):
    """PPO with a multiplier per constraint."""

    algorithm: Literal["ppo_lagrangian"] = "ppo_lagrangian"


class Learner(OnPolicyLearner[Config]):
    """PPO with a multiplier per constraint."""

    constrained = True

    def __init__(self, config: Config, space: Space):
        super().__init__(config, space)
        self.multipliers = Multipliers(config, self.budgets, floor=config.budget_floor)

    def learn(self) -> dict[str, float]:
        """Move the multipliers, then clipped steps on the mixed advantage."""
        if self.iteration >= self.config.warmup:
            self.multipliers.update(self.window.mean())
        batch = self.batch()
        advantage = mixed_advantage(batch.advantage, self.multipliers.value, self.config.cost_floor)
        return improve(self, batch, advantage, self.config)

    def weights(self) -> np.ndarray:
        """The multipliers."""
        return self.multipliers.value

    def parts(self) -> dict[str, Saved]:
        """The multipliers too."""
        return {**super().parts(), "multipliers": self.multipliers}
