"""A verified stop is clear of boxes and people at every tick."""

import numpy as np
import pytest
from cells import boxed, clearance, rotation, someone

from palmar.safety import obstacles as cell
from palmar.safety import sight, stop
from palmar.safety.bounds import Space, bounds_of
from palmar.safety.geometry import Kinematics
from palmar.safety.live import SAMPLES, work_of
from palmar.safety.verify import posture, verify_stop

DT = 0.001
FREE = Space(-1.0, -10.0, np.full(3, -9.0), np.full(3, 9.0))


@pytest.fixture(scope="module")
def proof(robot):
    kin = Kinematics.from_model(robot)
    return kin, bounds_of(robot.limits, 0.0), work_of(kin.tree)


def every_tick(b, q, v, a):
    """Configurations of the stop, tick by tick, by the law alone."""
    x, out = np.zeros(len(q)), [q]
    while np.any(np.abs(v) > 1e-12) or np.any(np.abs(a) > 1e-9):
        stop.stop_law(v, a, b, DT, x)
        q, v, a = q + DT * v + 0.5 * DT * DT * x, v + DT * x, x.copy()
        out.append(q)
    return out


def motions(robot, b, n, seed):
    rng = np.random.default_rng(seed)
    for _ in range(n):
        q = rng.uniform(robot.limits.q_min * 0.7, robot.limits.q_max * 0.7)
        v = rng.uniform(-0.5, 0.5, robot.n) * robot.limits.v_max * rng.random()
        yield rng, q, v, rng.uniform(-1, 1, robot.n) * b.a


def test_a_verified_stop_keeps_out_of_boxes_at_every_tick(robot, proof):
    kin, b, work = proof
    clear = verified = through = 0
    for rng, q, v, a in motions(robot, b, 250, 5):
        o, ticks = boxed(rng, n=2, at=0.6, limit=0.01), every_tick(b, q, v, a)
        for k in range(2):  # where the way leads
            cell.put_box(
                o, k, kin.palm(ticks[-1]) + rng.normal(size=3) * 0.25, rotation(rng), rng.uniform(0.02, 0.1, 3)
            )
        code, _, used = verify_stop(kin.tree, b, FREE, o, q, v, a, DT, work)
        path = [clearance(kin, o, x, cell.KEEP_OUT) for x in ticks]
        truth = min(path) >= 0.01
        assert used <= SAMPLES
        assert code in (stop.OK, stop.KEEP_OUT, stop.EFFORT, stop.POSITION, stop.VELOCITY)
        assert not (code == stop.OK and not truth)
        if code in (stop.OK, stop.KEEP_OUT, stop.EFFORT):
            clear, verified = clear + truth, verified + (code == stop.OK)
            through += path[0] >= 0.01 > min(path)
    assert through > 3, "no stop began outside and led inside"
    assert clear > 20
    assert verified >= 0.8 * clear


def test_a_person_who_walks_at_the_robot_is_not_touched_before_it_rests(robot, proof):
    """From the age of their place on, they come as fast as people may, straight at the nearest link, all the time."""
    kin, b, work = proof
    tried = 0
    for rng, q, v, a in motions(robot, b, 150, 6):
        o = cell.nothing(reaction=0.06, intrusion=0.05, human=1.6)
        place = rng.normal(size=3)
        place *= rng.uniform(0.9, 1.6) / np.linalg.norm(place)
        ends = np.stack([place, place + rng.normal(size=3) * 0.2])
        o = cell.with_people(o, someone(ends[None], [0.1]))
        if verify_stop(kin.tree, b, FREE, o, q, v, a, DT, work)[0] != stop.OK:
            continue
        tried += 1
        walked, t, n = o, np.zeros((3, 3)), np.zeros(robot.n)
        came = 0.06 * 1.6
        for x in every_tick(b, q, v, a):
            # Straight at the nearest link: a shift by s brings a distance down by s at most, here by exactly that.
            _, _, axis, anchor, at = kin.place(x)
            gaps = [
                (cell.obstacle_row(kin.tree, g, walked, 0, at, axis, anchor, n, t), t[0].copy())
                for g in kin.tree.moving
            ]
            gap, normal = min(gaps, key=lambda row: row[0])
            ends = ends + normal * came
            walked = cell.with_people(walked, someone(ends[None], [0.1]))
            came = DT * 1.6
            assert clearance(kin, walked, x, cell.PERSON) >= 0.05 - 1e-9
            assert gap >= 0.05 - 1e-9
    assert tried > 10


def test_whoever_is_too_close_stops_what_moves_and_not_what_stands(robot, proof):
    kin, b, work = proof
    o = cell.nothing(reaction=0.06, intrusion=0.05, human=1.6)
    palm, zero = kin.palm(robot.home), np.zeros(robot.n)
    o = cell.with_people(o, someone([[palm + [0.1, 0, 0.2], palm + [0.1, 0, 0.5]]], [0.05]))
    assert clearance(kin, o, robot.home, cell.PERSON) < 0.146
    assert verify_stop(kin.tree, b, FREE, o, robot.home, zero, zero, DT, work)[0] == stop.OK
    assert posture(kin.tree, b, FREE, o, robot.home, work) == stop.OK
    code = verify_stop(kin.tree, b, FREE, o, robot.home, zero + 1e-3, zero, DT, work)[0]
    assert stop.FAILURES[code] == "speed_separation"


def test_a_lost_tracker_lets_nothing_move(robot, proof):
    kin, b, work = proof
    zero = np.zeros(robot.n)
    o = cell.with_people(cell.nothing(human=1.6), None)
    assert verify_stop(kin.tree, b, FREE, o, robot.home, zero, zero, DT, work)[0] == stop.OK
    assert verify_stop(kin.tree, b, FREE, o, robot.home, zero + 1e-4, zero, DT, work)[0] == stop.SEPARATION
    out = sight.answer_of()
    sight.measure_space(kin.tree, o, robot.home, zero + 0.1, sight.sight_of(kin.tree), out)
    assert out[sight.NEAREST_PERSON] == 0.0
    assert out[sight.TOWARDS_PERSON] > 0.05


def test_what_may_be_touched_stops_nothing_and_a_region_refuses_a_pose(robot, proof):
    kin, b, work = proof
    zero, palm = np.zeros(robot.n), kin.palm(robot.home)
    o = cell.with_objects(cell.nothing(), palm[None], 0.05)
    assert verify_stop(kin.tree, b, FREE, o, robot.home, zero + 0.1, zero, DT, work)[0] == stop.OK
    o = cell.nothing()
    cell.put_box(o, 0, palm, np.eye(3), np.full(3, 0.05))
    o = o._replace(count=1, fixed=1)
    assert stop.FAILURES[posture(kin.tree, b, FREE, o, robot.home, work)] == "keep_out"
