"""The proof that a stop keeps every joint limit, clearance and torque limit at every tick until rest."""

from __future__ import annotations

import numpy as np
from numba import njit

from palmar.safety.bounds import Bounds, Space
from palmar.safety.dynamics import Inertia
from palmar.safety.live import HEIGHT, SAMPLES, first_tick, sample, work_of
from palmar.safety.obstacles import Obstacles
from palmar.safety.stop import EFFORT, FAILURES, LONGEST, OK, POSITION, stop_path
from palmar.safety.torque import Effort, stop_torque
from palmar.safety.tree import Tree

Array = np.ndarray


@njit(cache=True, nogil=True)
def posture(tree, bounds, space, obstacles, q, w):
    """Failure code of standing still at q."""
    for i in range(len(q)):
        if not bounds.low[i] <= q[i] <= bounds.high[i]:
            return POSITION
        w.path[i, 0], w.path[i, LONGEST + 1], w.moved[i] = q[i], 0.0, 0.0
    return first_tick(tree, space, obstacles, w, 0.0)[0]


@njit(cache=True, nogil=True)
def _travel(path, turn, a_max, moved, k0, k1, dt):
    """How far each joint travels between two ticks, back and forth added up, into ``moved`` (n,) [rad]."""
    for i in range(len(moved)):
        end = int(path[i, LONGEST + 1])
        x0, x1 = path[i, min(k0, end)], path[i, min(k1, end)]
        t = turn[i]
        moved[i] = abs(x1 - x0)
        if k0 < t < k1:
            x = path[i, min(t, end)]
            # The reversal lies inside a tick: at most this much further.
            moved[i] = abs(x - x0) + abs(x1 - x) + a_max[i] * dt * dt


@njit(cache=True, nogil=True)
def _doubtful(tree, bounds, space, w, k0, k1, s0, s1, first, end, palm, dt):
    """Which of ``w.some[first:end]`` may be violated strictly between two samples; a proof of the others.

    A distance changes by at most (reach of each joint) x (how far that joint moves), so between two samples
    it is at least their mean less half of that; what is needed of a person's distance grows meanwhile.  Heights
    and the palm are moreover smooth: on an interval of length h they stay above the chord less h^2 / 8 times
    their largest acceleration.

    Returns:
        One beyond the last of the doubtful ones, which begin at ``end``; whether the palm is doubtful.
    """
    moved, value, reach, live, some = w.moved, w.value, w.reach, w.live, w.some
    _travel(w.path, w.turn, bounds.a, moved, k0, k1, dt)
    h = (k1 - k0) * dt
    top = end
    for at in range(first, end):
        i = some[at]
        room = value[s0, i] + value[s1, i] - w.grow[i] * h
        for j in range(len(moved)):
            room -= reach[i, j] * moved[j]
        if room < 0.0 and live[i, 0] == HEIGHT:
            mean = 0.5 * (value[s0, i] + value[s1, i])
            if _smooth(reach[i], bounds.a, moved, h, min(value[s0, i], value[s1, i]), mean):
                continue
        if room < 0.0:
            some[top] = i
            top += 1
    for i in range(3 if palm else 0):
        x0, x1 = w.palm[s0, i], w.palm[s1, i]
        low = min(min(x0, x1) - space.lower[i], space.upper[i] - max(x0, x1))
        mean = min(0.5 * (x0 + x1) - space.lower[i], space.upper[i] - 0.5 * (x0 + x1))
        if not _smooth(tree.palm_reach, bounds.a, moved, h, low, mean):
            return top, True
    return top, False


@njit(cache=True, nogil=True)
def _smooth(reach, a_max, moved, h, low, mean):
    """Whether a coordinate of a point stays >= 0 between two samples; either of two bounds suffices."""
    travel, spin, speed, push = 0.0, 0.0, 0.0, 0.0
    for j in range(len(moved)):
        if moved[j] > 0.0 and reach[j] > 0.0:
            travel += reach[j] * moved[j]
            rate = moved[j] / h + 0.5 * a_max[j] * h
            spin += rate
            speed += reach[j] * rate
            push += reach[j] * a_max[j]
    return mean >= 0.5 * travel or low >= h * h / 8.0 * (push + spin * speed)


@njit(cache=True, nogil=True)
def verify_stop(tree, bounds, space, obstacles, q, v, a, dt, w):
    """Whether the stop from (q, v, a) keeps every joint limit and clearance at every tick until rest.

    Joint limits are checked at every tick.  Clearances are evaluated at the start; those that the whole stop
    could use up also at the end and, by bisection, wherever ``_doubtful`` cannot exclude a violation at a tick
    in between, at most SAMPLES times.  When those do not suffice the stop counts as not verified.

    People are where they are said to be, and come from there: k ticks into the stop they have come nearer by
    ``grow * (reaction + k dt)``, which the clearance must exceed by their ``limit``.  Who has come too close to a
    robot that stands is no violation, for standing is all it can do about it.

    Args:
        tree: Kinematics.
        bounds: Joint limits.
        space: Limits of the geometry.
        obstacles: What else is in the cell.
        q: Positions [rad], (n,).
        v: Velocities [rad/s], (n,).
        a: Accelerations of the tick that led here [rad/s2], (n,).
        dt: Tick [s].
        w: Scratch.

    Returns:
        Failure code (OK is 0), ticks until rest, samples used.
    """
    last, code = stop_path(q, v, a, bounds, dt, w.path, w.turn)
    if code != OK:
        return code, last, 0
    _travel(w.path, w.turn, bounds.a, w.moved, 0, last, dt)
    code, count, palm = first_tick(tree, space, obstacles, w, last * dt)
    if code != OK or count == 0 and not palm:
        return code, last, 1
    for i in range(count):
        w.some[i] = i
    code = sample(tree, space, obstacles, w, last, 1, 0, count, dt)
    used = 2
    if code != OK:
        return code, last, used
    stack = w.stack
    stack[0, 0], stack[0, 1], stack[0, 2], stack[0, 3], stack[0, 4], stack[0, 5] = 0, last, 0, 1, 0, count
    depth = 1
    while depth > 0:
        depth -= 1
        k0, k1, s0, s1, first, end = stack[depth]
        if k1 - k0 < 2:
            continue
        # What is proven here is proven of every part of it: only the doubtful ones are looked at again.
        top, doubt = _doubtful(tree, bounds, space, w, k0, k1, s0, s1, first, end, palm, dt)
        if top == end and not doubt:
            continue
        if used == SAMPLES:
            return EFFORT, last, used
        # Speed falls along a stop: the middle of the way lies before the middle of the time.
        k = k0 + max(1, (k1 - k0) * 2 // 5)
        code = sample(tree, space, obstacles, w, k, used, end, top, dt)
        if code != OK:
            return code, last, used + 1
        stack[depth, 0], stack[depth, 1], stack[depth, 2], stack[depth, 3] = k, k1, used, s1
        stack[depth, 4], stack[depth, 5] = end, top
        depth += 1
        stack[depth, 0], stack[depth, 1], stack[depth, 2], stack[depth, 3] = k0, k, s0, used
        stack[depth, 4], stack[depth, 5] = end, top
        depth += 1
        used += 1
    return OK, last, used


class Verifier:
    """The filter's verifier: stops of one robot, and standing still.  Changes nothing but its scratch space."""

    def __init__(self, tree: Tree, bounds: Bounds, space: Space, inertia: Inertia, effort: Effort, dt: float) -> None:
        """For ticks of ``dt`` seconds."""
        self.tree, self.bounds, self.space, self.inertia, self.effort, self.dt = (
            tree,
            bounds,
            space,
            inertia,
            effort,
            dt,
        )
        self._work = work_of(tree)

    def fault(self, obstacles: Obstacles, q: Array, v: Array, a: Array) -> str:
        """Why the stop from (q, v, a) is not verified, '' if it is."""
        code, _, _ = verify_stop(self.tree, self.bounds, self.space, obstacles, q, v, a, self.dt, self._work)
        if code != OK:
            return "unverified_" + FAILURES[code]
        held, _ = stop_torque(self.inertia, self.effort, v, a, self._work.path, self.dt)
        return "" if held else "unverified_joint_torque"

    def standing(self, obstacles: Obstacles, q: Array) -> str:
        """Which constraint standing still at q violates, '' for none."""
        return FAILURES[posture(self.tree, self.bounds, self.space, obstacles, q, self._work)]
