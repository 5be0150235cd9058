"""The FR3 driver with the real libfranka against the fake arm."""

import os
import time

import numpy as np
import pytest
from fr3_case import JOINTS, PATIENCE, PRIORITY, TIMEOUT, Arm, address, missing, needs_libfranka, rig, stands, stopped

from palmar.real_robot.drivers.error import DriverError
from palmar.real_robot.drivers.fr3 import open_driver
from palmar.real_robot.drivers.fr3_config import STIFFEST, Fr3Config
from palmar.real_robot.fakes import fci_wire as wire
from palmar.real_robot.fakes.fci_motion import BRAKE, DT, braking_time
from palmar.real_robot.fakes.fci_process import FciProcess
from palmar.safety.types import Command, CommandRefused


@pytest.fixture(scope="module")
def shared():
    if missing:
        pytest.skip(missing)
    with rig() as both:
        yield both


@pytest.fixture
def arm(shared):
    """The driver and the fake, well and at rest."""
    driver, fake = shared
    fake.do("reset")
    driver.recover()
    driver.stop("test")
    arm = Arm(driver, fake)
    yield arm
    fake.do("restore")
    fake.do("reset")


@needs_libfranka
def test_the_arm_goes_where_it_is_told_and_rests_there(arm):
    start, ticks = arm.q.copy(), 600
    for k in range(1, ticks + 1):
        x = k / ticks
        arm.tick(start + np.array([0.15, 0, 0, 0.1, 0, 0, -0.2]) * (10 * x**3 - 15 * x**4 + 6 * x**5))
    assert arm.driver.fault == "" and arm.fake.report()["mode"] == wire.MOVING
    arm.driver.stop("done")
    r = arm.fake.report()
    assert r["mode"] == wire.IDLE and r["errors"] == ""
    np.testing.assert_allclose(r["q_d"], arm.q, atol=1e-3)
    assert stands(arm.fake) and np.abs(arm.driver.read().q - arm.q).max() < 0.01


@needs_libfranka
def test_a_stop_from_full_motion_breaks_no_limit_and_ends_at_rest(arm):
    arm.swing(250, speed=1.0)
    arm.driver.stop("test")
    r = arm.fake.report()
    assert r["mode"] == wire.IDLE and r["errors"] == "" and not np.any(r["dq_d"])
    assert np.abs(np.array(r["q_d"]) - arm.q).max() < 1.0**2 / (2 * BRAKE) + 0.02


@needs_libfranka
def test_commands_by_another_clock_are_followed_without_a_refusal(arm):
    """One tick in ten has no command, one has two; and every so often the clock loses 30."""
    start, seq, first, goal = arm.q.copy(), arm.seq, arm.seq, np.array([0.3, 0.2, 0, 0, 0, 0, 0])
    for k in range(1200):
        late = k % 10 == 3 or k % 400 > 370
        seq += 0 if late else 2 if k % 10 == 4 else 1
        arm.tick(start + goal * 0.5 * (1 - np.cos(np.pi * min(1.0, (seq - first) / 1000.0))), seq)
    assert arm.driver.fault == "" and arm.fake.report()["errors"] == ""


@needs_libfranka
@pytest.mark.parametrize("lost", [1, 5, 19])
def test_fewer_than_twenty_lost_packets_are_survived_in_motion(arm, lost):
    arm.swing(150)
    resumed, before = arm.driver.resumed, arm.fake.report()["lost"]
    arm.fake.do("drop", lost)
    arm.swing(200, speed=0.4)
    assert arm.driver.fault == ""
    assert arm.fake.report()["lost"] - before == lost
    assert arm.driver.resumed > resumed or lost == 1


@needs_libfranka
def test_twenty_lost_packets_stop_the_arm_in_its_declared_time_until_it_is_recovered(arm):
    arm.swing(200, speed=1.0)
    arm.fake.do("drop", 20)
    with pytest.raises(DriverError, match="communication_constraints_violation"):
        arm.swing(200, speed=1.0)
    r = stopped(arm.fake)
    assert 0 < r["braking_ticks"] * DT <= braking_time()
    assert r["mode"] == wire.REFLEX and stands(arm.fake)
    for _ in range(50):
        arm.driver.read()
    assert "communication_constraints_violation" in arm.driver.fault  # never by itself
    with pytest.raises(DriverError, match="communication_constraints_violation"):
        arm.tick(arm.driver.read().q)
    arm.driver.recover()
    assert arm.driver.fault == "" and stands(arm.fake)
    again = Arm(arm.driver, arm.fake)
    again.swing(50)
    assert again.fake.report()["mode"] == wire.MOVING


@needs_libfranka
@pytest.mark.parametrize("name", ["joint_reflex", "cartesian_reflex", "power_limit_violation", "user_stopped"])
def test_a_fault_of_the_robots_own_is_named_and_stays(arm, name):
    arm.swing(150)
    arm.fake.do("raise_fault", name)
    with pytest.raises(DriverError, match=name):
        arm.swing(100)
    arm.driver.read()
    assert arm.driver.fault == name
    assert stopped(arm.fake)["mode"] == (wire.USER_STOPPED if name == "user_stopped" else wire.REFLEX)
    assert stands(arm.fake)
    if name == "user_stopped":
        with pytest.raises(DriverError, match="user_stopped remains"):
            arm.driver.recover()
        arm.fake.do("reset")
        arm.driver.read()
        assert arm.fake.report()["mode"] == wire.IDLE and arm.driver.fault == name  # nobody asked for a recovery
    arm.driver.recover()
    assert arm.driver.fault == ""


@needs_libfranka
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"q": np.full(7, np.nan)}, "finite"),
        ({"q": np.zeros(6)}, "shape"),
        ({"q": np.array([9.0, 0, 0, 0, 0, 0, 0])}, "outside"),
        ({"jump": 0.2}, "from the set-point"),
        ({"stiffness": np.full(7, STIFFEST + 1), "damping": np.ones(7)}, "stiffness must be in"),
        ({"stiffness": np.full(7, 100.0), "damping": np.ones(7)}, "cannot change while it moves"),
        ({"stiffness": np.full(7, 100.0)}, "come together"),
    ],
)
def test_a_bad_command_is_refused_and_the_arm_goes_on_unmoved(arm, change, says):
    arm.tick()
    good = arm.q.copy()
    q = change.pop("q", good + change.pop("jump", 0.0) * np.eye(7)[1])
    with pytest.raises(CommandRefused, match=says):
        arm.driver.write(Command(q=q, seq=arm.seq + 1, stamp=0.0, **change))
    arm.tick(good, arm.seq + 2)
    assert np.abs(np.array(arm.fake.report()["q_d"]) - good).max() < 1e-3 and arm.driver.fault == ""


@needs_libfranka
def test_the_first_command_must_be_near_where_the_arm_stands(arm):
    before = arm.fake.report()["received"]
    with pytest.raises(CommandRefused, match="from the set-point"):
        arm.tick(arm.q + 0.12)
    r = arm.fake.report()
    assert r["received"] == before and r["mode"] == wire.IDLE


@needs_libfranka
def test_stiffness_is_set_before_a_motion(arm):
    gains = {"stiffness": np.full(7, 500.0), "damping": np.full(7, 20.0)}
    arm.driver.write(Command(q=arm.q, seq=1, stamp=0.0, **gains))
    assert arm.fake.report()["settings"]["impedance"] == [500.0] * 7
    assert arm.fake.report()["settings"]["collision"][:7] == list(Fr3Config(address="x").collision_torque)


@needs_libfranka
def test_no_reading_is_ever_the_previous_one(arm):
    seqs = [arm.driver.read().seq for _ in range(30)]
    assert np.all(np.diff(seqs) > 0)
    arm.fake.do("cut")
    end = time.monotonic() + TIMEOUT + 1.0
    with pytest.raises(DriverError, match="no packet"):
        while time.monotonic() < end:
            seqs.append(arm.driver.read().seq)
    assert np.all(np.diff(seqs) > 0)
    arm.fake.do("restore")
    arm.driver.recover()
    assert arm.driver.read().seq > seqs[-1]


@needs_libfranka
def test_a_damaged_packet_is_an_error_and_the_next_one_counts(arm):
    arm.fake.do("corrupt", 1)
    with pytest.raises(DriverError, match="damaged"):
        for _ in range(100):
            arm.driver.read()
    arm.fake.do("hide", 5)
    assert arm.driver.read().seq > 0


@needs_libfranka
def test_a_cable_pulled_in_motion_stops_the_arm_and_a_recovery_takes_it_up_again(arm):
    arm.swing(200, speed=1.0)
    arm.fake.do("cut")
    with pytest.raises(DriverError):
        arm.swing(2000, speed=1.0)
    arm.driver.stop("lost")
    r = stopped(arm.fake)
    assert r["braking_ticks"] * DT <= braking_time() and stands(arm.fake)
    with pytest.raises(DriverError):
        arm.driver.recover()
    arm.fake.do("restore")
    arm.driver.recover()
    Arm(arm.driver, arm.fake).swing(30)


@needs_libfranka
def test_an_arm_opened_in_a_fault_gets_its_settings_with_the_recovery():
    with FciProcess(address(), patience=PATIENCE, priority=PRIORITY) as fake:
        fake.do("raise_fault", "joint_reflex")
        driver = open_driver(Fr3Config(address=fake.address, timeout=TIMEOUT, load_mass=0.6), JOINTS)
        try:
            driver.read()
            assert driver.fault == "joint_reflex" and fake.report()["settings"] == {}
            driver.recover()
            assert driver.fault == "" and fake.report()["settings"]["load"][0] == 0.6
        finally:
            driver.close()


@needs_libfranka
def test_the_driver_leaves_its_process_at_the_priority_it_had(arm):
    """libfranka takes the highest there is."""
    before = os.sched_getscheduler(0), os.sched_getparam(0).sched_priority
    arm.driver.close()
    arm.driver.recover()
    assert (os.sched_getscheduler(0), os.sched_getparam(0).sched_priority) == before
    assert arm.driver.read().seq > 0 and before[1] < 99
