"""``python -m palmar.real_robot.fakes.hand leap``: a fake hand on a port of its own, joints that move by themselves.

It prints the settings of the driver that reaches it and serves until its input ends; a line of JSON on the input
hurts it, ``{"do": "raise_fault", "args": ["overload"]}``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from palmar.real_robot.drivers.allegro_config import JOINTS
from palmar.real_robot.drivers.allegro_config import LIMITS as ALLEGRO_LIMITS
from palmar.real_robot.drivers.leap_motors import ADDRESS
from palmar.real_robot.drivers.leap_motors import LIMITS as LEAP_LIMITS
from palmar.real_robot.fakes.allegro_can import AllegroHand, Slcan
from palmar.real_robot.fakes.dynamixel import DynamixelBus
from palmar.real_robot.fakes.plant import ServoPlant

HURTS = ("cut", "restore", "freeze", "drop", "corrupt", "tear", "silence", "shorten", "raise_fault", "reset")


def leap(link: Path | None) -> tuple[AbstractContextManager[Any], dict[str, Any]]:
    """A fake LEAP hand, joints a little closed."""
    start = [max(0.2, LEAP_LIMITS[j][0]) for j in ADDRESS]
    plant = ServoPlant(np.array(start), inertia=0.002, friction=0.02, stiffness=0.0, damping=0.0, tau_max=0.28)
    fake = DynamixelBus(plant, ids=list(ADDRESS.values()), link=link).start()
    return fake, {"driver": "leap", "port": fake.port}


def allegro(link: Path | None) -> tuple[AbstractContextManager[Any], dict[str, Any]]:
    """A fake Allegro hand behind a serial-line CAN adapter."""
    start = [0.5 * sum(ALLEGRO_LIMITS[j]) for j in JOINTS]
    line = Slcan(link)
    fake = AllegroHand(ServoPlant(np.array(start), inertia=0.002, friction=0.3), line).start()
    options = {"bitrate": 1_000_000, "sleep_after_open": 0.0}
    return fake, {"driver": "allegro", "interface": "slcan", "channel": line.channel, "options": options}


def main(argv: Sequence[str] | None = None) -> int:
    """Serve the fake hand that is named."""
    parser = argparse.ArgumentParser(prog="hand", description=__doc__, allow_abbrev=False)
    parser.add_argument("hand", choices=("leap", "allegro"))
    parser.add_argument("--link", type=Path, help="keep a symbolic link to the port here")
    asked = parser.parse_args(argv)
    fake, settings = {"leap": leap, "allegro": allegro}[asked.hand](asked.link)
    try:
        print(json.dumps(settings), flush=True)
        for line in sys.stdin:
            try:
                what = json.loads(line)
                if what["do"] not in HURTS:
                    raise ValueError(f"accepted: {HURTS}")
                getattr(fake, what["do"])(*what.get("args", ()))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                print(f"not done: {line.strip()} ({error!r})", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        pass
    finally:
        fake.__exit__(None, None, None)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
