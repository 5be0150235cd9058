"""What the filter is told of objects, people and stiffness reaches its QP, and an edit has the name of its cause."""

from pathlib import Path

import numpy as np
import pytest
from closed_loop import Run

from palmar.benchmarks.filter import DT, Reading
from palmar.safety.constraints import parse
from palmar.safety.filter import Filter
from palmar.safety.obstacles import OBJECT, PERSON
from palmar.safety.reflex import Threshold
from palmar.safety.types import Chunk, People, State
from palmar.sim.robots import load_robot

USE = "signal: state, source: estimated, memory: none, budget: 0.0, unit: s"
CELL = f"""
  people: {{margin: speed_separation, params: {{human: 1.6, reaction: 0.06, brake: 2.5, intrusion: 0.05, creep: 0.02}},
    error: 0.02, runtime: hard row, {USE}}}
  contact: {{margin: contact_approach, params: {{force: 140.0, mass: 0.4, stiffness: 75000.0}}, error: 0.02,
    runtime: soft row, {USE}}}
"""


def someone(place, now):
    place = np.asarray(place, dtype=float)
    return People(np.array([[place, place + [0, 0, 0.5]]]), np.array([0.1]), np.zeros((1, 3)), now)


def of_kind(f, kind):
    """Centres of what is around of a kind."""
    slots = [k for k in range(f.obstacles.count) if f.obstacles.kind[k] == kind]
    return f.obstacles.centre[slots]


@pytest.fixture
def run(robot, text):
    return Run(robot, parse(text + CELL, robot.limits))


def tick(run, **around):
    run.now += DT
    f = run.filter
    return f.tick(Reading(run.now, f.seq + 2, f.u, f.ud, run.zero), run.now, **around)[1]


def test_objects_are_where_they_were_said_to_be_and_those_that_make_no_sense_are_counted(run):
    p, q = np.array([[0.5, 0.1, 0.3], [0.4, -0.2, 0.1]]), np.tile([1.0, 0, 0, 0], (2, 1))
    tick(run, objects=(p, q), people=someone([2, 0, 0], run.now))
    np.testing.assert_allclose(of_kind(run.filter, OBJECT), p)
    tick(run, objects=(p * np.nan, q), people=someone([2, 0, 0], run.now))
    assert run.filter.counts["objects_refused"] == 1


def test_people_are_where_they_were_said_to_be_until_that_is_too_old(run):
    known = someone([2.0, 0.5, 0.0], run.now + DT)
    tick(run, people=known)
    np.testing.assert_allclose(of_kind(run.filter, PERSON), [[2.0, 0.5, 0.25]])
    lost = run.filter.counts["people_lost"]
    while run.now - known.received < run.filter.config.people_timeout - 1.5 * DT:
        tick(run, people=known)
    assert run.filter.counts["people_lost"] == lost
    for _ in range(3):
        verdict = tick(run, people=known)
    assert run.filter.counts["people_lost"] > lost and verdict.state is not State.RUN


def test_an_edit_has_the_name_of_the_first_row_that_made_it(robot, constraints):
    run, seen = Run(robot, constraints), set()
    q = robot.home.copy()
    q[4:] = [1.2, 0.2, 1.2, 0.2]  # fingers through each other
    for k in range(600):
        verdict = run.go(1, q if k % 50 == 0 else None)
        if verdict.changed and verdict.active and not verdict.reason.startswith("unverified"):
            assert verdict.reason == verdict.active[0]
            seen.add(verdict.reason)
    assert "self_clearance" in seen


def test_a_risky_moment_softens_the_joints_by_the_part_the_reflex_says():
    robot, risky = load_robot("fr3_leap"), {"now": 0.0}
    text = (Path(__file__).parents[2] / "configs/constraints/shared_cell.yaml").read_text()
    reflex = Threshold(lambda m: risky["now"], threshold=0.5, soften=0.25)
    f, zero = Filter(robot, parse(text, robot.limits), reflex=reflex), np.zeros(robot.n)
    assert f.tank is not None
    stiffness, damping = 0.5 * f.tank.servo.stiffness, 0.5 * f.tank.servo.damping
    f.start(Reading(0.0, 0, robot.home, zero, zero))
    f.offer(Chunk(robot.home[None], np.array([0.005]), 1, 0.0, stiffness=stiffness[None], damping=damping[None]))
    for k in range(1, 41):
        now, risky["now"] = k * DT, float(k > 20)
        command, _ = f.tick(Reading(now, k + 1, f.u, f.ud, zero), now, people=someone([2.0, 0, 0], now))
        if k in (20, 40):
            part = 1.0 if k == 20 else 0.25
            np.testing.assert_allclose(command.stiffness, part * stiffness, rtol=1e-9)
            np.testing.assert_allclose(command.damping, part * damping, rtol=1e-9)
