"""From commands of one clock to set-points of another: the laws of the FR3's follower."""

import numpy as np
import pytest

from palmar.real_robot.drivers.fr3_follow import COAST, DT, Follower

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
