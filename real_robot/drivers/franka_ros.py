"""Driver ``franka_ros``: how the arm is reached; what drives it is ``real_robot.nodes.franka_ros``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from palmar.safety.types import ConfigError
from palmar.sim.interface import Robot


@dataclass(frozen=True)
class FrankaRosConfig:
    """How an arm under franka_ros2 is reached.  (7,) where a tuple."""

    namespace: str = ""
    """Of its nodes, '' for none."""
    controller: str = "fr3_arm_controller"
    """A joint_trajectory_controller."""
    broadcaster: str = "franka_robot_state_broadcaster"
    domain: int = 0
    """ROS domain; 0 leaves it to the environment."""
    rate: float = 100.0
    """Of commands [Hz]."""
    fresh: float = 0.05
    """A state older than this counts as none [s]."""
    wait: float = 5.0
    """How long opening waits for the arm and its controller [s]."""
    brake: float = 5.0
    """Deceleration at the end of every trajectory [rad/s2]."""
    jump: float = 0.2
    """A command farther than this from where the arm is, is refused [rad]."""
    follow: float = 0.15
    """An arm farther than this from its commands for ``follow_time`` does not follow [rad]."""
    follow_time: float = 0.5
    """[s]"""
    low: tuple[float, ...] = (-2.7437, -1.7837, -2.9007, -3.0421, -2.8065, 0.5445, -3.0159)
    """Joint ranges that commands keep [rad]: franka_description's."""
    high: tuple[float, ...] = (2.7437, 1.7837, 2.9007, -0.1518, 2.8065, 4.5169, 3.0159)

    def __post_init__(self) -> None:
        for name, low, high in (
            ("rate", 10.0, 200.0), ("fresh", 0.005, 1.0), ("wait", 0.0, 60.0), ("brake", 0.1, 10.0),
            ("jump", 0.01, 0.5), ("follow", 0.01, 0.5), ("follow_time", 0.05, 5.0), ("domain", 0, 232),
        ):  # fmt: skip
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"franka_ros: {name} must be in [{low}, {high}], got {getattr(self, name)}")
        if not self.controller or not self.broadcaster:
            raise ConfigError("franka_ros: controller and broadcaster need names")
        if len(self.low) != 7 or len(self.high) != 7 or not all(a < b for a, b in zip(self.low, self.high)):  # noqa: B905
            raise ConfigError("franka_ros: need 7 joints with low < high")

    def topic(self, node: str, name: str) -> str:
        """Of one of the robot's nodes."""
        return "/".join(["", *(part for part in (self.namespace.strip("/"), node, name) if part)])


def open_driver(config: FrankaRosConfig, joints: Sequence[str]) -> Robot:
    """See ``real_robot.nodes.franka_ros.FrankaRos``.

    Raises:
        ConfigError: If there are not 7 joints.
        DriverError: If the arm's state or its controller do not show in time; it says which.
    """
    return import_module("palmar.real_robot.nodes.franka_ros").FrankaRos(config, joints)  # needs rclpy
