"""Checkpoints of a learner: a directory of safetensors and JSON per iteration, never pickle.

A checkpoint is written beside its final name and renamed when complete, so a killed run leaves the last whole
one.  Simulators are not saved: on resuming, episodes start afresh from a new seed derived from the iteration.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from palmar.policies.rl.learner import Learner
from palmar.safety.config import plain
from palmar.safety.types import ConfigError

FORMAT = 2
KEPT = 2
_TENSORS, _JSON = "learner.safetensors", "learner.json"
FREE = frozenset({"iterations", "evaluate_every", "checkpoint_every", "threads"})
"""Settings that a resumed run may change; everything else must be as it was."""


@dataclass(frozen=True)
class Progressed:
    """What a run had done when a checkpoint was written, besides learning."""

    env_steps: int
    wall_s: float
    env_seed: int
    """Seed the environment was last started with."""


def save(run_dir: Path, learner: Learner, done: Progressed) -> Path:
    """Write the checkpoint of ``learner.iteration``, keep the newest ``KEPT``; returns its directory."""
    final = Path(run_dir) / "checkpoints" / f"{learner.iteration:06d}"
    about = {"config": plain(learner.config), "constraint_names": list(learner.names), "iteration": learner.iteration}
    write(final, learner.tensors(), about | asdict(done))
    for old in _found(run_dir)[:-KEPT]:
        shutil.rmtree(old)
    return final


def write(directory: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Write a checkpoint: ``tensors``, and ``about`` them plain JSON values."""
    part = directory.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    save_file(tensors, part / _TENSORS)
    raw = {**about, "format": FORMAT, "sha256": _digest(part)}
    (part / _JSON).write_text(json.dumps(raw, indent=1))
    shutil.rmtree(directory, ignore_errors=True)
    os.replace(part, directory)


def load(directory: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The inverse of ``write``.

    Raises:
        ConfigError: If the checkpoint is damaged or of another format.
    """
    try:
        raw, digest = json.loads((directory / _JSON).read_text()), _digest(directory)
        if raw["format"] != FORMAT or digest != raw["sha256"]:
            raise ConfigError(
                f"checkpoint {directory.name}: format {raw['format']} (this Palmar: {FORMAT}), "
                f"tensors {digest[:12]}, recorded {raw['sha256'][:12]}"
            )
        return load_file(directory / _TENSORS), raw
    except (OSError, KeyError, TypeError, json.JSONDecodeError, SafetensorError) as error:
        raise ConfigError(f"checkpoint {directory} is not readable: {error!r}") from error


def latest(run_dir: Path) -> Path | None:
    """Directory of the newest checkpoint, None without one."""
    found = _found(run_dir)
    return found[-1] if found else None


def restore(directory: Path, learner: Learner) -> Progressed:
    """Put ``learner`` into the saved state.

    Raises:
        ConfigError: If the checkpoint is damaged, of another format, or of another run (naming the difference).
    """
    tensors, raw = load(directory)
    try:
        _same_run(raw, learner)
        learner.restore(tensors)
        return Progressed(int(raw["env_steps"]), float(raw["wall_s"]), int(raw["env_seed"]))
    except (KeyError, TypeError, RuntimeError) as error:
        raise ConfigError(f"checkpoint {directory} is not readable: {error!r}") from error


def _found(run_dir: Path) -> list[Path]:
    return sorted(p for p in (Path(run_dir) / "checkpoints").glob("[0-9]*") if p.suffix != ".part")


def _digest(directory: Path) -> str:
    return hashlib.sha256((directory / _TENSORS).read_bytes()).hexdigest()


def _same_run(raw: dict[str, Any], learner: Learner) -> None:
    here, there = plain(learner.config), raw["config"]
    differ = {k: (there.get(k), v) for k, v in here.items() if k not in FREE and there.get(k) != v}
    if list(learner.names) != raw["constraint_names"]:
        differ["constraint_names"] = (raw["constraint_names"], list(learner.names))
    if differ:
        raise ConfigError(f"checkpoint is of another run; (then, now): {differ}")
