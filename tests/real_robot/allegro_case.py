"""Contract cases of the Allegro driver: real python-can, a fake hand on a virtual bus."""

from __future__ import annotations

import time
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path

import numpy as np
from driver_cases import Case, as_a_device
from grasping import Grasp

from palmar.real_robot.drivers.allegro import open_driver
from palmar.real_robot.drivers.allegro_config import AllegroConfig
from palmar.real_robot.fakes.allegro_can import AllegroHand, Virtual
from palmar.safety.types import Command

JOINTS = (
    *("if_abd", "if_mcp", "if_pip", "if_dip", "mf_abd", "mf_mcp", "mf_pip", "mf_dip"),
    *("rf_abd", "rf_mcp", "rf_pip", "rf_dip", "th_opp", "th_abd", "th_mcp", "th_ipl"),
)
"""As in configs/robot/fr3_allegro.yaml, and the hand's own order."""
HOME = np.array([0.1, 0.6, 0.6, 0.4, 0.0, 0.6, 0.6, 0.4, -0.1, 0.6, 0.6, 0.4, 1.2, 0.2, 0.3, 0.4])
CHANNELS = count()


def plant(q=HOME, ahead=np.inf):
    """Fingers, and an object ``ahead`` of every joint [rad]."""
    return Grasp(q, np.array(q) + ahead, inertia=0.002, friction=0.3, tau_max=1.0)


def config(line, **changes) -> AllegroConfig:
    options = {"bitrate": 1_000_000, "sleep_after_open": 0.0} if line.interface == "slcan" else {}
    told = {"interface": line.interface, "channel": line.channel, "options": options, "stale": 0.5}
    return AllegroConfig(**(told | changes))


def virtual():
    return Virtual(f"allegro {next(CHANNELS)}")


class Controls:
    def __init__(self, hand, driver):
        self.hand, self.driver = hand, driver

    def cut(self):
        self.hand.cut()

    def restore(self):
        self.hand.restore()

    def raise_fault(self, name):
        self.hand.raise_fault(name)

    def reset(self):
        self.hand.reset()

    def position(self):
        return self.hand.plant.measure()[0]

    def holding(self):
        return self.hand.on

    def received(self):
        """New goals that the position loop has got: torques go out at its own pace."""
        return self.driver.goals

    def grip(self):
        return self.hand.plant.grip()


def command(q, **gains):
    return Command(q=q, seq=1, stamp=time.monotonic(), **gains)


def follow(driver, q, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        driver.write(command(q))
        driver.read()
        time.sleep(0.01)


@contextmanager
def hand(folder: Path, ahead=np.inf):
    with as_a_device(), AllegroHand(plant(ahead=ahead), virtual()) as fake:
        with closing(open_driver(config(fake.line), JOINTS)) as driver:
            yield driver, Controls(fake, driver)


def cases():
    return [Case("allegro", hand, rate=100.0, faults=("servo_off", "overheating"), cut_within=0.7, hand=True)]
