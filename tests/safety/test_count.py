"""The counter of violations finds what is planted, and the same as counting one command at a time."""

from dataclasses import replace

import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palmar.benchmarks.count import Count, box_bound, derive, segment_bound
from palmar.safety.constraints import parse

DT = 0.001
CELL = """
  joint_torque_rate: {margin: joint_torque_rate, params: {limit: 3000.0}, signal: transition, source: estimated,
    memory: none, runtime: soft row, budget: 0.1, unit: s}
  box: {margin: keep_out, params: {region: 0, lower: [0.35, -0.2, 0.3], upper: [0.7, 0.2, 0.6], limit: 0.003},
    signal: state, source: measured, memory: none, runtime: hard row, budget: 0.0, unit: s}
"""


@pytest.fixture(scope="module")
def cell(robot, text):
    return parse(text + CELL, robot.limits)


@pytest.fixture(scope="module")
def count(robot, cell):
    return Count(robot, cell)


def integrate(start, a):
    """Positions (T + 1, n) of accelerations (T, n) from rest at start."""
    q, v = [start], np.zeros(len(start))
    for x in a:
        q.append(q[-1] + DT * v + 0.5 * DT * DT * x)
        v = v + DT * x
    return np.array(q)


def travel(start, goal, ticks):
    """Positions from rest to rest: jerk starts and ends at zero."""
    s = np.linspace(0.0, 1.0, ticks + 1)[:, None]
    return start + (goal - start) * s**4 * (35 - 84 * s + 70 * s**2 - 20 * s**3)


def one_by_one(robot, constraints, q):
    """Margins of every command, {constraint: (T,)}: the definition, without a shortcut."""
    x, m = robot.limits, mujoco.MjModel.from_xml_string(robot.xml.replace("<worldbody>", "<worldbody>" + BOX))
    m.opt.gravity[:] = 0.0
    d, out = mujoco.MjData(m), {c.name: [] for c in constraints.constraints}
    table, palm = [m.geom(g).id for g in robot.table_geoms], m.body(robot.palm_body).id
    pairs = [(m.geom(a).id, m.geom(b).id) for a, b in robot.pairs]
    p = {c.name: c.params for c in constraints.constraints}
    before, v, a, torque = q[0], np.zeros(robot.n), np.zeros(robot.n), np.zeros(robot.n)
    for now in q[1:]:
        v, v0 = 2.0 * (now - before) / DT - v, v
        a, a0 = (v - v0) / DT, a
        before = now
        room = np.where(v > 0, x.curve_q_up - now, now - x.curve_q_low)
        with np.errstate(invalid="ignore"):
            curve = np.maximum(0.0, np.sqrt(np.maximum(0.0, x.curve_two_a * room)) - x.curve_offset)
        d.qpos, d.qvel, d.qacc = now, v, a
        mujoco.mj_inverse(m, d)
        full, bias = np.zeros((m.nv, m.nv)), np.zeros(m.nv)
        mujoco.mj_fullM(m, d, full)
        mujoco.mj_rne(m, d, 0, bias)
        torque, last = full @ a + bias, torque
        low = [d.geom_xpos[g, 2] - abs(d.geom_xmat[g, 8]) * half(m, g) - m.geom_size[g, 0] for g in table]
        at, box = d.xpos[palm], p["workspace"]
        own = min(mujoco.mj_geomDistance(m, d, g, h, 1.0, None) for g, h in pairs)
        away = min(mujoco.mj_geomDistance(m, d, g, m.geom("box").id, 1.0, None) for g in table)
        out["joint_position"].append(np.minimum(now - x.q_min, x.q_max - now).min())
        out["joint_velocity"].append((np.fmin(x.v_max, curve) - abs(v)).min())
        out["joint_acceleration"].append((x.a_max - abs(a)).min())
        out["joint_jerk"].append((x.j_max - abs(a - a0) / DT).min())
        out["joint_torque"].append((x.tau_max - abs(torque)).min())
        out["joint_torque_rate"].append(p["joint_torque_rate"]["limit"] - abs(torque - last).max() / DT)
        out["table_clearance"].append(min(low) - p["table_clearance"]["limit"])
        out["workspace"].append(min((at - box["lower"]).min(), (box["upper"] - at).min()))
        out["self_clearance"].append(own - p["self_clearance"]["limit"])
        out["box"].append(away - p["box"]["limit"])
    return {name: np.array(values) for name, values in out.items() if values}


BOX = '<geom name="box" type="box" size=".175 .2 .15" pos=".525 0 .45"/>'


def half(m, g):
    return m.geom_size[g, 1] if m.geom_type[g] == mujoco.mjtGeom.mjGEOM_CAPSULE else 0.0


@settings(max_examples=12)
@given(st.integers(0, 2**32 - 1))
def test_an_episode_is_counted_like_one_command_at_a_time(robot, cell, count, seed):
    rng = np.random.default_rng(seed)
    start = rng.uniform(robot.limits.q_min, robot.limits.q_max)
    low = rng.normal(size=(13, robot.n)) * rng.choice([0.3, 1.0, 3.0]) * robot.limits.a_max
    q = integrate(start, np.repeat(low, 20, axis=0))
    got, want = count(q, DT), one_by_one(robot, cell, q)
    assert set(got.tallies) == set(want)
    for name, margin in want.items():
        # MuJoCo's own distances are good to 1e-6 m, and touching a limit is decided by rounding.
        clear = np.abs(margin) > (1e-6 if name in ("self_clearance", "box") else 1e-8 * max(1.0, np.abs(margin).max()))
        sure, bad = int((margin < 0)[clear].sum()), got.tallies[name].violations
        assert sure <= bad <= sure + int((~clear).sum()), name
        if margin.min() < 0:
            assert got.tallies[name].worst == pytest.approx(margin.min(), rel=1e-6, abs=1e-6), name
        elif margin.min() < 0.008:
            assert got.tallies[name].worst == pytest.approx(margin.min(), rel=1e-6, abs=2e-6), name
    hard = np.any([want[c.name] < 0 for c in cell.constraints if c.name in want and c.runtime == "hard row"], axis=0)
    assert abs(got.violations - hard.sum()) <= sum(int((np.abs(m) < 1e-6).sum()) for m in want.values())


def planted_in_joints(robot, which, k):
    """Positions that break one joint limit by a hundredth, and the command that does; k where it can be chosen."""
    x, a = robot.limits, np.zeros((k + 60, robot.n))
    step = x.j_max[0] * DT
    if which == "joint_jerk":
        a[k, 0] = 1.01 * step
        a[k + 1, 0] = a[k, 0] - step
        a[k + 2, 0] = 0.0
    elif which == "joint_acceleration":
        a[k - 2 : k + 3, 0] = 3.0, 7.0, 1.01 * x.a_max[0], 7.0, 3.0
    q = integrate(robot.home, a)
    start = robot.home.copy()
    if which == "joint_position":  # finger: from inside its range to just outside
        goal = start.copy()
        goal[5] = x.q_max[5] + 1e-4
        q = travel(start, goal, 2000)
        return q, int(np.argmax(q[1:, 5] > x.q_max[5]))
    if which == "joint_velocity":  # at the cap of j1, far from its ends
        start[0] = -1.5
        ticks = int(x.v_max[0] * 1.01 / 8.0 / DT)
        a = np.zeros((ticks + 60, robot.n))
        a[:ticks, 0] = 8.0
        a[[0, ticks], 0] = 4.0
        q = integrate(start, a)
        v = derive(q, DT).v[:, 0]
        return q, int(np.argmax(v > x.v_max[0]))
    return q, k


@pytest.mark.parametrize("which", ["joint_position", "joint_velocity", "joint_acceleration", "joint_jerk"])
def test_a_broken_joint_limit_is_found_at_its_command_and_no_other(robot, count, which):
    q, first = planted_in_joints(robot, which, 70)
    got = count(q, DT)
    assert got.tallies[which].first == first
    joints = [n for n, t in got.tallies.items() if n.startswith("joint_") and n != "joint_torque_rate" and t.violations]
    # Outside the range no speed is allowed.
    assert set(joints) == {which} | ({"joint_velocity"} if which == "joint_position" else set())


@pytest.mark.parametrize("which", ["self_clearance", "table_clearance", "workspace", "box"])
def test_a_slow_motion_into_anything_forbidden_is_found(robot, cell, count, which):
    rng = np.random.default_rng(5)
    while True:
        goal = rng.uniform(robot.limits.q_min, robot.limits.q_max)
        if one_by_one(robot, cell, np.array([goal, goal]))[which][0] < -0.005:
            break
    q = travel(robot.home, goal, 6000)
    got = count(q, DT)
    assert got.tallies[which].violations > 0
    first = got.tallies[which].first
    before, after = one_by_one(robot, cell, q[[first, first]]), one_by_one(robot, cell, q[[first + 1, first + 1]])
    assert before[which][0] > -1e-6 and after[which][0] < 1e-6


def test_torque_and_its_rate_are_found_and_are_soft(robot, count):
    a = np.zeros((40, robot.n))
    a[20:, 1] = 300.0
    got = count(integrate(robot.home, a), DT)
    assert got.tallies["joint_torque"].violations > 0 and got.tallies["joint_torque_rate"].first == 20
    soft = Count(robot, replace(count_set(robot), constraints=count_set(robot).constraints[:1]))
    assert soft(integrate(robot.home, a), DT).violations == 0


def count_set(robot):
    return parse("name: soft\nversion: 1\nconstraints:" + CELL, robot.limits)


def test_positions_that_are_no_numbers_violate_everything(robot, count):
    q = np.tile(robot.home, (30, 1))
    q[10:, 2] = np.nan
    got = count(q, DT)
    assert got.violations == 20
    assert got.tallies["joint_position"] == (20, pytest.approx(np.nan, nan_ok=True), 9)
    for name in ("self_clearance", "table_clearance", "workspace", "box", "joint_torque"):
        assert got.tallies[name].violations == 20, name


def test_a_robot_that_stands_still_violates_nothing(robot, count):
    got = count(np.tile(robot.home, (500, 1)), DT)
    assert got.violations == 0 and got.commands == 499
    assert all(t.violations == 0 and t.first is None for t in got.tallies.values())


def test_bounds_of_distances_are_below_them_and_tight_where_nothing_touches():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 400, 3)) * 0.2
    ha, hb = rng.normal(size=(2, 400, 3)) * rng.choice([0.0, 0.05, 0.3], size=(2, 400, 1))
    s = np.linspace(-1.0, 1.0, 201)
    one = a[:, None] + s[None, :, None] * ha[:, None]
    two = b[:, None] + s[None, :, None] * hb[:, None]
    true = np.linalg.norm(one[:, :, None] - two[:, None], axis=-1).min(axis=(1, 2))
    bound = segment_bound(a, ha, b, hb)
    assert np.all(bound <= true + 1e-12)
    assert np.quantile(true - bound, 0.9) < 2e-3  # the samples are 5 mm apart
    lower, upper = np.array([-0.1, -0.2, -0.05]), np.array([0.2, 0.1, 0.3])
    gap = np.linalg.norm(one - np.clip(one, lower, upper), axis=-1).min(axis=1)
    bound = box_bound(a, ha, lower, upper)
    assert np.all(bound <= gap + 1e-12)
    assert np.quantile((gap - bound)[gap > 0], 0.9) < 2e-3
