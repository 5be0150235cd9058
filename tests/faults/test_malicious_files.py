"""Rows 24 and 25: files made to run code, to reach out of their place or to fill memory."""

import io
import pickle  # noqa: TID251  (to hand Palmar what it must refuse)
import resource

import numpy as np
import pytest
import torch
from matrix import named
from mcap.writer import CompressionType, Writer
from rollouts_and_bundles import edit, header, seal, shipped, whole, write

from palmar.policies.bundle import CONTRACT, POLICY, ROBOT, load_bundle
from palmar.real_robot import config as run_config
from palmar.real_robot import shared
from palmar.rollouts import schema
from palmar.rollouts.model import compile_scene
from palmar.rollouts.read import read
from palmar.safety.constraints import load
from palmar.safety.types import BundleRefused, ConfigError, PalmarError, RolloutRefused
from palmar.sim.robots import load_robot

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
    stream = io.BytesIO()
    torch.save({"weights": Bomb(sentinel)}, stream)
    return stream.getvalue()


def object_array(sentinel) -> bytes:
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
