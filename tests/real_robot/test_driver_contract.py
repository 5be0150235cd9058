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
PATIENCE = 20.0
"""How long a busy machine may take for what hardware does at once [s]."""
GLIDE = 0.4
"""Time of a motion [s]."""
SLOW = 0.1
"""Slower than this is at rest [rad/s]; a filtered difference of counts is never zero."""
PRESS = 0.06
"""How far beyond an object's surface a target presses [rad]."""


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request):
    return request.param


@pytest.fixture
def bench(case, tmp_path):
    with case.make(tmp_path) as (robot, controls):
        yield case, robot, controls


class Driving:
    """Write and read in turn, as a device process does."""

    def __init__(self, case, robot):
        self.case, self.robot, self.seq = case, robot, 0
        self.states, self.errors = [robot.read()], []

    @property
    def q(self):
        return np.array(self.states[-1].q)

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

    def glide(self, goal, share=1.0):
        """From here towards ``goal`` with a smooth speed; ``share`` of the way."""
        begin, start = time.monotonic(), self.q
        while (s := (time.monotonic() - begin) / GLIDE) < share:
            self.cycle(start + (goal - start) * s * s * s * (10.0 - 15.0 * s + 6.0 * s * s))

    def go(self, goal):
        """To ``goal`` and to rest there."""
        self.glide(goal)
        self.until(lambda: np.abs(self.q - goal).max() < 0.5 * self.case.tolerance and self.rests(), q=goal)

    def rests(self):
        return bool(np.abs(self.states[-1].qd).max() < SLOW)

    def rest(self, seconds):
        """Read without commanding."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.cycle()

    def until(self, condition, q=None):
        """Read, and command ``q`` where it is given, until something is so; a busy machine gets its time."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and not condition():
            self.cycle(q)

    def until_error(self, seconds):
        """How long reads go on before the first DriverError [s]."""
        begin = time.monotonic()
        self.errors.clear()
        while time.monotonic() - begin < seconds and not self.errors:
            self.cycle()
        return time.monotonic() - begin


def moved(case, robot):
    """A driver that has been moved ``reach`` away from its start, and where it should be now."""
    driving = Driving(case, robot)
    goal = driving.q + case.reach
    driving.go(goal)
    return driving, goal


def stays(case, controls, wait):
    """Whether the joints stay where they are, and are held there; ``wait`` lets time pass."""
    here = controls.position()
    wait(0.3)
    return np.abs(controls.position() - here).max() < case.tolerance and controls.holding()


def test_it_moves_to_its_target_and_every_reading_is_a_new_one(bench):
    case, robot, controls = bench
    driving, goal = moved(case, robot)
    assert np.abs(controls.position() - goal).max() < case.tolerance
    last = driving.states[-1]
    assert last.q.shape == last.qd.shape == last.tau.shape == (len(robot.joints),)
    assert np.abs(last.q - controls.position()).max() < case.tolerance
    stamps, numbers = np.array([s.t for s in driving.states]), np.array([s.seq for s in driving.states])
    assert np.all(np.diff(numbers) >= 0) and np.all(np.diff(stamps)[np.diff(numbers) > 0] > 0)
    assert len(set(numbers)) > 0.5 * len(numbers)
    assert np.all(stamps <= time.monotonic()) and robot.fault == ""


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
    Driving(case, robot).rest(0.1)  # hardware that answers only when commanded counts readings, too
    assert np.abs(controls.position() - q).max() < case.tolerance


def test_after_a_stop_in_motion_it_comes_to_rest_and_holds_there(bench):
    case, robot, controls = bench
    driving = Driving(case, robot)
    start = driving.q
    driving.glide(start + case.reach, share=0.5)
    robot.stop("test")
    driving.rest(0.1)
    driving.until(driving.rests)
    assert stays(case, controls, driving.rest)
    driving.go(start)  # and can be commanded again
    assert np.abs(controls.position() - start).max() < case.tolerance and robot.fault == ""


def test_a_hand_that_presses_on_something_presses_on_after_a_stop_and_after_close(case, tmp_path):
    if not case.hand:
        pytest.skip("no hand")
    with case.make(tmp_path, ahead=case.reach) as (robot, controls):
        driving = Driving(case, robot)
        goal = driving.q + case.reach + PRESS
        driving.glide(goal)
        driving.until(lambda: controls.grip().min() > 0.0 and driving.rests(), q=goal)
        for _ in range(int(0.3 * case.rate)):
            driving.cycle(goal)
        before = controls.grip()
        assert before.min() > 0.0
        robot.stop("test")
        driving.rest(0.3)
        assert np.all(controls.grip() > 0.8 * before)  # a driver that holds where it is lets go
        robot.close()
        time.sleep(0.3)
        assert np.all(controls.grip() > 0.8 * before)


def test_without_commands_the_hardware_rests_by_itself(bench):
    case, robot, controls = bench
    if case.watchdog is None:
        pytest.skip("its hardware has no watchdog, as its page says")
    moved(case, robot)
    time.sleep(case.watchdog + BUSY)  # as a process that was killed
    assert stays(case, controls, time.sleep)


def test_a_cut_cable_is_an_error_and_never_the_previous_reading(bench):
    case, robot, controls = bench
    driving, goal = moved(case, robot)
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
    driving.until(lambda: driving.states)
    assert driving.states[-1].t > last.t


def test_a_fault_is_named_and_left_only_by_an_explicit_recovery(bench):
    case, robot, controls = bench
    if not case.faults:
        pytest.skip("its hardware tells of no faults, as its page says")
    driving, goal = moved(case, robot)
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
        driving.until(lambda: robot.fault == "")
        driving.rest(0.1)
        assert robot.fault == ""
        assert np.abs(controls.position() - here).max() < case.tolerance
        driving.go(goal)
        assert np.abs(controls.position() - goal).max() < case.tolerance


def test_closing_leaves_it_holding(bench):
    case, robot, controls = bench
    moved(case, robot)
    robot.close()
    time.sleep(0.2)
    assert stays(case, controls, time.sleep)
