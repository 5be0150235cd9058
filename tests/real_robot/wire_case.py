"""Contract cases of the wire: its other end is a device process's loop over a toy driver, or the twin."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import mujoco
import numpy as np
import toy_driver
import toy_robot as toy
from driver_cases import Case

from palmar.real_robot import shared
from palmar.real_robot.config import DeviceConfig, TwinConfig
from palmar.real_robot.device import Device
from palmar.real_robot.drivers.assembled import Assembled
from palmar.real_robot.drivers.twin import twin_robot
from palmar.real_robot.drivers.wire import WireRobot
from palmar.real_robot.layout import wire_layout
from palmar.real_robot.twin import FAULT, Twin, open_memory

JOINTS = ("shoulder", "elbow")


class Loop:
    """Something that is called once per millisecond in a thread; ``cut`` suspends it, as a killed process would."""

    def __init__(self, cycle):
        self._cycle, self.is_cut, self._ending = cycle, False, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        while not self._ending.wait(0.001):
            if not self.is_cut:
                self._cycle()

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ending.set()
        self._thread.join()


class DeviceControls:
    def __init__(self, loop, driver, served):
        self.loop, self.driver, self.served = loop, driver, served

    def cut(self):
        self.loop.is_cut = True

    def restore(self):
        self.loop.is_cut = False

    def raise_fault(self, name):
        self.driver.raise_fault(name)

    def reset(self):
        self.driver._cause = ""

    def position(self):
        return self.driver.plant.measure()[0][::-1]

    def holding(self):
        return self.driver.plant.servoed

    def received(self):
        return self.driver.received


def one(folder: Path, name: str, joints, home) -> tuple[DeviceConfig, toy_driver.Toy, shared.SharedMap]:
    device = DeviceConfig(name, "toy", tuple(joints), str(folder / f"{name}.wire"), silence=0.8)
    driver = toy_driver.Toy(toy_driver.ToyConfig(tuple(home)), joints)
    description = shared.Description(kind="device", robot="toy", joints=device.joints)
    return device, driver, shared.create(Path(device.memory), description, wire_layout(description))


@contextmanager
def device(folder: Path):
    config, driver, memory = one(folder, "arm", JOINTS, toy.HOME)
    served = Device(config, driver, memory, logging.getLogger("test"))
    with Loop(served.cycle) as loop:
        robot = WireRobot(JOINTS, Path(config.memory), robot="toy")
        wait(robot)
        yield robot, DeviceControls(loop, driver, served)
    memory.close()


@contextmanager
def assembled(folder: Path):
    made = [one(folder, name, (joint,), (q,)) for name, joint, q in zip(("arm", "hand"), JOINTS, toy.HOME, strict=True)]
    served = [Device(*parts, logging.getLogger("test")) for parts in made]

    def both():
        for s in served:
            s.cycle()

    with Loop(both) as loop:
        wires = [WireRobot(c.joints, Path(c.memory), robot="toy") for c, _, _ in made]
        for wire in wires:
            wait(wire)
        yield Assembled(wires, JOINTS), AssembledControls(loop, [d for _, d, _ in made])
    for _, _, memory in made:
        memory.close()


class AssembledControls(DeviceControls):
    """The second part is what gets hurt."""

    def __init__(self, loop, drivers):
        super().__init__(loop, drivers[1], None)
        self.drivers = drivers

    def position(self):
        return np.concatenate([d.plant.measure()[0] for d in self.drivers])


class TwinControls:
    def __init__(self, loop, twin):
        self.loop, self.twin = loop, twin

    def cut(self):
        self.loop.is_cut = True

    def restore(self):
        self.loop.is_cut = False

    def raise_fault(self, name):
        self.twin.fault, self.twin._active = name, False

    def reset(self):
        pass

    def position(self):
        return self.twin.data.qpos[:2].copy()

    def holding(self):
        return bool((self.twin.gains > 0).all())

    def received(self):
        return self.twin._command_seq


@contextmanager
def simulated(folder: Path):
    run = toy.run_config(folder, twin=replace(TwinConfig(), watchdog=800))
    model = mujoco.MjModel.from_xml_string(run.scene)
    memory = open_memory(Path(run.twin_memory), run, model)
    twin = Twin(run, model, memory, rng=np.random.default_rng(0))
    with Loop(lambda: twin.step(time.monotonic())) as loop:
        robot = twin_robot(toy.robot(), Path(run.twin_memory))
        wait(robot)
        yield robot, TwinControls(loop, twin)
    memory.close()


def wait(robot):
    def there():
        try:
            return robot.read()
        except ValueError:
            return None

    toy.until(there, what="a first state")


def cases():
    common = dict(rate=200.0, cut_within=0.1)
    return [
        Case("device", device, faults=("overload",), watchdog=0.8, **common),
        Case("assembled", assembled, faults=("overload",), watchdog=0.8, **common),
        Case("twin", simulated, faults=(FAULT,), watchdog=0.8, tolerance=0.03, **common),
    ]
