"""The rollout and the bundle that the tests of files damage, forge and misfit."""

import functools
import hashlib
import json
import shutil
import tempfile
from importlib.resources import files
from pathlib import Path

import numpy as np
import toy_robot as toy

from palmar.policies.bundle import CONTRACT, POLICY, ROBOT
from palmar.rollouts.header import RolloutHeader
from palmar.rollouts.record import RolloutWriter

SHIPPED = files("palmar.assets") / "bundles" / "lift"


def header(**changes) -> RolloutHeader:
    base = {"task": "t", "instruction": "i", "robot": toy.robot(), "constraints": toy.CONSTRAINTS, "control_dt": 0.01}
    return RolloutHeader(**{**base, **changes})


def write(path, n=200, **changes):
    with RolloutWriter(path, header(**changes)) as out:
        for k in range(n):
            out.joint_state(0.01 * k, np.full(2, 0.001 * k), np.zeros(2), np.zeros(2))
    return path


@functools.cache
def whole() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return write(Path(folder) / "a.mcap").read_bytes()


def shipped(tmp_path) -> Path:
    shutil.copytree(str(SHIPPED), tmp_path / "bundle")
    return tmp_path / "bundle"


def edit(path, change):
    raw = json.loads((path / CONTRACT).read_text())
    change(raw)
    (path / CONTRACT).write_text(json.dumps(raw))


def seal(path):
    """Make the recorded digests fit: somebody who knows the format."""
    sums = {n: hashlib.sha256((path / n).read_bytes()).hexdigest() for n in (POLICY, ROBOT)}
    edit(path, lambda raw: raw.update(files=sums))
