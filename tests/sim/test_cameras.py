"""Cameras: points land in their pixels, depth lies on surfaces, masks are objects, frames come late and in order."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import mujoco
import numpy as np
import pytest

from palmar.safety.types import ConfigError, PalmarError
from palmar.sim import scene
from palmar.sim.cameras import Cameras, Worlds
from palmar.sim.env import make_env
from palmar.sim.pointcloud import open3d
from palmar.sim.render import RENDERERS, Gl, RenderRefused
from palmar.sim.rig import PITCH, Camera, load_rig, mount
from palmar.sim.robots import arm_and_hand, load_robot, robot_names
from palmar.sim.tasks import find

BLOCK = scene.Block("block", "box", (0.03, 0.02, 0.025), (0.8, 0.1, 0.1, 1.0))
DOT = scene.Block("dot", "sphere", (0.006, 0.006, 0.006), (0.1, 0.8, 0.1, 1.0))
EXACT = {"gl": 2e-4, "rays": 2e-6}
"""How true depth is [m]: a depth buffer of 24 bits at 1 m, and single precision."""


@pytest.fixture(scope="session")
def opengl():
    """Skips where this machine has no OpenGL."""
    spec = mujoco.MjSpec()
    spec.worldbody.add_camera(name="c", resolution=[8, 8])
    try:
        Gl(spec.compile()).close()
    except RenderRefused as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session", params=RENDERERS)
def kind(request):
    """Each renderer."""
    if request.param == "gl":
        request.getfixturevalue("opengl")
    return request.param


def built(robot="fr3_leap", blocks=(BLOCK, DOT), rig=None):
    """Robot at home with a rig: model, qpos (nq,), cameras by name."""
    model_of, (arm, hand) = load_robot(robot), arm_and_hand(robot)
    spec = scene.scene_spec(blocks, arm=arm, hand=hand)
    rig = load_rig("tabletop", robot) if rig is None else rig
    mount(spec, rig)
    model = spec.compile()
    data = mujoco.MjData(model)
    for joint, q in zip(model_of.joints, model_of.home, strict=True):
        data.joint(joint).qpos = q
    return SimpleNamespace(model=model, qpos=data.qpos.copy(), rig={c.name: c for c in rig})


@pytest.fixture(scope="module")
def table():
    """A scene, with pictures large enough to measure in."""
    rig = [replace(c, width=c.device.intrinsics.width // 2, height=c.device.intrinsics.height // 2)
           for c in load_rig("tabletop", "fr3_leap")]  # fmt: skip
    return built(rig=rig)


@pytest.fixture(scope="module")
def drawn(table, kind):
    cameras = Cameras(table.model, list(table.rig.values()), batch=1, rng=np.random.default_rng(0), kind=kind)
    yield cameras
    cameras.close()


def with_pose(scene_, name, position, quaternion=(1, 0, 0, 0)):
    """Its qpos (1, nq) with a body elsewhere."""
    qpos = scene_.qpos.copy()
    start = scene_.model.joint(f"{name}_free").qposadr[0]
    qpos[start : start + 7] = [*position, *(np.asarray(quaternion) / np.linalg.norm(quaternion))]
    return qpos[None]


def to_world(points, pose):
    turn = np.zeros(9)
    mujoco.mju_quat2Mat(turn, pose[3:])
    return points @ turn.reshape(3, 3).T + pose[:3]


def to_camera(points, pose):
    turn = np.zeros(9)
    mujoco.mju_quat2Mat(turn, pose[3:])
    return (points - pose[:3]) @ turn.reshape(3, 3)


# --- where cameras are


@pytest.mark.parametrize("robot", robot_names())
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


def test_cameras_change_nothing_that_moves(table):
    arm, hand = arm_and_hand("fr3_leap")
    plain = scene.scene_spec((BLOCK, DOT), arm=arm, hand=hand).compile()
    ends = []
    for model in (plain, table.model):
        data = mujoco.MjData(model)
        data.qpos = table.qpos
        mujoco.mj_step(model, data, 40)
        ends.append(data.qpos.copy())
    assert np.array_equal(*ends) and not np.array_equal(ends[0], table.qpos)


# --- pictures


def test_a_known_point_lands_in_its_pixel(table, drawn):
    rng, found = np.random.default_rng(1), 0
    dot = table.model.geom("dot_geom").id
    for _ in range(6):
        place = rng.uniform((0.3, -0.3, 0.02), (0.7, 0.3, 0.4))
        worlds = Worlds(with_pose(table, "dot", place))
        for name, camera in table.rig.items():
            mask = drawn.look(worlds, 0, name).geom == dot
            u, v = camera.intrinsics.project(to_camera(place, drawn.pose(name)))
            inside = 8 < u < camera.width - 8 and 8 < v < camera.height - 8
            if not inside or not mask[round(v), round(u)] or mask.sum() < 20:
                continue
            rows, columns = np.nonzero(mask)
            edges = columns.min(), columns.max(), rows.min(), rows.max()
            if min(edges[1] - edges[0], edges[3] - edges[2]) < 0.8 * max(edges[1] - edges[0], edges[3] - edges[2]):
                continue  # half behind something
            found += 1
            assert abs(columns.mean() - u) < 0.5 and abs(rows.mean() - v) < 0.5, (name, place)
    assert found >= 8


def test_depth_of_the_table_is_the_table(table, drawn, kind):
    for name in ("left", "right", "wrist"):
        image = drawn.look(Worlds(table.qpos[None]), 0, name)
        seen = image.geom == table.model.geom("table").id
        points = to_world(image.depth[..., None] * table.rig[name].intrinsics.rays(), drawn.pose(name))[seen]
        top = points[points[:, 2] > -0.001]
        assert len(top) > 0.2 * seen.size
        assert np.abs(top[:, 2]).max() < EXACT[kind]
        assert np.all(np.abs(top[:, :2] - (0.35, 0)) < (0.651, 0.701))


def test_the_depth_of_a_block_lies_on_its_faces_and_nowhere_else(table, drawn, kind):
    place, quat = np.array([0.5, 0.05, 0.2]), (0.8, 0.3, -0.4, 0.33)
    worlds = Worlds(with_pose(table, "block", place, quat))
    for name in ("left", "right"):
        image = drawn.look(worlds, 0, name)
        seen = image.geom == table.model.geom("block_geom").id
        assert seen.sum() > 300
        points = to_world(image.depth[..., None] * table.rig[name].intrinsics.rays(), drawn.pose(name))[seen]
        local = to_camera(points, np.array([*place, *(np.asarray(quat) / np.linalg.norm(quat))]))
        depth_inside = np.min(np.array(BLOCK.half_size) - np.abs(local), axis=1)
        assert np.abs(depth_inside).max() < EXACT[kind]


def test_a_mask_is_the_object_and_gone_with_it(table, drawn):
    ids = {n: table.model.geom(f"{n}_geom").id for n in ("block", "dot")}
    here = drawn.look(Worlds(with_pose(table, "block", (0.5, -0.1, 0.1))), 0, "left")
    there = drawn.look(Worlds(with_pose(table, "block", (0.5, 0.2, 0.1))), 0, "left")
    gone = drawn.look(Worlds(with_pose(table, "block", (0.5, 0.2, -0.5))), 0, "left")
    assert ids["block"] not in gone.geom and ids["dot"] in gone.geom
    for image in (here, there):
        mask = image.geom == ids["block"]
        red = image.color[mask].astype(int)
        assert mask.sum() > 300 and np.all(red[:, 0] > 2 * red[:, 1])
        changed = ~mask & ~(here.geom == ids["block"]) & ~(there.geom == ids["block"])
        assert np.array_equal(image.geom[changed], gone.geom[changed])
    assert not np.any((here.geom == ids["block"]) & (there.geom == ids["block"]))
    assert set(np.unique(here.geom)) <= set(range(-1, table.model.ngeom))


def test_both_renderers_see_the_same(table, opengl):
    rig, rng = list(table.rig.values()), np.random.default_rng(0)
    gl, rays = (Cameras(table.model, rig, batch=1, rng=rng, kind=k) for k in ("gl", "rays"))
    for name in table.rig:
        a, b = (c.look(Worlds(table.qpos[None]), 0, name) for c in (gl, rays))
        same = a.geom == b.geom
        assert same.mean() > 0.99
        assert np.percentile(np.abs(a.depth - b.depth)[same], 90) < 1e-3  # OpenGL's cylinders have facets
        mean = [c.color[same].reshape(-1, 3).mean(axis=0) for c in (a, b)]
        assert np.abs(mean[0] - mean[1]).max() < 30
    gl.close()


def test_shadows_and_smooth_edges_change_colours_alone(opengl):
    s = built()
    looks = (Gl, partial(Gl, shadows=True), partial(Gl, samples=4))
    cameras = [Cameras(s.model, list(s.rig.values()), batch=1, rng=np.random.default_rng(0), kind=k) for k in looks]
    plain, shaded, smooth = (c.look(Worlds(s.qpos[None]), 0, "left") for c in cameras)
    assert shaded.color.mean() < plain.color.mean() - 0.5  # shadows are dark
    for other in (shaded, smooth):
        assert 0 < np.mean(other.color != plain.color) < 0.5
        assert np.array_equal(other.geom, plain.geom) and np.array_equal(other.depth, plain.depth)
    for c in cameras:
        c.close()


def test_a_world_looks_the_same_in_any_batch_and_fields_change_only_their_world(table, kind):
    g, m = table.model.geom("block_geom").id, table.model
    qpos = np.concatenate([with_pose(table, "block", (0.5, y, 0.1)) for y in (0.0, 0.0, 0.1)])
    color, size = np.repeat(m.geom_rgba[None], 3, axis=0), np.repeat(m.geom_size[None], 3, axis=0)
    color[1, g], size[1, g] = (0, 0, 1, 1), 2 * m.geom_size[g]
    rig = [replace(table.rig["left"], width=320, height=180)]
    narrow = built(rig=rig)
    cameras = Cameras(narrow.model, rig, batch=3, rng=np.random.default_rng(0), kind=kind)
    alone = Cameras(narrow.model, rig, batch=1, rng=np.random.default_rng(0), kind=kind)
    changed = Worlds(qpos, fields={"geom_rgba": color, "geom_size": size})
    images = [cameras.look(changed, w, "left") for w in (0, 1, 2, 0)]
    for w in (0, 2, 3):
        single = alone.look(Worlds(qpos[w % 3][None]), 0, "left")
        assert np.array_equal(images[w].color, single.color) and np.array_equal(images[w].depth, single.depth)
    nominal, blue = images[0].geom == g, images[1].geom == g
    assert blue.sum() > 3 * nominal.sum() and np.all(blue[nominal])
    assert images[1].color[blue][:, 2].min() > images[1].color[blue][:, 0].max()
    cameras.look(changed, 1, "left")
    after = cameras.look(Worlds(qpos), 1, "left")
    assert np.array_equal(after.color, images[0].color)  # fields that are named no more are nominal again
    cameras.close()
    alone.close()


def test_a_camera_that_was_pushed_sees_otherwise_but_does_not_know(table, kind):
    rig = [replace(table.rig["left"], width=160, height=90)]
    s = built(rig=rig)
    cameras = Cameras(s.model, rig, batch=1, rng=np.random.default_rng(0), kind=kind)
    nominal = Worlds(s.qpos[None])
    before, pose = cameras.look(nominal, 0, "left"), cameras.pose("left")
    pushed = s.model.cam_pos.copy()
    pushed[s.model.camera("left").id] += (0.02, 0, 0.01)
    after = cameras.look(Worlds(s.qpos[None], fields={"cam_pos": pushed[None]}), 0, "left")
    assert np.mean(before.depth != after.depth) > 0.5 and np.array_equal(cameras.pose("left"), pose)
    cameras.close()


def test_scenery_that_is_moved_is_seen_where_it_is(kind):
    spec = scene.scene_spec(())
    spec.worldbody.add_body(name="wall", mocap=True).add_geom(
        name="wall_geom", type=mujoco.mjtGeom.mjGEOM_BOX, size=[0.1, 0.1, 0.1]
    )
    rig = load_rig("tabletop", "fr3_leap")[1:2]
    mount(spec, rig)
    model = spec.compile()
    cameras = Cameras(model, rig, batch=1, rng=np.random.default_rng(0), kind=kind)
    for y in (-0.2, 0.2):
        place = np.array([[[0.6, y, 0.1]]])
        image = cameras.look(Worlds(model.qpos0[None], place, np.array([[[1.0, 0, 0, 0]]])), 0, "left")
        rows, columns = np.nonzero(image.geom == model.geom("wall_geom").id)
        u, v = rig[0].intrinsics.project(to_camera(place[0, 0], cameras.pose("left")))
        assert len(rows) > 100 and np.hypot(columns.mean() - u, rows.mean() - v) < 3
    cameras.close()


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


# --- when frames arrive


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


# --- refusals


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


def test_drawing_leaves_child_processes_their_choice_of_opengl(opengl):
    """PyOpenGL's platform is chosen by a variable that children would inherit: EGL here, and OSMesa fails there.

    Where MUJOCO_GL is set, the choice is the user's, and importing mujoco has told PyOpenGL so.
    """
    assert os.environ.get("MUJOCO_GL") or "PYOPENGL_PLATFORM" not in os.environ


NO_GL = """
import mujoco
from palmar.sim.render import RenderRefused, renderer
spec = mujoco.MjSpec()
spec.worldbody.add_camera(name="c", resolution=[8, 8])
try:
    renderer("gl", spec.compile())
except RenderRefused as error:
    print("refused:", error)
"""


def test_without_opengl_the_refusal_says_what_to_do():
    """A machine without EGL drivers; ``rays`` is what the other tests draw with there."""
    nowhere = {"__EGL_VENDOR_LIBRARY_FILENAMES": "/nonexistent", "__EGL_VENDOR_LIBRARY_DIRS": "/nonexistent"}
    done = subprocess.run(
        [sys.executable, "-c", NO_GL], env={**os.environ, **nowhere, "MUJOCO_GL": "egl"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("refused: no OpenGL with MUJOCO_GL=egl") and "'rays'" in done.stdout
