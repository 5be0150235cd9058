"""Several environments as one."""

import numpy as np
import pytest

from palmar.safety.types import CommandRefused, ConfigError
from palmar.sim.env import make_env
from palmar.sim.shards import SHARDS, Shards
from palmar.sim.tasks.lift import LiftConfig, LiftTask

B = 6


def make(robot, constraints, threads=1, seed=3):
    def part(worlds, s):
        return make_env(LiftTask(LiftConfig()), robot, constraints, num_envs=worlds, seed=s, nthread=threads)

    return Shards(part, num_envs=B, seed=seed)


def roll(env, steps=6):
    rng = np.random.default_rng(0)
    return [env.step(rng.uniform(-1, 1, (B, env.action_dim))) for _ in range(steps)]


def test_shards_are_their_parts_beside_each_other(robot, constraints):
    env, apart = make(robot, constraints), make(robot, constraints)
    rng = np.random.default_rng(0)
    for s in roll(env):
        action = rng.uniform(-1, 1, (B, env.action_dim))
        parts = [p.step(a) for p, a in zip(apart.parts, np.split(action, SHARDS), strict=True)]
        for name in ("obs", "reward", "cost", "terminated", "truncated"):
            assert np.array_equal(getattr(s, name), np.concatenate([getattr(p, name) for p in parts]))
        assert np.array_equal(s.info["margin"], np.concatenate([p.info["margin"] for p in parts]))


def test_the_same_seed_is_the_same_run_at_any_thread_count_and_parts_differ(robot, constraints):
    one, two = roll(make(robot, constraints, 1)), roll(make(robot, constraints, 2))
    assert all(np.array_equal(a.obs, b.obs) and np.array_equal(a.cost, b.cost) for a, b in zip(one, two, strict=True))
    env = make(robot, constraints)
    obs = env.reset(8)
    assert np.array_equal(obs, env.reset(8)) and not np.array_equal(*np.split(obs, SHARDS))


def test_bad_actions_step_nothing(robot, constraints):
    env = make(robot, constraints)
    before = [p.engine.qpos.copy() for p in env.parts]
    bad = np.zeros((B, env.action_dim))
    bad[-1, 0] = np.nan
    with pytest.raises(CommandRefused, match="environment 5"):
        env.step(bad)
    with pytest.raises(CommandRefused, match="shape"):
        env.step(bad[:-1])
    assert all(np.array_equal(a, p.engine.qpos) for a, p in zip(before, env.parts, strict=True))


def test_worlds_that_cannot_be_shared_out_are_refused(robot, constraints):
    with pytest.raises(ConfigError, match="multiple"):
        Shards(lambda worlds, s: None, num_envs=3)
