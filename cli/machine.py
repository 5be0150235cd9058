"""What ``palmar doctor`` can tell without starting anything: Python, processor, versions, disk."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

OK, WARN, FAIL = "OK", "WARN", "FAIL"
"""Works; works less well, or an optional part is missing; Palmar does not work."""

PYTHONS = ((3, 11), (3, 12))
DISK = 5e9
"""Space a few runs with video need [B]."""


@dataclass(frozen=True)
class Check:
    """One row of the table."""

    name: str
    status: str
    found: str
    fix: str = ""
    """What to do, '' where nothing is to be done."""


def python() -> Check:
    """Whether this Python is one of PYTHONS."""
    found = f"{platform.python_version()} in {sys.prefix}"
    if sys.version_info[:2] in PYTHONS:
        return Check("Python", OK, found)
    return Check("Python", FAIL, found, "use Python 3.11 or 3.12: make PYTHON=python3.12")


def system() -> Check:
    """Operating system and processor."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found = f"{platform.system()} {platform.release()} {platform.machine()}, {cores} cores"
    if platform.system() != "Linux":
        return Check("system", WARN, found, "deployment needs Linux; training and reports work")
    if cores < 2:
        return Check("system", WARN, found, "a deployment wants two cores: one belongs to the control process")
    return Check("system", OK, found)


def disk(folder: Path) -> Check:
    """Free space where runs would be written."""
    free = shutil.disk_usage(folder).free
    found = f"{free / 1e9:.1f} GB free in {folder}"
    return Check("disk", OK if free > DISK else WARN, found, "" if free > DISK else "free some, or use --out DIR")


def ffmpeg() -> Check:
    """The encoder of videos."""
    try:
        import imageio_ffmpeg

        return Check("ffmpeg", OK, Path(imageio_ffmpeg.get_ffmpeg_exe()).name)
    except (ImportError, RuntimeError) as error:
        return Check("ffmpeg", WARN, str(error).splitlines()[0], "pip install imageio-ffmpeg, or apt install ffmpeg")


def pins() -> list[Check]:
    """Installed versions against those pyproject.toml accepts: one row, and one per package that is wrong.

    A package of an extra may be absent, but not in a version that is not accepted.
    """
    wrong, good = [], 0
    for text in requires("palmar") or []:
        needed = Requirement(text)
        optional = needed.marker is not None and not needed.marker.evaluate({"extra": ""})
        try:
            have = version(needed.name)
        except PackageNotFoundError:
            have = "not installed"
        if have != "not installed" and needed.specifier.contains(have, prereleases=True):
            good += 1
        elif have != "not installed" or not optional:
            fix = f"pip install '{needed.name}{needed.specifier}'"
            found = f"{have}, need {needed.specifier or 'any'}"
            wrong.append(Check(needed.name, WARN if optional else FAIL, found, fix))
    status = max((row.status for row in wrong), key=(OK, WARN, FAIL).index, default=OK)
    return [Check("packages", status, f"{good} of {good + len(wrong)} versions accepted"), *wrong]
