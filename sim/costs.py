"""``ConstraintSet.over`` of an interval's samples, compiled where training would spend its time: the same bits.

What is a cost is written once, in ``safety.margins``; here the margins over all joints are made in one pass each, and
the memory of ``dropped_object`` is unrolled, so that one call judges every sample.  All else is asked of the file.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from palmar.safety import margins
from palmar.safety.constraints import Constraint, ConstraintSet, Violation
from palmar.safety.types import Measurement

Array = np.ndarray

COMPILED = ("joint_position", "joint_velocity", "joint_acceleration", "joint_jerk", "joint_torque", "dropped_object")
"""Margins made here."""


class Costs:
    """Costs and margins of one constraint file, for samples with dimensions (S, B), time first."""

    def __init__(self, constraints: ConstraintSet, dt: float):
        """Prepare; ``dt`` is the time that a sample stands for [s]."""
        self._file, self._dt = constraints, dt
        self._ours = [(k, c) for k, c in enumerate(constraints.constraints) if c.margin in COMPILED]
        rest = [(k, c.name) for k, c in enumerate(constraints.constraints) if c.margin not in COMPILED]
        self._others, self._rest = [k for k, _ in rest], constraints.select(tuple(name for _, name in rest))

    def over(self, samples: Measurement, carry: dict[str, Array]) -> Violation:
        """As ``ConstraintSet.over``."""
        carry, shape = dict(carry), (*samples.t.shape[1:], len(self._file.constraints))
        smallest, cost = np.empty(shape), np.empty(shape)
        if self._others:
            found = self._rest.over(samples, carry, dt=self._dt)
            smallest[..., self._others], cost[..., self._others], carry = found.margin, found.cost, found.carry
        for k, c in self._ours:
            value = self._dropped(c, samples, carry) if c.remembers else self._joints(c, samples)
            smallest[..., k], cost[..., k] = value.min(axis=0), self._cost(c, value, carry)
        return Violation(smallest, cost, carry)

    def _cost(self, c: Constraint, value: Array, carry: dict[str, Array]) -> Array:
        """Seconds or events of margins (S, B)."""
        violated = (value < 0).astype(np.float64)
        if c.unit != "events":
            return violated.sum(axis=0) * self._dt
        before = np.concatenate([carry[c.name + "/violated"][None], violated[:-1]])
        carry[c.name + "/violated"] = violated[-1]
        return np.maximum(violated - before, 0.0).sum(axis=0)

    def _dropped(self, c: Constraint, samples: Measurement, carry: dict[str, Array]) -> Array:
        """``dropped_object``: the highest points before each sample are known, so all are judged at once."""
        heights = np.concatenate([carry[c.name][None], samples.object_position[..., 2]])
        before = np.maximum.accumulate(heights, axis=0)[:-1]
        value, peak = margins.dropped_object(samples, self._file.limits, before, **c.params)
        carry[c.name] = peak[-1]
        return value

    def _joints(self, c: Constraint, m: Measurement) -> Array:
        """A margin that is the smallest over the joints, (S, B)."""
        x, out = self._file.limits, np.empty(m.q.shape[:2])
        if c.margin == "joint_position":
            _position(m.q, m.u, x.q_min, x.q_max, margins.STOP_GIVE, c.params["buffer"], out)
        elif c.margin == "joint_velocity":
            _velocity(m.u, m.ud, x.v_max, x.curve_offset, x.curve_two_a, x.curve_q_up, x.curve_q_low, out)
        elif c.margin == "joint_acceleration":
            _within(m.udd, x.a_max, out)
        elif c.margin == "joint_jerk":
            _within(m.uddd, x.j_max, out)
        else:
            _within(m.tau, x.tau_max, out)
        return out


@njit(cache=True, nogil=True, error_model="numpy")
def _position(q, u, low, high, give, buffer, out):
    """``margins.joint_position``."""
    for s in range(q.shape[0]):
        for w in range(q.shape[1]):
            best = np.inf
            for i in range(q.shape[2]):
                best = min(best, min(q[s, w, i] - low[i], high[i] - q[s, w, i]) + give)
                best = min(best, min(u[s, w, i] - low[i], high[i] - u[s, w, i]))
            out[s, w] = best - buffer


@njit(cache=True, nogil=True, error_model="numpy")
def _velocity(u, ud, v_max, offset, two_a, up, low, out):
    """``margins.joint_velocity``."""
    for s in range(u.shape[0]):
        for w in range(u.shape[1]):
            best = np.inf
            for i in range(u.shape[2]):
                x, v = u[s, w, i], ud[s, w, i]
                above = math.sqrt(max(0.0, two_a[i] * (up[i] - x))) - offset[i]
                below = math.sqrt(max(0.0, two_a[i] * (x - low[i]))) - offset[i]
                upwards, downwards = min(v_max[i], max(0.0, above)), min(v_max[i], max(0.0, below))
                best = min(best, min(upwards - v, v + downwards))
            out[s, w] = best


@njit(cache=True, nogil=True, error_model="numpy")
def _within(x, most, out):
    """``margins.joint_acceleration``, ``joint_jerk`` and ``joint_torque``."""
    for s in range(x.shape[0]):
        for w in range(x.shape[1]):
            best = np.inf
            for i in range(x.shape[2]):
                best = min(best, most[i] - abs(x[s, w, i]))
            out[s, w] = best
