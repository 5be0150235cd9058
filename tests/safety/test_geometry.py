"""Geometry equals MuJoCo's; gradients equal finite differences; training and filter get the same numbers."""

from dataclasses import replace

import mujoco
import numpy as np
import pytest

from palmar.safety.capsules import enclosing_capsule
from palmar.safety.distances import segment_distance
from palmar.safety.geometry import FAR, Kinematics
from palmar.safety.tree import pair_gradient, point_gradient
from palmar.safety.types import ConfigError
from palmar.sim.robots import load_robot


@pytest.fixture(scope="module", params=["small", "fr3_leap"])
def model(request, robot):
    return robot if request.param == "small" else load_robot("fr3_leap")


def placed(robot, q):
    m = mujoco.MjModel.from_xml_string(robot.xml)
    d = mujoco.MjData(m)
    d.qpos[[m.joint(j).qposadr[0] for j in robot.joints]] = q
    mujoco.mj_kinematics(m, d)
    return m, d


def anywhere(robot, n, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(robot.limits.q_min, robot.limits.q_max, (n, robot.n))


def test_distances_and_palm_equal_mujocos(model):
    kin = Kinematics.from_model(model)
    for q in anywhere(model, 20):
        m, d = placed(model, q)
        own, table = kin.clearances(q)
        theirs = [mujoco.mj_geomDistance(m, d, m.geom(a).id, m.geom(b).id, 10.0, None) for a, b in model.pairs]
        plane = [
            mujoco.mj_geomDistance(m, d, m.geom(g).id, m.geom("table").id, 10.0, None)
            for g in model.table_geoms
            if m.geom("table").type[0] == mujoco.mjtGeom.mjGEOM_PLANE
        ]
        np.testing.assert_allclose(own, theirs, atol=1e-9)
        np.testing.assert_allclose(kin.palm(q), d.body(model.palm_body).xpos, atol=1e-12)
        if plane:
            np.testing.assert_allclose(table, plane, atol=1e-9)


def test_lower_bounds_never_exceed_the_distance_and_are_exact_when_near(model):
    kin = Kinematics.from_model(model)
    for q in anywhere(model, 40, seed=1):
        exact, bound = kin.clearances(q)[0], kin.clearances(q, near=0.05)[0]
        assert np.all(bound <= exact + 1e-12)
        assert np.all((np.abs(bound - exact) < 1e-12) | (bound >= 0.05))


def test_gradients_equal_finite_differences(model):
    kin, h = Kinematics.from_model(model), 1e-6
    checked = 0
    for q in anywhere(model, 6, seed=2):
        own, table = kin.rows(q)
        for j in range(model.n):
            step = np.zeros(model.n)
            step[j] = h
            (a, b), (c, d) = kin.clearances(q + step), kin.clearances(q - step)
            smooth = np.abs(a + c - 2 * kin.clearances(q)[0]) < 1e-10  # no kink of the closest points between
            np.testing.assert_allclose(((a - c) / (2 * h))[smooth], own[smooth, j], atol=2e-5)
            np.testing.assert_allclose((b - d) / (2 * h), table[:, j], atol=1e-6)
            checked += smooth.sum()
    assert checked > 0.9 * 6 * model.n * len(model.pairs)


def test_the_gradients_of_the_rows_are_those_of_the_distances(model):
    kin = Kinematics.from_model(model)
    tree, row = kin.tree, np.zeros(model.n)
    for q in anywhere(model, 6, seed=7):
        own, table = kin.rows(q)
        _, _, axis, anchor, ends = kin.place(q)
        for i, (a, b) in enumerate(tree.pairs):
            length, s, t = segment_distance(ends, a, b)
            if length < 1e-6:
                continue  # axes that cross have no direction
            xa, xb = (ends[g, 0] + part * (ends[g, 1] - ends[g, 0]) for g, part in ((a, s), (b, t)))
            pair_gradient(
                tree.above, tree.geom_body[a], tree.geom_body[b], xa, xb, (xb - xa) / length, axis, anchor, row
            )
            np.testing.assert_allclose(row, own[i], atol=1e-12)
        for i, g in enumerate(tree.table):
            low = ends[g, int(ends[g, 1, 2] < ends[g, 0, 2])]
            point_gradient(tree.above, tree.geom_body[g], low, np.array([0.0, 0.0, 1.0]), axis, anchor, row)
            np.testing.assert_allclose(row, table[i], atol=1e-12)


def test_reach_bounds_the_change_of_every_distance(model):
    kin = Kinematics.from_model(model)
    rng = np.random.default_rng(3)
    for q in anywhere(model, 60, seed=3):
        step = rng.normal(size=model.n) * 0.1
        (a, b), (c, d) = kin.clearances(q), kin.clearances(q + step)
        assert np.all(np.abs(a - c) <= np.abs(step) @ kin.tree.pair_reach + 1e-12)
        assert np.all(np.abs(b - d) <= np.abs(step) @ kin.tree.table_reach + 1e-12)
        assert np.linalg.norm(kin.palm(q) - kin.palm(q + step)) <= np.abs(step) @ kin.tree.palm_reach + 1e-12


def test_recorded_poses_give_what_the_filter_computes(model):
    kin = Kinematics.from_model(model)
    q = anywhere(model, 30, seed=4).reshape(5, 6, model.n)
    m, _ = placed(model, model.home)
    x, r = np.zeros((5, 6, m.ngeom, 3)), np.zeros((5, 6, m.ngeom, 9))
    own, low = np.zeros((5, 6)), np.zeros((5, 6))
    for k in np.ndindex(5, 6):
        _, d = placed(model, q[k])
        x[k], r[k] = d.geom_xpos, d.geom_xmat
        pair, table = kin.clearances(q[k])
        own[k], low[k] = min(FAR, pair.min()), table.min()
    batch = kin.batch([m.geom(g).name for g in range(m.ngeom)])
    ours = batch.clearances(x, r)
    np.testing.assert_allclose(ours[0], own, atol=1e-12)
    np.testing.assert_allclose(ours[1], low, atol=1e-12)
    with pytest.raises(ConfigError, match="need"):
        batch.clearances(x[..., :2, :], r)


def test_a_column_that_is_missing_is_named(robot):
    with pytest.raises(ConfigError, match="base_c0"):
        Kinematics.from_model(robot).batch(["l1_c0"])


def brute(ends):
    s = np.linspace(0, 1, 401)
    a = ends[0, 0] + s[:, None] * (ends[0, 1] - ends[0, 0])
    b = ends[1, 0] + s[:, None] * (ends[1, 1] - ends[1, 0])
    return np.linalg.norm(a[:, None] - b[None], axis=-1).min()


@pytest.mark.parametrize("skew", [0.0, 1e-9, 1e-7, 1e-5, 1e-3, 1.0])
def test_parallel_nearly_parallel_and_point_segments(skew):
    rng = np.random.default_rng(5)
    for length in (0.0, 0.1):
        for _ in range(20):
            ends, u = np.zeros((2, 3, 3)), rng.normal(size=3)
            ends[0, 0], ends[1, 0] = rng.normal(size=3) * 0.1, rng.normal(size=3) * 0.1
            ends[0, 1] = ends[0, 0] + length * u
            ends[1, 1] = ends[1, 0] + 0.1 * (rng.choice([-1, 1]) * u + skew * rng.normal(size=3))
            distance = segment_distance(ends, 0, 1)[0]
            assert distance <= brute(ends) + 1e-9
            assert distance >= brute(ends) - 2e-3


PALM = '<geom name="palm_c0" type="capsule" size=".03" fromto="0 -.03 .02 0 .03 .02"'
SHAPES = {
    "box": 'type="box" size=".02 .05 .03" euler=".3 .2 .1" pos="0 .01 .02"',
    "cylinder": 'type="cylinder" size=".03 .05" euler=".3 .2 .1"',
    "ellipsoid": 'type="ellipsoid" size=".02 .03 .06" euler=".3 .2 .1"',
    "mesh": 'type="mesh" mesh="wedge" euler=".3 .2 .1"',
}
WEDGE = '<asset><mesh name="wedge" vertex="0 0 0 .1 0 0 0 .04 0 0 0 .03 .08 .03 .02"/></asset><worldbody>'


def shaped(robot, shape):
    """The small arm with another palm."""
    xml = robot.xml.replace("<worldbody>", WEDGE, 1).replace(PALM, f'<geom name="palm_c0" {SHAPES.get(shape, shape)}')
    return type(robot)(**{**robot.__dict__, "xml": xml})


@pytest.mark.parametrize("shape", SHAPES)
def test_a_capsule_contains_any_other_shape_so_no_distance_is_too_large(robot, shape):
    odd = shaped(robot, shape)
    kin = Kinematics.from_model(odd)
    assert not kin.plain
    touched = [i for i, pair in enumerate(odd.pairs) if "palm_c0" in pair]
    low, nearest = odd.table_geoms.index("palm_c0"), np.inf
    for q in anywhere(odd, 60, seed=6):
        m, d = placed(odd, q)
        own, table = kin.clearances(q)
        for i in touched:
            a, b = (m.geom(g).id for g in odd.pairs[i])
            theirs = mujoco.mj_geomDistance(m, d, a, b, 10.0, None)
            assert own[i] <= theirs + 1e-6 or theirs <= 0
            nearest = min(nearest, theirs - own[i]) if theirs > 0 else nearest
        theirs = mujoco.mj_geomDistance(m, d, m.geom("palm_c0").id, m.geom("table").id, 10.0, None)
        assert table[low] <= theirs + 1e-6
    assert nearest < 0.02, "the capsule is no larger than it need be"


def test_recorded_poses_of_other_shapes_are_refused(robot):
    with pytest.raises(ConfigError, match="capsules and spheres only"):
        Kinematics.from_model(shaped(robot, "box")).batch([])


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('<joint name="j3" axis="0 1 0"', '<joint name="j3" type="slide" axis="0 1 0"', "hinges"),
        ('<joint name="j3"', '<joint name="more" axis="1 0 0" range="-1 1"/><joint name="j3"', "hinges|one joint"),
    ],
)
def test_joints_that_are_no_hinges_of_their_own_body_are_refused(robot, old, new, said):
    assert robot.xml.count(old) == 1
    with pytest.raises(ConfigError, match=said):
        Kinematics.from_model(replace(robot, xml=robot.xml.replace(old, new)))


def test_two_joints_of_one_body_are_refused(robot):
    second = '<joint name="j2" axis="0 1 0" range="-1.7 1.7"/>'
    assert robot.xml.count(second) == 1
    xml = robot.xml.replace(second, "").replace('<joint name="j1"', second + '<joint name="j1"')
    with pytest.raises(ConfigError, match="accepted is one"):
        Kinematics.from_model(replace(robot, xml=xml))


def test_a_geom_of_the_world_is_no_link(robot):
    bad = type(robot)(**{**robot.__dict__, "table_geoms": ("table",)})
    with pytest.raises(ConfigError, match="not to the world"):
        Kinematics.from_model(bad)


def test_a_shape_that_no_capsule_contains_is_refused_by_name(robot):
    m, _ = placed(robot, robot.home)
    with pytest.raises(ConfigError, match="table.*PLANE"):
        enclosing_capsule(m, m.geom("table").id)
