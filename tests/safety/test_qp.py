"""The QP's answer is the nearest allowed one; the check of its conditions believes no wrong answer."""

import mujoco
import numpy as np
import pytest

from palmar.safety import qp
from palmar.safety.barrier import BarrierConfig
from palmar.safety.bounds import Space, bounds_of
from palmar.safety.enforced import Torque
from palmar.safety.geometry import Kinematics
from palmar.safety.obstacles import nothing
from palmar.safety.qp import AccelerationQP, kkt
from palmar.safety.rows import EXTRAS, KINDS
from palmar.safety.types import ConfigError

DT = 0.001


def problem(robot, *, torque_error=2.0, space=None):
    kin = Kinematics.from_model(robot)
    space = space or Space(0.005, 0.01, np.array([-0.9, -0.9, 0.05]), np.array([0.9, 0.9, 1.2]))
    bounds = bounds_of(robot.limits, 0.0)
    return AccelerationQP(robot, kin, bounds, space, BarrierConfig(), dt=DT, torque=Torque(torque_error))


def states(robot, n, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(n):
        q = robot.home + rng.normal(size=robot.n) * 0.2
        q = np.clip(q, robot.limits.q_min + 0.05, robot.limits.q_max - 0.05)
        v = rng.uniform(-0.3, 0.3, robot.n) * robot.limits.v_max
        a = rng.uniform(-1, 1, robot.n) * robot.limits.a_max
        yield q, v, a, rng.uniform(-1, 1, robot.n) * robot.limits.a_max * 2


def solve(p, *state):
    code, x, _ = p.solve(*state, obstacles=nothing())
    return code, x


def active(p):
    return {KINDS[k] for k in KINDS if p.kinds >> k & 1}


def data(p):
    return p.matrix.copy(), p.lower.copy(), p.upper.copy(), p.wanted.copy()


def test_answers_are_verified_and_no_random_feasible_point_is_nearer(robot):
    p = problem(robot)
    rng = np.random.default_rng(1)
    solved = rows = 0
    for q, v, a, wanted in states(robot, 200):
        code, x = solve(p, q, v, a, wanted)
        if code != qp.SOLVED:
            continue
        solved += 1
        matrix, lower, upper, centre = data(p)
        z, _, _, info = p.solver.solve()
        rows += np.any(np.abs(info["lam"][robot.n + EXTRAS :]) > 1e-6)
        np.testing.assert_allclose(z[: robot.n] * p.bounds.a, x, atol=1e-5)
        best = ((z - centre) ** 2).sum()
        for scale in (1e-3, 1e-2, 0.1):
            y = np.clip(z + rng.normal(size=len(z)) * scale, lower[: len(z)], upper[: len(z)])
            inside = np.all(matrix @ y <= upper[len(z) :]) and np.all(matrix @ y >= lower[len(z) :])
            assert not inside or ((y - centre) ** 2).sum() >= best - 1e-9
    assert solved > 150
    assert rows > 10


def test_what_is_allowed_is_not_changed(robot):
    p, zero = problem(robot), np.zeros(robot.n)
    wanted = np.linspace(-1, 1, robot.n)
    code, x = solve(p, robot.home, zero, zero, wanted)
    assert code == qp.SOLVED
    assert active(p) == set()
    np.testing.assert_allclose(x, wanted, atol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_wrong_answers_are_not_believed(robot, seed):
    p = problem(robot)
    rng = np.random.default_rng(seed)
    tried = 0
    for q, v, a, wanted in states(robot, 40, seed):
        if solve(p, q, v, a, wanted)[0] != qp.SOLVED:
            continue
        matrix, lower, upper, centre = data(p)
        z, _, _, info = p.solver.solve()
        dual = info["lam"].copy()
        arguments = (matrix, lower, upper)
        assert kkt(z, dual, centre, *arguments) == qp.SOLVED
        i, k = rng.integers(robot.n), rng.integers(len(dual))
        moved = z.copy()
        moved[i] += rng.choice([-1, 1]) * 1e-4
        assert kkt(moved, dual, centre, *arguments) != qp.SOLVED
        wrong = dual.copy()
        wrong[k] += rng.choice([-1, 1]) * 1e-2
        if k < len(z) or np.abs(matrix[k - len(z)]).max() > 1e-2:
            assert kkt(z, wrong, centre, *arguments) != qp.SOLVED
        broken = z.copy()
        broken[i] = rng.choice([np.nan, np.inf])
        assert kkt(broken, dual, centre, *arguments) == qp.NOT_FINITE
        tried += 1
    assert tried > 20


def test_each_condition_is_checked_on_its_own():
    one, none = np.ones(2), np.zeros((0, 2))
    low, up = -one, one
    check = lambda z, dual, wanted: kkt(np.array(z), np.array(dual), np.array(wanted), none, low, up)  # noqa: E731
    assert check([0.5, 1.0], [0.0, 1.0], [0.5, 2.0]) == qp.SOLVED
    assert check([0.5, 1.5], [0.0, 0.5], [0.5, 2.0]) == qp.NOT_FEASIBLE
    assert check([0.5, 1.0], [0.0, 0.9], [0.5, 2.0]) == qp.NOT_STATIONARY
    # Stationary and feasible, but held by a bound it does not touch.
    assert check([0.2, 1.0], [0.3, 1.0], [0.5, 2.0]) == qp.NOT_COMPLEMENTARY
    # A multiplier of the wrong sign: pulled towards the lower bound it does not touch.
    assert check([0.5, 1.0], [0.0, -1.0], [0.5, 0.0]) == qp.NOT_COMPLEMENTARY


def test_torque_rows_are_the_inverse_dynamics_without_gravity(robot):
    p = problem(robot)
    m = mujoco.MjModel.from_xml_string(robot.xml)
    m.opt.gravity[:] = 0
    m.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_CONSTRAINT
    d = mujoco.MjData(m)
    for q, v, a, wanted in states(robot, 10):
        solve(p, q, v, a, wanted)
        d.qpos[:], d.qvel[:], d.qacc[:] = q, v, wanted
        mujoco.mj_inverse(m, d)
        k = p.first_torque
        rows, n, arm = p.matrix[k : k + robot.n_arm, : robot.n], robot.n, robot.n_arm
        part = rows @ (wanted / p.bounds.a) + 1.0 - p.upper[n + EXTRAS + k : n + EXTRAS + k + arm]
        theirs = d.qfrc_inverse + d.qfrc_passive
        np.testing.assert_allclose(part * p.part, theirs[:arm], atol=1e-6)


def test_torque_is_soft_and_limits_what_is_asked(robot):
    tau = robot.limits.tau_max.copy()
    tau[:4] = [4.0, 4.0, 4.0, 3.0]
    limits = type(robot.limits)(**{**robot.limits.__dict__, "tau_max": tau})
    weak = type(robot)(**{**robot.__dict__, "limits": limits})
    p, zero = problem(weak), np.zeros(robot.n)
    a = np.zeros(robot.n)
    a[1] = 8.0
    wanted = np.zeros(robot.n)
    wanted[1] = 9.0
    code, x = solve(p, robot.home, zero, a, wanted)
    assert code == qp.SOLVED
    assert x[1] < 8.0
    assert "joint_torque" in active(p)
    assert x[1] >= 8.0 - 5.0 - 1e-6


@pytest.mark.parametrize("key", BarrierConfig.__dataclass_fields__)
@pytest.mark.parametrize("value", [0.0, -1.0, np.inf, np.nan])
def test_barriers_without_a_shape_are_refused(key, value):
    with pytest.raises(ConfigError, match=key):
        BarrierConfig(**{key: value})


def test_a_torque_error_that_leaves_nothing_is_refused(robot):
    with pytest.raises(ConfigError, match="leaves nothing"):
        problem(robot, torque_error=25.0)


def test_a_robot_at_rest_inside_the_buffers_of_many_rows_may_stay_and_may_leave(robot):
    """No row asks for a retreat, so opposing ones never make the QP infeasible at rest."""
    p = problem(robot, space=Space(0.02, 0.2, np.array([-0.9, -0.9, 0.05]), np.array([0.9, 0.9, 0.5])))
    zero, q = np.zeros(robot.n), robot.home.copy()
    q[4:] = [0.3, 0.2, 0.3, 0.2]
    for wanted in (zero, np.full(robot.n, 5.0), np.full(robot.n, -5.0)):
        code, x = solve(p, q, zero, zero, wanted)
        assert code == qp.SOLVED
    assert np.abs(solve(p, q, zero, zero, zero)[1]).max() < 1e-9
