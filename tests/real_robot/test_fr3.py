"""The FR3 driver with the real libfranka against the fake arm, and the fake against the real libfranka."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from fr3_case import JOINTS, PATIENCE, PRIORITY, TIMEOUT, address, missing, rig

from palmar.real_robot.drivers import fr3_identity
from palmar.real_robot.drivers.error import DriverError
from palmar.real_robot.drivers.fr3 import open_driver
from palmar.real_robot.drivers.fr3_config import STIFFEST, Fr3Config
from palmar.real_robot.drivers.fr3_follow import COAST, Follower
from palmar.real_robot.fakes import fci_wire as wire
from palmar.real_robot.fakes.fci import Fci
from palmar.real_robot.fakes.fci_motion import BRAKE, DT, FR3, PANDA, SetPoint, braking_time
from palmar.real_robot.fakes.fci_process import HOME, FciProcess, servo_plant
from palmar.safety.types import Command, CommandRefused, ConfigError

needs_libfranka = pytest.mark.skipif(bool(missing), reason=missing or "pylibfranka is here")
LIMITS = {"v_max": np.full(7, 2.62), "a_max": np.full(7, 9.999), "j_max": np.full(7, 4999.0)}


def smooth_path(ticks, seed):
    """Commands as the filter makes them: 0.9 of acceleration and jerk, up to about 1.9 rad/s; from rest to rest."""
    rng = np.random.default_rng(seed)
    u, v, a, goal, path = np.zeros(7), np.zeros(7), np.zeros(7), np.zeros(7), []
    for k in range(ticks):
        if k % 50 == 0:
            goal = np.where(np.abs(v) > 1.5, -9.0 * np.sign(v), rng.uniform(-9, 9, 7))
        a = a + np.clip(goal - a, -4499 * DT, 4499 * DT)
        v = v + DT * a
        u = u + DT * v
        path.append(u)
    return np.array(path)


def derivatives(path):
    """Largest speed, acceleration and jerk of set-points that began at rest, by backward Euler."""
    p = np.vstack([np.zeros((3, 7)), path])
    return [np.abs(np.diff(p, k, axis=0)).max() / DT**k for k in (1, 2, 3)]


def follow(path, newest):
    """Set-points of a follower that sees command ``newest[k]`` at tick k."""
    f = Follower(np.zeros(7), **LIMITS)
    out = []
    for seq in newest:
        if seq >= 0:
            f.put(path[seq], int(seq))
        out.append(f.step().copy())
    return np.array(out), f


# Follower: laws ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_commands_on_time_and_within_the_limits_are_passed_on_unchanged(seed):
    path = smooth_path(1000, seed)
    out, _ = follow(path, np.arange(1000))
    np.testing.assert_array_equal(out, path)


@pytest.mark.parametrize("jitter", [0.7, 1.5, 4.0])
def test_commands_that_come_late_or_in_pairs_stay_within_the_limits_and_near(jitter):
    path, rng = smooth_path(2000, 4), np.random.default_rng(5)
    arrival = np.maximum.accumulate(np.arange(2000) + rng.uniform(0.0, jitter, 2000))
    out, _ = follow(path, np.searchsorted(arrival, np.arange(2000), side="right") - 1)
    v, a, j = derivatives(out)
    assert v <= 2.62 and a <= 9.9991 and j <= 4999.1
    assert np.abs(out - path).max() < 0.02
    naive = path[np.maximum(0, np.searchsorted(arrival, np.arange(2000), side="right") - 1)]
    assert jitter < 1.0 or derivatives(naive)[1] > 100.0  # what the robot would have been asked without it


def test_a_clock_that_loses_ticks_costs_no_limit():
    newest = [k - 30 * (k // 330) for k in range(1900) if k % 330 >= 0]
    held = np.maximum.accumulate([n if k % 330 < 300 else n - (k % 330 - 300) for k, n in enumerate(newest)])
    v, a, j = derivatives(follow(smooth_path(2000, 6), held)[0])
    assert v <= 2.62 and a <= 9.9991 and j <= 4999.1


def test_without_commands_it_coasts_then_brakes_to_rest_within_the_limits():
    path = smooth_path(700, 7)
    out, f = follow(path, np.minimum(np.arange(1300), 699))
    speed = np.abs(path[-1] - path[-2]).max() / DT
    assert speed > 0.5 and f.at_rest
    v, a, j = derivatives(out)
    assert v <= 2.62 and a <= 9.9991 and j <= 4999.1
    assert np.abs(out[-1] - path[-1]).max() < speed * (COAST + 5) * DT + speed**2 / 2 / 9.999 + 0.1 * speed


def test_a_standing_target_is_reached_from_afar_without_overshoot():
    out, f = follow(np.vstack([np.zeros((1, 7)), np.full((900, 7), 0.15)]), np.arange(901))
    assert np.abs(out[-1] - 0.15).max() < 1e-3 and out.max() < 0.151 and f.q.shape == (7,)
    assert derivatives(out)[1] <= 9.9991


# The fake's rules ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "error"),
    [
        ([0.1, 0.1], "joint_motion_generator_velocity_limits_violation"),
        ([3.0], "joint_motion_generator_position_limits_violation"),
        ([2e-5], "joint_motion_generator_velocity_discontinuity"),
        ([0.9e-5], "joint_motion_generator_acceleration_discontinuity"),
        ([4e-6, 12e-6, 20e-6, 24e-6], ""),
    ],
)
def test_the_fake_names_the_first_limit_a_command_breaks(steps, error):
    s = SetPoint(np.array(HOME), FR3)
    for step in steps:
        q = s.q.copy()
        q[1] += step
        found = s.refusal(q)
        if found:
            break
        s.take(q)
    assert found == error


def test_a_lost_packet_is_extrapolated_with_constant_acceleration():
    s = SetPoint(np.array(HOME), FR3)
    for k in range(1, 4):
        s.take(s.q + 1e-6 * k)
    q, v, a = s.q.copy(), s.v.copy(), s.a.copy()
    s.extrapolate()
    np.testing.assert_allclose(s.v, v + DT * a)
    np.testing.assert_allclose(s.q, q + DT * s.v)


def test_the_speed_limit_falls_towards_the_end_of_a_joint():
    s, up = SetPoint(np.array(HOME), FR3), np.ones(7)
    q = np.array(HOME)
    q[1] = 1.7
    assert s.fastest(q, up)[1] == pytest.approx(np.sqrt(2 * 2.585 * (1.7918 - 1.7)) - 0.2)
    assert s.fastest(q, -up)[1] == s.fastest(np.array(HOME), up)[1] == 2.62


def test_the_drivers_defaults_are_the_limits_of_our_own_arm():
    """What the filter keeps is what the driver lets pass, and the robot's own are wider."""
    from palmar.sim.robots import load_robot

    robot, config = load_robot("fr3_leap"), Fr3Config(address="x")
    np.testing.assert_allclose(robot.limits.q_min[:7], config.low)
    np.testing.assert_allclose(robot.limits.q_max[:7], config.high)
    fr3_identity.check(fr3_identity.ArmLimits("fr3", config.low, config.high, config.v_max), parsed(FR3))


# Identity ------------------------------------------------------------------------------------------------


def parsed(limits):
    return fr3_identity.parse(limits.urdf())


def ours():
    c = Fr3Config(address="x")
    return fr3_identity.ArmLimits("fr3", c.low, c.high, c.v_max)


def test_limits_of_a_panda_are_refused_by_an_fr3_and_the_other_way_round():
    panda = parsed(PANDA)
    with pytest.raises(ConfigError, match="wider than the robot's own"):
        fr3_identity.check(fr3_identity.ArmLimits("fr3", panda.low, panda.high, panda.v_max), parsed(FR3))
    with pytest.raises(ConfigError, match="'fr3', the robot's URDF says 'panda'"):
        fr3_identity.check(ours(), panda)


def test_a_robot_of_another_version_is_named_with_both():
    with Fci(servo_plant(), address(), version=5) as fake:
        with pytest.raises(DriverError, match="version 5 .* speaks 10"):
            fr3_identity.ask_urdf(fake.address, timeout=5.0)


def test_nobody_there_is_said_with_the_address():
    with pytest.raises(DriverError, match="127.0.0.1:1337"):
        fr3_identity.ask_urdf("127.0.0.1", timeout=1.0)


@pytest.mark.parametrize("text", ["", "<robot/>", "<!DOCTYPE a [<!ENTITY b 'c'>]><robot/>", "<robot"])
def test_an_urdf_without_the_limits_is_refused(text):
    with pytest.raises(DriverError):
        fr3_identity.parse(text)


@pytest.mark.parametrize(
    "wrong",
    [
        {"address": ""},
        {"stiffness": (1.0,) * 6},
        {"stiffness": (STIFFEST + 1,) * 7},
        {"collision_torque": (0.0,) * 7},
        {"load_mass": -1.0},
        {"load_mass": float("nan")},
        {"low": (3.0,) * 7},
        {"jump": 1.0},
        {"a_max": 11.0},
        {"timeout": 0.0},
    ],
)
def test_an_impossible_configuration_is_refused(wrong):
    with pytest.raises(ConfigError, match="fr3: "):
        Fr3Config(**{"address": "x", **wrong})


# The real libfranka on the fake --------------------------------------------------------------------------


class Arm:
    """Drives a robot tick by tick."""

    def __init__(self, driver, fake):
        self.driver, self.fake, self.seq = driver, fake, 0
        self.state = driver.read()
        self.q = self.state.q.copy()

    def tick(self, q=None, seq=None):
        self.q = self.q if q is None else np.array(q)
        self.seq = self.seq + 1 if seq is None else seq
        self.driver.write(Command(q=self.q, seq=self.seq, stamp=0.0))
        self.state = self.driver.read()

    def swing(self, ticks=200, speed=0.5, joint=1):
        """Up to ``speed`` [rad/s] in 100 ms, and on."""
        for k in range(ticks):
            self.q[joint] += DT * speed * min(1.0, k / 100)
            self.tick()


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


def stands(fake):
    before = np.array(fake.report()["q"])
    time.sleep(0.05)
    return np.abs(np.array(fake.report()["q"]) - before).max() < 1e-4


def stopped(fake):
    """Wait until its own stop is over; what it reports then."""
    end = time.monotonic() + 10.0
    while fake.report()["braking_s"] is None and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.1)
    return fake.report()


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
    began = time.monotonic()
    with pytest.raises(DriverError, match="no packet"):
        while True:
            seqs.append(arm.driver.read().seq)
    assert time.monotonic() - began < TIMEOUT + 1.0
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


# The real robot's own refusals, with libfranka alone -----------------------------------------------------

RAW = """
import sys, pylibfranka as f
robot = f.Robot(sys.argv[1], f.RealtimeConfig.kIgnore)
start, kind = list(robot.read_once().q_d), sys.argv[2]
motion = robot.start_joint_position_control(f.ControllerMode.JointImpedance)
def send(d, finished=False):
    motion.readOnce()
    q = f.JointPositions([x + (d if i == 1 else 0.0) for i, x in enumerate(start)])
    q.motion_finished = finished
    motion.writeOnce(q)
try:
    if kind != "start": send(0.0)
    if kind == "start": send(0.01)
    if kind == "velocity": send(0.2)
    if kind == "acceleration": send(2e-5)
    if kind == "jerk": send(0.95e-5)
    if kind == "position": send(3.0)
    if kind == "moving":
        for k in range(60): send(5e-6 * k * (k + 1) / 2 * 0.9)
        send(5e-6 * 60 * 61 / 2 * 0.9, True)
    for _ in range(40): motion.readOnce()
    print("nothing")
except f.ControlException as error:
    print(error)
"""


@needs_libfranka
@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("start", "joint_position_motion_generator_start_pose_invalid"),
        ("velocity", "joint_motion_generator_velocity_limits_violation"),
        ("acceleration", "joint_motion_generator_velocity_discontinuity"),
        ("jerk", "joint_motion_generator_acceleration_discontinuity"),
        ("position", "joint_motion_generator_position_limits_violation"),
        ("moving", "still moving"),
        ("silent", "communication_constraints_violation"),
    ],
)
def test_libfranka_itself_reports_what_the_fake_refuses(kind, error):
    with FciProcess(address(), patience=0.005 if kind == "silent" else PATIENCE, priority=PRIORITY) as fake:
        done = subprocess.run(
            [sys.executable, "-c", RAW, fake.address, kind], capture_output=True, text=True, timeout=60
        )
        assert error in done.stdout, done.stdout + done.stderr
        assert fake.report()["mode"] == wire.REFLEX


# Deaths --------------------------------------------------------------------------------------------------

KILLED = """
import sys, numpy as np
sys.path.insert(0, sys.argv[2])
from fr3_case import JOINTS
from palmar.real_robot.drivers.fr3 import open_driver
from palmar.real_robot.drivers.fr3_config import Fr3Config
from palmar.safety.types import Command
driver = open_driver(Fr3Config(address=sys.argv[1], timeout=0.3), JOINTS)
q = driver.read().q
for k in range(100_000):
    q[0] += 1e-3 * min(1.0, k / 150)
    driver.write(Command(q=q.copy(), seq=k, stamp=0.0))
    driver.read()
    if k == 200:
        print("moving", flush=True)
"""


@needs_libfranka
def test_the_driver_killed_in_motion_leaves_the_arm_braking_and_holding(tmp_path):
    with FciProcess(address(), patience=PATIENCE, priority=PRIORITY) as fake:
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, fake.address, os.path.dirname(__file__)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None and process.stdout.readline() == "moving\n"
        assert np.abs(fake.report()["dq_d"]).max() > 0.5
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        r = stopped(fake)
        assert r["errors"] == "communication_constraints_violation"
        assert 0 < r["braking_ticks"] * DT <= braking_time()
        assert stands(fake)
        driver = open_driver(Fr3Config(address=fake.address, timeout=TIMEOUT), JOINTS)
        try:
            driver.read()
            assert "communication_constraints_violation" in driver.fault
            driver.recover()
            assert driver.fault == ""
        finally:
            driver.close()


@needs_libfranka
@pytest.mark.timeout(60)
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "freezes"])
def test_a_robot_that_dies_or_freezes_in_motion_is_an_error_and_not_the_end_of_the_driver(end):
    """libfranka's own clean-up waits for ever for a robot that is silent."""
    with rig() as (driver, fake):
        arm = Arm(driver, fake)
        arm.swing(150)
        fake.process.send_signal(end)
        with pytest.raises(DriverError, match="lost|no packet"):
            arm.swing(2000)
        began = time.monotonic()
        driver.stop("robot gone")
        with pytest.raises(DriverError):
            driver.recover()
        driver.close()
        assert time.monotonic() - began < 15.0
        fake.process.kill()


@needs_libfranka
def test_a_wrong_version_is_refused_by_libfranka_itself():
    with FciProcess(address(), version=9) as fake:
        code = "import sys, pylibfranka as f\ntry: f.Robot(sys.argv[1], f.RealtimeConfig.kIgnore)\n"
        code += "except f.FrankaException as e: print(e)"
        done = subprocess.run([sys.executable, "-c", code, fake.address], capture_output=True, text=True, timeout=60)
        assert "version" in done.stdout and "9" in done.stdout, done.stdout + done.stderr
        with pytest.raises(DriverError, match="version 9"):
            open_driver(Fr3Config(address=fake.address), JOINTS)


@needs_libfranka
def test_the_driver_leaves_its_process_at_the_priority_it_had(arm):
    """libfranka takes the highest there is."""
    before = os.sched_getscheduler(0), os.sched_getparam(0).sched_priority
    arm.driver.close()
    arm.driver.recover()
    assert (os.sched_getscheduler(0), os.sched_getparam(0).sched_priority) == before
    assert arm.driver.read().seq > 0 and before[1] < 99
