"""What training asks of an algorithm, on-policy or not, and what an environment asks of a learner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from palmar.policies.networks import MeanPolicy
from palmar.policies.rl.config import TrainConfig
from palmar.policies.rl.episodes import CostWindow, Episodes, World
from palmar.safety.types import ConfigError

Array = np.ndarray


@dataclass(frozen=True)
class Space:
    """Sizes and costs of an environment."""

    obs_dim: int
    action_dim: int
    constraint_names: tuple[str, ...]
    """The order of every K axis."""
    budgets: Mapping[str, float]
    """Per episode, of those that have one."""

    @staticmethod
    def of(env: Any, budgets: Mapping[str, float]) -> Space:
        """The space of ``env``; ``budgets`` replace those of its constraint file, where it has one."""
        constraints = getattr(env, "constraints", None)
        own = {c.name: c.budget for c in constraints.constraints} if constraints is not None else {}
        return Space(env.obs_dim, env.action_dim, tuple(env.constraint_names), own | dict(budgets))

    def row(self, what: str, values: Mapping[str, float], *, blank: float) -> Array:
        """``values`` in the order of the constraints, (K,), ``blank`` where none is given.

        Raises:
            ConfigError: If a name is none of the constraints.
        """
        if unknown := sorted(set(values) - set(self.constraint_names)):
            raise ConfigError(
                f"algo.{what}: unknown {unknown}; the environment has costs {list(self.constraint_names)}"
            )
        return np.array([values.get(name, blank) for name in self.constraint_names], dtype=np.float64)


class Learner(Protocol):
    """An algorithm in the middle of learning.  One iteration is ``collect``, then ``update``."""

    constrained: bool
    """Whether it aims at the budgets."""
    iteration: int
    """Updates so far."""

    @property
    def config(self) -> TrainConfig:
        """All settings."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """Constraints, the order of every K axis."""
        ...

    @property
    def budgets(self) -> Array:
        """Per episode, (K,); inf where there is none."""
        ...

    @property
    def window(self) -> CostWindow:
        """Costs of the newest episodes."""
        ...

    def collect(self, world: World) -> None:
        """Act in the environment and keep what came of it."""
        ...

    def update(self, episodes: Episodes) -> dict[str, float]:
        """Learn from that and from the episodes that ended; scalars for the log."""
        ...

    def weights(self) -> Array:
        """What one unit of each cost weighs against the reward now, its multiplier, (K,)."""
        ...

    def policy(self) -> MeanPolicy:
        """The deterministic policy of now; later updates do not change it."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Everything that ``restore`` needs to go on as if nothing had happened."""
        ...

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of ``tensors``."""
        ...
