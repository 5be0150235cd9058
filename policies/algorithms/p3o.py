"""P3O: PPO with an exact penalty on the overrun that a moved policy is expected to have.

No multiplier is learned: with weights kappa above the multipliers of the optimum, the minimum of
``-L_R(theta) + sum_k kappa_k max(0, overrun_k(theta))`` is the constrained optimum itself.

Source:
    Zhang et al., "Penalized Proximal Policy Optimization for Safe Reinforcement Learning", IJCAI 2022, eq. 10-12.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from palmar.policies.algorithms.ppo import ClipConfig, clipped_loss, improve, reward_only
from palmar.policies.rl.config import number, per_cost
from palmar.policies.rl.forecast import forecast
from palmar.policies.rl.learner import Space
from palmar.policies.rl.minibatches import Moved, descend
from palmar.policies.rl.multipliers import TargetConfig
from palmar.policies.rl.on_policy import OnPolicyConfig, OnPolicyLearner


@dataclass(frozen=True)
class Config(TargetConfig, ClipConfig, OnPolicyConfig):
    """PPO with exact penalties."""

    algorithm: Literal["p3o"] = "p3o"
    kappa: float = number(1.0, 0)
    """Spreads of reward lost per relative overrun of a budget."""
    kappas: Mapping[str, float] = per_cost()
    """The same for single constraints."""


class Learner(OnPolicyLearner[Config]):
    """PPO with exact penalties."""

    constrained = True

    def __init__(self, config: Config, space: Space):
        super().__init__(config, space)
        self.kappa = torch.as_tensor(space.row("kappas", config.kappas, blank=config.kappa), dtype=torch.float32)

    def learn(self) -> dict[str, float]:
        """Clipped steps on the reward, less the penalty."""
        c, batch = self.config, self.batch()
        advantage, expected = reward_only(batch), forecast(self, batch, c)
        if expected is None:
            return improve(self, batch, advantage, c)

        def loss(moved: Moved) -> Tensor:
            return clipped_loss(moved, advantage, c.clip) + self.kappa @ expected.overrun(moved, c.clip).relu()

        return descend(self, batch, loss, c)
