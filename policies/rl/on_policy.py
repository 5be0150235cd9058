"""What on-policy algorithms share: actor, critics of reward and costs, a rollout, and what is estimated from it.

A policy earns reward and pays K costs.  One iteration:

1. ``collect``: T steps of B environments with the current policy.
2. ``update``: the episodes that ended are noted, then the algorithm's own ``learn``: it turns the rollout into a
   ``Batch`` (advantages of the reward and of every cost), moves the actor, and fits the critics.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from palmar.policies.networks import COST_CRITICS, Actor, Critic, MeanPolicy, checked, log_prob
from palmar.policies.normalize import Normalizer
from palmar.policies.rl import adam
from palmar.policies.rl.buffer import Rollout, gae
from palmar.policies.rl.config import TrainConfig, choice, count, counts, number, rising, span
from palmar.policies.rl.episodes import CostWindow, Episodes, World
from palmar.policies.rl.learner import Space
from palmar.safety.types import ConfigError

Array = np.ndarray


@dataclass(frozen=True)
class OnPolicyConfig(TrainConfig):
    """Rollout, networks and exploration.

    The defaults were measured on ``lift``: 97 % with three blocks after 62 s on two cores.
    """

    steps: int = count(24)
    """Length of a rollout [control steps]."""
    epochs: int = count(4)
    """Passes over a rollout, at most."""
    minibatch: int = count(1024)
    """Samples per gradient step."""
    gamma: float = number(0.98, 0, 1)
    """Discount of reward and costs per control step."""
    gae_lambda: float = number(0.95, 0, 1)
    lr: float = number(5e-4, 1e-12, 1)
    """Step size of the critics, and first one of the actor."""
    grad_norm: float = number(1.0, 1e-12)
    hidden: tuple[int, ...] = counts((256, 128))
    actor_gain: float = number(0.01, 0)
    cost_critic: str = choice("heads", COST_CRITICS)
    """heads: one network for all costs; separate: one network per cost."""
    std: float = number(0.5, 0)
    """First spread of the actions."""
    std_range: tuple[float, float] = rising((0.05, 1.0))
    std_final: float = number(1.0, 1e-3)
    """Largest spread once ``std_anneal`` is over: budgets are kept by what is *done*, noise included, so a
    policy that explores as widely as at first can only keep them by staying away from everything."""
    std_anneal: tuple[int, int] = span((0, 0))
    """Iterations between which the largest spread sinks linearly from ``std`` to ``std_final``; equal: never."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.std_range[0] <= self.std <= self.std_range[1]:
            raise ConfigError(f"algo.std must be in std_range {self.std_range}, got {self.std}")
        if (samples := self.num_envs * self.steps) % self.minibatch:
            raise ConfigError(f"algo.minibatch must divide num_envs * steps = {samples}, got {self.minibatch}")

    def largest_std(self, iteration: int) -> float:
        """Upper bound of the actor's spread at an iteration."""
        begin, end = self.std_anneal
        if begin == end or iteration < begin:
            return self.std_range[1]
        share = min((iteration - begin) / (end - begin), 1.0)
        return max(self.std + share * (self.std_final - self.std), self.std_range[0])


@dataclass(frozen=True)
class Batch:
    """A rollout made ready to learn from; N = T B samples."""

    obs: Tensor
    """Normalised as the policy saw them, (N, d)."""
    action: Tensor
    """(N, a)."""
    mean: Tensor
    """Of the policy that acted, (N, a)."""
    log_std: Tensor
    """Likewise, (a,)."""
    log_prob: Tensor
    """Log density of the actions under it, (N,)."""
    advantage: Tensor
    """Of the reward, then of the K costs, in their units, (N, 1 + K)."""
    target: Tensor
    """Returns for the critics to fit, normalised, (N, 1 + K)."""


C = TypeVar("C", bound=OnPolicyConfig)


class OnPolicyLearner(Generic[C]):
    """A ``Learner`` but for ``learn``: an algorithm derives from it and says there how the policy improves."""

    constrained = False

    def __init__(self, config: C, space: Space):
        self.config, self.names = config, space.constraint_names
        self.budgets = space.row("budgets", space.budgets, blank=np.inf)
        if self.constrained and (not self.names or np.isinf(self.budgets).any()):
            missing = [n for n, b in zip(self.names, self.budgets, strict=True) if np.isinf(b)]
            raise ConfigError(f"algo.budgets: missing {missing}; the environment has costs {list(self.names)}")
        k = len(self.names)
        self.obs_dim = space.obs_dim
        self.generator = torch.Generator().manual_seed(config.seed)
        make = {"generator": self.generator}
        sizes = space.obs_dim, space.action_dim, config.hidden
        self.actor = Actor(*sizes, std=config.std, gain=config.actor_gain, **make)
        self.critic = Critic(space.obs_dim, k, config.hidden, kind=config.cost_critic, **make)
        self.actor_adam, self.critic_adam = (
            torch.optim.Adam(net.parameters(), lr=config.lr, eps=1e-5) for net in (self.actor, self.critic)
        )
        self.obs_norm, self.return_norm = Normalizer(space.obs_dim), Normalizer(1 + k)
        self.window, self.lengths = CostWindow(config.cost_window, k), CostWindow(config.cost_window, 1)
        self.rollout = Rollout.empty(config.steps, config.num_envs, space.obs_dim, space.action_dim, k)
        self.iteration = 0

    def learn(self) -> dict[str, float]:
        """Improve the policy and fit the critics by ``rollout``; scalars for the log."""
        raise NotImplementedError

    def update(self, episodes: Episodes) -> dict[str, float]:
        """One iteration's learning."""
        self.window.record(episodes.costs)
        self.lengths.record(episodes.lengths[:, None])
        scalars = self.learn()
        self.obs_norm.update(self.rollout.obs[:-1])  # last: the update saw the observations as the policy did
        self.iteration += 1
        return scalars

    def weights(self) -> Array:
        """No multipliers, unless the algorithm has some."""
        return np.zeros(len(self.names))

    def policy(self) -> MeanPolicy:
        """The deterministic policy of now; later updates do not change it."""
        return MeanPolicy(copy.deepcopy(self.actor.net), self.obs_norm.frozen())

    def values(self, obs: Tensor) -> Tensor:
        """Values (..., 1 + K) of raw observations in the units of reward and costs."""
        return self.return_norm.invert(self.critic(self.obs_norm(obs)))

    @torch.no_grad()
    def collect(self, world: World) -> None:
        """Fill ``rollout`` with the current policy.

        Raises:
            ObservationRefused: If an observation, a reward or a cost is not finite.
        """
        rollout, std = self.rollout, self.actor.log_std.exp()
        for t in range(self.config.steps):
            rollout.obs[t] = checked(world.obs, self.obs_dim)
            rollout.mean[t] = self.actor(self.obs_norm(rollout.obs[t]))
            noise = torch.randn(rollout.mean[t].shape, generator=self.generator)
            rollout.action[t] = rollout.mean[t] + std * noise
            step = world.step(rollout.action[t].numpy())
            rollout.reward[t] = torch.as_tensor(step.reward)
            rollout.cost[t] = torch.as_tensor(step.cost)
            rollout.terminated[t] = torch.as_tensor(step.terminated)
            rollout.truncated[t] = torch.as_tensor(step.truncated)
            if (cut := rollout.truncated[t]).any():
                rollout.final_obs[t, cut] = checked(step.info["terminal_obs"][cut.numpy()], self.obs_dim)
        rollout.obs[-1] = checked(world.obs, self.obs_dim)

    @torch.no_grad()
    def advantages(self, reward: Tensor) -> tuple[Tensor, Tensor]:
        """Advantages and returns (T, B, 1 + K) of ``reward`` (T, B) and the rollout's costs."""
        rollout, c = self.rollout, self.config
        signal = torch.cat([reward.unsqueeze(-1), rollout.cost], dim=-1)
        value = self.values(rollout.obs)
        next_value = value[1:].clone()
        if rollout.truncated.any():
            next_value[rollout.truncated] = self.values(rollout.final_obs[rollout.truncated])
        ends = rollout.terminated, rollout.truncated
        return gae(signal, value[:-1], next_value, *ends, gamma=c.gamma, lam=c.gae_lambda)

    @torch.no_grad()
    def batch(self, reward: Tensor | None = None) -> Batch:
        """The rollout with its advantages; ``reward`` (T, B) stands for the rollout's own where given."""
        rollout = self.rollout
        advantage, returns = self.advantages(rollout.reward if reward is None else reward)
        self.return_norm.update(returns)
        action, mean = rollout.action.flatten(0, 1), rollout.mean.flatten(0, 1)
        log_std = self.actor.log_std.detach().clone()
        return Batch(
            obs=self.obs_norm(rollout.obs[:-1]).flatten(0, 1),
            action=action,
            mean=mean,
            log_std=log_std,
            log_prob=log_prob(action, mean, log_std),
            advantage=advantage.flatten(0, 1),
            target=self.return_norm(returns).flatten(0, 1),
        )

    def fit_critics(self, obs: Tensor, target: Tensor) -> Tensor:
        """One gradient step towards ``target`` (M, 1 + K); the mean squared errors before it, (1 + K,)."""
        loss = (self.critic(obs) - target).square().mean(0)
        adam.step(self.critic_adam, loss.sum(), self.config.grad_norm)
        return loss.detach()

    def parts(self) -> dict[str, adam.Saved]:
        """What is kept in a checkpoint beside networks, optimisers and random state, by prefix."""
        return {
            "obs_norm": self.obs_norm,
            "return_norm": self.return_norm,
            "window": self.window,
            "lengths": self.lengths,
        }

    def tensors(self) -> dict[str, Tensor]:
        """Flat: networks, Adam's moments by parameter number, normalisers, costs, random state."""
        groups: dict[str, dict[str, Tensor]] = {
            "actor": self.actor.state_dict(),
            "critic": self.critic.state_dict(),
            "actor_adam": adam.tensors(self.actor_adam),
            "critic_adam": adam.tensors(self.critic_adam),
            **{prefix: part.tensors() for prefix, part in self.parts().items()},
        }
        out = {f"{prefix}.{k}": v for prefix, group in groups.items() for k, v in group.items()}
        out |= {"generator": self.generator.get_state(), "iteration": torch.tensor(self.iteration)}
        return {k: v.detach().clone().contiguous() for k, v in out.items()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of ``tensors``."""

        def group(prefix: str) -> dict[str, Tensor]:
            return {k[len(prefix) + 1 :]: v for k, v in tensors.items() if k.startswith(prefix + ".")}

        self.actor.load_state_dict(group("actor"))
        self.critic.load_state_dict(group("critic"))
        adam.restore(self.actor_adam, group("actor_adam"))
        adam.restore(self.critic_adam, group("critic_adam"))
        for prefix, part in self.parts().items():
            part.restore(group(prefix))
        self.generator.set_state(tensors["generator"].to(torch.uint8))
        self.iteration = int(tensors["iteration"])
