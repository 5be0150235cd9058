"""Words, sensors and starts of the lift task."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from palmar.safety.types import ConfigError, PalmarError
from palmar.sim.interface import Seen
from palmar.sim.kinematics import matrix, quaternion, rotation_vector, rotation_z
from palmar.sim.tasks import find
from palmar.sim.tasks.lift import BLOCKS, LiftConfig, LiftIO, LiftTask, ground, surface_distance
from palmar.sim.tasks.palm import CLOSEST, LEASH, N_ACTION, PALM_STEP
from palmar.sim.tracker import Tracker, TrackerConfig
from palmar.sim.words import UnknownInstruction


@pytest.mark.parametrize(
    ("words", "index"),
    [
        ("lift the red block", 0), ("Lift the red cube.", 0), ("pick up the green cylinder", 1),
        ("raise the can", 1), ("lift the blue one", 2), ("please lift the box", 2), ("lift the cube", 0),
    ],
)  # fmt: skip
def test_instructions_name_a_block(words, index):
    assert ground(words) == index


@pytest.mark.parametrize(
    "words",
    ["lift the block", "lift the purple cube", "lift the red cylinder", "", "dance", "lift the red green"],
)
def test_unknown_or_ambiguous_words_are_refused_with_the_known_ones(words):
    with pytest.raises(UnknownInstruction) as refused:
        ground(words)
    assert "red" in str(refused.value)


def test_every_tasks_own_instruction_grounds_to_its_target():
    task = LiftTask(LiftConfig())
    assert [ground(task.instruction(k)) for k in range(len(BLOCKS))] == list(range(len(BLOCKS)))


@pytest.mark.parametrize("bad", [{"friction": (0.0, 1.0)}, {"mass": (0.3, 0.1)}, {"hold": 0}, {"spacing": -1}])
def test_impossible_difficulty_is_refused(bad):
    with pytest.raises(ConfigError):
        LiftConfig(**bad)


def test_layouts_that_do_not_fit_are_refused(robot):
    with pytest.raises(ConfigError, match="do not fit"):
        LiftTask(LiftConfig(spacing=1.0)).start(np.random.default_rng(0), robot, 1)


def test_starts_keep_the_blocks_apart_on_the_table(robot):
    start = LiftTask(LiftConfig()).start(np.random.default_rng(0), robot, 500)
    poses, goal = start.poses, start.goal
    for i in range(3):
        for j in range(i):
            assert np.linalg.norm(poses[:, i, :2] - poses[:, j, :2], axis=1).min() >= LiftConfig().spacing
    assert set(goal) == {0, 1, 2}


def test_surface_distance_of_box_and_cylinder():
    half = np.array([[0.02, 0.03, 0.04], [0.02, 0.02, 0.04]])
    points = np.array([[[0.05, 0, 0], [0, 0, 0]], [[0.03, 0.04, 0], [0.02, 0.02, 0]]])
    d = surface_distance(points, half, np.array([False, True]))
    np.testing.assert_allclose(d, [[0.03, -0.02], [0.03, np.hypot(0.02, 0.02) - 0.02]], atol=1e-12)


def test_rotations_agree_with_each_other():
    rng = np.random.default_rng(0)
    q = rng.normal(size=(50, 4))
    q /= np.linalg.norm(q, axis=1, keepdims=True)
    r = matrix(q)
    np.testing.assert_allclose(r @ r.swapaxes(1, 2), np.broadcast_to(np.eye(3), r.shape), atol=1e-12)
    np.testing.assert_allclose(matrix(quaternion(r)), r, atol=1e-12)
    np.testing.assert_allclose(
        rotation_vector(rotation_z(np.array([0.3, -1.2]))), [[0, 0, 0.3], [0, 0, -1.2]], atol=1e-12
    )


def feed(config, steps, dt=0.05, batch=400):
    tracker = Tracker(config, batch=batch, objects=1, rng=np.random.default_rng(0))
    zero, unit = np.zeros((batch, 1, 3)), np.tile([1.0, 0, 0, 0], (batch, 1, 1))
    tracker.reset(np.arange(batch), np.zeros(batch), zero, unit)
    out = []
    for k in range(1, steps + 1):
        p = zero.copy()
        p[..., 0] = k * dt  # the object moves at 1 m/s, so a pose's x is the time it was seen
        tracker.update(np.full(batch, k * dt), p, unit)
        out.append(k * dt - tracker.position[:, 0, 0])
    return np.array(out[10:])


def test_tracker_is_as_old_as_configured():
    clean = TrackerConfig(rate=15.0, noise=0.0, angle_noise=0.0, delay=0.06, dropout=0.0)
    age = feed(clean, 60)
    assert age.min() >= 0.06 and age.max() <= 0.06 + 1 / 15 + 2 * 0.05
    assert feed(TrackerConfig(noise=0.0, angle_noise=0.0, delay=0.0, dropout=0.0, rate=1000.0), 60).max() < 1e-9


def test_tracker_noise_and_dropout_are_as_configured():
    noisy = feed(TrackerConfig(noise=0.01, angle_noise=0.0, delay=0.0, dropout=0.0, rate=1000.0), 60)
    assert noisy.std() == pytest.approx(0.01, rel=0.05)
    base = feed(TrackerConfig(noise=0.0, delay=0.0, dropout=0.0), 60).mean()
    assert feed(TrackerConfig(noise=0.0, delay=0.0, dropout=0.5), 60).mean() > base + 0.03


def test_impossible_trackers_are_refused():
    for bad in ({"rate": 0.0}, {"dropout": 1.0}, {"noise": -1.0}, {"delay": 5.0}):
        with pytest.raises(ConfigError):
            TrackerConfig(**bad)


def test_unknown_task_is_refused_with_the_known_ones():
    with pytest.raises(PalmarError, match="lift"):
        find.load("juggle")


def test_equal_inputs_give_equal_targets(robot):
    rng = np.random.default_rng(0)
    ios = [find.load("lift").io(robot, 1) for _ in range(2)]
    position, quat = rng.uniform(0.4, 0.6, (1, 3, 3)), np.tile([1.0, 0, 0, 0], (1, 3, 1))
    for _ in range(5):
        action, q = rng.uniform(-1, 1, (1, 8)), robot.home[None] + rng.normal(0, 0.01, (1, robot.n))
        seen = [io.observe(Seen(q, q * 0, position, quat, np.array([1]))) for io in ios]
        done = [io.joint_target(action) for io in ios]
        assert np.array_equal(*seen) and np.array_equal(*done)


def test_the_set_point_stays_on_its_leash_and_fingers_close_no_further_than_they_can(robot):
    io = LiftIO(robot, 2)
    io.reset(np.arange(2), np.tile(robot.home, (2, 1)))
    for k in range(12):
        before = io.target.copy()
        after = io.joint_target(np.array([[3.0] * N_ACTION, [-3.0] * N_ACTION]))  # beyond its range: as far as 1
        lead = np.minimum((k + 1) * PALM_STEP, LEASH)
        np.testing.assert_allclose(io.palm - io.hand.palm, [[lead] * 3, [-lead] * 3])
        assert np.abs(after - before)[:, : robot.n_arm].max() <= 0.15
    assert io.share.tolist() == [[CLOSEST] * 4, [0.0] * 4] and np.abs(io.last_action).max() == 1.0
    assert (after >= robot.limits.q_min).all() and (after <= robot.limits.q_max).all()


def test_the_reward_rises_with_the_named_block_and_leaps_where_it_is_high_enough(robot):
    hand, height = LiftIO(robot, 1).hand, LiftConfig().height

    def reward(block, rise):
        position = np.array([[[0.5, 0.12 * k, b.half_size[2] + rise * (k == block)] for k, b in enumerate(BLOCKS)]])
        unit, radius = np.tile([1.0, 0, 0, 0], (1, 3, 1)), np.full(4, 0.01)
        view: Any = SimpleNamespace(
            t=np.zeros(1), hand=hand, tip_radius=radius, position=position, quaternion=unit, goal=np.array([1])
        )
        return LiftTask(LiftConfig()).reward(view, np.zeros((1, N_ACTION)))[0]

    assert reward(1, 0.0) < reward(1, 0.05) < reward(1, height - 1e-6) < reward(1, height + 1e-6) - 0.5
    assert reward(2, 0.2) == reward(1, 0.0)  # another block does not count
