"""LEAP driver: names, counts, checks before torque, failed reads, and what a held object feels when things break."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from grasping import Grasp
from leap_case import HOME, IDS, JOINTS, PATIENT, plant
from toy_robot import until

from palmar.real_robot.config import DeviceConfig
from palmar.real_robot.device import configuration
from palmar.real_robot.drivers import leap_motors
from palmar.real_robot.drivers.error import DriverError
from palmar.real_robot.drivers.leap import LeapConfig, open_driver
from palmar.real_robot.fakes.dynamixel import DynamixelBus
from palmar.real_robot.fakes.dynamixel_packets import packet
from palmar.safety.types import Command, ConfigError
from palmar.sim.robots import load_robot


@pytest.fixture
def bus(tmp_path):
    with DynamixelBus(plant(), ids=IDS, link=tmp_path / "hand") as made:
        yield made


def hand(bus, **changes):
    return open_driver(LeapConfig(port=bus.port, **(PATIENT | changes)), JOINTS)


@pytest.fixture
def driver(bus):
    made = hand(bus)
    yield made
    made.close()


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
        made = hand(bus, motor="XL330-M288")
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
        hand(bus, timeout=0.1)
    assert bus.goals_written == 0 and np.array_equal(bus.holding(), torque)


def test_a_foreign_address_on_the_bus_is_named(tmp_path):
    with DynamixelBus(plant(), ids=[20 if i == 7 else i for i in IDS], link=tmp_path / "hand") as bus:
        with pytest.raises(DriverError, match=r"\[7\]; on the bus are .*\[20\] of them unexpected"):
            hand(bus, timeout=0.1)


def test_a_wrong_baud_rate_is_told_with_the_right_one(tmp_path):
    with DynamixelBus(plant(), ids=IDS, baudrate=1_000_000, link=tmp_path / "hand") as bus:
        with pytest.raises(DriverError, match="at 4000000 baud, but they do at 1000000"):
            hand(bus, timeout=0.1)


def test_a_port_is_one_drivers_alone(bus, driver):
    with pytest.raises(DriverError, match="cannot open"):
        hand(bus)


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


# failed reads


@pytest.mark.parametrize("hurt", ["corrupt", "tear", "foreign"])
def test_a_bad_answer_is_an_error_and_the_next_one_is_fresh(bus, driver, hurt):
    last = driver.read()
    getattr(bus, hurt)(1)
    with pytest.raises(DriverError):
        driver.read()
    again = driver.read()
    assert again.seq == last.seq + 1 and again.t > last.t and driver.fault == ""


def test_lost_answers_are_errors_and_what_comes_is_true(bus):
    made, errors = hand(bus, lost_after=100), 0
    made._bus.port.timeout = 0.02
    bus.drop(0.3)
    for k in range(60):
        try:
            made.write(command(HOME + 0.002 * k))
            state = made.read()
            assert np.abs(state.q - bus.plant.measure()[0]).max() < 0.05
        except DriverError:
            errors += 1
    assert errors > 3
    bus.drop(0.0)
    made._bus.port.timeout = 0.2
    made.close()


@pytest.fixture
def limp(tmp_path):
    """Motors too weak to move a finger back to its goal."""
    with DynamixelBus(plant(), ids=IDS, stiffness=0.0, link=tmp_path / "hand") as made:
        yield made


def test_answers_to_an_earlier_question_are_not_taken_for_new_ones(limp):
    """An adapter that is one answer behind: well-formed packets, in time, and old."""
    bus = limp
    made, errors = hand(bus), 0
    made._bus.port.timeout = 0.05
    made.read()
    for lag in (1, 0):
        bus.lag(lag)
        for _ in range(8):
            try:
                state = made.read()
                assert np.abs(state.q - bus.plant.measure()[0]).max() < 0.01
            except DriverError:
                errors += 1
            bus.plant._q += 0.05  # somebody bends the fingers meanwhile
    assert errors >= 8 and made.read().q.shape == (16,)
    made.close()


def test_an_adapter_that_hung_is_an_error_and_then_the_truth(limp):
    bus = limp
    made = hand(bus, lost_after=100)
    bus.freeze()
    for _ in range(3):
        with pytest.raises(DriverError):
            made.read()
    bus.plant._q += 0.3
    bus.restore()
    end, good = time.monotonic() + 10.0, 0
    while time.monotonic() < end and good < 5:
        try:
            assert np.abs(made.read().q - bus.plant.measure()[0]).max() < 0.01
            good += 1
        except DriverError:
            pass
    assert good == 5
    made.close()


def test_a_motor_that_lost_its_plug_is_named_and_the_others_hold(bus):
    made = hand(bus, timeout=0.05, lost_after=3)
    bus.silence(5)
    for _ in range(3):
        with pytest.raises(DriverError):
            made.read()
    assert made.fault == "motor_lost: mf_mcp"
    with pytest.raises(DriverError, match="motor_lost: mf_mcp"):
        made.write(command(HOME))
    assert bus.holding().all()
    with pytest.raises(DriverError, match=r"no answer from motors \[5\]"):
        made.recover()
    bus.silence(5, silent=False)
    made.recover()
    assert made.fault == "" and made.read().q.shape == (16,)
    made.close()


def test_a_motor_that_restarted_by_itself_is_noticed_by_its_clock_or_torque(bus, driver):
    driver.read()
    bus.brown_out(14)

    def noticed():
        try:
            driver.read()
        except DriverError:
            pass
        return driver.fault

    until(noticed, timeout=10.0, what="a fault")
    assert driver.fault.startswith(("torque_off: th_mcp", "bus_lost", "motor_lost: th_mcp"))
    assert bus.holding().sum() == 15


@pytest.mark.parametrize("name", ["overload", "overheating", "electrical_shock", "motor_encoder", "input_voltage"])
def test_hardware_errors_are_named_with_their_joint(bus, driver, name):
    bus.raise_fault(name, 15)
    driver.read()
    assert driver.fault == f"{name}: th_ipl"


def test_the_watchdog_that_struck_is_named_and_left_without_a_jump(bus, driver):
    follow(driver, HOME + 0.2, 0.8)
    driver.write(command(HOME + 0.6))  # still on its way when the process stalls
    time.sleep(1.4)
    assert bus.motors[0].get(98) == -1 % 256
    here = bus.plant.measure()[0]

    def struck():
        driver.read()
        return driver.fault

    until(struck, timeout=10.0, what="the watchdog's fault")
    assert driver.fault.startswith("bus_watchdog: if_mcp, if_rot")
    driver.recover()
    for _ in range(20):
        driver.read()
        assert np.abs(bus.plant.measure()[0] - here).max() < 0.01
    assert driver.fault == "" and bus.motors[0].get(98) == 50


# a held object

WALL = np.where([j.endswith(("pip", "mcp")) for j in JOINTS], HOME + 0.1, np.inf)
CLOSED = np.where(np.isfinite(WALL), HOME + 0.16, HOME)


@pytest.fixture
def held(tmp_path):
    """A hand that squeezes an object; (bus, driver, grip of the pressing joints)."""
    world = Grasp(HOME, WALL, inertia=0.002, friction=0.05, stiffness=0.0, damping=0.0, tau_max=0.28)
    with DynamixelBus(world, ids=IDS, link=tmp_path / "hand") as bus:
        made = hand(bus)
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
    again = hand(bus)
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


# things that die

CHILD = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from leap_case import IDS, plant
from palmar.real_robot.fakes.dynamixel import DynamixelBus
class Dying(DynamixelBus):
    def _reply(self, answer, heard):
        if Path(sys.argv[1] + ".die").exists() and len(answer) > 100:
            os.write(self._plugged().master, answer[: len(answer) // 2])
            os.kill(os.getpid(), 9)
        super()._reply(answer, heard)
with Dying(plant(), ids=IDS, link=Path(sys.argv[1])):
    print("ready", flush=True)
    sys.stdin.read()
"""


def spawn(link):
    args = [sys.executable, "-c", CHILD, str(link), str(Path(__file__).parent)]
    child = subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline() == b"ready\n"
    return child


def test_an_adapter_that_dies_within_a_packet_is_an_error_and_can_come_back(tmp_path):
    link = tmp_path / "hand"
    child = spawn(link)
    try:
        made = open_driver(LeapConfig(port=str(link), **PATIENT), JOINTS)
        last = made.read()
        (tmp_path / "hand.die").touch()
        with pytest.raises(DriverError):
            made.read()
        assert child.wait(5.0) == -signal.SIGKILL
        begin = time.monotonic()
        for attempt in (made.read, lambda: made.write(command(HOME)), lambda: made.stop("x"), made.recover):
            with pytest.raises(DriverError):
                attempt()
        assert time.monotonic() - begin < 5.0
        (tmp_path / "hand.die").unlink()
        child = spawn(link)
        made.recover()
        assert made.read().t > last.t
        made.close()
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()


def test_a_driver_that_dies_within_a_packet_leaves_the_hand_holding_and_usable(bus, driver):
    follow(driver, HOME + 0.05, 0.5)
    half = packet(0xFE, 0x83, bytes([116, 0, 4, 0, 3, 0, 0, 0, 0]))[:12]
    goals = bus.goals_written
    driver._bus.port.writePort(half)
    driver._bus.close()
    driver._bus = None  # as after kill -9
    time.sleep(1.4)
    assert bus.holding().all() and bus.goals_written == goals
    assert np.abs(bus.plant.measure()[0] - HOME - 0.05).max() < 0.02
    again = hand(bus)
    assert np.abs(again.read().q - HOME - 0.05).max() < 0.02
    again.close()


def test_an_unplugged_adapter_is_an_error_and_can_be_plugged_in_again(bus, driver):
    driver.read()
    bus.close()
    for attempt in (driver.read, lambda: driver.write(command(HOME)), driver.recover):
        with pytest.raises(DriverError):
            attempt()
    bus.start()
    driver.recover()
    assert driver.read().q.shape == (16,)
