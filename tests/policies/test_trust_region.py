"""Steps within a trust region against dense algebra, and the search along them."""

import dataclasses

import numpy as np
import pytest
import torch
from cmdp import Chain
from point_mass import PointMass

from palmar.policies.algorithms import cpo, pcpo, trpo_lagrangian
from palmar.policies.networks import Actor
from palmar.policies.rl.episodes import World
from palmar.policies.rl.learner import Space
from palmar.policies.rl.trust_region import Near, Wanted, conjugate_gradients, fisher, orthonormal, parameters, search

DELTA = 0.01
RADIUS = np.sqrt(2 * DELTA)
SMALL = trpo_lagrangian.Config(
    num_envs=16, steps=32, minibatch=64, hidden=(16,), budgets={"disc": 0.05, "wall": 0.1}, kl_limit=DELTA, damping=0.1
)


def seen(config=SMALL):
    """A learner after its first rollout, and what it collected."""
    learner = trpo_lagrangian.Learner(config, Space.of(PointMass(config.num_envs), config.budgets))
    learner.collect(World(PointMass(config.num_envs), 0))
    return learner, learner.batch()


def wanted(batch, now=(-0.5, -0.5)):
    advantage = batch.advantage - batch.advantage.mean(0)
    return Wanted(advantage / advantage.std(0), torch.tensor(now))


def system():
    """A positive definite matrix (12, 12) and right-hand sides (4, 12)."""
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(12, 12, generator=generator, dtype=torch.float64)
    right = torch.randn(4, 12, generator=generator, dtype=torch.float64)
    return root @ root.T / 12 + 0.1 * torch.eye(12).double(), right


def numbers(actor):
    return torch.cat([p.detach().flatten() for p in parameters(actor)])


def test_the_metric_is_the_fisher_information():
    generator = torch.Generator().manual_seed(0)
    actor = Actor(3, 2, (4,), std=0.5, gain=1.0, generator=generator)
    obs = torch.randn(7, 3, generator=generator)
    jacobian = []
    for mean in actor(obs).flatten():
        grads = torch.autograd.grad(mean, parameters(actor)[1:], retain_graph=True)
        jacobian.append(torch.cat([torch.zeros(2), *(g.flatten() for g in grads)]))
    jacobian = torch.stack(jacobian)
    dense = jacobian.T @ jacobian / 0.5**2 / len(obs) + torch.diag(torch.tensor([2.0] * 2 + [0.0] * 26))
    v = torch.randn(5, 28, generator=generator)
    product = fisher(actor, obs, damping=0.03)
    assert torch.allclose(torch.stack([product(x) for x in v]), v @ dense + 0.03 * v, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 3, 50])
def test_conjugate_gradients_solve_and_say_what_is_missing(steps):
    h, (b, *_) = system()
    x, missing = conjugate_gradients(lambda v: h @ v, b, steps)
    assert torch.allclose(missing, b - h @ x, atol=1e-10)
    assert (missing.norm() < 1e-4 * b.norm()) == (steps == 50)


@pytest.mark.parametrize("steps", [2, 50])
def test_directions_are_orthonormal_however_far_conjugate_gradients_got(steps):
    h, some = system()
    slopes = torch.cat([some, 0 * some[:1], 2 * some[:1]])
    basis = orthonormal(lambda v: h @ v, slopes, steps)
    assert len(basis) == 4 and torch.allclose(
        basis @ h @ basis.T, torch.eye(4).double(), atol=1e-5 if steps > 2 else 0.2
    )


def test_near_by_signals_are_linear_and_the_divergence_is_half_the_square_of_the_step():
    learner, batch = seen()
    signals = wanted(batch, (-9.0, -9.0))
    near = Near.of(learner, batch, signals, SMALL)
    gain, begin = near.rows()[0], numbers(learner.actor)
    y = 0.004 * gain / np.linalg.norm(gain) + np.array([0.002, -0.002, 0.002])
    x = near.step(y)
    log = search(learner, batch, signals, near, x, SMALL)
    with torch.no_grad():
        change = signals.change(learner.actor, batch).numpy()
    assert log["step"] == 1.0 and torch.allclose(numbers(learner.actor), begin + x, atol=1e-6)
    assert np.allclose(change, near.rows() @ y, rtol=0.1, atol=2e-5)
    assert log["kl"] == pytest.approx((y @ y - SMALL.damping * (x @ x).item()) / 2, rel=0.1)


def test_a_spread_at_its_bound_is_no_way_to_lower_costs():
    learner, batch = seen(dataclasses.replace(SMALL, std_range=(0.5, 0.5)))
    bound = Near.of(learner, batch, wanted(batch), SMALL)
    learner, batch = seen()
    free = Near.of(learner, batch, wanted(batch), SMALL)
    assert not bound.slopes[:, :2].any() and not bound.basis[:, :2].any() and free.slopes[:, :2].all()
    assert torch.equal(bound.slopes[:, 2:], free.slopes[:, 2:])


@pytest.mark.parametrize("radii, trusted", [(100, True), (5, False)])
def test_the_search_shortens_a_step_until_the_divergence_is_within_its_limit(radii, trusted):
    learner, batch = seen()
    reward = Wanted(wanted(batch).advantage[:, :1], torch.zeros(0))
    near = Near.of(learner, batch, reward, SMALL)
    step = near.step(radii * RADIUS * np.sign(near.rows()[0]))
    near = near if trusted else dataclasses.replace(near, metric=lambda v: 1e-9 * v)  # it says that nothing is far
    log = search(learner, batch, reward, near, step, SMALL)
    assert 0 < log["step"] <= 1.01 / radii * (1 if trusted else 2) and 0.2 * DELTA < log["kl"] <= DELTA
    assert trusted or log["refused/kl"] > 2


def test_the_search_leaves_the_spread_within_its_bounds():
    narrow = dataclasses.replace(SMALL, std_range=(0.4999, 0.5001))
    learner, batch = seen(narrow)
    near = Near.of(learner, batch, wanted(batch), SMALL)
    assert near.slopes[:, :2].all()
    search(learner, batch, wanted(batch), near, near.step(RADIUS * np.sign(near.rows()[0])), SMALL)
    spread = learner.actor.log_std.exp()
    assert torch.all((spread > 0.49989) & (spread < 0.50011))


def test_recovering_one_budget_may_cost_another_what_was_meant():
    learner, batch = seen()
    signals = wanted(batch, (0.3, 0.0))
    begin = numbers(learner.actor)

    def tried(honest):
        near = Near.of(learner, batch, signals, SMALL)
        rows = near.rows()
        y = np.linalg.lstsq(rows, np.array([0.0, -0.003, 0.003]), rcond=None)[0]
        means = near if honest else dataclasses.replace(near, slopes=torch.zeros_like(near.slopes))
        return search(learner, batch, signals, means, near.step(y), SMALL)

    log = tried(False)
    assert log["step"] == 0 and log["refused/cost"] > 0 and torch.equal(numbers(learner.actor), begin)
    assert tried(True)["step"] > 0


def test_a_step_that_loses_reward_is_refused_said_and_undone_unless_a_budget_is_overrun():
    learner, batch = seen()
    begin, one = numbers(learner.actor), wanted(batch).advantage[:, [0, 0]]  # the reward is the cost

    def tried(now):
        signals = Wanted(one, torch.tensor([now]))
        near = Near.of(learner, batch, signals, SMALL)
        return search(learner, batch, signals, near, near.step(-RADIUS * np.sign(near.rows()[0])), SMALL)

    log = tried(-0.5)
    assert log["step"] == 0 and log["refused/reward"] == SMALL.tries and torch.equal(numbers(learner.actor), begin)
    log = tried(0.3)
    assert log["step"] > 0 and log["gain"] < 0 and log["recovering"] == 1


def test_a_step_that_overruns_a_budget_more_than_it_was_meant_to_is_refused():
    learner, batch = seen()
    begin, one = numbers(learner.actor), wanted(batch).advantage[:, [1, 1]]  # the reward is the cost

    def tried(now):
        signals = Wanted(one, torch.tensor([now]))
        near = Near.of(learner, batch, signals, SMALL)
        step = near.step(RADIUS * np.sign(near.rows()[0]))
        blind = dataclasses.replace(near, slopes=torch.zeros_like(near.slopes))  # it means to cost nothing
        return search(learner, batch, signals, blind, step, SMALL)

    log = tried(0.0)
    assert log["step"] == 0 and log["refused/cost"] == SMALL.tries and torch.equal(numbers(learner.actor), begin)
    log = tried(-9.0)
    assert log["step"] > 0 and log["gain"] > 0


@pytest.mark.parametrize("module", [trpo_lagrangian, cpo, pcpo])
def test_where_nothing_can_be_gained_the_policy_stays(module):
    config = module.Config(**{k: getattr(SMALL, k) for k in ("num_envs", "steps", "minibatch", "hidden", "budgets")})
    learner = module.Learner(config, Space.of(PointMass(config.num_envs), config.budgets))
    world = World(PointMass(config.num_envs), 0)
    learner.collect(world)
    learner.rollout.reward.zero_()
    with torch.no_grad():
        for p in learner.critic.reward.parameters():
            p.zero_()
    begin = numbers(learner.actor)
    log = learner.update(world.pause())
    assert torch.equal(numbers(learner.actor), begin) and log["step"] == log["kl"] == 0


@pytest.mark.parametrize("module", [trpo_lagrangian, cpo, pcpo])
def test_an_update_uses_the_trust_region_it_has(module):
    config = module.Config(num_envs=64, steps=8, minibatch=512, hidden=(32,), gamma=1.0, std=1.0, budgets={"hot": 1.5})
    learner = module.Learner(config, Space.of(Chain(64), config.budgets))
    world = World(Chain(64), 0)
    learner.collect(world)
    log = learner.update(world.pause())
    assert log["gain"] > 0 and 0.7 * config.kl_limit < log["kl"] <= config.kl_limit
