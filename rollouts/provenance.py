"""Where a result came from: the commit of this Palmar and the packages that decide a result."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("palmar", "mujoco", "numpy", "torch", "safetensors")


def git_state() -> dict[str, str | bool | None]:
    """Commit, and whether tracked files differ from it; None of an installed wheel."""
    root = Path(__file__).resolve().parents[1]  # not the repository that a virtual environment happens to lie in
    commit = _git(root, "rev-parse", "HEAD") if (root / ".git").exists() else None
    changed = None if commit is None else _git(root, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if changed is None else bool(changed)}


def _git(where: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(where), *words], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result; '' where one is not installed."""
    out = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            out[name] = ""
    return out
