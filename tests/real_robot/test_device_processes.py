"""Device processes with the control process in front: they move as one robot, and what is left when one is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import control_rig
import numpy as np
import pytest
import toy_driver
import toy_robot as toy

from palmar.real_robot import shared
from palmar.real_robot.config import DeviceConfig, RunConfig, read
from palmar.real_robot.device import SILENT
from palmar.real_robot.layout import LAYOUTS
from palmar.safety.types import State

JOINTS = ("shoulder", "elbow")


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


class Rig(control_rig.Rig):
    """Both devices and the control process, driven from here."""

    def __init__(self, run, stack):
        self.devices = {d.name: stack.enter_context(device(run, d.name)) for d in run.devices}
        super().__init__(run.run_dir, stack, run)
        self.wires = {d.name: shared.attach(Path(d.memory), LAYOUTS, kind="device") for d in run.devices}

    def latched(self):
        return self.filter_state()[0] is State.LATCHED

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
    rig.run_until_at(goal)
    rig.control.terminate()
    assert rig.control.wait(10) == 0
    for name, child in rig.devices.items():
        child.terminate()
        assert child.wait(5) == 0
        assert rig.said(name) == ["stop shutdown", "close"]
        assert not os.path.exists(rig.run.device(name).memory)
    summary = json.loads((Path(rig.run.run_dir) / "control.json").read_text())
    assert summary["chunks"] > 0 and min(summary["worst_margin"].values()) >= 0


@pytest.mark.parametrize("victim", ["arm", "hand"])
def test_a_killed_device_latches_the_robot_and_the_other_one_stays_commanded(rig, victim):
    rig.run_until_moving(toy.HOME + [0.2, -0.15])
    rig.devices[victim].send_signal(signal.SIGKILL)
    toy.until(rig.latched, 10, "latched")
    assert rig.filter_state()[1] == "state_stale"
    other = "hand" if victim == "arm" else "arm"
    time.sleep(2 * rig.run.device(other).silence)
    assert rig.fault(other) == "" and rig.said(other) == []  # it holds by commands, not by its watchdog
    assert rig.said(victim) == []


def test_a_killed_control_process_leaves_every_device_resting_by_its_own_stop(rig):
    rig.run_until_moving(toy.HOME + [0.2, -0.15])
    rig.control.send_signal(signal.SIGKILL)
    toy.until(lambda: all(rig.fault(name) == SILENT for name in rig.devices), 10, "both rest")
    assert all(rig.said(name) == [f"stop {SILENT}"] for name in rig.devices)
    assert all(child.poll() is None for child in rig.devices.values())


def test_a_hung_device_is_left_by_reset_once_it_is_back(rig):
    rig.run_until_moving(toy.HOME + [0.2, -0.15])
    rig.devices["hand"].send_signal(signal.SIGSTOP)
    toy.until(rig.latched, 10, "latched")
    time.sleep(2 * rig.run.device("hand").silence)  # longer than its driver goes without a command
    rig.devices["hand"].send_signal(signal.SIGCONT)
    rig.run_until_at(toy.HOME)  # by a reset, once it gives readings again


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
        with suppress(OSError):  # a fake that starves is a bad cable
            os.sched_setscheduler(bus._thread.native_id, os.SCHED_FIFO, os.sched_param(68))
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
    rig.keep_running(1.0, rig.home + np.r_[0.15, np.zeros(6), np.full(16, 0.1)])
    grip = bus.motors[2].get(116)
    rig.devices["arm"].send_signal(signal.SIGKILL)
    toy.until(rig.latched, 10, "latched")
    assert rig.filter_state()[1] == "state_stale"
    toy.until(lambda: arm.report()["errors"], 10, "the robot's own stop")
    assert arm.report()["errors"] == "communication_constraints_violation"
    assert stands(lambda: arm.report()["q"]) and stands(lambda: bus.plant.measure()[0])
    assert bus.holding().all() and bus.motors[2].get(116) == pytest.approx(grip, abs=100) and rig.fault("hand") == ""


@fakes
def test_killed_hand_driver_the_motors_hold_by_their_own_watchdog_and_the_arm_stands(cell):
    rig, arm, bus = cell
    rig.keep_running(1.0, rig.home + np.r_[0.15, np.zeros(6), np.full(16, 0.1)])
    rig.devices["hand"].send_signal(signal.SIGKILL)
    toy.until(rig.latched, 10, "latched")
    assert rig.filter_state()[1] == "state_stale"
    time.sleep(1.2)  # longer than the bus watchdog
    assert bus.holding().all() and stands(lambda: bus.plant.measure()[0]) and stands(lambda: arm.report()["q"])
    assert rig.fault("arm") == "" and arm.report()["errors"] == ""  # it stood along the filter's stop
