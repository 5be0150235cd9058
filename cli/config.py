"""What the command line asks for: Hydra composes the YAML groups of ``configs/``.

``task=lift`` picks a file of a group, ``algo.gamma=0.95`` changes one value.  Values are plain: no
interpolation, no class paths.  The dataclass beside the consumer decides which keys exist, not the YAML file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from palmar.safety.config import unknown
from palmar.safety.types import ConfigError

GROUPS = ("task", "engine", "robot", "algo", "constraints", "randomize")
WHOLE = ("robot",)
"""Groups of which only a file can be picked: their values are tied to a model."""


@dataclass(frozen=True)
class Composed:
    """The resolved configuration: which file of each group, and its values after all overrides."""

    choices: dict[str, str]
    values: dict[str, dict[str, Any]]
    overrides: tuple[str, ...]

    def constraints_text(self) -> str:
        """The constraint file with its overrides, as ``palmar.safety.constraints.parse`` reads it."""
        return yaml.safe_dump(self.values["constraints"], sort_keys=False)


def folder() -> Path:
    """Where the YAML groups are."""
    return Path(str(files("palmar.configs")))


def choices(group: str) -> list[str]:
    """Names that ``group=NAME`` accepts."""
    return sorted(p.stem for p in (folder() / group).glob("*.yaml"))


def compose(overrides: Sequence[str]) -> Composed:
    """The configuration of a training that ``overrides`` ask for.

    A task whose name is also that of a constraint file is held to that one, where the overrides name none.

    Args:
        overrides: ``group=name`` or ``group.key=value``, in Hydra's grammar.

    Raises:
        ConfigError: If a word is not of that form, or names no group or file.
    """
    chosen = _defaults()
    words = [_checked(word, chosen) for word in overrides]
    if chosen["task"] in choices("constraints") and not any(word.startswith("constraints=") for word in words):
        words.insert(0, _checked(f"constraints={chosen['task']}", chosen))
    raw = _hydra("config", words)
    return Composed(chosen, {group: dict(raw.get(group) or {}) for group in GROUPS}, tuple(overrides))


def values(section: str, overrides: Sequence[str], *, name: str) -> dict[str, Any]:
    """The values of one file ``configs/SECTION/NAME.yaml`` after ``key=value`` overrides; {} without a file.

    Raises:
        ConfigError: If a word is not of that form.
    """
    for word in overrides:
        if not word.partition("=")[1] or not word.partition("=")[0]:
            raise ConfigError(f"{word!r} is not of the form key=value")
    words = [f"++{section}.{word}" for word in overrides]
    if name in choices(section):
        words.insert(0, f"+{section}={name}")
    raw = _hydra(None, words).get(section)
    return dict(raw or {})


def _hydra(root: str | None, words: list[str]) -> dict[str, Any]:
    """What Hydra makes of ``words``: plain values, no interpolation."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(folder())):
            raw = OmegaConf.to_container(hydra_compose(root, overrides=words), resolve=False)
    except (HydraException, OmegaConfBaseException) as error:
        told = " ".join(words).replace("++", "")
        raise ConfigError(f"cannot read {told!r}: {str(error).splitlines()[0]}") from error
    assert isinstance(raw, dict)
    _refuse_interpolation(raw, "")
    return {str(key): value for key, value in raw.items()}


def _defaults() -> dict[str, str]:
    """File per group where the command line says nothing: the defaults list of ``configs/config.yaml``."""
    listed = yaml.safe_load((folder() / "config.yaml").read_text())["defaults"]
    return {group: name for entry in listed if isinstance(entry, dict) for group, name in entry.items()}


def _checked(word: str, chosen: dict[str, str]) -> str:
    """``word`` in Hydra's grammar; a picked file is noted in ``chosen``."""
    key, equals, value = word.partition("=")
    group = key.split(".")[0]
    if not equals or not key:
        raise ConfigError(f"{word!r} is not of the form group=name or group.key=value; groups: {', '.join(GROUPS)}")
    if group not in GROUPS:
        raise ConfigError(unknown("group", group, GROUPS))
    if key == group:
        if value not in choices(group):
            raise ConfigError(unknown(group, value, choices(group)))
        chosen[group] = value
        return word
    if group in WHOLE:
        raise ConfigError(f"{word!r}: values of {group} cannot be changed here, only {group}=NAME of {choices(group)}")
    return "++" + word  # add or replace: the strict loader knows which keys exist


def _refuse_interpolation(value: Any, where: str) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            _refuse_interpolation(inner, f"{where}.{key}".strip("."))
    elif isinstance(value, list):
        for k, inner in enumerate(value):
            _refuse_interpolation(inner, f"{where}[{k}]")
    elif isinstance(value, str) and ("${" in value or value == "???"):
        raise ConfigError(f"{where} is {value!r}: configurations hold plain values only")
