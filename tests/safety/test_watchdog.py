"""Every pair of state and event, compared with a list written by hand."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from palmar.safety.bounds import bounds_of
from palmar.safety.stop import stop_law
from palmar.safety.types import CommandRefused, ConfigError, State
from palmar.safety.watchdog import TRANSITIONS, Event, Watchdog, WatchdogConfig, diagram, rest_within

RUN, HOLD, STOP, LATCHED = State.RUN, State.HOLD, State.STOP, State.LATCHED
STOPS = {RUN: STOP, HOLD: STOP, STOP: STOP, LATCHED: LATCHED}
HOLDS = {RUN: HOLD, HOLD: HOLD, STOP: STOP, LATCHED: LATCHED}
EXPECTED = {
    Event.ESTOP: STOPS,
    Event.DRIVER_FAULT: STOPS,
    Event.STATE_IMPLAUSIBLE: STOPS,
    Event.JOINT_MISMATCH: STOPS,
    Event.STATE_FROZEN: HOLDS,
    Event.READING_GAP: HOLDS,
    Event.CLOCK_BACKWARDS: HOLDS,
    Event.PERSON_LOST: HOLDS,
    Event.RELEASE: {RUN: RUN, HOLD: HOLD, STOP: STOP, LATCHED: LATCHED},
    Event.OPERATOR_STOP: {RUN: STOP, HOLD: STOP, STOP: STOP, LATCHED: LATCHED},
    Event.STATE_NONFINITE: {RUN: STOP, HOLD: STOP, STOP: STOP, LATCHED: LATCHED},
    Event.STATE_STALE: {RUN: STOP, HOLD: STOP, STOP: STOP, LATCHED: LATCHED},
    Event.TRACKING_ERROR: {RUN: STOP, HOLD: STOP, STOP: STOP, LATCHED: LATCHED},
    Event.MISSED_PERIOD: {RUN: HOLD, HOLD: HOLD, STOP: STOP, LATCHED: LATCHED},
    Event.CHUNK_STALE: {RUN: HOLD, HOLD: HOLD, STOP: STOP, LATCHED: LATCHED},
    Event.RESET: {RUN: RUN, HOLD: HOLD, STOP: STOP, LATCHED: HOLD},
    Event.AT_REST: {RUN: RUN, HOLD: HOLD, STOP: LATCHED, LATCHED: LATCHED},
    Event.CHUNK_FRESH: {RUN: RUN, HOLD: RUN, STOP: STOP, LATCHED: LATCHED},
}


def dog(state=HOLD):
    w = Watchdog(WatchdogConfig(), 0.001, arm=7, joints=23)
    w.start(0.0)
    w.state, w.reason = state, "before"
    return w


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_every_transition(state, event):
    w = dog(state)
    changed = w.happen(event)
    assert w.state is EXPECTED[event][state]
    assert changed == (w.state is not state)
    assert w.counts[event.value] == 1
    if not changed or w.state is LATCHED:
        assert w.reason == "before"
    else:
        assert w.reason == ("" if w.state is RUN else event.value)


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_every_transition_while_the_emergency_stop_is_pressed(state, event):
    w = dog(state)
    w.pressed = True
    w.happen(event)
    assert w.state is (LATCHED if (state, event) == (LATCHED, Event.RESET) else EXPECTED[event][state])


def test_every_event_has_its_row_and_no_hold_is_reached_from_a_stop():
    assert set(EXPECTED) == set(Event) and all(set(row) == set(State) for row in EXPECTED.values())
    assert {target for (state, _), target in TRANSITIONS.items() if state is STOP} == {LATCHED}
    assert {event for (state, event) in TRANSITIONS if state is LATCHED} == {Event.RESET}


def latched(now=1.0):
    w = dog(RUN)
    w.late(now)
    w.press()
    w.happen(Event.AT_REST)
    assert w.state is LATCHED and w.reason == "estop"
    return w


def test_latched_leads_nowhere_without_release_and_reset():
    w = latched()
    assert not w.happen(Event.RESET) and w.state is LATCHED and "pressed" in w.refusal()
    with pytest.raises(CommandRefused, match="pressed"):
        w.start(2.0)
    w.release()
    assert w.state is LATCHED
    w.late(2.0)
    assert w.happen(Event.RESET) and w.state is HOLD


def test_neither_release_nor_reset_alone_nor_their_wrong_order_unlatches():
    w = latched()
    w.happen(Event.RESET)
    w.release()
    w.late(9.0)
    for event in Event:
        if event is not Event.RESET:
            w.happen(event)
    assert w.state is LATCHED


def test_a_bouncing_contact_resets_nothing():
    w = latched()
    for k in range(40):
        w.late(1.0 + 0.001 * k)
        w.press() if k % 3 else w.release()
        assert not w.happen(Event.RESET) and w.state is LATCHED
    w.release()
    w.late(1.08)
    assert "ago" in w.refusal() and not w.happen(Event.RESET)
    with pytest.raises(CommandRefused, match="emergency stop"):
        w.start(1.08)
    w.late(1.2)
    assert w.happen(Event.RESET)


def test_a_stuck_button_is_never_reset():
    w = latched()
    for k in range(2000):
        w.late(1.0 + 0.01 * k)
        w.press()
        assert not w.happen(Event.RESET)
    assert w.state is LATCHED


def test_the_documentation_holds_exactly_this_diagram():
    text = (Path(__file__).parents[2] / "docs" / "filter.md").read_text()
    assert text.count("<!-- states -->") == 2
    assert text.split("<!-- states -->")[1].strip() == diagram()
    assert all(event.value in diagram() for _, event in TRANSITIONS)


def test_the_stop_law_rests_within_the_declared_time(robot):
    m, dt = robot.limits, 0.001
    bounds, rng = bounds_of(m, 0.0), np.random.default_rng(0)
    longest, x = 0, np.zeros(robot.n)
    for _ in range(200):
        v, a = rng.uniform(-1, 1, (2, robot.n)) * [m.v_max, m.a_max]
        v = np.where(rng.random(robot.n) < 0.5, np.sign(v) * m.v_max, v)
        a = np.where(v * a > 0, a * (np.abs(v) + 0.5 * a * a / m.j_max < m.v_max), a)
        ticks = 0
        while np.any(np.abs(v) > 1e-9) or np.any(a):
            stop_law(v, a, bounds, dt, x)
            v, a, ticks = v + dt * x, x.copy(), ticks + 1
        longest = max(longest, ticks)
    assert 0.4 < longest * dt <= rest_within(m, 0.0, dt) < longest * dt + 0.01


def test_no_sequence_of_events_leads_from_a_stop_to_run_without_a_reset():
    reached = {STOP}
    for _ in State:
        reached |= {EXPECTED[e][s] for s in reached for e in Event if e is not Event.RESET}
    assert reached == {STOP, LATCHED}


@pytest.mark.parametrize(("gap", "late"), [(0.001, False), (0.0019, False), (0.0021, True), (0.5, True)])
def test_a_tick_later_than_two_periods_is_a_missed_one(gap, late):
    w = dog()
    assert not w.late(10.0)
    assert w.late(10.0 + gap) is late
    assert not w.late(10.0 + gap + 0.001)


@pytest.mark.parametrize("key", WatchdogConfig.__dataclass_fields__)
@pytest.mark.parametrize("value", [0, -1.0, float("inf"), float("nan")])
def test_impossible_values_are_refused(key, value):
    with pytest.raises(ConfigError, match=key):
        WatchdogConfig(**{key: value})


def test_a_reset_counts_from_the_moment_the_contacts_cannot_bounce_any_more():
    w, released = latched(1.0), WatchdogConfig().released
    w.late(0.0)
    w.release()
    w.late(np.nextafter(released, 0.0))
    assert "ago" in w.refusal()
    w.late(released)
    assert w.refusal() == ""


@pytest.mark.parametrize("joint", [0, 6, 7, 22])
@pytest.mark.parametrize("way", [-1.0, 1.0])
def test_a_joint_further_from_its_command_than_its_group_may_be_is_astray(joint, way):
    w, u, config = dog(), np.linspace(-1.0, 1.0, 23), WatchdogConfig()
    most, away = config.deviation_arm if joint < 7 else config.deviation_hand, np.zeros(23)
    for by, found in ((0.999, False), (1.001, True)):
        away[joint] = way * by * most
        assert w.astray(u + away, u) is found
