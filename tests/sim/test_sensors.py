"""Laws of sensors, one per effect, and of the gate in front of tracked poses."""

import numpy as np
import pytest

from palmar.safety.types import CommandRefused, ConfigError
from palmar.sim import sensors
from palmar.sim.sensors import Channel, Device, Gate, Joints, Packet, SensorConfig, Sensors

B, D, DT = 64, 3, 0.005


def dev(noise=0.0, bias=0.0, step=0.0, delay=0.0, dropout=0.0) -> Device:
    return sensors.device(Packet(delay, dropout), (Channel(noise, bias, step),), (D,))


def ramp(k, steps=10):
    """Times (S, B) of interval k and truths (S, B, D) that are those times, one column ten times as fast."""
    t = np.tile(DT * (k * steps + np.arange(1, steps + 1))[:, None], (1, B))
    return t, t[..., None] * np.array([1.0, -1.0, 10.0])


def run(device, intervals, seed=0, steps=10, truth=ramp):
    """Readings (K, B, D) and stamps (K, B) of successive intervals."""
    rng = np.random.default_rng(seed)
    memory = sensors.start(device, rng, np.zeros(B), np.zeros((B, D)), dt=DT)
    out = []
    for k in range(intervals):
        memory = sensors.read(device, memory, rng, *truth(k, steps))
        out.append((memory.value, memory.t))
    values, stamps = zip(*out, strict=True)
    return np.array(values), np.array(stamps), memory


def still(k, steps):
    return ramp(k, steps)[0], np.full((steps, B, D), 0.3)


def test_a_perfect_device_reads_the_truth_now_and_draws_nothing():
    values, stamps, _ = run(dev(), 5)
    for k in range(5):
        t, x = ramp(k)
        np.testing.assert_array_equal(values[k], x[-1])
        np.testing.assert_array_equal(stamps[k], t[-1])
    rng = np.random.default_rng(0)
    sensors.read(dev(), sensors.start(dev(), rng, np.zeros(B), np.zeros((B, D)), dt=DT), rng, *ramp(0))
    assert rng.random() == np.random.default_rng(0).random()


def test_noise_has_its_standard_deviation_and_no_mean():
    values, _, _ = run(dev(noise=0.02), 60, truth=still)
    error = values - 0.3
    assert error.std() == pytest.approx(0.02, rel=0.03)
    assert abs(error.mean()) < 4 * 0.02 / np.sqrt(error.size)
    lag_one = np.mean(error[1:] * error[:-1]) / error.var()
    assert abs(lag_one) < 4 / np.sqrt(error.size)  # anew at every reading


def test_bias_is_constant_in_an_episode_and_within_its_bound():
    values, _, memory = run(dev(bias=0.05), 20, truth=still)
    error = values - 0.3
    np.testing.assert_allclose(error, np.tile(error[0], (20, 1, 1)), atol=1e-15)
    assert np.abs(error).max() <= 0.05 and np.abs(error).max() > 0.045 and np.std(error[0]) > 0.02
    fresh = sensors.restart(
        dev(bias=0.05), memory, np.random.default_rng(9), np.array([2, 5]), np.zeros(2), np.zeros((2, D))
    )
    changed = np.any(fresh.bias != memory.bias, axis=1)
    np.testing.assert_array_equal(np.flatnonzero(changed), [2, 5])


def test_steps_are_multiples_and_the_error_is_at_most_half_of_one():
    values, _, _ = run(dev(step=0.07), 20)
    np.testing.assert_allclose(values / 0.07, np.rint(values / 0.07), atol=1e-9)
    truths = np.array([ramp(k)[1][-1] for k in range(20)])
    assert np.abs(values - truths).max() <= 0.035 + 1e-12 and np.abs(values - truths).max() > 0.025


@pytest.mark.parametrize("delay", [0.002, 0.005, 0.0124, 0.05, 0.113])
@pytest.mark.parametrize("steps", [1, 10])
def test_a_reading_is_the_newest_sample_old_enough(delay, steps):
    """Its stamp says so, and its value is the truth of that stamp."""
    count = 40 // steps
    values, stamps, _ = run(dev(delay=delay), count, steps=steps)
    for k in range(count):
        now = ramp(k, steps)[0][-1, 0]
        expected = max(np.floor((now - delay) / DT + 1e-6) * DT, 0.0)
        np.testing.assert_allclose(stamps[k], expected, atol=1e-12)
        np.testing.assert_allclose(values[k][:, 0], expected, atol=1e-12)


def test_a_lost_packet_leaves_reading_and_stamp_as_they_were():
    values, stamps, _ = run(dev(noise=0.01, dropout=0.3), 200)
    stood = stamps[1:] == stamps[:-1]
    same = np.all(values[1:] == values[:-1], axis=-1)
    np.testing.assert_array_equal(stood, same)
    assert stood.mean() == pytest.approx(0.3, abs=4 * np.sqrt(0.3 * 0.7 / stood.size))


def test_readings_are_those_of_their_seed():
    everything = dev(0.01, 0.05, 0.001, 0.012, 0.1)
    a, b, c = (run(everything, 10, seed=s)[0] for s in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert np.any(a != c)


def test_one_robot_starts_afresh_and_the_others_do_not_notice():
    device = dev(delay=0.03)
    rng = np.random.default_rng(0)
    memory = sensors.start(device, rng, np.zeros(B), np.zeros((B, D)), dt=DT)
    memory = sensors.read(device, memory, rng, *ramp(0))
    again = sensors.restart(device, memory, rng, np.array([1]), np.zeros(1), np.full((1, D), 9.0))
    np.testing.assert_array_equal(again.value[1], 9.0)
    t, x = ramp(0)
    other, one = t[:1] + 0.05, np.zeros((1, B))
    one[:] = other
    one[0, 1] = DT  # its clock starts again, 25 ms before anything new is old enough
    after = sensors.read(device, again, rng, one, x[:1] + 0.05)
    np.testing.assert_array_equal(after.value[1], 9.0)
    assert after.t[1] == 0.0 and after.t[0] > memory.t[0]


def test_samples_of_another_shape_are_refused():
    rng = np.random.default_rng(0)
    memory = sensors.start(dev(noise=1), rng, np.zeros(B), np.zeros((B, D)), dt=DT)
    with pytest.raises(CommandRefused, match="do not fit"):
        sensors.read(dev(noise=1), memory, rng, np.zeros((2, B)), np.zeros((2, B, D + 1)))
    with pytest.raises(ConfigError, match="noise"):
        Channel(noise=-1.0)
    with pytest.raises(ConfigError, match="dropout"):
        Packet(dropout=1.0)


def test_a_robots_devices_do_not_mix_their_columns(robot):
    """Arm, hand and wrist keep their own errors, and each joint its own reading."""
    config = SensorConfig(hand=Joints(q=Channel(step=0.1), delay=0.01))
    rng = np.random.default_rng(0)
    suite = Sensors(config, robot, batch=2, dt=DT, rng=np.random.default_rng(1))
    ids, n, a = np.arange(2), robot.n, robot.n_arm
    q, qd, tau, w = (rng.normal(size=(1, 2, d)) for d in (n, n, n, 6))
    suite.reset(ids, np.zeros(2), q[0], qd[0], tau[0], w[0])
    later = [np.tile(x, (5, 1, 1)) + np.arange(1, 6)[:, None, None] for x in (q, qd, tau, w)]
    suite.update(np.tile(DT * np.arange(1, 6)[:, None], (1, 2)), *later)
    np.testing.assert_allclose(suite.q[:, :a], q[0, :, :a] + 5)
    np.testing.assert_allclose(suite.q[:, a:], np.rint((q[0, :, a:] + 3) / 0.1) * 0.1, atol=1e-12)
    np.testing.assert_allclose(suite.qd[:, a:], qd[0, :, a:] + 3)
    np.testing.assert_allclose(suite.tau, np.concatenate([tau[0, :, :a] + 5, tau[0, :, a:] + 3], axis=1))
    np.testing.assert_allclose(suite.wrench, w[0] + 5)
    np.testing.assert_allclose(suite.stamps, [[0.025, 0.015, 0.025]] * 2)


def turned(angle):
    return np.array([[[np.cos(angle / 2), 0.0, 0.0, np.sin(angle / 2)]]])


def at(x):
    return np.array([[[x, 0.0, 0.0]]])


HELD = (at(0.0), turned(0.0), np.zeros((1, 1), int))


@pytest.mark.parametrize("x, angle, believed", [(0.049, 0.0, 1), (0.051, 0.0, 0), (0.0, 0.49, 1), (0.0, 0.51, 0)])
def test_a_jump_is_held_back(x, angle, believed):
    p, q, missed = sensors.gate(Gate(), at(x), turned(angle), HELD, np.array([True]))
    np.testing.assert_array_equal(p, at(x) if believed else HELD[0])
    np.testing.assert_array_equal(q, turned(angle) if believed else HELD[1])
    assert missed[0, 0] == 1 - believed


def test_a_quaternion_and_its_negative_are_one_pose():
    assert sensors.gate(Gate(), at(0.01), -turned(0.1), HELD, np.array([True]))[2][0, 0] == 0


@pytest.mark.parametrize("patience", [None, 3])
def test_patience_ends_only_where_there_is_one_and_counts_frames(patience):
    held = HELD
    for k in range(10):
        held = sensors.gate(Gate(patience=patience), at(0.5), turned(0.0), held, np.array([k % 2 == 0]))
        frames = k // 2 + 1
        assert held[0][0, 0, 0] == (0.5 if patience is not None and frames > patience else 0.0)


def test_a_pose_that_is_not_finite_is_never_believed():
    held = HELD
    for _ in range(5):
        held = sensors.gate(Gate(patience=1), at(np.nan), turned(0.0), held, np.array([True]))
    np.testing.assert_array_equal(held[0], HELD[0])
