"""Compiled commands are those of ``safety.tracking``, to the last bit."""

import numpy as np
import pytest

from palmar.safety import tracking
from palmar.sim.commands import bounds_of, follow
from palmar.sim.robots import load_robot, robot_names

S, B, DT = 10, 12, 0.005


def by_arrays(limits, start, target, u, ud, udd):
    out = np.empty((4, S, *u.shape))
    for s in range(S):
        r, rd = tracking.interpolate(start, target, phase=(s + 1) / (S + 1e-9), period=S * DT)
        x = tracking.box_limited(tracking.toward(u, ud, r, rd), udd, u, ud, limits=limits, dt=DT)
        out[3, s] = (x - udd) / DT
        u, ud = tracking.integrate(u, ud, x, dt=DT)
        udd = x
        out[:3, s] = u, ud, udd
    return out


@pytest.mark.parametrize("name", robot_names())
def test_commands_have_the_bits_of_the_arrays_functions(name):
    robot = load_robot(name)
    limits, rng = robot.limits, np.random.default_rng(0)
    u = start = rng.uniform(limits.q_min, limits.q_max, (B, robot.n))
    u, ud, udd = u.copy(), np.zeros_like(u), np.zeros_like(u)
    bound = 0
    for _ in range(20):
        target = rng.uniform(limits.q_min, limits.q_max, u.shape)
        want, out = by_arrays(limits, start, target, u, ud, udd), np.empty((4, S, B, robot.n))
        follow(bounds_of(limits), start, target, S * DT, DT, u, ud, udd, out)
        assert np.array_equal(out, want)
        assert np.array_equal(u, want[0, -1]) and np.array_equal(ud, want[1, -1]) and np.array_equal(udd, want[2, -1])
        start, bound = target, bound + int((np.abs(udd) == limits.a_max).sum())
    assert bound > 0  # limits were met, or the clipping was never looked at
