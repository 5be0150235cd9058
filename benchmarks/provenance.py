"""What results of the filter depend on, as one short hash: so that a resumed run never mixes two filters."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from pathlib import Path


def meaning() -> str:
    """Hash of the sources of ``safety``, the configurations and the robot models, 16 hex digits."""
    digest = hashlib.sha256()
    for package, kinds in (("safety", ("*.py",)), ("configs", ("*.yaml",)), ("assets", ("*.xml",))):
        root = Path(str(files(f"palmar.{package}")))
        for path in sorted(p for kind in kinds for p in root.rglob(kind)):
            digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]
