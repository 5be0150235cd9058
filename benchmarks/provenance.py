"""What results of the filter depend on, as one short hash: so that a resumed run never mixes two filters."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from pathlib import Path


def meaning() -> str:
    """Hash of the sources of ``safety``, what they are configured from and the robot models, 16 hex digits.

    Tasks, algorithms and deployments are not in it: the filter reads robots, skins and constraint files only.
    """
    digest = hashlib.sha256()
    for package, pattern in (
        ("safety", "*.py"),
        ("configs", "robot/*.yaml"),
        ("configs", "filter/*.yaml"),
        ("configs", "constraints/*.yaml"),
        ("assets", "**/*.xml"),
    ):
        root = Path(str(files(f"palmar.{package}")))
        for path in sorted(root.glob(pattern)):
            digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]
