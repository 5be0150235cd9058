"""A deployable policy: a directory of safetensors and JSON that refuses to run where it does not fit.

``policy.safetensors``  actor weights and frozen observation normalisation
``contract.json``       what the policy sees, says and was trained under
``robot.json``          the robot model it was trained on

Nothing in it is executable, nothing is pickled, and no file outside the directory is ever opened.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from palmar.policies.contract import TaskContract
from palmar.policies.networks import MeanPolicy
from palmar.safety.constraints import ConstraintSet, parse
from palmar.safety.robot import RobotModel
from palmar.safety.types import BundleRefused, ConfigError

FORMAT, FORMAT_VERSION = "palmar.bundle", 1
POLICY, CONTRACT, ROBOT = "policy.safetensors", "contract.json", "robot.json"
LARGEST = 64 * 2**20
"""No file of a bundle is larger [bytes]: the networks are small, a foreign file must not fill memory."""
_KEYS = frozenset(
    (
        "format",
        "format_version",
        "palmar_version",
        "task",
        "network",
        "robot",
        "constraints",
        "files",
        "training",
    )
)


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle, consistent in itself.  ``check`` tells whether it fits what is here."""

    task: TaskContract
    robot: RobotModel
    constraints_text: str
    constraints_hash: str
    training: Mapping[str, Any]
    """Fingerprint: configuration, git, versions, seeds, evaluation."""
    palmar_version: str
    sha256: str
    """Of the weights, hex: the name of this policy in reports."""
    policy: MeanPolicy

    def check(self, robot: RobotModel, constraints: ConstraintSet, task: TaskContract) -> None:
        """Compare with the robot, constraint file and task of this deployment.

        Raises:
            BundleRefused: At the first mismatch, naming it with what the bundle has and what is here.
        """
        mine, here = self.task, task
        pairs = (
            ("task name", mine.name, here.name),
            ("observation names", [o[0] for o in mine.observation], [o[0] for o in here.observation]),
            ("observation sizes", [o[1] for o in mine.observation], [o[1] for o in here.observation]),
            ("observation units", [o[2] for o in mine.observation], [o[2] for o in here.observation]),
            ("action names", [a[0] for a in mine.action], [a[0] for a in here.action]),
            ("action units", [a[1] for a in mine.action], [a[1] for a in here.action]),
            ("action scales", [a[2] for a in mine.action], [a[2] for a in here.action]),
            ("rate [Hz]", mine.rate_hz, here.rate_hz),
            ("joint order", list(self.robot.joints), list(robot.joints)),
            ("robot hash", self.robot.hash(), robot.hash()),
            ("constraint hash", self.constraints_hash, constraints.hash()),
        )
        for what, theirs, ours in pairs:
            if theirs != ours:
                raise BundleRefused(f"{what}: the bundle has {theirs}, here it is {ours}")


class BundlePolicy:
    """The policy of a bundle, by the protocol of ``sim.interface``: mean action, no memory."""

    def __init__(self, bundle: Bundle):
        self.bundle, self._policy = bundle, bundle.policy
        self.obs_dim, self.action_dim = bundle.task.obs_dim, len(bundle.task.action)
        self.rate_hz = bundle.task.rate_hz

    def start(self, batch: int) -> None:
        """There is no memory."""
        return self._policy.start(batch)

    def act(self, obs: Any, carry: None = None) -> tuple[Any, None]:
        """Actions (B, a) float32 in [-1, 1] for observations (B, d).

        Raises:
            ObservationRefused: If the shape is wrong or a number is not finite.
        """
        return self._policy.act(obs, carry)


def save_bundle(
    path: Path,
    policy: MeanPolicy,
    *,
    task: TaskContract,
    robot: RobotModel,
    constraints_text: str,
    training: Mapping[str, Any],
) -> Bundle:
    """Write a bundle and load it back; one that stood at ``path`` is replaced only when this is complete.

    Raises:
        BundleRefused: If what was written would be refused, for example weights that are not finite.
    """
    path = Path(path)
    files = {POLICY: save(policy.tensors()), ROBOT: _json(robot.to_json())}
    contract = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "palmar_version": version("palmar"),
        "task": asdict(task),
        "network": {"kind": "mlp", "activation": "elu", "layers": list(policy.layers)},
        "robot": {"name": robot.name, "hash": robot.hash(), "joints": list(robot.joints)},
        "constraints": {"hash": parse(constraints_text, robot.limits).hash(), "text": constraints_text},
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        "training": dict(training),
    }
    try:
        files[CONTRACT] = _json(contract)
    except (TypeError, ValueError) as error:
        raise BundleRefused(f"the contract is not plain JSON: {error}") from error
    part = path.with_name(path.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for name, data in files.items():
        (part / name).write_bytes(data)
    try:
        load_bundle(part)
    except BundleRefused:
        shutil.rmtree(part)
        raise
    if path.exists():
        load_bundle(path)  # Only a bundle may be replaced, never another directory.
        shutil.rmtree(path)
    os.replace(part, path)
    return load_bundle(path)


def load_bundle(path: Path) -> Bundle:
    """Read a bundle.

    Raises:
        BundleRefused: If a file is missing, damaged, a link, foreign or from a newer Palmar, if parts of it
            contradict each other, or if a weight is not finite.
    """
    path = Path(path)
    contract = _contract(_read(path, CONTRACT))
    data = {name: _read(path, name) for name in (POLICY, ROBOT)}
    for name, content in data.items():
        found, recorded = hashlib.sha256(content).hexdigest(), contract["files"][name]
        if found != recorded:
            raise BundleRefused(f"{name}: SHA-256 is {found}, {CONTRACT} has {recorded}")
    try:
        task = TaskContract.from_json(contract["task"])
        robot = RobotModel.from_json(json.loads(data[ROBOT]))
        constraints = parse(contract["constraints"]["text"], robot.limits)
        recorded = contract["robot"] | {"constraints": contract["constraints"]["hash"]}
    except (ConfigError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise BundleRefused(f"{CONTRACT} or {ROBOT} is not readable: {error}") from error
    found = {
        "name": robot.name,
        "hash": robot.hash(),
        "joints": list(robot.joints),
        "constraints": constraints.hash(),
    }
    for key in found:
        if recorded.get(key) != found[key]:
            raise BundleRefused(f"{key}: {CONTRACT} has {recorded.get(key)}, the content is {found[key]}")
    policy = _policy(data[POLICY], contract["network"], task)
    return Bundle(
        task=task,
        robot=robot,
        constraints_text=contract["constraints"]["text"],
        constraints_hash=constraints.hash(),
        training=contract["training"],
        palmar_version=str(contract["palmar_version"]),
        sha256=contract["files"][POLICY],
        policy=policy,
    )


def _read(path: Path, name: str) -> bytes:
    """One of the three files; their names are ours, never the bundle's."""
    file = path / name
    try:
        if file.is_symlink() or not file.is_file():
            raise BundleRefused(f"{file} is missing or not a plain file; a bundle has {[POLICY, CONTRACT, ROBOT]}")
        if file.stat().st_size > LARGEST:
            raise BundleRefused(f"{file} has {file.stat().st_size} bytes, at most {LARGEST} are read")
        return file.read_bytes()
    except OSError as error:
        raise BundleRefused(f"{file} is not readable: {error}") from error


def _contract(data: bytes) -> dict[str, Any]:
    """The parsed contract, its format and keys checked."""
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BundleRefused(f"{CONTRACT} is not JSON: {error}") from error
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        got = raw.get("format") if isinstance(raw, dict) else type(raw).__name__
        raise BundleRefused(f"{CONTRACT} is of format {got!r}, need {FORMAT!r}")
    if raw.get("format_version") != FORMAT_VERSION:
        raise BundleRefused(f"format version {raw.get('format_version')!r}, this Palmar reads {FORMAT_VERSION}")
    if set(raw) != _KEYS:
        raise BundleRefused(f"{CONTRACT} has keys {sorted(raw)}, need {sorted(_KEYS)}")
    if not isinstance(raw["files"], dict) or set(raw["files"]) != {POLICY, ROBOT}:
        raise BundleRefused(f"{CONTRACT} names files {raw['files']!r}, need {[POLICY, ROBOT]}")
    for key in ("task", "network", "robot", "constraints", "training"):
        if not isinstance(raw[key], dict):
            raise BundleRefused(f"{CONTRACT}: {key} is {type(raw[key]).__name__}, need an object")
    return raw


def _policy(data: bytes, network: Mapping[str, Any], task: TaskContract) -> MeanPolicy:
    """The network, its shapes held against the contract."""
    sizes = network.get("layers")
    if network.get("kind") != "mlp" or network.get("activation") != "elu" or not isinstance(sizes, list):
        raise BundleRefused(f"network is {dict(network)}, this Palmar knows ELU layers of kind mlp")
    if not all(isinstance(n, int) and n > 0 for n in sizes):
        raise BundleRefused(f"network.layers must be positive integers, got {sizes}")
    if len(sizes) < 2 or (sizes[0], sizes[-1]) != (task.obs_dim, len(task.action)):
        raise BundleRefused(
            f"network has layers {sizes}, the task {task.obs_dim} inputs and {len(task.action)} outputs"
        )
    try:
        tensors = load(data)
    except (SafetensorError, ValueError) as error:
        raise BundleRefused(f"{POLICY} is damaged: {error}") from error
    found = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
    needed = MeanPolicy.shapes(tuple(sizes))
    if found != needed:
        wrong = sorted(k for k in found.keys() | needed.keys() if found.get(k) != needed.get(k))
        raise BundleRefused(
            f"{POLICY}: {wrong[0]} is {found.get(wrong[0])}, layers {sizes} need {needed.get(wrong[0])}"
        )
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all() or (name.endswith(".var") and (tensor < 0).any()):
            raise BundleRefused(f"{POLICY}: {name} has impossible values (not finite, or a negative variance)")
    return MeanPolicy.from_tensors(tensors, tuple(sizes))


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, allow_nan=False).encode()
