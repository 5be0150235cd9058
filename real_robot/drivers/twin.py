"""Driver of the simulated hardware: a wire to the twin's shared file, as libfranka is one over UDP."""

from __future__ import annotations

from pathlib import Path

from palmar.real_robot.drivers.wire import WireRobot
from palmar.safety.robot import RobotModel


def twin_robot(model: RobotModel, path: Path, *, timeout: float = 5.0) -> WireRobot:
    """The whole robot of the twin whose file is ``path``.

    ``stop`` makes the twin hold the last commanded position, which is what the FR3 does when a motion generator
    finishes at rest; from motion it is a jump that the drives have to absorb.

    Raises:
        SharedMemoryError: If there is none in time, or it is another robot's.
    """
    return WireRobot(model.joints, path, kind="twin", robot=model.hash(), timeout=timeout)
