"""Replaying a rollout: the motion that was sent, slower, on a clock that waits; onto topics, and onto a robot."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import toy_robot as toy

from palmar.real_robot import ros_env
from palmar.rollouts.header import RolloutHeader
from palmar.rollouts.playback import APPROACH, Motion, Playback, led_to, load, pose_at, slowed
from palmar.rollouts.read import read
from palmar.rollouts.record import RolloutWriter
from palmar.safety.types import RolloutRefused


def over_ros(test):
    there = pytest.mark.skipif(bool(ros_env.missing()), reason=ros_env.missing() or "rclpy is here")
    return pytest.mark.ros(there(test))


SECONDS = 0.5


def moved(t):
    """A smooth motion from home and back, (T, 2)."""
    return toy.HOME + 0.2 * np.sin(np.pi * t / SECONDS)[:, None] ** 2 * (1, -1)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A rollout of the toy robot: half a second at 1 kHz and a block that is seen at 20 Hz."""
    out = tmp_path_factory.mktemp("rollout") / "rollout.mcap"
    header = RolloutHeader(
        task="lift",
        instruction="lift it",
        robot=toy.robot(),
        constraints=toy.CONSTRAINTS,
        control_dt=0.001,
        t0=3.0,
        wall_start_ns=1_790_000_000_000_000_000,
        objects=("red",),
    )
    writer = RolloutWriter(out, header)
    t = np.arange(0, SECONDS, 0.001)
    for k, (at, q) in enumerate(zip(t + 3.0, moved(t), strict=True)):
        writer.joint_state(at, q + 0.001, np.full(2, 0.1), np.zeros(2))
        writer.command(at, q, np.zeros(2), np.zeros(2), np.zeros(2))
        if k % 50 == 0:
            writer.object_pose(at, "red", np.array([0.6, 0.001 * k, 0.03]), np.array([1.0, 0, 0, 0]))
    writer.finish(success=True, detail={})
    writer.close()
    return out


def test_what_is_followed_is_what_was_sent_at_the_speed_that_is_asked_for(path):
    motion = load(read(path), toy.robot())
    slow = slowed(motion, 0.25)
    assert np.isclose(slow.duration, 4 * (SECONDS - 0.001))
    t = np.linspace(0, SECONDS - 0.002, 50)
    assert np.allclose(slow.at(4 * t), moved(t), atol=1e-5)
    fastest = [np.abs(np.diff(m.q, axis=0) / np.diff(m.t)[:, None]).max() for m in (motion, slow)]
    assert np.isclose(fastest[1], fastest[0] / 4)


@pytest.mark.parametrize("speed", [0.0, -0.3, 1.01, float("nan")])
def test_no_speed_but_a_share_of_the_recorded_one_is_taken(path, speed):
    with pytest.raises(RolloutRefused, match="accepted above 0 and up to 1"):
        slowed(load(read(path), toy.robot()), speed)


def test_a_rollout_of_another_robot_is_refused_by_name(path):
    robot = toy.robot()
    wider = replace(robot, name="wide", limits=replace(robot.limits, q_max=robot.limits.q_max + 0.1))
    with pytest.raises(RolloutRefused, match="of robot toy .* this is wide"):
        load(read(path), wider)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda c: replace(c, u=np.full_like(c.u, np.nan)), "NaN"),
        (lambda c: replace(c, t=c.t[::-1]), "do not increase"),
        (lambda c: replace(c, u=c.u + [0.0, 3.0]), r"beyond the range of \['elbow'\]"),
        (lambda c: replace(c, t=c.t[:1], u=c.u[:1]), "1 commands"),
    ],
)
def test_commands_that_cannot_have_been_sent_are_refused(path, spoil, says):
    rollout = read(path)
    with pytest.raises(RolloutRefused, match=says):
        load(replace(rollout, command=spoil(rollout.command)), toy.robot())


def test_the_way_to_the_first_command_is_slow_and_starts_at_rest():
    motion = Motion(np.linspace(0, 1, 101), np.linspace([0.5, 0.0], [1.0, 0.2], 101))
    led = led_to(motion, np.array([-0.3, 0.1]))
    assert np.allclose(led.q[0], [-0.3, 0.1]) and np.allclose(led.q[-1], motion.q[-1])
    way = led.t <= led.duration - motion.duration
    speed = np.abs(np.diff(led.q[way], axis=0) / np.diff(led.t[way])[:, None])
    assert speed.max() <= APPROACH * 1.001 and speed.max() > 0.9 * APPROACH
    assert speed[0].max() < 0.01 and speed[-1].max() < 0.01
    assert np.isclose(led.duration - motion.duration, 1.875 * 0.8 / APPROACH)


def test_the_clock_waits_for_a_robot_that_does_not_follow_and_goes_on_where_it_was():
    player = Playback(Motion(np.linspace(0, 2, 201), np.linspace([0.0], [2.0], 201)), rate=20.0, lag=0.2)
    player.start(np.zeros(1))
    q, reached = np.zeros(1), []
    for k in range(200):
        held = 30 <= k < 90
        target = player.targets(q)
        q = q if held else target[0]
        reached.append(float(target[0, 0]))
    assert 40 < player.waited <= 60
    assert np.all(np.diff(reached) >= 0) and np.diff(reached).max() <= 1.0 / 20 + 1e-9
    assert max(reached[30:90]) - reached[29] <= 0.2 + 2 / 20
    assert reached[-1] == 2.0 and player.left == 0


def test_poses_are_the_newest_before_a_time(path):
    red = read(path).objects["red"]
    assert pose_at(red, 2.9) is None
    position, _ = pose_at(red, 3.12)
    assert np.isclose(position[1], 0.1)


@pytest.fixture(scope="module")
def r(tmp_path_factory):
    from ros_seat import ros

    with ros(tmp_path_factory.mktemp("ros")) as made:
        yield made


@over_ros
def test_onto_topics_joint_states_and_poses_come_in_order_and_end(r, path):
    from geometry_msgs.msg import PoseStamped
    from sensor_msgs.msg import JointState

    from palmar.real_robot.nodes.replay import OntoTopics

    desk, states, poses = r.node("desk"), [], []
    desk.create_subscription(JointState, "joint_states", states.append, 100)
    desk.create_subscription(PoseStamped, "objects/red/pose", poses.append, 100)
    node = r.add(OntoTopics(read(path), 0.5, context=r.context))
    r.until(lambda: node.over, "the end", timeout=20)
    r.spin(0.2)
    # 100 Hz of half a second at half speed: at most 100 and the last; a busy machine leaves some out
    assert 10 <= len(states) <= 102 and list(states[0].name) == ["shoulder", "elbow"]
    q = np.array([s.position for s in states])
    recorded = read(path).joints.q
    rows = [int(np.abs(recorded - row).sum(axis=1).argmin()) for row in q]
    assert all(np.allclose(recorded[k], row) for k, row in zip(rows, q, strict=True))
    assert np.allclose(q[-1], recorded[-1]) and np.ptp(q[:, 0]) > 0.15
    assert np.allclose([s.velocity for s in states], 0.05)
    seen = [p.pose.position.y for p in poses]
    assert seen == sorted(set(seen)) and 5 <= len(seen) <= 10
    r.drop(node)
    r.drop(desk)


@over_ros
def test_onto_topics_where_a_robot_speaks_is_refused(r, path):
    from sensor_msgs.msg import JointState

    from palmar.real_robot.nodes.replay import OntoTopics
    from palmar.safety.types import ConfigError

    live = r.node("live")
    publisher = live.create_publisher(JointState, "joint_states", 10)
    node = r.add(OntoTopics(read(path), 0.5, context=r.context))
    with pytest.raises(ConfigError, match="replay in another namespace"):
        r.until(lambda: node.over, "the end")
    live.destroy_publisher(publisher)
    r.drop(node)
    r.drop(live)


@over_ros
def test_onto_a_robot_chunks_follow_the_rollout_and_the_process_ends(r, path, tmp_path, monkeypatch):
    import signal

    from ros_seat import seat
    from sensor_msgs.msg import JointState
    from trajectory_msgs.msg import JointTrajectory

    from palmar.real_robot.nodes.replay import OntoRobot

    ended, chunks = [], []
    with seat(r, tmp_path, objects=()) as s:
        desk, q = r.node("desk"), toy.HOME.copy()
        states = desk.create_publisher(JointState, "joint_states", 1)

        def follow(message):
            chunks.append(message)
            q[:] = message.points[0].positions

        def tell():
            message = JointState(name=["shoulder", "elbow"], position=q.tolist(), velocity=[0.0, 0.0])
            message.header.stamp = desk.get_clock().now().to_msg()
            states.publish(message)

        desk.create_subscription(JointTrajectory, "palmar/chunk", follow, 10)
        node = r.add(OntoRobot(s.run, read(path), 0.5, context=r.context))
        monkeypatch.setattr(os, "kill", lambda pid, number: ended.append((pid, number)))
        node.trigger_configure()
        node.trigger_activate()
        r.until(lambda: ended, "the end", timeout=30, every=tell)
        assert ended == [(os.getpid(), signal.SIGTERM)]
        rows = np.array([c.points[0].positions for c in chunks])
        assert np.abs(rows - toy.HOME).max() > 0.15 and np.allclose(rows[-1], moved(np.array([SECONDS]))[0], atol=1e-3)
        assert np.abs(np.diff(rows, axis=0)).max() < 0.2 * np.pi / SECONDS * 0.5 / 20 * 1.5
        node.trigger_shutdown()
        r.drop(node)
        r.drop(desk)


@over_ros
def test_the_process_refuses_files_and_speeds_before_it_says_a_word(path):
    def replay(*words):
        call = [sys.executable, "-m", "palmar.real_robot.nodes.replay", *map(str, words)]
        return subprocess.run(call, capture_output=True, text=True, timeout=60)

    done = replay("--rollout", Path(__file__), "--target", "topics")
    assert done.returncode == 1 and "not an MCAP file" in done.stderr
    done = replay("--rollout", path, "--speed", "7")
    assert done.returncode == 1 and "accepted above 0 and up to 1" in done.stderr
