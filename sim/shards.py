"""One vector environment made of several that step side by side, so that no core waits for Python.

Physics holds no lock and everything else does: while one shard observes, another steps.  What comes out depends on
the number of shards and not on that of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from palmar.safety.types import CommandRefused, ConfigError
from palmar.sim.interface import Step

Array = np.ndarray
SHARDS = 2
"""Fixed, not the number of cores: the same seed gives the same run on every machine."""
SMALLEST = 32
"""Worlds below which a shard is not worth its thread."""


class Shards:
    """B environments in equal parts.

    Args:
        make: Makes one part, of (its number of environments, its seed).
        num_envs: B; SHARDS must divide it.
        seed: Of every random draw; each part gets its own stream.
    """

    def __init__(self, make: Callable[[int, int], Any], *, num_envs: int, seed: int = 0):
        if num_envs % SHARDS:
            raise ConfigError(f"num_envs must be a multiple of {SHARDS}, got {num_envs}")
        self.num_envs, self._size = num_envs, num_envs // SHARDS
        self.parts = [make(self._size, s) for s in _seeds(seed)]
        first = self.parts[0]
        self.task, self.robot, self.constraints = first.task, first.robot, first.constraints
        self.obs_dim, self.action_dim, self.max_steps = first.obs_dim, first.action_dim, first.max_steps
        self.constraint_names = first.constraint_names
        self._pool = ThreadPoolExecutor(SHARDS)

    @property
    def broken(self) -> int:
        """Worlds that were restarted because their state was not finite."""
        return sum(part.broken for part in self.parts)

    def reset(self, seed: int | None = None) -> Array:
        """Start every environment afresh; obs (B, d)."""
        seeds = [None] * SHARDS if seed is None else _seeds(seed)
        return np.concatenate(list(self._pool.map(lambda part, s: part.reset(s), self.parts, seeds)))

    def step(self, action: Array) -> Step:
        """One control step with actions (B, a) in [-1, 1].

        Raises:
            CommandRefused: If the shape is wrong or a number is not finite; no part is stepped.
        """
        action = np.asarray(action, dtype=np.float64)
        if action.shape != (self.num_envs, self.action_dim):
            raise CommandRefused(f"action has shape {action.shape}, need {(self.num_envs, self.action_dim)}")
        if not np.isfinite(action).all():
            raise CommandRefused(f"action of environment {int(np.argwhere(~np.isfinite(action))[0, 0])} is not finite")
        steps = list(self._pool.map(lambda part, a: part.step(a), self.parts, np.split(action, SHARDS)))
        whole = {name: np.concatenate([getattr(s, name) for s in steps]) for name in _ARRAYS}
        info = {name: np.concatenate([s.info[name] for s in steps]) for name in steps[0].info}
        return Step(**whole, info=info)


_ARRAYS = ("obs", "reward", "cost", "terminated", "truncated")


def _seeds(seed: int) -> list[int]:
    """A seed for each part, none of them the given one."""
    return [int(s.generate_state(1)[0]) for s in np.random.SeedSequence(seed).spawn(SHARDS)]
