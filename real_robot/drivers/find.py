"""Drivers by name.  A driver is a module with ``open_driver(config, joints)``: nothing registers it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, is_dataclass
from importlib import import_module
from importlib.resources import files
from importlib.util import find_spec
from types import ModuleType
from typing import Any, get_type_hints

from palmar.safety.config import unknown
from palmar.safety.types import ConfigError
from palmar.sim.interface import Robot

FOLDER = "palmar.real_robot.drivers"


@dataclass(frozen=True)
class Found:
    """What a driver's module offers."""

    config: type
    """Frozen configuration: what ``open_driver`` says that its ``config`` is."""
    open: Callable[[Any, Sequence[str]], Robot]
    """The driver of that configuration for joints by name, opened and checked."""


def names() -> tuple[str, ...]:
    """Every driver of Palmar's own: the files of this folder with an ``open_driver``."""
    there = (p for p in files(FOLDER).iterdir() if p.name.endswith(".py"))
    return tuple(sorted(p.name.removesuffix(".py") for p in there if "\ndef open_driver(" in p.read_text()))


def module(name: str) -> ModuleType:
    """The module of the driver ``name``: a file of this folder, else any module on Python's path.

    Raises:
        ConfigError: If there is none, or it needs what is not installed.
    """
    own = f"{FOLDER}.{name}"
    where = own if "." not in name and find_spec(own) is not None else name
    try:
        found = import_module(where)
    except ImportError as error:
        if error.name and f"{where}.".startswith(f"{error.name}."):
            raise ConfigError(f"{unknown('driver', name, names())}, or a module with open_driver") from error
        raise ConfigError(f"driver {name!r} needs what is not installed ({error}): see docs/drivers.md") from error
    if not callable(getattr(found, "open_driver", None)):
        raise ConfigError(f"{unknown('driver', name, names())}: {where} has no open_driver(config, joints)")
    return found


def load(name: str) -> Found:
    """The driver called ``name``.

    Raises:
        ConfigError: If there is none, it needs what is not installed, or does not say of what type its ``config`` is.
    """
    opened = module(name).open_driver
    config = get_type_hints(opened).get("config")
    if not (isinstance(config, type) and is_dataclass(config)):
        raise ConfigError(f"driver {name!r}: open_driver's config must be annotated with a dataclass, got {config}")
    return Found(config, opened)
