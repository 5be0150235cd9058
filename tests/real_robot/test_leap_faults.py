"""LEAP driver: failed reads, hardware errors, and what is left when a process or an adapter dies."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from driver_cases import as_a_device
from leap_case import HOME, IDS, JOINTS, PATIENT, command, follow, opened, plant
from toy_robot import until

from palmar.real_robot.drivers import dynamixel
from palmar.real_robot.drivers.dynamixel import Port
from palmar.real_robot.drivers.error import DriverError
from palmar.real_robot.drivers.leap import open_driver
from palmar.real_robot.drivers.leap_config import LeapConfig
from palmar.real_robot.fakes.dynamixel import DynamixelBus
from palmar.real_robot.fakes.dynamixel_packets import packet


@pytest.fixture
def bus(tmp_path):
    with as_a_device(), DynamixelBus(plant(), ids=IDS, link=tmp_path / "hand") as made:
        yield made


@pytest.fixture
def driver(bus):
    with closing(opened(bus)) as made:
        yield made


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
    made, errors = opened(bus, lost_after=100), 0
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
    made, errors = opened(bus), 0
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


def test_answers_of_a_whole_turn_ago_are_told_by_the_motors_clock(limp):
    """Sixteen answers late they come in the order that was asked for: only the motors' milliseconds are old."""
    bus = limp
    with closing(opened(bus, lost_after=100)) as made:
        made._bus.port.timeout = 0.05
        made.read()
        bus.lag(16)
        said = []
        for _ in range(20):
            bus.plant._q += 0.02  # somebody bends the fingers meanwhile
            with pytest.raises(DriverError) as caught:
                made.read()
            said.append(str(caught.value))
        assert any("an old answer" in why for why in said)
        made._bus.port.timeout = 2.0
        bus.lag(0)
        with pytest.raises(DriverError):
            made.read()  # everything that was kept back comes at once
        np.testing.assert_allclose(made.read().q, bus.plant.measure()[0], atol=0.01)


def test_after_a_failed_read_the_line_has_to_be_silent_before_the_next_request(bus, driver, monkeypatch):
    drained, drain = [], Port.drain
    monkeypatch.setattr(Port, "drain", lambda port: (drained.append(bus.instructions), drain(port)))
    driver.read()
    assert drained == []
    bus.corrupt(1)
    with pytest.raises(DriverError):
        driver.read()
    asked = bus.instructions
    driver.read()
    assert drained == [asked]  # once, and before anything was asked


def test_a_port_throws_away_what_comes_until_it_is_silent(bus, monkeypatch):
    monkeypatch.setattr(dynamixel, "QUIET", 0.08)  # a busy machine's
    port = Port(bus.port, 4_000_000, timeout=0.1)
    late = threading.Timer(0.02, lambda: os.write(bus._plugged().master, b"a late answer"))
    late.start()
    port.drain()
    late.join()
    assert port.ser.in_waiting == 0
    port.closePort()


def test_an_adapter_that_hung_is_an_error_and_then_the_truth(limp):
    bus = limp
    made = opened(bus, lost_after=100)
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
    made = opened(bus, timeout=0.05, lost_after=3)
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
    again = opened(bus)
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
