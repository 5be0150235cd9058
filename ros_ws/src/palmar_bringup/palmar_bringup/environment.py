"""Palmar's own Python environment, for a ``ros2 launch`` that runs in the distribution's Python."""

from __future__ import annotations

import site
import sys
from importlib.util import find_spec
from pathlib import Path


def interpreter(executable: Path) -> Path:
    """The Python that an executable of the workspace was built for: the one that ran colcon."""
    return Path(executable.read_text().splitlines()[0].removeprefix("#!").strip())


def packages(python: Path) -> Path:
    """Where the environment of ``python`` has its packages, for this version of Python."""
    return python.parents[1] / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"


def enter(executable: Path) -> None:
    """Make palmar importable here, from the environment that ``executable`` was built in.

    Raises:
        ModuleNotFoundError: If that environment has no palmar, or is of another Python.
    """
    if find_spec("palmar") is not None:
        return
    python = interpreter(executable)
    site.addsitedir(str(packages(python)))
    if find_spec("palmar") is None:
        raise ModuleNotFoundError(
            f"no palmar in {packages(python)}: build the workspace by `python -m colcon build` in the environment that "
            f"has Palmar, of the same Python {sys.version_info[0]}.{sys.version_info[1]} as ROS 2"
        )
