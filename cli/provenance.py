"""The record of a command: what was asked, which code and packages answered, which constraints held."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from palmar.rollouts.provenance import git_state
from palmar.safety.config import plain
from palmar.safety.constraints import ConstraintSet

FORMAT = 1


def run_record(config: Any, constraints: ConstraintSet | None, *, command: list[str] | None = None) -> dict[str, Any]:
    """Everything needed to ask for the same run again, as JSON values.

    Args:
        config: The resolved configuration: dataclasses, mappings, lists and scalars.
        constraints: Those in force.
        command: What was typed, the program's own arguments if None.
    """
    return {
        "format": FORMAT,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]] if command is None else command,
        "config": plain(config),
        "constraints": {"names": list(constraints.names), "hash": constraints.hash()} if constraints else None,
        "git": git_state(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "packages": packages(),
    }


def write(path: Path, record: Mapping[str, Any]) -> Path:
    """Store ``record`` at ``path``, whole or not at all, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(record, indent=1) + "\n")
    return part.replace(path)


def packages() -> dict[str, str]:
    """Name and version of every installed distribution."""
    found = {d.metadata["Name"]: d.version for d in distributions() if d.metadata["Name"]}
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def processor() -> str:
    """Model of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
