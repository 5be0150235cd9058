"""Names and ranges of the Allegro hand's joints, and how one is configured.

Facts: Wonikrobotics-git/allegro_hand_ros2_v5 2a6de97 (order, limits, units, clamp), MuJoCo Menagerie (limits).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from palmar.safety.types import ConfigError

FINGERS = ("if", "mf", "rf", "th")
JOINTS = (
    *(f"{f}_{joint}" for f in FINGERS[:3] for joint in ("abd", "mcp", "pip", "dip")),
    *(f"th_{joint}" for joint in ("opp", "abd", "mcp", "ipl")),
)
"""The hand's own order."""
LIMITS = {
    **{f"{f}_{joint}": limit for f in FINGERS[:3] for joint, limit in (
        ("abd", (-0.47, 0.47)), ("mcp", (-0.196, 1.61)), ("pip", (-0.174, 1.709)), ("dip", (-0.227, 1.618)))},
    "th_opp": (0.263, 1.396), "th_abd": (-0.105, 1.163), "th_mcp": (-0.05, 1.644), "th_ipl": (-0.162, 1.719),
}  # fmt: skip
"""Range of each joint [rad]: V5's and Menagerie's, intersected by name, as in ``assets/allegro``."""


@dataclass(frozen=True)
class AllegroConfig:
    """How the hand is wired, which one it is, and how hard it may press."""

    interface: str = "socketcan"
    """A bus of python-can: socketcan, slcan, pcan, virtual, ..."""
    channel: str = "can0"
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of ``can.Bus``."""
    device: int = 0
    """Device number in the arbitration ids, 0 to 3."""
    hand: str = "right"
    kind: str = "A"
    """A (not geared) or B (geared), as printed in its serial number."""
    period: float = 0.003
    """Between two reports of the fingers, and so of the position loop [s], whole milliseconds."""
    stiffness: float = 3.0
    """Where a command names none [N m/rad]."""
    damping: float = 0.1
    """[N m s/rad]"""
    stiffness_max: float = 6.0
    """Largest accepted: stiffer is not stable with this period."""
    damping_max: float = 0.3
    units: float = 1430.0
    """Torque words per N m.  The vendor's number; whether its unit is N m is stated nowhere."""
    clamp: float = 240.0
    """Largest torque word, as in the vendor's driver."""
    cutoff: float = 10.0
    """Of the low-pass on the velocity [Hz], which is a difference of counts."""
    stale: float = 0.03
    """Age of a reading after which it counts as none, and the silent finger is a fault [s]."""
    watchdog: float = 0.1
    """Time without ``write`` after which the loop holds by itself [s]."""
    rate: float = 333.0
    """Cycles of write and read per second [Hz]."""
    temperature: float = 70.0
    """Hottest motor accepted [deg C], where the hand reports it."""

    def __post_init__(self) -> None:
        for name, accepted in (("hand", ("right", "left")), ("kind", ("A", "B")), ("device", (0, 1, 2, 3))):
            if getattr(self, name) not in accepted:
                raise ConfigError(f"{name} must be one of {accepted}, got {getattr(self, name)!r}")
        ranges = {
            "period": (0.002, 0.02),
            "stiffness": (0.0, self.stiffness_max),
            "damping": (0.0, self.damping_max),
            "stiffness_max": (0.0, 20.0),
            "damping_max": (0.0, 1.0),
            "units": (1.0, 1e5),
            "clamp": (1.0, 240.0),
            "cutoff": (1.0, 200.0),
            "stale": (2.0 * self.period, 0.5),
            "watchdog": (2.0 * self.period, 2.0),
            "rate": (20.0, 1000.0),
            "temperature": (20.0, 100.0),
        }
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name} must be {low:g} to {high:g}, got {getattr(self, name)}")
        if not math.isclose(1e3 * self.period, round(1e3 * self.period), abs_tol=1e-9):
            raise ConfigError(f"period must be whole milliseconds, got {self.period} s")
