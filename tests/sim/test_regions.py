"""What a shared cell asks for is measured in training too, by the filter's own distances, and only where asked for."""

from importlib.resources import files

import numpy as np
import pytest

from palmar.safety.constraints import load
from palmar.safety.geometry import Kinematics
from palmar.safety.obstacles import keep_outs
from palmar.safety.sight import joint_regions
from palmar.sim.clearance import regions_routine
from palmar.sim.env import make_env
from palmar.sim.tasks.lift import LiftConfig, LiftTask

NAMES = ("keep_out_left", "keep_out_fixture", "torque_rate", "speed_separation")


@pytest.fixture(scope="module")
def shared(robot):
    path = files("palmar.configs") / "constraints" / "shared_cell.yaml"
    return load(path, robot.limits)  # type: ignore[arg-type]


def measured(robot, constraints, steps=5):
    """An environment and what it measured in some random steps."""
    env = make_env(LiftTask(LiftConfig(constraints=constraints.names)), robot, constraints, num_envs=3, seed=0)
    seen, advance, rng = [], env.engine.advance, np.random.default_rng(0)
    env.engine.advance = lambda *u, **given: seen.append(advance(*u, **given)) or seen[-1]
    out = [env.step(rng.uniform(-1, 1, (3, env.action_dim))) for _ in range(steps)]
    return env, seen, out


def test_regions_are_measured_at_every_sample_and_cost_when_entered(robot, shared):
    rows = shared.select(NAMES)
    env, seen, out = measured(robot, rows)
    kinematics, obstacles = Kinematics.from_model(robot), keep_outs(rows, 0.0)
    for m, step in zip(seen, out, strict=True):
        ours = m.clearance_keep_out
        assert ours.shape == (*m.t.shape, 2)
        np.testing.assert_allclose(ours, joint_regions(kinematics, obstacles, m.q), atol=1e-9)
        np.testing.assert_allclose(step.info["margin"][:, :2], ours.min(axis=0), atol=1e-6)
        np.testing.assert_allclose(step.cost[:, :2], (ours < 0).sum(axis=0) * env.engine.dt, atol=1e-6)


def test_torque_rate_is_the_change_of_torque_and_nobody_is_there(robot, shared):
    env, seen, _ = measured(robot, shared.select(NAMES))
    tau = np.concatenate([m.tau for m in seen])
    rate = np.concatenate([m.tau_rate for m in seen])
    np.testing.assert_allclose(rate[1:], np.diff(tau, axis=0) / env.engine.dt)
    assert np.abs(rate).max() > 1.0
    assert np.all(seen[0].clearance_person == np.inf)
    assert np.all(seen[0].approach_person == 0.0)


def test_what_no_constraint_asks_for_is_not_measured(robot, constraints):
    _, seen, _ = measured(robot, constraints, steps=1)
    for name in ("tau_rate", "clearance_keep_out", "clearance_person", "approach_person", "approach_contact", "tank"):
        assert getattr(seen[0], name) is None


def test_a_robot_of_other_shapes_gives_the_same_regions(robot, shared, monkeypatch):
    fast, rng = regions_routine(robot, shared), np.random.default_rng(0)
    monkeypatch.setattr(Kinematics, "plain", False)
    slow = regions_routine(robot, shared)
    assert fast is not None and slow is not None
    q = robot.home + rng.uniform(-0.3, 0.3, (2, 5, robot.n))
    np.testing.assert_allclose(fast(q), slow(q), atol=1e-9)
