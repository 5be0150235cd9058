"""Rollout storage, [T, B], and generalised advantage estimation, once for the reward and every cost."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rollout:
    """T steps of B environments.  The tensors are filled in place."""

    obs: Tensor
    """What the policy saw, (T + 1, B, d); row T follows the last step."""
    final_obs: Tensor
    """Last observation of an episode that ended at a step, before the reset, (T, B, d); else undefined."""
    action: Tensor
    """(T, B, a)."""
    mean: Tensor
    """Mean of the policy that acted, (T, B, a)."""
    reward: Tensor
    """(T, B)."""
    cost: Tensor
    """(T, B, K), in each constraint's unit."""
    terminated: Tensor
    """The task ended the episode: nothing is earned after, (T, B) bool."""
    truncated: Tensor
    """Time ended the episode: it would have gone on, (T, B) bool."""

    @staticmethod
    def empty(steps: int, batch: int, obs_dim: int, action_dim: int, n_costs: int) -> Rollout:
        """Room for ``steps`` steps."""
        return Rollout(
            obs=torch.zeros(steps + 1, batch, obs_dim),
            final_obs=torch.zeros(steps, batch, obs_dim),
            action=torch.zeros(steps, batch, action_dim),
            mean=torch.zeros(steps, batch, action_dim),
            reward=torch.zeros(steps, batch),
            cost=torch.zeros(steps, batch, n_costs),
            terminated=torch.zeros(steps, batch, dtype=torch.bool),
            truncated=torch.zeros(steps, batch, dtype=torch.bool),
        )


def gae(
    signal: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    gamma: float,
    lam: float,
) -> tuple[Tensor, Tensor]:
    """Advantages and returns of C channels (reward and costs alike).

    A terminated episode earns nothing after its last step; a truncated one is bootstrapped with the value of
    the observation it ended with.  Neither lets the next episode leak in.

    Args:
        signal: Reward or cost of step t, (T, B, C).
        value: Value of the observation before step t, (T, B, C).
        next_value: Value of the observation after step t *of the same episode*, (T, B, C).
        terminated: (T, B) bool; wins where both are set.
        truncated: (T, B) bool.
        gamma: Discount per step.
        lam: Trace decay.

    Returns:
        advantage and return = advantage + value, (T, B, C).

    Source:
        Schulman et al., "High-Dimensional Continuous Control Using Generalized Advantage Estimation",
        2016, eq. 16.
    """
    alive = (~terminated).unsqueeze(-1).to(signal.dtype)
    onward = (~(terminated | truncated)).unsqueeze(-1).to(signal.dtype)
    delta = signal + gamma * next_value * alive - value
    advantage = torch.zeros_like(signal)
    running = torch.zeros_like(signal[0])
    for t in reversed(range(len(signal))):
        running = delta[t] + gamma * lam * onward[t] * running
        advantage[t] = running
    return advantage, advantage + value
