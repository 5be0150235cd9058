"""The process of one device: laws in this process, then real processes that are killed."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import is_dataclass, replace
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import toy_driver
import toy_robot as toy

from palmar.real_robot import shared
from palmar.real_robot.config import DeviceConfig, RunConfig, read
from palmar.real_robot.device import BROKEN, LOST, RECOVERY, REFUSED, SILENT, Device, configuration
from palmar.real_robot.drivers import find
from palmar.real_robot.drivers.error import DriverError
from palmar.real_robot.drivers.wire import RECOVERING, WireRobot
from palmar.real_robot.layout import LAYOUTS, STATES, wire_layout
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


# Processes -----------------------------------------------------------------------------------------------


def devices_run(folder: Path, **changes) -> RunConfig:
    """A toy robot of two devices: the shoulder is the arm, the elbow the hand."""
    run = toy.run_config(folder)
    made = [
        DeviceConfig(
            *(name, "toy_driver", (joint,), f"{run.control_memory}-{name}"),
            settings={"home": [q], "report": str(folder / f"{name}.said")},
            **{"silence": 0.3, "fresh": 0.05, **changes},
        )
        for name, joint, q in zip(("arm", "hand"), JOINTS, toy.HOME.tolist(), strict=True)
    ]
    run = replace(run, hardware="real", devices=tuple(made), twin_memory="", objects=(), scene="", qpos=())
    run.write(folder / "run.json")
    assert read(folder / "run.json") == run
    return run


@contextmanager
def device(run: RunConfig, name: str):
    folder = Path(run.run_dir)
    command = [sys.executable, str(Path(toy_driver.__file__)), "--config", str(folder / "run.json"), "--name", name]
    with (folder / f"{name}.log").open("ab") as log:
        child = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield child
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait(5)
        Path(run.device(name).memory).unlink(missing_ok=True)


class Rig:
    """Both devices and the control process, driven from here."""

    def __init__(self, run, stack):
        self.run = run
        self.devices = {d.name: stack.enter_context(device(self.run, d.name)) for d in self.run.devices}
        for d in self.run.devices:
            toy.until(Path(d.memory).exists, 20, d.name)
        self.control = stack.enter_context(toy.process("control", self.run))
        path = Path(self.run.control_memory)
        self.map = shared.wait_attach(path, LAYOUTS, kind="control", robot=None, timeout=120)
        toy.until(lambda: self.map.blocks["state"].read() is not None, 60, "control ready")
        self.wires = {d.name: shared.attach(Path(d.memory), LAYOUTS, kind="device") for d in self.run.devices}
        self.seq = 0

    def send(self, q):
        c, now = self.map.blocks["chunk"].record, time.monotonic()
        self.seq += 1
        c["seq"], c["received"], c["sent"], c["count"], c["t"][0], c["q"][0] = self.seq, now, now, 1, now + 0.1, q
        self.map.blocks["chunk"].write()

    def ask(self, **values):
        r = self.map.blocks["request"].record
        r["pid"] = os.getpid()
        for name, value in values.items():
            r[name] = value
        self.map.blocks["request"].write()

    def state(self):
        s = self.map.blocks["state"].read()
        return STATES[int(s["state"])].value, s["reason"].decode(), s

    def follow(self, q, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.send(q)
            time.sleep(0.05)

    def latched(self):
        return self.state()[0] == "latched"

    def said(self, name):
        path = Path(self.run.run_dir) / f"{name}.said"
        return path.read_text().splitlines() if path.exists() else []

    def fault(self, name):
        return self.wires[name].blocks["state"].read()["fault"].decode()


@pytest.fixture
def rig(tmp_path):
    with ExitStack() as stack:
        yield Rig(devices_run(tmp_path), stack)


def test_two_devices_move_as_one_robot_and_end_holding(rig):
    goal = toy.HOME + [0.2, -0.15]
    rig.follow(goal, 1.5)
    name, reason, s = rig.state()
    assert (name, reason) == ("run", "") and np.abs(s["q"] - goal).max() < 0.02
    rig.control.terminate()
    assert rig.control.wait(10) == 0
    for name, child in rig.devices.items():
        child.terminate()
        assert child.wait(5) == 0
        assert rig.said(name) == ["stop shutdown", "close"]
        assert not os.path.exists(rig.run.device(name).memory)
    summary = json.loads((Path(rig.run.run_dir) / "control.json").read_text())
    assert summary["chunks"] > 10 and min(summary["worst_margin"].values()) >= 0


@pytest.mark.parametrize("victim", ["arm", "hand"])
def test_a_killed_device_latches_the_robot_and_the_other_one_stays_commanded(rig, victim):
    rig.follow(toy.HOME + [0.2, -0.15], 0.5)
    rig.devices[victim].send_signal(signal.SIGKILL)
    died = time.monotonic()
    toy.until(rig.latched, 5, "latched")
    assert rig.state()[1] == "state_stale" and time.monotonic() - died < 2.0
    other = "hand" if victim == "arm" else "arm"
    time.sleep(2 * rig.run.device(other).silence)
    assert rig.fault(other) == "" and rig.said(other) == []  # it holds by commands, not by its watchdog
    assert rig.said(victim) == []


def test_a_killed_control_process_leaves_every_device_resting_by_its_own_stop(rig):
    rig.follow(toy.HOME + [0.2, -0.15], 0.5)
    rig.control.send_signal(signal.SIGKILL)
    toy.until(lambda: all(rig.fault(name) == SILENT for name in rig.devices), 5, "both rest")
    assert all(rig.said(name) == [f"stop {SILENT}"] for name in rig.devices)
    assert all(child.poll() is None for child in rig.devices.values())


def test_a_hung_device_is_left_by_reset_once_it_is_back(rig):
    rig.follow(toy.HOME + [0.2, -0.15], 0.5)
    rig.devices["hand"].send_signal(signal.SIGSTOP)
    toy.until(rig.latched, 5, "latched")
    time.sleep(0.5)
    rig.devices["hand"].send_signal(signal.SIGCONT)
    time.sleep(0.2)
    rig.ask(reset=1)
    toy.until(lambda: rig.state()[0] == "hold", 8, "hold after the reset")
    rig.follow(toy.HOME, 1.5)
    name, _, s = rig.state()
    assert name == "run" and np.abs(s["q"] - toy.HOME).max() < 0.02


def test_a_driver_that_cannot_be_opened_ends_the_process_with_its_reason(tmp_path):
    run = devices_run(tmp_path)
    hand = replace(run.devices[1], driver="leap", settings={"port": str(tmp_path / "no_such_port")})
    replace(run, devices=(run.devices[0], hand)).write(tmp_path / "run.json")
    with device(run, "hand") as child:
        assert child.wait(20) == 2
    assert "ConfigError: a LEAP hand has the joints" in (tmp_path / "hand.log").read_text()
    assert not os.path.exists(hand.memory)


# Real drivers --------------------------------------------------------------------------------------------

fakes = pytest.mark.skipif(
    not (find_spec("pylibfranka") and find_spec("dynamixel_sdk")), reason="needs pylibfranka and dynamixel-sdk"
)


@pytest.fixture
def cell(tmp_path):
    """An FR3 with a LEAP hand through their real drivers, each on its fake; the control process in front."""
    from fr3_case import FciProcess, address
    from leap_case import plant

    from palmar.real_robot.drivers.leap_motors import ADDRESS
    from palmar.real_robot.fakes.dynamixel import DynamixelBus
    from palmar.real_robot.fakes.fci_process import HOME
    from palmar.real_robot.hardware import devices
    from palmar.sim.robots import load_robot

    robot = load_robot("fr3_leap")
    ids = [ADDRESS[j] for j in robot.joints[7:]]
    with ExitStack() as stack:
        arm = stack.enter_context(FciProcess(address(), patience=0.05, priority=68))
        bus = stack.enter_context(DynamixelBus(plant(robot.home[7:]), ids=ids))
        thread = next(t for t in threading.enumerate() if t.name == "dynamixel bus")
        with suppress(OSError):  # a fake that starves is a bad cable
            os.sched_setscheduler(thread.native_id, os.SCHED_FIFO, os.sched_param(68))
        base = toy.run_config(tmp_path)
        changes = {
            "arm": {"address": arm.address, "timeout": 0.1, "silence": 0.3, "fresh": 0.1},
            "hand": {"port": bus.port, "timeout": 0.1, "silence": 0.5, "fresh": 0.1, "rate": 100.0},
        }
        wires = {name: f"{base.control_memory}-{name}" for name in changes}
        text = (files("palmar.configs") / "constraints/arm_hand.yaml").read_text()
        run = replace(
            base, robot=robot.to_json(), constraints=text,
            hardware="real", devices=devices("fr3_leap", robot, wires, changes),
            twin_memory="", objects=(), scene="", qpos=(),
        )  # fmt: skip
        run.write(tmp_path / "run.json")
        rig = Rig(run, stack)
        rig.home = np.concatenate([HOME, robot.home[7:]])
        yield rig, arm, bus


def stands(position, seconds=0.5, most=0.005):
    """Whether nothing moves for a while."""
    before = np.array(position())
    time.sleep(seconds)
    return np.abs(np.array(position()) - before).max() < most


@fakes
def test_killed_arm_driver_the_arm_brakes_by_itself_and_the_hand_keeps_its_grip(cell):
    rig, arm, bus = cell
    rig.follow(rig.home + np.r_[0.15, np.zeros(6), np.full(16, 0.1)], 1.0)
    grip = bus.motors[2].get(116)
    rig.devices["arm"].send_signal(signal.SIGKILL)
    toy.until(rig.latched, 10, "latched")
    assert rig.state()[1] == "state_stale"
    toy.until(lambda: arm.report()["errors"], 10, "the robot's own stop")
    assert arm.report()["errors"] == "communication_constraints_violation"
    assert stands(lambda: arm.report()["q"]) and stands(lambda: bus.plant.measure()[0])
    assert bus.holding().all() and bus.motors[2].get(116) == pytest.approx(grip, abs=100) and rig.fault("hand") == ""


@fakes
def test_killed_hand_driver_the_motors_hold_by_their_own_watchdog_and_the_arm_stands(cell):
    rig, arm, bus = cell
    rig.follow(rig.home + np.r_[0.15, np.zeros(6), np.full(16, 0.1)], 1.0)
    rig.devices["hand"].send_signal(signal.SIGKILL)
    toy.until(rig.latched, 10, "latched")
    assert rig.state()[1] == "state_stale"
    time.sleep(1.2)  # longer than the bus watchdog
    assert bus.holding().all() and stands(lambda: bus.plant.measure()[0]) and stands(lambda: arm.report()["q"])
    assert rig.fault("arm") == "" and arm.report()["errors"] == ""  # it stood along the filter's stop
