"""Row 23: rollouts and bundles truncated, with a bit flipped, with a piece cut out, of a version not known."""

import functools
from pathlib import Path

import numpy as np
import pytest
from matrix import named
from mcap.writer import Writer
from rollouts_and_bundles import SHIPPED, edit, header, shipped, whole

from palmar.policies.bundle import CONTRACT, POLICY, ROBOT, load_bundle
from palmar.rollouts import schema
from palmar.rollouts.read import read
from palmar.safety.types import BundleRefused, RolloutRefused


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
