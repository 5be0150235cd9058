"""The policy's side of each task by name: what a policy node needs and nothing of the simulator."""

from __future__ import annotations

from typing import Any

from palmar.safety.robot import RobotModel
from palmar.safety.types import ConfigError
from palmar.sim.tasks.lift import LiftIO
from palmar.sim.tasks.reach import ReachIO


def policy_io(task: str, robot: RobotModel, batch: int = 1) -> Any:
    """Observation and action mapping of ``task`` for ``batch`` robots.

    Raises:
        ConfigError: If there is no such task.
    """
    known = {"lift": LiftIO, "reach": ReachIO}
    if task not in known:
        raise ConfigError(f"no task {task!r}; there are {sorted(known)}")
    return known[task](robot, batch)
