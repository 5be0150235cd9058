"""What makes the filter hold or stop, how it does, and what lets it go on."""

import numpy as np
import pytest
from closed_loop import DT, Run, moving

from palmar.benchmarks.filter import Reading
from palmar.safety import stop
from palmar.safety.types import CommandRefused, State


@pytest.fixture
def run(robot, constraints):
    return Run(robot, constraints)


def test_a_missed_period_is_detected_and_the_next_output_follows_the_stop_trajectory(run):
    q = moving(run)
    f = run.filter
    expected = np.zeros(run.robot.n)
    stop.stop_law(f.ud, f.udd, f.bounds, DT, expected)
    u = f.u + DT * f.ud + 0.5 * DT * DT * expected
    run.offer(q)
    verdict = run.tick(dt=0.0035)
    assert (verdict.state, verdict.reason) == (State.HOLD, "missed_period")
    np.testing.assert_allclose(run.sent[-1], u, atol=1e-15)
    assert run.tick().state is State.HOLD  # the chunk from before the miss does not resume it
    run.offer(q)
    assert run.tick().state is State.RUN


def test_stale_chunks_hold_and_fresh_ones_resume_without_a_jump(run):
    q = moving(run)
    verdicts = [run.tick() for _ in range(600)]
    held = [v for v in verdicts if v.state is State.HOLD]
    assert held
    assert held[0].reason == "chunk_stale"
    assert np.all(run.filter.ud == 0)
    before = run.filter.u.copy()
    run.offer(q)
    assert run.tick().state is State.RUN
    assert np.abs(run.filter.u - before).max() < 1e-4


@pytest.mark.parametrize("fault", ["operator", "nonfinite", "frozen", "tracking"])
def test_stops_latch_with_their_reason_and_never_resume_by_themselves(run, fault):
    q = moving(run)
    f = run.filter
    if fault == "operator":
        f.stop("button")
    frozen = Reading(run.now, f.seq + 1, f.u.copy(), f.ud.copy(), run.zero)
    reasons = []
    for k in range(700):
        if k % 50 == 0:
            run.offer(np.clip(q, f.u - 1, f.u + 1))
        if fault == "tracking":
            run.push(1, 2.0 if k < 140 else 0.0)
        if fault == "nonfinite" and k < 5:
            bad = Reading(run.now, f.seq + 2, f.u * np.nan, f.ud, run.zero)
            verdict = run.tick(reading=bad)
        else:
            verdict = run.tick(reading=frozen if fault == "frozen" and k < 30 else None)
        reasons.append((verdict.state, verdict.reason))
    name = {
        "operator": "button",
        "nonfinite": "state_nonfinite",
        "frozen": "state_stale",
        "tracking": "tracking_error",
    }
    states = [s for s, _ in reasons]
    assert State.STOP in states
    assert states[-1] is State.LATCHED
    assert {r for s, r in reasons if s in (State.STOP, State.LATCHED)} == {name[fault]}
    assert State.RUN not in states[states.index(State.STOP) :]
    first = states.index(State.STOP)
    assert first <= {"operator": 0, "nonfinite": 2, "frozen": 21, "tracking": 126}[fault]
    assert np.all(f.ud == 0)
    if fault == "tracking":
        with pytest.raises(CommandRefused, match="start anew"):
            f.reset()
        return
    f.reset()
    assert run.tick().state is State.HOLD
    run.offer(f.u)
    assert run.tick().state is State.RUN


def test_a_stop_keeps_the_grip_of_the_hand(run):
    """Category 2 for the hand: the commanded squeeze beyond the contact is not given up."""
    f, n = run.filter, run.robot.n_arm
    q = run.robot.home.copy()
    q[0] += 0.5
    q[n:] += 0.12
    squeeze = np.zeros(run.robot.n)
    for k in range(700):
        if k % 50 == 0:
            run.offer(q, after=0.05)
        squeeze[n:] = np.minimum(run.robot.home[n:] + 0.04 - f.u[n:], 0)  # the fingers do not get further
        run.offset = squeeze
        run.tick()
    grip = f.u[n:].copy()
    assert np.all(grip > run.robot.home[n:] + 0.1)
    f.stop()
    for _ in range(800):
        verdict = run.tick()
    assert verdict.state is State.LATCHED
    np.testing.assert_allclose(run.sent[-1][n:], grip, atol=1e-3)
    assert np.all(run.sent[-1][n:] >= grip - 1e-5)


def test_two_bad_readings_are_survived(run):
    moving(run)
    f = run.filter
    for _ in range(2):
        bad = Reading(run.now, f.seq + 2, np.full(run.robot.n, np.inf), f.ud, run.zero)
        assert run.tick(reading=bad).state is State.RUN
    assert run.tick().state is State.RUN
