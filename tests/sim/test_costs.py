"""Compiled costs are those of the constraint file, to the last bit."""

from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from palmar.safety.constraints import load
from palmar.safety.types import CONTACT_PAIRS, Measurement
from palmar.sim.costs import COMPILED, Costs

S, B, M, DT = 10, 9, 3, 0.005
FILES = ("arm_hand", "shared_cell", "hazards", "maze", "coworker")


def samples(limits, seed):
    """What may be measured: half of it beyond the limits, objects that go up and down."""
    rng, n = np.random.default_rng(seed), len(limits.q_min)
    mid, half = 0.5 * (limits.q_min + limits.q_max), 0.5 * (limits.q_max - limits.q_min)
    few = (np.arange(B) % 2 == 0)[:, None]

    def joints(most):
        return np.where(few, 0.05, 1.05) * np.where(np.isfinite(most), most, 1e3) * rng.uniform(-1, 1, (S, B, n))

    quaternion = rng.normal(size=(S, B, M, 4))
    return Measurement(
        t=np.arange(S)[:, None] * DT + np.zeros(B),
        q=mid + np.where(few, 0.9, 1.02) * half * rng.uniform(-1, 1, (S, B, n)),
        qd=joints(limits.v_max), tau=joints(limits.tau_max),
        u=mid + np.where(few, 0.5, 1) * half * rng.uniform(-1, 1, (S, B, n)), ud=joints(limits.v_max),
        udd=joints(limits.a_max), uddd=joints(limits.j_max), palm_position=rng.uniform(0, 1, (S, B, 3)),
        clearance_self=rng.normal(size=(S, B)), clearance_table=rng.normal(size=(S, B)),
        contact_force=rng.uniform(0, 60, (S, B, len(CONTACT_PAIRS))),
        object_position=rng.uniform(0, 0.12, (S, B, M, 3)),
        object_quaternion=quaternion / np.linalg.norm(quaternion, axis=-1, keepdims=True),
        tau_rate=joints(1e3), clearance_keep_out=rng.normal(size=(S, B, 2)), clearance_person=rng.uniform(0, 1, (S, B)),
        approach_person=rng.uniform(0, 1, (S, B)), approach_contact=rng.uniform(0, 1, (S, B)),
        tank=rng.normal(size=(S, B)), wrench=rng.normal(size=(S, B, 6)), object_contact=rng.uniform(0, 9, (S, B, M)),
        object_visible=(rng.random((S, B, M)) < 0.5) * 1.0, free_cells=rng.integers(0, 90, (S, B)) * 1.0,
    )  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_costs_margins_and_memory_have_the_bits_of_the_file(robot, name):
    file = load(Path(str(files("palmar.configs"))) / "constraints" / f"{name}.yaml", robot.limits)
    known = tuple(c for c in file.constraints if not set(c.params.get("objects", ())) - set(range(M)))
    file = replace(file, constraints=known)
    ours, both = Costs(file, DT), np.zeros((2, len(known)), dtype=bool)
    mine = carry = file.start(samples(robot.limits, 99).at(0))
    for seed in range(6):
        m = samples(robot.limits, seed)
        want, got = file.over(m, carry, dt=DT), ours.over(m, mine)
        assert np.array_equal(got.cost, want.cost) and np.array_equal(got.margin, want.margin)
        carry, mine = want.carry, got.carry
        assert carry.keys() == mine.keys() and all(np.array_equal(carry[k], mine[k]) for k in carry)
        both |= np.stack([(want.cost > 0).any(axis=0), (want.cost == 0).any(axis=0)])
    judged = [k for k, c in enumerate(known) if c.margin in COMPILED]
    assert len(judged) >= 5 and both[:, judged].all(), both  # each was violated, and each was not


def test_a_selection_and_another_order_keep_their_columns(robot, constraints):
    names = constraints.names[::-1]
    m = samples(robot.limits, 3)
    for chosen in (names, ("joint_jerk",), ("table_force",)):
        file = constraints.select(chosen)
        start = file.start(m.at(0))
        got, want = Costs(file, DT).over(m, start), file.over(m, start, dt=DT)
        assert np.array_equal(got.cost, want.cost) and np.array_equal(got.margin, want.margin)
