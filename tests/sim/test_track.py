"""Trajectories and the task that follows them."""

import json
from typing import Any

import numpy as np
import pytest

from palmar.safety.types import ConfigError
from palmar.sim import trajectories
from palmar.sim.interface import Seen
from palmar.sim.kinematics import matrix, rotation_vector
from palmar.sim.tasks.oracles import DoNothing
from palmar.sim.tasks.track import GRASPING, NUMBERS, TEST_SHARE, TrackConfig, TrackTask
from palmar.sim.tasks.track_io import GOAL_RATE, LEAD, RESIDUAL, RESIDUAL_TURN, TrackIO, goal_at, grasp_of, rotation_of
from palmar.sim.tasks.track_oracle import TrackOracle
from palmar.sim.tasks.track_score import completions
from palmar.sim.trajectories import Trajectory, angle_between, between, generate, read, write

START = np.array([0.5, 0.0, 0.025, 1.0, 0.0, 0.0, 0.0])


def a_carry(seed=0):
    rng = np.random.default_rng(seed)
    return generate(rng, START, lower=(0.4, -0.1, 0.1), upper=(0.6, 0.1, 0.2), turn=0.5, tilt=0.3, legs=4, leg=1.5)


def test_a_generated_carry_starts_at_rest_stays_in_its_box_and_within_its_turns():
    for seed in range(50):
        path = a_carry(seed)
        assert np.array_equal(path.pose[0], START) and path.duration == pytest.approx(6.0)
        carried = path.pose[path.t >= 1.5 - 1e-9]
        assert (carried[:, :3] >= np.array([0.4, -0.1, 0.1]) - 1e-9).all()
        assert (carried[:, :3] <= np.array([0.6, 0.1, 0.2]) + 1e-9).all()
        assert angle_between(path.pose[:, 3:], START[3:]).max() <= 0.5 + 0.3 + 1e-9
        assert np.linalg.norm(path.pose[1, :3] - path.pose[0, :3]) < 1e-4  # minimum jerk starts gently


@pytest.mark.parametrize("ending", [".csv", ".json"])
def test_a_file_gives_back_the_trajectory_to_the_last_digit(tmp_path, ending):
    path = tmp_path / f"carry{ending}"
    write(path, a_carry())
    back = read(path)
    assert np.array_equal(back.t, a_carry().t) and np.array_equal(back.pose, a_carry().pose)


GOOD = "t,x,y,z,qw,qx,qy,qz\n0,0.5,0,0.1,1,0,0,0\n1,0.5,0,0.2,1,0,0,0\n"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", GOOD.replace("qw", "w"), "header"),
        ("a.csv", GOOD.replace("1,0.5", "0,0.5"), "increase"),
        ("a.csv", GOOD.replace("0.2,1,0", "0.2,1,1"), "length 1"),
        ("a.csv", GOOD.replace("1,0.5,0,0.2", "1,nan,0,0.2"), "not finite"),
        ("a.csv", GOOD.replace("0.2", "9.0"), "speed"),
        ("a.csv", GOOD + "2,0.5\n", "line 4"),
        ("a.csv", GOOD.replace("0.5", "here"), "no trajectory"),
        ("a.csv", "", "header"),
        ("a.json", '{"t": [0, 1]}', "keys"),
        ("a.json", "[", "no trajectory"),
        ("a.json", json.dumps({"t": [0, 1], "pose": [[1, 2], [3, 4]]}), "poses"),
        ("a.txt", GOOD, "endings"),
    ],
)
def test_files_that_are_no_trajectory_are_refused_with_the_reason(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=said):
        read(tmp_path / name)


def test_a_file_that_is_missing_or_huge_is_refused(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="cannot read"):
        read(tmp_path / "none.csv")
    (tmp_path / "a.csv").write_text(GOOD)
    monkeypatch.setattr(trajectories, "LARGEST", 10)
    with pytest.raises(ConfigError, match="bytes"):
        read(tmp_path / "a.csv")


def test_between_two_poses_the_turn_is_even_and_the_short_way():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 200, 7))
    for x in (a, b):
        x[:, 3:] /= np.linalg.norm(x[:, 3:], axis=1, keepdims=True)
    whole = angle_between(a[:, 3:], b[:, 3:])
    for share in (0.0, 0.3, 1.0):
        mid = between(a, b, np.full(200, share))
        np.testing.assert_allclose(angle_between(a[:, 3:], mid[:, 3:]), share * whole, atol=1e-6)
        np.testing.assert_allclose(mid[:, :3], a[:, :3] + share * (b[:, :3] - a[:, :3]))


def test_no_trajectory_is_in_both_splits_and_a_number_is_always_the_same_one():
    numbers = {}
    for split in ("train", "test"):
        task, rng = TrackTask(TrackConfig(split=split)), np.random.default_rng(0)
        numbers[split] = {task._number(rng) for _ in range(2000)}
    assert not numbers["train"] & numbers["test"] and max(map(max, numbers.values())) < NUMBERS
    assert all(n % TEST_SHARE == 0 for n in numbers["test"])
    one, two = TrackTask(TrackConfig()).trajectory(7), TrackTask(TrackConfig(split="test")).trajectory(7)
    assert np.array_equal(one.pose, two.pose)
    assert not np.array_equal(one.pose, TrackTask(TrackConfig()).trajectory(8).pose)


def test_episodes_begin_with_the_open_hand_where_the_pinch_will_be(robot):
    start = TrackTask(TrackConfig()).start(np.random.default_rng(0), robot, 8)
    io = TrackIO(robot, 8)
    hand, (palm, turned) = io.kinematics.hand(start.q), grasp_of(robot)(start.poses[:, 0])
    np.testing.assert_allclose(hand.palm, palm, atol=1e-3)
    np.testing.assert_allclose(hand.rotation, turned, atol=1e-2)
    assert np.array_equal(start.goal[:, 0], start.poses[:, 0])
    still = round(GRASPING * GOAL_RATE)
    assert np.array_equal(start.goal[:, still], start.goal[:, 0]) and not np.array_equal(
        start.goal[:, still + 10], start.goal[:, 0]
    )


def test_the_wrist_stays_within_the_residual_of_its_plan_whatever_the_action(robot):
    """In commanded joints, which follow the plan with one damped step per period."""
    task, b = TrackTask(TrackConfig()), 4
    start = task.start(np.random.default_rng(1), robot, b)
    io = TrackIO(robot, b)
    io.reset(np.arange(b), start.q)
    place = grasp_of(robot)
    action = np.random.default_rng(0).choice([-3.0, 3.0], (b, io.action_dim))  # beyond its range, and kept up
    action[:, 3:6] = [[0, 0, 0], [0, 0, 0], [0, 0, 3], [0, 0, -3]]  # three turns at once leave the arm's reach
    worst = 0.0
    for k in range(120):
        seen = Seen(io.target, 0 * io.target, start.poses[:, :, :3], start.poses[:, :, 3:], start.goal)
        assert io.observe(seen).shape == (b, io.obs_dim)
        q = io.joint_target(action)
        hand, (palm, turned) = io.kinematics.hand(q), place(goal_at(start.goal, np.full(b, k / 20 + LEAD)))
        worst = max(worst, float(np.abs(hand.palm - palm).max()))
        turn = np.linalg.norm(rotation_vector(hand.rotation @ turned.swapaxes(1, 2)), axis=1)
        assert turn.max() < RESIDUAL_TURN + 0.1
    assert 0.5 * RESIDUAL < worst < RESIDUAL + 0.025


def test_rotation_vectors_and_matrices_agree():
    v = np.random.default_rng(0).normal(0, 0.5, (100, 3))
    v = np.concatenate([v, np.zeros((1, 3))])
    np.testing.assert_allclose(rotation_vector(rotation_of(v)), v, atol=1e-9)


def test_reward_is_one_on_the_trajectory_and_falls_by_e_at_five_centimetres(robot):
    task = TrackTask(TrackConfig())
    start = task.start(np.random.default_rng(0), robot, 3)
    at = np.full(3, 2.0)
    wanted = goal_at(start.goal, at)
    off: Any = wanted.copy()
    off[1, 0] += 0.05
    turned = trajectories.product(trajectories.axis_angle(np.array([0.0, 0.0, 1.0]), 1.0), off[2, 3:])
    off[2, 3:] = turned

    class Seen_:
        t, position, quaternion, goal = at, off[:, None, :3], off[:, None, 3:], start.goal

    view: Any = Seen_()
    np.testing.assert_allclose(task.reward(view, np.zeros((3, 10))), [1.0, np.exp(-1), np.exp(-1)], atol=1e-6)


def test_the_oracle_carries_further_along_than_an_open_hand():
    oracle = completions(TrackOracle(), split="train", episodes=2, seed=3, batch=2)
    nothing = completions(DoNothing(10), split="train", episodes=2, seed=3, batch=2)
    assert oracle.mean() > 0.7 and nothing.mean() < 0.3, (oracle, nothing)
    assert 0 <= nothing.min() and oracle.max() <= 1 + 1e-9


@pytest.mark.parametrize(
    ("bad", "said"),
    [({"split": "x"}, "split"), ({"near": 0.0}, "near"), ({"tilt": 2.0}, "tilt"), ({"leg": 0}, "leg")],
)
def test_impossible_tracks_are_refused(bad, said):
    with pytest.raises(ConfigError, match=said):
        TrackConfig(**bad)


def test_what_is_carried_down_on_purpose_is_not_called_dropped(constraints):
    named = TrackConfig().constraints
    assert set(constraints.names) - set(named) == {"dropped_object"}
    assert constraints.select(named).names == named


def test_a_trajectory_from_a_file_is_every_episodes(robot, tmp_path):
    path = tmp_path / "own.csv"
    write(path, a_carry(5))
    start = TrackTask(TrackConfig(file=str(path))).start(np.random.default_rng(0), robot, 3)
    assert np.array_equal(start.goal[0], start.goal[2])
    np.testing.assert_allclose(start.goal[0, -1], a_carry(5).pose[-1])
    assert matrix(start.goal[0, :, 3:]).shape == (151, 3, 3)
    write(path, Trajectory(np.array([0.0, 1.0]), np.array([[2.0, 0, 0.02, 1, 0, 0, 0]] * 2)))
    with pytest.raises(ConfigError, match="grasp"):
        TrackTask(TrackConfig(file=str(path))).start(np.random.default_rng(0), robot, 1)
