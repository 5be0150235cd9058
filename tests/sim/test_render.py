"""Pictures: points land in their pixels, depth lies on surfaces, masks are objects; by both renderers."""

import os
import subprocess
import sys
from dataclasses import replace
from functools import partial

import mujoco
import numpy as np
import pytest
from camera_scenes import BLOCK, built, to_camera, to_world, with_pose

from palmar.sim import scene
from palmar.sim.cameras import Cameras, Worlds
from palmar.sim.render import RENDERERS, Gl, RenderRefused
from palmar.sim.rig import load_rig, mount

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
