"""One multiplier per constraint, moved by a PI controller on the mean cost of an episode."""

from __future__ import annotations

import numpy as np
from torch import Tensor, from_numpy

from palmar.policies.rl.config import PPOConfig

Array = np.ndarray

RELAX = 0.2
"""How fast the multiplier of a budget of zero that is kept shrinks, against 1 for one overrun."""


class Multipliers:
    """``lambda_k >= 0`` from the overrun of the newest ``cost_window`` episodes.

    With target ``d = budget_share * budget`` and relative overrun ``e = (J - d) / max(d, budget_floor)``,
    J the mean undiscounted cost of an episode in the window: ``I <- clip(I + i e, 0, max)`` and
    ``lambda = clip(I + p e, 0, max)``.  The integral alone is the usual dual ascent, which oscillates; p
    damps it.  ``e`` is limited to [-1, 1], because the first policies overrun a budget a hundredfold and
    say nothing about where the multiplier has to be.  A mean cost cannot fall short of a budget of zero, so
    its multiplier would only ever grow: a whole window without any cost counts as ``e = -RELAX``.

    Source:
        Stooke, Achiam, Abbeel, "Responsive Safety in RL by PID Lagrangian Methods", ICML 2020; no derivative.
    """

    def __init__(self, config: PPOConfig, budgets: Array):
        self._config = config
        self.target = config.budget_share * np.asarray(budgets, dtype=np.float64)
        """Mean cost aimed at, (K,)."""
        self.window = np.zeros((0, len(self.target)))
        """Costs of the newest episodes, (<= cost_window, K)."""
        self.integral = np.zeros(len(self.target))
        self.value = np.zeros(len(self.target))
        """lambda, (K,)."""

    def record(self, episodes: Array) -> None:
        """Costs of episodes that ended, oldest first, (E, K)."""
        self.window = np.concatenate([self.window, episodes])[-self._config.cost_window :]

    def update(self) -> None:
        """One step of the controller; without any finished episode nothing is known and nothing moves."""
        if len(self.window) == 0:
            return
        c, mean = self._config, self.window.mean(axis=0)
        overrun = np.clip((mean - self.target) / np.maximum(self.target, c.budget_floor), -1.0, 1.0)
        overrun = np.where((self.target == 0) & (mean == 0), -RELAX, overrun)
        self.integral = np.clip(self.integral + c.multiplier_i * overrun, 0.0, c.multiplier_max)
        self.value = np.clip(self.integral + c.multiplier_p * overrun, 0.0, c.multiplier_max)

    def tensors(self) -> dict[str, Tensor]:
        """State."""
        names = ("window", "integral", "value")
        return {name: from_numpy(np.ascontiguousarray(getattr(self, name)).copy()) for name in names}

    def restore(self, state: dict[str, Tensor]) -> None:
        """The inverse of ``tensors``."""
        for name, tensor in state.items():
            setattr(self, name, tensor.numpy().copy())
