"""The audit is the constraint file's own arithmetic on the recorded numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from palmar.rollouts.audit import audit, disagreement
from palmar.rollouts.read import read
from palmar.rollouts.record import RolloutWriter
from palmar.safety.constraints import parse
from palmar.safety.types import CONTACT_PAIRS, RolloutRefused, State, Verdict


@pytest.fixture(scope="module")
def run(recorded):
    return read(recorded[0])


def test_the_audit_equals_direct_evaluation_of_what_was_written(run, recorded, small):
    """Against the arrays given to the writer and formulas written out here, not against margins.py."""
    truth = recorded[1]
    found = audit(run, run.header.constraint_set(), small.clearance)
    jerk = 5000 - np.abs(truth.uddd).max(axis=1)
    table = 5.0 - truth.force[:, CONTACT_PAIRS.index("robot_table")]
    grip = 30.0 - truth.force[:, 1:].max(axis=1)
    position = np.minimum(2 - np.abs(truth.q).max(axis=1), 2 - np.abs(truth.u).max(axis=1))
    drop = 0.05 - (np.maximum.accumulate(truth.box[:, 2]) - truth.box[:, 2])
    for name, margin in (
        ("joint_jerk", jerk),
        ("table_force", table),
        ("grip_force", grip),
        ("joint_position", position),
        ("dropped_object", drop),
    ):
        row = found[name]
        assert np.allclose(row.margin, margin, rtol=0, atol=1e-12), name
        assert np.array_equal(row.violated, margin < 0), name
        assert row.worst == row.margin.min() and row.unknown == 0
    for name in ("joint_jerk", "table_force"):
        assert 0 < found[name].violated.sum() < 300
        assert found[name].cost == pytest.approx(0.002 * found[name].violated.sum())
    assert found.same_constraints and found.longest_gap == pytest.approx(0.002)


def test_spans_cover_exactly_the_violated_samples(run, small):
    row = audit(run, run.header.constraint_set(), small.clearance)["joint_jerk"]
    t = run.joints.t
    inside = np.zeros(len(t), bool)
    for begin, end in row.spans:
        inside |= (t >= begin) & (t < end - 1e-9)
    assert np.array_equal(inside, row.violated)


def test_mutating_one_limit_changes_that_row_and_no_other(run, small):
    before = audit(run, run.header.constraint_set(), small.clearance)
    other = parse(
        small.CONSTRAINTS.replace("pair: robot_table, limit: 5.0", "pair: robot_table, limit: 2.0"),
        run.header.robot.limits,
    )
    after = audit(run, other, small.clearance)
    assert after["table_force"].cost > before["table_force"].cost
    assert after["table_force"].worst == pytest.approx(before["table_force"].worst - 3.0)
    for row in before.rows:
        if row.name != "table_force":
            assert np.array_equal(row.margin, after[row.name].margin)
    assert before.same_constraints and not after.same_constraints


def test_mutating_a_robot_limit_changes_the_audit(run, small):
    limits = replace(run.header.robot.limits, v_max=np.full(3, 0.75))
    base = audit(run, run.header.constraint_set(), small.clearance)["joint_velocity"]
    slow = audit(run, parse(small.CONSTRAINTS, limits), small.clearance)["joint_velocity"]
    assert slow.violated.sum() > base.violated.sum()


def test_what_the_filter_does_not_claim_is_listed(run, small):
    found = audit(run, run.header.constraint_set(), small.clearance)
    assert found.not_enforced == ("joint_torque", "table_force", "grip_force", "dropped_object")


def test_what_was_not_recorded_is_unknown_and_never_safe(run, small):
    blind = replace(run, contact=replace(run.contact, t=np.zeros(0), force=np.zeros((0, 5))), objects={})
    found = audit(blind, run.header.constraint_set(), small.clearance)
    for name in ("table_force", "grip_force", "dropped_object"):
        assert found[name].unknown == 300 and np.isnan(found[name].worst) and not found[name].violated.any()
    assert found["joint_jerk"].unknown == 0
    with pytest.raises(RolloutRefused, match="no sample has both"):
        empty = np.zeros((0, 3))
        sent = replace(run.command, t=np.zeros(0), u=empty, ud=empty, udd=empty, uddd=empty)
        audit(replace(run, command=sent), run.header.constraint_set(), small.clearance)


def test_a_file_that_asks_for_what_no_rollout_holds_is_audited_with_those_rows_unknown(run, small):
    text = (Path(__file__).parents[2] / "configs/constraints/shared_cell.yaml").read_text()
    found = audit(run, parse(text, run.header.robot.limits), small.clearance)
    unknown = {row.name for row in found.rows if row.unknown == len(found.t)}
    assert unknown == {
        "torque_rate",
        "keep_out_left",
        "keep_out_fixture",
        "speed_separation",
        "contact_approach",
        "energy_tank",
    }
    assert not unknown & set(found.violated)


def test_slower_topics_are_held_and_samples_before_their_first_value_left_out(run, small):
    slow = replace(run.contact, t=run.contact.t[10::10], force=run.contact.force[10::10])
    m = replace(run, contact=slow).measurements(small.clearance)
    assert len(m.t) == 290 and m.t[0] == run.joints.t[10]
    assert np.array_equal(m.contact_force, np.repeat(run.contact.force[10::10], 10, axis=0))


def test_a_force_peak_between_two_samples_is_not_lost(run, small):
    """Joint states at a tenth of the rate of the forces: every force peak is in exactly one sample."""
    joints = replace(run.joints, **{k: getattr(run.joints, k)[::10] for k in ("t", "q", "qd", "tau")})
    m = replace(run, joints=joints).measurements(small.clearance)
    force = run.contact.force
    expected = np.concatenate([force[:1], force[1:291].reshape(29, 10, 5).max(axis=1)])
    assert np.array_equal(m.contact_force, expected)


def test_the_filters_verdict_and_the_audit_name_the_same_samples(small, tmp_path):
    """Law 1 through the file: margins taken from the measurement that is recorded with them."""
    path = tmp_path / "a.mcap"
    source = tmp_path / "b.mcap"
    small.simulate(source, steps=120)
    first = read(source)
    constraints = first.header.constraint_set()
    m = first.measurements(small.clearance)
    carry = constraints.start(m.at(0))
    with RolloutWriter(path, first.header) as out:
        for s, t in enumerate(m.t):
            now = m.at(s)
            values, carry = constraints.margins(now, carry)
            out.joint_state(t, now.q, now.qd, now.tau)
            out.command(t, now.u, now.ud, now.udd, now.uddd)
            out.contact(t, now.contact_force)
            out.object_pose(t, "box", now.object_position[0], now.object_quaternion[0])
            margins = dict(zip(constraints.names, map(float, values), strict=True))
            out.verdict(t, Verdict(State.RUN, "", False, 0.0, (), margins))
    run = read(path)
    found = audit(run, constraints, small.clearance)
    assert set(disagreement(found, run).values()) == {0}
    assert any(row.violated.any() for row in found.rows)
    moved = parse(small.CONSTRAINTS.replace("limit: 5.0", "limit: 3.0"), run.header.robot.limits)
    changed = disagreement(audit(run, moved, small.clearance), run)
    assert changed["table_force"] > 0 and sum(changed.values()) == changed["table_force"]
