"""Settings of training: fields that know what they accept, and those that every algorithm has.

An algorithm's configuration is one flat frozen dataclass: ``TrainConfig``, and the groups of fields of the parts that
the algorithm is made of (``OnPolicyConfig``, ``ClipConfig``, ``MultiplierConfig``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from palmar.safety.types import ConfigError


def number(default: float, low: float, high: float = math.inf) -> Any:
    """A field that takes finite numbers from ``low`` to ``high``."""
    told = f"a finite number in [{low}, {high}]"
    return _field(default, told, lambda x: math.isfinite(x) and low <= x <= high)


def count(default: int, least: int = 1) -> Any:
    """A field that takes integers from ``least`` on."""
    return _field(default, f"an integer >= {least}", lambda x: x >= least)


def counts(default: tuple[int, ...]) -> Any:
    """A field that takes one or more positive integers."""
    return _field(default, "positive integers", lambda x: len(x) > 0 and min(x) > 0)


def rising(default: tuple[float, float]) -> Any:
    """A field that takes two positive numbers, the second not below the first."""
    return _field(default, "two increasing positive numbers", lambda x: 0 < x[0] <= x[1] < math.inf)


def span(default: tuple[int, int]) -> Any:
    """A field that takes two iterations, the second not before the first."""
    return _field(default, "two increasing iterations", lambda x: 0 <= x[0] <= x[1])


def choice(default: str, accepted: tuple[str, ...]) -> Any:
    """A field that takes one of a few names."""
    return _field(default, f"one of {list(accepted)}", lambda x: x in accepted)


def per_cost() -> Any:
    """A field that takes a finite number >= 0 by name of a constraint; empty by default."""
    accepts = "finite numbers >= 0", lambda x: all(math.isfinite(v) and v >= 0 for v in x.values())
    return field(default_factory=dict, metadata={"accepts": accepts})


def _field(default: Any, told: str, good: Any) -> Any:
    return field(default=default, metadata={"accepts": (told, good)})


@dataclass(frozen=True)
class TrainConfig:
    """One training, whatever the algorithm.  ``num_envs`` is what the environment must have."""

    algorithm: str = ""
    """Name of its module in ``policies.algorithms``."""
    seed: int = count(0, least=0)
    num_envs: int = count(128)
    iterations: int = count(200)
    """Updates at most."""
    budgets: Mapping[str, float] = per_cost()
    """Budgets per episode that replace those of the constraint file."""
    budget_floor: float = number(0.02, 1e-9)
    """Smallest budget a relative overrun is computed with, in the cost's unit (budgets of zero)."""
    cost_window: int = count(128)
    """Episodes whose mean cost is held against the budgets, the newest ones."""
    evaluate_every: int = count(10)
    """Iterations between deterministic evaluations."""
    checkpoint_every: int = count(20)
    """Iterations between checkpoints."""
    threads: int = count(1)
    """torch threads: two were 10x slower beside another busy process."""

    def __post_init__(self) -> None:
        for f in fields(self):
            told, good = f.metadata.get("accepts", ("", lambda _: True))
            if not good(value := getattr(self, f.name)):
                raise ConfigError(f"algo.{f.name} must be {told}, got {value!r}")
