"""Every pair of state and event, compared with a list written by hand."""

import itertools

import pytest

from palmar.safety.types import ConfigError, State
from palmar.safety.watchdog import Event, Watchdog, WatchdogConfig

RUN, HOLD, STOP, LATCHED = State.RUN, State.HOLD, State.STOP, State.LATCHED
EXPECTED = {
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
    w = Watchdog(WatchdogConfig(), 0.001)
    w.start(0.0, 0)
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


def test_three_bad_readings_in_a_row_stop_and_two_do_not():
    w = dog()
    for seq, finite in enumerate([False, False, True, False, False], start=1):
        assert w.reading(seq, finite, 0.001) is None
    assert w.reading(6, False, 0.001) is Event.STATE_NONFINITE


def test_a_repeated_bad_reading_counts_once():
    w = dog()
    for _ in range(10):
        assert w.reading(1, False, 0.001) is None


def test_no_new_reading_for_twenty_milliseconds_is_stale():
    w = dog()
    assert w.reading(1, True, 0.0) is None
    assert w.reading(1, True, 0.0199) is None
    assert w.reading(1, True, 0.0201) is Event.STATE_STALE


@pytest.mark.parametrize("key", WatchdogConfig.__dataclass_fields__)
@pytest.mark.parametrize("value", [0, -1.0, float("inf"), float("nan")])
def test_impossible_values_are_refused(key, value):
    with pytest.raises(ConfigError, match=key):
        WatchdogConfig(**{key: value})
