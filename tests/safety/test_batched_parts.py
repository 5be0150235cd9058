"""What the batched QP is made of is what the runtime is made of: distances, dynamics, bounds, barriers; its solver."""

import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palmar.safety import barrier, batched_rows, bounds, interior_point, stop
from palmar.safety.batched_stop import box, stop_law
from palmar.safety.batched_tree import (
    closest,
    converted,
    dynamics,
    gradient,
    links_of,
    pair_distances,
    place,
    table_heights,
)
from palmar.safety.distances import segment_distance
from palmar.safety.geometry import Kinematics
from palmar.safety.interior_point import QP

DT = 0.001


@pytest.mark.parametrize("skew", [0.0, 1e-9, 1e-4, 1.0])
@pytest.mark.parametrize("lengths", [(1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0), (0.1, 1.0)])
def test_closest_points_of_segments_are_the_runtimes_also_where_they_are_parallel(skew, lengths):
    rng = np.random.default_rng(7)
    r, d = rng.normal(size=(2, 200, 3))
    e = (d * rng.choice([-1.0, 1.0], (200, 1)) + skew * rng.normal(size=d.shape)) * lengths[1]
    d = d * lengths[0]
    s, t = closest(r, d, e)
    ours = np.linalg.norm(r + s[:, None] * d - t[:, None] * e, axis=-1)
    ends = np.zeros((2, 3, 3))
    for i in range(200):
        ends[0, :2], ends[1, :2] = [-d[i], d[i]], [-r[i] - e[i], -r[i] + e[i]]
        assert ours[i] == pytest.approx(segment_distance(ends, 0, 1)[0], abs=1e-9)
    assert np.abs([s, t]).max() <= 1.0


def test_what_a_barrier_asks_for_is_what_the_runtimes_asks_for():
    rng = np.random.default_rng(6)
    h, dh = rng.normal(size=(2, 300)) * [[0.05], [0.5]]
    for ours, theirs in ((batched_rows.needed, barrier.needed), (batched_rows.needed_slow, barrier.needed_slow)):
        want = [theirs(x, y, 2.5, 0.3, 20.0) for x, y in zip(h, dh, strict=True)]
        np.testing.assert_allclose(ours(h, dh, 2.5, 0.3, 20.0), want, rtol=1e-12)


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_bounds_and_stop_law_are_those_of_the_runtime(robot, seed):
    rng, m = np.random.default_rng(seed), robot.limits
    b = bounds.bounds_of(m, 0.0)
    q = rng.uniform(m.q_min - 0.01, m.q_max + 0.01, (50, robot.n))
    v, a = (rng.uniform(-1, 1, q.shape) * x * rng.choice([0.01, 0.3, 1.0]) for x in (m.v_max, m.a_max))
    low, high = box(q, v, a, b, DT)
    law, lo, hi, x = stop_law(v, a, b, DT), np.zeros(robot.n), np.zeros(robot.n), np.zeros(robot.n)
    for i in range(len(q)):
        bounds.box(q[i], v[i], a[i], b, DT, lo, hi)
        stop.stop_law(v[i], a[i], b, DT, x)
        np.testing.assert_allclose(low[i], lo, atol=1e-5)  # a bisection's last halves
        np.testing.assert_allclose(high[i], hi, atol=1e-5)
        np.testing.assert_allclose(law[i], x, atol=1e-9)


def test_kinematics_and_dynamics_are_those_of_one_robot(robot):
    kin, rng = Kinematics.from_model(robot), np.random.default_rng(1)
    q, v = rng.uniform(robot.limits.q_min, robot.limits.q_max, (40, robot.n)), rng.normal(size=(40, robot.n))
    k = converted(links_of(kin), q)
    at = place(k, kin.tree.parent, q)
    pair, n, x = pair_distances(k, at)
    rows, (table, _), (mass, bias) = gradient(at, n, x, k.moves), table_heights(k, at), dynamics(k, at, v, robot.n)
    data, full, torque = mujoco.MjData(kin.model), np.zeros((robot.n,) * 2), np.zeros(robot.n)
    for i in range(len(q)):
        want, low = kin.clearances(q[i])
        np.testing.assert_allclose(pair[i], want, atol=1e-12)
        np.testing.assert_allclose(table[i], low, atol=1e-12)
        np.testing.assert_allclose(rows[i], kin.rows(q[i])[0], atol=1e-9)
        data.qpos[kin.qpos], data.qvel[kin.dof] = q[i], v[i]
        mujoco.mj_forward(kin.model, data)
        mujoco.mj_fullM(kin.model, data, full)
        mujoco.mj_rne(kin.model, data, 0, torque)
        np.testing.assert_allclose(mass[i], full[np.ix_(kin.dof, kin.dof)], atol=1e-10)
        np.testing.assert_allclose(bias[i], torque[kin.dof], atol=1e-10)


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_a_solved_problem_meets_the_conditions_of_optimality(seed):
    rng, batch, size, m = np.random.default_rng(seed), 30, 8, 12
    low = -rng.uniform(0.0, 1.0, (batch, 6))
    high = low + rng.uniform(0.0, 2.0, low.shape) * (rng.random(low.shape) < 0.9)  # some bounds coincide
    g = rng.normal(size=(batch, m, size))
    inside = np.concatenate([0.5 * (low + high), rng.normal(size=(batch, 2))], axis=1)
    d = np.einsum("bmn,bn->bm", g, inside) - rng.uniform(0.0, 1.0, (batch, m))
    problem = QP(rng.normal(size=(batch, size)) * 2, low, high, g, d)
    found = interior_point.solve(problem)
    good = (found.violation < 1e-7) & (found.stationary < 1e-6) & (found.gap < 1e-6)
    assert good.sum() >= batch - 1  # a rare one is not done in its steps, and its numbers say so
    assert np.all(found.dual >= 0.0)
    against = problem._replace(g=np.concatenate([g, -g[:, :1]], axis=1), d=np.concatenate([d, 1.0 - d[:, :1]], axis=1))
    assert interior_point.solve(against).violation.min() > 1e-3


@pytest.mark.parametrize("steps", [2, 40])
def test_what_a_solution_lacks_is_said(steps):
    rng = np.random.default_rng(8)
    low, g = -rng.uniform(0.1, 1.0, (30, 6)), rng.normal(size=(30, 12, 8))
    problem = QP(rng.normal(size=(30, 8)) * 2, low, -low, g, -rng.uniform(0.0, 1.0, (30, 12)))
    found = interior_point.solve(problem, steps=steps)
    room = problem.up(found.z) - problem.b
    np.testing.assert_allclose(found.violation, (-room).max(axis=-1), atol=1e-12)
    np.testing.assert_allclose(found.gap, np.abs(found.dual * room).max(axis=-1), atol=1e-12)
    lacking = np.abs(found.z - problem.w - problem.down(found.dual)) / (1.0 + np.abs(found.z))
    np.testing.assert_allclose(found.stationary, lacking.max(axis=-1), atol=1e-12)
