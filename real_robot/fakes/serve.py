"""The fakes of a run as one process: fake arm and fake hand over the simulated robot.

It starts them, writes where they are reached to ``fakes.json`` in the run's folder, and moves the twin for them.  A
line of JSON on the standard input hurts one, ``{"who": "arm", "do": "drop", "args": [19]}``.

The fake of a driver is the function ``fake(stack, joints, body)`` of ``fakes/<driver>.py``, or of the driver's file.
It enters its fake, a ``Served``, into ``stack``, lets it move ``body.part(joints)``, and returns it with the settings
of a driver that reaches it.  These are patient: a machine that simulates the hardware too is not a bad cable when it
is busy.
"""

from __future__ import annotations

import json
import logging
import select
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from palmar.real_robot import process, realtime
from palmar.real_robot.config import RunConfig
from palmar.real_robot.drivers import find
from palmar.real_robot.drivers.error import DriverError
from palmar.real_robot.drivers.twin import twin_robot
from palmar.real_robot.drivers.wire import WireRobot
from palmar.real_robot.fakes.served import Served
from palmar.real_robot.fakes.twin_plant import TwinBody
from palmar.real_robot.process import Stopping
from palmar.safety.config import unknown
from palmar.safety.types import ConfigError

PERIOD = 0.001
WAIT = 10.0
"""How long the twin may take to appear [s]."""


def fake_of(driver: str) -> Callable[[ExitStack, Sequence[str], TwinBody], tuple[Served, dict[str, Any]]]:
    """What makes a fake of the hardware of a driver; see the module.

    Raises:
        ConfigError: If there is no such driver, or it has no fake.
    """
    own = f"palmar.real_robot.fakes.{driver}"
    module = import_module(own) if "." not in driver and find_spec(own) is not None else find.module(driver)
    if not callable(getattr(module, "fake", None)):
        raise ConfigError(f"driver {driver!r} has no fake(stack, joints, body), in fakes/{driver}.py or its own file")
    return module.fake


def hurt(fakes: dict[str, Served], line: str, log: logging.Logger) -> None:
    """Do what one line of the standard input says; what it cannot mean is logged."""
    try:
        who = json.loads(line)["who"]
        if who not in fakes:
            raise ConfigError(unknown("device", who, fakes))
        log.warning("%s", line.strip())
        fakes[who].order(line)
    except (ConfigError, ValueError, KeyError, TypeError) as error:
        log.error("not done: %r (%r)", line, error)


def run_fakes(run: RunConfig, stopping: Stopping, log: logging.Logger) -> None:
    """Serve until told to stop; the twin then holds."""
    model = run.robot_model()
    granted = realtime.go_realtime(run.priority + 8)  # the fakes' threads inherit it
    body = TwinBody(_awake(twin_robot(model, Path(run.twin_memory), timeout=WAIT)), run.scene)
    with ExitStack() as stack:
        fakes, settings = {}, {}
        for device in run.devices:
            fakes[device.name], settings[device.name] = fake_of(device.driver)(stack, device.joints, body)
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
    return process.main("fakes", run_fakes, argv)


if __name__ == "__main__":
    raise SystemExit(main())
