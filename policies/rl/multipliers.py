"""One multiplier per constraint, moved by a PI controller on the mean cost of an episode, and what it weighs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, from_numpy

from palmar.policies.rl.config import count, number

Array = np.ndarray

RELAX = 0.2
"""How fast the multiplier of a budget of zero that is kept shrinks, against 1 for one overrun."""


@dataclass(frozen=True)
class TargetConfig:
    """What is aimed at, and when that begins."""

    budget_share: float = number(0.8, 1e-3, 1)
    """The mean cost aimed at is this share of a budget, so that the mean of unseen episodes lands inside it."""
    warmup: int = count(5, least=0)
    """Rollouts before budgets count: first the cost critics learn."""


@dataclass(frozen=True)
class DualConfig(TargetConfig):
    """How multipliers follow the overrun of budgets; without the proportional part it is plain dual ascent."""

    multiplier_p: float = number(0.5, 0)
    """Multiplier per relative overrun (proportional part)."""
    multiplier_i: float = number(0.05, 0)
    """Multiplier per relative overrun and rollout (integral part)."""
    multiplier_max: float = number(10.0, 1e-9)


@dataclass(frozen=True)
class MultiplierConfig(DualConfig):
    """How multipliers follow the overrun of budgets, and how they weigh costs."""

    cost_floor: float = number(0.01, 1e-9)
    """Smallest spread of a cost's advantage that counts as signal, in the cost's unit."""


def relative_overrun(mean: Array, target: Array, floor: float) -> Array:
    """``e = (J - d) / max(d, floor)`` of mean costs J and targets d, (K,).

    A mean cost cannot fall short of a target of zero, so its multiplier would only ever grow: no cost at all counts
    as ``e = -RELAX`` there.
    """
    overrun = (mean - target) / np.maximum(target, floor)
    return np.where((target == 0) & (mean == 0), -RELAX, overrun)


class Multipliers:
    """``lambda_k >= 0`` from the overrun of the newest episodes.

    With target ``d = budget_share * budget`` and e the ``relative_overrun`` of J, the mean undiscounted cost of an
    episode: ``I <- clip(I + i e, 0, max)`` and ``lambda = clip(I + p e, 0, max)``.  The integral alone is the usual
    dual ascent, which oscillates; p damps it.  ``e`` is limited to [-1, 1], because the first policies overrun a
    budget a hundredfold and say nothing about where the multiplier has to be.

    Source:
        Stooke, Achiam, Abbeel, "Responsive Safety in RL by PID Lagrangian Methods", ICML 2020; no derivative.
    """

    def __init__(self, config: DualConfig, budgets: Array, *, floor: float):
        self._config, self._floor = config, floor
        self.target = config.budget_share * np.asarray(budgets, dtype=np.float64)
        """Mean cost aimed at, (K,)."""
        self.integral = np.zeros(len(self.target))
        self.value = np.zeros(len(self.target))
        """lambda, (K,)."""

    def update(self, mean: Array) -> None:
        """One step of the controller for mean costs (K,); NaN says that nothing is known, and nothing moves."""
        if np.isnan(mean).any():
            return
        c = self._config
        overrun = np.clip(relative_overrun(mean, self.target, self._floor), -1.0, 1.0)
        self.integral = np.clip(self.integral + c.multiplier_i * overrun, 0.0, c.multiplier_max)
        self.value = np.clip(self.integral + c.multiplier_p * overrun, 0.0, c.multiplier_max)

    def tensors(self) -> dict[str, Tensor]:
        """State."""
        return {"integral": from_numpy(self.integral.copy()), "value": from_numpy(self.value.copy())}

    def restore(self, state: dict[str, Tensor]) -> None:
        """The inverse of ``tensors``."""
        self.integral, self.value = state["integral"].numpy().copy(), state["value"].numpy().copy()


def unit_advantage(advantage: Tensor, cost_floor: float) -> Tensor:
    """Every advantage centred and divided by its own spread over the rollout.

    The spread of a cost counts as at least ``cost_floor``: a constraint that is almost never touched must not have
    its noise blown up.

    Args:
        advantage: Reward first, then K costs in their units, (N, 1 + K).
        cost_floor: In the unit of the costs.

    Returns:
        Pure numbers, (N, 1 + K).
    """
    floor = torch.full_like(advantage[0], cost_floor)
    floor[0] = 1e-8
    return (advantage - advantage.mean(0)) / torch.maximum(advantage.std(0, correction=0), floor)


def mixed_advantage(advantage: Tensor, multipliers: Array, cost_floor: float) -> Tensor:
    """``(A_R - sum_k lambda_k A_k) / (1 + sum_k lambda_k)`` of advantages in units of their spread.

    So lambda is a pure number: at lambda_k = 1 one spread of cost k weighs as much as one spread of reward.

    Args:
        advantage: Reward first, then K costs in their units, (N, 1 + K).
        multipliers: lambda, (K,).
        cost_floor: See ``unit_advantage``.

    Returns:
        (N,).

    Source:
        Ray, Achiam, Amodei, "Benchmarking Safe Exploration in Deep RL", 2019 (the rescaling by 1 + lambda).
    """
    unit, weights = unit_advantage(advantage, cost_floor), torch.as_tensor(multipliers, dtype=torch.float32)
    return (unit[:, 0] - unit[:, 1:] @ weights) / (1 + weights.sum())
