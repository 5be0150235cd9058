"""Driver ``ros2_control``: how the hardware is reached; what drives it is ``real_robot.nodes.controller``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from palmar.safety.config import unknown
from palmar.safety.types import ConfigError
from palmar.sim.interface import Robot

KINDS = ("trajectory", "forward")


@dataclass(frozen=True)
class Ros2ControlConfig:
    """How the hardware is reached."""

    controller: str = "joint_trajectory_controller"
    """Name of the controller's node."""
    kind: str = "trajectory"
    names: tuple[str, ...] = ()
    """The hardware's names of the device's joints, in its order; () where they are the same."""
    namespace: str = ""
    domain: int = 0
    """ROS domain; 0 leaves it to the environment."""
    rate: float = 200.0
    """Of this process's cycle: readings are taken up this often [Hz]."""
    commands: float = 50.0
    """Messages to the controller per second, the policy's rate or a little more [Hz]."""
    fresh: float = 0.02
    """A joint state older than this counts as none [s]; the filter stops at 0.02 s."""
    effort: bool = True
    """Whether joint states carry efforts; without them torques read as zero."""
    wait: float = 5.0
    """How long opening waits for controller and joint states [s]."""
    brake: float = 5.0
    """Deceleration at the end of every trajectory and in ``stop`` [rad/s2]."""
    low: tuple[float, ...] = ()
    """Ends of the joints' ranges, which the way to rest keeps [rad]; () for none."""
    high: tuple[float, ...] = ()
    jump: float = 0.2
    """A command farther than this from where the joint is, is refused [rad]."""
    follow: float = 0.1
    """A joint farther than this from its command for ``follow_time`` does not follow [rad]."""
    follow_time: float = 0.5
    """[s]"""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(unknown("kind of controller", self.kind, KINDS))
        for name, low, high in (
            ("rate", 50.0, 1000.0), ("commands", 5.0, 1000.0), ("fresh", 0.005, 0.5), ("wait", 0.0, 60.0),
            ("brake", 0.1, 50.0), ("jump", 0.01, 1.0), ("follow", 0.005, 1.0), ("follow_time", 0.05, 5.0),
            ("domain", 0, 232),
        ):  # fmt: skip
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"ros2_control: {name} must be in [{low}, {high}], got {getattr(self, name)}")
        if not self.controller.strip("/") or len(set(self.names)) != len(self.names):
            raise ConfigError(f"ros2_control: need a controller's name and different joints, got {self}")
        if len(self.low) != len(self.high) or any(not a < b for a, b in zip(self.low, self.high, strict=True)):
            raise ConfigError(f"ros2_control: low and high must be as many, and low < high: {self.low}, {self.high}")
        if self.commands > self.rate:
            raise ConfigError(f"ros2_control: commands ({self.commands} Hz) cannot be more than rate ({self.rate} Hz)")


def open_driver(config: Ros2ControlConfig, joints: Sequence[str]) -> Robot:
    """See ``real_robot.nodes.controller.Ros2Control``.

    Raises:
        ConfigError: If names do not fit, or the controller has other joints or another interface.
        DriverError: If controller or joint states do not show in time; it says which.
    """
    return import_module("palmar.real_robot.nodes.controller").Ros2Control(config, joints)  # needs rclpy
