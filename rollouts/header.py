"""What a rollout file says about itself before the first message."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from palmar.rollouts import schema
from palmar.safety.constraints import ConstraintSet, parse
from palmar.safety.robot import RobotModel
from palmar.safety.types import ConfigError, RolloutRefused

Array = np.ndarray


@dataclass(frozen=True)
class RolloutHeader:
    """Everything needed to understand, audit and replay the messages that follow.

    A run on hardware has no ``model_xml``, ``state0`` and ``physics_dt``: it can be audited, not replayed.
    """

    task: str
    instruction: str
    robot: RobotModel
    constraints: str
    """Text of the constraint file in force."""
    control_dt: float
    """Time one recorded sample stands for [s]."""
    t0: float = 0.0
    """Clock of the run (monotonic or simulated) at ``wall_start_ns`` [s]."""
    wall_start_ns: int = 0
    """Wall clock at ``t0``, nanoseconds since 1970: the origin of every stamp in the file."""
    scene: str = ""
    objects: tuple[str, ...] = ()
    """Names in the order of every m axis."""
    engine: str = ""
    """What produced the run, for example ``mujoco``."""
    versions: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    noise_seeds: Mapping[str, int] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    """The resolved configuration."""
    git: Mapping[str, Any] = field(default_factory=dict)
    """For example ``{"commit": ..., "dirty": false}``."""
    command: str = ""
    """Command line that made the run."""
    physics_dt: float | None = None
    """[s]"""
    model_xml: str | None = None
    """MJCF of the composed scene that was *compiled for the run*."""
    model_hash: str = ""
    """``replay.fingerprint`` of the model that ran; '' if nobody took it."""
    assets: Mapping[str, bytes] = field(default_factory=dict)
    """Files ``model_xml`` names."""
    state0: Array | None = None
    """Full ``mjSTATE_INTEGRATION`` vector before the first step."""

    def __post_init__(self) -> None:
        if not self.control_dt > 0:
            raise ConfigError(f"control_dt must be positive, got {self.control_dt}")
        if self.physics_dt is not None and not self.physics_dt > 0:
            raise ConfigError(f"physics_dt must be positive or None, got {self.physics_dt}")
        bad = [name for name in self.objects if not name or "/" in name]
        if bad or len(set(self.objects)) != len(self.objects):
            raise ConfigError(f"object names must be unique and without '/', got {self.objects}")

    def constraint_set(self) -> ConstraintSet:
        """The constraint file in force, bound to the robot's limits."""
        return parse(self.constraints, self.robot.limits)

    def to_metadata(self) -> dict[str, str]:
        """The MCAP metadata record: JSON text per key.

        Raises:
            ConfigError: If a value is not plain JSON (NaN and infinity included).
        """
        raw = {
            "format_version": schema.FORMAT_VERSION,
            "task": self.task,
            "instruction": self.instruction,
            "scene": self.scene,
            "objects": list(self.objects),
            "joints": list(self.robot.joints),
            "constraint_names": list(self.constraint_set().names),
            "engine": self.engine,
            "versions": dict(self.versions),
            "seed": self.seed,
            "noise_seeds": dict(self.noise_seeds),
            "config": dict(self.config),
            "git": dict(self.git),
            "command": self.command,
            "robot_hash": self.robot.hash(),
            "constraint_hash": self.constraint_set().hash(),
            "model_hash": self.model_hash,
            "physics_dt": self.physics_dt,
            "control_dt": self.control_dt,
            "t0": self.t0,
            "wall_start_ns": self.wall_start_ns,
        }
        try:
            return {key: json.dumps(value, allow_nan=False) for key, value in raw.items()}
        except (TypeError, ValueError) as error:
            raise ConfigError(f"rollout header is not plain JSON: {error}") from error

    def to_attachments(self) -> dict[str, bytes]:
        """The MCAP attachments by name."""
        files = {
            schema.ROBOT_JSON: json.dumps(self.robot.to_json()).encode(),
            schema.CONSTRAINTS_YAML: self.constraints.encode(),
        }
        if self.model_xml is not None:
            files[schema.MODEL_XML] = self.model_xml.encode()
        if self.state0 is not None:
            files[schema.STATE0] = np.ascontiguousarray(self.state0, dtype="<f8").tobytes()
        files |= {schema.ASSET_PREFIX + name: data for name, data in self.assets.items()}
        return files

    @staticmethod
    def from_records(metadata: Mapping[str, str], attachments: Mapping[str, bytes]) -> RolloutHeader:
        """The inverse of ``to_metadata`` and ``to_attachments``.

        Raises:
            RolloutRefused: If a part is missing, from a newer format, or does not fit its recorded hash.
        """
        try:
            raw = {key: json.loads(text) for key, text in metadata.items()}
            if raw["format_version"] > schema.FORMAT_VERSION:
                raise RolloutRefused(
                    f"format version {raw['format_version']}, this Palmar reads up to {schema.FORMAT_VERSION}"
                )
            header = _header(raw, attachments)
            hashes = {"robot_hash": header.robot.hash(), "constraint_hash": header.constraint_set().hash()}
        except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError, ConfigError) as error:
            raise RolloutRefused(f"header is not readable: {error!r}") from error
        for key, found in hashes.items():
            if raw.get(key) != found:
                raise RolloutRefused(f"{key} is {raw.get(key)!r} but the attachment's is {found!r}")
        return header


def _header(raw: Mapping[str, Any], attachments: Mapping[str, bytes]) -> RolloutHeader:
    state0 = attachments.get(schema.STATE0)
    model = attachments.get(schema.MODEL_XML)
    plain = ("task", "instruction", "scene", "engine", "versions", "seed", "noise_seeds", "config", "git")
    plain += ("command", "model_hash", "physics_dt", "control_dt", "t0", "wall_start_ns")
    return RolloutHeader(
        robot=RobotModel.from_json(json.loads(attachments[schema.ROBOT_JSON])),
        constraints=attachments[schema.CONSTRAINTS_YAML].decode(),
        objects=tuple(raw["objects"]),
        model_xml=None if model is None else model.decode(),
        state0=None if state0 is None else np.frombuffer(state0, dtype="<f8").astype(np.float64),
        assets={
            name.removeprefix(schema.ASSET_PREFIX): data
            for name, data in attachments.items()
            if name.startswith(schema.ASSET_PREFIX)
        },
        **{key: raw[key] for key in plain},
    )
