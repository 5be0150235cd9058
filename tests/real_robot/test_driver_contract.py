"""What every driver keeps, real or simulated: the laws of ``palmar.sim.interface.Robot``."""

import time

import numpy as np
import pytest
from driver_cases import gather

from palmar.real_robot.drivers.error import DriverError
from palmar.safety.types import Command, CommandRefused

CASES = gather()
BUSY = 0.3
"""What a busy machine may add to a declared time [s]."""


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def bench(request, tmp_path):
    with request.param.make(tmp_path) as (robot, controls):
        yield request.param, robot, controls


class Driving:
    """Write and read in turn, as a device process does."""

    def __init__(self, case, robot):
        self.case, self.robot, self.seq = case, robot, 0
        self.states, self.errors = [], []

    def cycle(self, q=None):
        begin = time.monotonic()
        if q is not None:
            self.seq += 1
            self.robot.write(Command(q=q, seq=self.seq, stamp=time.monotonic()))
        try:
            self.states.append(self.robot.read())
        except DriverError as error:
            self.errors.append(error)
        if not getattr(self.robot, "paced", False):
            time.sleep(max(0.0, 1.0 / self.case.rate - (time.monotonic() - begin)))

    def glide(self, start, goal, seconds):
        """From start to goal with a smooth speed, then ``settle`` at the goal."""
        begin = time.monotonic()
        while (t := time.monotonic() - begin) < seconds + self.case.settle:
            s = min(1.0, t / seconds)
            self.cycle(start + (goal - start) * s * s * s * (10.0 - 15.0 * s + 6.0 * s * s))

    def rest(self, seconds):
        """Read without commanding."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.cycle()

    def until(self, condition, seconds=1.5):
        """Read without commanding until something is so."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not condition():
            self.cycle()

    def until_error(self, seconds):
        """How long reads go on before the first DriverError [s]."""
        begin = time.monotonic()
        self.errors.clear()
        while time.monotonic() - begin < seconds and not self.errors:
            self.cycle()
        return time.monotonic() - begin


def moved(case, robot, controls):
    """A driver that has been moved ``reach`` away from its start, and where it should be now."""
    driving, start = Driving(case, robot), np.array(robot.read().q)
    goal = start + case.reach
    driving.glide(start, goal, 0.6)
    return driving, goal


def test_it_moves_to_its_target_and_every_reading_is_a_new_one(bench):
    case, robot, controls = bench
    driving, goal = moved(case, robot, controls)
    assert np.abs(controls.position() - goal).max() < case.tolerance
    last = driving.states[-1]
    assert last.q.shape == last.qd.shape == last.tau.shape == (len(robot.joints),)
    assert np.abs(last.q - controls.position()).max() < case.tolerance
    stamps, numbers = np.array([s.t for s in driving.states]), np.array([s.seq for s in driving.states])
    assert np.all(np.diff(numbers) >= 0) and np.all(np.diff(stamps)[np.diff(numbers) > 0] > 0)
    assert len(set(numbers)) > 0.5 * len(numbers)
    assert robot.fault == ""


def test_what_is_no_command_for_these_joints_is_refused_before_anything_is_sent(bench):
    case, robot, controls = bench
    n, now = len(robot.joints), time.monotonic()
    q, one = np.array(robot.read().q), np.ones(n)
    bad = [
        Command(np.where(np.arange(n) == n - 1, np.nan, q), 1, now),
        Command(np.where(np.arange(n) == 0, np.inf, q), 1, now),
        Command(q[:-1], 1, now),
        Command(q[None], 1, now),
        Command(np.append(q, 0.0), 1, now),
        Command(np.array(["0.0"] * (n - 1) + ["elbow"]), 1, now),
        Command(q, 1, now, stiffness=one),
        Command(q, 1, now, stiffness=-one, damping=one),
        Command(q, 1, now, stiffness=np.full(n, np.nan), damping=one),
    ]
    before = controls.received()
    for command in bad:
        with pytest.raises(CommandRefused):
            robot.write(command)
    time.sleep(0.05)
    assert controls.received() == before
    Driving(case, robot).rest(0.1)
    assert np.abs(controls.position() - q).max() < case.tolerance


def test_after_a_stop_it_holds_where_it_is(bench):
    case, robot, controls = bench
    driving, _ = moved(case, robot, controls)
    robot.stop("test")
    driving.rest(0.2)
    here = controls.position()
    driving.rest(0.3)
    assert np.abs(controls.position() - here).max() < case.tolerance and controls.holding()
    assert np.abs(driving.states[-1].qd).max() < 0.1
    driving.glide(np.array(driving.states[-1].q), here, 0.2)  # and can be commanded again
    assert robot.fault == ""


def test_without_commands_the_hardware_rests_by_itself(bench):
    case, robot, controls = bench
    if case.watchdog is None:
        pytest.skip("its hardware has no watchdog, as its page says")
    driving, _ = moved(case, robot, controls)
    time.sleep(case.watchdog + 0.3)  # as a process that was killed
    here = controls.position()
    time.sleep(0.3)
    assert np.abs(controls.position() - here).max() < case.tolerance and controls.holding()


def test_a_cut_cable_is_an_error_and_never_the_previous_reading(bench):
    case, robot, controls = bench
    driving, goal = moved(case, robot, controls)
    last = driving.states[-1]
    controls.cut()
    assert driving.until_error(case.cut_within + 1.0) < case.cut_within + BUSY
    driving.states.clear()
    driving.rest(0.2)
    assert all(s.seq > last.seq for s in driving.states[1:]) and len(driving.states) <= 1
    if case.watchdog is not None:  # a hand without one keeps its last torque, as its page says
        assert np.abs(controls.position() - goal).max() < 2 * case.tolerance
    controls.restore()
    robot.recover()
    driving.states.clear()
    driving.rest(0.3)
    assert driving.states and driving.states[-1].t > last.t


def test_a_fault_is_named_and_left_only_by_an_explicit_recovery(bench):
    case, robot, controls = bench
    driving, goal = moved(case, robot, controls)
    for name in case.faults:
        controls.raise_fault(name)
        driving.until(lambda name=name: name in robot.fault)
        assert name in robot.fault
        before = controls.received()
        with pytest.raises(DriverError):
            robot.write(Command(goal, 10**6, time.monotonic()))
        assert controls.received() == before
        controls.reset()
        driving.rest(0.2)
        assert name in robot.fault  # nobody asked for a recovery yet
        here = controls.position()
        robot.recover()
        driving.rest(0.3)
        assert robot.fault == ""
        assert np.abs(controls.position() - here).max() < case.tolerance
        driving.glide(np.array(driving.states[-1].q), goal, 0.5)
        assert np.abs(controls.position() - goal).max() < case.tolerance


def test_closing_leaves_it_holding(bench):
    case, robot, controls = bench
    moved(case, robot, controls)
    robot.close()
    time.sleep(0.2)
    here = controls.position()
    time.sleep(0.3)
    assert np.abs(controls.position() - here).max() < case.tolerance and controls.holding()
