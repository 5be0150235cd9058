"""Allegro driver: frames, the position loop, which hand it is, and what is never taken for a reading."""

import time
from contextlib import closing

import can
import numpy as np
import pytest
from allegro_case import CHANNELS, HOME, JOINTS, command, config, follow, plant, virtual
from driver_cases import as_a_device
from toy_robot import until

from palmar.real_robot.config import DeviceConfig
from palmar.real_robot.device import configuration
from palmar.real_robot.drivers.allegro import open_driver
from palmar.real_robot.drivers.allegro_config import LIMITS, AllegroConfig
from palmar.real_robot.drivers.error import DriverError
from palmar.real_robot.fakes.allegro_can import AllegroHand, Slcan
from palmar.safety.types import CommandRefused, ConfigError
from palmar.sim.robots import load_robot


@pytest.fixture
def fake():
    with as_a_device(), AllegroHand(plant(), virtual()) as made:
        yield made


@pytest.fixture
def driver(fake):
    with closing(open_driver(config(fake.line), JOINTS)) as made:
        yield made


class Ear:
    """Another node on the same virtual bus."""

    def __init__(self, channel):
        self.bus = can.Bus(interface="virtual", channel=channel)

    def next(self, n, patience=5.0):
        """The next n frames."""
        end, got = time.monotonic() + patience, []
        while len(got) < n and time.monotonic() < end:
            if (m := self.bus.recv(0.1)) is not None:
                got.append((m.arbitration_id, bytes(m.data), m.is_remote_frame))
        return got

    def frames(self, seconds):
        """What comes in so many seconds."""
        end, got = time.monotonic() + seconds, []
        while (rest := end - time.monotonic()) > 0:
            if (m := self.bus.recv(rest)) is not None:
                got.append((m.arbitration_id, bytes(m.data), m.is_remote_frame))
        return got


@pytest.fixture
def ear(fake):
    made = Ear(fake.line.channel)
    yield made
    made.bus.shutdown()


def words(*values):
    return b"".join(v.to_bytes(2, "little", signed=True) for v in values)


# frames, written by hand from the maker's protocol page


def test_the_hand_answers_the_makers_frames(fake, ear):
    def tell(ident, data=b"", remote=False):
        ear.bus.send(can.Message(arbitration_id=ident, data=data, is_extended_id=False, is_remote_frame=remote))

    tell(0x88 << 2, remote=True)
    tell(0x80 << 2, remote=True)
    assert ear.next(2) == [(0x220, b"V5AR0001", False), (0x200, bytes([1, 5, 2, 1, 35, 0, 0]), False)]
    begin = time.monotonic()
    tell(0x81 << 2, words(3, 0, 0))
    reports = ear.next(40)
    assert [r[0] for r in reports] == [0x80, 0x84, 0x88, 0x8C] * 10
    assert time.monotonic() - begin > 0.026  # ten of them, 3 ms apart
    index = np.frombuffer(reports[0][1], "<i2") * np.radians(0.088)
    np.testing.assert_allclose(index, HOME[:4], atol=0.001)
    tell(0x60 << 2, words(100, -100, 0, 0))
    until(lambda: fake.torques == 1, what="a torque frame")
    assert np.all(fake.torque() == 0.0)  # the motor stage is off
    tell(0x40 << 2)
    tell(0x61 << 2 | 1, words(7, 7, 7, 7))  # another device's
    tell(0x60 << 2, words(100, -100, 0, 0))
    until(lambda: fake.torques == 2, what="a torque frame")
    np.testing.assert_allclose(fake.torque()[:4], [100 / 1430, -100 / 1430, 0.0, 0.0])
    assert np.all(fake.torque()[4:8] == 0.0)
    tell(0x41 << 2)
    until(lambda: not fake.on, what="motors off")


def test_the_driver_sends_four_torque_frames_for_each_complete_report_and_none_for_others(fake, ear):
    made = open_driver(config(fake.line, stale=0.5), JOINTS)

    def standing():
        """Torque frames and complete reports so far, with one finger silent."""
        fake.silence(2)
        time.sleep(0.15)
        before = fake.torques
        time.sleep(0.15)
        assert fake.torques == before
        return before, made._loop.newest()[0].seq

    torques, reports = standing()
    fake.restore()
    sent = [f for f in ear.frames(0.3) if 0x60 <= f[0] >> 2 < 0x64]
    assert {f[0] for f in sent} == {0x180, 0x184, 0x188, 0x18C} and all(len(f[1]) == 8 for f in sent)
    after, complete = standing()
    assert complete > reports + 3 and after - torques == 4 * (complete - reports)
    made.close()


def test_the_ranges_and_names_are_those_of_the_model_it_is_trained_on():
    robot = load_robot("fr3_allegro")
    assert robot.joints[7:] == JOINTS
    ours = np.array([LIMITS[j] for j in JOINTS])
    np.testing.assert_allclose(ours, np.stack([robot.limits.q_min[7:], robot.limits.q_max[7:]], axis=1))


def test_joints_in_another_order_are_put_into_the_hands(fake):
    shuffled = tuple(reversed(JOINTS))
    made = open_driver(config(fake.line), shuffled)
    np.testing.assert_allclose(made.read().q, HOME[::-1], atol=0.002)
    follow(made, HOME[::-1] + 0.1 * (np.arange(16) == 3), 1.2)  # th_opp
    moved = fake.plant.measure()[0] - HOME
    assert abs(moved[12] - 0.1) < 0.01 and np.abs(np.delete(moved, 12)).max() < 0.01
    made.close()


@pytest.mark.parametrize(("kind", "joint_1"), [("A", 86), ("B", 43)])
def test_torques_are_clamped_and_words_of_a_geared_joint_are_half(kind, joint_1):
    with AllegroHand(plant(), virtual(), kind=kind) as fake:
        ear = Ear(fake.line.channel)
        made = open_driver(config(fake.line, kind=kind, damping=0.0), JOINTS)
        made.write(command(HOME + np.where(np.arange(16) == 1, 0.02, 0.3)))
        index = np.array([np.frombuffer(f[1], "<i2") for f in ear.frames(0.1) if f[0] == 0x180])
        assert index[:, [0, 2, 3]].max() == 240
        assert abs(index[:, 1].max() - joint_1) <= 7  # 0.02 rad * 3 N m/rad * 1430 words, to a count
        assert fake.torque()[[0, 2, 3]].max() <= 240 / 1430
        made.close()
        ear.bus.shutdown()


def test_gains_of_a_command_are_the_loops_and_too_large_ones_are_refused(fake, driver):
    q, soft = HOME + 0.05, np.full(16, 1.0)
    driver.write(command(q, stiffness=soft, damping=0.1 * soft))
    until(lambda: driver.read().tau.max() > 0.02, timeout=5.0, what="a torque")
    assert driver.read().tau.max() < 0.06  # 1 N m/rad, not 3
    for gains in ({"stiffness": 7.0 * soft, "damping": soft}, {"stiffness": soft, "damping": 0.4 * soft}):
        with pytest.raises(CommandRefused, match="at most"):
            driver.write(command(q, **gains))


# which hand


@pytest.mark.parametrize(("hand", "kind"), [("left", "A"), ("right", "B")])
def test_another_hand_than_configured_is_refused_before_it_is_switched_on(hand, kind):
    with AllegroHand(plant(), virtual(), hand=hand, kind=kind) as fake:
        with pytest.raises(ConfigError, match=f"a {hand} {kind} .*not a right A"):
            open_driver(config(fake.line), JOINTS)
        assert not fake.on and fake.torques == 0


def test_no_hand_a_silent_finger_and_a_bent_one_are_refused(fake):
    with pytest.raises(DriverError, match="no Allegro hand answers as device 0 on virtual"):
        open_driver(AllegroConfig(interface="virtual", channel=f"nobody {next(CHANNELS)}"), JOINTS)
    with pytest.raises(DriverError, match="cannot open CAN socketcan"):
        open_driver(AllegroConfig(channel="no such can"), JOINTS)
    fake.silence(1)
    with pytest.raises(DriverError, match=r"silent are \['mf'\]"):
        open_driver(config(fake.line), JOINTS)
    fake.restore()
    fake.plant._q[13] = 2.0
    with pytest.raises(DriverError, match="th_abd reads 2.00 rad"):
        open_driver(config(fake.line), JOINTS)
    assert not fake.on and fake.torques == 0


@pytest.mark.parametrize(
    "settings",
    [{"hand": "both"}, {"kind": "C"}, {"device": 4}, {"period": 0.0035}, {"clamp": 500.0}, {"stale": 0.001},
     {"stiffness": float("nan")}, {"cutoff": 0.0}, {"chanel": "can1"}],
)  # fmt: skip
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ConfigError):
        configuration(DeviceConfig("hand", "allegro", JOINTS, "/dev/null", settings=settings))


def test_settings_come_from_plain_values():
    settings = {"interface": "slcan", "channel": "/dev/x", "options": {"bitrate": 1_000_000}}
    made = configuration(DeviceConfig("hand", "allegro", JOINTS, "/dev/null", settings=settings))
    assert made.options["bitrate"] == 1_000_000 and made.channel == "/dev/x"


# readings


def test_lost_and_short_reports_delay_a_reading_and_never_repeat_one(fake, driver):
    fake.drop(0.2)
    fake.shorten(40)
    seen, end = [], time.monotonic() + 1.0
    while time.monotonic() < end:
        seen.append(driver.read())
        time.sleep(0.003)
    stamps = {s.seq: s.t for s in seen}
    assert len(stamps) == len(set(stamps.values())) > 20
    assert all(np.abs(s.q - HOME).max() < 0.05 for s in seen) and driver.fault == ""


def fresh(driver):
    try:
        return driver.read()
    except DriverError:
        return None


def test_one_silent_finger_makes_no_reading_and_is_named(fake, driver):
    fake.silence(2)
    until(lambda: driver._loop.newest()[1], timeout=10.0, what="a fault")
    with pytest.raises(DriverError, match="finger_silent: rf"):
        driver.read()
    with pytest.raises(DriverError, match="does not follow: finger_silent: rf"):
        driver.write(command(HOME))
    fake.restore()
    until(lambda: fresh(driver), timeout=10.0, what="a reading")
    assert driver.read().seq > 0 and driver.fault == "finger_silent: rf"  # until an operator recovers it
    driver.recover()
    driver.read()
    assert driver.fault == ""


def test_counts_that_waited_in_a_queue_are_no_velocity(fake, driver):
    follow(driver, HOME, 0.3)
    with driver._loop._lock:  # the loop is not run for a while
        time.sleep(0.06)
        fake.plant._q += 0.004
    speeds = []
    for _ in range(30):
        speeds.append(np.abs(driver.read().qd).max())
        time.sleep(0.003)
    assert max(speeds) < 0.6


def test_a_motor_stage_that_switched_off_and_heat_are_named(fake, driver):
    fake.raise_fault("overheating")
    until(lambda: driver.read() and driver.fault, timeout=5.0, what="a fault")
    assert driver.fault == "overheating: if has 80 deg C"
    fake.reset()
    driver.recover()
    fake.raise_fault("servo_off")
    until(lambda: driver.read() and driver.fault, timeout=5.0, what="a fault")
    assert driver.fault.startswith("servo_off") and not fake.on
    driver.recover()
    assert fake.on and driver.fault == ""


def test_a_serial_line_adapter_works_and_its_loss_is_an_error():
    with AllegroHand(plant(), Slcan()) as fake:
        made = open_driver(config(fake.line, stale=0.5), JOINTS)
        there = HOME + 0.05
        until(
            lambda: follow(made, there, 0.2) or np.abs(fake.plant.measure()[0] - there).max() < 0.01,
            timeout=20.0,
            what="the goal reached",
        )
        fake.close()
        until(lambda: made._loop.newest()[1] != "", timeout=10.0, what="a fault")
        until(lambda: fresh(made) is None, timeout=10.0, what="no reading")
        with pytest.raises(DriverError, match="bus_lost|finger_silent"):
            made.read()
        with pytest.raises(DriverError):
            made.recover()
        made.close()
