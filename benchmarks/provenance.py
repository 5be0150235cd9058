"""What results of the filter depend on, as one short hash: so that a resumed run never mixes two filters."""

from __future__ import annotations

import ast
import hashlib
from importlib.resources import files
from pathlib import Path


def meaning() -> str:
    """Hash of the code of ``safety``, what it is configured from and the robot models, 16 hex digits.

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
            content = code(path.read_text()) if path.suffix == ".py" else path.read_bytes()
            digest.update(path.relative_to(root).as_posix().encode() + content)
    return digest.hexdigest()[:16]


def code(source: str) -> bytes:
    """The syntax tree of a module without docstrings, comments and layout, which change no result."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            node.body = [part for part in node.body if not _is_text(part)]
    return ast.dump(tree).encode()


def _is_text(part: ast.stmt) -> bool:
    """Whether a statement is only a string."""
    return isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant) and isinstance(part.value.value, str)
