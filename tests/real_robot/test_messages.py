"""What the topics carry, without a running graph: chunks with stiffness, people, and what was executed."""

from types import SimpleNamespace as Some

import numpy as np
import pytest

from palmar.real_robot.layout import MAX_PEOPLE
from palmar.real_robot.nodes import trajectory
from palmar.real_robot.nodes.people import people
from palmar.safety.types import CommandRefused

JOINTS = ("a", "b")
NAMES = ("b/damping", "a", "a/stiffness", "b", "a/damping", "b/stiffness")
ROW = (2.0, 0.1, 30.0, 0.2, 1.0, 40.0)


def chunk(names, rows, after=(0.1,)):
    return trajectory.chunk(names, rows, after, joints=JOINTS, seq=1, received=5.0)


def test_stiffness_and_damping_are_taken_by_name_in_any_order():
    c = chunk(NAMES, [ROW])
    np.testing.assert_array_equal(c.q, [[0.1, 0.2]])
    np.testing.assert_array_equal(c.stiffness, [[30, 40]])
    np.testing.assert_array_equal(c.damping, [[1, 2]])
    assert c.t.tolist() == [5.1]


def test_without_these_columns_a_chunk_has_no_stiffness():
    c = chunk(("b", "a"), [(0.2, 0.1)])
    np.testing.assert_array_equal(c.q, [[0.1, 0.2]])
    assert c.stiffness is None and c.damping is None


@pytest.mark.parametrize(
    ("names", "row", "message"),
    [
        (NAMES[:-1], ROW[:-1], "names.*missing.*b/stiffness"),
        (("a", "b", "a/stiffness", "b/stiffness"), (0, 0, 1, 1), "missing.*a/damping"),
        (NAMES, (2.0, 0.1, 30.0, 0.2, 1.0, np.nan), "non-finite"),
        (NAMES, (2.0, 0.1, -30.0, 0.2, 1.0, 40.0), "negative"),
        (NAMES, (0.1, 0.2), "shape.*need 6"),
    ],
)
def test_incomplete_or_impossible_stiffness_refuses_the_chunk(names, row, message):
    with pytest.raises(CommandRefused, match=message):
        chunk(names, [row])


def marker(points, *, width=0.4, frame="world", kind=5, action=0, x=0.0):
    return Some(
        id=7,
        header=Some(frame_id=frame),
        type=kind,
        action=action,
        pose=Some(position=Some(x=x, y=0.0, z=0.0), orientation=Some(x=0.0, y=0.0, z=0.0, w=1.0)),
        scale=Some(x=width),
        points=[Some(x=p[0], y=p[1], z=p[2]) for p in points],
    )


AXIS = [(1.0, 0.0, 0.0), (1.0, 0.0, 1.8)]


def test_a_person_is_a_line_with_a_width_and_the_way_of_one_second():
    p = people([marker(AXIS), marker([*AXIS, (1.0, 0.0, 0.9), (0.5, 0.1, 0.9)], width=0.2)], 3.0)
    np.testing.assert_array_equal(p.ends, [AXIS, AXIS])
    np.testing.assert_allclose(p.radius, [0.2, 0.1])
    np.testing.assert_allclose(p.velocity, [[0, 0, 0], [-0.5, 0.1, 0]])
    assert p.received == 3.0


def test_an_empty_message_says_that_nobody_is_there():
    assert people([], 3.0).ends.shape == (0, 2, 3)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([marker(AXIS, frame="camera")], "'camera'.*accepted 'world'"),
        ([marker(AXIS, kind=2)], "LINE_LIST"),
        ([marker(AXIS, action=2)], "ADD"),
        ([marker(AXIS, x=1.0)], "pose"),
        ([marker(AXIS[:1])], "1 points"),
        ([marker([(np.nan, 0, 0), AXIS[1]])], "finite"),
        ([marker(AXIS, width=0.0)], "width"),
        ([marker([*AXIS, (0, 0, 0), (99.0, 0, 0)])], "m/s"),
        ([marker(AXIS)] * (MAX_PEOPLE + 1), "accepted up to"),
    ],
)
def test_people_that_cannot_be_understood_are_refused_as_a_whole(bad, message):
    with pytest.raises(CommandRefused, match=message):
        people(bad, 0.0)


def record(t, chunk, edited, q):
    return {"t": t, "chunk": chunk, "edited_seq": edited, "u": np.full(2, q), "ud": np.full(2, 10 * q)}


def test_what_was_sent_since_the_chunk_came_is_told_from_its_first_edit_on():
    executed = pytest.importorskip("palmar.real_robot.nodes.executed", reason="ROS messages are not installed")
    sent = executed.Sent()
    assert sent.take(record(0.99, 4, -1, 0.0)) is None
    assert sent.take(record(1.00, 5, 4, 0.1)) is None  # the edit was of the chunk before
    told = sent.take(record(1.01, 5, 5, 0.2))
    assert told.t.tolist() == [1.00, 1.01]
    np.testing.assert_allclose(told.q, [[0.1, 0.1], [0.2, 0.2]])
    assert len(sent.take(record(1.01, 5, 5, 0.2)).t) == 2  # the same record again
    assert sent.take(record(1.02, 6, 5, 0.3)) is None


def test_what_was_executed_survives_the_way_to_the_policy():
    executed = pytest.importorskip("palmar.real_robot.nodes.executed", reason="ROS messages are not installed")
    from builtin_interfaces.msg import Time

    rng = np.random.default_rng(0)
    sent = executed.Executed(np.array([7.0, 7.01, 7.5]), rng.normal(size=(3, 2)), rng.normal(size=(3, 2)))
    message = executed.message(JOINTS, sent, Time(sec=100))
    message.joint_names = ["b", "a"]
    for point in message.points:
        point.positions, point.velocities = point.positions[::-1], point.velocities[::-1]
    back = executed.parse(message, JOINTS, age=2.0, now=9.0)
    np.testing.assert_allclose(back.t, sent.t, atol=1e-8)
    np.testing.assert_array_equal(back.q, sent.q)
    np.testing.assert_array_equal(back.qd, sent.qd)
    message.points[0].velocities = [0.0, float("nan")]
    with pytest.raises(CommandRefused, match="non-finite"):
        executed.parse(message, JOINTS, age=2.0, now=9.0)


def test_a_policy_that_listens_gets_it_into_its_memory_and_another_does_not_notice():
    pytest.importorskip("rclpy", reason="ROS is not installed")
    from palmar.real_robot.nodes.chooser import told

    class Sampler:
        def executed(self, carry, sent):
            return [*carry, sent]

    assert told(Sampler(), [1], "sent") == [1, "sent"]
    assert told(object(), [1], "sent") == [1]
