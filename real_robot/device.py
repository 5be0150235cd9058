"""The process of one device: a driver on one side, a wire to the control process on the other.

The control process never talks to a port.  This one does, at the hardware's own rate, and rests the hardware by the
driver's ``stop`` when the control process falls silent.  If it dies itself, the hardware's own watchdog is left.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from palmar.real_robot import process, realtime, shared
from palmar.real_robot.config import DeviceConfig, RunConfig
from palmar.real_robot.drivers import find
from palmar.real_robot.drivers.error import DriverError
from palmar.real_robot.layout import wire_layout
from palmar.real_robot.process import Stopping
from palmar.safety.config import load
from palmar.safety.types import Command, CommandRefused, ConfigError
from palmar.sim.interface import Robot, RobotState

RATE = 1000.0
"""Cycles per second where the driver's configuration has no ``rate`` [Hz]."""
SILENT = "no_command"
"""Fault of a device whose control process gave no new command in time."""
REFUSED = "command_refused"
"""Fault of a device whose driver refused a command."""
BROKEN = "driver_error"
"""Fault of a device whose driver could not send a command."""
LOST = "no_reading"
"""Fault of a device whose driver gave no reading for longer than ``fresh``."""
RECOVERY = "recovery_failed"
"""Fault of a device that could not be recovered."""


def configuration(device: DeviceConfig) -> Any:
    """The driver's own configuration, checked.

    Raises:
        ConfigError: If there is no such driver, or a key or value is refused.
    """
    return load(find.load(device.driver).config, device.settings, where=device.name)


def open_driver(device: DeviceConfig, config: Any) -> Robot:
    """The driver of ``device``, opened and checked.

    Raises:
        ConfigError: If it moves other joints than the device has.
        DriverError: If the hardware does not answer or is another one.
    """
    driver = find.load(device.driver).open(config, device.joints)
    if sorted(driver.joints) != sorted(device.joints):
        driver.close()
        raise ConfigError(f"{device.name}: {device.driver} moves {list(driver.joints)}, need {list(device.joints)}")
    return driver


class Device:
    """One driver on one wire; ``cycle`` once per period of the hardware."""

    def __init__(self, device: DeviceConfig, driver: Robot, memory: shared.SharedMap, log: logging.Logger):
        self.device, self.driver, self.log = device, driver, log
        self.fault = ""
        """Of this process's own making or the driver's; it stays until an operator's reset, also where the hardware
        would go on by itself, as an arm does whose user's stop is pulled out again."""
        self.cycles = self.failed = self.commands = 0
        self._wire = memory.blocks["command"], memory.blocks["state"]
        ours = list(device.joints)
        self._out = np.array([ours.index(j) for j in driver.joints])
        """Where each of the driver's joints is on the wire."""
        self._in = np.array([list(driver.joints).index(j) for j in ours])
        self._seq, self._recovered, self._active = 0, 0, False
        self._heard = self._read = time.monotonic()
        self._stamped, self._said = -np.inf, ""

    def cycle(self) -> bool:
        """Take the newest command, send it, read, publish; whether there was a reading."""
        self.cycles += 1
        now = time.monotonic()
        try:
            self._obey(self._newest(now), now)
        except DriverError as error:
            self._fail(BROKEN, error)
        except CommandRefused as error:
            self._fail(REFUSED, error)
        try:
            state = self.driver.read()
        except DriverError as error:
            self.failed += 1
            if now - self._read > self.device.fresh:
                self._fail(LOST, error)
            self.fault = self.fault or self.driver.fault
            self._publish(None)
            return False
        self._read = now
        self.fault = self.fault or self.driver.fault
        self._publish(state)
        return True

    def _newest(self, now: float) -> Any:
        """The command on the wire if it is a new one."""
        try:
            c = self._wire[0].read()
        except shared.TornRead:
            return None
        if c is None or int(c["seq"]) == self._seq:
            return None
        self._seq, self._heard = int(c["seq"]), now
        return c

    def _obey(self, c: Any, now: float) -> None:
        """Send a new command; without one, wait for it no longer than the watchdog lets."""
        if c is None:
            if self._active and not self.fault and now - self._heard > self.device.silence:
                self._fail(SILENT, f"no new command for {1e3 * (now - self._heard):.0f} ms")
            return
        if int(c["recover"]) != self._recovered:
            self._recover(int(c["recover"]))
        if not c["active"]:
            if self._active and not self.fault:
                self._active = False
                self.driver.stop(c["reason"].decode() or "asked")
            return
        if self.fault:
            return
        gains = (c["stiffness"][self._out], c["damping"][self._out]) if c["impedance"] else (None, None)
        self._active = True
        self.driver.write(Command(c["q"][self._out], self._seq, float(c["stamp"]), *gains))
        self.commands += 1

    def _recover(self, count: int) -> None:
        """An operator's reset; the fault stays if the driver cannot recover."""
        self._recovered, self._active = count, False
        try:
            self.driver.recover()
        except DriverError as error:
            self.fault = RECOVERY
            self.log.error("recovery failed: %s", error)
            return
        self.fault = ""
        self.log.warning("recovered")

    def _fail(self, fault: str, why: object) -> None:
        """Rest by the driver's means and say so, until recovered; in a fault of its own the hardware rests already."""
        self._active = False
        if self.fault or self.driver.fault:
            return
        self.fault = fault
        self.log.error("%s: %s", fault, why)
        try:
            self.driver.stop(fault)
        except DriverError as error:
            self.log.error("the driver could not stop: %s", error)

    def _publish(self, state: RobotState | None) -> None:
        """Put a reading on the wire; without one, nothing but a fault, beside the last reading with its old stamp."""
        r, fault = self._wire[1].record, self.fault
        if state is None and fault.encode()[:48] == bytes(r["fault"]):
            return
        if state is not None:
            r["t"], r["seq"] = state.t, r["seq"] + (state.t > self._stamped)
            r["q"], r["qd"], r["tau"] = state.q[self._in], state.qd[self._in], state.tau[self._in]
            self._stamped = state.t
        r["fault"], r["recovered"], r["command_seq"] = fault, self._recovered, self._seq
        self._wire[1].write()
        if fault != self._said:
            self._said = fault
            self.log.warning("fault: %s", fault or "cleared")

    def summary(self) -> dict[str, int]:
        """What happened, in numbers."""
        return {"cycles": self.cycles, "failed_readings": self.failed, "commands": self.commands}


def with_fakes(device: DeviceConfig, run: RunConfig) -> dict[str, Any]:
    """The device's settings, with the ports of the fakes in place of real ones where ``run`` asks for fakes.

    Raises:
        ConfigError: If the fakes have not said where they are.
    """
    if run.hardware != "fake":
        return device.settings
    path = Path(run.run_dir) / "fakes.json"
    try:
        return device.settings | json.loads(path.read_text())[device.name]
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"no fake of {device.name} in {path}: {error!r}") from error


def run_device(run: RunConfig, device: DeviceConfig, stopping: Stopping, log: logging.Logger) -> None:
    """Serve the device until told to stop; leaves the hardware holding.

    Raises:
        PalmarError: If the driver's configuration is refused or the hardware does not answer.
    """
    device = replace(device, settings=with_fakes(device, run))
    robot = run.robot_model().hash()
    config = configuration(device)
    driver = open_driver(device, config)
    try:
        description = shared.Description(kind="device", robot=robot, joints=device.joints)
        memory = shared.create(Path(device.memory), description, wire_layout(description))
        try:
            served = Device(device, driver, memory, log)
            log.info("%s of %d joints: %s", device.driver, len(device.joints), realtime.go_realtime(run.priority + 5))
            realtime.freeze_collector()
            # A driver that waits for its hardware's next sample keeps the time by itself.
            paced, beat = getattr(driver, "paced", False), realtime.Beat(1.0 / getattr(config, "rate", RATE))
            beat.start()
            while not stopping:
                if not (served.cycle() and paced):
                    beat.wait()
            log.info("stopped: %s", served.summary())
        finally:
            memory.close()
    finally:
        driver.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the device ``--name`` of ``--config FILE``."""
    parser = argparse.ArgumentParser(prog="device", allow_abbrev=False)
    parser.add_argument("--name", required=True, help="arm or hand")
    name = parser.parse_known_args(argv)[0].name
    return process.main(name, lambda run, stopping, log: run_device(run, run.device(name), stopping, log), argv)


if __name__ == "__main__":
    raise SystemExit(main())
