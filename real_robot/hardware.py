"""Which devices a robot has: the YAML of ``configs/hardware``, bound to the robot's joints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from palmar.real_robot.config import PARTS, DeviceConfig
from palmar.real_robot.device import configuration
from palmar.safety.config import load, unknown
from palmar.safety.robot import RobotModel
from palmar.safety.types import ConfigError

OURS = ("driver", "silence", "fresh")
"""Keys of a device that are not its driver's own."""


def names() -> list[str]:
    """Files of ``configs/hardware``, which are named like robots."""
    return sorted(
        p.name.removesuffix(".yaml") for p in (files("palmar.configs") / "hardware").iterdir() if ".yaml" in p.name
    )


def devices(
    name: str, robot: RobotModel, memories: Mapping[str, str], changes: Mapping[str, Mapping[str, Any]]
) -> tuple[DeviceConfig, ...]:
    """The devices of ``robot``: arm and hand.

    Args:
        name: A file of ``configs/hardware``, or a path that ends in ``.yaml``.
        robot: Whose joints they move.
        memories: Path of the wire of each device.
        changes: Keys that differ from the file, per device.

    Raises:
        ConfigError: If there is no such file, or it has unknown keys, drivers or impossible values.
    """
    raw = _read(name)
    joints = {"arm": robot.joints[: robot.n_arm], "hand": robot.joints[robot.n_arm :]}
    made = []
    for part in PARTS:
        values = _changed(raw[part], changes.get(part, {}))
        ours = {key: values.pop(key) for key in OURS if key in values}
        device = load(
            DeviceConfig,
            {"name": part, "joints": joints[part], "memory": memories[part], "settings": values} | ours,
            where=part,
        )
        made.append(_limited(device, robot))
    return tuple(made)


def _changed(there: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The file's values with ``changes``; another driver does not inherit the keys of the file's."""
    other = changes.get("driver", there.get("driver")) != there.get("driver")
    return {k: v for k, v in there.items() if k in OURS or not other} | dict(changes)


def _read(name: str) -> dict[str, dict[str, Any]]:
    path = Path(name) if name.endswith(".yaml") else Path(str(files("palmar.configs") / "hardware" / f"{name}.yaml"))
    try:
        raw = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"{unknown('hardware', name, names())}, or a path of a YAML file") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: {error}") from error
    if not isinstance(raw, dict) or set(raw) != set(PARTS) or not all(isinstance(v, dict) for v in raw.values()):
        raise ConfigError(f"{path}: need a mapping with the keys {list(PARTS)}, each a mapping; got {raw!r}")
    return raw


def _limited(device: DeviceConfig, robot: RobotModel) -> DeviceConfig:
    """The device, checked; a driver that compares limits with the hardware's own compares those of the filter.

    What is missing of ``low``, ``high`` and ``v_max`` among the driver's keys is taken from the robot's model.
    """
    known = {f.name for f in fields(configuration(device))}
    index = [robot.joints.index(j) for j in device.joints]
    limits = {"low": robot.limits.q_min, "high": robot.limits.q_max, "v_max": robot.limits.v_max}
    added = {
        key: [float(x) for x in value[index]]
        for key, value in limits.items()
        if key in known and key not in device.settings
    }
    return DeviceConfig(**{**vars(device), "settings": {**device.settings, **added}})
