"""Checkpoints of a learner: a directory of safetensors and JSON per iteration, never pickle.

A checkpoint is written beside its final name and renamed when complete, so a killed run leaves the last whole
one.  Simulators are not saved: on resuming, episodes start afresh from a new seed derived from the iteration.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from palmar.policies.rl.ppo_lagrangian import Learner
from palmar.safety.types import ConfigError

FORMAT = 1
KEPT = 2
_TENSORS, _JSON = "learner.safetensors", "learner.json"


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
    part = final.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    save_file(_tensors(learner), part / _TENSORS)
    raw = {
        "format": FORMAT,
        "config": learner.config.to_json(),
        "constraint_names": list(learner.names),
        "iteration": learner.iteration,
        "lr": [group["lr"] for group in learner.optimizer.param_groups],
        "sha256": hashlib.sha256((part / _TENSORS).read_bytes()).hexdigest(),
        **done.__dict__,
    }
    (part / _JSON).write_text(json.dumps(raw, indent=1))
    shutil.rmtree(final, ignore_errors=True)
    os.replace(part, final)
    for old in _found(run_dir)[:-KEPT]:
        shutil.rmtree(old)
    return final


def latest(run_dir: Path) -> Path | None:
    """Directory of the newest checkpoint, None without one."""
    found = _found(run_dir)
    return found[-1] if found else None


def restore(directory: Path, learner: Learner) -> Progressed:
    """Put ``learner`` into the saved state.

    Raises:
        ConfigError: If the checkpoint is damaged, newer, or of another configuration (naming the difference).
    """
    try:
        raw = json.loads((directory / _JSON).read_text())
        digest = hashlib.sha256((directory / _TENSORS).read_bytes()).hexdigest()
        if raw["format"] != FORMAT or digest != raw["sha256"]:
            raise ConfigError(
                f"checkpoint {directory.name}: format {raw['format']} (this Palmar: {FORMAT}), "
                f"tensors {digest[:12]}, recorded {raw['sha256'][:12]}"
            )
        _same_run(raw, learner)
        _load(learner, load_file(directory / _TENSORS), raw["lr"])
        learner.iteration = int(raw["iteration"])
        return Progressed(int(raw["env_steps"]), float(raw["wall_s"]), int(raw["env_seed"]))
    except (OSError, KeyError, TypeError, json.JSONDecodeError, SafetensorError, RuntimeError) as error:
        raise ConfigError(f"checkpoint {directory} is not readable: {error!r}") from error


def _found(run_dir: Path) -> list[Path]:
    return sorted(p for p in (Path(run_dir) / "checkpoints").glob("[0-9]*") if p.suffix != ".part")


def _same_run(raw: dict[str, Any], learner: Learner) -> None:
    """A run may only be resumed longer, or with other intervals; everything else must be as it was."""
    free = {"iterations", "evaluate_every", "checkpoint_every", "threads"}
    here = learner.config.to_json()
    differ = {k: (raw["config"].get(k), v) for k, v in here.items() if k not in free and raw["config"].get(k) != v}
    if list(learner.names) != raw["constraint_names"]:
        differ["constraint_names"] = (raw["constraint_names"], list(learner.names))
    if differ:
        raise ConfigError(f"checkpoint is of another run; (then, now): {differ}")


def _tensors(learner: Learner) -> dict[str, Tensor]:
    """Flat: modules, Adam's moments by parameter number, normalisers, multipliers, random state."""
    out = {f"actor.{k}": v for k, v in learner.actor.state_dict().items()}
    out |= {f"critic.{k}": v for k, v in learner.critic.state_dict().items()}
    for number, state in learner.optimizer.state_dict()["state"].items():
        out |= {f"adam.{number}.{k}": v for k, v in state.items()}
    for prefix, source in _plain(learner).items():
        out |= {f"{prefix}.{k}": v for k, v in source.tensors().items()}
    out["generator"] = learner.generator.get_state()
    return {k: v.detach().clone().contiguous() for k, v in out.items()}


def _plain(learner: Learner) -> dict[str, Any]:
    return {
        "obs_norm": learner.obs_norm,
        "return_norm": learner.return_norm,
        "multipliers": learner.multipliers,
    }


def _load(learner: Learner, tensors: dict[str, Tensor], lr: list[float]) -> None:
    def part(prefix: str) -> dict[str, Tensor]:
        return {k[len(prefix) + 1 :]: v for k, v in tensors.items() if k.startswith(prefix + ".")}

    learner.actor.load_state_dict(part("actor"))
    learner.critic.load_state_dict(part("critic"))
    adam = learner.optimizer.state_dict()
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in part("adam").items():
        number, name = key.split(".")
        state.setdefault(int(number), {})[name] = value
    for group, rate in zip(adam["param_groups"], lr, strict=True):
        group["lr"] = rate
    learner.optimizer.load_state_dict({"state": state, "param_groups": adam["param_groups"]})
    for norm, prefix in ((learner.obs_norm, "obs_norm"), (learner.return_norm, "return_norm")):
        saved = part(prefix)
        norm.mean, norm.var, norm.count = saved["mean"], saved["var"], saved["count"]
    learner.multipliers.restore(part("multipliers"))
    learner.generator.set_state(tensors["generator"].to(torch.uint8))
