"""What the laws of the filter assume about the robot: declared bounds, in one place.

The laws are tested at these bounds (``tests/safety/test_declared.py``, ``tests/safety/test_meshes.py``); beyond them
nothing is claimed.  The numbers of a robot in the field come from its own identification.
"""

from __future__ import annotations

from dataclasses import dataclass

from palmar.safety.types import ConfigError


@dataclass(frozen=True)
class Declared:
    """Bounds of the model error and, under them, of the distance between the true and the commanded robot."""

    mass: float = 0.2
    """Relative error of every link's mass and inertia."""
    payload: float = 0.5
    """Mass carried at the palm that nothing compensates [kg]."""
    delay: int = 3
    """Age of the command that the servos follow [ticks of 1 ms]."""
    q_noise: float = 2e-5
    """Standard deviation of a measured position [rad]."""
    qd_noise: float = 2e-3
    """Standard deviation of a measured velocity [rad/s]."""
    lag_arm: float = 0.10
    """Time constant with which an arm joint follows its command: the ratio kv / kp of its servo [s]."""
    lag_hand: float = 0.043
    """The same for a hand joint that touches nothing: (kv + damping) / kp [s]."""
    track_arm: float = 0.03
    """Largest distance of an arm joint from its command lagged by ``lag_arm`` [rad]."""
    track_hand: float = 0.12
    """Largest distance of a hand joint that touches nothing from its command lagged by ``lag_hand`` [rad]."""
    near: float = 0.01
    """Distances beyond this count as this in the next two: far away nobody slows down, and lags differ by more [m]."""
    closer: float = 0.002
    """How much closer two links truly come than any command brought them [m]: joints lag differently."""
    lower: float = 0.004
    """How much lower a link truly comes than any command brought it [m]."""

    def __post_init__(self) -> None:
        for name, value in self.__dict__.items():
            if not 0 <= value < float("inf"):
                raise ConfigError(f"declared.{name} must be finite and >= 0, got {value!r}")
