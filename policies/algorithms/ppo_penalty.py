"""PPO on ``reward - sum_k w_k cost_k`` with fixed weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from palmar.policies.algorithms.ppo import ClipConfig, improve, reward_only
from palmar.policies.rl.config import per_cost
from palmar.policies.rl.learner import Space
from palmar.policies.rl.on_policy import OnPolicyConfig, OnPolicyLearner
from palmar.safety.types import ConfigError


@dataclass(frozen=True)
class Config(ClipConfig, OnPolicyConfig):
    """PPO with penalties."""

    algorithm: Literal["ppo_penalty"] = "ppo_penalty"
    penalties: Mapping[str, float] = per_cost()
    """Reward lost per unit of each cost."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.penalties:
            raise ConfigError("algo.penalties must name a constraint at least, got none: that is algo=ppo")


class Learner(OnPolicyLearner[Config]):
    """PPO with penalties."""

    def __init__(self, config: Config, space: Space):
        super().__init__(config, space)
        self.penalties = torch.as_tensor(space.row("penalties", config.penalties, blank=0.0), dtype=torch.float32)

    def learn(self) -> dict[str, float]:
        """Clipped steps on the penalised reward."""
        batch = self.batch(self.rollout.reward - self.rollout.cost @ self.penalties)
        return improve(self, batch, reward_only(batch), self.config)
