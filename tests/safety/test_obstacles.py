"""Distances to boxes, people and objects are exact and their gradients right; cells come from constraint files."""

import mujoco
import numpy as np
import pytest
from cells import boxed, clearance, someone

from palmar.safety import obstacles as cell
from palmar.safety import sight
from palmar.safety.constraints import parse
from palmar.safety.geometry import FAR, Kinematics
from palmar.safety.solids import from_segment, solid
from palmar.safety.types import CommandRefused, ConfigError, People


def body_of(o, k):
    return solid(o.centre, o.frame, o.half, o.radius, k)


def sdf(p, half):
    """Signed distance of points p (..., 3) to a box about the origin, by the textbook."""
    d = np.abs(p) - half
    return np.where(np.any(d > 0, axis=-1), np.linalg.norm(np.maximum(d, 0), axis=-1), d.max(axis=-1))


def brute(a, b, o, k):
    """Smallest signed distance along the segment, by a search that halves its grid."""
    lo, hi, body = 0.0, 1.0, body_of(o, k)
    for _ in range(6):
        s = np.linspace(lo, hi, 101)
        d = sdf((a + s[:, None] * (b - a) - o.centre[k]) @ o.frame[k].T, o.half[k]) - body[15]
        i = d.argmin()
        lo, hi = s[max(0, i - 1)], s[min(100, i + 1)]
    return d.min()


def segments(rng, o, n):
    """Random, short, point-like and axis-parallel segments around the first obstacle."""
    for i in range(n):
        a = o.centre[0] + rng.normal(size=3) * 0.3
        along = o.frame[0, rng.integers(3)] if i % 4 == 0 else rng.normal(size=3)
        yield a, a + along * rng.choice([0.0, 1e-6, 0.05, 0.4])


def test_distance_to_a_box_equals_a_search_inside_and_outside():
    rng, inside = np.random.default_rng(0), 0
    for _ in range(60):
        o = boxed(rng)
        for a, b in segments(rng, o, 20):
            d, s, _ = from_segment(tuple(a), tuple(b), body_of(o, 0))
            assert d == pytest.approx(brute(a, b, o, 0), abs=1e-9)
            assert d == pytest.approx(sdf((a + s * (b - a) - o.centre[0]) @ o.frame[0].T, o.half[0]), abs=1e-9)
            inside += d < 0
    assert inside > 50


def test_distance_to_a_capsule_equals_a_search():
    rng = np.random.default_rng(1)
    for _ in range(60):
        ends = rng.normal(size=(1, 2, 3)) * 0.3
        o = cell.with_people(cell.nothing(), someone(ends, [0.1]))
        for a, b in segments(rng, o, 10):
            s, t = np.linspace(0, 1, 201)[:, None, None], np.linspace(0, 1, 201)[None, :, None]
            apart = a + s * (b - a) - (ends[0, 0] + t * (ends[0, 1] - ends[0, 0]))
            theirs = np.linalg.norm(apart, axis=-1).min() - 0.1
            d = from_segment(tuple(a), tuple(b), body_of(o, 0))[0]
            assert theirs - 6e-3 <= d <= theirs + 1e-9


def test_gradient_by_a_shift_equals_finite_differences_inside_and_outside():
    rng, h, kinks = np.random.default_rng(2), 1e-7, 0
    for _ in range(100):
        o = boxed(rng)
        for a, b in segments(rng, o, 4):
            d, _, n = from_segment(tuple(a), tuple(b), body_of(o, 0))
            ways = np.array(
                [
                    [from_segment(tuple(a + e), tuple(b + e), body_of(o, 0))[0] for e in (h * x, -h * x)]
                    for x in np.eye(3)
                ]
            )
            smooth = np.abs(ways.sum(axis=1) - 2 * d) < 1e-10
            np.testing.assert_allclose(((ways[:, 0] - ways[:, 1]) / (2 * h))[smooth], np.array(n)[smooth], atol=1e-5)
            kinks += not smooth.all()
    assert kinks < 40


def test_distances_of_the_robot_to_boxes_equal_mujocos(robot):
    rng, compared = np.random.default_rng(3), 0
    kin = Kinematics.from_model(robot)
    for _ in range(20):
        o = boxed(rng, n=3, at=0.6)
        spec = mujoco.MjSpec.from_string(robot.xml)
        for k in range(3):
            body = spec.worldbody.add_body(name=f"box{k}", pos=o.centre[k])
            quat = np.zeros(4)
            mujoco.mju_mat2Quat(quat, o.frame[k].T.reshape(9))
            body.quat = quat
            body.add_geom(name=f"box{k}", type=mujoco.mjtGeom.mjGEOM_BOX, size=o.half[k])
        m = spec.compile()
        d = mujoco.MjData(m)
        q = rng.uniform(robot.limits.q_min, robot.limits.q_max)
        d.qpos[[m.joint(j).qposadr[0] for j in robot.joints]] = q
        mujoco.mj_kinematics(m, d)
        ends = kin.place(q)[4]
        for k in range(3):
            for g, name in enumerate(kin.geoms):
                ours = cell.obstacle_gap(kin.tree, ends, g, o, k, np.inf)
                theirs = mujoco.mj_geomDistance(m, d, m.geom(name).id, m.geom(f"box{k}").id, 10.0, None)
                assert cell.obstacle_gap(kin.tree, ends, g, o, k, -1.0) <= ours + 1e-12
                if theirs > 1e-4:
                    assert ours == pytest.approx(theirs, abs=1e-5)
                    compared += 1
                else:
                    assert ours < 1e-3
    assert compared > 200


def test_rows_of_all_kinds_equal_finite_differences(robot):
    rng, h, checked = np.random.default_rng(4), 1e-6, 0
    kin = Kinematics.from_model(robot)
    row, t = np.zeros(robot.n), np.zeros((3, 3))
    for _ in range(4):
        o = cell.with_people(boxed(rng, n=2, at=0.6), someone(rng.normal(size=(2, 2, 3)) * 0.5, [0.1, 0.05]))
        o = cell.with_objects(o, rng.normal(size=(1, 3)) * 0.5, 0.03)
        q = rng.uniform(robot.limits.q_min, robot.limits.q_max)
        for k in range(o.count):
            for g in range(len(kin.geoms)):
                _, _, axis, anchor, ends = kin.place(q)
                d = cell.obstacle_row(kin.tree, g, o, k, ends, axis, anchor, row, t)
                for j in range(robot.n):
                    step = np.zeros(robot.n)
                    step[j] = h
                    up, down = (
                        cell.obstacle_gap(kin.tree, kin.place(q + x)[4], g, o, k, np.inf) for x in (step, -step)
                    )
                    if abs(up + down - 2 * d) < 1e-10:
                        assert (up - down) / (2 * h) == pytest.approx(row[j], abs=2e-5)
                        checked += 1
    assert checked > 0.9 * 4 * 5 * len(kin.geoms) * robot.n


def test_one_look_gives_what_the_distances_give_and_speeds_that_are_their_change(robot):
    rng, h = np.random.default_rng(7), 1e-6
    kin, some = Kinematics.from_model(robot), 0
    s, out = sight.sight_of(kin.tree), sight.answer_of()
    for _ in range(40):
        q, v = rng.uniform(robot.limits.q_min, robot.limits.q_max), rng.normal(size=robot.n)
        o = cell.with_people(boxed(rng, n=2), someone(rng.normal(size=(2, 2, 3)), [0.1, 0.05]))
        o = cell.with_objects(o, kin.palm(q) + rng.normal(size=(2, 3)) * 0.08, 0.02)
        sight.measure_space(kin.tree, o, q, v, s, out)
        pair, table = kin.clearances(q)
        assert out[sight.OWN] == pytest.approx(min(FAR, pair.min()))
        assert out[sight.TABLE] == pytest.approx(table.min())
        np.testing.assert_allclose(out[sight.PALM : sight.PALM + 3], kin.palm(q))
        assert out[sight.NEAREST_PERSON] == pytest.approx(max(0.0, clearance(kin, o, q, cell.PERSON)))
        gap = lambda x, g, k: cell.obstacle_gap(kin.tree, kin.place(x)[4], g, o, k, np.inf)  # noqa: B023, E731
        for k in range(2):
            assert out[sight.REGIONS + k] == pytest.approx(min(gap(q, g, k) for g in kin.tree.moving))
        rate = lambda g, k: -(gap(q + h * v, g, k) - gap(q - h * v, g, k)) / (2 * h)  # noqa: B023, E731
        nearer = max(0.0, max(rate(g, k) for g in kin.tree.moving for k in (2, 3)))
        assert out[sight.TOWARDS_PERSON] == pytest.approx(nearer, abs=1e-4)
        hand = np.flatnonzero(kin.tree.hand)
        close = [rate(g, k) for g in hand for k in (4, 5) if gap(q, g, k) < sight.CONTACT_NEAR]
        low = lambda x, g: kin.place(x)[4][g, :2, 2].min() - kin.tree.radius[g]  # noqa: E731
        fall = lambda g: -(low(q + h * v, g) - low(q - h * v, g)) / (2 * h)  # noqa: B023, E731
        close += [fall(g) for g in hand if low(q, g) < sight.CONTACT_NEAR]
        assert out[sight.TOWARDS_CONTACT] == pytest.approx(max([0.0, *close]), abs=1e-4)
        some += bool(close)
    assert some > 10


ROW = "{{margin: keep_out, params: {{region: {}, lower: {}, upper: [1, 1, 1], limit: 0.01}}, signal: state, {}}}"
REST = "source: measured, error: 0.002, memory: none, runtime: {}, budget: 0.0, unit: s"


def file(robot, *rows):
    lines = [f"  r{k}: {ROW.format(region, lower, REST.format(use))}" for k, (region, lower, use) in enumerate(rows)]
    return parse("name: a\nversion: 1\nconstraints:\n" + "\n".join(lines), robot.limits)


def test_regions_come_from_the_constraint_file_in_their_order(robot):
    o = cell.keep_outs(file(robot, (1, [0, 0, 0], "hard row"), (0, [-1, 0, 0], "monitor")), 1e-3)
    assert (o.count, o.fixed, o.people) == (2, 2, 0)
    np.testing.assert_allclose(o.centre[:2], [[0, 0.5, 0.5], [0.5, 0.5, 0.5]])
    np.testing.assert_allclose(o.half[:2], [[1, 0.5, 0.5], [0.5, 0.5, 0.5]])
    assert o.limit[0] == -np.inf, "a monitor is measured only"
    assert o.limit[1] == pytest.approx(0.013)


def test_how_near_people_may_come_is_that_of_the_hard_rows(robot):
    params = "{{human: {}, reaction: {}, brake: 2.5, intrusion: {}, creep: 0.02}}"
    row = f"{{{{margin: speed_separation, params: {params}, signal: state, error: {{}}, source: estimated, "
    row += "memory: none, runtime: {}, budget: 0.0, unit: s}}"
    rows = [(1.6, 0.06, 0.05, 0.02, "hard row"), (1.2, 0.09, 0.04, 0.05, "hard row"), (3.0, 0.5, 0.5, 0.5, "monitor")]
    lines = "\n".join(f"  p{k}: " + row.format(*values) for k, values in enumerate(rows))
    o = cell.keep_outs(parse("name: a\nversion: 1\nconstraints:\n" + lines, robot.limits), 0.001)
    assert (o.human, o.reaction, o.intrusion) == (1.6, 0.09, pytest.approx(0.091))
    o = cell.keep_outs(file(robot, (0, [0, 0, 0], "hard row")), 0.001)
    assert (o.human, o.reaction, o.intrusion) == (0.0, 0.0, 0.001)


def test_recorded_poses_are_as_far_from_regions_as_joint_positions(robot):
    rng, kin = np.random.default_rng(8), Kinematics.from_model(robot)
    o, q = boxed(rng, n=4, at=0.6), rng.uniform(robot.limits.q_min, robot.limits.q_max, (3, 20, robot.n))
    data = mujoco.MjData(kin.model)
    x, r = np.zeros((3, 20, kin.model.ngeom, 3)), np.zeros((3, 20, kin.model.ngeom, 9))
    for k in np.ndindex(3, 20):
        data.qpos[kin.qpos] = q[k]
        mujoco.mj_kinematics(kin.model, data)
        x[k], r[k] = data.geom_xpos, data.geom_xmat
    batch = kin.batch([kin.model.geom(g).name for g in range(kin.model.ngeom)])
    np.testing.assert_allclose(
        sight.pose_regions(batch, o, x, r), sight.joint_regions(kin, o, q), rtol=1e-12, atol=1e-12
    )
    for bad in ((x[..., :2, :], r), (x, r[:2]), (x, r[..., :3])):
        with pytest.raises(ConfigError, match="need"):
            sight.pose_regions(batch, o, *bad)


@pytest.mark.parametrize("regions", [(1,), (0, 0), (0, 2)])
def test_regions_that_are_not_numbered_from_zero_are_refused(robot, regions):
    with pytest.raises(ConfigError, match="keep-out regions are numbered"):
        cell.keep_outs(file(robot, *((r, [0, 0, 0], "hard row") for r in regions)), 0.0)


def test_an_empty_region_is_refused_by_name(robot):
    with pytest.raises(ConfigError, match="r0.*lower < upper"):
        cell.keep_outs(file(robot, (0, [2, 0, 0], "hard row")), 0.0)


def test_people_and_objects_come_and_go_in_the_same_arrays(robot):
    o = cell.keep_outs(file(robot, (0, [0, 0, 0], "hard row")), 0.0)
    two = cell.with_people(o, someone(np.zeros((2, 2, 3)), [0.1, 0.2]))
    full = cell.with_objects(two, np.ones((3, 3)), 0.03)
    assert (full.count, full.people, list(full.kind[:6])) == (6, 2, [0, 1, 1, 2, 2, 2])
    assert full.centre is o.centre
    assert cell.with_people(full, someone(np.zeros((0, 2, 3)), [])).count == 1
    again = cell.with_people(two, someone(np.ones((2, 2, 3)), [0.1, 0.2]))
    assert again is two, "the same number of people makes no new tuple"


@pytest.mark.parametrize(
    ("ends", "radius", "message"),
    [
        (np.zeros((2, 2, 3)), [0.1], "need"),
        (np.zeros((99, 2, 3)), np.zeros(99), "h <= 16"),
        (np.full((1, 2, 3), np.nan), [0.1], "finite"),
        (np.zeros((1, 2, 3)), [-0.1], "finite"),
        (np.zeros((1, 2, 3)), [np.inf], "finite"),
    ],
)
def test_people_that_make_no_sense_are_refused(ends, radius, message):
    with pytest.raises(CommandRefused, match=message):
        cell.with_people(cell.nothing(), People(ends, np.asarray(radius, float), np.zeros((len(radius), 3)), 0.0))


def test_objects_that_make_no_sense_are_refused():
    with pytest.raises(CommandRefused, match="finite"):
        cell.with_objects(cell.nothing(), np.full((1, 3), np.nan), 0.03)
    with pytest.raises(CommandRefused, match="m <= 16"):
        cell.with_objects(cell.nothing(), np.zeros((17, 3)), 0.03)
