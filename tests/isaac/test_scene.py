"""Scenes: converted again they are what is shipped; what cannot be spawned or does not fit is refused."""

import subprocess
import sys

import mujoco
import pytest
import torch
from worlds import made

from palmar.assets.convert_usd import USD
from palmar.safety.types import ConfigError
from palmar.sim.engines.isaaclab import parts_of
from palmar.sim.engines.isaaclab_cfg import PalmarEnvCfg, newton
from palmar.sim.engines.isaaclab_plant import ContactOverflow
from palmar.sim.engines.isaaclab_scene import scene_of


def layers(folder):
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*.usda"))}


def test_converting_the_mjcf_again_gives_the_shipped_usd(tmp_path):
    # In a process of its own: Isaac's importer registers USD schemas, which must come before any stage is made.
    words = "from pathlib import Path; from palmar.assets.convert_usd import convert; convert('fr3_leap', Path('{}'))"
    subprocess.run([sys.executable, "-c", words.format(tmp_path)], check=True, capture_output=True, timeout=600)
    assert layers(tmp_path / "fr3_leap") == layers(USD / "fr3_leap")


def test_contacts_that_do_not_fit_are_an_error_and_not_a_printed_line(parts):
    env = made(parts, worlds=2, physics=newton(cone="pyramidal", nconmax=3, njmax=240))
    try:
        with pytest.raises(ContactOverflow, match="nconmax"):
            env.reset(seed=0)
            for _ in range(3):
                env.step(torch.zeros(2, env.io.action_dim))
    finally:
        env.close()


class Furnishing:
    """A task that adds something to the scene."""

    name, objects = "strange", ()

    def __init__(self, add):
        self.furnish = add


def mocap(spec):
    body = spec.worldbody.add_body(name="person", mocap=True)
    body.add_geom(name="forearm", type=mujoco.mjtGeom.mjGEOM_CAPSULE, size=[0.05, 0.1, 0])


def ellipsoid(spec):
    spec.worldbody.add_geom(name="egg", type=mujoco.mjtGeom.mjGEOM_ELLIPSOID, size=[0.05, 0.05, 0.08])


@pytest.mark.parametrize(("add", "word"), [(mocap, "person"), (ellipsoid, "egg")])
def test_what_isaac_lab_cannot_spawn_is_refused_by_name(parts, add, word):
    with pytest.raises(ConfigError, match=word):
        scene_of(Furnishing(add), parts[1], num_envs=1)


@pytest.mark.parametrize(("key", "value"), [("task", "juggle"), ("robot", "r2d2"), ("constraints", "none_such")])
def test_unknown_names_are_refused_with_the_known_ones(key, value):
    cfg = PalmarEnvCfg()
    setattr(cfg, key, value)
    with pytest.raises(ConfigError, match=value):
        parts_of(cfg)
