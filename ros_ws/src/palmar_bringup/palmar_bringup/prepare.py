"""What ``deploy.launch.py`` needs and that is no launch: the run's configuration from the launch arguments."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

HARDWARE = ("twin",)
MODES = ("enforce", "shadow")
PROCESSES = ("twin", "recorder", "control")
"""Processes without ROS, in the order of their start."""


def truth(text: str) -> bool:
    """``true`` or ``false`` as a launch argument says it."""
    if text.lower() not in ("true", "false"):
        raise ValueError(f"record is {text!r}, accepted ['true', 'false']")
    return text.lower() == "true"


def check(arguments: Mapping[str, str]) -> None:
    """Refuse impossible launch arguments before anything starts.

    Raises:
        ValueError: With what was given and what is accepted.
    """
    for name, accepted in (("hardware", HARDWARE), ("mode", MODES)):
        if arguments[name] not in accepted:
            raise ValueError(f"{name} is {arguments[name]!r}, accepted {list(accepted)}")
    truth(arguments["record"])


def processes(arguments: Mapping[str, str]) -> tuple[str, ...]:
    """Executables without ROS that these arguments need."""
    return tuple(p for p in PROCESSES if p != "recorder" or truth(arguments["record"]))


def write_run(arguments: Mapping[str, str], out: Path) -> Path:
    """The run's JSON file for these arguments; the ROS domain is the one of the environment.

    Raises:
        ValueError: If ``check`` or Palmar refuses them.
    """
    from dataclasses import replace

    from palmar.real_robot.deploy import DeployConfig, resolve

    check(arguments)
    config = DeployConfig(
        out=str(out),
        instruction=arguments["instruction"],
        bundle=arguments["policy"],
        robot=arguments["robot"],
        mode=arguments["mode"],
        record=truth(arguments["record"]),
    )
    run, _ = resolve(config)
    domain = int(os.environ.get("ROS_DOMAIN_ID", "0"))
    path = out / "run.json"
    replace(run, domain=domain, die_with_parent=False).write(path)
    return path


def main() -> int:
    """Write ``run.json`` to the folder given, with the launch file's defaults; for trying things by hand."""
    import sys

    defaults = {"robot": "fr3_leap", "hardware": "twin", "mode": "enforce", "policy": "", "record": "true"}
    write_run(defaults | {"instruction": "lift the red block"}, Path(sys.argv[1]))
    return 0
