"""FOCOPS: the best policy near the present one in closed form, then the nearest that the network can be.

Within a KL divergence of the present policy the best mix of reward and costs is ``pi_k exp((A_R - nu A_C) / t)``, t the
temperature; the actor steps towards it, at those states alone where it is still near the present one.

Source:
    Zhang, Vuong, Ross, "First Order Constrained Optimization in Policy Space", NeurIPS 2020: gradient of eq. 11, the
    indicator of eq. 12, and nu by dual ascent (ours may be damped).  Ours divides A_R - nu A_C by 1 + nu, advantages
    being in units of their spread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from palmar.policies.networks import kl_divergence
from palmar.policies.rl.adam import Saved
from palmar.policies.rl.config import number
from palmar.policies.rl.learner import Space
from palmar.policies.rl.minibatches import Moved, StepConfig, descend
from palmar.policies.rl.multipliers import MultiplierConfig, Multipliers, mixed_advantage
from palmar.policies.rl.on_policy import OnPolicyConfig, OnPolicyLearner


@dataclass(frozen=True)
class Config(MultiplierConfig, StepConfig, OnPolicyConfig):
    """First-order constrained optimisation in policy space."""

    algorithm: Literal["focops"] = "focops"
    temperature: float = number(1.5, 1e-6)
    """The paper's lambda: how much a unit of KL divergence costs."""
    kl_state: float = number(0.02, 1e-12)
    """The paper's delta: a state whose policy is further than this from the present one pulls no more."""


class Learner(OnPolicyLearner[Config]):
    """First-order constrained optimisation in policy space."""

    constrained = True

    def __init__(self, config: Config, space: Space):
        super().__init__(config, space)
        self.multipliers = Multipliers(config, self.budgets, floor=config.budget_floor)

    def learn(self) -> dict[str, float]:
        """Move the multipliers, then steps towards the best policy nearby."""
        c = self.config
        if self.iteration >= c.warmup:
            self.multipliers.update(self.window.mean())
        batch = self.batch()
        advantage = mixed_advantage(batch.advantage, self.multipliers.value, c.cost_floor)

        def loss(moved: Moved) -> Tensor:
            back = kl_divergence(moved.mean, moved.log_std, batch.mean[moved.pick], batch.log_std)
            near = (back.detach() <= c.kl_state).to(back.dtype)
            return ((back - moved.ratio * advantage[moved.pick] / c.temperature) * near).mean()

        return descend(self, batch, loss, c)

    def weights(self) -> np.ndarray:
        """The multipliers."""
        return self.multipliers.value

    def parts(self) -> dict[str, Saved]:
        """The multipliers too."""
        return {**super().parts(), "multipliers": self.multipliers}
