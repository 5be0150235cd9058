"""Chunks are consumed by time, newest wins, never back in time; the rest is refused by name."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palmar.safety.chunks import ChunkConfig, ChunkPlayer
from palmar.safety.types import Chunk, CommandRefused, ConfigError

JOINTS = ("a", "b", "c")


def player(now=0.0, **config):
    p = ChunkPlayer(JOINTS, ChunkConfig(**config))
    p.rest(np.zeros(3), now)
    return p


def chunk(q, t, *, seq=1, received=0.0, joints=()):
    return Chunk(q=np.asarray(q, dtype=float), t=np.asarray(t, dtype=float), seq=seq, received=received, joints=joints)


ROW = [0.1, 0.2, 0.3]


def test_the_reference_goes_through_the_targets_at_their_times_and_rests_at_the_last():
    p = player()
    p.offer(chunk([[0.1] * 3, [0.3] * 3], [0.1, 0.2]))
    for now, q, rate in (
        (0.0, 0.0, 1.0),
        (0.05, 0.05, 1.0),
        (0.1, 0.1, 2.0),
        (0.15, 0.2, 2.0),
        (0.2, 0.3, 0),
        (9, 0.3, 0),
    ):
        r, rd = p.reference(now)
        np.testing.assert_allclose(r, q, atol=1e-12)
        np.testing.assert_allclose(rd, rate, atol=1e-12)


def test_the_newest_chunk_replaces_the_pending_one_from_the_present_reference():
    p = player()
    p.offer(chunk([[0.2] * 3, [0.4] * 3], [0.1, 0.2]))
    p.reference(0.05)
    p.offer(chunk([[0.9] * 3, [0.0] * 3], [0.04, 0.15], seq=2, received=0.05))
    r, rd = p.reference(0.05)
    np.testing.assert_allclose(r, 0.1)
    np.testing.assert_allclose(rd, -1.0)  # the target that was due at 0.04 is dropped, not gone back to
    np.testing.assert_allclose(p.reference(0.15)[0], 0.0, atol=1e-12)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.floats(0.001, 0.03), st.floats(-0.2, 0.2), st.booleans()), min_size=5, max_size=40))
def test_the_reference_is_continuous_and_time_never_goes_back(steps):
    p, now, seq = player(jump=10.0), 0.0, 0
    before, _ = p.reference(0.0)
    for dt, q, offer in steps:
        if offer:
            seq += 1
            p.offer(chunk([[q] * 3, [-q] * 3], [now + 0.02, now + 0.05], seq=seq, received=now))
        now += dt
        r, _ = p.reference(now)
        assert np.abs(r - before).max() <= 0.45 / 0.001 * dt
        again, _ = p.reference(now - 0.5)  # a clock that jumps back does not move the reference
        np.testing.assert_array_equal(again, r)
        before = r.copy()


def test_named_columns_are_put_in_hardware_order():
    p = player()
    p.offer(chunk([[0.3, 0.1, 0.2]], [0.1], joints=("c", "a", "b")))
    np.testing.assert_allclose(p.reference(0.1)[0], [0.1, 0.2, 0.3])


BAD = {
    "wrong width": (chunk([[0.1, 0.2]], [0.1]), r"\(1, 2\).*need \(H, 3\)"),
    "no rows": (chunk(np.zeros((0, 3)), []), "1 <= H"),
    "flat": (chunk([0.1, 0.2, 0.3], [0.1]), "need"),
    "times missing": (chunk([ROW, ROW], [0.1]), "need"),
    "nan": (chunk([[0.1, np.nan, 0.2]], [0.1]), "targets not finite"),
    "inf": (chunk([[0.1, np.inf, 0.2]], [0.1]), "targets not finite"),
    "huge": (chunk([[0.1, 1e308, 0.2]], [0.1]), "accepted up to 100"),
    "nan time": (chunk([ROW], [np.nan]), "times not finite"),
    "nan receive": (chunk([ROW], [0.1], received=np.nan), "receive time not finite"),
    "words": (Chunk(q=[["x", "y", "z"]], t=[0.1], seq=1, received=0.0), "not numbers"),
    "unknown joint": (
        chunk([ROW], [0.1], joints=("a", "b", "elbow")),
        "unknown.*elbow.*accepted.*'a', 'b', 'c'",
    ),
    "missing joint": (chunk([ROW], [0.1], joints=("a", "b")), "missing.*'c'"),
    "repeated joint": (chunk([ROW], [0.1], joints=("a", "b", "b")), "missing.*'c'"),
    "equal times": (chunk([ROW, ROW], [0.1, 0.1]), "increase strictly"),
    "decreasing times": (chunk([ROW, ROW], [0.2, 0.1]), "increase strictly"),
    "all past": (chunk([ROW], [-0.1]), "stale, its last target"),
    "received long ago": (chunk([ROW], [0.1], received=-0.3), "stale, received"),
    "another clock": (chunk([ROW], [1.7e9], received=1.7e9), "another clock"),
    "times of another clock": (chunk([ROW, ROW], [0.1, 1.7e9]), "another clock"),
    "received by another clock": (chunk([ROW], [0.1], received=1.7e9), "another clock"),
    "jump": (chunk([[0.1, -1.6, 0.1]], [0.1]), "jump of 1.6.* at b.*accepted up to 1.5"),
    "repeated number": (chunk([ROW], [0.1], seq=0), "out of order.*above 0"),
    "fractional number": (chunk([ROW], [0.1], seq=1.5), "out of order"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_chunks_are_refused_by_name_and_change_nothing(name):
    p = player()
    p.offer(chunk([[0.5] * 3], [0.1], seq=0))
    bad, message = BAD[name]
    with pytest.raises(CommandRefused, match=message):
        p.offer(bad)
    assert p.refused == 1
    assert p.seq == 0
    np.testing.assert_allclose(p.reference(0.1)[0], 0.5)


def test_a_chunk_received_before_the_one_in_use_is_refused():
    p = player()
    p.offer(chunk([ROW], [0.1], seq=1, received=0.0))
    with pytest.raises(CommandRefused, match="before the chunk in use"):
        p.offer(chunk([ROW], [0.1], seq=2, received=-0.1))


def test_a_chunk_may_be_as_long_as_the_longest_and_no_longer():
    for h, fine in ((4, True), (5, False)):
        p = player(longest=4)
        many = chunk(np.zeros((h, 3)), 0.1 * np.arange(1, h + 1))
        if fine:
            p.offer(many)
        else:
            with pytest.raises(CommandRefused, match="need"):
                p.offer(many)


def test_what_the_caller_does_with_its_arrays_later_does_not_matter():
    p, q = player(), np.array([[0.5] * 3])
    p.offer(Chunk(q=q, t=[0.1], seq=1, received=0.0))
    q[:] = 99
    np.testing.assert_allclose(p.reference(0.1)[0], 0.5)


@pytest.mark.parametrize("bad", [{"timeout": 0.0}, {"jump": -1.0}, {"longest": 0}, {"timeout": float("nan")}])
def test_impossible_values_are_refused(bad):
    with pytest.raises(ConfigError):
        ChunkConfig(**bad)


def stiff(k, t, *, seq=1, received=0.0, joints=(), d=None):
    k = np.asarray(k, dtype=float)[:, None] * np.array([1.0, 2.0, 3.0])
    d = 0.1 * k if d is None else d
    return Chunk(q=np.zeros_like(k), t=np.array(t), seq=seq, received=received, joints=joints, stiffness=k, damping=d)


def stiffness(p, now):
    p.reference(now)
    return p.impedance(now)[0]


def test_no_stiffness_is_in_force_before_a_chunk_names_one_nor_before_its_target_is_due():
    p = player()
    p.offer(chunk([ROW], [0.05], seq=0))
    assert p.impedance(0.02) == (None, None)
    p.offer(stiff([100.0, 50.0], [0.1, 0.2]))
    assert p.impedance(0.09) == (None, None)
    np.testing.assert_allclose(stiffness(p, 0.1), [100, 200, 300])
    np.testing.assert_allclose(p.impedance(0.1)[1], [10, 20, 30])
    np.testing.assert_allclose(stiffness(p, 0.1999), [100, 200, 300])
    np.testing.assert_allclose(stiffness(p, 9.0), [50, 100, 150])


@settings(max_examples=60)
@given(st.lists(st.tuples(st.floats(0.001, 0.03), st.floats(1, 900), st.booleans()), min_size=5, max_size=40))
def test_stiffness_takes_named_values_only_and_never_before_their_time(steps):
    p, now, seq, due = player(), 0.0, 0, []
    for dt, k, offer in steps:
        if offer:
            seq += 1
            due = [(now + 0.02, k), (now + 0.05, k / 2)] + [(t, x) for t, x in due if t <= now]
            p.offer(stiff([k, k / 2], [now + 0.02, now + 0.05], seq=seq, received=now))
        now += dt
        held = stiffness(p, now)
        passed = [(t, x) for t, x in due if t <= now]
        if passed:
            assert held[0] == max(passed)[1]
        else:
            assert held is None


def test_a_target_that_had_passed_when_its_chunk_came_gives_its_stiffness_at_once():
    p = player()
    p.reference(0.05)
    p.offer(stiff([100.0, 50.0], [0.01, 0.2], received=0.05))
    np.testing.assert_allclose(p.impedance(0.05)[0], [100, 200, 300])


def test_stiffness_stays_when_the_reference_rests_and_when_a_chunk_names_none():
    p = player()
    p.offer(stiff([100.0, 900.0], [0.1, 0.2]))
    p.reference(0.1)
    p.rest(np.zeros(3), 0.15)
    np.testing.assert_allclose(stiffness(p, 0.3), [100, 200, 300])
    p.offer(chunk([ROW], [0.4], seq=2, received=0.3))
    np.testing.assert_allclose(stiffness(p, 0.5), [100, 200, 300])


def test_named_columns_of_stiffness_are_put_in_hardware_order():
    p = player()
    p.offer(stiff([100.0], [0.1], joints=("c", "a", "b")))
    np.testing.assert_allclose(stiffness(p, 0.1), [200, 300, 100])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"stiffness": np.ones((1, 3))}, "belong together"),
        ({"stiffness": np.ones((1, 2)), "damping": np.ones((1, 3))}, r"stiffness \(1, 2\), need \(1, 3\)"),
        ({"stiffness": np.ones((1, 3)), "damping": -np.ones((1, 3))}, "damping must be finite and >= 0"),
        ({"stiffness": np.full((1, 3), np.nan), "damping": np.ones((1, 3))}, "stiffness must be finite"),
        ({"stiffness": [["x"] * 3], "damping": np.ones((1, 3))}, "not numbers"),
    ],
)
def test_bad_stiffness_refuses_the_chunk_and_changes_nothing(bad, message):
    p = player()
    p.offer(stiff([100.0], [0.1], seq=0))
    with pytest.raises(CommandRefused, match=message):
        p.offer(Chunk(q=[ROW], t=[0.2], seq=1, received=0.0, **bad))
    np.testing.assert_allclose(stiffness(p, 0.3), [100, 200, 300])


@pytest.mark.parametrize("h", [1, 2, 5])
@pytest.mark.parametrize("joints", [(), ("c", "a", "b")])
def test_any_chunk_leaves_arrays_of_one_kind_so_that_no_kernel_is_compiled_while_moving(h, joints):
    p = player()
    p.offer(chunk(np.full((h, 3), 0.1), 0.1 * np.arange(1, h + 1), joints=joints))
    times, knots, _ = p.line()
    for array in (times, knots, p.reference(0.01)[0]):
        assert array.flags.c_contiguous and array.flags.writeable and array.dtype == np.float64
