"""CRPO: a step up the reward while every budget is kept, else a step down the cost that overruns its own most.

No multiplier, no second problem.  The paper steps by the natural gradient and lets any of the overrun constraints be
chosen; ours takes PPO's clipped steps on the worst one.

Source:
    Xu, Liang, Lan, "CRPO: A New Approach for Safe Reinforcement Learning with Convergence Guarantee", ICML 2021,
    algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from palmar.policies.algorithms.ppo import ClipConfig, improve, reward_only
from palmar.policies.rl.config import number
from palmar.policies.rl.multipliers import TargetConfig, relative_overrun, unit_advantage
from palmar.policies.rl.on_policy import OnPolicyConfig, OnPolicyLearner


@dataclass(frozen=True)
class Config(TargetConfig, ClipConfig, OnPolicyConfig):
    """Reward and costs by turns."""

    algorithm: Literal["crpo"] = "crpo"
    cost_floor: float = number(0.01, 1e-9)
    """Smallest spread of a cost's advantage that counts as signal, in the cost's unit."""
    tolerance: float = number(0.0, 0)
    """The paper's eta: a relative overrun up to this still counts as kept."""


class Learner(OnPolicyLearner[Config]):
    """Reward and costs by turns."""

    constrained = True

    def learn(self) -> dict[str, float]:
        """Clipped steps on the one signal whose turn it is."""
        c, batch, worst = self.config, self.batch(), self.worst()
        unit = unit_advantage(batch.advantage, c.cost_floor)
        advantage = reward_only(batch) if worst is None else -unit[:, 1 + worst]
        return improve(self, batch, advantage, c) | {"down_cost": float(worst is not None)}

    def worst(self) -> int | None:
        """Number of the constraint that overruns its budget most, None while all are kept or nothing is known."""
        c, mean = self.config, self.window.mean()
        if self.iteration < c.warmup or np.isnan(mean).any():
            return None
        overrun = relative_overrun(mean, c.budget_share * self.budgets, c.budget_floor)
        worst = int(overrun.argmax())
        return worst if overrun[worst] > c.tolerance else None
