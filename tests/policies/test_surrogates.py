"""What single algorithms promise beside reaching the optimum: staying near, counting costs, a barrier that ends."""

import numpy as np
import pytest
import torch
from cmdp import Chain

from palmar.policies.algorithms import cup, focops, p3o, ppo
from palmar.policies.algorithms.ipo import barrier
from palmar.policies.networks import kl_divergence
from palmar.policies.rl.episodes import World
from palmar.policies.rl.forecast import Forecast
from palmar.policies.rl.learner import Space
from palmar.policies.rl.minibatches import Moved

CHAIN = dict(
    budgets={"hot": 1.5}, num_envs=64, steps=8, minibatch=128, hidden=(32,), lr=3e-3, lr_range=(3e-3, 3e-3), seed=1
)


def collected(kind, **own):
    config = kind.Config(**CHAIN | own)
    learner = kind.Learner(config, Space.of(Chain(64), config.budgets))
    learner.collect(World(Chain(64), 0))
    return learner


@torch.no_grad()
def policy(learner, rollout):
    return learner.actor(rollout.obs[:-1].flatten(0, 1)), learner.actor.log_std.clone()


def distance(old, new):
    with torch.no_grad():
        return kl_divergence(*old, *new).mean().item()


def test_a_state_that_focops_has_left_pulls_no_more():
    learner = collected(focops)
    learner.rollout.mean.add_(1.0)  # far from what acted, everywhere
    before = policy(learner, learner.rollout)
    learner.learn()
    assert distance(before, policy(learner, learner.rollout)) == 0


def test_focops_goes_back_to_the_policy_that_acted_where_nothing_is_to_be_had():
    learner = collected(focops, temperature=1e6, kl_state=1e3, kl_stop=1e9)
    learner.rollout.mean.add_(0.3)
    acted = learner.rollout.mean.flatten(0, 1), learner.actor.log_std.detach().clone()
    before = distance(policy(learner, learner.rollout), acted)
    learner.learn()
    assert distance(policy(learner, learner.rollout), acted) < 0.5 * before


def test_the_projection_of_cup_leaves_an_improvement_where_costs_weigh_nothing():
    plain, projected = collected(ppo), collected(cup, grad_norm=1.0)
    projected.multipliers.value[:] = 1e-3
    start = policy(plain, plain.rollout)
    plain.learn()
    projected.learn()
    improved = policy(plain, plain.rollout)
    moved = distance(start, improved)
    assert moved > 1e-3 and distance(improved, policy(projected, plain.rollout)) < 0.1 * moved


@pytest.mark.parametrize("ratio, advantage, counted", [(1.5, 1, 0.5), (1.5, -1, -0.2), (0.5, 1, -0.2), (0.5, -1, 0.5)])
def test_a_forecast_counts_a_rise_in_full_and_a_fall_up_to_the_clip(ratio, advantage, counted):
    expected = Forecast(torch.tensor([0.1, 0.4]), torch.tensor([[9.0, 9.0], [float(advantage), 0.0]]))
    nothing = torch.zeros(1)
    moved = Moved(torch.tensor([1]), nothing, nothing, torch.tensor([ratio]), nothing)
    assert torch.allclose(expected.overrun(moved, 0.2), torch.tensor([0.1 + counted, 0.4]))


@pytest.mark.parametrize("t", [5.0, 20.0])
def test_the_barrier_is_the_logarithm_inside_and_a_slope_outside(t):
    z = torch.tensor([-0.5, -1 / t**2, 0.0, 2.0], dtype=torch.float64, requires_grad=True)
    value = barrier(z, t)
    (slope,) = torch.autograd.grad(value.sum(), z)
    assert value[0].item() == pytest.approx(-np.log(0.5) / t)
    assert slope[0].item() == pytest.approx(2 / t)
    assert (value[3] - value[2]).item() == pytest.approx(2 * t) and slope[2:].tolist() == [t, t]
    assert (value[2] - value[1]).item() == pytest.approx(1 / t)


def test_a_weight_of_p3o_is_of_the_constraint_it_names():
    assert collected(p3o, kappa=2.0, kappas={"hot": 3.0}).kappa.tolist() == [3.0]
    assert collected(p3o, kappa=2.0).kappa.tolist() == [2.0]
