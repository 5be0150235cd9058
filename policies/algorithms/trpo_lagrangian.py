"""TRPO-Lagrangian: natural steps of a given KL divergence on the reward, less what the costs weigh.

Multipliers follow the episodes that ended, as in ``ppo_lagrangian``; where that one clips, this one takes the step
``sqrt(2 delta / g.H^-1 g) H^-1 g`` and searches along it.

Source:
    Schulman et al., "Trust Region Policy Optimization", ICML 2015, eq. 14 and appendix C; Ray, Achiam, Amodei,
    "Benchmarking Safe Exploration in Deep RL", 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from palmar.policies.rl.adam import Saved
from palmar.policies.rl.learner import Space
from palmar.policies.rl.multipliers import MultiplierConfig, Multipliers, mixed_advantage
from palmar.policies.rl.on_policy import OnPolicyConfig, OnPolicyLearner
from palmar.policies.rl.trust_region import Near, TrustConfig, Wanted, fit, search


@dataclass(frozen=True)
class Config(MultiplierConfig, TrustConfig, OnPolicyConfig):
    """TRPO with a multiplier per constraint."""

    algorithm: Literal["trpo_lagrangian"] = "trpo_lagrangian"


class Learner(OnPolicyLearner[Config]):
    """TRPO with a multiplier per constraint."""

    constrained = True

    def __init__(self, config: Config, space: Space):
        super().__init__(config, space)
        self.multipliers = Multipliers(config, self.budgets, floor=config.budget_floor)

    def learn(self) -> dict[str, float]:
        """Move the multipliers, then one natural step on the mixed advantage."""
        c = self.config
        if self.iteration >= c.warmup:
            self.multipliers.update(self.window.mean())
        batch = self.batch()
        mixed = mixed_advantage(batch.advantage, self.multipliers.value, c.cost_floor)
        wanted = Wanted(mixed.unsqueeze(-1), now=torch.zeros(0))
        near = Near.of(self, batch, wanted, c)
        gain = near.rows()[0]
        step = near.step(np.sqrt(2 * c.kl_limit) * gain / max(np.linalg.norm(gain), 1e-30))
        return search(self, batch, wanted, near, step, c) | fit(self, batch)

    def weights(self) -> np.ndarray:
        """The multipliers."""
        return self.multipliers.value

    def parts(self) -> dict[str, Saved]:
        """The multipliers too."""
        return {**super().parts(), "multipliers": self.multipliers}
