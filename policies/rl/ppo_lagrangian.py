"""PPO and PPO-Lagrangian: one story, read from top to bottom.

A policy earns reward and pays K costs.  It maximises the reward while the mean cost of an episode stays
within each budget: ``max_theta min_{lambda >= 0} J_R - sum_k lambda_k (J_k - d_k)``.  One iteration:

1. ``collect``: T steps of B environments with the current policy.
2. ``Multipliers.update``: lambda from the episodes that ended, *before* the policy moves.
3. ``update``: advantages of reward and costs, mixed with lambda, then clipped policy steps and values.

PPO is the same with lambda = 0; the fixed-penalty variant is PPO on ``reward - sum_k w_k cost_k``.

Source:
    Schulman et al., "Proximal Policy Optimization Algorithms", 2017; Ray, Achiam, Amodei, "Benchmarking Safe
    Exploration in Deep RL", 2019 (PPO-Lagrangian, advantages rescaled by 1 + lambda).
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from palmar.policies.networks import (
    Actor,
    Critic,
    MeanPolicy,
    ObservationRefused,
    checked,
    kl_divergence,
    log_prob,
)
from palmar.policies.normalize import Normalizer
from palmar.policies.rl.buffer import Rollout, gae
from palmar.policies.rl.config import PPOConfig
from palmar.policies.rl.multipliers import Multipliers
from palmar.safety.types import ConfigError

Array = np.ndarray


class Learner:
    """Everything that learns: networks, optimiser, normalisers, multipliers, random state."""

    def __init__(
        self,
        config: PPOConfig,
        *,
        obs_dim: int,
        action_dim: int,
        constraint_names: tuple[str, ...],
        budgets: Mapping[str, float],
    ):
        self.config, self.names = config, constraint_names
        self.obs_dim, self.action_dim = obs_dim, action_dim
        self.budgets = _per_constraint("budgets", budgets, constraint_names, config.algorithm == "ppo_lagrangian")
        self.penalties = _per_constraint("penalties", config.penalties, constraint_names, False)
        self.generator = torch.Generator().manual_seed(config.seed)
        make = {"generator": self.generator}
        self.actor = Actor(obs_dim, action_dim, config.hidden, std=config.std, gain=config.actor_gain, **make)
        self.critic = Critic(obs_dim, len(constraint_names), config.hidden, kind=config.cost_critic, **make)
        groups = [{"params": list(m.parameters()), "lr": config.lr} for m in (self.actor, self.critic)]
        self.optimizer = torch.optim.Adam(groups, eps=1e-5)
        self.obs_norm = Normalizer(obs_dim)
        self.return_norm = Normalizer(1 + len(constraint_names))
        self.multipliers = Multipliers(config, self.budgets)
        self.iteration = 0

    def policy(self) -> MeanPolicy:
        """The deterministic policy of now; later updates do not change it."""
        return MeanPolicy(copy.deepcopy(self.actor.net), self.obs_norm.frozen())

    def values(self, obs: Tensor) -> Tensor:
        """Values (..., 1 + K) of raw observations in the units of reward and costs."""
        return self.return_norm.invert(self.critic(self.obs_norm(obs)))


@dataclass(frozen=True)
class Episodes:
    """Episodes that ended in a rollout, in the order of their ends; E of them."""

    returns: Array
    """Undiscounted sum of rewards, (E,)."""
    costs: Array
    """Undiscounted sum of costs, (E, K)."""
    lengths: Array
    """[control steps], (E,)."""
    success: Array
    """(E,) bool."""


class EpisodeSums:
    """Sums over the running episode of each environment."""

    def __init__(self, batch: int, n_costs: int, max_steps: int):
        self._sum, self._age = np.zeros((batch, 1 + n_costs)), np.zeros(batch, dtype=int)
        self._max_steps, self._rows = max_steps, list[Array]()

    def add(self, step: Any) -> None:
        """Take in a step; of episodes that ended, keep those seen from their beginning."""
        self._sum += np.concatenate([step.reward[:, None], step.cost], axis=1)
        self._age += 1
        ended = np.asarray(step.terminated) | np.asarray(step.truncated)
        # An environment may start its first episode at a random age: cut short by time, it is no whole one.
        whole = ended & (np.asarray(step.terminated) | (self._age >= self._max_steps))
        success = np.asarray(step.info.get("success", np.zeros(len(ended))), dtype=float)
        self._rows.append(np.column_stack([success, self._age, self._sum])[whole])
        self._sum[ended], self._age[ended] = 0.0, 0

    def take(self) -> Episodes:
        """The episodes since the last call."""
        rows = np.concatenate(self._rows)
        self._rows = []
        return Episodes(rows[:, 2], rows[:, 3:], rows[:, 1].astype(int), rows[:, 0] > 0.5)


@torch.no_grad()
def collect(env: Any, learner: Learner, rollout: Rollout, obs: Array, sums: EpisodeSums) -> tuple[Array, float]:
    """Fill ``rollout`` with the current policy, from observation ``obs`` (B, d) on.

    Returns:
        The observation to go on from, and the time spent in the environment [s].

    Raises:
        ObservationRefused: If an observation, a reward or a cost is not finite.
    """
    std, env_s = learner.actor.log_std.exp(), 0.0
    for t in range(learner.config.steps):
        rollout.obs[t] = checked(obs, learner.obs_dim)
        rollout.mean[t] = learner.actor(learner.obs_norm(rollout.obs[t]))
        noise = torch.randn(rollout.mean[t].shape, generator=learner.generator)
        rollout.action[t] = rollout.mean[t] + std * noise
        began = time.perf_counter()
        step = env.step(rollout.action[t].numpy())
        env_s += time.perf_counter() - began
        obs = step.obs
        rollout.reward[t] = torch.from_numpy(_finite("reward", step.reward))
        rollout.cost[t] = torch.from_numpy(_finite("cost", step.cost))
        rollout.terminated[t] = torch.as_tensor(step.terminated)
        rollout.truncated[t] = torch.as_tensor(step.truncated)
        if (cut := rollout.truncated[t]).any():
            rollout.final_obs[t, cut] = checked(step.info["terminal_obs"][cut.numpy()], learner.obs_dim)
        sums.add(step)
    rollout.obs[-1] = checked(obs, learner.obs_dim)
    return obs, env_s


def _finite(what: str, values: Array) -> Array:
    if not np.isfinite(values).all():
        raise ObservationRefused(f"{what} of environment {np.argwhere(~np.isfinite(values))[0]} is not finite")
    return np.asarray(values, dtype=np.float32)


def mixed_advantage(advantage: Tensor, multipliers: Tensor, cost_floor: float) -> Tensor:
    """``(A_R - sum_k lambda_k A_k) / (1 + sum_k lambda_k)``.

    Every advantage is centred and divided by its own spread over the rollout, so lambda is a pure number: at
    lambda_k = 1 one spread of cost k weighs as much as one spread of reward.  The spread of a cost counts as
    at least ``cost_floor``: a constraint that is almost never touched must not have its noise blown up.

    Args:
        advantage: Reward first, then K costs in their units, (N, 1 + K).
        multipliers: lambda, (K,).
        cost_floor: In the unit of the costs.

    Returns:
        (N,).
    """
    centred, spread = advantage - advantage.mean(0), advantage.std(0, correction=0)
    floor = torch.full_like(spread, cost_floor)
    floor[0] = 1e-8
    unit = centred / torch.maximum(spread, floor)
    return (unit[:, 0] - unit[:, 1:] @ multipliers) / (1 + multipliers.sum())


def update(learner: Learner, rollout: Rollout) -> dict[str, float]:
    """One PPO update.  Returns scalars for the log."""
    c, actor = learner.config, learner.actor
    with torch.no_grad():
        advantage, returns = _advantages(learner, rollout)
        learner.return_norm.update(returns)
        target = learner.return_norm(returns).flatten(0, 1)
        multipliers = torch.as_tensor(learner.multipliers.value, dtype=torch.float32)
        mixed = mixed_advantage(advantage.flatten(0, 1), multipliers, c.cost_floor)
        obs = learner.obs_norm(rollout.obs[:-1]).flatten(0, 1)
        action, mean = rollout.action.flatten(0, 1), rollout.mean.flatten(0, 1)
        old_log_std = actor.log_std.detach().clone()
        old_log_prob = log_prob(action, mean, old_log_std)

    log: dict[str, list[float]] = {
        "kl": [],
        "clipped": [],
        "loss/policy": [],
        "loss/value": [],
        "loss/cost_value": [],
    }
    epochs = 0
    for _ in range(c.epochs):
        epochs += 1
        for pick in torch.randperm(len(obs), generator=learner.generator).split(c.minibatch):
            new_mean = actor(obs[pick])
            ratio = (log_prob(action[pick], new_mean, actor.log_std) - old_log_prob[pick]).exp()
            kl = kl_divergence(mean[pick], old_log_std, new_mean, actor.log_std).mean().item()
            _adapt_lr(learner, kl)
            gain = torch.minimum(ratio * mixed[pick], ratio.clamp(1 - c.clip, 1 + c.clip) * mixed[pick])
            policy_loss = -gain.mean() - c.entropy * actor.log_std.sum()
            value_loss = (learner.critic(obs[pick]) - target[pick]).square().mean(0)
            learner.optimizer.zero_grad()
            (policy_loss + value_loss.sum()).backward()
            for net in (actor, learner.critic):
                torch.nn.utils.clip_grad_norm_(net.parameters(), c.grad_norm)
            learner.optimizer.step()
            actor.bound_std(c.std_range[0], c.largest_std(learner.iteration))
            log["kl"].append(kl)
            log["clipped"].append(((ratio - 1).abs() > c.clip).float().mean().item())
            log["loss/policy"].append(policy_loss.item())
            log["loss/value"].append(value_loss[0].item())
            log["loss/cost_value"].append(value_loss[1:].sum().item())
        if np.mean(log["kl"][-len(obs) // c.minibatch :]) > c.kl_stop * c.kl_target:
            break
    learner.obs_norm.update(rollout.obs[:-1])  # last: the update saw the observations as the policy did
    learner.iteration += 1
    scalars = {name: float(np.mean(values)) for name, values in log.items()}
    lr = learner.optimizer.param_groups[0]["lr"]
    return scalars | {"lr": lr, "epochs": epochs, "std": actor.log_std.exp().mean().item()}


def _advantages(learner: Learner, rollout: Rollout) -> tuple[Tensor, Tensor]:
    """Advantages and returns (T, B, 1 + K) of the (penalised) reward and the costs."""
    penalty = rollout.cost @ torch.as_tensor(learner.penalties, dtype=torch.float32)
    signal = torch.cat([(rollout.reward - penalty).unsqueeze(-1), rollout.cost], dim=-1)
    value = learner.values(rollout.obs)
    next_value = value[1:].clone()
    if rollout.truncated.any():
        next_value[rollout.truncated] = learner.values(rollout.final_obs[rollout.truncated])
    c = learner.config
    return gae(signal, value[:-1], next_value, rollout.terminated, rollout.truncated, gamma=c.gamma, lam=c.gae_lambda)


def _adapt_lr(learner: Learner, kl: float) -> None:
    """Step size of the actor: 1.5 times smaller above twice the target, larger below half of it."""
    c, group = learner.config, learner.optimizer.param_groups[0]
    factor = 1 / 1.5 if kl > 2 * c.kl_target else 1.5 if 0 < kl < c.kl_target / 2 else 1.0
    group["lr"] = min(max(group["lr"] * factor, c.lr_range[0]), c.lr_range[1])


def _per_constraint(what: str, values: Mapping[str, float], names: tuple[str, ...], required: bool) -> Array:
    """(K,) in the order of ``names``; what is not given is 0 for penalties and no limit for budgets."""
    unknown, missing = sorted(set(values) - set(names)), sorted(set(names) - set(values))
    if unknown or (required and (missing or not names)):
        raise ConfigError(f"algo.{what}: unknown {unknown}, missing {missing}; the environment has costs {list(names)}")
    blank = 0.0 if what == "penalties" else np.inf
    return np.array([values.get(name, blank) for name in names], dtype=np.float64)
