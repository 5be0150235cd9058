"""Multipliers of a problem whose optimum is known by hand, with a policy that follows them as well as it can."""

import dataclasses

import numpy as np
import pytest
from cmdp import Quadratic

from palmar.policies.algorithms.pid_lagrangian import PidConfig, PidMultipliers
from palmar.policies.rl.multipliers import DualConfig, Multipliers

BUDGETS, SPREAD = np.array([0.125, 0.32]), 0.3
ASCENT = DualConfig(multiplier_p=0.0, multiplier_i=0.1)
PI = DualConfig(multiplier_p=0.5, multiplier_i=0.1)
PID = PidConfig(multiplier_p=0.5, multiplier_i=0.1, multiplier_d=0.5)


def controller(config, budgets=BUDGETS):
    kind = PidMultipliers if isinstance(config, PidConfig) else Multipliers
    return kind(config, budgets, floor=0.02)


def followed(config, updates, *, pace=0.1):
    """Costs (updates, 2) of a policy that goes a share ``pace`` of the way to the best answer each time."""
    multipliers, mean, costs = controller(config), np.ones(2), []
    for _ in range(updates):
        costs.append((mean**2 + SPREAD**2) / 2)
        multipliers.update(costs[-1])
        mean = mean + pace * (1 / (1 + multipliers.value) - mean)
    return np.array(costs), multipliers


@pytest.mark.parametrize("config", [ASCENT, PI, PID], ids=["ascent", "pi", "pid"])
def test_multipliers_come_to_rest_at_those_of_the_optimum(config):
    costs, multipliers = followed(config, 1500)
    mean, best = Quadratic.best(config.budget_share * BUDGETS, SPREAD)
    assert np.allclose(multipliers.value, best, rtol=1e-3)
    assert np.allclose(costs[-1], (mean**2 + SPREAD**2) / 2, rtol=1e-3)


def test_the_proportional_part_takes_some_of_the_swinging():
    def swing(config):
        """Mean distance from the cost aimed at, after the first way down, (2,)."""
        costs, _ = followed(config, 300)
        return np.abs(costs / (config.budget_share * BUDGETS) - 1)[15:].mean(axis=0)

    assert np.all(swing(PI) < 0.75 * swing(ASCENT)) and np.all(swing(PID) < 0.75 * swing(ASCENT))


def test_averages_keep_noise_out_of_the_multiplier():
    noise = np.random.default_rng(0).normal(1.0, 0.2, size=(300, 1))
    pi, pid = controller(PI, np.array([1.0])), controller(dataclasses.replace(PID, multiplier_d=0.0), np.array([1.0]))
    trace = []
    for mean in PI.budget_share * noise:
        for m in (pi, pid):
            m.update(mean)
        trace.append([pi.value[0] - pi.integral[0], pid.value[0] - pid.integral[0]])
    assert np.std(trace, axis=0)[1] < 0.6 * np.std(trace, axis=0)[0]


def test_a_rise_within_the_budget_raises_the_multiplier_and_a_fall_does_not():
    config = dataclasses.replace(PID, multiplier_p=0.0)
    rising, falling = controller(config, np.array([1.0])), controller(config, np.array([1.0]))
    for cost in (0.1, 0.3, 0.5):
        rising.update(np.array([cost]))
        falling.update(np.array([0.6 - cost]))
    assert rising.value > 0 and rising.integral == 0
    assert falling.value == 0


def test_nothing_moves_before_the_first_episode():
    multipliers = controller(PID)
    multipliers.update(np.full(2, np.nan))
    assert not multipliers.value.any()


def test_a_restored_controller_goes_on_as_the_first():
    _, one = followed(PID, 20)
    other = controller(PID)
    other.restore(one.tensors())
    for m in (one, other):
        m.update(np.array([0.2, 0.3]))
    assert np.array_equal(one.value, other.value)
