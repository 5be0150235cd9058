"""LEAP driver: names, counts, checks before torque is on, and what a held object feels."""

import time
from contextlib import closing

import numpy as np
import pytest
from driver_cases import as_a_device
from grasping import Grasp
from leap_case import HOME, IDS, JOINTS, command, follow, opened, plant
from toy_robot import until

from palmar.real_robot.config import DeviceConfig
from palmar.real_robot.device import configuration
from palmar.real_robot.drivers import leap_motors
from palmar.real_robot.drivers.error import DriverError
from palmar.real_robot.drivers.leap import open_driver
from palmar.real_robot.drivers.leap_config import LeapConfig
from palmar.real_robot.fakes.dynamixel import DynamixelBus
from palmar.safety.types import ConfigError
from palmar.sim.robots import load_robot


@pytest.fixture
def bus(tmp_path):
    with as_a_device(), DynamixelBus(plant(), ids=IDS, link=tmp_path / "hand") as made:
        yield made


@pytest.fixture
def driver(bus):
    with closing(opened(bus)) as made:
        yield made


# names, counts, limits


@pytest.mark.parametrize("joint", JOINTS)
def test_each_joint_moves_its_own_motor(joint):
    k = JOINTS.index(joint)
    assert leap_motors.ADDRESS[joint] == IDS[k]


def test_a_goal_reaches_the_named_motor_and_no_other(bus, driver):
    k = JOINTS.index("mf_rot")
    before = {i: m.get(116) for i, m in bus.motors.items()}
    driver.write(command(HOME + 0.2 * (np.arange(16) == k)))
    until(lambda: bus.motors[4].get(116) != before[4], timeout=5.0, what="the goal")
    assert bus.motors[4].get(116) == round((HOME[k] + 0.2 + np.pi) * 4096 / (2 * np.pi))
    assert all(bus.motors[i].get(116) == before[i] for i in before if i != 4)


def test_the_ranges_are_those_of_the_model_it_is_trained_on():
    robot = load_robot("fr3_leap")
    ours = np.array([leap_motors.LIMITS[j] for j in robot.joints[7:]])
    assert robot.joints[7:] == JOINTS
    np.testing.assert_allclose(ours, np.stack([robot.limits.q_min[7:], robot.limits.q_max[7:]], axis=1))


def test_targets_beyond_the_range_stop_at_it(bus, driver):
    driver.write(command(np.full(16, 9.0)))
    driver.write(command(np.full(16, -9.0)))
    driver.read()
    lows = {IDS[k]: leap_motors.LIMITS[j][0] for k, j in enumerate(JOINTS)}
    assert all(abs(bus.motors[i].get(116) - (low + np.pi) * 651.8986) < 1.0 for i, low in lows.items())


def test_negative_goals_are_twos_complement(bus, driver):
    driver._bus.write([3, 5], 116, np.stack([leap_motors_row(-5), leap_motors_row(-131_073)]))
    driver.read()
    assert bus.motors[3].get(116) == -5
    assert bus.motors[5].get(116) == -131_073  # its bytes hold the header: it has to be stuffed


def leap_motors_row(value):
    return np.frombuffer(value.to_bytes(4, "little", signed=True), np.uint8)


# opening


def test_opening_sets_what_the_hand_needs_and_holds_where_it_is(bus, driver):
    for i, m in bus.motors.items():
        share = 0.75 if i in (0, 4, 8, 12) else 1.0
        assert (m.get(11), m.get(9), m.get(98), m.get(64), m.get(102)) == (5, 0, 50, 1, 550)
        assert (m.get(84), m.get(82), m.get(80)) == (round(600 * share), 0, round(200 * share))
    time.sleep(0.2)
    assert np.abs(bus.plant.measure()[0] - HOME).max() < 0.002


def test_the_lite_hand_has_its_own_current_cap(tmp_path):
    with DynamixelBus(plant(), ids=IDS, model=1200, link=tmp_path / "hand") as bus:
        made = opened(bus, motor="XL330-M288")
        assert {m.get(102) for m in bus.motors.values()} == {350}
        made.close()


def put(address, value, ident=7):
    return lambda bus: bus.motors[ident].put(address, value)


def turned_off_in_mode_3(bus):
    bus.motors[7].put(64, 1)


@pytest.mark.parametrize(
    ("hurt", "message"),
    [
        (lambda bus: bus.silence(7), r"no answer from motors \[7\]; on the bus are"),
        (put(6, 40), "firmware 40"),
        (put(0, 1220), r"model 1220 \(unknown\)"),
        (put(0, 1200), r"model 1200 \(XL330-M288\), the configuration says XC330-M288"),
        (put(70, 0b100000), "motor 7 reports overload"),
        (put(144, 37), "3.7 V, accepted 4.3 to 6.0"),
        (put(146, 66), "66 deg C"),
        (put(20, 100), "homing offset 100, accepted 0"),
        (turned_off_in_mode_3, "torque on but has .* in register"),
        (lambda bus: bus.plant._q.__setitem__(3, 2.9), "if_dip .motor 3. reads 2.90 rad"),
    ],
)
def test_a_hand_that_is_not_fit_is_refused_before_anything_moves(bus, hurt, message):
    hurt(bus)
    torque = bus.holding()
    with pytest.raises((DriverError, ConfigError), match=message):
        opened(bus, timeout=0.1)
    assert bus.goals_written == 0 and np.array_equal(bus.holding(), torque)


def test_a_foreign_address_on_the_bus_is_named(tmp_path):
    with DynamixelBus(plant(), ids=[20 if i == 7 else i for i in IDS], link=tmp_path / "hand") as bus:
        with pytest.raises(DriverError, match=r"\[7\]; on the bus are .*\[20\] of them unexpected"):
            opened(bus, timeout=0.1)


def test_a_wrong_baud_rate_is_told_with_the_right_one(tmp_path):
    with DynamixelBus(plant(), ids=IDS, baudrate=1_000_000, link=tmp_path / "hand") as bus:
        with pytest.raises(DriverError, match="at 4000000 baud, but they do at 1000000"):
            opened(bus, timeout=0.1)


def test_a_port_is_one_drivers_alone(bus, driver):
    with pytest.raises(DriverError, match="cannot open"):
        opened(bus)


def test_no_port_is_a_clear_error(tmp_path):
    with pytest.raises(DriverError, match="cannot open .*nowhere"):
        open_driver(LeapConfig(port=str(tmp_path / "nowhere")), JOINTS)


@pytest.mark.parametrize(
    "settings",
    [{"motor": "XM430"}, {"baudrate": 3}, {"watchdog": 0.0}, {"watchdog": 3.0}, {"current": 9.0}, {"rate": 0.0},
     {"timeout": float("nan")}, {"voltage": [5.0, 4.0]}, {"p_gain": -1}, {"prot": "x"}, {"port": 3}],
)  # fmt: skip
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ConfigError):
        configuration(DeviceConfig("hand", "leap", JOINTS, "/dev/null", settings=settings))


def test_settings_come_from_plain_values():
    settings = {"port": "/dev/x", "current": 0.3, "voltage": [4.5, 5.5]}
    made = configuration(DeviceConfig("hand", "leap", JOINTS, "/dev/null", settings=settings))
    assert made == LeapConfig(port="/dev/x", current=0.3, voltage=(4.5, 5.5))


def test_other_joints_are_refused(bus):
    with pytest.raises(ConfigError, match="has the joints"):
        open_driver(LeapConfig(port=bus.port), (*JOINTS[:-1], "thumb"))


# a held object

WALL = np.where([j.endswith(("pip", "mcp")) for j in JOINTS], HOME + 0.1, np.inf)
CLOSED = np.where(np.isfinite(WALL), HOME + 0.16, HOME)


@pytest.fixture
def held(tmp_path):
    """A hand that squeezes an object; (bus, driver, grip of the pressing joints)."""
    world = Grasp(HOME, WALL, inertia=0.002, friction=0.6, stiffness=0.0, damping=0.0, tau_max=0.28)
    with DynamixelBus(world, ids=IDS, link=tmp_path / "hand") as bus:
        made = opened(bus)
        until(lambda: follow(made, CLOSED, 0.5) and world.grip()[np.isfinite(WALL)].min() > 0.1, timeout=20.0)
        follow(made, CLOSED, 0.7)
        yield bus, made, world.grip()
        made.close()


def test_stop_and_close_keep_the_grip_and_stop_the_rest(held):
    bus, made, grip = held
    free = ~np.isfinite(WALL)
    made.write(command(CLOSED + 0.4 * free))
    time.sleep(0.05)  # the free joints are on their way
    made.stop("test")
    time.sleep(0.3)
    there = bus.plant.measure()[0]
    time.sleep(0.3)
    q, qd, _ = bus.plant.measure()
    assert np.abs(q - there).max() < 0.01 and np.abs(qd).max() < 0.1
    assert (q - CLOSED)[free].max() < 0.35  # not at their target
    np.testing.assert_allclose(bus.plant.grip(), grip, atol=0.01)
    made.close()
    time.sleep(1.3)  # longer than the motors' watchdog
    np.testing.assert_allclose(bus.plant.grip(), grip, atol=0.01)
    assert {m.get(98) for m in bus.motors.values()} == {0}


def test_opening_a_hand_that_holds_does_not_let_go(held):
    bus, made, grip = held
    made.close()
    least = []
    again = opened(bus)
    for _ in range(20):
        again.read()
        least.append(bus.plant.grip()[np.isfinite(WALL)].min())
    assert min(least) > 0.9 * grip[np.isfinite(WALL)].min() and bus.holding().all()
    again.close()


def test_a_cut_cable_keeps_the_grip_until_the_watchdog_and_the_fingers_in_place_after_it(held):
    bus, made, grip = held
    before = bus.plant.measure()[0]
    bus.cut()
    with pytest.raises(DriverError):
        made.read()
    np.testing.assert_allclose(bus.plant.grip(), grip, atol=0.01)
    time.sleep(1.3)
    assert bus.holding().all()
    assert np.abs(bus.plant.measure()[0] - before).max() < 0.01  # it would take force to open them
    assert bus.plant.grip().max() < 0.02  # but the squeeze is gone: docs/hands.md
    bus.restore()


def test_an_overloaded_motor_lets_go_alone(held):
    bus, made, grip = held
    bus.raise_fault("overload", IDS[0])
    made.read()
    assert made.fault == "overload: if_mcp"
    time.sleep(0.3)
    np.testing.assert_allclose(bus.plant.grip()[1:], grip[1:], atol=0.01)
