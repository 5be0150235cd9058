"""CPPO-PID: PPO-Lagrangian whose multipliers have a derivative part too, and a smoothed proportional one.

It differs from ``ppo_lagrangian`` in the controller alone.  That one is PI on the overrun as it is; here the
proportional part sees an average, so that the noise of a window moves nothing, and a rising cost raises the multiplier
before the budget is reached.  A falling cost lowers nothing (the paper's positive part).

Source:
    Stooke, Achiam, Abbeel, "Responsive Safety in Reinforcement Learning by PID Lagrangian Methods", ICML 2020,
    algorithm 2; smoothing and delay as in the authors' code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor, from_numpy

from palmar.policies.algorithms.ppo import ClipConfig, improve
from palmar.policies.rl.adam import Saved
from palmar.policies.rl.config import count, number
from palmar.policies.rl.learner import Space
from palmar.policies.rl.multipliers import DualConfig, MultiplierConfig, mixed_advantage, relative_overrun
from palmar.policies.rl.on_policy import OnPolicyConfig, OnPolicyLearner

Array = np.ndarray


@dataclass(frozen=True)
class PidConfig(DualConfig):
    """The controller's third part, and how far the past is averaged."""

    multiplier_d: float = number(0.5, 0)
    """Multiplier per relative rise of the smoothed cost over ``rise_rollouts`` (derivative part)."""
    rise_rollouts: int = count(5)
    """Rollouts that a rise is measured over."""
    smoothing: float = number(0.8, 0, 0.999)
    """Share of the past in the averages of the proportional and the derivative part."""


@dataclass(frozen=True)
class Config(PidConfig, MultiplierConfig, ClipConfig, OnPolicyConfig):
    """PPO with a multiplier per constraint, moved by a PID controller."""

    algorithm: Literal["pid_lagrangian"] = "pid_lagrangian"


class PidMultipliers:
    """``lambda = clip(I + p P + d D, 0, max)`` from the relative overrun e of the newest episodes.

    ``I <- clip(I + i e, 0, max)``; P is the average of e; D how much the average of ``e`` has risen over
    ``rise_rollouts``, not below 0.  As in ``Multipliers``, which says why, I and P see e limited to [-1, 1].
    """

    def __init__(self, config: PidConfig, budgets: Array, *, floor: float):
        self._config, self._floor = config, floor
        self.target = config.budget_share * np.asarray(budgets, dtype=np.float64)
        """Mean cost aimed at, (K,)."""
        k = len(self.target)
        self.integral, self.smooth, self.value = np.zeros(k), np.zeros(k), np.zeros(k)
        """``value``: lambda, (K,)."""
        self.past = np.zeros((0, k))
        """Averages of e, unlimited, oldest first, (<= 1 + rise_rollouts, K)."""

    def update(self, mean: Array) -> None:
        """One step of the controller for mean costs (K,); NaN says that nothing is known, and nothing moves."""
        if np.isnan(mean).any():
            return
        c, keep = self._config, self._config.smoothing
        overrun = relative_overrun(mean, self.target, self._floor)
        limited = np.clip(overrun, -1.0, 1.0)
        average = keep * self.past[-1] + (1 - keep) * overrun if len(self.past) else overrun
        self.past = np.vstack([self.past, average])[-1 - c.rise_rollouts :]
        rise = np.clip(self.past[-1] - self.past[0], 0.0, 1.0)
        self.smooth = keep * self.smooth + (1 - keep) * limited
        self.integral = np.clip(self.integral + c.multiplier_i * limited, 0.0, c.multiplier_max)
        wanted = self.integral + c.multiplier_p * self.smooth + c.multiplier_d * rise
        self.value = np.clip(wanted, 0.0, c.multiplier_max)

    def tensors(self) -> dict[str, Tensor]:
        """State."""
        state = {"integral": self.integral, "smooth": self.smooth, "value": self.value, "past": self.past}
        return {name: from_numpy(array.copy()) for name, array in state.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """The inverse of ``tensors``."""
        self.integral, self.smooth = state["integral"].numpy().copy(), state["smooth"].numpy().copy()
        self.value, self.past = state["value"].numpy().copy(), state["past"].numpy().copy()


class Learner(OnPolicyLearner[Config]):
    """PPO with a multiplier per constraint, moved by a PID controller."""

    constrained = True

    def __init__(self, config: Config, space: Space):
        super().__init__(config, space)
        self.multipliers = PidMultipliers(config, self.budgets, floor=config.budget_floor)

    def learn(self) -> dict[str, float]:
        """Move the multipliers, then clipped steps on the mixed advantage."""
        if self.iteration >= self.config.warmup:
            self.multipliers.update(self.window.mean())
        batch = self.batch()
        advantage = mixed_advantage(batch.advantage, self.multipliers.value, self.config.cost_floor)
        return improve(self, batch, advantage, self.config)

    def weights(self) -> Array:
        """The multipliers."""
        return self.multipliers.value

    def parts(self) -> dict[str, Saved]:
        """The multipliers too."""
        return {**super().parts(), "multipliers": self.multipliers}
