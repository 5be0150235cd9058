"""A policy whose inputs hardly moved in training, and the error of a robot's encoders."""

from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from point_mass import PointMass
from safetensors.torch import load_file

from palmar.policies.algorithms import ppo
from palmar.policies.bundle import BundlePolicy, load_bundle, save_bundle
from palmar.policies.contract import TaskContract
from palmar.policies.evaluate import evaluate
from palmar.policies.networks import MeanPolicy, layers
from palmar.policies.normalize import Normalizer
from palmar.policies.train import train
from palmar.policies.widen import squares, widen_bundle, widen_run, widened
from palmar.safety.types import ConfigError
from palmar.sim.env import make_env
from palmar.sim.reality import Reality, named
from palmar.sim.robots import load_robot
from palmar.sim.sensors import Channel, SensorConfig
from palmar.sim.tasks.lift import LiftConfig, LiftTask

SENSORS = named("train").sensors
BUNDLES = Path(str(files("palmar.assets"))) / "bundles"


@pytest.fixture(scope="module")
def robot():
    return load_robot()


def contract(n, parts=("block", "q", "qd", "target_error")):
    return TaskContract("lift", tuple((p, n if p != "block" else 3, "1") for p in parts), (("a", "1", 1.0),), 20.0)


def still(d):
    """A policy that has seen readings that moved by a milliradian."""
    torch.manual_seed(0)
    norm = Normalizer(d)
    norm.update(1e-3 * torch.randn(1000, d))
    return MeanPolicy(layers((d, 16, 1)), norm)


def test_only_joint_readings_are_widened_each_by_its_own_sensor(robot):
    n, arm = robot.n, robot.n_arm
    extra = squares(contract(n), robot, SENSORS).numpy()
    q, qd = SENSORS.hand.q, SENSORS.hand.qd
    assert not extra[:3].any()
    np.testing.assert_allclose(extra[3 + arm : 3 + n], q.noise**2 + q.bias**2 + q.step**2)
    np.testing.assert_allclose(extra[3 + n + arm : 3 + 2 * n], qd.noise**2 + qd.bias**2 + qd.step**2)
    np.testing.assert_array_equal(extra[3 + 2 * n :], extra[3 : 3 + n])
    assert extra[3 : 3 + arm].max() < extra[3 + arm : 3 + n].min()  # an FR3 knows its joints better


def test_the_largest_error_of_an_encoder_is_at_most_one_spread(robot):
    extra = squares(contract(robot.n), robot, SENSORS)
    policy = still(len(extra))
    obs = np.zeros((1, len(extra)), np.float32)
    off = obs.copy()
    off[0, 3 + robot.n_arm : 3 + robot.n] = SENSORS.hand.q.bias
    quiet, before = widened(policy, extra), policy
    moved = [abs(p.act(off, None)[0] - p.act(obs, None)[0]).max() for p in (before, quiet)]
    assert moved[1] < 0.2 * moved[0]
    std = quiet.tensors()["normalizer.var"].sqrt()[3 + robot.n_arm : 3 + robot.n]
    assert torch.all(SENSORS.hand.q.bias <= std)


def test_what_is_not_widened_is_seen_as_before(robot):
    extra = squares(contract(robot.n), robot, SENSORS)
    policy = still(len(extra))
    obs = np.tile(policy.tensors()["normalizer.mean"].numpy().astype(np.float32), (5, 1))
    obs[:, :3] += np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32) * 1e-3
    np.testing.assert_array_equal(widened(policy, extra).act(obs, None)[0], policy.act(obs, None)[0])


def test_a_bundle_says_what_it_was_widened_from(robot, tmp_path):
    text = (files("palmar.configs") / "constraints" / "arm_hand.yaml").read_text()
    task = contract(robot.n)
    source = save_bundle(
        tmp_path / "a", still(task.obs_dim), task=task, robot=robot, constraints_text=text, training={"seed": 1}
    )
    widen_bundle(tmp_path / "a", tmp_path / "b", randomize="train")
    made = load_bundle(tmp_path / "b")
    assert made.training["seed"] == 1 and made.training["widened"]["from"] == source.sha256 != made.sha256
    added = made.policy.tensors()["normalizer.var"] - source.policy.tensors()["normalizer.var"]
    np.testing.assert_allclose(added.numpy(), made.training["widened"]["added_variance"], atol=1e-15)


class Armed(PointMass):
    """The point, beside the readings of 23 joints that stand still."""

    obs_dim, joints = PointMass.obs_dim + 23, 23

    def _observe(self):
        return np.concatenate([super()._observe(), np.zeros((self.num_envs, self.joints), np.float32)], axis=1)


def test_a_widened_run_goes_on_training(robot, tmp_path):
    """Only the spread of joint readings differs, and ``--resume`` takes it as the same run."""
    config = ppo.Config(
        num_envs=8,
        steps=8,
        minibatch=32,
        iterations=1,
        hidden=(8,),
        budgets={"disc": 1.0, "wall": 1.0},
    )
    made = train(Armed(8), config, run_dir=tmp_path / "run")
    task = TaskContract("point", (("p", 4, "m"), ("q", 23, "rad")), (("x", "m", 1.0), ("y", "m", 1.0)), 20.0)
    text = (files("palmar.configs") / "constraints" / "arm_hand.yaml").read_text()
    save_bundle(tmp_path / "run" / "bundle", made.policy, task=task, robot=robot, constraints_text=text, training={})
    target = widen_run(tmp_path / "run", tmp_path / "wide", randomize="train")
    old, new = (load_file(p / "learner.safetensors") for p in (tmp_path / "run" / "checkpoints" / target.name, target))
    assert {k for k in old if not torch.equal(old[k], new[k])} == {"obs_norm.var"}
    added = new["obs_norm.var"] - old["obs_norm.var"]
    assert not added[:4].any() and torch.all(added[4:] > 0)
    more = replace(config, iterations=2)
    assert train(Armed(8), more, run_dir=tmp_path / "wide", resume=True).iterations == 2
    with pytest.raises(ConfigError, match="nothing at"):
        widen_run(tmp_path / "run", tmp_path / "wide", randomize="train")


def test_the_shipped_widened_bundle_is_what_widening_makes_of_the_shipped_one(tmp_path):
    made = widen_bundle(BUNDLES / "lift", tmp_path / "again", randomize="train")
    assert made.sha256 == load_bundle(BUNDLES / "lift_widened").sha256


def test_encoders_that_are_off_stop_the_shipped_policy_and_not_the_widened_one(robot):
    """20 unseen episodes with the hand's zeros off by up to 0.02 rad (measured over 40: 2 and 40)."""
    hand = replace(SensorConfig().hand, q=Channel(bias=SENSORS.hand.q.bias))
    reality = Reality(sensors=replace(SensorConfig(), hand=hand))
    env = make_env(LiftTask(LiftConfig()), robot, None, num_envs=20, seed=91, reality=reality)
    lifted = {
        name: evaluate(env, BundlePolicy(load_bundle(BUNDLES / name)), episodes=20, seed=91).successes
        for name in ("lift", "lift_widened")
    }
    assert lifted["lift"] <= 8 and lifted["lift_widened"] >= 15


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda robot: squares(contract(robot.n, ("block",)), robot, SENSORS), "none of"),
        (lambda robot: squares(contract(robot.n), robot, SensorConfig()), "perfect"),
    ],
)
def test_nothing_to_widen_is_said(robot, make, match):
    with pytest.raises(ConfigError, match=match):
        make(robot)
