"""``palmar bench launch``: the launch files run for real; needs ``ros2 launch`` and the built workspace, both sourced.

Each row is one launch file with arguments: what it reached, in which time, how it ended and what it left behind.
Nothing here stands in for ROS 2: it is started as a user starts it, and read from its output and exit status.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from palmar.real_robot import ros_env, shared
from palmar.safety.types import PalmarError

Progress = Callable[[str], None]
PACKAGES = ("launch", "launch-ros", "ros2launch", "ros2cli", "ros-rclpy", "ros-rmw-fastrtps-cpp", "palmar-bringup")
ACTIVE = 150.0
"""How long a launch may take to do what is waited for [s]."""
END = 40.0
"""How long it may take to end after Ctrl-C [s]."""


class LaunchMissing(PalmarError):
    """``ros2 launch`` or the workspace is not here."""


@dataclass(frozen=True)
class Case:
    """One launch."""

    file: str
    arguments: tuple[str, ...]
    reaches: str
    """What its output says when it has done what it is for; a regular expression."""
    interrupt: bool = True
    """Whether it is ended by Ctrl-C after that, or ends by itself."""
    stays: float = 3.0
    """How long it runs after that [s]."""
    status: int = 0
    """Exit status expected."""


CASES = {
    "twin": Case("deploy.launch.py", ("hardware:=twin",), "policy is active"),
    "fake": Case("deploy.launch.py", ("hardware:=fake",), "policy is active"),
    "namespace": Case("deploy.launch.py", ("namespace:=left", "mode:=shadow", "record:=false"), "policy is active"),
    "topics": Case("replay.launch.py", ("rollout:={rollout}", "speed:=1.0"), "the rollout has ended", interrupt=False),
    "robot": Case(
        "replay.launch.py",
        ("rollout:={rollout}", "target:=robot", "speed:=0.5", "record:=false"),
        "the rollout has ended",
        interrupt=False,
    ),
    "refused": Case("deploy.launch.py", ("hardware:=fr4",), "accepted", interrupt=False, status=1),
    "misspelt": Case("deploy.launch.py", ("hardwear:=fake",), "unknown launch arguments", interrupt=False, status=1),
    "no_bundle": Case("deploy.launch.py", ("policy:=/nowhere",), "no bundle at", interrupt=False, status=1),
}


def missing() -> str:
    """Why launch files cannot be run here, '' if they can."""
    if shutil.which("ros2") is None:
        return "no ros2 command: source a ROS 2 distribution"
    done = subprocess.run(["ros2", "pkg", "prefix", "palmar_bringup"], capture_output=True, text=True, timeout=60)
    return "" if done.returncode == 0 else "no package palmar_bringup: build and source ros_ws"


def launch(case: Case, folder: Path, *, rollout: str = "") -> dict[str, Any]:
    """Run one launch file in ``folder``, in a ROS domain of its own on this machine.

    Returns:
        ``reached``, ``reached_s`` from the start, ``motion_s`` to the filter's first RUN (None without), ``status``,
        ``end_s`` from Ctrl-C to the end, and ``left``: processes and shared files that it left behind.
    """
    words = [word.format(rollout=rollout) for word in case.arguments]
    out = folder / "run"
    words += [f"out:={out}"] if case.file == "deploy.launch.py" or "target:=robot" in words else []
    log, env = folder / "launch.log", ros_env.isolated(ros_env.random_domain(), folder)
    begin, moved = time.monotonic(), None
    with log.open("wb") as stream:
        call = ["ros2", "launch", "palmar_bringup", case.file, *words]
        child = subprocess.Popen(call, stdout=stream, stderr=stream, env=env, cwd=folder, stdin=subprocess.DEVNULL)
        try:
            while not re.search(case.reaches, log.read_text(errors="replace")) and child.poll() is None:
                if time.monotonic() - begin > ACTIVE:
                    break
                moved = moved or _moves(out, begin)
                time.sleep(0.1)
            reached = time.monotonic() - begin
            stay = reached + (case.stays if case.interrupt else 0.0)
            while time.monotonic() - begin < stay:
                moved = moved or _moves(out, begin)
                time.sleep(0.05)
            if case.interrupt and child.poll() is None:
                child.send_signal(signal.SIGINT)
            ended = time.monotonic()
            status = child.wait(END)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            end = time.monotonic() - ended
            if child.poll() is None:
                child.kill()
                child.wait()
    text = log.read_text(errors="replace")
    return {
        "file": case.file,
        "arguments": " ".join(word for word in case.arguments),
        "reached": bool(re.search(case.reaches, text)),
        "reached_s": round(reached, 2),
        "motion_s": moved,
        "status": status,
        "status_expected": case.status,
        "end_s": round(end, 2),
        "left": left(folder, out),
        "log": text,
    }


def _moves(out: Path, begin: float) -> float | None:
    """Seconds from ``begin`` until now if the filter lets motion through."""
    from palmar.real_robot import config
    from palmar.real_robot.layout import LAYOUTS, STATES
    from palmar.safety.types import State

    try:
        run = config.read(out / "run.json")
        control = shared.attach(Path(run.control_memory), LAYOUTS, kind="control", robot=None)
    except (PalmarError, OSError):
        return None
    try:
        state = control.blocks["state"].read()
    except shared.TornRead:
        return None
    finally:
        control.close()
    runs = state is not None and STATES[int(state["state"])] is State.RUN
    return round(time.monotonic() - begin, 2) if runs else None


def left(folder: Path, out: Path) -> list[str]:
    """Processes and shared files that a launch in ``folder`` has left; two seconds are given."""
    end = time.monotonic() + 2.0
    while True:
        found = [str(p) for p in _processes(folder)] + _files(out)
        if not found or time.monotonic() > end:
            return found
        time.sleep(0.1)


def _processes(folder: Path) -> list[int]:
    """Processes whose command line names ``folder``, without this one."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder).encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def _files(out: Path) -> list[str]:
    from palmar.real_robot import config

    try:
        return [path for path in config.read(out / "run.json").memories if Path(path).exists()]
    except PalmarError:
        return []


def versions() -> dict[str, str]:
    """Of everything that takes part and knows its version."""
    found = {"ROS_DISTRO": os.environ.get("ROS_DISTRO", "")}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not a Python package here"
    return found


def run(
    *, cases: tuple[str, ...] = tuple(CASES), rollout: str = "", progress: Progress | None = None
) -> dict[str, Any]:
    """A row per case.

    Args:
        cases: Names in ``CASES``; those that replay need a rollout, of case ``twin`` if none is given.
        rollout: Path of a rollout of ``fr3_leap``.
        progress: Told what is being run.

    Raises:
        LaunchMissing: If there is no ``ros2 launch`` or no workspace.
    """
    if why := missing():
        raise LaunchMissing(why)
    rows = []
    with tempfile.TemporaryDirectory(prefix="palmar-launch-") as made:
        for name in cases:
            (progress or (lambda _: None))(name)
            folder = Path(made) / name
            folder.mkdir()
            row = launch(CASES[name], folder, rollout=rollout)
            rollout = rollout or (str(folder / "run" / "rollout.mcap") if name == "twin" else "")
            ok = row["reached"] and row["status"] == row["status_expected"] and not row["left"]
            said = {} if ok else {"said": row["log"].splitlines()[-20:]}
            rows.append({"case": name, "ok": ok, **{k: v for k, v in row.items() if k != "log"}, **said})
    return {"name": "launch", "versions": versions(), "rows": rows}
