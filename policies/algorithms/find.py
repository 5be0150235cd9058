"""Algorithms by name: a module of this folder with ``Config`` and ``Learner``.  Nothing registers it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from palmar.policies.rl.learner import Learner
from palmar.safety.config import unknown
from palmar.safety.types import ConfigError


@dataclass(frozen=True)
class Found:
    """What an algorithm's module offers."""

    config: type
    """Frozen configuration, a ``TrainConfig``."""
    learner: Callable[..., Learner]
    """Of (config, space)."""


def names() -> tuple[str, ...]:
    """Every algorithm there is."""
    folder = files("palmar.policies.algorithms")
    stems = {p.name.removesuffix(".py") for p in folder.iterdir() if p.name.endswith(".py")}
    return tuple(sorted(stems - {"__init__", "find"}))


def load(name: Any) -> Found:
    """The algorithm called ``name``.

    Raises:
        ConfigError: If there is none.
    """
    if name not in names():
        raise ConfigError(unknown("algorithm", name, names()))
    module = importlib.import_module(f"palmar.policies.algorithms.{name}")
    return Found(module.Config, module.Learner)
