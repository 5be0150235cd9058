import dataclasses
import hashlib
import json
import pickle  # noqa: TID251  (to hand a bundle what it must refuse)
import time
from importlib.resources import files

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from palmar.policies.bundle import (
    CONTRACT,
    POLICY,
    ROBOT,
    BundlePolicy,
    TaskContract,
    load_bundle,
    save_bundle,
)
from palmar.policies.networks import MeanPolicy, ObservationRefused, mlp
from palmar.policies.normalize import Normalizer
from palmar.safety.constraints import parse
from palmar.safety.types import BundleRefused
from palmar.sim.robots import load_robot
from palmar.sim.tasks.lift import LiftIO

TEXT = (files("palmar.configs") / "constraints" / "arm_hand.yaml").read_text()


@pytest.fixture(scope="module")
def robot():
    return load_robot("fr3_leap")


@pytest.fixture(scope="module")
def here(robot):
    return robot, parse(TEXT, robot.limits), TaskContract.of("lift", LiftIO, {"hold": 1.0})


@pytest.fixture(scope="module")
def policy(here):
    generator = torch.Generator().manual_seed(0)
    norm = Normalizer(here[2].obs_dim)
    norm.update(torch.randn(100, here[2].obs_dim, generator=generator) * 3 + 1)
    return MeanPolicy(mlp((here[2].obs_dim, 256, 128, len(here[2].action)), gain=1.0, generator=generator), norm)


@pytest.fixture
def path(tmp_path, policy, here):
    where = tmp_path / "bundle"
    save_bundle(where, policy, task=here[2], robot=here[0], constraints_text=TEXT, training={"seed": 3})
    return where


def edit(path, change):
    """Change the contract as a hand would."""
    raw = json.loads((path / CONTRACT).read_text())
    change(raw)
    (path / CONTRACT).write_text(json.dumps(raw))


def seal(path):
    """Make the recorded digests fit again: someone who knows the format, or a mistake in training."""
    sums = {n: hashlib.sha256((path / n).read_bytes()).hexdigest() for n in (POLICY, ROBOT)}
    edit(path, lambda raw: raw.update(files=sums))


def test_what_is_loaded_acts_like_what_was_saved(path, policy, here):
    bundle = load_bundle(path)
    bundle.check(*here)
    obs = np.random.default_rng(0).normal(size=(16, here[2].obs_dim))
    acting = BundlePolicy(bundle)
    action, carry = acting.act(obs, acting.start(16))
    assert carry is None and np.array_equal(action, policy.act(obs)[0])
    assert action.shape == (16, 8) and action.dtype == np.float32 and np.abs(action).max() <= 1
    assert np.abs(action).max() > 0 and np.array_equal(action, acting.act(obs)[0])
    assert bundle.training == {"seed": 3} and bundle.task.settings == {"hold": 1.0}
    assert bundle.task.observation[0] == ("q", 23, "rad") and acting.rate_hz == 20.0


def test_one_observation_takes_less_than_a_millisecond(path):
    acting = BundlePolicy(load_bundle(path))
    obs = np.zeros((1, acting.obs_dim), np.float32)
    took = []
    for _ in range(300):
        began = time.thread_time()
        acting.act(obs)
        took.append(time.thread_time() - began)
    assert np.median(took) < 1e-3


def test_a_bad_observation_is_refused(path):
    acting = BundlePolicy(load_bundle(path))
    for bad in (
        np.full((1, acting.obs_dim), np.nan),
        np.zeros(acting.obs_dim),
        np.zeros((1, acting.obs_dim - 1)),
    ):
        with pytest.raises(ObservationRefused):
            acting.act(bad)


def changed_task(**changes):
    return lambda robot, constraints, task: (robot, constraints, dataclasses.replace(task, **changes))


def renamed(index, part, old, new):
    def change(robot, constraints, task):
        rows = [list(row) for row in getattr(task, part)]
        assert rows[0][index] == old
        rows[0][index] = new
        return robot, constraints, dataclasses.replace(task, **{part: tuple(map(tuple, rows))})

    return change


def other_joints(robot, constraints, task):
    swapped = (robot.joints[1], robot.joints[0], *robot.joints[2:])
    return dataclasses.replace(robot, joints=swapped), constraints, task


def other_limits(robot, constraints, task):
    limits = dataclasses.replace(robot.limits, v_max=robot.limits.v_max * 0.999)
    return dataclasses.replace(robot, limits=limits), constraints, task


def other_budget(robot, constraints, task):
    text = TEXT.replace("budget: 0.1, unit: s", "budget: 0.2, unit: s")
    assert text != TEXT
    return robot, parse(text, robot.limits), task


HERE = {
    "task name": changed_task(name="reach"),
    "rate": changed_task(rate_hz=10.0),
    "observation names": renamed(0, "observation", "q", "qd"),
    "observation sizes": renamed(1, "observation", 23, 22),
    "observation units": renamed(2, "observation", "rad", "deg"),
    "action names": renamed(0, "action", "palm_x", "palm_y"),
    "action units": renamed(1, "action", "m", "mm"),
    "action scales": renamed(2, "action", 0.02, 0.03),
    "joint order": other_joints,
    "robot hash": other_limits,
    "constraint hash": other_budget,
}


@pytest.mark.parametrize("what", HERE)
def test_deployment_refuses_what_does_not_fit_and_names_it(path, here, what):
    with pytest.raises(BundleRefused, match=rf"^{what}.*the bundle has .*, here it is "):
        load_bundle(path).check(*HERE[what](*here))


def put(*keys, value):
    def change(raw):
        for key in keys[:-1]:
            raw = raw[key]
        raw[keys[-1]] = value

    return change


CONTRACTS = {
    "format is of": put("format", value="somebody.else"),
    "format version 2": put("format_version", value=2),
    "hash": put("robot", "hash", value="0" * 64),
    "joints": put("robot", "joints", value=["a"]),
    "constraints": put("constraints", "hash", value="0" * 64),
    "constraints must be": put("constraints", "text", value="name: x\nversion: 1\nconstraints: {}\n"),
    "names files": put("files", value={POLICY: "0", "../../secret": "0"}),
    POLICY: put("files", POLICY, value="0" * 64),
    ROBOT: put("files", ROBOT, value="0" * 64),
    "has keys": put("plugins", value=["run me"]),
    "network is": put("network", "kind", value="python"),
    "layers": put("network", "layers", value=[151, 256, 128, 9]),
    "positive integers": put("network", "layers", value=[151, -1, 8]),
    "task is": put("task", value=None),
    "not readable": put("task", "observation", value=[["q"]]),
    "need an object": put("network", value=[]),
}


@pytest.mark.parametrize("what", CONTRACTS)
def test_a_contract_that_contradicts_itself_is_refused(path, what):
    edit(path, CONTRACTS[what])
    with pytest.raises(BundleRefused, match=what.replace("format is of", "is of format")):
        load_bundle(path)


@pytest.mark.parametrize("name", [POLICY, CONTRACT, ROBOT])
def test_missing_truncated_and_linked_files_are_refused(path, tmp_path, name):
    whole = (path / name).read_bytes()
    for cut in (0, 1, 7, len(whole) // 2, len(whole) - 1):
        (path / name).write_bytes(whole[:cut])
        with pytest.raises(BundleRefused):
            load_bundle(path)
    (path / name).unlink()
    with pytest.raises(BundleRefused, match=f"{name} is missing"):
        load_bundle(path)
    (tmp_path / "elsewhere").write_bytes(whole)
    (path / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleRefused, match="not a plain file"):
        load_bundle(path)


def test_a_directory_of_something_else_is_refused_and_never_replaced(tmp_path, policy, here):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(BundleRefused):
        save_bundle(tmp_path / "thesis", policy, task=here[2], robot=here[0], constraints_text=TEXT, training={})
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"
    with pytest.raises(BundleRefused, match="missing"):
        load_bundle(tmp_path / "nowhere")


def test_truncated_weights_are_refused_even_where_the_digest_fits(path):
    whole = (path / POLICY).read_bytes()
    for cut in (0, 8, 100, len(whole) - 4):
        (path / POLICY).write_bytes(whole[:cut])
        seal(path)
        with pytest.raises(BundleRefused, match=POLICY):
            load_bundle(path)


def test_weights_that_are_not_numbers_or_of_another_network_are_refused(path):
    good = load_file(path / POLICY)
    broken = {
        "not finite": {**good, "net.0.bias": torch.full_like(good["net.0.bias"], torch.nan)},
        "negative variance": {**good, "normalizer.var": -good["normalizer.var"]},
        "net.2.weight": {**good, "net.2.weight": good["net.2.weight"][:-1].contiguous()},
        "net.4.bias": {k: v for k, v in good.items() if k != "net.4.bias"},
        "evil": {**good, "evil": torch.zeros(3)},
        "net.0.weight": {**good, "net.0.weight": good["net.0.weight"].double()},
    }
    for what, tensors in broken.items():
        save_file(tensors, path / POLICY)
        seal(path)
        with pytest.raises(BundleRefused, match=what):
            load_bundle(path)


def test_a_pickle_is_refused_and_not_executed(path, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    for name in (POLICY, CONTRACT, ROBOT):
        whole = (path / name).read_bytes()
        (path / name).write_bytes(pickle.dumps(Evil()))
        if name != CONTRACT:
            seal(path)
        with pytest.raises(BundleRefused):
            load_bundle(path)
        (path / name).write_bytes(whole)
    assert not (tmp_path / "executed").exists()


def test_saving_refuses_what_loading_would(tmp_path, policy, here):
    weights = policy.tensors()
    weights["net.0.bias"][0] = torch.inf
    bad = MeanPolicy.from_tensors(weights, policy.layers)
    common = {"task": here[2], "robot": here[0], "constraints_text": TEXT}
    with pytest.raises(BundleRefused, match="not finite"):
        save_bundle(tmp_path / "b", bad, **common, training={})
    with pytest.raises(BundleRefused, match="not plain JSON"):
        save_bundle(tmp_path / "b", policy, **common, training={"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []
    first = save_bundle(tmp_path / "b", policy, **common, training={})
    second = save_bundle(tmp_path / "b", policy, **common, training={"again": True})
    assert first.sha256 == second.sha256 and load_bundle(tmp_path / "b").training == {"again": True}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_byte_is_refused_or_harmless(path, here, data):
    """Weights and robot are hashed; of the contract only values that are compared nowhere may change."""
    name = data.draw(st.sampled_from([POLICY, ROBOT, CONTRACT]))
    whole = (path / name).read_bytes()
    where = data.draw(st.integers(0, len(whole) - 1))
    flipped = bytearray(whole)
    flipped[where] ^= data.draw(st.integers(1, 255))
    (path / name).write_bytes(bytes(flipped))
    try:
        bundle = load_bundle(path)
        bundle.check(*here)
        assert name == CONTRACT
    except BundleRefused:
        pass
    finally:
        (path / name).write_bytes(whole)
