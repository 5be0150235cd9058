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

from palmar.policies.networks import kl_divergence, log_prob
from palmar.policies.rl import adam
from palmar.policies.rl.config import number, rising
from palmar.policies.rl.multipliers import mixed_advantage
from palmar.policies.rl.on_policy import Batch, OnPolicyConfig, OnPolicyLearner


@dataclass(frozen=True)
class ClipConfig:
    """The clipped step, and how far a rollout may carry the policy."""

    clip: float = number(0.2, 1e-9, 1)
    lr_range: tuple[float, float] = rising((1e-5, 2e-3))
    kl_target: float = number(0.015, 1e-12)
    """KL divergence aimed at: above twice this the actor's step size shrinks, below half it grows."""
    kl_stop: float = number(4.0, 1)
    """An update ends early when an epoch's mean KL divergence exceeds this multiple of the target."""
    entropy: float = number(0.0, 0)


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


def improve(learner: OnPolicyLearner, batch: Batch, advantage: Tensor, clip: ClipConfig) -> dict[str, float]:
    """Clipped steps of the actor on ``advantage`` (N,), each with one of the critics; scalars for the log."""
    c, actor = learner.config, learner.actor
    names = ("kl", "clipped", "loss/policy", "loss/value", "loss/cost_value")
    log: dict[str, list[float]] = {name: [] for name in names}
    epochs = 0
    for _ in range(c.epochs):
        epochs += 1
        for pick in torch.randperm(len(batch.obs), generator=learner.generator).split(c.minibatch):
            mean, log_std = actor(batch.obs[pick]), actor.log_std
            ratio = (log_prob(batch.action[pick], mean, log_std) - batch.log_prob[pick]).exp()
            kl = kl_divergence(batch.mean[pick], batch.log_std, mean, log_std).mean().item()
            _adapt_lr(learner, kl, clip)
            clipped = ratio.clamp(1 - clip.clip, 1 + clip.clip)
            gain = torch.minimum(ratio * advantage[pick], clipped * advantage[pick])
            policy_loss = -gain.mean() - clip.entropy * log_std.sum()
            adam.step(learner.actor_adam, policy_loss, c.grad_norm)
            actor.bound_std(c.std_range[0], c.largest_std(learner.iteration))
            value_loss = learner.fit_critics(batch.obs[pick], batch.target[pick])
            log["kl"].append(kl)
            log["clipped"].append(((ratio - 1).abs() > clip.clip).float().mean().item())
            log["loss/policy"].append(policy_loss.item())
            log["loss/value"].append(value_loss[0].item())
            log["loss/cost_value"].append(value_loss[1:].sum().item())
        if np.mean(log["kl"][-len(batch.obs) // c.minibatch :]) > clip.kl_stop * clip.kl_target:
            break
    scalars = {name: float(np.mean(values)) for name, values in log.items()}
    lr = learner.actor_adam.param_groups[0]["lr"]
    return scalars | {"lr": lr, "epochs": epochs, "std": actor.log_std.exp().mean().item()}


def _adapt_lr(learner: OnPolicyLearner, kl: float, clip: ClipConfig) -> None:
    """Step size of the actor: 1.5 times smaller above twice the target, larger below half of it."""
    group = learner.actor_adam.param_groups[0]
    factor = 1 / 1.5 if kl > 2 * clip.kl_target else 1.5 if 0 < kl < clip.kl_target / 2 else 1.0
    group["lr"] = min(max(group["lr"] * factor, clip.lr_range[0]), clip.lr_range[1])
