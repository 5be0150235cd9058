"""Contract cases of the LEAP driver: real dynamixel-sdk, a fake bus on a pseudo-terminal, joints of a plant."""

from __future__ import annotations

import time
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
from driver_cases import Case, as_a_device
from grasping import Grasp

from palmar.real_robot.drivers.leap import open_driver
from palmar.real_robot.drivers.leap_config import LeapConfig
from palmar.real_robot.fakes.dynamixel import DynamixelBus
from palmar.safety.types import Command

JOINTS = (
    *("if_mcp", "if_rot", "if_pip", "if_dip", "mf_mcp", "mf_rot", "mf_pip", "mf_dip"),
    *("rf_mcp", "rf_rot", "rf_pip", "rf_dip", "th_cmc", "th_axl", "th_mcp", "th_ipl"),
)
"""As in configs/robot/fr3_leap.yaml."""
IDS = (1, 0, 2, 3, 5, 4, 6, 7, 9, 8, 10, 11, 12, 13, 14, 15)
"""Bus address of each: the hand counts side, forward, PIP, DIP (LEAP_Hand_API), Palmar's model forward, side."""
HOME = np.array([0.4, 0.0, 0.3, 0.2, 0.4, 0.1, 0.3, 0.2, 0.4, -0.1, 0.3, 0.2, 0.9, 0.3, 0.2, 0.1])
PATIENT = {"timeout": 0.2, "lost_after": 20}
"""For machines that do not run us for tens of milliseconds."""


def plant(q=HOME, ahead=np.inf):
    """Fingers, and an object ``ahead`` of every joint [rad]."""
    return Grasp(q, np.array(q) + ahead, inertia=0.002, friction=0.02, stiffness=0.0, damping=0.0, tau_max=0.28)


class Controls:
    def __init__(self, bus):
        self.bus = bus

    def cut(self):
        self.bus.cut()

    def restore(self):
        self.bus.restore()

    def raise_fault(self, name):
        self.bus.raise_fault(name)

    def reset(self):
        """Nothing to do at the hand: ``recover`` restarts the motor."""

    def position(self):
        return self.bus.plant.measure()[0]

    def holding(self):
        return bool(self.bus.holding().all())

    def received(self):
        return self.bus.goals_written

    def grip(self):
        return self.bus.plant.grip()


def opened(bus, **changes):
    return open_driver(LeapConfig(port=bus.port, **(PATIENT | changes)), JOINTS)


def command(q, seq=1):
    return Command(q=q, seq=seq, stamp=time.monotonic())


def follow(driver, q, seconds):
    """Write and read at 100 Hz; the last state."""
    end, state = time.monotonic() + seconds, None
    while time.monotonic() < end or state is None:
        driver.write(command(q))
        state = driver.read()
        time.sleep(0.01)
    return state


@contextmanager
def hand(folder: Path, ahead=np.inf):
    with as_a_device(), DynamixelBus(plant(ahead=ahead), ids=IDS, link=folder / "hand") as bus:
        with closing(opened(bus)) as driver:
            yield driver, Controls(bus)


def cases():
    return [
        Case("leap", hand, rate=100.0, faults=("overload", "input_voltage"), cut_within=0.5, watchdog=1.0, hand=True)
    ]
