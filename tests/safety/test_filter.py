"""What the filter promises: no sent command violates a hard row, whatever is asked."""

from dataclasses import replace

import numpy as np
import pytest
from closed_loop import DT, Run, moving
from hypothesis import given, settings
from hypothesis import strategies as st

from palmar.benchmarks.attack import counted as episode
from palmar.benchmarks.filter import Reading, make_filter
from palmar.safety import filter as module
from palmar.safety import stop, tracking, verify
from palmar.safety.bounds import Space, bounds_of
from palmar.safety.constraints import parse
from palmar.safety.filter import Filter, FilterConfig
from palmar.safety.intention import intend
from palmar.safety.reflex import Proposal, Threshold
from palmar.safety.types import Chunk, CommandRefused, ConfigError, State


@pytest.fixture
def run(robot, constraints):
    return Run(robot, constraints)


@settings(max_examples=8)
@given(st.integers(0, 10_000))
def test_no_sent_command_of_an_adversarial_episode_violates_anything(small_filter, robot, constraints, seed):
    fresh(small_filter)
    count = episode(robot, constraints, small_filter, seed, 1500)
    assert count.violations == 0, count.worst


def test_nor_with_the_real_robot():
    from palmar.benchmarks.filter import load_shipped

    robot, constraints = load_shipped()
    nearest = {}
    for seed in (7, 11):
        count = episode(robot, constraints, make_filter(robot, constraints), seed, 1500)
        assert count.violations == 0, count.worst
        nearest = {name: min(worst, nearest.get(name, np.inf)) for name, worst in count.worst.items()}
    # The adversary came close: the filter, not its aim, kept the distance.
    assert nearest["joint_position"] < 0.01 and nearest["joint_velocity"] < 1e-3
    assert nearest["joint_acceleration"] < 1e-3 and nearest["joint_jerk"] < 0.1
    assert nearest["self_clearance"] < 0.006


@pytest.fixture(scope="module")
def small_filter(robot, constraints):
    return make_filter(robot, constraints)


def fresh(f):
    """Let a used filter be started again."""
    f._started = False
    f.player.seq, f.player.received = -1, -np.inf


@pytest.mark.parametrize("broken", ["verifier", "bounds", "late stop"])
def test_a_weakened_filter_is_caught(robot, constraints, monkeypatch, broken):
    """The counter is no rubber stamp: each of three mutations of the filter makes it count violations."""
    f = make_filter(robot, constraints)
    if broken == "verifier":
        monkeypatch.setattr(verify, "verify_stop", lambda *a: (stop.OK, 0, 0))
        f.qp.space = Space(-1.0, -1.0, np.full(3, -9.0), np.full(3, 9.0))
    elif broken == "bounds":
        monkeypatch.setattr(verify, "verify_stop", lambda *a: (stop.OK, 0, 0))
        f.qp.bounds = f.bounds._replace(high=f.bounds.high + 0.1, up=f.bounds.up + 0.1)
    else:
        law = module.stop_law
        monkeypatch.setattr(module, "stop_law", lambda v, a, b, dt, out: law(0.5 * v, a, b, 1.1 * dt, out))
    assert sum(episode(robot, constraints, f, seed, 1000).violations for seed in (3,)) > 0 or any(
        violated(robot, constraints, f, seed) for seed in range(4, 10)
    )


def violated(robot, constraints, f, seed):
    fresh(f)
    return episode(robot, constraints, f, seed, 1000).violations > 0


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("self_clearance", "{limit: 0.005}", "{limit: 0.03}"),
        ("table_clearance", "{limit: 0.01}", "{limit: 0.25}"),
        ("workspace", "upper: [0.9,", "upper: [0.55,"),
        ("joint_position", "{buffer: 0.0}", "{buffer: 0.1}"),
    ],
)
def test_a_limit_changed_in_the_file_changes_the_filter(robot, text, name, old, new):
    q = robot.home.copy()
    if name == "self_clearance":
        q[4:] = [0.5, 0.3, 0.5, 0.3]
    elif name == "table_clearance":
        q[1] += 0.9
    elif name == "workspace":
        q[1:3] = [0.9, 0.3]
    else:
        q[5] = -0.3
    moved = {}
    for which, content in (("file", text), ("changed", text.replace(old, new))):
        assert (content != text) == (which == "changed")
        constraints = parse(content, robot.limits)
        pose = replace(robot, home=np.array([0.0, 0.2, 1.2, 0.0, -0.3, 0.1, -0.3, 0.1]))
        run = Run(pose, constraints)
        run.go(1500, q)
        moved[which] = run.filter.u.copy()
        assert run.tick().margins[name] >= 0
    assert np.abs(moved["file"] - moved["changed"]).max() > 0.02


def test_the_intention_is_that_of_training(robot):
    rng = np.random.default_rng(0)
    b, out = bounds_of(robot.limits, 0.0), np.zeros(robot.n)
    for _ in range(200):
        q, v, a, r, rd = rng.normal(size=(5, robot.n)) * np.array([1, 2, 5, 1, 2])[:, None]
        intend(q, v, a, r, rd, b, DT, out)
        x = tracking.toward(q, v, r, rd)
        x = tracking.box_limited(x, a, q, v, limits=robot.limits, dt=DT)
        np.testing.assert_allclose(out, x, atol=1e-5 * robot.limits.a_max.max())


def test_a_reachable_target_is_reached_unchanged(run):
    q = run.robot.home + 0.05
    verdict = run.go(600, q)
    assert verdict.state is State.RUN
    np.testing.assert_allclose(run.filter.u, q, atol=1e-3)
    assert not verdict.changed
    assert verdict.reason == ""
    assert min(verdict.margins.values()) >= 0
    assert verdict.compute_s > 0


def test_margins_are_those_of_the_constraint_file_without_the_unmeasurable(run):
    verdict = run.tick()
    assert set(verdict.margins) == set(run.filter.constraints.names) - {"contact_force", "dropped_object"}
    objects = (np.array([[0.5, 0.0, 0.3]]), np.array([[1.0, 0, 0, 0]]))
    run.now += DT
    reading = Reading(run.now, 99, run.filter.u, run.filter.ud, run.zero)
    _, verdict = run.filter.tick(reading, run.now, objects=objects)
    assert verdict.margins["dropped_object"] == pytest.approx(0.05)
    fallen = (objects[0] - [[0, 0, 0.1]], objects[1])
    run.now += DT
    _, verdict = run.filter.tick(
        Reading(run.now, 100, *[run.filter.u, run.filter.ud, run.zero]), run.now, objects=fallen
    )
    assert verdict.margins["dropped_object"] == pytest.approx(-0.05)


def test_refused_chunks_leave_the_motion_as_it_is(robot, constraints):
    def path(bad):
        run = Run(robot, constraints)
        moving(run)
        if bad:
            for q in (np.full(robot.n, np.nan), np.zeros(3), np.full(robot.n, 99.0)):
                with pytest.raises(CommandRefused):
                    run.offer(q)
        run.go(50)
        return np.array(run.sent)

    np.testing.assert_array_equal(path(False), path(True))


def test_shadow_passes_the_intention_and_says_what_would_have_been_done(robot, constraints):
    q = robot.home.copy()
    q[4:] = [1.2, 0.2, 1.2, 0.2]  # fingers through each other
    shadow, enforce = Run(robot, constraints, mode="shadow"), Run(robot, constraints)
    edits = [v for v in ([shadow.go(1, q if k % 50 == 0 else None) for k in range(600)]) if v.changed]
    assert edits
    assert any("self_clearance" in v.active or "self_clearance" in v.reason for v in edits)
    np.testing.assert_allclose(shadow.filter.u, q, atol=1e-2)
    assert shadow.tick().margins["self_clearance"] < 0
    assert min(enforce.go(1, q if k % 50 == 0 else None).margins["self_clearance"] for k in range(600)) >= 0
    shadow.filter.stop()
    assert shadow.tick().state is State.STOP


def test_a_pending_target_that_collides_is_foreseen(robot, constraints):
    run = Run(robot, constraints, mode="shadow")  # one that enforces has edited the motion by then
    q = run.robot.home.copy()
    q[4:] = [1.2, 0.2, 1.2, 0.2]
    run.offer(q, after=0.05)
    run.go(14)
    due, name = run.filter.foreseen
    assert name == "self_clearance"
    assert run.now < due - 0.02 < 10.2


def test_what_cannot_be_started_is_refused(robot, constraints):
    f, zero = Filter(robot, constraints), np.zeros(robot.n)
    with pytest.raises(CommandRefused, match="not been started"):
        f.tick(Reading(0, 0, robot.home, zero, zero), 0.0)
    with pytest.raises(CommandRefused, match="not been started"):
        f.offer(Chunk(q=robot.home[None], t=np.array([1.0]), seq=1, received=0.0))
    low = np.array([0, 1.6, 1.2, 0, 0, 0.1, 0, 0.1])
    for q, qd, match in (
        (robot.home * np.nan, zero, "finite"),
        (robot.home[:3], zero, "finite"),
        (robot.home, zero + 0.2, "at rest"),
        (robot.limits.q_max + 0.1, zero, "joint_position"),
        (low, zero, "workspace|table_clearance"),
    ):
        with pytest.raises(CommandRefused, match=match):
            f.start(Reading(0.0, 0, q, qd, zero))
    f.start(Reading(0.0, 0, robot.home, zero, zero))
    with pytest.raises(CommandRefused, match="new or latched"):
        f.start(Reading(0.0, 0, robot.home, zero, zero))
    with pytest.raises(CommandRefused, match="accepted in latched"):
        f.reset()


def test_a_reflex_that_returns_nonsense_makes_the_filter_brake(robot, constraints):
    class Mad:
        counts: dict[str, int] = {}

        def propose(self, m, wanted, ud):
            return Proposal(wanted * np.nan)

    run = Run(robot, constraints, reflex=Mad())
    verdict = run.go(30, robot.home + 0.1)
    assert verdict.reason == "reflex_not_finite"
    np.testing.assert_array_equal(run.filter.u, robot.home)


@pytest.mark.parametrize("risk", [1.0, np.nan])
def test_a_risky_moment_is_braked_by_the_reflex_and_goes_on_after_it(robot, constraints, risk):
    risky = {"now": 0.0}
    run = Run(robot, constraints, reflex=Threshold(lambda m: risky["now"], threshold=0.5))
    q = moving(run)
    fast = abs(run.filter.ud[0])
    risky["now"] = risk
    verdict = run.go(200, q)
    assert verdict.state is State.RUN and verdict.reason == "reflex"
    assert abs(run.filter.ud[0]) < 0.05 * fast and run.filter.reflex.counts["interrupted"] == 200
    risky["now"] = 0.0
    run.go(700, q)
    assert run.filter.u[0] == pytest.approx(q[0], abs=0.05)


@pytest.mark.parametrize(
    "bad",
    [
        {"threshold": np.nan}, {"soften": -0.1}, {"soften": 1.1}, {"brake": 0.0}, {"brake": 1001.0},
        {"threshold": np.inf},
    ],
)  # fmt: skip
def test_a_reflex_that_cannot_be_meant_is_refused(bad):
    with pytest.raises(ConfigError, match="need 0 <= soften"):
        Threshold(lambda m: 0.0, **{"threshold": 0.5, **bad})


def test_a_reference_that_has_arrived_rests():
    start, target = np.zeros(3), np.ones(3)
    for phase, rate in ((0.999, 10.0), (1.0, 0.0), (2.0, 0.0)):
        q, qd = tracking.interpolate(start, target, phase=phase, period=0.1)
        np.testing.assert_allclose(q, min(phase, 1.0))
        np.testing.assert_allclose(qd, rate)


RATE = """
  joint_torque_rate: {margin: joint_torque_rate, params: {limit: 50.0}, error: 50.0, signal: transition,
    source: estimated, memory: none, runtime: soft row, budget: 0.1, unit: s}
"""


def test_impossible_configurations_are_refused(robot, constraints, text):
    with pytest.raises(ConfigError, match="all error"):
        Filter(robot, parse(text + RATE, robot.limits))
    with pytest.raises(ConfigError, match="accepted.*enforce"):
        Filter(robot, constraints, mode="off")
    with pytest.raises(ConfigError, match="dt"):
        FilterConfig(dt=0.0)
    with pytest.raises(ConfigError, match="empty workspace"):
        Filter(robot, parse(text.replace("lower: [-0.9,", "lower: [0.95,"), robot.limits))
