"""Rows 21 to 26: recorders killed, disks full, files damaged or malicious, configurations that do not fit."""

import functools
import hashlib
import json
import os
import pickle  # noqa: TID251  (to hand Palmar what it must refuse)
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_robot as toy
from matrix import named
from mcap.writer import CompressionType, Writer

from palmar.policies.bundle import CONTRACT, POLICY, ROBOT, load_bundle
from palmar.policies.contract import TaskContract
from palmar.real_robot import config as run_config
from palmar.real_robot import shared
from palmar.rollouts import schema
from palmar.rollouts.header import RolloutHeader
from palmar.rollouts.model import compile_scene
from palmar.rollouts.read import read
from palmar.rollouts.record import RolloutWriter
from palmar.safety.constraints import load, parse
from palmar.safety.filter import Filter, FilterConfig
from palmar.safety.robot import RobotModel
from palmar.safety.types import BundleRefused, CommandRefused, ConfigError, PalmarError, RolloutRefused
from palmar.sim.robots import load_robot

SHIPPED = files("palmar.assets") / "bundles" / "lift"
TEXT = (files("palmar.configs") / "constraints" / "arm_hand.yaml").read_text()


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
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return write(Path(folder) / "a.mcap").read_bytes()


# Row 21 --------------------------------------------------------------------------------------------------------------

RECORDER = """
    import json, sys, time
    sys.path.insert(0, sys.argv[2])
    import numpy as np, toy_robot as toy
    from palmar.rollouts.header import RolloutHeader
    from palmar.rollouts.record import RolloutWriter

    head = RolloutHeader("t", "i", toy.robot(), toy.CONSTRAINTS, 0.01)
    with RolloutWriter(sys.argv[1], head) as out:
        print("ready", flush=True)
        for k in range(10**6):
            out.joint_state(k * 0.001, np.full(2, k), np.full(2, time.monotonic()), np.zeros(2))
            time.sleep(0.001)
"""
WAITS = {f"sigkill-after-{w:.2f}s": w for w in np.round(np.random.default_rng(21).uniform(0.02, 2.5, 20), 2).tolist()}


@pytest.mark.parametrize("wait", named(21, WAITS, tuple(WAITS)[:2]))
def test_a_recorder_killed_at_any_moment_loses_at_most_a_second(tmp_path, wait):
    path, here = tmp_path / "killed.mcap", str(Path(toy.__file__).parent)
    command = [sys.executable, "-c", textwrap.dedent(RECORDER), str(path), here]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        time.sleep(wait)
        os.kill(child.pid, signal.SIGKILL)
        killed = time.monotonic()
    with pytest.raises(RolloutRefused, match="killed.mcap"):
        read(path)
    run = read(path, recover=True)
    assert not run.complete and np.array_equal(run.joints.q[:, 0], np.arange(len(run.joints.q)))
    assert wait < 1.2 or killed - run.joints.qd[-1, 0] < 1.0


# Row 22 --------------------------------------------------------------------------------------------------------------

FULL = """
    import resource, signal, sys
    sys.path.insert(0, sys.argv[2])
    import numpy as np, toy_robot as toy
    from palmar.rollouts.header import RolloutHeader
    from palmar.rollouts.record import RolloutWriter
    from palmar.safety.types import PalmarError

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
    head = RolloutHeader("t", "i", toy.robot(), toy.CONSTRAINTS, 0.01)
    out, wrote = None, 0
    try:
        out = RolloutWriter(sys.argv[1], head)
        rng = np.random.default_rng(0)
        for k in range(60_000):
            out.joint_state(k * 0.001, *rng.normal(size=(3, 2)))
            wrote = k
        out.close()
    except (OSError, PalmarError) as error:
        print(type(error).__name__, wrote, flush=True)
        import os
        os._exit(3)
"""


def limited(tmp_path, size):
    """The file may not grow beyond ``size`` bytes, as on a full disk: the writer says so, what is there is readable."""
    path = tmp_path / "full.mcap"
    command = [sys.executable, "-c", textwrap.dedent(FULL), str(path), str(Path(toy.__file__).parent), str(size)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 3 and "Error" in done.stdout, done.stderr
    assert path.stat().st_size <= size
    with pytest.raises(RolloutRefused):
        read(path)
    if size > 500_000:
        assert len(read(path, recover=True).joints.q) > 100


def not_writable(tmp_path, where):
    with pytest.raises((OSError, PalmarError)):
        write(Path(where) / "a.mcap", n=1)


def exists_as(tmp_path, target):
    (tmp_path / "a.mcap").symlink_to(target)
    with pytest.raises(PalmarError, match="never overwritten"):
        write(tmp_path / "a.mcap", n=1)


def no_directory(tmp_path):
    not_writable(tmp_path, tmp_path / "missing")


def file_for_directory(tmp_path):
    (tmp_path / "f").write_text("")
    not_writable(tmp_path, tmp_path / "f")


DISKS = {
    "full-at-the-header": lambda tmp: limited(tmp, 2_000),
    "full-after-100kB": lambda tmp: limited(tmp, 100_000),
    "full-after-1MB": lambda tmp: limited(tmp, 1_000_000),
    "dev-full": lambda tmp: exists_as(tmp, "/dev/full"),
    "kernel-file-system": lambda tmp: not_writable(tmp, "/proc"),
    "read-only-file-system": lambda tmp: not_writable(tmp, "/sys/kernel"),
    "directory-gone": no_directory,
    "file-in-place-of-directory": file_for_directory,
}


@pytest.mark.parametrize("disk", named(22, DISKS, ("full-after-1MB", "dev-full")))
def test_a_disk_that_takes_nothing_more_is_an_error_with_a_name(tmp_path, disk):
    disk(tmp_path)


# Row 23 --------------------------------------------------------------------------------------------------------------


def damage(data: bytes, kind: str, seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    bad, at = bytearray(data), int(rng.integers(8, len(data) - 8))
    if kind == "truncated":
        return bytes(bad[:at])
    if kind == "flipped":
        bad[at] ^= 1 << int(rng.integers(8))
    else:
        del bad[at : at + int(rng.integers(1, 500))]
    return bytes(bad)


def damaged_rollout(tmp_path, kind, seed):
    (tmp_path / "bad.mcap").write_bytes(damage(whole(), kind, seed))
    try:
        run = read(tmp_path / "bad.mcap")
    except RolloutRefused as error:
        assert "bad.mcap" in str(error)
    else:  # a bit that means nothing
        assert kind == "flipped" and np.array_equal(run.joints.q[:, 0], 0.001 * np.arange(200))


def damaged_bundle(tmp_path, kind, seed):
    path, name = shipped(tmp_path), (POLICY, CONTRACT, ROBOT)[seed % 3]
    good = (path / name).read_bytes()
    (path / name).write_bytes(damage(good, kind, seed))
    try:
        bundle = load_bundle(path)
    except BundleRefused as error:
        assert len(str(error)) > 10
    else:  # a bit in a text that nothing depends on, such as a fingerprint of training
        assert kind == "flipped" and name == CONTRACT and bundle.sha256 == load_bundle(Path(str(SHIPPED))).sha256


def shipped(tmp_path) -> Path:
    shutil.copytree(str(SHIPPED), tmp_path / "bundle")
    return tmp_path / "bundle"


def rollout_of_version(tmp_path, version):
    head = header()
    with (tmp_path / "v.mcap").open("wb") as stream:
        out = Writer(stream)
        out.start()
        out.add_metadata(schema.METADATA, head.to_metadata() | {"format_version": version})
        for name, data in head.to_attachments().items():
            out.add_attachment(0, 0, name, "", data)
        out.finish()
    with pytest.raises(RolloutRefused, match="v.mcap"):
        read(tmp_path / "v.mcap")


def bundle_of_version(tmp_path, version):
    path = shipped(tmp_path)
    edit(path, lambda raw: raw.update(format_version=version))
    with pytest.raises(BundleRefused, match="version"):
        load_bundle(path)


def edit(path, change):
    raw = json.loads((path / CONTRACT).read_text())
    change(raw)
    (path / CONTRACT).write_text(json.dumps(raw))


def seal(path):
    """Make the recorded digests fit: somebody who knows the format."""
    sums = {n: hashlib.sha256((path / n).read_bytes()).hexdigest() for n in (POLICY, ROBOT)}
    edit(path, lambda raw: raw.update(files=sums))


DAMAGED = {
    f"{what}-{kind}-{seed}": functools.partial(act, kind=kind, seed=seed)
    for what, act in (("rollout", damaged_rollout), ("bundle", damaged_bundle))
    for kind in ("truncated", "flipped", "cut")
    for seed in range(4)
} | {
    "rollout-version-99": lambda tmp: rollout_of_version(tmp, "99"),
    "rollout-version-text": lambda tmp: rollout_of_version(tmp, "newest"),
    "rollout-version-empty": lambda tmp: rollout_of_version(tmp, ""),
    "bundle-version-2": lambda tmp: bundle_of_version(tmp, 2),
    "bundle-version-text": lambda tmp: bundle_of_version(tmp, "1"),
    "bundle-version-none": lambda tmp: bundle_of_version(tmp, None),
}


@pytest.mark.parametrize("check", named(23, DAMAGED, ("rollout-truncated-0", "bundle-flipped-0")))
def test_a_damaged_file_is_refused_or_whole(tmp_path, check):
    check(tmp_path)


# Row 24 --------------------------------------------------------------------------------------------------------------


class Bomb:
    """Creates its sentinel when it is unpickled."""

    def __init__(self, sentinel):
        self.sentinel = str(sentinel)

    def __reduce__(self):
        return (open, (self.sentinel, "w"))


def in_bundle(tmp_path, name, data):
    path = shipped(tmp_path)
    (path / name).write_bytes(data)
    if name != CONTRACT:
        seal(path)
    with pytest.raises(BundleRefused):
        load_bundle(path)


def torch_file(sentinel) -> bytes:
    import io

    stream = io.BytesIO()
    torch.save({"weights": Bomb(sentinel)}, stream)
    return stream.getvalue()


def object_array(sentinel) -> bytes:
    import io

    stream = io.BytesIO()
    np.savez(stream, weights=np.array([Bomb(sentinel)], dtype=object))
    return stream.getvalue()


def as_rollout(tmp_path, data):
    (tmp_path / "p.mcap").write_bytes(data)
    for recover in (False, True):
        with pytest.raises(RolloutRefused):
            read(tmp_path / "p.mcap", recover=recover)


def attached(tmp_path, name, data):
    head = header()
    with (tmp_path / "x.mcap").open("wb") as stream:
        out = Writer(stream)
        out.start()
        out.add_metadata(schema.METADATA, head.to_metadata())
        for key, value in (head.to_attachments() | {name: data}).items():
            out.add_attachment(0, 0, key, "", value)
        out.finish()
    with pytest.raises(RolloutRefused):
        read(tmp_path / "x.mcap")


def tagged(tmp_path, tag):
    path = tmp_path / "c.yaml"
    path.write_text(f"name: x\nversion: 1\nconstraints: {tag}\n")
    with pytest.raises(ConfigError):
        load(path, load_robot().limits)


def tag_in_bundle(tmp_path, tag):
    path = shipped(tmp_path)
    edit(path, lambda raw: raw["constraints"].update(text=f"name: x\nversion: 1\nconstraints: {tag}\n"))
    with pytest.raises(BundleRefused):
        load_bundle(path)


def pickled_run(tmp_path, data):
    (tmp_path / "run.json").write_bytes(data)
    with pytest.raises(ConfigError):
        run_config.read(tmp_path / "run.json")


def touch(sentinel) -> str:
    return f"!!python/object/apply:os.system ['touch {sentinel}']"


MALICIOUS = {
    "pickle-as-weights": lambda tmp, s: in_bundle(tmp, POLICY, pickle.dumps(Bomb(s))),
    "pickle-as-contract": lambda tmp, s: in_bundle(tmp, CONTRACT, pickle.dumps(Bomb(s))),
    "pickle-as-robot": lambda tmp, s: in_bundle(tmp, ROBOT, pickle.dumps(Bomb(s))),
    "torch-file-as-weights": lambda tmp, s: in_bundle(tmp, POLICY, torch_file(s)),
    "npz-of-objects-as-weights": lambda tmp, s: in_bundle(tmp, POLICY, object_array(s)),
    "pickle-as-rollout": lambda tmp, s: as_rollout(tmp, pickle.dumps(Bomb(s))),
    "pickle-attached-as-robot": lambda tmp, s: attached(tmp, schema.ROBOT_JSON, pickle.dumps(Bomb(s))),
    "pickle-as-run-configuration": lambda tmp, s: pickled_run(tmp, pickle.dumps(Bomb(s))),
    "yaml-tag-apply": lambda tmp, s: tagged(tmp, touch(s)),
    "yaml-tag-new": lambda tmp, s: tagged(tmp, f"!!python/object/new:os.system ['touch {s}']"),
    "yaml-tag-module": lambda tmp, s: tagged(tmp, "!!python/module:os"),
    "yaml-tag-in-bundle": lambda tmp, s: tag_in_bundle(tmp, touch(s)),
}


@pytest.mark.parametrize("attack", named(24, MALICIOUS, ("pickle-as-weights", "yaml-tag-apply")))
def test_what_would_run_code_is_refused_and_does_not_run(tmp_path, attack):
    sentinel = tmp_path / "sentinel"
    attack(tmp_path, sentinel)
    assert not sentinel.exists()


# Row 25 --------------------------------------------------------------------------------------------------------------

SECRET = "/etc/hostname"


def linked(tmp_path, name):
    path = shipped(tmp_path)
    (tmp_path / "outside").write_bytes((path / name).read_bytes())
    (path / name).unlink()
    (path / name).symlink_to(tmp_path / "outside")
    with pytest.raises(BundleRefused, match="plain file"):
        load_bundle(path)


def naming(tmp_path, *names):
    path = shipped(tmp_path)
    edit(path, lambda raw: raw.update(files={POLICY: raw["files"][POLICY], **dict.fromkeys(names, "0")}))
    with pytest.raises(BundleRefused, match="names files"):
        load_bundle(path)


def layers(tmp_path, sizes):
    path = shipped(tmp_path)
    edit(path, lambda raw: raw["network"].update(layers=sizes))
    with pytest.raises(BundleRefused):
        load_bundle(path)


def huge(tmp_path, name):
    path = shipped(tmp_path)
    with (path / name).open("r+b") as stream:
        stream.truncate(10 * 2**30)  # sparse: takes no disk
    with pytest.raises(BundleRefused, match="bytes"):
        load_bundle(path)


def nested(tmp_path):
    path = shipped(tmp_path)
    (path / CONTRACT).write_text("[" * 200_000)
    with pytest.raises(BundleRefused):
        load_bundle(path)


def scene(tmp_path, xml, **assets):
    path = write(tmp_path / "s.mcap", n=3, model_xml=xml)
    before = set(tmp_path.iterdir())
    with pytest.raises(RolloutRefused):
        compile_scene(read(path))
    assert set(tmp_path.iterdir()) == before


def length(tmp_path, size):
    """An MCAP record that claims to be longer than the file."""
    data = bytearray(whole())
    data[9:17] = int(size).to_bytes(8, "little")
    (tmp_path / "l.mcap").write_bytes(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RolloutRefused):
        read(tmp_path / "l.mcap")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB


def bomb(tmp_path):
    """A chunk of a gigabyte of zeros, compressed to some kilobytes: refused, or read without filling memory."""
    head = header()
    with (tmp_path / "b.mcap").open("wb") as stream:
        out = Writer(stream, chunk_size=2**40, compression=CompressionType.ZSTD)
        out.start()
        out.add_metadata(schema.METADATA, head.to_metadata())
        for key, value in head.to_attachments().items():
            out.add_attachment(0, 0, key, "", value)
        kind = out.register_schema("x", "ros2msg", b"uint8[] data")
        channel = out.register_channel("/zeros", "cdr", kind)
        for k in range(64):
            out.add_message(channel, k, bytes(2**20), k)
        out.finish()
    assert (tmp_path / "b.mcap").stat().st_size < 2**20
    run = read(tmp_path / "b.mcap")
    assert run.other_topics == ("/zeros",)


def laughs(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]" for k in range(1, 12)]
    (tmp_path / "c.yaml").write_text("\n".join(lines))
    with pytest.raises(ConfigError):
        load(tmp_path / "c.yaml", load_robot().limits)


def foreign_memory(tmp_path):
    """A shared file of another kind is not mapped as ours."""
    (tmp_path / "memory").write_bytes(b"\xff" * 4096)
    with pytest.raises(PalmarError):
        shared.attach(tmp_path / "memory", {}, kind="control")


MESH = "<mujoco><asset><mesh name='m' file='{}'/></asset><worldbody><geom type='mesh' mesh='m'/></worldbody></mujoco>"
PATHS = {
    "bundle-weights-linked": lambda tmp: linked(tmp, POLICY),
    "bundle-contract-linked": lambda tmp: linked(tmp, CONTRACT),
    "bundle-robot-linked": lambda tmp: linked(tmp, ROBOT),
    "bundle-names-parent": lambda tmp: naming(tmp, "../../robot.json"),
    "bundle-names-absolute": lambda tmp: naming(tmp, SECRET),
    "bundle-names-more": lambda tmp: naming(tmp, ROBOT, "run_me.py"),
    "bundle-layers-of-a-billion": lambda tmp: layers(tmp, [151, 10**9, 8]),
    "bundle-layers-negative": lambda tmp: layers(tmp, [151, -1, 8]),
    "bundle-weights-of-10-GiB": lambda tmp: huge(tmp, POLICY),
    "bundle-contract-nested-200000-deep": nested,
    "scene-mesh-absolute": lambda tmp: scene(tmp, MESH.format(SECRET)),
    "scene-mesh-of-parent": lambda tmp: scene(tmp, MESH.format("../../secret.stl")),
    "scene-includes-a-file": lambda tmp: scene(tmp, f"<mujoco><include file='{SECRET}'/></mujoco>"),
    "scene-declares-an-entity": lambda tmp: scene(
        tmp, f"<!DOCTYPE m [<!ENTITY s SYSTEM 'file://{SECRET}'>]><mujoco model='&s;'/>"
    ),
    "rollout-record-of-an-exabyte": lambda tmp: length(tmp, 2**60),
    "rollout-chunk-bomb": bomb,
    "constraints-billion-laughs": laughs,
    "shared-memory-of-others": foreign_memory,
}


@pytest.mark.parametrize("attack", named(25, PATHS, ("bundle-weights-linked", "scene-mesh-absolute")))
def test_no_file_reaches_out_of_its_place_or_fills_memory(tmp_path, attack):
    attack(tmp_path)


# Row 26 --------------------------------------------------------------------------------------------------------------


def bundle_for(change):
    """A bundle whose robot or constraints are not those here is not run."""

    def check(tmp_path):
        bundle = load_bundle(shipped(tmp_path))
        robot, constraints, task = change(load_robot(), bundle)
        with pytest.raises(BundleRefused, match="the bundle has"):
            bundle.check(robot, constraints, task)

    return check


def other(name):
    def change(robot, bundle):
        here = load_robot(name)
        return here, parse(TEXT, here.limits), bundle.task

    return change


def limits(**changes):
    def change(robot, bundle):
        m = replace(robot.limits, **{k: f(getattr(robot.limits, k)) for k, f in changes.items()})
        return replace(robot, limits=m), parse(TEXT, m), bundle.task

    return change


def hands_swapped(robot, bundle):
    joints = (*robot.joints[:7], *robot.joints[11:], *robot.joints[7:11])
    return replace(robot, joints=joints), parse(TEXT, robot.limits), bundle.task


def task_in_degrees(robot, bundle):
    task: TaskContract = bundle.task
    rows = tuple((n, size, "deg" if unit == "rad" else unit) for n, size, unit in task.observation)
    return robot, parse(TEXT, robot.limits), replace(task, observation=rows)


def refused(kind, act, match=None):
    def check(tmp_path):
        with pytest.raises(kind, match=match):
            act(tmp_path)

    return check


def started_at(change):
    def act(tmp_path):
        robot = load_robot()
        from palmar.benchmarks.plant import Reading

        zero = np.zeros(robot.n)
        Filter(robot, parse(TEXT, robot.limits)).start(Reading(0.0, 1, change(robot.home.copy()), zero, zero))

    return act


def of_limits(**changes):
    return lambda tmp: replace(load_robot().limits, **{k: np.asarray(v) for k, v in changes.items()})


def twin_of_another_robot(tmp_path):
    from palmar.real_robot.drivers.twin import twin_robot
    from palmar.real_robot.twin import open_memory

    run = toy.run_config(tmp_path)
    import mujoco

    memory = open_memory(Path(run.twin_memory), run, mujoco.MjModel.from_xml_string(run.scene))
    try:
        twin_robot(replace(toy.robot(), name="another"), Path(run.twin_memory), timeout=0.5)
    finally:
        memory.close()


def old_calibration(q):
    q[3] += 3.0
    return q


CONFIGURATIONS = {
    "bundle-of-fr3-on-panda": bundle_for(other("panda_leap")),
    "bundle-of-leap-on-allegro": bundle_for(other("fr3_allegro")),
    "speed-limits-of-another-arm": bundle_for(limits(v_max=lambda v: v * 1.1)),
    "position-limits-in-degrees": bundle_for(limits(q_min=np.degrees, q_max=np.degrees)),
    "fingers-swapped": bundle_for(hands_swapped),
    "observations-in-degrees": bundle_for(task_in_degrees),
    "start-in-degrees": refused(CommandRefused, started_at(np.degrees), "start"),
    "calibration-off-by-3-rad": refused(CommandRefused, started_at(old_calibration), "fr3_joint4"),
    "hand-mirrored": refused(CommandRefused, started_at(lambda q: np.where(np.arange(23) >= 7, -q, q))),
    "twin-of-another-robot": refused(PalmarError, twin_of_another_robot, "robot"),
    "limits-swapped": refused(ConfigError, lambda tmp: replace_limits(), "q_min < q_max"),
    "limits-nan": refused(ConfigError, of_limits(v_max=np.full(23, np.nan)), "NaN"),
    "limits-of-22-joints": refused(ConfigError, of_limits(a_max=np.ones(22)), "a_max"),
    "acceleration-limit-zero": refused(ConfigError, of_limits(a_max=np.zeros(23)), "positive"),
    "period-of-a-second": refused(ConfigError, lambda tmp: FilterConfig(dt=1.0), "dt"),
    "run-configuration-with-an-unknown-key": refused(ConfigError, lambda tmp: unknown_key(tmp), "unknown"),
}


def replace_limits():
    m = load_robot().limits
    return replace(m, q_min=m.q_max, q_max=m.q_min)


def unknown_key(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"run_dir": ".", "sudo": True}))
    run_config.read(tmp_path / "run.json")


@pytest.mark.parametrize("check", named(26, CONFIGURATIONS, ("bundle-of-fr3-on-panda", "start-in-degrees")))
def test_a_configuration_that_does_not_fit_does_not_arm(tmp_path, check):
    check(tmp_path)


def test_a_robot_model_survives_its_own_file(tmp_path):
    robot = load_robot()
    assert RobotModel.from_json(json.loads(json.dumps(robot.to_json()))).hash() == robot.hash()
