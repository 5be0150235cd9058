"""A cube in the upturned hand."""

from typing import Any

import numpy as np
import pytest

from palmar.safety.types import ConfigError
from palmar.sim.env import make_env
from palmar.sim.tasks.oracles import DoNothing
from palmar.sim.tasks.reorient import STEP, ReorientConfig, ReorientTask
from palmar.sim.trajectories import angle_between


def test_left_alone_the_cube_lies_still_and_nothing_is_achieved(robot):
    env, policy = make_env(ReorientTask(ReorientConfig()), robot, None, num_envs=12, seed=0, nthread=1), DoNothing(16)
    obs, before = env.reset(0), env.engine.objects()
    ended = np.zeros(12, bool)
    for _ in range(60):
        s = env.step(policy.act(obs, None)[0])
        ended |= s.terminated
    position, quaternion = env.engine.objects()
    assert not ended.any() and not s.info["success"].any()
    assert np.linalg.norm(position - before[0], axis=-1).max() < 0.02
    assert angle_between(quaternion, before[1]).max() < 0.25


def test_goals_are_as_far_as_asked_about_the_vertical_and_in_one_split_only(robot):
    turns: dict[str, np.ndarray] = {}
    for split in ("train", "test"):
        task = ReorientTask(ReorientConfig(split=split))
        start = task.start(np.random.default_rng(0), robot, 2000)
        turns[split] = angle_between(start.poses[:, 0, 3:], start.goal)
        assert turns[split].min() > 0.6 - 1e-6 and turns[split].max() < 1.6 + 1e-6
    bins = {k: set(np.floor((v - 0.6) / 0.05 - 1e-6).astype(int)) for k, v in turns.items()}
    assert not bins["train"] & bins["test"] and len(bins["test"]) == 4


def test_a_cube_that_leaves_the_hand_ends_the_episode(robot):
    env = make_env(ReorientTask(ReorientConfig()), robot, None, num_envs=3, seed=0, nthread=1)
    e = env.engine
    push = np.zeros((3, e.model.nbody, 6))
    push[1, e.model.body("cube").id, :3] = [0.0, 3.0, 3.0]
    e.disturb(push, None)
    ended = np.zeros(3, bool)
    for _ in range(15):
        ended |= env.step(np.zeros((3, env.action_dim))).terminated
    assert ended.tolist() == [False, True, False]


def test_the_arm_never_moves_and_fingers_by_at_most_a_step(robot):
    task = ReorientTask(ReorientConfig())
    io, start = task.io(robot, 4), task.start(np.random.default_rng(0), robot, 4)
    io.reset(np.arange(4), start.q)
    rng = np.random.default_rng(1)
    for _ in range(20):
        before, after = io.target.copy(), io.joint_target(rng.uniform(-4, 4, (4, 16)))
        assert np.array_equal(after[:, :7], start.q[:, :7])
        assert np.abs(after - before).max() <= STEP + 1e-12
        assert (after >= robot.limits.q_min).all() and (after <= robot.limits.q_max).all()


def test_the_reward_is_best_at_the_goal(robot):
    task = ReorientTask(ReorientConfig())
    start = task.start(np.random.default_rng(0), robot, 2)
    io = task.io(robot, 2)

    class Now:
        t, goal, hand = np.ones(2), start.goal, io.kinematics.hand(start.q)
        position, quaternion = start.poses[:, :, :3], np.stack([start.poses[0, :, 3:], start.goal[1:]])

    view: Any = Now()
    away, there = task.reward(view, np.zeros((2, 16)))
    assert there > away + 1.0
    assert task.achieved(view).tolist() == [False, True] and not task.failed(view).any()


@pytest.mark.parametrize(
    ("bad", "said"),
    [({"split": "x"}, "split"), ({"turn": (0.6, 0.7)}, "turn"), ({"tilt": 3.0}, "tilt"), ({"hold": 0.0}, "hold")],
)
def test_impossible_turns_are_refused(bad, said):
    with pytest.raises(ConfigError, match=said):
        ReorientConfig(**bad)
