"""The batched QP gives what the runtime's gives, within a declared band."""

import numpy as np
import pytest
import torch

from palmar.safety import stop
from palmar.safety.barrier import BarrierConfig, Slots
from palmar.safety.batched import BatchedConfig, BatchedFilter
from palmar.safety.batched_obstacles import Cell
from palmar.safety.constraints import parse
from palmar.safety.enforced import KeepBack, enforced
from palmar.safety.geometry import Kinematics
from palmar.safety.intention import intend, step
from palmar.safety.obstacles import keep_outs, with_objects, with_people
from palmar.safety.qp import SOLVED, AccelerationQP, TankRows
from palmar.safety.rows import KINDS, REGION_KIND
from palmar.safety.types import ConfigError, People

BAND = 5e-6
"""Of float64, in units of a_max: the runtime believes an answer whose KKT conditions hold to 1e-6."""
COARSE = 5e-3
"""Of float32, for 19 in 20 of the problems that it calls solved; of the worst 10 times as much."""
DT = 0.001
USE = "signal: state, source: estimated, memory: none, budget: 0.0, unit: s"
CELL = f"""
  torque_rate: {{margin: joint_torque_rate, params: {{limit: 2000.0}}, error: 100.0, runtime: soft row, {USE}}}
  box: {{margin: keep_out, params: {{region: 0, lower: [0.3, -0.6, 0.2], upper: [0.75, -0.12, 0.8], limit: 0.0}},
    runtime: hard row, {USE}}}
  people: {{margin: speed_separation, params: {{human: 1.6, reaction: 0.06, brake: 2.5, intrusion: 0.05, creep: 0.02}},
    error: 0.02, runtime: hard row, {USE}}}
  contact: {{margin: contact_approach, params: {{force: 140.0, mass: 0.4, stiffness: 75000.0}}, error: 0.02,
    runtime: soft row, {USE}}}
"""


@pytest.fixture(scope="module")
def cell(robot, text):
    return parse(text + CELL, robot.limits)


def adversarial(robot, constraints, *, seed, ticks):
    """What the runtime's QP was asked and answered while it followed hostile goals among people and objects."""
    rng, keep, n = np.random.default_rng(seed), KeepBack(), robot.n
    asked, kin = enforced(constraints, keep), Kinematics.from_model(robot)
    qp = AccelerationQP(
        robot, kin, asked.bounds, asked.space, BarrierConfig(), dt=DT, torque=asked.torque, people=asked.people,
        impact=asked.impact, slots=Slots(),
    )  # fmt: skip
    obstacles, m, zero = keep_outs(constraints, keep.keep_out), robot.limits, np.zeros(n)
    q, v, a, wanted, out = robot.home.copy(), np.zeros(n), np.zeros(n), np.zeros(n), []
    next_q, next_v, stopping = np.zeros(n), np.zeros(n), np.zeros(n)
    for k in range(ticks):
        if k % 40 == 0:
            near = rng.random() < 0.5
            goal = q + rng.normal(size=n) * 0.5 if near else rng.uniform(m.q_min - 0.2, m.q_max + 0.2)
        if k % 300 == 0:
            ends, radius = rng.uniform([0.8, -0.9, 0.1], [1.6, 0.9, 1.2], (2, 2, 3)), rng.uniform(0.05, 0.15, 2)
            objects = rng.uniform([0.2, -0.5, 0.0], [0.7, 0.5, 0.5], (2, 3))
            speed = rng.normal(size=(2, 3)) * 0.3
        tank = (rng.normal(size=(2, n)) * 1e-4, rng.uniform(0, 1e-3, 2), rng.uniform(0.0, 2e-3, 2))
        row = TankRows(*tank) if k % 2 else None
        with_people(obstacles, None)
        there = with_objects(with_people(obstacles, People(ends, radius, speed, 0.0)), objects, 0.03)
        intend(q, v, a, goal, zero, asked.bounds, DT, wanted)
        code, x, share = qp.solve(q, v, a, wanted, obstacles=there, tank=row)
        out.append((q.copy(), v.copy(), a.copy(), wanted.copy(), x.copy(), code, share, qp.kinds, ends, radius, objects,
                    *tank, k % 2))  # fmt: skip
        if code != SOLVED:
            stop.stop_law(v, a, asked.bounds, DT, stopping)
            x = stopping
        step(q, v, x, DT, next_q, next_v)
        q, v, a = next_q.copy(), next_v.copy(), x.copy()
    return [np.array(x) for x in zip(*out, strict=True)]


@pytest.fixture(scope="module")
def recorded(robot, cell):
    runs = [adversarial(robot, cell, seed=seed, ticks=700) for seed in range(4)]
    return [np.concatenate(x) for x in zip(*runs, strict=True)]


def answered(batched, recorded, *, tank, convert=lambda x: x):
    """The batched answers to the recorded questions with or without a tank, and those of the runtime."""
    part = [x[recorded[-1] == tank] for x in recorded]
    q, v, a, wanted, x, code, share, kinds, ends, radius, objects, row, cost, room, _ = part
    q, v, a, wanted, ends, radius, objects, row, cost, room = (
        convert(x) for x in (q, v, a, wanted, ends, radius, objects, row, cost, room)
    )
    found = batched.solve(
        q, v, a, wanted, cell=Cell(ends, radius, objects, 0.03), tank=TankRows(row, cost, room) if tank else None
    )
    return found, x, code, share, kinds


@pytest.mark.parametrize("tank", [0, 1])
def test_it_gives_the_runtimes_acceleration_and_refuses_what_the_runtime_refuses(robot, cell, recorded, tank):
    found, x, code, share, kinds = answered(BatchedFilter(robot, cell), recorded, tank=tank)
    assert len(x) == 1400
    np.testing.assert_array_equal(found.solved, code == SOLVED)
    ok = found.solved
    assert ok.sum() > 600
    assert np.abs((found.x - x) / robot.limits.a_max)[ok].max() < BAND
    assert np.abs(found.share - share)[ok].max() < BAND
    seen = {name for kind, name in KINDS.items() if np.any(kinds[ok] >> kind & 1)}
    seen |= {"keep_out"} if np.any(kinds[ok] >> REGION_KIND & 1) else set()
    assert {"self_clearance", "joint_position", "joint_torque_rate", "keep_out", "speed_separation"} <= seen
    assert ("energy_tank" in seen) == bool(tank)


@pytest.mark.parametrize("tank", [0, 1])
def test_torch_gives_the_same_and_single_precision_nearly(robot, cell, recorded, tank):
    batched = BatchedFilter(robot, cell)
    exact, *_ = answered(batched, recorded, tank=tank)
    double, *_ = answered(batched, recorded, tank=tank, convert=torch.from_numpy)
    np.testing.assert_array_equal(double.solved.numpy(), exact.solved)
    scale = robot.limits.a_max
    assert np.abs((double.x.numpy() - exact.x) / scale)[exact.solved].max() < 1e-6
    single, *_ = answered(batched, recorded, tank=tank, convert=lambda x: torch.from_numpy(x).float())
    both = single.solved.numpy() & exact.solved
    assert both.sum() > 0.8 * exact.solved.sum()
    errors = np.abs((single.x.numpy() - exact.x) / scale)[both].max(axis=1)
    assert np.quantile(errors, 0.95) < COARSE and errors.max() < 10 * COARSE


def test_contact_is_as_slow_as_the_runtimes(robot, cell):
    """The hand moves fast among objects: rows of contact are active, and the answers are the same."""
    rng, keep, kin = np.random.default_rng(5), KeepBack(), Kinematics.from_model(robot)
    asked, m, n = enforced(cell, keep), robot.limits, robot.n
    qp = AccelerationQP(
        robot, kin, asked.bounds, asked.space, BarrierConfig(), dt=DT, torque=asked.torque, people=asked.people,
        impact=asked.impact, slots=Slots(),
    )  # fmt: skip
    obstacles, out, kinds = keep_outs(cell, keep.keep_out), [], 0
    for _ in range(150):
        q = robot.home + rng.normal(size=n) * 0.1
        v, a = rng.uniform(-0.35, 0.35, n) * m.v_max, np.zeros(n)
        objects, wanted = kin.palm(q) + rng.normal(size=(2, 3)) * 0.15, rng.uniform(-1, 1, n) * m.a_max
        code, x, _ = qp.solve(q, v, a, wanted, obstacles=with_objects(obstacles, objects, 0.03))
        kinds |= qp.kinds
        out.append((q, v, a, wanted, objects, x.copy(), code == SOLVED))
    q, v, a, wanted, objects, x, ok = (np.array(part) for part in zip(*out, strict=True))
    found = BatchedFilter(robot, cell).solve(q, v, a, wanted, cell=Cell(None, None, objects, 0.03))
    np.testing.assert_array_equal(found.solved, ok)
    assert ok.sum() > 60 and "contact_approach" in {name for kind, name in KINDS.items() if kinds >> kind & 1}
    assert np.abs((found.x - x) / m.a_max)[ok].max() < BAND


def test_an_ignored_row_changes_the_answer(robot, cell, text, recorded):
    """The law can fail: without the cell's rows the answers differ by more than the band."""
    found, x, code, _, _ = answered(BatchedFilter(robot, parse(text, robot.limits)), recorded, tank=0)
    ok = found.solved & (code == SOLVED)
    assert np.mean(np.abs((found.x - x) / robot.limits.a_max)[ok].max(axis=1) > 100 * BAND) > 0.05


def test_what_has_no_solution_gets_the_stop_law_and_a_tick_integrates(robot, cell):
    batched, rng = BatchedFilter(robot, cell), np.random.default_rng(0)
    m, shape = robot.limits, (200, robot.n)
    q, v = rng.uniform(m.q_min, m.q_max, shape), rng.uniform(-m.v_max, m.v_max, shape)
    a = rng.uniform(-m.a_max, m.a_max, shape)
    after, speed, found = batched(q, v, a, -a)
    bad = ~found.solved
    assert 20 < bad.sum() < 180 and np.all(found.violation[bad] > 1e-6)
    stopping = np.zeros(robot.n)
    for i in np.nonzero(bad)[0]:
        stop.stop_law(v[i], a[i], batched.rows_of_file.bounds, DT, stopping)
        np.testing.assert_allclose(found.x[i], stopping, atol=1e-9)
    np.testing.assert_allclose(speed, v + DT * found.x, atol=1e-12)
    np.testing.assert_allclose(after, q + DT * v + 0.5 * DT * DT * found.x, atol=1e-12)


def test_more_rows_than_places_are_reported(robot, cell, recorded):
    few = BatchedFilter(robot, cell, BatchedConfig(slots=Slots(pairs=1)))
    crowded = answered(few, recorded, tank=0)[0].crowded
    assert crowded.any() and not answered(BatchedFilter(robot, cell), recorded, tank=0)[0].crowded.all()


def test_derivatives_by_the_wanted_acceleration_are_those_of_the_solution(robot, cell, recorded):
    batched = BatchedFilter(robot, cell)
    at = np.nonzero((recorded[5] == SOLVED) & (recorded[7] != 0) & (recorded[-1] == 0))[0][::40]
    q, v, a, wanted = (torch.from_numpy(x[at]) for x in recorded[:4])
    there = Cell(*(torch.from_numpy(recorded[k][at]) for k in (8, 9, 10)), 0.03)
    direction = torch.from_numpy(np.random.default_rng(0).normal(size=wanted.shape) * robot.limits.a_max)
    wanted = (wanted + 1e-3 * direction).requires_grad_()  # off the walls that the recorded one may lie on
    x = batched.solve(q, v, a, wanted, cell=there).x
    (slope,) = torch.autograd.grad((x * direction / torch.from_numpy(robot.limits.a_max) ** 2).sum(), wanted)
    h = 1e-4
    with torch.no_grad():
        up, down = (batched.solve(q, v, a, wanted + s * h * direction, cell=there).x for s in (1.0, -1.0))
    scale = torch.from_numpy(robot.limits.a_max)
    difference = (((up - down) / (2 * h)) * direction / scale**2).sum(-1)
    exact = (slope * direction).sum(-1)
    close = (difference - exact).abs() < 1e-2 * (1.0 + exact.abs())  # not where a row begins or ends within 2 h
    assert len(at) > 20 and close.double().mean() > 0.85
    assert exact.abs().max() > 0.1


def test_a_torque_error_that_leaves_nothing_is_refused(robot, text):
    with pytest.raises(ConfigError, match="torque error"):
        BatchedFilter(robot, parse(text.replace("error: 2.0", "error: 25.0"), robot.limits))
    with pytest.raises(ConfigError, match="steps"):
        BatchedConfig(steps=0)
