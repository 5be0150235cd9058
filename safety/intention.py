"""``tracking`` of one robot, compiled: the acceleration a policy's reference asks for, and one tick of motion."""

from __future__ import annotations

import math

from numba import njit

from palmar.safety.tracking import KEPT, OMEGA


@njit(cache=True, nogil=True)
def intend(q, v, a, r, rd, bounds, dt, out):
    """``tracking.box_limited(tracking.toward(...))`` of one robot into ``out`` (n,)."""
    for i in range(len(q)):
        x = OMEGA * OMEGA * (r[i] - q[i]) + OMEGA * (rd[i] - 2.0 * v[i])
        above = math.sqrt(max(0.0, bounds.two_a[i] * (bounds.up[i] - q[i]))) - bounds.offset[i]
        below = math.sqrt(max(0.0, bounds.two_a[i] * (q[i] - bounds.down[i]))) - bounds.offset[i]
        fastest, slowest = min(bounds.v[i], max(0.0, above)), -min(bounds.v[i], max(0.0, below))
        x = min(max(x, (KEPT * slowest - v[i]) / dt), (KEPT * fastest - v[i]) / dt)
        x = min(max(x, a[i] - bounds.j[i] * dt), a[i] + bounds.j[i] * dt)
        out[i] = min(max(x, -bounds.a[i]), bounds.a[i])


@njit(cache=True, nogil=True)
def step(q, v, x, dt, q_out, v_out):
    """``tracking.integrate`` of one robot."""
    for i in range(len(q)):
        q_out[i] = q[i] + dt * v[i] + 0.5 * dt * dt * x[i]
        v_out[i] = v[i] + dt * x[i]
