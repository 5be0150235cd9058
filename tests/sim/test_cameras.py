"""Frames: of the worlds there are, late and in order."""

import re
from dataclasses import replace
from pathlib import Path

import mujoco
import numpy as np
import pytest
from camera_scenes import to_camera

from palmar.safety.types import ConfigError, PalmarError
from palmar.sim import scene
from palmar.sim.cameras import Cameras, Worlds
from palmar.sim.env import make_env
from palmar.sim.pointcloud import open3d
from palmar.sim.render import RenderRefused
from palmar.sim.rig import PITCH, Camera, load_rig, mount
from palmar.sim.robots import load_robot
from palmar.sim.tasks import find


def test_an_environment_is_drawn_as_its_worlds_are_and_does_not_notice():
    """`lift` with a rig runs bit for bit as without; each world is drawn with its own state and colours."""
    robot, found = load_robot(), find.load("lift")
    task, rig = found.task(found.config()), load_rig("tabletop", "fr3_leap")

    def furnish(spec):
        task.furnish(spec)
        mount(spec, rig)

    model = scene.compose(furnish=furnish)[0]
    envs = [make_env(task, robot, None, num_envs=2, seed=4, model=m) for m in (None, model)]
    for _ in range(3):
        seen = [env.step(np.full((2, env.action_dim), 0.2)).obs for env in envs]
    assert np.array_equal(*seen)
    engine, geom = envs[1].engine, model.geom("red_cube_geom").id
    red, pushed = np.stack([model.geom_rgba] * 2), np.stack([model.cam_pos] * 2)
    red[1, geom] = (0, 0, 0.2, 1)
    engine.set_fields(np.arange(2), {"geom_rgba": red, "cam_pos": pushed})
    cameras, worlds = Cameras(model, rig, batch=2, rng=np.random.default_rng(0)), Worlds.of(engine.batch)
    for k, of in ((model.camera(c.name).id, c.intrinsics) for c in rig):  # a model of printed numbers
        assert np.allclose(model.cam_intrinsic[k, :2] / PITCH, (of.fx, of.fy), rtol=1e-5)
    assert {"geom_rgba", "cam_pos"} <= set(worlds.fields) and "body_mass" not in worlds.fields
    cameras.reset(np.arange(2), np.zeros(2), worlds)
    position = engine.objects()[0][:, 0]
    for w, brightest in enumerate((0, 2)):
        frame, k = cameras.frames["left"], rig[1].intrinsics
        mask = frame.geom[w] == geom
        u, v = k.project(to_camera(position[w], frame.pose[w]))
        rows, columns = np.nonzero(mask)
        assert mask.sum() > 10 and np.hypot(columns.mean() - u, rows.mean() - v) < 4
        assert frame.color[w][mask].mean(axis=0).argmax() == brightest
        assert np.all(frame.body[w][mask] == model.body("red_cube").id)


def test_the_example_of_the_page_runs():
    try:
        open3d()
    except ConfigError as error:
        pytest.skip(str(error))
    page = (Path(__file__).parents[2] / "docs" / "cameras.md").read_text()
    said: dict = {}
    exec(re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0], said)
    low, high = said["cloud"].points.min(axis=0), said["cloud"].points.max(axis=0)
    assert len(said["cloud"].points) > 50 and np.all(low >= (0.2, -0.4, 0.015)) and np.all(high <= (0.8, 0.4, 0.4))


def moving(device="d435", rate=30.0, latency=0.06, batch=2):
    """A ball on a slide before one small camera, in ``batch`` worlds: cameras, and qpos at a place along it."""
    spec = mujoco.MjSpec()
    body = spec.worldbody.add_body(name="ball")
    body.add_joint(type=mujoco.mjtJoint.mjJNT_SLIDE, axis=[0, 1, 0])
    body.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[0.05, 0, 0])
    at = load_rig("tabletop", "fr3_leap")[1]
    found = replace(at.device, rate=rate, latency=latency)
    rig = [Camera("eye", found, 64, 36, "world", (1.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0, 0, 1))]
    mount(spec, rig)
    return Cameras(spec.compile(), rig, batch=batch, rng=np.random.default_rng(3), kind="rays")


@pytest.mark.parametrize("rate, latency", [(30.0, 0.06), (15.0, 0.0), (90.0, 0.1)])
def test_frames_come_at_their_rate_and_no_sooner_than_their_latency(rate, latency):
    cameras, dt = moving(rate=rate, latency=latency), 0.01
    cameras.reset(np.arange(2), np.zeros(2), Worlds(np.zeros((2, 1))))
    frame = cameras.frames["eye"]
    seen, last = [set(), set()], frame.stamp.copy()
    for k in range(1, 151):
        t = np.full(2, k * dt)
        cameras.update(t, Worlds(np.zeros((2, 1))))
        assert np.all(frame.stamp >= last)
        age = t - frame.stamp
        assert np.all((frame.stamp == 0) | ((age >= latency - 1e-9) & (age <= latency + 1 / rate + 2 * dt)))
        last = frame.stamp.copy()
        for w in range(2):
            seen[w].add(round(float(frame.stamp[w]), 9))
    assert seen[0] != seen[1]  # phases differ
    for stamps in seen:
        assert abs(len(stamps) - 1 - rate * (1.5 - latency)) <= 2


def test_a_frame_shows_the_world_as_it_was_when_exposed():
    """A ball on its way: each delivered picture is that of the place at its stamp, never of now."""
    cameras, dt = moving(), 0.02

    def place(t):
        return np.stack([0.2 * np.sin(3 * t), 0.2 * np.cos(2 * t)])[:, None]

    cameras.reset(np.arange(2), np.zeros(2), Worlds(place(0.0)))
    frame, late = cameras.frames["eye"], 0
    for k in range(1, 60):
        cameras.update(np.full(2, k * dt), Worlds(place(k * dt)))
        shown = [frame.geom[w].copy() for w in range(2)]
        for w in range(2):
            then = cameras.look(Worlds(place(frame.stamp[w])), w, "eye")
            assert np.array_equal(shown[w], then.geom) and np.array_equal(frame.color[w], then.color)
            assert np.array_equal(frame.body[w] == 1, then.geom == 0)
            late += not np.array_equal(shown[w], cameras.look(Worlds(place(k * dt)), w, "eye").geom)
    assert late > 90


def test_a_reset_world_starts_with_a_frame_of_its_own_and_leaves_the_other_alone():
    cameras = moving()
    cameras.reset(np.arange(2), np.zeros(2), Worlds(np.zeros((2, 1))))
    cameras.update(np.full(2, 0.05), Worlds(np.full((2, 1), 0.1)))  # exposed, not delivered
    before = cameras.frames["eye"].geom.copy()
    cameras.reset(np.array([1]), np.array([7.0]), Worlds(np.full((2, 1), -0.2)))
    frame = cameras.frames["eye"]
    assert frame.stamp.tolist() == [0.0, 7.0]
    assert np.array_equal(frame.geom[0], before[0]) and not np.array_equal(frame.geom[1], before[1])
    cameras.update(np.array([0.12, 7.001]), Worlds(np.zeros((2, 1))))
    assert frame.stamp[0] == 0.05 and frame.stamp[1] >= 7.0  # the old frame of world 1 is gone


def test_a_state_that_cannot_be_drawn_is_refused_before_anything_is_delivered():
    cameras = moving()
    cameras.reset(np.arange(2), np.zeros(2), Worlds(np.zeros((2, 1))))
    stamp = cameras.frames["eye"].stamp.copy()
    bad = np.zeros((2, 1))
    bad[1, 0] = np.nan
    rgba = np.ones((2, 1, 4))
    for worlds, named in (
        (Worlds(bad), r"qpos of world 1 is not finite at \[0\]"),
        (Worlds(np.zeros((3, 1))), r"\(3, 1\), need \(2, 1\)"),
        (Worlds(np.zeros((2, 1)), mocap_position=np.zeros((2, 1, 3))), "mocap"),
        (Worlds(np.zeros((2, 1)), fields={"geom_paint": rgba}), "geom_paint"),
        (Worlds(np.zeros((2, 1)), fields={"geom_rgba": rgba[:1]}), r"geom_rgba has shape \(1, 1, 4\)"),
        (Worlds(np.zeros((2, 1)), fields={"geom_rgba": rgba * np.inf}), "geom_rgba of world 0"),
    ):
        with pytest.raises(RenderRefused, match=named):
            cameras.update(np.full(2, 1.0), worlds)
    assert np.array_equal(cameras.frames["eye"].stamp, stamp) and issubclass(RenderRefused, PalmarError)
    with pytest.raises(RenderRefused, match="'ear'.*eye"):
        cameras.look(Worlds(np.zeros((2, 1))), 0, "ear")
    with pytest.raises(RenderRefused, match="no world 2"):
        cameras.look(Worlds(np.zeros((2, 1))), 2, "eye")
