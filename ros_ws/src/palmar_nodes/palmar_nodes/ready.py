"""Wait until the control process has the hardware and gives states: what the launch files configure the nodes after."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

READY = 180.0
"""How long the control process may take; the first use on a machine compiles [s]."""
LOOK = 0.05
"""Time between two looks [s]."""


def wait(config: Path, timeout: float) -> str:
    """'' once the control process of the run gives a state; else what is missing after ``timeout`` [s]."""
    from palmar.real_robot import shared
    from palmar.real_robot.config import read
    from palmar.real_robot.layout import LAYOUTS

    run, end = read(config), time.monotonic() + timeout
    path, same = Path(run.control_memory), run.robot_model().hash()
    while not path.exists():
        if time.monotonic() > end:
            return f"no control process within {timeout} s: {path} is not there"
        time.sleep(LOOK)
    control = shared.wait_attach(path, LAYOUTS, kind="control", robot=same, timeout=timeout)
    try:
        while control.blocks["state"].read() is None:
            if time.monotonic() > end:
                return f"the control process gave no state within {timeout} s"
            time.sleep(LOOK)
    finally:
        control.close()
    return ""


def main() -> int:
    """Exit status 0 once it is ready, 1 after ``--timeout``."""
    parser = argparse.ArgumentParser(prog="ready", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the run's JSON file")
    parser.add_argument("--timeout", type=float, default=READY, help=f"[s], {READY}")
    args, _ = parser.parse_known_args()
    problem = wait(args.config, args.timeout)
    sys.stderr.write(problem + "\n" if problem else "")
    return int(bool(problem))
