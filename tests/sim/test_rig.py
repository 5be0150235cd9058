"""Rigs: where cameras stand, and which cannot be."""

from dataclasses import replace
from importlib.resources import files

import mujoco
import numpy as np
import pytest
import yaml
from camera_scenes import BLOCK, DOT, built

from palmar.safety.types import ConfigError
from palmar.sim import scene
from palmar.sim.cameras import Cameras, Worlds
from palmar.sim.render import RenderRefused
from palmar.sim.rig import load_rig, mount

MOUNTED = sorted(yaml.safe_load((files("palmar.configs") / "camera" / "tabletop.yaml").read_text())["wrist"]["mounts"])
"""Robots with a camera at the wrist."""


@pytest.mark.parametrize("robot", MOUNTED)
def test_every_robot_has_a_wrist_camera_that_sees_its_hand_and_the_table(robot):
    s = built(robot)
    cameras = Cameras(s.model, list(s.rig.values()), batch=1, rng=np.random.default_rng(0), kind="rays")
    geom = cameras.look(Worlds(s.qpos[None]), 0, "wrist").geom
    bodies = np.where(geom >= 0, s.model.geom_bodyid[geom], -1)
    hand = [b for b in range(s.model.nbody) if s.model.body(b).name.split("_")[0] in ("palm", "if", "mf", "rf", "th")]
    assert np.mean(np.isin(bodies, hand)) > 0.1 and np.mean(geom == s.model.geom("table").id) > 0.2
    seen = {s.model.body(b).name.split("_")[0] for b in np.unique(bodies[bodies >= 0])}
    assert {"th", "if"} <= seen
    for name in s.rig:
        data = mujoco.MjData(s.model)
        data.qpos = s.qpos
        mujoco.mj_forward(s.model, data)
        pose, turn = cameras.pose(name), np.zeros(9)
        mujoco.mju_quat2Mat(turn, pose[3:])
        assert np.allclose(pose[:3], data.camera(name).xpos, atol=1e-12)
        optical = data.camera(name).xmat.reshape(3, 3) * (1, -1, -1)
        assert np.allclose(turn.reshape(3, 3), optical, atol=1e-9)


def test_cameras_change_nothing_that_moves():
    table, plain = built(), scene.scene_spec((BLOCK, DOT)).compile()
    ends = []
    for model in (plain, table.model):
        data = mujoco.MjData(model)
        data.qpos = table.qpos
        mujoco.mj_step(model, data, 40)
        ends.append(data.qpos.copy())
    assert np.array_equal(*ends) and not np.array_equal(ends[0], table.qpos)


@pytest.mark.parametrize(
    "change, named",
    [
        ({"width": 107}, "107 x 60"),
        ({"width": 0, "height": 0}, "0 x 0"),
        ({"width": 106.0}, "106.0"),
        ({"eye": (0.0, np.nan, 0.0)}, "eye"),
        ({"target": (0.12, -0.05, 0.10)}, "plane"),
        ({"up": (0, 0)}, "up"),
    ],
)
def test_an_impossible_camera_is_refused(change, named):
    wrist = load_rig("tabletop", "fr3_leap")[0]
    with pytest.raises(ConfigError, match=named):
        replace(wrist, **change)


def test_unknown_rigs_robots_bodies_and_renderers_are_refused_with_what_there_is(tmp_path):
    with pytest.raises(ConfigError, match="'attic'.*tabletop"):
        load_rig("attic", "fr3_leap")
    with pytest.raises(ConfigError, match="'r2d2'.*fr3_leap"):
        load_rig("tabletop", "r2d2")
    for text, named in (
        ("[1, 2]", "maps names"),
        ("eye: {device: d435, width: 160, height: 90}", "mount"),
        ("eye: {device: d435, width: 160, height: 90, mount: {body: world}}", "eye, target"),
        ("eye: {device: l515, width: 160, height: 90, mount: {body: world, eye: [1, 0, 0], target: [0, 0, 0], "
         "up: [0, 0, 1]}}", "l515.*d405"),
    ):  # fmt: skip
        (tmp_path / "rig.yaml").write_text(text)
        with pytest.raises(ConfigError, match=named):
            load_rig(str(tmp_path / "rig.yaml"), "fr3_leap")
    rig = load_rig("tabletop", "panda_leap")
    spec = scene.scene_spec(())
    with pytest.raises(ConfigError, match="panda_link7"):
        mount(spec, rig)
    with pytest.raises(ConfigError, match="'front'"):
        mount(spec, [replace(rig[1], name="front")])
    with pytest.raises(ConfigError, match="left"):
        Cameras(scene.scene_spec(()).compile(), rig, batch=1, rng=np.random.default_rng(0), kind="rays")
    with pytest.raises(RenderRefused, match="'vulkan'.*gl"):
        Cameras(built().model, load_rig("tabletop", "fr3_leap"), batch=1, rng=np.random.default_rng(0), kind="vulkan")
