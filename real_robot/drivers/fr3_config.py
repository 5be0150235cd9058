"""How an FR3 is reached and set up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from palmar.safety.types import CommandRefused, ConfigError

STIFFEST = 14250.0
"""Joint stiffness that libfranka takes at most [N m/rad]."""


@dataclass(frozen=True)
class Fr3Config:
    """How an FR3 is reached and set up.  (7,) where a tuple."""

    address: str = ""
    """Of the robot, IPv4 or host name."""
    timeout: float = 0.02
    """Without a packet for so long ``read`` raises [s]: the robot's own 20 packets."""
    realtime_kernel: bool = False
    """Refuse to open on a kernel without real-time capabilities: libfranka's own default."""
    stiffness: tuple[float, ...] = (3000.0, 3000.0, 3000.0, 2500.0, 2500.0, 2000.0, 2000.0)
    """Of the internal joint impedance [N m/rad], libfranka's default."""
    collision_torque: tuple[float, ...] = (35.0, 35.0, 32.0, 30.0, 29.0, 27.0, 24.0)
    """External torque that is a collision [N m]: franka_ros2's defaults."""
    collision_force: tuple[float, ...] = (40.0, 40.0, 40.0, 35.0, 35.0, 35.0)
    """External force [N] and torque [N m] at the flange that are one, (6,)."""
    load_mass: float = 0.0
    """Mass beyond what the robot's web page knows of [kg]: the hand."""
    load_center: tuple[float, ...] = (0.0, 0.0, 0.0)
    """Its centre of mass in the flange's frame [m], (3,)."""
    load_inertia: tuple[float, ...] = (0.0,) * 9
    """About it, column by column [kg m2], (9,)."""
    low: tuple[float, ...] = (-2.7437, -1.7837, -2.9007, -3.0421, -2.8065, 0.5445, -3.0159)
    """Joint ranges that commands keep [rad]: franka_description's."""
    high: tuple[float, ...] = (2.7437, 1.7837, 2.9007, -0.1518, 2.8065, 4.5169, 3.0159)
    v_max: tuple[float, ...] = (2.62, 2.62, 2.62, 2.62, 5.26, 4.18, 5.26)
    """[rad/s]"""
    a_max: float = 9.999
    """Every joint [rad/s2]: libfranka's rate_limiting.h."""
    j_max: float = 4999.0
    """[rad/s3]"""
    jump: float = 0.1
    """A command farther than this from the set-point is refused [rad]."""

    def __post_init__(self) -> None:
        if not self.address:
            raise ConfigError("fr3: address is missing, e.g. 172.16.0.2")
        sizes = {"collision_force": 6, "load_center": 3, "load_inertia": 9}
        for name in ("stiffness", "collision_torque", "low", "high", "v_max", *sizes):
            value = np.asarray(getattr(self, name), dtype=float)
            if value.shape != (sizes.get(name, 7),) or not np.isfinite(value).all():
                raise ConfigError(f"fr3: {name} needs {sizes.get(name, 7)} finite numbers, got {getattr(self, name)}")
        if not all(0.0 <= k <= STIFFEST for k in self.stiffness):
            raise ConfigError(f"fr3: stiffness must be in [0, {STIFFEST}] N m/rad, got {self.stiffness}")
        if min(*self.collision_torque, *self.collision_force) <= 0.0:
            raise ConfigError("fr3: collision thresholds must be > 0")
        if not 0.0 <= self.load_mass <= 3.0:
            raise ConfigError(f"fr3: load_mass must be in [0, 3] kg, the arm's payload, got {self.load_mass}")
        if np.any(np.array(self.low) >= np.array(self.high)) or min(self.v_max) <= 0.0:
            raise ConfigError("fr3: need low < high and v_max > 0 for every joint")
        for name, most in (("a_max", 10.0), ("j_max", 5000.0), ("timeout", 1.0), ("jump", 0.15)):
            if not 0.0 < getattr(self, name) <= most:
                raise ConfigError(f"fr3: {name} must be in (0, {most}], got {getattr(self, name)}")

    def check(self, q: np.ndarray, stiffness: np.ndarray | None, joints: Sequence[str]) -> None:
        """Refuse targets (7,) out of range and a stiffness (7,) that libfranka does not know.

        Raises:
            CommandRefused: It names the joint or the stiffness.
        """
        for name, value, low, high in zip(joints, q, self.low, self.high, strict=True):
            if not low <= value <= high:
                raise CommandRefused(f"{name}: {value:.4f} rad is outside [{low}, {high}]")
        if stiffness is not None and np.any(stiffness > STIFFEST):
            raise CommandRefused(f"stiffness must be in [0, {STIFFEST}] N m/rad, got {stiffness.tolist()}")
