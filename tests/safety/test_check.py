"""What makes the check speak; that nothing else does is in test_check_quiet."""

import time
from dataclasses import replace

import numpy as np
import pytest
from watched_plant import DT, Bench

from palmar.benchmarks.plant import Reading
from palmar.safety.check import CheckConfig
from palmar.safety.types import CommandRefused, ConfigError
from palmar.safety.watchdog import Event


def moving(spoil, joints=(0, 3, 8), *, after=60, ticks=800):
    """A bench whose readings are spoilt once it has moved for a while."""
    b = Bench()
    assert b.go(after, joints) is None
    b.spoil, b.k, b.at, b.held = spoil, 0, b.u.copy(), b.read()
    return b, b.go(ticks)


def at(r, j, value):
    q = r.q.copy()
    q[j] = value
    return replace(r, q=q)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e308, -1e308])
@pytest.mark.parametrize("which", ["q", "qd", "tau"])
def test_three_unbelievable_readings_in_a_row_stop_and_two_do_not(which, value):
    def spoil(b, r):
        x = getattr(r, which).copy()
        x[4] = value
        return replace(r, **{which: x}) if b.k in (3, 4, 10, 11, 12) else r

    b, event = moving(spoil)
    assert b.first == 12
    assert event is (Event.STATE_IMPLAUSIBLE if np.isfinite(value) else Event.STATE_NONFINITE)
    assert np.isfinite(b.check.state.q).all()


@pytest.mark.parametrize("bad", [[1.0, 2.0], "text", None, [[0.0] * 23]])
def test_a_reading_of_another_shape_or_kind_is_unbelievable_too(bad):
    b, event = moving(lambda b, r: replace(r, q=bad))
    assert event is Event.STATE_NONFINITE and b.check.counts["unshaped"] == 3


@pytest.mark.parametrize(("j", "size"), [(0, 0.05), (6, -0.1), (9, 0.5)])
def test_a_spike_is_dropped_and_counted(j, size):
    b, event = moving(lambda b, r: at(r, j, r.q[j] + size) if b.k % 50 == 49 else r)
    assert event is None and b.check.counts["implausible"] == 16


def test_no_new_reading_is_bridged_for_five_milliseconds_then_a_gap_and_after_twenty_stale():
    b = Bench()
    assert b.go(20, (0,)) is None
    b.held = b.read()
    b.spoil = lambda b, r: b.held
    events = [b.tick() for _ in range(30)]
    assert events[:5] == [None] * 5
    assert set(events[6:20]) == {Event.READING_GAP}
    assert set(events[21:]) == {Event.STATE_STALE}


def test_readings_that_go_back_in_sequence_are_not_new_ones():
    b, event = moving(lambda b, r: replace(r, seq=r.seq - 500))
    assert event is Event.READING_GAP and b.check.counts["backwards"] > 5
    for _ in range(20):
        event = b.tick()
    assert event is Event.STATE_STALE


@pytest.mark.parametrize("first", [0, 5])
def test_numbers_that_were_left_out_are_counted_as_lost_but_not_after_a_reset(first):
    b = Bench()
    b.check.start(replace(b.read(), seq=first))
    b.check.reading(replace(b.read(), seq=first + 3), b.plant.now, b.u, b.ud)
    assert b.check.counts["lost"] == 2
    b.check.resume()
    b.check.reading(replace(b.read(), seq=first + 9), b.plant.now, b.u, b.ud)
    assert b.check.counts["lost"] == 2


@pytest.mark.parametrize("jump", [0.1, 1.0, 3600.0, np.inf, np.nan])
def test_a_clock_that_goes_back_makes_no_reading_younger(jump):
    b = Bench()
    assert b.go(20, (0,)) is None
    b.plant.now -= jump
    assert b.tick() is Event.CLOCK_BACKWARDS
    if not np.isfinite(jump):
        return
    assert b.go(50) is None
    b.held, b.spoil = b.read(), lambda b, r: b.held
    assert Event.STATE_STALE in [b.tick() for _ in range(23)]


def test_stamps_of_readings_decide_nothing():
    b, event = moving(lambda b, r: replace(r, t=r.t - 3600.0 if b.k % 2 else r.t + 1e12))
    assert event is None and b.check.counts["stamp"] == 800


@pytest.mark.parametrize("joints", [(0,), (3, 5), (8, 9)])
def test_a_frozen_sensor_is_seen_within_twenty_milliseconds(joints):
    def spoil(b, r):
        arm = joints[0] < 7
        part = slice(0, 7) if arm else slice(7, None)
        values = {k: getattr(r, k).copy() for k in ("q", "qd", "tau")}
        for k, x in values.items():
            x[part] = getattr(b.held, k)[part]
        return replace(r, **values)

    b, event = moving(spoil, joints)
    assert event is Event.STATE_FROZEN and b.first <= 20
    b.spoil = None
    for _ in range(3):
        b.tick()
    assert b.check.reading(b.read(), b.plant.now, b.u, b.ud) is None  # it thawed


def test_a_frozen_sensor_at_rest_is_not_seen_and_no_finding():
    b = Bench()
    b.held = b.read()
    b.spoil = lambda b, r: replace(b.held, seq=r.seq, t=r.t)
    assert b.go(1000) is None


def test_positions_frozen_under_living_speeds_are_inconsistent():
    def spoil(b, r):
        return at(r, 0, b.held.q[0] + 1e-6 * b.rng.standard_normal())

    b, event = moving(spoil, (0,))
    assert event in (Event.STATE_IMPLAUSIBLE, Event.JOINT_MISMATCH) and "fr3_joint1" in b.check.detail


@pytest.mark.parametrize("j", range(7))
def test_a_reversed_arm_joint_is_seen_within_a_twentieth_of_a_radian(j):
    b = Bench()
    start = b.plant.q.copy()

    def spoil(b, r):
        qd = r.qd.copy()
        qd[j] = -qd[j]
        return replace(at(r, j, 2 * start[j] - r.q[j]), qd=qd)

    b.spoil = spoil
    assert b.go(800, (j,)) is Event.JOINT_MISMATCH
    assert abs(b.u[j] - start[j]) < 0.05 and b.robot.joints[j] in b.check.detail


def swapped(i, j, start):
    def spoil(b, r):
        q, qd, tau = r.q.copy(), r.qd.copy(), r.tau.copy()
        for x in (q, qd, tau):
            x[[i, j]] = x[[j, i]]
        q[[i, j]] += start[[i, j]] - start[[j, i]]
        return replace(r, q=q, qd=qd, tau=tau)

    return spoil


@pytest.mark.parametrize(("i", "j"), [(0, 1), (2, 4), (3, 5), (5, 6)])
def test_two_swapped_arm_joints_are_seen_before_the_distance_from_the_command_would_show_it(i, j):
    b = Bench()
    start = b.plant.q.copy()
    b.spoil = swapped(i, j, start)
    assert b.go(1500, (i,)) is Event.JOINT_MISMATCH
    assert abs(b.u[i] - start[i]) < 0.2


def test_a_reversed_finger_is_seen():
    b = Bench()
    start = b.plant.q.copy()
    b.goal[9] = 1.6

    def spoil(b, r):
        qd = r.qd.copy()
        qd[9] = -qd[9]
        return replace(at(r, 9, 2 * start[9] - r.q[9]), qd=qd)

    b.spoil = spoil
    assert b.go(800) in (Event.JOINT_MISMATCH, Event.STATE_IMPLAUSIBLE)


def test_what_a_joint_was_found_to_be_stays_until_an_operator_looked():
    b = Bench()
    start = b.plant.q.copy()
    b.spoil = lambda b, r: at(r, 0, 2 * start[0] - r.q[0])
    b.go(800, (0,))
    b.spoil = None
    assert all(b.tick() is Event.JOINT_MISMATCH for _ in range(5))
    b.check.resume()
    b.goal = b.u.copy()
    assert b.tick() is None


def test_wrong_order_or_sign_is_refused_at_the_start():
    b = Bench()
    r = b.read()
    with pytest.raises(CommandRefused, match="fr3_joint4 reads"):
        b.check.start(at(r, 3, -r.q[3]))
    with pytest.raises(CommandRefused, match="wrong order"):
        b.check.start(replace(r, q=np.roll(r.q, 1)))
    with pytest.raises(CommandRefused, match="expected"):
        b.check.start(r, expected=r.q + 0.2)
    for bad in (np.nan, np.inf):
        with pytest.raises(CommandRefused, match="finite"):
            b.check.start(at(r, 3, bad))
    b.check.start(r, expected=b.robot.home + (r.q - b.robot.home))


@pytest.mark.parametrize("key", CheckConfig.__dataclass_fields__)
@pytest.mark.parametrize("value", [0, -1.0, float("inf"), float("nan")])
def test_impossible_values_are_refused(key, value):
    with pytest.raises(ConfigError, match=key):
        CheckConfig(**{key: value})


def test_a_tick_of_the_check_is_cheap():
    b = Bench()
    b.go(50, (0, 1, 8))
    times = []
    for k in range(2000):
        r = Reading(b.plant.now, b.plant.seq + k + 1, b.read().q, b.plant.data.qvel[b.plant._v] * 0, 0 * b.u)
        begin = time.thread_time_ns()
        b.check.reading(r, b.plant.now + k * DT, b.u, b.ud)
        times.append(time.thread_time_ns() - begin)
    assert np.median(times) < 50_000  # 5 us where nothing else runs
