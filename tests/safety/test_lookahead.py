"""What is foreseen is what then happens: same tick, same constraint, counted by code that shares nothing with it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palmar.benchmarks.count import Count
from palmar.benchmarks.filter import DT, Reading
from palmar.safety.bounds import bounds_of
from palmar.safety.chunks import ChunkConfig, ChunkPlayer
from palmar.safety.constraints import parse
from palmar.safety.filter import Filter, FilterConfig
from palmar.safety.geometry import Kinematics
from palmar.safety.lookahead import TICKS, LookAhead
from palmar.safety.roll import AHEAD
from palmar.safety.types import Chunk, CommandRefused

TIMEOUT = 0.6


REGIONS = """
  column: {margin: keep_out, params: {region: 0, lower: [0.25, 0.25, 0.0], upper: [0.45, 0.5, 0.9], limit: 0.02},
    signal: state, source: measured, memory: none, runtime: hard row, budget: 0.0, unit: s}
  shelf: {margin: keep_out, params: {region: 1, lower: [0.2, -0.8, 0.55], upper: [0.8, -0.3, 0.6], limit: 0.01},
    signal: state, source: measured, memory: none, runtime: hard row, budget: 0.0, unit: s}
"""


@pytest.fixture(scope="module")
def parts(robot, text):
    constraints = parse(text + REGIONS, robot.limits)
    config = FilterConfig(chunks=ChunkConfig(jump=10.0, timeout=TIMEOUT))
    return robot, Filter(robot, constraints, config, mode="shadow"), Count(robot, constraints)


def looker(filter_):
    return LookAhead(filter_.kinematics.tree, filter_.bounds, filter_.constraints, DT)


class Shadow:
    """A shadow filter on a perfect robot, looked ahead of before each tick."""

    def __init__(self, filter_, q):
        self.filter, self.now, self.seq, self.look = filter_, 0.0, 0, looker(filter_)
        f, zero = filter_, np.zeros(len(q))
        f._started = False
        f.start(Reading(0.0, 0, q, zero, zero))
        f.player.seq, f.player.received = -1, -np.inf
        self.sent, self.foreseen = [q], []

    def offer(self, q, t):
        self.seq += 1
        self.filter.offer(Chunk(q=q, t=t, seq=self.seq, received=self.now))

    def go(self, ticks):
        f = self.filter
        for _ in range(ticks):
            self.now += DT
            self.foreseen.append(self.look.advance(f.player, f.u, f.ud, f.udd, self.now))
            command, _ = f.tick(Reading(self.now, f.seq + 2, f.u, f.ud, np.zeros(len(f.u))), self.now)
            self.sent.append(command.q)


def happened(counted):
    """First violating command of an episode and the names of what it violates."""
    first = min((t.first for t in counted.tallies.values() if t.first is not None), default=None)
    return first, {name for name, t in counted.tallies.items() if t.first == first}


def plan(rng, robot, now, u):
    """A chunk that may lead anywhere: H targets, knots on ticks and off them."""
    h = int(rng.integers(1, 9))
    gaps = rng.choice([0.02, 0.05, rng.uniform(0.004, 0.09)], h)
    goal = rng.uniform(robot.limits.q_min - 0.2, robot.limits.q_max + 0.2)
    if rng.random() < 0.6:  # the arm alone: fingers find each other too soon
        goal[robot.n_arm :] = u[robot.n_arm :]
    share = np.sort(rng.uniform(0.3, 1, h))[:, None]
    return u + share * (goal - u) + rng.normal(size=(h, robot.n)) * 0.02, now + np.cumsum(gaps)


KINDS = {"joint_position", "self_clearance", "table_clearance", "column", "shelf"}
"""Constraints that some example must violate."""


def until_known(run, ticks):
    """Go on for ``ticks``, or until just after what was foreseen should have happened."""
    for _ in range(ticks):
        run.go(1)
        if (told := run.foreseen[-1]) is not None and run.now > told[0] + 1.5 * DT:
            return


def test_the_foreseen_tick_and_constraint_are_those_that_the_shadow_run_violates(parts):
    robot, filter_, count = parts
    met, calm, seed = set(), 0, 0
    while seed < 10 or calm == 0 or not KINDS <= met:
        seed += 1
        assert seed < 60, f"no example met {KINDS - met}"
        rng, ticks = np.random.default_rng(seed), int(TIMEOUT / DT) - 2
        run = Shadow(filter_, robot.home)
        run.offer(*plan(rng, robot, run.now, run.filter.u))
        until_known(run, ticks)
        first, names = happened(count(np.array(run.sent), DT))
        if first is None:
            assert run.foreseen[-1] is None
            assert run.look.ticks_rolled >= ticks
            calm += 1
            continue
        # TICKS ticks are seen per tick: known from here on, and never told otherwise before it happens.
        known = run.foreseen[: first + 1]
        late = first // TICKS
        assert all(k is None for k in known[:late])
        for told in known[late:]:
            assert told[0] == pytest.approx((first + 1) * DT, abs=1e-9)
            assert told[1] in names
        met |= names


@settings(max_examples=20)
@given(st.integers(0, 100_000))
def test_a_new_chunk_is_rolled_from_where_the_robot_is_then(parts, seed):
    robot, filter_, count = parts
    rng = np.random.default_rng(seed)
    run = Shadow(filter_, robot.home)
    for _ in range(4):
        run.offer(*plan(rng, robot, run.now, run.filter.u))
        for _ in range(int(rng.integers(20, 90))):
            run.go(1)
            if (told := run.foreseen[-1]) is not None:
                run.go(round((told[0] - run.now) / DT))
                first, names = happened(count(np.array(run.sent), DT))
                assert first == len(run.sent) - 2
                assert told[1] in names
                return
    assert happened(count(np.array(run.sent), DT))[0] is None


def test_after_an_edit_the_roll_restarts_from_the_present_state(parts):
    robot, filter_, _ = parts
    look, player = looker(filter_), ChunkPlayer(robot.joints, ChunkConfig(jump=10.0, timeout=TIMEOUT))
    player.rest(robot.home, 0.0)
    zero, goal = np.zeros(robot.n), robot.home.copy()
    goal[4] -= 0.8  # beyond the end of its range
    player.offer(Chunk(q=goal[None], t=np.array([0.5]), seq=1, received=0.0))
    now = 0.0
    while look.foreseen is None:
        look.advance(player, *state(look), now=now) if now else look.advance(player, robot.home, zero, zero, now)
        now += DT
    due, name = look.foreseen
    assert due > now + 0.1
    restarts = look.restarts
    look.advance(player, robot.home - 0.01, zero, zero, now)  # held back: not where it was rolled to
    assert look.restarts == restarts + 1
    assert look.foreseen is None
    for k in range(1, 200):
        again = look.advance(player, *state(look, k), now=now + k * DT)
    assert again is not None
    assert again[0] > due


def state(look, k=None):
    """The state that the roll expects at the present tick; only its position is looked at there."""
    k = look._passed if k is None else k
    return look._work.path[k % AHEAD].copy(), np.zeros(look._work.u.shape), np.zeros(look._work.u.shape)


def test_nothing_is_foreseen_beyond_the_time_at_which_the_chunk_is_stale(parts, constraints):
    robot, filter_, _ = parts
    goal = robot.home.copy()
    goal[4] -= 0.8
    for timeout, seen in ((0.2, False), (TIMEOUT, True)):
        look, player = looker(filter_), ChunkPlayer(robot.joints, ChunkConfig(jump=10.0, timeout=timeout))
        player.rest(robot.home, 0.0)
        player.offer(Chunk(q=goal[None], t=np.array([0.5]), seq=1, received=0.0))
        zero = np.zeros(robot.n)
        look.advance(player, robot.home, zero, zero, 0.0)
        for k in range(1, 150):
            look.advance(player, *state(look), now=k * DT)
        assert (look.foreseen is not None) is seen
        assert look.ticks_rolled <= (timeout + 0.002) / DT


def test_no_call_rolls_more_than_its_ticks_nor_further_ahead_than_the_ring(robot, constraints):
    tree, bounds = Kinematics.from_model(robot).tree, bounds_of(robot.limits, 0.0)
    look = LookAhead(tree, bounds, constraints, DT, ticks=90)
    player = ChunkPlayer(robot.joints, ChunkConfig(timeout=9.0))
    player.rest(robot.home, 0.0)
    zero = np.zeros(robot.n)
    player.offer(Chunk(q=robot.home[None] + 0.01, t=np.array([0.5]), seq=1, received=0.0))
    rolled = [0]
    for k in range(100):
        look.advance(player, *(state(look) if k else (robot.home, zero, zero)), now=k * DT)
        rolled.append(look.ticks_rolled)
    assert np.diff(rolled).max() == 90
    assert rolled[-1] == AHEAD + 99


def test_the_name_is_that_of_the_file_and_only_what_the_file_names_is_foreseen(robot, text):
    goal = robot.home.copy()
    goal[4] -= 0.8
    tree, bounds = Kinematics.from_model(robot).tree, bounds_of(robot.limits, 0.0)
    zero = np.zeros(robot.n)
    lines = text.splitlines()
    for keep, name in (("joint_position", "my_range"), ("joint_jerk", None)):
        file = "\n".join([*lines[:3], *(s for s in lines[3:] if s.startswith(f"  {keep}:"))])
        file = file.replace("  joint_position:", "  my_range:")
        look = LookAhead(tree, bounds, parse(file, robot.limits), DT, ticks=600)
        player = ChunkPlayer(robot.joints, ChunkConfig(jump=10.0, timeout=TIMEOUT))
        player.rest(robot.home, 0.0)
        player.offer(Chunk(q=goal[None], t=np.array([0.3]), seq=1, received=0.0))
        told = look.advance(player, robot.home, zero, zero, 0.0)
        assert (told and told[1]) == name


def test_a_refused_chunk_does_not_disturb_the_roll(parts):
    robot, filter_, _ = parts
    run = Shadow(filter_, robot.home)
    run.offer(robot.home[None] + 0.1, np.array([0.2]))
    run.go(20)
    restarts = run.look.restarts
    with pytest.raises(CommandRefused):
        run.offer(np.full((1, robot.n), np.nan), np.array([0.3]))
    run.go(1)
    assert run.look.restarts == restarts
