"""The output through ros2_control over real rclpy, against controllers with the documented semantics."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from ros2_control_case import JOINTS, pair, toy_until

from palmar.real_robot import ros_env
from palmar.real_robot.drivers.error import DriverError
from palmar.safety.types import Command, CommandRefused, ConfigError

pytestmark = [
    pytest.mark.ros,
    pytest.mark.skipif(bool(ros_env.missing()), reason=ros_env.missing() or "rclpy is here"),
]
KINDS = ("trajectory", "forward")


def drive(driver, speed, seconds, *, rate=100.0):
    """Move every joint at a constant speed [rad/s] from where it is; the last command."""
    begin, start = time.monotonic(), toy_until(driver).q
    while (t := time.monotonic() - begin) < seconds:
        q = start + speed * t
        driver.write(Command(q, 1, time.monotonic()))
        try:
            driver.read()
        except DriverError:
            pass  # a busy machine
        time.sleep(1 / rate)
    return q


def rest(driver, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            driver.read()
        except DriverError:
            pass
        time.sleep(0.005)


@pytest.mark.parametrize("kind", KINDS)
def test_joints_go_by_name_though_the_controller_has_another_order(tmp_path, kind):
    with pair(tmp_path, kind) as (driver, controller):
        speed = np.array([0.3, -0.2])
        q = drive(driver, speed, 0.6)
        rest(driver, 0.5)
        here = controller.plant.measure()[0]
        assert np.abs(here - q).max() < 0.03 and here[0] > 0.1 > 0 > here[1]
        assert controller.rejected == []
        assert np.abs(toy_until(driver).q - here).max() < 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_commands_go_out_at_the_declared_rate_not_at_that_of_the_filter(tmp_path, kind):
    with pair(tmp_path, kind, settings={"commands": 20.0}) as (driver, controller):
        before = controller.received
        drive(driver, np.array([0.05, 0.05]), 1.0, rate=400.0)
        rest(driver, 0.1)
        assert 8 <= controller.received - before <= 23


@pytest.mark.parametrize("kind", KINDS)
def test_a_stop_in_motion_brakes_along_the_way_and_holds(tmp_path, kind):
    settings = {"brake": 2.0, "follow": 1.0}
    with pair(tmp_path, kind, settings=settings) as (driver, controller):
        q = drive(driver, np.array([0.8, 0.0]), 0.5)
        v = driver._velocity[0]
        driver.stop("test")
        rest(driver, 0.8)
        here, qd, _ = controller.plant.measure()
        assert here[0] == pytest.approx(q[0] + 0.5 * v * v / 2.0, abs=0.08) and here[0] > q[0] - 0.02
        rest(driver, 0.2)
        assert np.abs(controller.plant.measure()[0] - here).max() < 0.01 and np.abs(qd).max() < 0.05
        assert controller.plant._servo is not None and controller.rejected == []


CHILD = """
import sys, time
import numpy as np
sys.path.insert(0, sys.argv[3])
from ros2_control_case import JOINTS, toy_until
from palmar.real_robot.drivers.ros2_control import open_driver
from palmar.real_robot.drivers.ros2_control import Ros2ControlConfig
from palmar.safety.types import Command
driver = open_driver(Ros2ControlConfig(controller="the_controller", kind=sys.argv[1], domain=int(sys.argv[2]),
                                       fresh=0.5, follow=1.0, jump=1.0), JOINTS)
start, begin = toy_until(driver).q, time.monotonic()
print("moving", flush=True)
while True:
    driver.write(Command(start + 0.4 * (time.monotonic() - begin), 1, time.monotonic()))
    driver.read()
    time.sleep(0.005)
"""


@pytest.mark.parametrize("kind", KINDS)
def test_killed_in_motion_the_hardware_comes_to_rest_within_the_declared_way(tmp_path, kind):
    from ros2_control_case import Controller

    domain = ros_env.random_domain()
    env = ros_env.isolated(domain, tmp_path)
    os.environ.update({k: v for k, v in env.items() if k.startswith(("ROS_", "FAST", "CYCLONE"))})
    controller = Controller(kind, domain)
    call = [sys.executable, "-c", CHILD, kind, str(domain), os.path.dirname(__file__)]
    child = subprocess.Popen(call, env=env, stdout=subprocess.PIPE)
    try:
        assert child.stdout.readline() == b"moving\n"
        end = time.monotonic() + 10
        while controller.plant.measure()[0][0] < 0.1:
            assert time.monotonic() < end and child.poll() is None, "it does not move"
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)
        child.wait()
        at = controller.plant.measure()[0]
        time.sleep(0.6)
        here, qd, _ = controller.plant.measure()
        # one period of commands and the way of its braking, at 0.4 rad/s, and half a second of a busy machine
        assert np.abs(here - at).max() < 0.4 * (1 / 50 + 0.4 / 5.0) + 0.2 and np.abs(qd).max() < 0.02
        time.sleep(0.3)
        assert np.abs(controller.plant.measure()[0] - here).max() < 0.005
    finally:
        child.kill()
        child.wait()
        controller.close()


def test_a_controller_that_refuses_in_silence_shows_as_not_following(tmp_path):
    settings = {"follow": 0.03, "follow_time": 0.3}
    with pair(tmp_path, "trajectory", settings=settings) as (driver, controller):
        toy_until(driver)
        driver._names = ("shoulder", "knee")  # what is sent, as after a change of the controller's joints
        with pytest.raises(DriverError, match="not_following"):
            for k in range(2000):
                driver.write(Command(np.full(2, min(0.001 * k, 0.1)), 1, time.monotonic()))
                driver._names = JOINTS
                rest(driver, 0.002)
                driver._names = ("shoulder", "knee")
        assert driver.fault == "not_following" and "joints" in controller.rejected
        driver._names = JOINTS
        driver.recover()
        assert driver.fault == ""


def test_a_second_commander_is_a_fault(tmp_path):
    from trajectory_msgs.msg import JointTrajectory

    with pair(tmp_path, "trajectory") as (driver, controller):
        toy_until(driver)
        publisher = controller.node.create_publisher(JointTrajectory, "~/joint_trajectory", 1)
        end = time.monotonic() + 5
        while not driver.fault and time.monotonic() < end:
            rest(driver, 0.05)
        assert driver.fault == "second_commander"
        with pytest.raises(DriverError, match="second_commander"):
            driver.write(Command(np.zeros(2), 1, time.monotonic()))
        controller.node.destroy_publisher(publisher)


def test_what_does_not_fit_is_refused_before_anything_moves(tmp_path):
    with pytest.raises(ConfigError, match=r"moves \['elbow', 'knee'\], the device has \['elbow', 'shoulder'\]"):
        with pair(tmp_path, "forward", order=("elbow", "knee")):
            pass
    with pytest.raises(ConfigError, match=r"takes velocity, accepted 'position'"):
        with pair(tmp_path, "forward", interface="velocity"):
            pass
    with pytest.raises(DriverError, match="no controller listens on nobody/joint_trajectory within 0.3 s"):
        with pair(tmp_path, "trajectory", settings={"controller": "nobody", "wait": 0.3}):
            pass
    with pair(tmp_path, "trajectory") as (driver, controller):
        toy_until(driver)
        with pytest.raises(CommandRefused, match="elbow: 0.5100 rad is 0.5... from where it is, at most 0.2"):
            driver.write(Command(np.array([0.0, 0.51]), 1, time.monotonic()))
        time.sleep(0.1)
        assert controller.received == 0


@pytest.mark.parametrize(
    "bad",
    [
        {"kind": "velocity"}, {"controller": "/"}, {"rate": 10.0}, {"commands": 300.0}, {"brake": float("nan")},
        {"names": ("a", "a")}, {"low": (0.0,)}, {"low": (0.0,), "high": (0.0,)}, {"domain": 500},
    ],
)  # fmt: skip
def test_impossible_configurations_are_refused(bad):
    from palmar.real_robot.drivers.ros2_control import Ros2ControlConfig

    with pytest.raises(ConfigError):
        Ros2ControlConfig(**bad)


def test_states_that_cannot_be_trusted_are_refused_and_are_not_read(tmp_path):
    from palmar.real_robot.nodes.controller import Ros2Control

    with pair(tmp_path, "trajectory", settings={"fresh": 0.5}) as (driver, controller):
        assert isinstance(driver, Ros2Control)
        toy_until(driver)
        good = driver._state
        for change, why in (
            (lambda m: setattr(m.header.stamp, "sec", 5), "old"),
            (lambda m: setattr(m.header.stamp, "sec", m.header.stamp.sec + 9), "future"),
            (lambda m: setattr(m, "position", [0.0, float("nan"), 0.0]), "non-finite"),
            (lambda m: setattr(m, "name", ["gripper", "elbow", "knee"]), "lacking"),
            (lambda m: setattr(m, "velocity", []), "0 velocitys"),
        ):
            message = controller.state()
            change(message)
            driver._on_state(message)
            assert why in driver._why
        assert driver.refused >= 5 and driver._state is good
