"""Written, read back, and opened by readers that know nothing of Palmar."""

from __future__ import annotations

import numpy as np
import pytest
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import Reader

from palmar.rollouts import schema
from palmar.rollouts.read import read
from palmar.rollouts.record import RolloutWriter
from palmar.rollouts.template import STAMP, Template, sentinel
from palmar.safety.types import CONTACT_PAIRS, Chunk, ConfigError, RolloutRefused, State, Verdict


def test_what_was_written_is_read_back_bit_by_bit(recorded):
    path, truth = recorded
    run = read(path)
    assert run.complete and run.success is True and run.result["height"] == 0.12
    for found, given in (
        (run.joints.q, truth.q),
        (run.command.u, truth.u),
        (run.command.uddd, truth.uddd),
        (run.intended.q, truth.u + 0.01),
        (run.objects["box"].position, truth.box[:, :3]),
        (run.objects["box"].quaternion, truth.box[:, 3:]),
        (run.physics.ctrl, truth.ctrl),
        (run.contact.force, truth.force),
        (run.states.qpos[1:], truth.qpos[4::5]),
    ):
        assert np.array_equal(found, given)
    assert np.abs(run.joints.t - truth.t).max() < 1e-9
    assert run.states.step.tolist() == list(range(0, 301, 5))


def test_stiffness_and_damping_of_chunks_commands_and_servos_are_read_back(small, tmp_path):
    head, rng = small.header(), np.random.default_rng(0)
    q, k, d = rng.normal(size=(4, 3)), rng.uniform(0, 60, (4, 3)), rng.uniform(0, 6, (4, 3))
    times = head.t0 + 0.05 * np.arange(1, 5)
    with RolloutWriter(tmp_path / "soft.mcap", head) as out:
        out.chunk(Chunk(q, times, 1, head.t0))
        out.chunk(Chunk(q, times, 2, head.t0, ("j3", "j1", "j2"), k, d))
        for i in range(4):
            out.impedance(times[i], k[i], d[i])
            out.servo(10 * i, k[i], d[i])
    run = read(tmp_path / "soft.mcap")
    plain, soft = run.chunks
    assert plain.stiffness is None and plain.joints == ("j1", "j2", "j3")
    assert soft.joints == ("j3", "j1", "j2") and np.array_equal(soft.q, q)
    assert np.array_equal(soft.stiffness, k) and np.array_equal(soft.damping, d)
    for found in (run.impedance, run.servos):
        assert np.array_equal(found.stiffness, k) and np.array_equal(found.damping, d)
    assert run.servos.step.tolist() == [0, 10, 20, 30] and np.abs(run.impedance.t - times).max() < 1e-9
    assert not run.other_topics


def test_gains_that_no_servo_has_are_refused(small, tmp_path):
    for name, rows in (("negative", [(0, -1.0)]), ("nan", [(0, np.nan)]), ("disordered", [(5, 1.0), (5, 2.0)])):
        with RolloutWriter(tmp_path / f"{name}.mcap", small.header()) as out:
            for step, gain in rows:
                out.servo(step, np.full(3, gain), np.ones(3))
        with pytest.raises(RolloutRefused, match="servo"):
            read(tmp_path / f"{name}.mcap")


def test_the_header_is_read_back(small, recorded):
    run = read(recorded[0])
    given = small.header()
    assert run.header.robot.hash() == given.robot.hash()
    assert run.header.constraints == small.CONSTRAINTS and run.header.model_xml == small.XML
    for name in ("task", "instruction", "config", "git", "seed", "noise_seeds", "t0", "wall_start_ns"):
        assert getattr(run.header, name) == getattr(given, name)
    assert run.header.state0 is not None and run.header.state0.dtype == np.float64


def test_verdicts_keep_state_reason_margins_and_active_rows(recorded):
    v = read(recorded[0]).verdicts
    hold = schema.STATE_CODES.index(State.HOLD)
    assert np.flatnonzero(v.state == hold).tolist() == list(range(100, 120))
    assert [r for r in v.reason[99:121]] == [""] + ["stale"] * 20 + [""]
    assert np.array_equal(v.changed, np.arange(300) % 3 == 0)
    assert v.active[:, :2].all() and not v.active[:, 2:].any()
    assert np.array_equal(v.margins[:, 0], 0.1 - 0.001 * np.arange(300))


def test_chunks_and_events_are_read_back(recorded):
    run = read(recorded[0])
    (chunk,) = run.chunks
    assert chunk.seq == 3 and chunk.joints == ("j1", "j2", "j3") and chunk.q.shape == (4, 3)
    assert np.abs(chunk.t - (12.51 + 0.05 * np.arange(4))).max() < 2e-9
    assert [e.name for e in run.events].count("filter") == 3
    assert run.events[-1].values == {"age": "0.4"} and run.events[-1].level == "error"


def test_an_active_row_of_no_constraint_becomes_one_event(small, tmp_path):
    with RolloutWriter(tmp_path / "a.mcap", small.header()) as out:
        for t in (12.5, 12.6):
            out.verdict(t, Verdict(State.RUN, "", False, 0.0, ("mystery",)))
    found = [e.detail for e in read(tmp_path / "a.mcap").events if "no constraint" in e.name]
    assert found == ["mystery"]


@pytest.mark.parametrize("reader", [Reader, lambda path: AnyReader([path])])
def test_rosbags_opens_it_as_it_is(recorded, reader):
    path, truth = recorded
    store = schema.typestore()
    count, positions = 0, []
    with reader(path) as bag:
        for connection, _, data in bag.messages():
            message = store.deserialize_cdr(data, connection.msgtype)
            count += 1
            if connection.topic == schema.JOINT_STATES:
                positions.append(message.position)
    assert np.array_equal(positions, truth.q) and count > 300 * 8


def test_mcap_ros2_decodes_every_message(recorded):
    path, truth = recorded
    boxes, topics = [], set()
    with path.open("rb") as stream:
        for _, channel, _, message in make_reader(stream, decoder_factories=[DecoderFactory()]).iter_decoded_messages():
            topics.add(channel.topic)
            if channel.topic == "/objects/box/pose":
                boxes.append([message.pose.position.x, message.pose.orientation.w])
            if channel.topic == schema.CONTACT:
                assert [d.label for d in message.layout.dim] == list(CONTACT_PAIRS)
    assert np.array_equal(boxes, truth.box[:, [0, 3]])
    assert topics == set(schema.TYPES) - {schema.SERVO, schema.IMPEDANCE} | {"/objects/box/pose"}


def test_a_rollout_is_never_overwritten(small, recorded):
    with pytest.raises(RolloutRefused, match="exists already"):
        RolloutWriter(recorded[0], small.header())


def test_wrong_shapes_and_names_are_refused_by_the_writer(small, tmp_path):
    with RolloutWriter(tmp_path / "a.mcap", small.header()) as out:
        with pytest.raises(RolloutRefused, match=r"position has shape \(2,\), need \(3,\)"):
            out.joint_state(12.5, [1.0, 2.0], np.zeros(3), np.zeros(3))
        with pytest.raises(RolloutRefused, match="object 'cup' is not in"):
            out.object_pose(12.5, "cup", np.zeros(3), np.zeros(4))
        with pytest.raises(RolloutRefused, match="level 'loud'"):
            out.event(12.5, "loud", "a", "b")
    with pytest.raises(ConfigError, match="plain JSON"):
        small.header(config={"a": float("nan")}).to_metadata()


def test_an_error_in_the_run_still_closes_the_file_and_is_named(small, tmp_path):
    with pytest.raises(ZeroDivisionError), RolloutWriter(tmp_path / "a.mcap", small.header()) as out:
        out.joint_state(12.5, np.zeros(3), np.zeros(3), np.zeros(3))
        raise ZeroDivisionError("engine")
    run = read(tmp_path / "a.mcap")
    assert run.complete and run.success is None and "ZeroDivisionError" in run.result["error"]


@pytest.mark.parametrize("sizes", [(3, 3, 3), (23, 23, 0), (1, 0, 0)])
def test_a_filled_template_has_the_bytes_of_the_serialised_message(sizes):
    store, rng = schema.typestore(), np.random.default_rng(0)
    types, kind = store.types, schema.JOINT_STATE_TYPE
    names = [f"joint{k}" for k in range(sizes[0])]

    def message(stamp, arrays):
        head = types["std_msgs/msg/Header"](types["builtin_interfaces/msg/Time"](*stamp), "")
        return types[kind](head, names, *arrays)

    template = Template(message(STAMP, [sentinel(s, k) for k, s in enumerate(sizes)]), kind, sizes)
    for ns in (0, 1_790_000_000_123_456_789):
        arrays = tuple(rng.normal(size=s) for s in sizes)
        expected = store.serialize_cdr(message(divmod(ns, 10**9), arrays), kind, little_endian=True)
        assert template.fill(ns, arrays) == bytes(expected)
