"""The robot a constraint speaks about: joint names in hardware order, limits, kinematic model."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from palmar.safety.types import ConfigError

Array = np.ndarray


@dataclass(frozen=True)
class Limits:
    """Limits of every joint, hardware order, shape (n,), float64.

    The position-dependent speed limit of the FR3 is
    ``min(v_max, max(0, -offset + sqrt(two_a * (q_up - q))))`` upwards and its mirror downwards
    (libfranka, ``joint_velocity_limits.cpp``); joints without one carry ``two_a = inf``.
    That published curve is not control-invariant for joints 5 and 7; ``safety.bounds`` derives the one that is.
    """

    q_min: Array
    """[rad]"""
    q_max: Array
    """[rad]"""
    v_max: Array
    """[rad/s]"""
    a_max: Array
    """[rad/s2]"""
    j_max: Array
    """[rad/s3]"""
    tau_max: Array
    """[N m]"""
    curve_offset: Array
    """[rad/s]"""
    curve_two_a: Array
    """[rad/s2]"""
    curve_q_up: Array
    """[rad]"""
    curve_q_low: Array
    """[rad]"""

    def __post_init__(self) -> None:
        n = len(self.q_min)
        for name, value in self.__dict__.items():
            array = np.asarray(value, dtype=np.float64)
            if array.shape != (n,):
                raise ConfigError(f"limits.{name} has shape {array.shape}, need ({n},)")
            if np.isnan(array).any():
                raise ConfigError(f"limits.{name} contains NaN: {array.tolist()}")
            object.__setattr__(self, name, array)
        if np.any(self.q_min >= self.q_max):
            raise ConfigError(f"need q_min < q_max, got {self.q_min.tolist()} and {self.q_max.tolist()}")
        for name in ("v_max", "a_max", "j_max", "tau_max"):
            if np.any(getattr(self, name) <= 0):
                raise ConfigError(f"limits.{name} must be positive, got {getattr(self, name).tolist()}")


@dataclass(frozen=True)
class RobotModel:
    """An arm-hand robot: names, limits and the MJCF of robot and table (no objects), one per bundle.

    ``pairs`` names the capsule pairs (geom, geom) whose distance is ``clearance_self``; ``table_geoms`` the
    geoms whose height above the table top is ``clearance_table``.
    """

    name: str
    joints: tuple[str, ...]
    """Hardware order; equals the order of every (n,) array."""
    n_arm: int
    """The first ``n_arm`` joints are the arm, the rest the hand."""
    limits: Limits
    xml: str
    """MJCF of robot and table with inline geometry only (no mesh files)."""
    palm_body: str
    tip_geoms: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]
    table_geoms: tuple[str, ...]
    home: Array
    """A viable pose at rest [rad], (n,)."""

    def __post_init__(self) -> None:
        if len(set(self.joints)) != len(self.joints):
            raise ConfigError(f"joint names repeat: {self.joints}")
        if len(self.limits.q_min) != len(self.joints):
            raise ConfigError(f"{len(self.joints)} joints but {len(self.limits.q_min)} limits")

    @property
    def n(self) -> int:
        """Number of joints."""
        return len(self.joints)

    def hash(self) -> str:
        """SHA-256 of everything that matters, hex."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        raw = asdict(self)
        raw["limits"] = {k: [str(x) if np.isinf(x) else float(x) for x in v] for k, v in raw["limits"].items()}
        raw["home"] = [float(x) for x in self.home]
        raw["joints"], raw["tip_geoms"], raw["table_geoms"] = (
            list(self.joints),
            list(self.tip_geoms),
            list(self.table_geoms),
        )
        raw["pairs"] = [list(p) for p in self.pairs]
        return raw

    @staticmethod
    def from_json(raw: dict[str, Any]) -> RobotModel:
        """The inverse of ``to_json``."""
        try:
            limits = Limits(**{k: np.array([float(x) for x in v]) for k, v in raw["limits"].items()})
            return RobotModel(
                name=raw["name"],
                joints=tuple(raw["joints"]),
                n_arm=int(raw["n_arm"]),
                limits=limits,
                xml=raw["xml"],
                palm_body=raw["palm_body"],
                tip_geoms=tuple(raw["tip_geoms"]),
                pairs=tuple((a, b) for a, b in raw["pairs"]),
                table_geoms=tuple(raw["table_geoms"]),
                home=np.array(raw["home"], dtype=np.float64),
            )
        except (KeyError, TypeError) as error:
            raise ConfigError(f"not a robot model: {error!r}") from error
