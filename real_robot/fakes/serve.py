"""The fakes of a run as one process: fake arm and fake hand over the simulated robot.

It starts them, writes where they are reached to ``fakes.json`` in the run's folder, and moves the twin for them.  A
line of JSON on the standard input hurts one, ``{"who": "arm", "do": "drop", "args": [19]}``.
"""

from __future__ import annotations

import json
import logging
import os
import select
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from palmar.real_robot import realtime
from palmar.real_robot.config import DeviceConfig, RunConfig
from palmar.real_robot.drivers.error import DriverError
from palmar.real_robot.drivers.twin import twin_robot
from palmar.real_robot.drivers.wire import WireRobot
from palmar.real_robot.fakes.plant import Plant
from palmar.real_robot.fakes.twin_plant import TwinBody
from palmar.real_robot.process import Stopping, begin
from palmar.safety.config import unknown
from palmar.safety.types import ConfigError, PalmarError

PERIOD = 0.001
PATIENCE = 0.05
"""How long the fake arm waits for an answer before its packet counts as lost [s]; 0.001 on a robot.  Like the drivers'
patience with the fakes, below: a machine that simulates the hardware too is not a bad cable when it is busy."""
WAIT = 10.0
"""How long the twin may take to appear [s]."""
Fake = tuple[Any, dict[str, Any]]
"""What hurts it, and the settings of the driver that reaches it."""


def franka(stack: ExitStack, device: DeviceConfig, body: TwinBody) -> Fake:
    """A fake FR3 on a loopback address of its own: libfranka's port is always the same."""
    from palmar.real_robot.fakes.fci import Fci

    address = f"127.{1 + os.getpid() // 250 % 250}.{1 + os.getpid() % 250}.1"
    fake = stack.enter_context(Fci(body.part(device.joints), address, patience=PATIENCE))
    return fake, {"address": address, "timeout": 0.1}


def leap(stack: ExitStack, device: DeviceConfig, body: TwinBody) -> Fake:
    """A fake LEAP hand on a pseudo-terminal, as stiff as the twin's."""
    from palmar.real_robot.drivers.leap_motors import ADDRESS
    from palmar.real_robot.fakes.dynamixel import DynamixelBus

    plant: Plant = body.part(device.joints)
    stiffness = float(body.servo[0, body.wire.joints.index(device.joints[0])])
    fake = DynamixelBus(plant, ids=[ADDRESS[j] for j in device.joints], stiffness=stiffness)
    return stack.enter_context(fake), {"port": fake.port, "timeout": 0.1, "lost_after": 10}


def allegro(stack: ExitStack, device: DeviceConfig, body: TwinBody) -> Fake:
    """A fake Allegro hand behind a serial-line CAN adapter."""
    from palmar.real_robot.drivers.allegro_config import JOINTS
    from palmar.real_robot.fakes.allegro_can import AllegroHand, Slcan

    line = Slcan()
    fake = stack.enter_context(AllegroHand(body.part(JOINTS), line))
    options = {"bitrate": 1_000_000, "sleep_after_open": 0.0}
    return fake, {"interface": line.interface, "channel": line.channel, "options": options, "stale": 0.1}


FAKES: dict[str, Callable[[ExitStack, DeviceConfig, TwinBody], Fake]] = {
    "fr3": franka,
    "leap": leap,
    "allegro": allegro,
}
"""Fake by the name of the driver that speaks to it."""
HURTS = ("cut", "restore", "drop", "corrupt", "freeze", "raise_fault", "reset")


def hurt(fakes: dict[str, Any], line: str, log: logging.Logger) -> None:
    """Do what one line of the standard input says; what it cannot mean is logged."""
    try:
        asked = json.loads(line)
        if asked["do"] not in HURTS or asked["who"] not in fakes:
            raise ConfigError(f"{asked}: accepted who {sorted(fakes)}, do {list(HURTS)}")
        log.warning("%s", line.strip())
        getattr(fakes[asked["who"]], asked["do"])(*asked.get("args", ()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        log.error("not done: %r (%r)", line, error)


def run_fakes(run: RunConfig, stopping: Stopping, log: logging.Logger) -> None:
    """Serve until told to stop; the twin then holds."""
    model = run.robot_model()
    granted = realtime.go_realtime(run.priority + 8)  # the fakes' threads inherit it
    body = TwinBody(_awake(twin_robot(model, Path(run.twin_memory), timeout=WAIT)), run.scene)
    with ExitStack() as stack:
        fakes, settings = {}, {}
        for device in run.devices:
            if device.driver not in FAKES:
                raise ConfigError(unknown("fake of a driver", device.driver, FAKES))
            fakes[device.name], settings[device.name] = FAKES[device.driver](stack, device, body)
        log.info("fakes of %s: %s", run.robot["name"], granted)
        realtime.freeze_collector()
        _tell(Path(run.run_dir) / "fakes.json", settings)
        beat, heard = realtime.Beat(PERIOD), True
        beat.start()
        while not stopping:
            beat.wait()
            body.step()
            if heard and select.select([sys.stdin], [], [], 0.0)[0]:
                line = sys.stdin.readline()
                heard = bool(line)  # at the end of the input there is nothing more to wait for
                if line:
                    hurt(fakes, line, log)
    body.wire.stop("fakes ended")
    late, missed = 1e3 * beat.late_max, beat.missed
    log.info("stopped; %d ms missed, at most %.0f ms late; the twin was recovered %d times", missed, late, body.faults)


def _awake(wire: WireRobot) -> WireRobot:
    """The twin's wire once it gives states.

    Raises:
        DriverError: If it gives none.
    """
    end = time.monotonic() + WAIT
    while True:
        try:
            wire.read()
            return wire
        except DriverError:
            if time.monotonic() > end:
                raise
            time.sleep(0.01)


def _tell(path: Path, settings: dict[str, Any]) -> None:
    """Write at once: whoever finds the file finds it whole."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(settings, indent=1))
    part.rename(path)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve the fakes of ``--config FILE``."""
    run, log = begin("fakes", argv)
    try:
        run_fakes(run, Stopping(), log)
    except PalmarError as error:
        log.error("%s: %s", type(error).__name__, error)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
