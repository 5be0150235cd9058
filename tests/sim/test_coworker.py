"""A person at the table: what is measured of it, how it moves, what the tracker says, and what waiting buys."""

from importlib.resources import files

import numpy as np
import pytest

from palmar.safety.constraints import load
from palmar.safety.geometry import Kinematics as Tree
from palmar.safety.types import ConfigError, People
from palmar.sim import scene
from palmar.sim.env import make_env
from palmar.sim.people import ALONG, HALF, RADIUS, PeopleTracker, PeopleTrackerConfig, by_joints, poses
from palmar.sim.tasks import coworker_motion as motion
from palmar.sim.tasks import find
from palmar.sim.tasks.coworker import NEVER, CoworkerConfig, CoworkerIO, CoworkerTask, scripted
from palmar.sim.tasks.lift import ground
from palmar.sim.tasks.oracles import named

B = 4


@pytest.fixture(scope="module")
def rows(robot):
    return load(files("palmar.configs") / "constraints" / "coworker.yaml", robot.limits)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def plans():
    rng = np.random.default_rng(0)
    near = rng.uniform([0.42, -0.15], [0.58, 0.15], (300, 2))
    return {s: motion.plan(rng, split, near, 15.0) for s, split in motion.SPLITS.items()}


def test_distance_and_approach_are_those_of_the_filter(robot, rows):
    """Every sample of moving robots and people against ``measure_space`` at the same joints and velocities."""
    env = make_env(CoworkerTask(CoworkerConfig()), robot, rows, num_envs=B, seed=3)
    way = env.goal[:, 5 : 5 + 4 * motion.POINTS].reshape(B, -1, 4)
    way[..., 0] = 0.4 * (way[..., 0] - way[:, :1, 0])  # at once, and faster
    env.goal[:, 5 : 5 + 4 * motion.POINTS] = way.reshape(B, -1)
    seen, advance, rng, tree = [], env.engine.advance, np.random.default_rng(0), Tree.from_model(robot)
    env.engine.advance = lambda *u, **how: seen.append((advance(*u, **how), how["mocap"])) or seen[-1][0]
    for _ in range(12):
        env.step(rng.uniform(-1, 1, (B, env.action_dim)))
    near, fast = 0, 0.0
    for m, mocap in seen[2:]:
        back = mocap[..., :2, :3] * 0  # axis of both capsules, from hand to forearm
        back[:] = (mocap[..., 1, :3] - mocap[..., 0, :3])[..., None, :] / (ALONG[1] - ALONG[0])
        for s, w in np.ndindex(*m.t.shape):
            ends = np.stack([mocap[s, w, :, :3] + k * np.array(HALF)[:, None] * back[s, w] for k in (-1, 1)], 1)
            people = People(ends, np.array(RADIUS), np.zeros((2, 3)), 0.0)
            clear, approach = by_joints(tree, people, m.q[s, w], m.qd[s, w])
            assert m.clearance_person[s, w] == pytest.approx(clear, abs=1e-9)
            assert m.approach_person[s, w] == pytest.approx(approach, abs=0.05)
            near, fast = near + (clear < 0.5), max(fast, approach)
    assert near > 20 and fast > 0.2


def test_a_lost_tracker_is_a_person_everywhere_for_the_whole_speed(robot, rows):
    task = CoworkerTask(CoworkerConfig())
    env = make_env(task, robot, rows, num_envs=B, seed=3)
    env.goal[:, -2 * motion.BLINKS :] = [0.0, 1.0, 9.0, 9.5]
    action = np.zeros((B, env.action_dim))
    action[:, 2] = 1.0
    k = rows.names.index("speed_separation")
    cost = np.stack([env.step(action).cost[:, k] for _ in range(24)])
    assert cost[:7].max() < cost[8:19].min() and cost[8:19].min() > 0.04  # 0.35 s late, to 1.0 s: all the time
    assert cost[21:].max() == 0.0  # nobody is near a hand that rises at the other end


def test_people_are_as_fast_as_their_band_says_and_bearings_do_not_overlap(plans):
    t = np.arange(0, 15, 0.005)[:, None]
    for split, every in plans.items():
        p = every[:60]
        where = motion.where(np.broadcast_to(t, (len(t), len(p))), p)
        assert np.isfinite(where).all() and np.allclose(np.linalg.norm(where[..., 3:], axis=-1), 1)
        way = p[:, 3 : 3 + 4 * motion.POINTS].reshape(-1, motion.POINTS, 4)
        tip = motion.glide(np.broadcast_to(t, (len(t), len(p))), way[..., 0], way[..., 1:])
        speed = np.linalg.norm(np.diff(tip, axis=0), axis=-1).max(0) / 0.005
        bands = np.array(motion.SPLITS[split].speed)
        inside = ((speed[:, None] > bands[:, 0] - 0.02) & (speed[:, None] < bands[:, 1] + 0.02)).any(1)
        assert inside.all() and speed.min() >= 0.49 and speed.max() <= 2.52
    bearing = {s: np.arctan2(p[:, 1], p[:, 0] - 0.45) for s, p in plans.items()}
    for s, other in (("train", "test"), ("test", "train")):
        for low, high in motion.SPLITS[other].bearing:
            assert not np.any((bearing[s] > low + 1e-9) & (bearing[s] < high - 1e-9))


def test_hand_and_forearm_lie_on_one_line_towards_the_shoulder():
    rng = np.random.default_rng(0)
    tip, shoulder = rng.normal(size=(50, 3)), rng.normal(size=(50, 3))
    p = poses(tip, shoulder)
    w, x, y, z = np.moveaxis(p[..., 3:], -1, 0)
    axis = np.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], -1)
    back = (shoulder - tip) / np.linalg.norm(shoulder - tip, axis=1, keepdims=True)
    np.testing.assert_allclose(axis, np.stack([back, back], 1), atol=1e-9)
    np.testing.assert_allclose(p[:, 1, :3] - tip, ALONG[1] * back, atol=1e-9)


def test_the_person_collides_with_nothing_and_follows_its_script(robot):
    task = CoworkerTask(CoworkerConfig())
    model = scene.compose(furnish=task.furnish)[0]
    assert (
        model.nmocap == 2 and not model.geom("person_hand").contype[0] and not model.geom("person_hand").conaffinity[0]
    )
    env = make_env(task, robot, None, num_envs=B, seed=0)
    for _ in range(5):
        env.step(np.zeros((B, env.action_dim)))
    want = motion.where(np.full((1, B), 0.25), env.goal[:, 2:])[0]
    np.testing.assert_allclose(env.engine.batch.mocap_pos, want[..., :3], atol=1e-12)


def follow(config, seen, steps=60):
    tracker = PeopleTracker(config, batch=200, seed=0)
    tracker.reset(np.arange(200))
    ages, errors = [], []
    for k in range(steps):
        t = np.full(200, 0.05 * k)
        ends = np.zeros((200, 2, 3))
        ends[..., 0] = t[:, None]  # 1 m/s: a place is the time it was seen
        tracker.update(t, ends, np.full(200, seen(0.05 * k)))
        again = tracker.ends.copy()
        tracker.update(t, ends + 9, np.full(200, True))
        assert np.array_equal(again, tracker.ends)  # the same instant twice is one frame
        ages.append(t - tracker.received)
        errors.append(t - tracker.ends[:, 0, 0])
    return np.array(ages), np.array(errors), tracker


def test_the_tracker_is_late_noisy_and_lossy_as_configured():
    clean = PeopleTrackerConfig(noise=0.0, dropout=0.0)
    _, late, tracker = follow(clean, lambda t: True)
    assert late[5:].min() >= 0.05 - 1e-9 and late[5:].max() <= 0.05 + 2 * 0.05
    np.testing.assert_allclose(tracker.velocity[:, 0], 1.0, atol=0.15)
    _, noisy, _ = follow(PeopleTrackerConfig(noise=0.01, dropout=0.0), lambda t: True)
    assert noisy[5:].std() == pytest.approx(np.hypot(0.01, late[5:].std()), rel=0.15)
    assert follow(PeopleTrackerConfig(dropout=0.5), lambda t: True)[0][5:].mean() > 0.03
    ages, _, _ = follow(clean, lambda t: t < 1.0)
    assert ages[-1].min() > 1.7 and np.isinf(follow(clean, lambda t: False)[0]).all()


def test_a_robot_without_a_tracker_sees_a_lost_person(robot):
    io = find.load("coworker").io(robot, 1)
    io.reset(np.array([0]), robot.home[None])
    from palmar.sim.interface import Seen

    obs = io.observe(Seen(robot.home[None], robot.home[None] * 0, np.zeros((1, 3, 3)),
                          np.tile([1.0, 0, 0, 0], (1, 3, 1)), np.zeros((1, 2))))  # fmt: skip
    assert obs[0, -1] == NEVER and not obs[0, -10:-1].any()


def test_a_policy_sees_the_person_as_the_tracker_last_did(robot):
    env = make_env(CoworkerTask(CoworkerConfig()), robot, None, num_envs=8, seed=2)
    env.goal[:, -2 * motion.BLINKS :] = 50.0
    for _ in range(30):
        step = env.step(np.zeros((8, env.action_dim)))
    see = named(CoworkerIO, step.obs)
    fresh = see["person_age"][:, 0] < 0.15
    was = motion.line(np.full(8, 1.5) - see["person_age"][:, 0] - 0.05, env.goal[:, 2:])
    off = see["palm_to_person"].reshape(8, 2, 3) + env.io.hand.palm[:, None] - was
    assert fresh.sum() >= 4 and np.abs(off[fresh]).max() < 0.06  # 1 cm of noise, and up to a control step of way


def test_plans_stay_out_of_the_observation(robot):
    """Two plans that differ only in the future give the same observation now."""
    obs = []
    for shift in (0.0, 1.0):
        env = make_env(CoworkerTask(CoworkerConfig()), robot, None, num_envs=B, seed=1)
        first = env.goal[:, 5:].reshape(B, -1)[:, : 4 * motion.POINTS].reshape(B, motion.POINTS, 4)
        env.goal = env.goal.copy()
        way = first.copy()
        way[:, 1:, 0] += 5.0 + shift
        env.goal[:, 5 : 5 + 4 * motion.POINTS] = way.reshape(B, -1)
        env.goal[:, -4:] = 50.0
        for _ in range(3):
            step = env.step(np.zeros((B, env.action_dim)))
        obs.append(step.obs)
    np.testing.assert_allclose(obs[0], obs[1], atol=0.05)


def test_every_sentence_names_its_block(robot):
    for split in motion.SPLITS:
        task = CoworkerTask(CoworkerConfig(split=split))
        goal = task.start(np.random.default_rng(0), robot, 20).goal
        assert goal.shape == (20, motion.SIZE)
        assert [ground(task.instruction(g)) for g in goal] == goal[:, 0].astype(int).tolist()


def test_waiting_costs_a_fifth_of_not_looking(robot, rows):
    k, cost = rows.names.index("speed_separation"), {}
    for name in ("oracle", "unaware"):
        env = make_env(CoworkerTask(CoworkerConfig()), robot, rows, num_envs=4, seed=2)
        policy = scripted()[name]()
        obs, carry, total = env.reset(2), policy.start(4), np.zeros(4)
        for _ in range(100):
            action, carry = policy.act(obs, carry)
            step = env.step(action)
            obs, total = step.obs, total + step.cost[:, k]
        cost[name] = total.mean()
    assert cost["unaware"] > 0.3 and cost["oracle"] < 0.25 * cost["unaware"]


@pytest.mark.parametrize("bad", [{"split": "exam"}, {"spacing": 0.0}, {"mass": (0.2, 0.1)}])
def test_impossible_configurations_are_refused(bad):
    with pytest.raises(ConfigError):
        CoworkerConfig(**bad)
    with pytest.raises(ConfigError):
        PeopleTrackerConfig(delay=1.0)
