"""Tasks by name.  A task is a module of this folder with a file ``configs/task/<name>.yaml``: nothing registers it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from palmar.safety.config import unknown
from palmar.safety.types import ConfigError


@dataclass(frozen=True)
class Found:
    """What a task's module offers."""

    config: type
    """Frozen configuration."""
    task: Callable[[Any], Any]
    """By the protocol ``sim.interface.Task``, of a configuration."""
    io: Callable[..., Any]
    """The policy's side, of (robot, batch)."""
    scripted: Callable[[], dict[str, Callable[[], Any]]]
    """Policies that need no training, by name."""


def names() -> tuple[str, ...]:
    """Every task there is."""
    folder = files("palmar.configs") / "task"
    return tuple(sorted(p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name.endswith(".yaml")))


def load(name: str) -> Found:
    """The task called ``name``.

    Raises:
        ConfigError: If there is none.
    """
    if name not in names():
        raise ConfigError(unknown("task", name, names()))
    module = importlib.import_module(f"palmar.sim.tasks.{name}")
    return Found(module.Config, module.Task, module.IO, getattr(module, "scripted", dict))
