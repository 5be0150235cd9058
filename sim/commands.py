"""From joint targets to the commands of every physics step, for B robots at once: ``safety.tracking``, compiled."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from palmar.safety.intention import intend, step
from palmar.safety.robot import Limits

Array = np.ndarray


class Bounds(NamedTuple):
    """What ``intend`` reads of a robot's limits, under the names it knows; (n,) each."""

    v: Array
    a: Array
    j: Array
    offset: Array
    two_a: Array
    up: Array
    down: Array


def bounds_of(limits: Limits) -> Bounds:
    """The limits themselves: nothing is kept back in training, as in ``tracking.box_limited``."""
    x = limits
    return Bounds(x.v_max, x.a_max, x.j_max, x.curve_offset, x.curve_two_a, x.curve_q_up, x.curve_q_low)


@njit(cache=True, nogil=True, error_model="numpy")
def follow(bounds, start, target, period, dt, u, ud, udd, out):
    """Commands that lead from ``start`` to ``target`` (B, n) within a period, the bits of ``safety.tracking``.

    Args:
        bounds: Of the robot.
        start: Where the reference's line begins [rad], (B, n).
        target: Where it ends [rad], (B, n).
        period: Duration of the line [s].
        dt: Physics step [s].
        u: Commanded positions [rad] (B, n), moved on in place.
        ud: Their velocities, likewise.
        udd: Their accelerations, likewise.
        out: Positions, velocities, accelerations and jerks of each of S steps, (4, S, B, n).
    """
    steps, n = out.shape[1], start.shape[1]
    r, rd, x = np.empty(n), np.empty(n), np.empty(n)
    for s in range(steps):
        phase = (s + 1) / (steps + 1e-9)
        for w in range(len(start)):
            for i in range(n):
                way = target[w, i] - start[w, i]
                r[i], rd[i] = start[w, i] + phase * way, way / period
            intend(u[w], ud[w], udd[w], r, rd, bounds, dt, x)
            step(u[w], ud[w], x, dt, u[w], ud[w])
            for i in range(n):
                out[3, s, w, i] = (x[i] - udd[w, i]) / dt
                udd[w, i] = x[i]
                out[0, s, w, i], out[1, s, w, i], out[2, s, w, i] = u[w, i], ud[w, i], x[i]
