"""Gradient steps of the actor on minibatches of a rollout, as far as the KL divergence lets it go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from palmar.policies.networks import kl_divergence, log_prob
from palmar.policies.rl import adam
from palmar.policies.rl.config import number, rising
from palmar.policies.rl.on_policy import Batch, OnPolicyLearner


@dataclass(frozen=True)
class StepConfig:
    """How far a rollout may carry the policy."""

    lr_range: tuple[float, float] = rising((1e-5, 2e-3))
    kl_target: float = number(0.015, 1e-12)
    """KL divergence aimed at: above twice this the actor's step size shrinks, below half it grows."""
    kl_stop: float = number(4.0, 1)
    """An update ends early when an epoch's mean KL divergence exceeds this multiple of the target."""
    entropy: float = number(0.0, 0)


@dataclass(frozen=True)
class Moved:
    """The policy on its way, at M samples of a batch; gradients run through it."""

    pick: Tensor
    """Numbers of the samples, (M,)."""
    mean: Tensor
    """(M, a)."""
    log_std: Tensor
    """(a,)."""
    ratio: Tensor
    """Density of the actions under it over that under the policy that acted, (M,)."""
    kl: Tensor
    """KL(where the steps began || it), (M,)."""


def descend(
    learner: OnPolicyLearner,
    batch: Batch,
    loss: Callable[[Moved], Tensor],
    config: StepConfig,
    *,
    begin: tuple[Tensor, Tensor] | None = None,
) -> dict[str, float]:
    """Steps of the actor down ``loss``, each with one of the critics; scalars for the log.

    Args:
        learner: Its actor and critics are moved.
        batch: Of N samples.
        loss: Scalar of the policy at a minibatch.
        config: How far.
        begin: Means (N, a) and log spread (a,) that the divergence is measured from; None: of the policy that acted.
    """
    c, actor = learner.config, learner.actor
    begin_mean, begin_log_std = begin if begin is not None else (batch.mean, batch.log_std)
    log: dict[str, list[float]] = {name: [] for name in ("kl", "loss/policy", "loss/value", "loss/cost_value")}
    epochs = 0
    for _ in range(c.epochs):
        epochs += 1
        for pick in torch.randperm(len(batch.obs), generator=learner.generator).split(c.minibatch):
            mean, log_std = actor(batch.obs[pick]), actor.log_std
            ratio = (log_prob(batch.action[pick], mean, log_std) - batch.log_prob[pick]).exp()
            moved = Moved(pick, mean, log_std, ratio, kl_divergence(begin_mean[pick], begin_log_std, mean, log_std))
            kl = moved.kl.mean().item()
            _adapt_lr(learner, kl, config)
            policy_loss = loss(moved) - config.entropy * log_std.sum()
            adam.step(learner.actor_adam, policy_loss, c.grad_norm)
            actor.bound_std(c.std_range[0], c.largest_std(learner.iteration))
            value_loss = learner.fit_critics(batch.obs[pick], batch.target[pick])
            log["kl"].append(kl)
            log["loss/policy"].append(policy_loss.item())
            log["loss/value"].append(value_loss[0].item())
            log["loss/cost_value"].append(value_loss[1:].sum().item())
        if np.mean(log["kl"][-len(batch.obs) // c.minibatch :]) > config.kl_stop * config.kl_target:
            break
    scalars = {name: float(np.mean(values)) for name, values in log.items()}
    lr = learner.actor_adam.param_groups[0]["lr"]
    return scalars | {"lr": lr, "epochs": epochs, "std": actor.log_std.exp().mean().item()}


def _adapt_lr(learner: OnPolicyLearner, kl: float, config: StepConfig) -> None:
    """Step size of the actor: 1.5 times smaller above twice the target, larger below half of it."""
    group = learner.actor_adam.param_groups[0]
    factor = 1 / 1.5 if kl > 2 * config.kl_target else 1.5 if 0 < kl < config.kl_target / 2 else 1.0
    group["lr"] = min(max(group["lr"] * factor, config.lr_range[0]), config.lr_range[1])
