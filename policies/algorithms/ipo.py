"""IPO: PPO with a logarithmic barrier before each budget.

The paper's barrier ``-log(-z) / t`` of the relative overrun z is infinite outside the budgets, where every training
begins.  Beyond ``z = -1 / t^2`` ours goes on along its tangent, of slope t: there a policy is pulled inside, steeply
but finitely, whatever the reward says.  Inside, it keeps a distance from the budgets that shrinks as t grows.

Source:
    Liu, Ding, Liu, "IPO: Interior-Point Policy Optimization under Constraints", AAAI 2020, eq. 6 and algorithm 1.
    The tangent: Kervadec et al., "Constrained Deep Networks: Lagrangian Optimization via Log-Barrier Extensions", 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from palmar.policies.algorithms.ppo import ClipConfig, clipped_loss, improve, reward_only
from palmar.policies.rl.config import number
from palmar.policies.rl.forecast import forecast
from palmar.policies.rl.minibatches import Moved, descend
from palmar.policies.rl.multipliers import TargetConfig
from palmar.policies.rl.on_policy import OnPolicyConfig, OnPolicyLearner


@dataclass(frozen=True)
class Config(TargetConfig, ClipConfig, OnPolicyConfig):
    """PPO behind barriers."""

    algorithm: Literal["ipo"] = "ipo"
    sharpness: float = number(20.0, 1)
    """The paper's t: large ones let a policy closer to its budgets."""


class Learner(OnPolicyLearner[Config]):
    """PPO behind barriers."""

    constrained = True

    def learn(self) -> dict[str, float]:
        """Clipped steps on the reward, less the barriers."""
        c, batch = self.config, self.batch()
        advantage, expected = reward_only(batch), forecast(self, batch, c)
        if expected is None:
            return improve(self, batch, advantage, c)

        def loss(moved: Moved) -> Tensor:
            over = expected.overrun(moved, c.clip)
            return clipped_loss(moved, advantage, c.clip) + barrier(over, c.sharpness).sum()

        return descend(self, batch, loss, c)


def barrier(z: Tensor, t: float) -> Tensor:
    """``-log(-z) / t`` up to ``z = -1 / t^2``, its tangent beyond."""
    edge = -1 / t**2
    inside = -torch.log(-z.clamp(max=edge)) / t
    return inside + t * (z - edge).relu()
