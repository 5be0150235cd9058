"""The policy's side of each task by name: what a policy node needs and nothing of the simulator."""

from __future__ import annotations

from palmar.safety.robot import RobotModel
from palmar.sim.interface import TaskIO
from palmar.sim.tasks import find


def policy_io(task: str, robot: RobotModel, batch: int = 1) -> TaskIO:
    """Observation and action mapping of ``task`` for ``batch`` robots.

    Raises:
        ConfigError: If there is no such task.
    """
    return find.load(task).io(robot, batch)
