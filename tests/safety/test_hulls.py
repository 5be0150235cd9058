"""The distance of convex hulls, and that the shipped skins and hulls enclose what they were made of."""

from importlib.resources import files
from pathlib import Path

import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import ConvexHull

from palmar.safety.geometry import Kinematics
from palmar.safety.hulls import CLOSE, Detail, hull_distance, load_detail
from palmar.safety.types import ConfigError
from palmar.sim import menagerie
from palmar.sim.robots import load_robot, robot_names

REFERENCE = Path(__file__).resolve().parents[2].parent / "shared" / "assets"
needs_reference = pytest.mark.skipif(not REFERENCE.is_dir(), reason="reference models are not in the repository")


def rotation(rng):
    q = rng.normal(size=4)
    out = np.zeros(9)
    mujoco.mju_quat2Mat(out, q / np.linalg.norm(q))
    return out.reshape(3, 3)


def distance(one, two, turn, shift, near=1.0):
    points, n = np.concatenate([one, two]), len(one)
    xa, xb = np.zeros(3), np.zeros(3)
    d = hull_distance(points, 0, n, n, len(points), turn, shift, near, np.zeros((12, 4)), xa, xb)
    return d, xa, xb


def by_mujoco(one, two, turn, shift):
    """MuJoCo's own distance of the two hulls."""
    spec = mujoco.MjSpec()
    for k, points in enumerate((one, two)):
        mesh = spec.add_mesh(name=f"m{k}")
        mesh.uservert = points.ravel().tolist()
        body = spec.worldbody.add_body(name=f"b{k}")
        body.add_freejoint()
        body.add_geom(name=f"g{k}", type=mujoco.mjtGeom.mjGEOM_MESH, meshname=f"m{k}")
    model = spec.compile()
    data = mujoco.MjData(model)
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, turn.ravel())
    data.qpos[:] = [0, 0, 0, 1, 0, 0, 0, *shift, *quat]
    mujoco.mj_kinematics(model, data)
    return mujoco.mj_geomDistance(model, data, 0, 1, 1.0, None)


@settings(max_examples=60)
@given(st.integers(0, 10**6))
def test_the_distance_of_hulls_is_mujocos_and_its_closest_points_are_that_far_apart(seed):
    rng = np.random.default_rng(seed)
    one, two = (rng.uniform(-1, 1, (rng.integers(4, 30), 3)) * [0.02, 0.01, 0.03] for _ in range(2))
    turn, shift = rotation(rng), rng.normal(size=3) * 0.04
    d, xa, xb = distance(one, two, turn, shift)
    expected = by_mujoco(one, two, turn, shift)
    if expected > 1e-6:
        assert d == pytest.approx(expected, abs=1e-6)
        assert np.linalg.norm(xa - xb) == pytest.approx(d, abs=1e-9)
    else:
        assert d < 1e-6


@settings(max_examples=60)
@given(st.integers(0, 10**6))
def test_beyond_near_it_is_a_lower_bound_that_reaches_near(seed):
    rng = np.random.default_rng(seed)
    one, two = (rng.uniform(-0.02, 0.02, (8, 3)) for _ in range(2))
    turn, shift = rotation(rng), rng.normal(size=3) * 0.1
    exact = distance(one, two, turn, shift)[0]
    for near in (0.001, 0.02, 0.05):
        d = distance(one, two, turn, shift, near)[0]
        assert d <= exact + 1e-9
        assert d >= min(near, exact) - 1e-9


def test_boxes_face_to_face_and_corner_to_corner():
    box = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * 0.01
    assert distance(box, box, np.eye(3), np.array([0.025, 0.003, 0.0]))[0] == pytest.approx(0.005)
    assert distance(box, box, np.eye(3), np.array([0.023, 0.023, 0.023]))[0] == pytest.approx(0.003 * 3**0.5)
    assert distance(box, box, np.eye(3), np.array([0.019, 0.0, 0.0]))[0] == 0.0


def detail_of(name) -> Detail:
    return load_detail(Path(str(files("palmar.configs"))) / "filter" / f"{name}.yaml")


@pytest.mark.parametrize("name", robot_names())
def test_every_robot_has_a_detail_file_that_names_its_geoms_and_bodies(name):
    robot, detail = load_robot(name), detail_of(name)
    detail.check(robot)
    model = mujoco.MjModel.from_xml_string(robot.xml)
    bodies = {model.body(b).name for b in range(model.nbody)}
    assert set(detail.hulls) <= bodies
    geoms = {g for pair in robot.pairs for g in pair} | set(robot.table_geoms)
    assert geoms <= set(detail.skin)


def apart(robot, detail, pair, data):
    """Distance of the hulls of two bodies, by MuJoCo's poses [m]."""
    one, two = (robot.body(robot.geom(g).bodyid[0]).name for g in pair)
    a, b = (data.body(x).xmat.reshape(3, 3) for x in (one, two))
    shift = a.T @ (data.body(two).xpos - data.body(one).xpos)
    return distance(detail.hulls[one], detail.hulls[two], np.ascontiguousarray(a.T @ b), shift)[0]


def test_near_hulls_have_their_own_distance_or_the_capsules_and_its_gradient():
    robot, detail, rng = load_robot("fr3_leap"), detail_of("fr3_leap"), np.random.default_rng(0)
    kin, plain, h, met, smooth = Kinematics.from_model(robot, detail), Kinematics.from_model(robot), 1e-6, 0, 0
    model, hulls = mujoco.MjModel.from_xml_string(robot.xml), kin.tree.hull[:, 0] >= 0
    data = mujoco.MjData(model)
    for _ in range(200):
        q = rng.uniform(robot.limits.q_min, robot.limits.q_max)
        own, bare = kin.clearances(q)[0], plain.clearances(q)[0]
        near = np.flatnonzero(hulls & (own > 5e-4) & (own < 0.9 * CLOSE) & (own < bare - 1e-6))
        data.qpos[[model.joint(j).qposadr[0] for j in robot.joints]] = q
        mujoco.mj_kinematics(model, data)
        met += len(near)
        np.testing.assert_allclose(own[near], [apart(model, detail, robot.pairs[i], data) for i in near], atol=1e-6)
        gradients = kin.rows(q)[0]
        for j in range(robot.n if len(near) else 0):
            step = h * np.eye(robot.n)[j]
            up, down = kin.clearances(q + step)[0], kin.clearances(q - step)[0]
            for i in near:
                if abs(up[i] + down[i] - 2 * own[i]) < 1e-9:  # no kink between
                    assert (up[i] - down[i]) / (2 * h) == pytest.approx(gradients[i, j], abs=2e-3)
                    smooth += 1
    assert met > 10 and smooth > 5 * robot.n, (met, smooth)


@needs_reference
def test_the_hulls_of_the_leap_enclose_its_detailed_links():
    model = menagerie.reference_robot_spec(REFERENCE).compile()
    for body, corners in detail_of("fr3_leap").hulls.items():
        planes = ConvexHull(corners).equations
        points = corners_of(model, model.body(body).id)
        assert (planes[:, :3] @ points.T + planes[:, 3:]).max() < 6e-5, body  # rounded to 0.1 mm


@needs_reference
@pytest.mark.parametrize("name", ["fr3_leap"])
def test_capsules_with_their_skins_enclose_the_detailed_links(name):
    own, other = (
        mujoco.MjModel.from_xml_string(load_robot(name).xml),
        menagerie.reference_robot_spec(REFERENCE).compile(),
    )
    detail, rng = detail_of(name), np.random.default_rng(1)  # another seed than the file was made with
    for body in {own.body(own.geom(g).bodyid[0]).name for g in detail.skin}:
        for points in pieces_of(other, other.body(body).id):
            faces = points[ConvexHull(points).simplices]
            mixed = np.einsum("nk,nkd->nd", rng.dirichlet(np.ones(3), 500), faces[rng.integers(len(faces), size=500)])
            assert covered(own, body, detail, np.concatenate([points, mixed])).max() <= 0.0, body


def corners_of(model, body):
    """Corners of all colliding boxes and meshes of a body, in its frame [m]."""
    return np.concatenate(pieces_of(model, body))


def pieces_of(model, body):
    """Corners of each colliding box and mesh of a body, in its frame [m]."""
    out = []
    for g in range(model.ngeom):
        if model.geom_bodyid[g] != body or not (model.geom_contype[g] or model.geom_conaffinity[g]):
            continue
        if model.geom_type[g] == mujoco.mjtGeom.mjGEOM_MESH:
            start = model.mesh_vertadr[model.geom_dataid[g]]
            points = model.mesh_vert[start : start + model.mesh_vertnum[model.geom_dataid[g]]]
        else:
            points = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * model.geom_size[g]
        turn = np.zeros(9)
        mujoco.mju_quat2Mat(turn, model.geom_quat[g])
        out.append(points @ turn.reshape(3, 3).T + model.geom_pos[g])
    return out


def covered(model, body, detail, points):
    """How far points lie outside the capsules of a body with their skins [m]; negative inside."""
    best = np.full(len(points), np.inf)
    for g in range(model.ngeom):
        if model.body(model.geom_bodyid[g]).name != body or model.geom_group[g] != 3:
            continue
        axis = np.zeros(3)
        mujoco.mju_rotVecQuat(axis, np.array([0, 0, model.geom_size[g, 1]]), model.geom_quat[g])
        centre, radius = model.geom_pos[g], model.geom_size[g, 0] + detail.skin[model.geom(g).name]
        along = np.clip((points - centre) @ axis / max(axis @ axis, 1e-12), -1, 1)
        best = np.minimum(best, np.linalg.norm(points - centre - along[:, None] * axis, axis=1) - radius)
    return best


def test_impossible_details_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="skin of palm"):
        Detail({"palm": 0.5})
    for corners in (np.zeros((3, 3)), np.zeros((4, 2)), np.zeros(12), np.diag([1.0, 2.0, np.nan, 3.0])[:, 1:]):
        with pytest.raises(ConfigError, match="hull of palm"):
            Detail({}, {"palm": corners})
    assert Detail({}, {"palm": np.eye(4)[:, :3]}).hulls["palm"].shape == (4, 3)  # a tetrahedron
    path = tmp_path / "x.yaml"
    path.write_text("skins: {}")
    with pytest.raises(ConfigError, match="accepted keys"):
        load_detail(path)
    with pytest.raises(ConfigError, match="skins of"):
        Detail({"nose": 0.001}).check(load_robot())
