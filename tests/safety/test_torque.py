"""No torque of an accepted stop exceeds its limit at any tick; what the bound uses bounds what it says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palmar.safety import stop
from palmar.safety.bounds import bounds_of
from palmar.safety.dynamics import inertia_of, inverse_dynamics, mass_matrix
from palmar.safety.geometry import Kinematics
from palmar.safety.live import work_of
from palmar.safety.torque import FIRST, bounded, effort_of, hull, stop_torque, travel_bound
from palmar.safety.types import ConfigError

DT = 0.001
SEEDS = st.integers(0, 2**32 - 1)


class Case:
    """A robot, and stops of it tick by tick."""

    def __init__(self, robot):
        self.robot, kin = robot, Kinematics.from_model(robot)
        self.links, self.bounds = inertia_of(kin), bounds_of(robot.limits, 0.0)
        self.work = work_of(kin.tree)

    def effort(self, part=1.0, reserve=0.05):
        limits = self.robot.limits
        return effort_of(self.links, part * limits.tau_max, self.bounds, arm=self.robot.n_arm, reserve=reserve)

    def state(self, seed, scale):
        """A random state whose stop stays within the joint limits, and its accelerations tick by tick."""
        rng, limits, n = np.random.default_rng(seed), self.robot.limits, self.robot.n
        while True:
            q = rng.uniform(limits.q_min, limits.q_max)
            v = rng.uniform(-scale, scale, n) * limits.v_max * (rng.random(n) < 0.8)
            a = rng.uniform(-1, 1, n) * self.bounds.a * rng.integers(2)
            if stop.stop_path(q, v, a, self.bounds, DT, self.work.path, self.work.turn)[1] == stop.OK:
                return q, v, a

    def ticks(self, q, v, a):
        """Every (q, v, a) of the stop by the law itself, the candidate first."""
        q, v, a, x = q.copy(), v.copy(), a.copy(), np.zeros(len(q))
        yield q.copy(), v.copy(), a.copy()
        while np.abs(v).max() > 1e-12 or np.abs(a).max() > 1e-8:
            stop.stop_law(v, a, self.bounds, DT, x)
            q, v, a = q + DT * v + 0.5 * DT * DT * x, v + DT * x, x.copy()
            yield q.copy(), v.copy(), a.copy()

    def torques(self, q, v, a):
        """Torques at every tick of the stop, (ticks, n)."""
        out = []
        for tick in self.ticks(q, v, a):
            out.append(np.zeros(len(q)))
            inverse_dynamics(self.links, *tick, out[-1])
        return np.array(out)


@pytest.fixture(scope="module")
def case(robot):
    return Case(robot)


@settings(max_examples=150)
@given(seed=SEEDS, scale=st.sampled_from([0.002, 0.02, 0.3, 1.0]))
def test_no_stop_moves_further_faster_or_harder_than_its_first_state_says(case, seed, scale):
    q, v, a = case.state(seed, scale)
    ticks = [np.array(x) for x in zip(*case.ticks(q, v, a), strict=True)]
    for i in range(len(q)):
        speed, travel = travel_bound(v[i], a[i], case.bounds.a[i], case.bounds.j[i], DT)
        low, high = hull(v[i], a[i], case.bounds.a[i], case.bounds.j[i], DT)
        assert np.abs(ticks[0][:, i] - q[i]).max() <= travel
        assert np.abs(ticks[1][:, i]).max() <= speed
        assert low - 1e-7 <= ticks[2][:, i].min() and ticks[2][:, i].max() <= high + 1e-7


@settings(max_examples=150)
@given(seed=SEEDS, scale=st.sampled_from([0.05, 0.2, 0.5]), part=st.floats(0.1, 1.0))
def test_a_bounded_stop_has_no_torque_above_its_limit_at_any_tick(case, seed, scale, part):
    q, v, a = case.state(seed, scale)
    effort = case.effort(part)
    if bounded(case.links, effort, q, v, a, DT):
        assert np.all(np.abs(case.torques(q, v, a)).max(axis=0) <= effort.limit)


@settings(max_examples=150)
@given(seed=SEEDS, scale=st.sampled_from([0.2, 0.5, 1.0]), part=st.floats(0.3, 1.0))
def test_the_verdict_on_a_stop_agrees_with_its_torques_at_every_tick(case, seed, scale, part):
    q, v, a = case.state(seed, scale)
    accepted, _ = stop_torque(case.links, case.effort(part), v, a, case.work.path, DT)
    used = (np.abs(case.torques(q, v, a)) / (part * case.robot.limits.tau_max)).max()
    assert used <= 1.0 if accepted else used > 0.95 - 1e-9


@settings(max_examples=150)
@given(seed=SEEDS)
def test_no_speed_alone_asks_for_more_torque_than_its_part_of_the_bound(case, seed):
    rng, n, limits = np.random.default_rng(seed), case.robot.n, case.robot.limits
    q, v, torque = rng.uniform(limits.q_min, limits.q_max), rng.uniform(-1, 1, n) * limits.v_max, np.zeros(n)
    effort = case.effort()._replace(limit=np.full(n, np.inf), drift=np.zeros((n, n)), a=np.full(n, 1e-9))
    bounded(case.links, effort, q, v, np.zeros(n), DT)
    inverse_dynamics(case.links, q, v, np.zeros(n), torque)
    assert np.all(np.abs(torque) <= effort.row[3] + 1e-9)


def test_a_torque_that_is_exceeded_late_in_a_stop_only_is_found(case):
    late = 0
    for seed in (0, 85, 110, 131, 240, 290, 335, 415, 446, 465, 521, 635, 665, 745):
        part = (0.1, 0.2, 0.3, 0.5, 0.8)[seed % 5]
        q, v, a = case.state(seed, (0.2, 0.5, 1.0)[seed % 3])
        accepted, _ = stop_torque(case.links, case.effort(part), v, a, case.work.path, DT)
        over = np.any(np.abs(case.torques(q, v, a)) > part * case.robot.limits.tau_max, axis=1)
        if over.any() and over.argmax() > FIRST:
            assert not accepted
            late += 1
    assert late > 5


def test_the_longest_stop_has_room(case):
    effort = case.effort()
    assert len(effort.sampled) == effort.speed.shape[1] == case.work.path.shape[1]


def test_slow_stops_need_no_sample_and_hard_ones_are_refused(case):
    free = refused = 0
    for seed in range(40):
        q, v, a = case.state(seed, 0.1)
        accepted, samples = stop_torque(case.links, case.effort(), v, a, case.work.path, DT)
        free += accepted and samples == 0
        q, v, a = case.state(seed, 1.0)
        refused += not stop_torque(case.links, case.effort(0.08), v, a, case.work.path, DT)[0]
    assert free > 25 and refused > 25


@settings(max_examples=100)
@given(seed=SEEDS)
def test_no_joint_changes_the_mass_matrix_faster_than_the_drift(case, seed):
    rng, n, h = np.random.default_rng(seed), case.robot.n, 1e-6
    q = rng.uniform(case.robot.limits.q_min, case.robot.limits.q_max)
    low, high, drift = np.zeros((n, n)), np.zeros((n, n)), case.effort().drift
    for k in range(n):
        step = np.eye(n)[k] * h
        mass_matrix(case.links, q - step, low)
        mass_matrix(case.links, q + step, high)
        assert np.all(np.abs((high - low) / (2 * h)) @ case.bounds.a <= drift[:, k] + 1e-6)


@pytest.mark.parametrize("reserve", [-0.1, 1.0, np.nan])
def test_a_reserve_that_is_no_part_is_refused(case, reserve):
    with pytest.raises(ConfigError, match="reserve"):
        case.effort(reserve=reserve)
