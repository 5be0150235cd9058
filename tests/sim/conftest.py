"""The usual robot and constraints; makes the helpers of this folder importable (tests are imported one by one)."""

import sys
from importlib.resources import files
from pathlib import Path

import pytest

from palmar.safety.constraints import ConstraintSet, load
from palmar.safety.robot import RobotModel
from palmar.sim.robots import load_robot

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def robot() -> RobotModel:
    return load_robot()


@pytest.fixture(scope="session")
def constraints(robot: RobotModel) -> ConstraintSet:
    return load(Path(str(files("palmar.configs"))) / "constraints" / "arm_hand.yaml", robot.limits)
