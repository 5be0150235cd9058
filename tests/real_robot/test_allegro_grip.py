"""What an object in an Allegro hand feels: stops, cuts, recoveries, and a driver that dies."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from allegro_case import HOME, JOINTS, command, config, follow, virtual
from driver_cases import as_a_device
from grasping import Grasp
from toy_robot import until

from palmar.real_robot.drivers.allegro import open_driver
from palmar.real_robot.drivers.error import DriverError
from palmar.real_robot.fakes.allegro_can import AllegroHand, Slcan

WALL = np.where([j.endswith(("pip", "mcp")) for j in JOINTS], HOME + 0.1, np.inf)
CLOSED = np.where(np.isfinite(WALL), HOME + 0.14, HOME)


def world():
    return Grasp(HOME, WALL, inertia=0.002, friction=0.3, tau_max=1.0)


def grips(plant_):
    return plant_.grip()[np.isfinite(WALL)]


@pytest.fixture
def held():
    with as_a_device(), AllegroHand(world(), virtual()) as fake:
        made = open_driver(config(fake.line), JOINTS)
        until(lambda: follow(made, CLOSED, 0.5) or grips(fake.plant).min() > 0.08, timeout=20.0)
        follow(made, CLOSED, 0.7)
        yield fake, made, fake.plant.grip()
        made.close()


@pytest.mark.parametrize("how", ["stop", "silence"])
def test_without_commands_the_grip_stays_and_the_rest_stops(held, how):
    fake, made, grip = held
    free = ~np.isfinite(WALL)
    made.write(command(CLOSED + 0.4 * free))
    time.sleep(0.06)
    if how == "stop":
        made.stop("test")
    time.sleep(0.8)
    moved = fake.plant.measure()[0] - CLOSED
    assert 0.002 < moved[free].min() and moved[free].max() < 0.3
    np.testing.assert_allclose(fake.plant.grip(), grip, atol=0.02)
    made.write(command(CLOSED))  # and goes on with the next command
    assert made.fault == ""


def test_close_leaves_the_grip(held):
    fake, made, grip = held
    made.close()
    time.sleep(0.4)
    frames = fake.torques
    time.sleep(0.4)
    assert fake.torques == frames and fake.on
    np.testing.assert_allclose(fake.plant.grip(), grip, atol=0.02)


def test_opening_a_hand_that_holds_keeps_the_grip_until_it_is_commanded(held):
    fake, made, grip = held
    made.close()
    again = open_driver(config(fake.line), JOINTS)
    time.sleep(0.4)
    again.read()
    again.stop("nothing was commanded")
    time.sleep(0.2)
    np.testing.assert_allclose(fake.plant.grip(), grip, atol=0.02)
    follow(again, HOME, 1.0)  # below the wall: let go
    assert fake.plant.grip().max() < 0.01
    again.close()


def test_a_recovery_keeps_the_grip(held):
    fake, made, grip = held
    for hurt in (lambda: fake.silence(1), fake.cut):
        hurt()
        until(lambda: made._loop.newest()[1] != "", timeout=5.0, what="a fault")
        fake.restore()
        made.recover()
        time.sleep(0.5)
        made.read()
        np.testing.assert_allclose(fake.plant.grip(), grip, atol=0.03)


def test_a_cut_cable_leaves_the_grip(held):
    fake, made, grip = held
    fake.cut()
    until(lambda: made._loop.newest()[1] != "", timeout=10.0, what="a fault")
    with pytest.raises(DriverError, match="finger_silent: all"):
        made.read()
    np.testing.assert_allclose(fake.plant.grip(), grip, atol=0.03)
    fake.restore()


def test_a_finger_that_moved_when_it_fell_silent_is_not_pushed_on(held):
    fake, made, _ = held
    made.write(command(CLOSED + 0.6 * (np.arange(16) == 13)))  # th_abd, free
    until(lambda: abs(made.read().qd[13]) > 0.2, timeout=5.0, what="motion")
    fake.silence(3)
    until(lambda: made._loop.newest()[1] != "", timeout=5.0, what="a fault")
    until(lambda: fake.torque()[13] == 0.0, timeout=5.0, what="no torque on the moving joint")
    assert fake.torque()[1] > 0.02  # a pressing joint of another finger keeps its own


CHILD = """
import sys, time
sys.path.insert(0, sys.argv[2])
from allegro_case import JOINTS
from test_allegro_grip import CLOSED, command
from palmar.real_robot.drivers.allegro import open_driver
from palmar.real_robot.drivers.allegro_config import AllegroConfig
options = {"bitrate": 1_000_000, "sleep_after_open": 0.0}
driver = open_driver(AllegroConfig(interface="slcan", channel=sys.argv[1], options=options, stale=0.5), JOINTS)
begin = time.monotonic()
while True:
    driver.write(command(CLOSED))
    driver.read()
    time.sleep(0.01)
    if time.monotonic() - begin > 1.5:
        print("holding", flush=True)
        begin = float("inf")
"""


def emptied(fake):
    """Torque frames so far, once none has come for a while."""
    seen = []

    def same():
        seen.append(fake.torques)
        time.sleep(0.1)
        return fake.torques == seen[-1]

    until(same, timeout=20.0, what="an empty line")
    return seen[-1]


def test_a_driver_killed_while_it_holds_leaves_the_grip():
    with AllegroHand(world(), Slcan()) as fake:
        args = [sys.executable, "-c", CHILD, fake.line.channel, str(Path(__file__).parent)]
        child = subprocess.Popen(args, stdout=subprocess.PIPE)
        try:
            assert child.stdout is not None and child.stdout.readline() == b"holding\n"
            grip = fake.plant.grip()
            assert grips(fake.plant).min() > 0.08
            child.send_signal(signal.SIGKILL)
            child.wait(5.0)
            frames = emptied(fake)  # what was on the line when it died
            time.sleep(0.3)
            assert fake.torques == frames
            np.testing.assert_allclose(fake.plant.grip(), grip, atol=0.03)
            again = open_driver(config(fake.line, stale=0.5), JOINTS)
            assert again.read().q.shape == (16,)
            again.close()
        finally:
            child.kill()
            child.wait()
            if child.stdout is not None:
                child.stdout.close()
