"""The first move of an episode: slow, within every limit, or refused."""

import numpy as np
import pytest
import toy_robot as toy

from palmar.real_robot.alignment import Alignment, GlideConfig, first_distance, line
from palmar.real_robot.config import RunConfig
from palmar.safety.constraints import parse
from palmar.safety.filter import Filter, FilterConfig
from palmar.safety.types import Chunk, CommandRefused, ConfigError, State
from palmar.sim.interface import RobotState

JOINTS = ("shoulder", "elbow")
DT = 0.001


@pytest.fixture(scope="module")
def filter_():
    robot = toy.robot()
    return lambda: Filter(robot, parse(toy.CONSTRAINTS, robot.limits), FilterConfig(dt=DT))


def chunk(q, seq, now, **gains):
    """A policy of 20 Hz whose targets stand at q."""
    targets = np.tile(q, (4, 1))
    return Chunk(q=targets, t=now + 0.05 * np.arange(1, 5), seq=seq, received=now, **gains)


def follow(filter_, goal, seconds, alignment=None):
    """Commands of a robot that does what it is told, under a policy that wants to stand at ``goal``: (k, 2)."""
    q, sent, refused = toy.HOME.copy(), [], []
    filter_.start(RobotState(0.0, 0, q, np.zeros(2), np.zeros(2)))
    for k in range(1, int(seconds / DT)):
        now = k * DT
        if k % 50 == 1:
            new = chunk(goal, k, now)
            try:
                if alignment is not None:
                    new = alignment.take(new, filter_.player.reference(now)[0], now, running=filter_.state is State.RUN)
                filter_.offer(new)
            except CommandRefused as error:
                refused.append(str(error))
        command, _ = filter_.tick(RobotState(now, k, filter_.u + 1e-6 * (k % 2), filter_.ud, np.zeros(2)), now)
        sent.append(command.q)
    return np.array(sent), refused


def test_a_far_first_command_is_reached_slowly_and_within_every_limit(filter_):
    goal, config, limits = toy.HOME + [0.7, -0.5], GlideConfig(), toy.robot().limits
    sent, refused = follow(filter_(), goal, 4.0, Alignment(JOINTS, config))
    v, a = np.diff(sent, axis=0) / DT, np.diff(sent, n=2, axis=0) / DT**2
    late = int((np.abs(goal - toy.HOME).max() - config.arrived) / config.speed / DT)
    assert not refused
    assert np.abs(v[: late - 100]).max() < 1.05 * config.speed  # while it glides
    assert np.abs(sent[-1] - goal).max() < 1e-3
    assert np.abs(v).max() <= limits.v_max.max() and np.abs(a).max() <= limits.a_max.max() + 1e-6
    direct, _ = follow(filter_(), goal, 4.0)
    assert np.abs(np.diff(direct, axis=0)).max() / DT > 3 * config.speed  # what it would do otherwise


def test_the_ways_of_all_joints_end_at_the_same_time(filter_):
    goal = toy.HOME + [0.6, -0.3]
    sent, _ = follow(filter_(), goal, 1.2, Alignment(JOINTS, GlideConfig()))
    done = (sent[-1] - toy.HOME) / (goal - toy.HOME)
    assert 0.2 < done[0] < 0.8 and abs(done[0] - done[1]) < 0.01


def test_a_near_first_command_passes_as_it_is_and_so_does_everything_once_it_runs():
    alignment, u = Alignment(JOINTS, GlideConfig()), toy.HOME
    near, far = chunk(u + 0.2, 1, 0.0), chunk(u + 0.9, 2, 0.0)
    assert alignment.take(near, u, 0.0, running=False) is near
    assert alignment.take(far, u, 0.0, running=True) is far
    assert alignment.take(far, u, 0.0, running=False) is not far and alignment.gliding
    assert alignment.take(far, u, 0.0, running=True) is not far  # the glide goes on
    assert alignment.take(near, u, 0.0, running=True) is not near  # to its end
    there = chunk(u + 0.04, 3, 0.0)
    assert alignment.take(there, u, 0.0, running=True) is there and not alignment.gliding


@pytest.mark.parametrize(("mode", "away"), [("refuse", 0.3), ("refuse", 2.0), ("glide", 1.3)])
def test_too_far_a_first_command_is_refused_with_the_joint_and_nothing_moves(filter_, mode, away):
    sent, refused = follow(filter_(), toy.HOME + [0.1, away], 0.5, Alignment(JOINTS, GlideConfig(), mode=mode))
    assert len(refused) == 10 and all("elbow" in r and f"{away:.2f}" in r for r in refused)
    assert np.ptp(sent, axis=0).max() == 0.0


def test_a_line_keeps_the_policys_number_receipt_and_gains():
    k, d = np.arange(8.0).reshape(4, 2), np.ones((4, 2))
    given = chunk(toy.HOME + 0.8, 7, 1.0, stiffness=k, damping=d)
    made = line(given, toy.HOME, 1.06, speed=0.3)  # the first target is past
    assert (made.seq, made.received) == (7, 1.0)
    assert np.array_equal(made.stiffness, np.tile(k[1], (len(made.t), 1)))
    assert np.all(np.diff(made.t) > 0) and made.t[0] > 1.06
    assert np.abs(np.diff(made.q, axis=0)).max() <= 0.3 * np.diff(made.t).max() + 1e-12


def test_what_is_no_chunk_is_left_to_the_filter():
    alignment = Alignment(JOINTS, GlideConfig())
    bad = Chunk(q=np.full((4, 2), np.nan), t=np.arange(4.0), seq=1, received=0.0)
    assert alignment.take(bad, toy.HOME, 0.0, running=False) is bad
    shapeless = Chunk(q=np.zeros((4, 3)), t=np.arange(4.0), seq=1, received=0.0)
    assert alignment.take(shapeless, toy.HOME, 0.0, running=False) is shapeless
    assert np.isnan(first_distance(shapeless, toy.HOME, 0.0)[0])


def test_impossible_settings_are_refused(tmp_path):
    for changes in ({"near": 0.0}, {"furthest": 0.1}, {"speed": 0.0}, {"arrived": 0.3}, {"furthest": 2.0}):
        with pytest.raises(ConfigError):
            GlideConfig(**changes)
    with pytest.raises(ConfigError, match="glide"):
        Alignment(JOINTS, GlideConfig(), mode="jump")
    with pytest.raises(ConfigError, match="alignment"):
        toy.run_config(tmp_path, alignment="jump")
    run: RunConfig = toy.run_config(tmp_path, glide=GlideConfig(speed=0.2))
    run.write(tmp_path / "run.json")
    from palmar.real_robot.config import read

    assert read(tmp_path / "run.json").glide.speed == 0.2
