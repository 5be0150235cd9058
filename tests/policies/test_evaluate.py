import json

import numpy as np
import pytest
from point_mass import PointMass

from palmar.policies.evaluate import Evaluation, evaluate, mean_interval, wilson
from palmar.safety.types import ConfigError
from palmar.sim.interface import Step


@pytest.mark.parametrize(
    # 15 of 50: Brown, Cai, DasGupta 2001's formula by hand; 0 of n: upper end z^2 / (n + z^2).
    "k, n, low, high",
    [(0, 10, 0.0, 0.27753), (10, 10, 0.72247, 1.0), (15, 50, 0.19100, 0.43750), (285, 300, 0.91917, 0.96946)],
)
def test_wilson_known_values(k, n, low, high):
    assert wilson(k, n) == pytest.approx((low, high), abs=2e-4)


def test_wilson_refuses_impossible_counts():
    for k, n in ((-1, 5), (6, 5), (0, 0)):
        with pytest.raises(ConfigError, match=f"k = {k}, n = {n}"):
            wilson(k, n)


class Coin:
    """Succeeds in 2 steps or fails in 20, each with probability one half: short episodes look better."""

    obs_dim, action_dim, max_steps, constraint_names = 1, 1, 20, ("slow",)

    def __init__(self, num_envs):
        self.num_envs = num_envs

    def reset(self, seed=None):
        self.rng = np.random.default_rng(seed)
        self.age = np.zeros(self.num_envs, dtype=int)
        self.lucky = self.rng.random(self.num_envs) < 0.5
        return np.zeros((self.num_envs, 1), np.float32)

    def step(self, action):
        self.age += 1
        won, lost = self.lucky & (self.age >= 2), ~self.lucky & (self.age >= 20)
        ended = won | lost
        info = {
            "success": won,
            "margin": -self.age[:, None].astype(float),
            "peak_force": 3.0 * self.age[:, None],
        }
        reward, cost = np.ones(self.num_envs, np.float32), np.full((self.num_envs, 1), 0.05, np.float32)
        self.age = np.where(ended, 0, self.age)
        self.lucky[ended] = self.rng.random(ended.sum()) < 0.5
        return Step(np.zeros((self.num_envs, 1), np.float32), reward, cost, won, lost, info)


class Nothing:
    def start(self, batch):
        return None

    def act(self, obs, carry):
        return np.zeros((len(obs), 1), np.float32), None


def test_short_episodes_do_not_count_more():
    found = evaluate(Coin(400), Nothing(), episodes=800, seed=3, budgets={"slow": 0.5})
    low, high = wilson(found.successes, found.episodes)
    assert found.episodes == 800 and low < 0.5 < high
    # The law's other side: counting the first ones to finish would have been far off.
    env, wins, total = Coin(400), 0, 0
    env.reset(3)
    while total < 800:
        step = env.step(None)
        wins, total = wins + step.terminated.sum(), total + (step.terminated | step.truncated).sum()
    assert wilson(int(wins), int(total))[0] > 0.5


@pytest.mark.parametrize("episodes", [1, 7, 8, 19])
def test_exactly_the_asked_number_is_counted_whatever_the_batch(episodes):
    assert evaluate(Coin(8), Nothing(), episodes=episodes, seed=0).episodes == episodes


def test_costs_margins_and_forces_are_those_of_each_episode():
    found = evaluate(Coin(8), Nothing(), episodes=40, seed=1, budgets={"slow": 0.5})
    assert set(found.lengths) == {2, 20}
    assert np.allclose(found.costs[:, 0], 0.05 * found.lengths)
    assert np.array_equal(found.margins[:, 0], -found.lengths)
    assert np.array_equal(found.peak_force[:, 0], 3.0 * found.lengths)
    assert np.array_equal(found.success, found.lengths == 2)
    raw = json.loads(json.dumps(found.to_json(), allow_nan=False))
    slow = raw["constraints"]["slow"]
    assert slow["over_budget"] == pytest.approx(1 - raw["success_rate"]) and slow["worst_margin"] == -20
    assert slow["interval"][0] < slow["mean"] < slow["interval"][1]
    assert raw["succeeded_over_budget"] == 0 and raw["peak_force_p50_p95_max"][0][2] == 60


def test_the_same_seed_gives_the_same_evaluation():
    a, b, c = (evaluate(Coin(8), Nothing(), episodes=40, seed=s) for s in (1, 1, 2))
    assert np.array_equal(a.lengths, b.lengths) and not np.array_equal(a.lengths, c.lengths)


def test_episodes_cut_short_are_refused():
    class Aged(PointMass):
        def reset(self, seed=None):
            obs = super().reset(seed)
            self.age[0] = 5
            return obs

    class Still(Nothing):
        def act(self, obs, carry):
            return np.zeros((len(obs), 2), np.float32), None

    with pytest.raises(ConfigError, match="episode of 27 steps cut short"):
        evaluate(Aged(4), Still(), episodes=4, seed=0)
    with pytest.raises(ConfigError, match="episodes must be >= 1"):
        evaluate(PointMass(4), Still(), episodes=0, seed=0)


def test_the_interval_of_a_mean_covers_it_as_often_as_it_says():
    rng = np.random.default_rng(0)
    inside = 0
    for trial in range(200):
        low, high = mean_interval(rng.exponential(1.0, (100, 1)), seed=trial, resamples=400)[0]
        inside += low <= 1.0 <= high
    assert 180 <= inside <= 198


def test_budgets_that_are_not_given_never_bind():
    found = evaluate(Coin(4), Nothing(), episodes=4, seed=0)
    assert isinstance(found, Evaluation) and found.within_budgets and found.over_budget.tolist() == [0.0]
    assert found.to_json()["constraints"]["slow"]["budget"] is None
