"""Run by ``make test-isaac`` in Isaac Lab's environment, on the CPU.  One simulation per process at a time."""

import sys
from importlib.resources import files
from pathlib import Path

import pytest
import torch
import yaml

from palmar.safety import config, constraints
from palmar.sim.robots import load_robot
from palmar.sim.tasks import find

sys.path.insert(0, str(Path(__file__).parent))  # ``worlds``: tests are imported one by one
torch.set_num_threads(1)
CONFIGS = files("palmar.configs")


@pytest.fixture(scope="session")
def parts():
    robot = load_robot("fr3_leap")
    found, values = find.load("lift"), yaml.safe_load((CONFIGS / "task" / "lift.yaml").read_text())
    held = constraints.parse((CONFIGS / "constraints" / "arm_hand.yaml").read_text(), robot.limits)
    return found.task(config.load(found.config, values, where="task")), robot, held
