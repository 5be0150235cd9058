"""The process of one device: laws in this process, then real processes that are killed."""

import logging
import time
from dataclasses import is_dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import toy_driver
import toy_robot as toy

from palmar.real_robot import shared
from palmar.real_robot.config import DeviceConfig
from palmar.real_robot.device import BROKEN, LOST, RECOVERY, REFUSED, SILENT, Device, configuration
from palmar.real_robot.drivers import find
from palmar.real_robot.drivers.error import DriverError
from palmar.real_robot.drivers.wire import RECOVERING, WireRobot
from palmar.real_robot.layout import wire_layout
from palmar.safety.types import Command, CommandRefused, ConfigError

JOINTS = ("shoulder", "elbow")


class Bench:
    """A device and both ends of its wire; time passes by sleeping."""

    def __init__(self, folder):
        self.config = DeviceConfig("arm", "toy", JOINTS, str(folder / "wire"), silence=0.05)
        self.driver = toy_driver.Toy(toy_driver.ToyConfig(tuple(toy.HOME)), JOINTS)
        description = shared.Description(kind="device", robot="toy", joints=JOINTS)
        self.memory = shared.create(Path(self.config.memory), description, wire_layout(description))
        self.device = Device(self.config, self.driver, self.memory, logging.getLogger("test"))
        self.robot, self.seq = WireRobot(JOINTS, Path(self.config.memory), fresh=1.0), 0

    def send(self, q):
        self.seq += 1
        self.robot.write(Command(np.asarray(q, dtype=float), self.seq, time.monotonic()))
        self.device.cycle()

    def cycle(self, seconds=0.0):
        """Cycle for a while, at least once; the state that is read then."""
        end = time.monotonic() + seconds
        while True:
            self.device.cycle()
            if time.monotonic() >= end:
                return self.robot.read()
            time.sleep(0.002)


@pytest.fixture
def bench(tmp_path):
    made = Bench(tmp_path)
    made.cycle()
    yield made
    made.memory.close()


def test_joints_are_matched_by_name_whatever_order_the_hardware_has(bench):
    assert bench.driver.joints == ("elbow", "shoulder")
    assert np.allclose(bench.cycle().q, toy.HOME, atol=1e-9)
    bench.send(toy.HOME + [0.3, 0.0])
    state = bench.cycle(0.04)
    assert state.q[0] > toy.HOME[0] + 0.01 and abs(state.q[1] - toy.HOME[1]) < 1e-6
    assert bench.driver.plant.measure()[0][1] > toy.HOME[0] + 0.01  # the shoulder is its second joint


def test_without_commands_it_waits_and_after_commands_their_silence_is_a_named_fault(bench):
    bench.cycle(0.15)
    assert bench.robot.fault == "" and bench.driver.stops == []
    bench.send(toy.HOME)
    bench.cycle(0.15)
    assert bench.robot.fault == SILENT and bench.driver.stops == [SILENT]
    with pytest.raises(DriverError, match=SILENT):
        bench.send(toy.HOME)
    bench.robot.recover()
    bench.robot.read()
    assert bench.robot.fault == RECOVERING
    bench.cycle()
    assert bench.robot.fault == ""
    bench.send(toy.HOME)
    assert bench.driver.received == 2


def test_a_fault_of_the_hardware_stays_until_recovered_although_it_went_away(bench):
    bench.send(toy.HOME)
    bench.driver.raise_fault("user_stopped")
    bench.cycle()
    bench.driver._fault = bench.driver._cause = ""  # the button was pulled out again
    bench.cycle()
    assert bench.robot.fault == "user_stopped"
    before = bench.driver.received
    bench.robot._send(toy.HOME, 0.0, active=1)  # a controller that ignores the fault
    bench.cycle()
    assert bench.driver.received == before
    bench.robot.recover()
    bench.cycle()
    assert bench.robot.fault == ""


def test_a_recovery_that_fails_is_a_fault_of_its_own(bench):
    bench.driver.raise_fault("overload")
    bench.cycle()
    bench.robot.recover()
    bench.cycle()
    assert bench.robot.fault == RECOVERY
    bench.driver._cause = ""
    bench.robot.recover()
    bench.cycle()
    assert bench.robot.fault == ""


def test_a_stop_is_the_drivers_own_and_is_no_fault(bench):
    bench.send(toy.HOME)
    bench.robot.stop("shutdown")
    bench.cycle(0.1)
    assert bench.driver.stops == ["shutdown"] and bench.robot.fault == ""


def test_a_failed_reading_is_not_published_and_many_are_a_fault(bench):
    first = bench.cycle()
    bench.driver.is_cut = True
    bench.device.cycle()
    assert bench.robot.read().seq == first.seq and bench.robot.fault == ""
    time.sleep(0.06)
    bench.device.cycle()
    bench.robot.fresh = 0.05
    with pytest.raises(DriverError, match=LOST):
        bench.robot.read()
    bench.robot.fresh = 1.0
    assert bench.robot.fault == LOST
    bench.driver.is_cut = False
    assert bench.cycle().seq > first.seq and bench.robot.fault == LOST
    bench.robot.recover()
    bench.cycle()
    assert bench.robot.fault == ""


@pytest.mark.parametrize(("error", "fault"), [("cut", BROKEN), ("far", REFUSED)])
def test_what_the_driver_does_not_send_rests_the_hardware(bench, error, fault, monkeypatch):
    def write(command):
        raise DriverError("no port") if error == "cut" else CommandRefused("too far")

    monkeypatch.setattr(bench.driver, "write", write)
    bench.send(toy.HOME)
    assert bench.robot.read() and bench.robot.fault == fault and bench.driver.stops == [fault]


def test_a_nan_that_got_onto_the_wire_does_not_get_to_the_hardware(bench):
    bench.robot._send(np.array([np.nan, 0.0]), 0.0, active=1)
    bench.cycle()
    assert bench.driver.received == 0 and bench.robot.fault == REFUSED


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"driver": "laep"}, "leap"),
        ({"driver": "leap", "settings": {"prot": "x"}}, "port"),
        ({"driver": "leap", "settings": {"baudrate": 1}}, "baudrate"),
        ({"driver": "fr3", "settings": {}}, "address"),
    ],
)
def test_what_no_driver_takes_is_refused_with_what_is_accepted(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        configuration(replace(DeviceConfig("arm", "toy", JOINTS, str(tmp_path / "w")), **changes))


@pytest.mark.parametrize("driver", find.names())
def test_every_driver_that_can_be_named_has_its_configuration_and_its_factory(driver):
    found = find.load(driver)
    assert is_dataclass(found.config) and callable(found.open)


def test_the_drivers_are_the_files_that_open_one_and_any_module_that_does():
    assert find.names() == ("allegro", "fr3", "franka_ros", "leap", "ros2_control")
    assert find.load("toy_driver").config is toy_driver.ToyConfig


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("laep", "did you mean 'leap'.*or a module with open_driver"),
        ("no.such.module", "unknown driver 'no.such.module'"),
        ("error", "error has no open_driver"),
        ("json", "json has no open_driver"),
    ],
)
def test_what_is_no_driver_is_refused_with_what_there_is(name, message):
    with pytest.raises(ConfigError, match=message):
        find.load(name)


def test_a_driver_without_its_library_and_one_that_hides_its_configuration_say_so(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "bare_hand.py").write_text("import no_such_library\n")
    (tmp_path / "shy_hand.py").write_text("def open_driver(config, joints): ...\n")
    with pytest.raises(ConfigError, match="needs what is not installed .*no_such_library"):
        find.load("bare_hand")
    with pytest.raises(ConfigError, match="must be annotated with a dataclass"):
        find.load("shy_hand")


@pytest.mark.parametrize("changes", [{"name": "leg"}, {"joints": ()}, {"silence": 0.0}, {"fresh": 1.0}])
def test_impossible_devices_are_refused(changes):
    with pytest.raises(ConfigError):
        replace(DeviceConfig("arm", "toy", JOINTS, "w"), **changes)
