import dataclasses
import math
from importlib.resources import files

import numpy as np
import pytest
import torch
import yaml
from point_mass import PointMass

from palmar.policies.algorithms import find
from palmar.policies.algorithms.ppo_lagrangian import Config, Learner
from palmar.policies.networks import Critic, ObservationRefused, kl_divergence, log_prob
from palmar.policies.rl.episodes import CostWindow, EpisodeSums, World
from palmar.policies.rl.learner import Space
from palmar.policies.rl.multipliers import Multipliers, mixed_advantage
from palmar.safety.config import load, plain
from palmar.safety.types import ConfigError

SMALL = Config(num_envs=8, steps=16, minibatch=64, hidden=(16, 16), budgets={"disc": 0.05, "wall": 0.1})


def learner(env, config=SMALL):
    return Learner(config, Space.of(env, config.budgets))


def multipliers(*budgets):
    return Multipliers(SMALL, np.array(budgets), floor=SMALL.budget_floor)


def test_mixed_advantage_by_hand():
    # Columns have mean 0 and spreads 1, 2 and 0.001; the last is below the floor of 0.01.
    advantage = torch.tensor([[1.0, 2.0, 0.001], [-1.0, 2.0, -0.001], [1.0, -2.0, 0.001], [-1.0, -2.0, -0.001]])
    mixed = mixed_advantage(advantage, np.array([2.0, 1.0]), cost_floor=0.01)
    by_hand = [(r - 2 * a - 1 * b) / 4 for r, a, b in ((1, 1, 0.1), (-1, 1, -0.1), (1, -1, 0.1), (-1, -1, -0.1))]
    assert torch.allclose(mixed, torch.tensor(by_hand))


def test_without_multipliers_costs_do_not_touch_the_advantage():
    generator = torch.Generator().manual_seed(0)
    advantage = torch.randn(32, 3, generator=generator)
    other = torch.cat([advantage[:, :1], torch.randn(32, 2, generator=generator)], dim=1)
    zero = np.zeros(2)
    assert torch.equal(mixed_advantage(advantage, zero, 0.01), mixed_advantage(other, zero, 0.01))


def test_a_multiplier_grows_above_its_budget_and_decays_below_it():
    m = multipliers(0.05, 0.1)
    trace = []
    for cost in (0.5, 0.0):
        for _ in range(20):
            m.update(np.array([cost, 0.09]))
            trace.append(m.value.copy())
    first = np.array(trace)[:, 0]
    assert np.all(np.diff(first[:20]) > 0) and first[0] > 0
    assert np.all(np.diff(first[20:]) <= 0) and first[-1] < 0.5 * first[19]
    assert np.all(np.array(trace) >= 0) and np.all(np.array(trace) <= SMALL.multiplier_max)
    # 0.09 is within the budget of 0.1 but above the share aimed at, 0.08: a small, steady push.
    assert 0 < np.array(trace)[0, 1] < first[0]


def test_the_multiplier_of_a_zero_budget_shrinks_when_nothing_is_violated():
    m = multipliers(0.0)
    m.update(np.array([0.5]))
    grown = m.value.copy()
    m.update(np.zeros(1))
    assert grown > 0 and 0 <= m.value < grown and 0 < m.integral
    for _ in range(10):
        m.update(np.zeros(1))
    assert m.integral == 0


def test_multipliers_wait_for_the_first_episode_and_see_only_the_window():
    m, window = multipliers(0.05), CostWindow(4, 1)
    m.update(window.mean())
    assert m.value == 0
    window.record(np.full((500, 1), 9.0))
    window.record(np.array([[1.0], [2.0], [3.0], [6.0]]))
    assert window.mean() == 3.0
    window.record(np.zeros((4, 1)))
    m.update(window.mean())
    assert m.value == 0


@pytest.mark.parametrize("kind, networks", [("heads", 1), ("separate", 5)])
def test_cost_critics_have_one_output_per_constraint(kind, networks):
    critic = Critic(7, 5, (16, 8), kind=kind, generator=torch.Generator())
    assert critic(torch.zeros(3, 4, 7)).shape == (3, 4, 6)
    assert len(critic.costs) == networks
    grown = [Critic(7, k, (16, 8), kind=kind, generator=torch.Generator())(torch.zeros(1, 7)).shape for k in (0, 1)]
    assert grown == [(1, 1), (1, 2)]


def test_a_separate_critic_leaves_the_others_alone():
    x = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    for kind, shared in (("heads", True), ("separate", False)):
        critic = Critic(7, 2, (16, 8), kind=kind, generator=torch.Generator().manual_seed(0))
        critic(x)[:, 1].sum().backward()
        touched = [any(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters()) for net in critic.costs]
        assert touched == ([True] if shared else [True, False])
        assert all(p.grad is None or p.grad.abs().sum() == 0 for p in critic.reward.parameters())


def test_densities_match_torch():
    g = torch.Generator().manual_seed(0)
    mean, other, action = torch.randn(3, 6, 2, generator=g)
    log_std, new = torch.tensor([-0.5, 0.1]), torch.tensor([-0.3, -0.2])
    normal = torch.distributions.Normal(mean, log_std.exp())
    assert torch.allclose(log_prob(action, mean, log_std), normal.log_prob(action).sum(-1), atol=1e-5)
    kl = torch.distributions.kl_divergence(normal, torch.distributions.Normal(other, new.exp())).sum(-1)
    assert torch.allclose(kl_divergence(mean, log_std, other, new), kl, atol=1e-5)


def test_the_spread_of_actions_has_a_floor():
    actor = learner(PointMass(8)).actor
    with torch.no_grad():
        actor.log_std.fill_(-9.0)
    actor.bound_std(*SMALL.std_range)
    assert torch.allclose(actor.log_std.exp(), torch.tensor(SMALL.std_range[0]))


@pytest.mark.parametrize("where", ["obs", "reward", "cost", "terminal_obs"])
def test_numbers_that_are_not_finite_are_refused(where):
    class Broken(PointMass):
        def step(self, action):
            step = super().step(action)
            if where == "terminal_obs":
                step.info["terminal_obs"][2, 1] = np.nan
                return step
            getattr(step, where)[2, ...] = np.nan
            return step

    env = Broken(8)
    with pytest.raises(ObservationRefused, match="finite"):
        learner(env, dataclasses.replace(SMALL, steps=32)).collect(World(env, 0))


def test_a_policy_refuses_an_observation_naming_the_column():
    policy = learner(PointMass(8)).policy()
    obs = np.zeros((3, 4), dtype=np.float32)
    obs[1, 2] = np.inf
    with pytest.raises(ObservationRefused, match="observation 1 is inf in column 2"):
        policy.act(obs)
    with pytest.raises(ObservationRefused, match=r"\(3, 5\), need \(B, 4\)"):
        policy.act(np.zeros((3, 5)))


def test_a_truncated_step_is_bootstrapped_with_the_observation_before_the_reset():
    env = PointMass(8)
    x = learner(env, dataclasses.replace(SMALL, steps=32))
    x.collect(World(env, 0))
    rollout = x.rollout
    assert rollout.truncated[-1].all() and not rollout.truncated[:-1].any()
    assert not torch.allclose(rollout.final_obs[-1], rollout.obs[-1])
    with torch.no_grad():
        advantage, _ = x.advantages(rollout.reward)
        signal = torch.cat([rollout.reward[-1, :, None], rollout.cost[-1]], dim=1)
        by_hand = signal + SMALL.gamma * x.values(rollout.final_obs[-1]) - x.values(rollout.obs[-2])
    assert torch.allclose(advantage[-1], by_hand, atol=1e-6)


def test_episodes_begun_at_a_random_age_do_not_count():
    env = PointMass(4)
    env.reset(0)
    env.age[:] = [0, 10, 31, 0]
    sums = EpisodeSums(4, 2, env.max_steps)
    for _ in range(env.max_steps):
        sums.add(env.step(np.zeros((4, 2))))
    episodes = sums.take()
    assert len(episodes.returns) == 2 + 0  # environments 0 and 3; 2's second episode lacks one step
    assert episodes.lengths.tolist() == [32, 32] and episodes.costs.shape == (2, 2)


REFUSED = {
    "cost_critic": "shared",
    "minibatch": 1000,
    "gamma": 1.5,
    "lr": math.nan,
    "clip": 0,
    "num_envs": 0,
    "epochs": 2.5,
    "hidden": (),
    "std": 3.0,
    "lr_range": (1e-3, 1e-5),
    "kl_target": -1,
    "penalties": {"disc": 1.0},
    "budgets": {"disc": -0.1},
    "budget_share": 0.0,
    "warmup": -1,
}


@pytest.mark.parametrize("key", REFUSED)
def test_impossible_settings_are_refused_by_name(key):
    with pytest.raises(ConfigError, match=key):
        load(Config, {key: REFUSED[key]}, where="algo")


def test_an_algorithm_without_a_file_is_refused_with_those_that_have_one():
    with pytest.raises(ConfigError, match="unknown algorithm 'trpo'.*ppo, ppo_lagrangian, ppo_penalty"):
        find.load("trpo")
    with pytest.raises(ConfigError, match="algorithm"):
        load(Config, {"algorithm": "ppo"})


def test_a_penalty_needs_a_price():
    with pytest.raises(ConfigError, match="penalties"):
        find.load("ppo_penalty").config()


def test_unknown_keys_and_constraints_are_refused():
    with pytest.raises(ConfigError, match="learning_rate"):
        load(Config, {"learning_rate": 1e-3})
    with pytest.raises(ConfigError, match=r"missing \['wall'\]"):
        learner(PointMass(8), dataclasses.replace(SMALL, budgets={"disc": 0.05}))
    with pytest.raises(ConfigError, match=r"unknown \['dsic'\]"):
        learner(PointMass(8), dataclasses.replace(SMALL, budgets=SMALL.budgets | {"dsic": 0.05}))


@pytest.mark.parametrize("name", ["ppo", "ppo_lagrangian", "ppo_penalty"])
def test_shipped_settings_load_and_round_trip(name):
    raw = yaml.safe_load((files("palmar.configs") / "algo" / f"{name}.yaml").read_text())
    config = load(find.load(name).config, raw)
    assert config.algorithm == name
    assert load(type(config), plain(config)) == config
