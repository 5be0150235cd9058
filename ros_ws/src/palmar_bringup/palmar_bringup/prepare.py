"""From checked launch arguments to a run: its configuration, and the processes without ROS that it needs."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from palmar_bringup import arguments

if TYPE_CHECKING:
    from palmar.real_robot.config import RunConfig

Process = tuple[str, tuple[str, ...]]
"""An executable of palmar_nodes and what it is told besides ``--config``."""


def folder(given: Mapping[str, str]) -> Path:
    """Where this run is written."""
    return Path(given["out"] or f"palmar_runs/{time.strftime('%Y%m%d-%H%M%S')}").resolve()


def deployment(given: Mapping[str, str], out: Path) -> tuple[RunConfig, Path]:
    """The run of ``deploy.launch.py`` and its JSON file, the same that ``palmar deploy`` writes.

    Raises:
        Refused, PalmarError: If the arguments cannot be; nothing has been started then.
    """
    arguments.check(arguments.DEPLOY, given)
    return written(
        {
            "instruction": given["instruction"],
            "bundle": given["policy"],
            "robot": given["robot"],
            "mode": given["mode"],
            "record": arguments.yes(given["record"]),
            "hardware": given["hardware"],
            "alignment": given["alignment"],
            "devices": given["devices"],
        },
        out,
        given["namespace"],
    )


def replay(given: Mapping[str, str], out: Path) -> tuple[RunConfig, Path]:
    """The run of ``replay.launch.py target:=robot``: the scene of the rollout, and its motion in place of a policy.

    Raises:
        Refused, PalmarError: If the arguments cannot be, or the rollout is of another robot.
    """
    from palmar.rollouts.playback import load
    from palmar.rollouts.read import read
    from palmar.sim.robots import load_robot

    arguments.check(arguments.REPLAY, given)
    rollout = read(given["rollout"])
    load(rollout, load_robot(given["robot"]))
    raw = {
        "instruction": rollout.header.instruction,
        "robot": given["robot"],
        "seed": rollout.header.seed,
        "hardware": given["hardware"],
        "devices": given["devices"],
        "record": arguments.yes(given["record"]),
    }
    return written(raw, out, given["namespace"])


def rollout(given: Mapping[str, str]) -> str:
    """The path of the rollout to replay.

    Raises:
        Refused: If the arguments cannot be, or there is no such file.
    """
    arguments.check(arguments.REPLAY, given)
    path = Path(given["rollout"])
    if not given["rollout"] or not path.is_file():
        raise arguments.Refused(f"rollout is {given['rollout']!r}, accepted the path of a rollout.mcap")
    return str(path.resolve())


def running(given: Mapping[str, str]) -> Path:
    """The configuration of a run that is going on and is not being recorded.

    Raises:
        Refused, ConfigError: If the folder holds no run, one that is over, or a rollout.
    """
    from palmar.real_robot.config import read

    arguments.check(arguments.RECORD, given)
    folder = Path(given["run"]).resolve()
    path = folder / "run.json"
    if not given["run"] or not path.is_file():
        raise arguments.Refused(f"run is {given['run']!r}, accepted the folder of a run, with its run.json")
    if (folder / "rollout.mcap").exists():
        raise arguments.Refused(f"{folder} holds a rollout already: the run is or was recorded")
    if not Path(read(path).control_memory).exists():
        raise arguments.Refused(f"the run in {folder} is over: its control process is gone")
    return path


def written(raw: Mapping[str, object], out: Path, namespace: str) -> tuple[RunConfig, Path]:
    """The run that this deployment asks for, in the environment's ROS domain, and its file."""
    from palmar.real_robot.deploy import DeployConfig, resolve

    run, _ = resolve(DeployConfig(out=str(out), **raw))  # type: ignore[arg-type]
    run = replace(run, domain=int(os.environ.get("ROS_DOMAIN_ID", "0")), namespace=full(namespace))
    path = out / "run.json"
    run.write(path)
    return run, path


def full(namespace: str) -> str:
    """A namespace with its leading slash, '' for none.

    Raises:
        Refused: If ROS would not take it.
    """
    name = namespace.strip("/")
    parts = name.split("/") if name else []
    if any(not part.isidentifier() or not part.isascii() for part in parts):
        raise arguments.Refused(f"namespace is {namespace!r}, accepted letters, digits and _, parts joined by /")
    return f"/{name}" if name else ""


def processes(run: RunConfig, *, record: bool) -> tuple[Process, ...]:
    """Executables without ROS that a run needs; each but the first waits until what it needs is there."""
    devices = tuple(("device", ("--name", device.name)) for device in run.devices)
    faked = hardware = ()
    if run.hardware != "real":
        faked = (("twin", ()),)
    if run.hardware == "fake":
        faked += (("fakes", ("--after", "twin")),)
        devices = tuple((name, (*told, "--after", "fakes")) for name, told in devices)
    if devices:
        hardware = ("--after", "devices")
    recorder = (("recorder", hardware),) if record else ()
    return (*faked, *devices, *recorder, ("control", hardware))
