"""The naive filter that ours is compared with asks for the same acceleration."""

import numpy as np
import pytest

from palmar.benchmarks.filter import Adversary, Reading, make_filter, start
from palmar.safety.qp import SOLVED
from palmar.safety.rows import KINDS
from palmar.safety.types import ConfigError

pytest.importorskip("osqp", reason="osqp is not installed")
from palmar.benchmarks.naive import NaiveQP


def asked(robot, constraints, *, seed, ticks):
    """States, wanted and given accelerations of the filter's QP in an adversarial episode, and its active rows."""
    f, rng = make_filter(robot, constraints), np.random.default_rng(seed)
    adversary, zero, out, solve = Adversary(robot, rng), np.zeros(robot.n), [], f.qp.solve
    start(f, robot, rng)

    def noted(q, v, a, wanted, **rest):
        state = [x.copy() for x in (q, v, a, wanted)]
        code, x, share = solve(q, v, a, wanted, **rest)
        out.append((*state, code, x.copy(), [name for k, name in KINDS.items() if f.qp.kinds >> k & 1]))
        return code, x, share

    f.qp.solve = noted
    for k in range(ticks):
        now = (k + 1) * 0.001
        chunk = adversary.chunk(k, now, f.u)
        if chunk is not None:
            f.offer(chunk)
        f.tick(Reading(now, k + 1, f.u, f.ud, zero), now)
    return out


def test_it_gives_the_same_acceleration_within_its_solvers_accuracy(robot, constraints):
    naive, scale, errors, active = NaiveQP(robot, constraints, 60, accuracy=1e-6), robot.limits.a_max, [], set()
    for q, v, a, wanted, code, x, rows in asked(robot, constraints, seed=1, ticks=900):
        solved, y = naive.solve(q, v, a, wanted)
        if solved and code == SOLVED:
            errors.append(np.abs((x - y) / scale).max())
            active.update(rows)
    assert len(errors) > 800 and {"self_clearance", "joint_position"} <= active
    # Where rows are nearly parallel the answer is as soft as the tolerance is divided by their angle.
    assert np.quantile(errors, 0.95) < 1e-3
    assert np.quantile(errors, 0.99) < 2e-2


def test_without_rows_it_differs_where_rows_matter(robot, constraints):
    naive, scale, errors = NaiveQP(robot, constraints, 0, accuracy=1e-6), robot.limits.a_max, []
    for q, v, a, wanted, code, x, rows in asked(robot, constraints, seed=1, ticks=900):
        if code == SOLVED and "self_clearance" in rows:
            errors.append(np.abs((x - naive.solve(q, v, a, wanted)[1]) / scale).max())
    assert np.median(errors) > 1e-2


def test_a_negative_number_of_rows_is_refused(robot, constraints):
    with pytest.raises(ConfigError, match="-1"):
        NaiveQP(robot, constraints, -1)
