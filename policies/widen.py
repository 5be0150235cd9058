"""Inputs of a trained policy, given the spread that a robot's sensors add.

A joint that hardly moves in training has a spread of a milliradian, and a network sees its reading divided by that.
An encoder's zero that is off by one degree is then a shout: the policy of ``lift``, trained on perfect readings,
lifts 2 blocks of 40 with it, and 40 after ``widened``.  That adds the squares of a sensor's noise, largest offset and
step to the variance of its reading, so that the largest offset is at most one spread; what a reading says beyond its
sensor's error stays as loud as it was.

``python -m palmar.policies.widen BUNDLE OUT --randomize train`` writes a bundle; with ``--checkpoint`` the two are
folders of runs, and training goes on from the second with ``palmar train randomize=train --resume --out OUT``.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from palmar.policies.bundle import Bundle, load_bundle, save_bundle
from palmar.policies.contract import TaskContract
from palmar.policies.networks import MeanPolicy
from palmar.policies.rl import checkpoint
from palmar.safety.robot import RobotModel
from palmar.safety.types import ConfigError
from palmar.sim.reality import named
from palmar.sim.sensors import Channel, SensorConfig

READINGS = {"q": "q", "target_error": "q", "qd": "qd"}
"""Parts of an observation that carry the error of a joint's reading, and of which one."""


def squares(task: TaskContract, robot: RobotModel, sensors: SensorConfig) -> Tensor:
    """Squared error of each component of an observation, (d,) float64, in its unit: noise, largest bias and step.

    Raises:
        ConfigError: If the observation has no joint readings, or the sensors no error.
    """
    out, first, found = torch.zeros(task.obs_dim, dtype=torch.float64), 0, False
    for name, size, _ in task.observation:
        if name in READINGS and size == robot.n:
            arm, hand = (_square(getattr(device, READINGS[name])) for device in (sensors.arm, sensors.hand))
            out[first : first + robot.n_arm], out[first + robot.n_arm : first + robot.n] = arm, hand
            found = True
        first += size
    if not found:
        names = [part[0] for part in task.observation]
        raise ConfigError(f"task {task.name} observes {names}, none of {sorted(READINGS)} of {robot.n} joints")
    if not out.any():
        raise ConfigError("these sensors are perfect: there is nothing to widen")
    return out


def widened(policy: MeanPolicy, extra: Tensor) -> MeanPolicy:
    """``policy`` with ``extra`` (d,) added to the variances of its inputs, otherwise the same."""
    tensors = policy.tensors()
    tensors["normalizer.var"] = tensors["normalizer.var"] + extra
    return MeanPolicy.from_tensors(tensors, policy.layers)


def widen_bundle(source: Path, out: Path, *, randomize: str) -> Bundle:
    """Write ``source`` with the spread of a file of ``configs/randomize`` to ``out``.

    Raises:
        PalmarError: If the bundle or the file is refused, or there is nothing to widen.
    """
    bundle = load_bundle(source)
    extra = squares(bundle.task, bundle.robot, named(randomize).sensors)
    note = {"from": bundle.sha256, "randomize": randomize, "added_variance": extra.tolist()}
    return save_bundle(
        out,
        widened(bundle.policy, extra),
        task=bundle.task,
        robot=bundle.robot,
        constraints_text=bundle.constraints_text,
        training={**bundle.training, "widened": note},
    )


def widen_run(source: Path, out: Path, *, randomize: str) -> Path:
    """Write the newest checkpoint of the run ``source``, widened, as the first of the run ``out``.

    What the policy observes is read from ``source/bundle``.

    Raises:
        PalmarError: If there is no checkpoint or bundle, or ``out`` exists.
    """
    newest = checkpoint.latest(source)
    if newest is None or out.exists():
        raise ConfigError(f"need a run with a checkpoint at {source}, and nothing at {out}")
    bundle = load_bundle(source / "bundle")
    extra = squares(bundle.task, bundle.robot, named(randomize).sensors)
    target = out / "checkpoints" / newest.name
    tensors, about = checkpoint.load(newest)
    tensors["obs_norm.var"] = tensors["obs_norm.var"] + extra
    checkpoint.write(target, tensors, about)
    return target


def _square(channel: Channel) -> float:
    return channel.noise**2 + channel.bias**2 + channel.step**2


def main(argv: list[str] | None = None) -> Any:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--randomize", default="train", help="file of configs/randomize (train)")
    parser.add_argument("--checkpoint", action="store_true", help="folders of runs, not of bundles")
    args = parser.parse_args(argv)
    write = widen_run if args.checkpoint else widen_bundle
    return write(args.source, args.out, randomize=args.randomize)


if __name__ == "__main__":
    main()
