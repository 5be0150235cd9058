"""Laws of the environment under a drawn reality and an adversary, across the ends of episodes."""

import numpy as np

from palmar.sim import reality
from palmar.sim.adversary import Budget
from palmar.sim.attacks import Constant, Noise
from palmar.sim.env import make_env
from palmar.sim.tasks.lift import LiftConfig, LiftTask

NONE = reality.named("none")
NOBODY = (Noise, Budget(bodies=("red_cube", "palm"), observation={"q": 0.0}))


def roll(robot, constraints, steps=6, **kwargs):
    """Steps and final physics of two worlds that end their episodes in between."""
    env = make_env(LiftTask(LiftConfig(max_steps=4)), robot, constraints, num_envs=2, seed=3, nthread=1, **kwargs)
    rng = np.random.default_rng(5)
    return [env.step(rng.uniform(-1, 1, (2, env.action_dim))) for _ in range(steps)], env


def test_nothing_drawn_and_nothing_allowed_changes_no_bit_of_rewards_and_costs(robot, constraints):
    plain, first = roll(robot, constraints)
    other, second = roll(robot, constraints, reality=NONE, adversary=NOBODY)
    for a, b in zip(plain, other, strict=True):
        for name in ("obs", "reward", "cost"):
            assert getattr(a, name).tobytes() == getattr(b, name).tobytes(), name
    np.testing.assert_array_equal(first.engine.qpos, second.engine.qpos)


def test_a_run_under_both_is_that_of_its_seed_and_within_its_budget(robot, constraints):
    budget = Budget(
        force=2.0, impulse=0.2, bodies=("red_cube",), joint_torque=0.5, observation={"block_position": 0.02}
    )
    how = {"reality": reality.named("train"), "adversary": (lambda surface: Constant(surface, seed=1), budget)}
    once, env = roll(robot, constraints, **how)
    again, _ = roll(robot, constraints, **how)
    free, _ = roll(robot, constraints)
    for a, b in zip(once, again, strict=True):
        assert a.obs.tobytes() == b.obs.tobytes() and np.isfinite(a.obs).all()
    assert np.any(once[2].obs != free[2].obs)
    assert env.broken == 0
    assert 0 < env._limited.spent.impulse.max() <= 0.2


def test_a_changed_observation_is_what_the_policy_sees_and_nothing_else(robot, constraints):
    """Two centimetres on the named block, to the last digit of the observation; the world itself runs on unchanged."""
    how = {"adversary": (Constant, Budget(observation={"block_position": 0.02}))}
    told, lied = roll(robot, constraints)[0], roll(robot, constraints, **how)[0]
    env = roll(robot, constraints, steps=0)[1]
    start = int(np.cumsum((0, *env.io.obs_sizes))[env.io.obs_names.index("block_position")])
    for a, b in zip(told, lied, strict=True):
        change = np.abs(b.obs.astype(float) - a.obs)
        np.testing.assert_allclose(change[:, start : start + 3], 0.02, atol=1e-7)
        assert change[:, start : start + 3].max() <= 0.02
        assert not np.delete(change, np.s_[start : start + 3], axis=1).any()
        assert a.reward.tobytes() == b.reward.tobytes()
