"""The stop law arrives exactly and within limits; the speed bound is invariant; the proof of a stop holds."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palmar.safety import stop
from palmar.safety.bounds import Space, bounds_of, box, speed_bound
from palmar.safety.geometry import Kinematics
from palmar.safety.hulls import CLOSE, load_detail
from palmar.safety.live import SAMPLES, work_of
from palmar.safety.obstacles import nothing
from palmar.safety.verify import _smooth, verify_stop
from palmar.sim.robots import load_robot

DT = 0.001
JOINTS = [(9.999, 4999.0), (100.0, 20000.0), (7.0, 900.0)]


def follow(v, a, a_max, j_max):
    """Positions, speeds and accelerations of the stop law, by plain numpy."""
    rows = [(0.0, v, a)]
    while not (abs(v) < 1e-12 and abs(a) < 1e-9):
        x = stop.stop_joint(v, a, a_max, j_max, DT)
        q = rows[-1][0] + DT * v + 0.5 * DT * DT * x
        v, a = v + DT * x, x
        rows.append((q, v, a))
        assert len(rows) < 4000, "does not come to rest"
    return np.array(rows)


@settings(max_examples=300)
@given(st.sampled_from(JOINTS), st.floats(-6, 6), st.floats(-1, 1), st.sampled_from([1.0, 1e-2, 1e-4]))
def test_the_stop_law_comes_to_rest_within_limits_and_does_not_chatter(joint, v, part, scale):
    a_max, j_max = joint
    path = follow(v * scale, part * a_max, a_max, j_max)
    assert np.abs(path[1:, 2]).max(initial=0.0) <= a_max * (1 + 1e-12)
    assert np.abs(np.diff(path[:, 2])).max(initial=0.0) <= j_max * DT * (1 + 1e-9)
    signs = np.sign(path[np.abs(path[:, 1]) > 1e-12, 1])
    assert np.count_nonzero(np.diff(signs)) <= 1
    ideal = abs(v * scale) / a_max / DT
    assert len(path) <= ideal + 4 * a_max / j_max / DT + 6


@pytest.mark.parametrize(("a_max", "j_max"), JOINTS[:2])
def test_from_the_speed_bound_the_stop_ends_inside_and_uses_most_of_the_room(a_max, j_max):
    for room in np.geomspace(1e-5, 2, 200):
        path = follow(speed_bound(room, a_max, j_max, DT), 0.0, a_max, j_max)
        assert path[:, 0].max() <= room
        if room > 0.2:
            assert path[:, 0].max() >= 0.8 * room


@pytest.mark.parametrize("i", range(8))
@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_pushing_a_joint_to_its_end_with_the_box_alone_never_leaves_it(robot, i, side):
    """The bound is invariant also where the published curve is not (joint 2 of the small arm asks for 17)."""
    b = bounds_of(robot.limits, 0.0)
    limits, n = robot.limits, robot.n
    q, v, a = robot.home.copy(), np.zeros(n), np.zeros(n)
    low, high = np.zeros(n), np.zeros(n)
    fastest = 0.0
    for k in range(4000):
        box(q, v, a, b, DT, low, high)
        x = np.zeros(n)
        x[i] = (high if side > 0 else low)[i] if k % 7 else (low if side > 0 else high)[i]
        assert abs(x[i] - a[i]) <= limits.j_max[i] * DT
        assert abs(x[i]) <= limits.a_max[i]
        q, v, a = q + DT * v + 0.5 * DT * DT * x, v + DT * x, x
        fastest = max(fastest, abs(v[i]))
        assert limits.q_min[i] <= q[i] <= limits.q_max[i]
        room = limits.curve_q_up[i] - q[i] if v[i] > 0 else q[i] - limits.curve_q_low[i]
        curve = np.sqrt(limits.curve_two_a[i] * room) - limits.curve_offset[i] if i < 4 else np.inf
        assert abs(v[i]) <= max(min(limits.v_max[i], curve), 1e-9)
    end = limits.q_max[i] if side > 0 else limits.q_min[i]
    # The published curve ends at zero speed some hundredths before the end.
    assert abs(q[i] - end) < 0.05
    assert fastest > 0.8


def test_where_the_ends_contradict_each_other_the_box_is_the_answer_of_the_stop_law(robot):
    rng, low, high, x = np.random.default_rng(4), np.zeros(robot.n), np.zeros(robot.n), np.zeros(robot.n)
    for _ in range(50):
        q = rng.uniform(robot.limits.q_min, robot.limits.q_max)
        v, a = (rng.uniform(-1, 1, robot.n) * most for most in (robot.limits.v_max, robot.limits.a_max))
        b = bounds_of(robot.limits, 0.0)._replace(low=q + 0.5, high=q - 0.5)
        box(q, v, a, b, DT, low, high)
        stop.stop_law(v, a, b, DT, x)
        np.testing.assert_array_equal(low, x)
        np.testing.assert_array_equal(high, x)


def test_the_published_curve_alone_would_overrun_the_end(robot):
    """Shows that the test above tests something: clamp to the curve first and to 10 rad/s2 after it."""
    limits, i = robot.limits, 2
    q, v, worst = 0.0, 0.0, 0.0
    for _ in range(3000):
        curve = max(0.0, np.sqrt(limits.curve_two_a[i] * max(0.0, limits.curve_q_up[i] - q)) - limits.curve_offset[i])
        x = np.clip((min(limits.v_max[i], curve) - v) / DT, -limits.a_max[i], limits.a_max[i])
        q, v = q + DT * v + 0.5 * DT * DT * x, v + DT * x
        worst = max(worst, q - limits.q_max[i])
    assert worst > 0.1


def test_the_path_of_a_stop_is_the_law_tick_by_tick_and_so_are_its_failures(robot):
    """Runs of full deceleration and the last ramp are followed at once; nothing may be lost by that."""
    b, n, rng = bounds_of(robot.limits, 0.0), robot.n, np.random.default_rng(2)
    path, turn = np.zeros((n, stop.LONGEST + 2)), np.zeros(n, dtype=np.int64)
    seen = {stop.OK: 0, stop.POSITION: 0, stop.VELOCITY: 0}
    for _ in range(400):
        i, side = rng.integers(n), rng.choice([-1.0, 1.0])
        q, v, a = robot.home.copy(), np.zeros(n), np.zeros(n)
        q[i] = rng.uniform(robot.limits.q_min[i], robot.limits.q_max[i])
        end = b.up[i] - q[i] if side > 0 else q[i] - b.down[i]
        # About as fast as the curve allows there, where it is steep as where it is not.
        edge = np.sqrt(b.two_a[i] * max(0.0, end)) - b.offset[i] if b.two_a[i] < np.inf else b.v[i]
        v[i] = side * max(0.0, min(edge, b.v[i])) * rng.uniform(0.9, 1.01)
        a[i] = rng.uniform(-1, 1) * b.a[i]
        last, code = stop.stop_path(q, v, a, b, DT, path, turn)
        rows = follow(v[i], a[i], b.a[i], b.j[i])
        x = q[i] + rows[:, 0]
        out = (x < b.low[i]) | (x > b.high[i])
        room = np.where(rows[:, 1] > 0, b.up[i] - x, x - b.down[i])
        slow = (rows[:, 1] == 0) | ((np.abs(rows[:, 1]) + b.offset[i]) ** 2 <= np.minimum(b.two_a[i], 1e9) * room)
        fast = (np.abs(rows[:, 1]) > b.v[i]) | (~slow if b.two_a[i] < np.inf else False)
        assert (code == stop.OK) == (not np.any(out | fast))
        seen[code] += 1
        if code == stop.OK:
            np.testing.assert_allclose(path[i, : len(x)], x, atol=1e-12)
            assert abs(last - (len(x) - 1)) <= 1, "the last tick may be one of rounding"
    assert min(seen[stop.OK], seen[stop.VELOCITY]) > 50, seen


@pytest.fixture(scope="module")
def proof(robot):
    kin = Kinematics.from_model(robot)
    space = Space(0.005, 0.01, np.array([-0.9, -0.9, 0.05]), np.array([0.9, 0.9, 1.2]))
    return kin, bounds_of(robot.limits, 0.0), space, work_of(kin.tree)


def dense(kin, b, space, q, v, a):
    """Whether every tick of the stop is clear, by evaluating every tick."""
    paths = [follow(v[i], a[i], b.a[i], b.j[i]) for i in range(len(q))]
    for k in range(max(map(len, paths))):
        now = np.array([q[i] + p[min(k, len(p) - 1), 0] for i, p in enumerate(paths)])
        own, low = kin.clearances(now)
        palm = kin.palm(now)
        if own.min() < space.self_limit or low.min() < space.table_limit:
            return False
        if np.any(palm < space.lower) or np.any(palm > space.upper):
            return False
    return True


def test_a_verified_stop_is_clear_at_every_tick_and_most_clear_stops_are_verified(robot, proof):
    kin, b, space, work = proof
    rng = np.random.default_rng(0)
    clear = verified = 0
    for _ in range(100):
        q = rng.uniform(robot.limits.q_min * 0.7, robot.limits.q_max * 0.7)
        v = rng.uniform(-0.5, 0.5, robot.n) * robot.limits.v_max * rng.random()
        a = rng.uniform(-1, 1, robot.n) * b.a
        code, _, used = verify_stop(kin.tree, b, space, nothing(), q, v, a, DT, work)
        truth = dense(kin, b, space, q, v, a)
        assert used <= SAMPLES
        assert not (code == stop.OK and not truth)
        clear, verified = clear + truth, verified + (code == stop.OK)
    assert clear > 8
    assert verified >= 0.8 * clear


def nearest(kin, b, q, v, a):
    """Smallest clearances of a stop, by evaluating every tick, and its palm: own, table (ticks,), palm (ticks, 3)."""
    paths = [follow(v[i], a[i], b.a[i], b.j[i]) for i in range(len(q))]
    own, low, palm = [], [], []
    for k in range(max(map(len, paths))):
        now = np.array([q[i] + p[min(k, len(p) - 1), 0] for i, p in enumerate(paths)])
        pair, table = kin.clearances(now)
        own.append(pair.min())
        low.append(table.min())
        palm.append(kin.palm(now))
    return np.array(own), np.array(low), np.array(palm)


def detailed():
    """An arm and hand with skins and hulls."""
    robot = load_robot("fr3_leap")
    return robot, Kinematics.from_model(
        robot, load_detail(Path(str(files("palmar.configs"))) / "filter" / "fr3_leap.yaml")
    )


@pytest.mark.parametrize("which", ["small", "detailed"])
def test_a_stop_is_refused_where_a_limit_is_a_hair_above_what_it_comes_to_and_accepted_below(robot, which):
    robot, kin = detailed() if which == "detailed" else (robot, Kinematics.from_model(robot))
    b, work, rng, wide = bounds_of(robot.limits, 0.0), work_of(kin.tree), np.random.default_rng(7), np.full(3, 9.0)
    tried, accepted, later = np.zeros(3), np.zeros(3), np.zeros(3)

    def verdict(q, v, a, own=-1.0, table=-10.0, upper=wide):
        return verify_stop(kin.tree, b, Space(own, table, -wide, upper), nothing(), q, v, a, DT, work)[0]

    while tried.min() < 15:
        q = rng.uniform(robot.limits.q_min * 0.8, robot.limits.q_max * 0.8)
        v = rng.uniform(-0.3, 0.3, robot.n) * robot.limits.v_max * (rng.random(robot.n) < 0.7)
        a = rng.uniform(-1, 1, robot.n) * b.a * rng.integers(2)
        if verdict(q, v, a) != stop.OK:
            continue
        own, low, palm = nearest(kin, b, q, v, a)
        for i, (way, limit, short) in enumerate(
            [(own, lambda x: {"own": x}, 3e-3), (low, lambda x: {"table": x}, 3e-3),
             (-palm[:, 0], lambda x: {"upper": np.array([-x, 9.0, 9.0])}, 3e-3)]
        ):  # fmt: skip
            if tried[i] >= 40 or i == 0 and not 0.002 < way.min() < 0.9 * CLOSE:
                continue  # inside each other, or further than hulls are looked at
            assert verdict(q, v, a, **limit(way.min() + 1e-6)) != stop.OK
            tried[i] += 1
            accepted[i] += verdict(q, v, a, **limit(way.min() - short)) == stop.OK
            later[i] += way.argmin() > 2
    assert np.all(accepted > 0.7 * tried) and later.min() > 3, (tried, accepted, later)


def test_between_two_samples_either_bound_suffices_and_joints_that_stand_count_for_nothing():
    rng, h = np.random.default_rng(6), 0.02
    for _ in range(50):
        reach, a_max = rng.uniform(0.1, 1.0, 6), rng.uniform(5.0, 50.0, 6)
        moved = rng.uniform(0.01, 0.3, 6) * (rng.random(6) < 0.7)
        rate = (moved / h + 0.5 * a_max * h) * (moved > 0)
        chord = 0.5 * reach @ moved
        sag = h * h / 8.0 * (reach @ (a_max * (moved > 0)) + rate.sum() * (reach @ rate))
        for low, mean in ((-1.0, chord), (sag, -1.0)):
            assert _smooth(reach, a_max, moved, h, low + 1e-9, mean + 1e-9)
            assert not _smooth(reach, a_max, moved, h, low - 1e-9, mean - 1e-9) or not moved.any()


def test_the_tail_of_a_verified_stop_is_verified(robot, proof):
    kin, b, space, work = proof
    rng = np.random.default_rng(1)
    done = 0
    while done < 5:
        q, a = robot.home + rng.normal(size=robot.n) * 0.1, rng.uniform(-1, 1, robot.n) * b.a
        v = rng.uniform(-0.4, 0.4, robot.n) * robot.limits.v_max
        if verify_stop(kin.tree, b, space, nothing(), q, v, a, DT, work)[0] != stop.OK:
            continue
        done += 1
        x = np.zeros(robot.n)
        for _ in range(300):
            stop.stop_law(v, a, b, DT, x)
            q, v, a = q + DT * v + 0.5 * DT * DT * x, v + DT * x, x.copy()
            code = verify_stop(kin.tree, b, space, nothing(), q, v, a, DT, work)[0]
            assert code in (stop.OK, stop.EFFORT), stop.FAILURES[code]


def test_each_failure_has_its_name(robot, proof):
    kin, b, space, work = proof
    n, zero = robot.n, np.zeros(robot.n)
    fast = zero.copy()
    fast[0] = 2.7
    hard = zero.copy()
    hard[0] = 10.5
    edge = robot.home.copy()
    edge[0] = robot.limits.q_max[0] - 0.02
    slow = zero.copy()
    slow[0] = 1.0
    folded = robot.home.copy()
    folded[4:] = [1.2, 0.2, 1.2, 0.2]
    cases = [
        (robot.home, fast, zero, stop.VELOCITY),
        (robot.home, zero, hard, stop.ACCELERATION),
        (edge + 0.05 * (np.arange(n) == 0), zero, zero, stop.POSITION),
        (edge, slow, zero, stop.VELOCITY),
        (folded, zero, zero, stop.SELF),
    ]
    for q, v, a, expected in cases:
        code = verify_stop(kin.tree, b, space, nothing(), q, v, a, DT, work)[0]
        assert stop.FAILURES[code] == stop.FAILURES[expected]
    tight = Space(0.005, 0.01, np.array([0.9, -0.9, 0.05]), np.array([0.95, 0.9, 1.2]))
    assert verify_stop(kin.tree, b, tight, nothing(), robot.home, zero, zero, DT, work)[0] == stop.WORKSPACE
    high = Space(0.005, 0.5, space.lower, space.upper)
    assert verify_stop(kin.tree, b, high, nothing(), robot.home, zero, zero, DT, work)[0] == stop.TABLE
