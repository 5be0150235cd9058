"""The environment as learning meets it, and the episodes that come of it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, from_numpy

from palmar.policies.evaluate import check_simulation
from palmar.policies.networks import ObservationRefused
from palmar.sim.interface import Step

Array = np.ndarray


@dataclass(frozen=True)
class Episodes:
    """Episodes that ended, in the order of their ends; E of them."""

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
        self._max_steps, self._rows = max_steps, [np.zeros((0, 3 + n_costs))]

    def add(self, step: Step) -> None:
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
        self._rows = self._rows[:1]
        return Episodes(rows[:, 2], rows[:, 3:], rows[:, 1].astype(int), rows[:, 0] > 0.5)


class World:
    """A vector environment that learning goes on in: where it stands, what it came to, how long it took."""

    def __init__(self, env: Any, seed: int):
        self.env, self.obs = env, env.reset(seed)
        """``obs``: what the policy sees now, (B, d)."""
        self.steps, self.env_s = 0, 0.0
        """Steps of all environments, and the time they took [s]."""
        self._sums = EpisodeSums(env.num_envs, len(env.constraint_names), env.max_steps)

    def step(self, action: Array) -> Step:
        """One step of every environment, action (B, a).

        Raises:
            ObservationRefused: If a reward or a cost is not finite.
        """
        began = time.perf_counter()
        step = self.env.step(action)
        self.env_s += time.perf_counter() - began
        _finite("reward", step.reward)
        _finite("cost", step.cost)
        self.obs, self.steps = step.obs, self.steps + self.env.num_envs
        self._sums.add(step)
        return step

    def pause(self) -> Episodes:
        """Between two updates: whether what was simulated means anything, and the episodes since the last pause."""
        check_simulation(self.env)
        if renew := getattr(self.env, "renew", None):  # an environment on a device draws its starts ahead
            renew()
        return self._sums.take()


class CostWindow:
    """Costs, or lengths, of the newest episodes, at most ``size`` of them."""

    def __init__(self, size: int, n_costs: int):
        self._size, self.costs = size, np.zeros((0, n_costs))
        """``costs``: oldest first, (E, K)."""

    def record(self, costs: Array) -> None:
        """Costs of episodes that ended, oldest first, (E, K)."""
        self.costs = np.concatenate([self.costs, costs])[-self._size :]

    def mean(self) -> Array:
        """Mean cost of an episode, (K,); NaN before the first."""
        return self.costs.mean(axis=0) if len(self.costs) else np.full(self.costs.shape[1], np.nan)

    def tensors(self) -> dict[str, Tensor]:
        """State."""
        return {"costs": from_numpy(np.ascontiguousarray(self.costs).copy())}

    def restore(self, state: dict[str, Tensor]) -> None:
        """The inverse of ``tensors``."""
        self.costs = state["costs"].numpy().copy()


def _finite(what: str, values: Array) -> None:
    if not np.isfinite(values).all():
        raise ObservationRefused(f"{what} of environment {np.argwhere(~np.isfinite(values))[0]} is not finite")
