"""The arm over franka_ros2's topics, on real rclpy, against a node with its names, quality of service and semantics."""

import time

import numpy as np
import pytest
from franka_ros_case import HOME, JOINTS, FakeFrankaRos2, on_loopback

from palmar.real_robot import ros_env
from palmar.real_robot.drivers.error import DriverError
from palmar.safety.types import Command, CommandRefused, ConfigError

pytestmark = [
    pytest.mark.ros,
    pytest.mark.skipif(bool(ros_env.missing()), reason=ros_env.missing() or "rclpy is here"),
]


@pytest.fixture(scope="module")
def domain(tmp_path_factory):
    """A ROS domain of this file's own, on the loopback device."""
    return on_loopback(tmp_path_factory.mktemp("ros"))


@pytest.fixture(scope="module")
def both(domain):
    from palmar.real_robot.drivers.franka_ros import FrankaRosConfig, open_driver

    fake = FakeFrankaRos2(domain, "left")
    driver = open_driver(FrankaRosConfig(namespace="left", domain=domain, wait=20.0, fresh=0.3), JOINTS)
    yield driver, fake
    driver.close()
    fake.close()


@pytest.fixture
def arm(both):
    driver, fake = both
    fake.silent = fake.frozen = fake.deaf = False
    fake.spoil = None
    time.sleep(0.05)
    settle(driver)
    driver.recover()
    return Arm(driver, fake)


def settle(driver):
    for _ in range(200):
        try:
            return driver.read()
        except DriverError:
            time.sleep(0.01)
    raise AssertionError("no state")


class Arm:
    def __init__(self, driver, fake):
        self.driver, self.fake, self.seq = driver, fake, 0
        self.q = settle(driver).q.copy()

    def tick(self, q=None):
        self.q = self.q if q is None else np.array(q)
        self.seq += 1
        self.driver.write(Command(q=self.q, seq=self.seq, stamp=time.monotonic()))
        time.sleep(0.01)
        return self.driver.read()

    def swing(self, seconds, speed=0.3, joint=0):
        begin, q = time.monotonic(), self.q.copy()
        while (t := time.monotonic() - begin) < seconds:
            self.tick(q + speed * t * np.eye(7)[joint])


def test_states_are_read_by_name_with_the_effort_that_has_no_gravity(arm):
    arm.fake.q = HOME + 0.01 * np.arange(7)
    time.sleep(0.05)
    state = settle(arm.driver)
    np.testing.assert_allclose(state.q, HOME + 0.01 * np.arange(7))
    np.testing.assert_array_equal(state.tau, np.arange(7))


def test_a_reliable_subscriber_hears_nothing_where_ours_hears_everything(arm):
    """What ``rclpy``'s default would do with franka_ros2's convenience topics."""
    from sensor_msgs.msg import JointState

    heard, topic = [], "/left/franka_robot_state_broadcaster/measured_joint_states"
    subscription = arm.driver._node.create_subscription(JointState, topic, heard.append, 1)
    try:
        before = arm.driver.read().seq
        for _ in range(50):
            arm.driver._executor.spin_once(timeout_sec=0.01)
        assert settle(arm.driver).seq > before and not heard
    finally:
        arm.driver._node.destroy_subscription(subscription)


def test_the_arm_goes_where_it_is_told_and_rests_there(arm):
    start, goal = arm.q.copy(), arm.q + np.array([0.1, 0, -0.1, 0.1, 0, 0, 0.1])
    for k in range(60):
        s = k / 59
        arm.tick(start + (goal - start) * s**3 * (10 - 15 * s + 6 * s * s))
    for _ in range(30):
        state = arm.tick(goal)
    assert np.abs(state.q - goal).max() < 1e-3 and np.abs(state.qd).max() < 0.01
    assert arm.fake.rejected == 0 and arm.driver.fault == ""
    assert arm.fake.message.header.stamp.sec == 0  # begins on arrival


def test_an_arm_that_hears_nothing_more_comes_to_rest_by_itself(arm):
    """As after kill -9: nobody sends another trajectory."""
    arm.swing(0.4)
    speed = np.abs(arm.fake.v).max()
    time.sleep(0.02 + 0.3 / 5.0 + 0.2)
    assert speed > 0.15 and not np.any(arm.fake.v)
    assert np.abs(arm.fake.q - arm.q).max() < 0.3 * 0.05 + 0.3**2 / 2 / 5.0 + 0.02


def test_a_stop_brakes_along_the_motion_and_holds(arm):
    arm.swing(0.4)
    arm.driver.stop("test")
    time.sleep(0.4)
    here = arm.fake.q.copy()
    time.sleep(0.1)
    np.testing.assert_array_equal(arm.fake.q, here)
    assert np.abs(here - arm.q).max() < 0.3**2 / 2 / 5.0 + 0.02 and arm.fake.rejected == 0


def test_a_silent_or_frozen_arm_is_an_error_and_never_the_previous_state(arm):
    from builtin_interfaces.msg import Time

    last = arm.driver.read()
    for name, value in (("silent", True), ("frozen", Time(sec=1))):
        setattr(arm.fake, name, value)
        with pytest.raises(DriverError, match="no_state"):
            for _ in range(100):
                last = arm.driver.read()
                time.sleep(0.01)
        assert time.monotonic() - last.t > 0.3
        setattr(arm.fake, name, False)
        last = settle(arm.driver)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda m: m.name.__setitem__(0, "left_joint4"), "lacks"),
        (lambda m: setattr(m, "position", m.position[:-1]), "6 values"),
        (lambda m: m.position.__setitem__(0, float("nan")), "not finite"),
        (lambda m: m.effort.__setitem__(2, float("inf")), "not finite"),
    ],
)
def test_a_spoilt_state_is_refused_by_name(arm, spoil, says):
    before = arm.driver.refused
    arm.fake.spoil = spoil
    with pytest.raises(DriverError, match=says):
        for _ in range(100):
            arm.driver.read()
            time.sleep(0.01)
    assert arm.driver.refused > before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"q": np.full(7, np.nan)}, "finite"),
        ({"q": np.zeros(6)}, "shape"),
        ({"q": HOME + 9.0}, "outside"),
        ({"q": HOME + np.array([0, 0, 0.6, 0, 0, 0, 0])}, "from where the arm is"),
    ],
)
def test_a_bad_command_is_refused_before_it_is_published(arm, change, says):
    before = arm.fake.accepted
    with pytest.raises(CommandRefused, match=says):
        arm.driver.write(Command(seq=1, stamp=time.monotonic(), **change))
    time.sleep(0.05)
    assert arm.fake.accepted == before


def test_an_arm_that_does_not_follow_is_a_fault_until_recovered(arm):
    arm.fake.deaf = True
    with pytest.raises(DriverError, match="not_following"):
        for _ in range(200):
            arm.tick(arm.fake.q + np.array([0.18, 0, 0, 0, 0, 0, 0]))
    assert arm.driver.fault == "not_following"
    arm.fake.deaf = False
    arm.driver.recover()
    assert arm.driver.fault == ""


def test_a_second_commander_is_named_and_nothing_is_sent_beside_it(arm):
    from trajectory_msgs.msg import JointTrajectory

    thief = arm.fake.node.create_publisher(JointTrajectory, "/left/fr3_arm_controller/joint_trajectory", 1)
    try:
        with pytest.raises(DriverError, match="second_commander"):
            for _ in range(300):
                arm.tick(arm.fake.q)
    finally:
        arm.fake.node.destroy_publisher(thief)


def test_without_a_controller_nothing_opens(domain):
    from palmar.real_robot.drivers.franka_ros import FrankaRosConfig, open_driver

    with pytest.raises(DriverError, match="no controller listens on /right/fr3_arm_controller/joint_trajectory"):
        open_driver(FrankaRosConfig(namespace="right", domain=domain, wait=0.3), JOINTS)


@pytest.mark.parametrize("wrong", [{"rate": 1000.0}, {"jump": 3.0}, {"controller": ""}, {"low": (0.0,)}])
def test_an_impossible_configuration_is_refused(wrong):
    from palmar.real_robot.drivers.franka_ros import FrankaRosConfig

    with pytest.raises(ConfigError, match="franka_ros: "):
        FrankaRosConfig(**wrong)
