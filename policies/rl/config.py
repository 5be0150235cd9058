"""Settings of PPO, PPO with fixed penalties and PPO-Lagrangian.

The defaults of rollout, update and networks were measured on ``lift``: 97 % with three blocks after 62 s on
two cores.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from palmar.policies.networks import COST_CRITICS
from palmar.safety.types import ConfigError

ALGORITHMS = ("ppo", "ppo_penalty", "ppo_lagrangian")


@dataclass(frozen=True)
class PPOConfig:
    """One training run.  ``num_envs`` is what the environment must have."""

    algorithm: str = "ppo_lagrangian"
    """ppo: costs are logged; ppo_penalty: reward - sum w_k cost_k; ppo_lagrangian: a multiplier per cost."""
    seed: int = 0
    num_envs: int = 128
    steps: int = 24
    """Length of a rollout [control steps]."""
    iterations: int = 200
    """Rollouts at most."""
    epochs: int = 4
    minibatch: int = 1024
    """Samples per gradient step."""
    gamma: float = 0.98
    """Discount of reward and costs per control step."""
    gae_lambda: float = 0.95
    clip: float = 0.2
    lr: float = 5e-4
    """Step size of the critics, and first one of the actor (then adapted to the KL divergence)."""
    lr_range: tuple[float, float] = (1e-5, 2e-3)
    kl_target: float = 0.015
    """KL divergence aimed at: above twice this the actor's step size shrinks, below half it grows."""
    kl_stop: float = 4.0
    """An update ends early when an epoch's mean KL divergence exceeds this multiple of the target."""
    entropy: float = 0.0
    std: float = 0.5
    """First spread of the actions."""
    std_range: tuple[float, float] = (0.05, 1.0)
    std_final: float = 1.0
    """Largest spread once ``std_anneal`` is over: budgets are kept by what is *done*, noise included, so a
    policy that explores as widely as at first can only keep them by staying away from everything."""
    std_anneal: tuple[int, int] = (0, 0)
    """Iterations between which the largest spread sinks linearly from ``std`` to ``std_final``; equal: never."""
    hidden: tuple[int, ...] = (256, 128)
    actor_gain: float = 0.01
    grad_norm: float = 1.0
    cost_critic: str = "heads"
    """heads: one network for all costs; separate: one network per cost."""
    penalties: Mapping[str, float] = field(default_factory=dict)
    """Reward lost per unit of each cost (ppo_penalty only)."""
    budgets: Mapping[str, float] = field(default_factory=dict)
    """Budgets per episode that replace those of the constraint file."""
    budget_share: float = 0.8
    """Multipliers aim at this share of a budget, so that the mean of unseen episodes lands inside it."""
    budget_floor: float = 0.02
    """Smallest budget a relative overrun is computed with, in the cost's unit (budgets of zero)."""
    cost_floor: float = 0.01
    """Smallest spread of a cost's advantage that counts as signal, in the cost's unit."""
    cost_window: int = 128
    """Episodes whose mean cost a multiplier is updated with, the newest ones."""
    warmup: int = 5
    """Rollouts before multipliers act: first the cost critics learn."""
    multiplier_p: float = 0.5
    """Multiplier per relative overrun (proportional part)."""
    multiplier_i: float = 0.05
    """Multiplier per relative overrun and rollout (integral part)."""
    multiplier_max: float = 10.0
    evaluate_every: int = 10
    """Rollouts between deterministic evaluations."""
    checkpoint_every: int = 20
    """Rollouts between checkpoints."""
    threads: int = 1
    """torch threads: two were 10x slower beside another busy process (learning.md)."""

    def __post_init__(self) -> None:
        for name in ("lr_range", "std_range", "std_anneal", "hidden"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name, accepted in (("algorithm", ALGORITHMS), ("cost_critic", COST_CRITICS)):
            if getattr(self, name) not in accepted:
                raise ConfigError(f"algo.{name} is {getattr(self, name)!r}, accepted {list(accepted)}")
        self._check_counts()
        self._check_ranges()
        if self.num_envs * self.steps % self.minibatch:
            raise ConfigError(
                f"algo.minibatch must divide num_envs * steps = {self.num_envs * self.steps}, got {self.minibatch}"
            )
        if bool(self.penalties) != (self.algorithm == "ppo_penalty"):
            raise ConfigError(
                "algo.penalties go with algorithm ppo_penalty and only with it: "
                f"{self.algorithm} has {dict(self.penalties)}"
            )

    def _check_counts(self) -> None:
        ones = ("num_envs", "steps", "iterations", "epochs", "minibatch", "cost_window", "threads")
        for name in (*ones, "evaluate_every", "checkpoint_every", "warmup", "seed"):
            value, least = getattr(self, name), 0 if name in ("warmup", "seed") else 1
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigError(f"algo.{name} must be an integer >= {least}, got {value!r}")
        if not self.hidden or not all(isinstance(n, int) and n > 0 for n in self.hidden):
            raise ConfigError(f"algo.hidden must be positive integers, got {self.hidden}")

    def largest_std(self, iteration: int) -> float:
        """Upper bound of the actor's spread at an iteration."""
        begin, end = self.std_anneal
        if begin == end or iteration < begin:
            return self.std_range[1]
        share = min((iteration - begin) / (end - begin), 1.0)
        return max(self.std + share * (self.std_final - self.std), self.std_range[0])

    def _check_ranges(self) -> None:
        inf = math.inf
        ranges = {
            "gamma": (0, 1), "gae_lambda": (0, 1), "clip": (1e-9, 1), "lr": (1e-12, 1), "entropy": (0, inf),
            "kl_target": (1e-12, inf), "kl_stop": (1, inf), "std": self.std_range, "std_final": (1e-3, inf),
            "actor_gain": (0, inf),
            "grad_norm": (1e-12, inf), "budget_share": (1e-3, 1), "budget_floor": (1e-9, inf),
            "cost_floor": (1e-9, inf), "multiplier_p": (0, inf), "multiplier_i": (0, inf),
            "multiplier_max": (1e-9, inf),
        }  # fmt: skip
        for name in ("lr_range", "std_range"):
            low_high = getattr(self, name)
            if len(low_high) != 2 or not 0 < low_high[0] <= low_high[1] < inf:
                raise ConfigError(f"algo.{name} must be two increasing positive numbers, got {low_high}")
        if len(self.std_anneal) != 2 or not 0 <= self.std_anneal[0] <= self.std_anneal[1]:
            raise ConfigError(f"algo.std_anneal must be two increasing iterations, got {self.std_anneal}")
        for name, (low, high) in ranges.items():
            _number(name, getattr(self, name), low, high)
        for name in ("penalties", "budgets"):
            for key, value in getattr(self, name).items():
                _number(f"{name}.{key}", value, 0, inf)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        raw = asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in raw.items()}

    @staticmethod
    def from_json(raw: Mapping[str, Any]) -> PPOConfig:
        """From plain values, such as a file of ``configs/algo``.

        Raises:
            ConfigError: If a key is unknown or a value impossible.
        """
        known = {f.name for f in fields(PPOConfig)}
        if set(raw) - known:
            raise ConfigError(f"algo: unknown keys {sorted(set(raw) - known)}, accepted {sorted(known)}")
        return PPOConfig(**raw)


def _number(name: str, value: Any, low: float, high: float) -> None:
    ok = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not ok or not low <= value <= high:
        raise ConfigError(f"algo.{name} must be a finite number in [{low}, {high}], got {value!r}")
