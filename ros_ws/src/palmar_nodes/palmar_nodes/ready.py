"""Wait until a part of a run is there: the order in which the launch files' processes begin."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STAGES = ("twin", "fakes", "devices", "control")
TIMEOUT = 180.0
"""How long a part may take; the control process compiles at its first use on a machine [s]."""
LOOK = 0.05
"""Time between two looks [s]."""


def there(run: Any, stage: str) -> Callable[[], bool]:
    """Whether a part of ``run`` is there: its shared files, the fakes' addresses, a state of the control process."""
    if stage == "control":
        return _states(run)
    paths = {
        "twin": [run.twin_memory],
        "fakes": [str(Path(run.run_dir) / "fakes.json")],
        "devices": [device.memory for device in run.devices],
    }[stage]
    return lambda: all(Path(path).exists() for path in paths)


def _states(run: Any) -> Callable[[], bool]:
    """Whether the control process has the hardware and gives states."""
    from palmar.real_robot import shared
    from palmar.real_robot.layout import LAYOUTS

    path, same, block = Path(run.control_memory), run.robot_model().hash(), []

    def look() -> bool:
        if not block and path.exists():
            block.append(shared.wait_attach(path, LAYOUTS, kind="control", robot=same, timeout=TIMEOUT))
        return bool(block) and block[0].blocks["state"].read() is not None

    return look


def after(run: Callable[[], int]) -> int:
    """``run()`` once the part of the run is there that ``--after`` names; at once without it."""
    from palmar.real_robot.config import read

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--after", choices=STAGES)
    args, _ = parser.parse_known_args()
    if args.after is not None:
        try:
            if wait(there(read(args.config), args.after), args.after, TIMEOUT):
                return 1
        except KeyboardInterrupt:  # the launch is being ended
            return 0
    return run()


def main() -> int:
    """Exit status 0 once it is there, 1 after ``--timeout``."""
    from palmar.real_robot.config import read

    parser = argparse.ArgumentParser(prog="ready", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the run's JSON file")
    parser.add_argument("--until", choices=STAGES, default="control")
    parser.add_argument("--timeout", type=float, default=TIMEOUT, help=f"[s], {TIMEOUT}")
    args, _ = parser.parse_known_args()
    try:
        return wait(there(read(args.config), args.until), args.until, args.timeout)
    except KeyboardInterrupt:  # the launch is being ended
        return 1


def wait(look: Callable[[], bool], name: str, timeout: float) -> int:
    """0 once ``look`` says so, 1 after ``timeout`` [s]."""
    end = time.monotonic() + timeout
    while not look():
        if time.monotonic() > end:
            sys.stderr.write(f"{name} not ready within {timeout} s; see its log\n")
            return 1
        time.sleep(LOOK)
    return 0
