"""What readings and commands of a robot show, compiled: belief in one reading, and in how they follow each other."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

Q, QD, TAU, SAME, DRIFT, WAY, LAG, U0, Q0, TURN, SNAP_U, SNAP_Q, ROWS = range(13)
"""Rows of the memory: last reading (3), seconds of exact repetition while driven [s], position not explained by
the speeds [rad], direction of the command, then as it was when that direction began: distance from the command,
command, position; last direction other than rest; command and position when an arm joint last turned."""
LOW, HIGH, FASTEST, STRONGEST, JUMP, APART = range(6)
"""Rows of the scale: smallest and largest believable position [rad], largest speed [rad/s] and torque [N m],
jump on top of that speed [rad], largest DRIFT [rad]."""
GOOD, NONFINITE, IMPLAUSIBLE, INCONSISTENT, FROZEN, AGAINST, SWAPPED, STUCK = range(8)
"""What ``look`` can find."""


@njit(cache=True, nogil=True)
def look(q, qd, tau, u, ud, spans, memory, scale, tune, n_arm):
    """Judge a new reading and remember it; what was found and at which joint, ``code * 256 + joint``.

    Args:
        q: Positions [rad], (n,).
        qd: Speeds [rad/s], (n,).
        tau: Torques [N m], (n,).
        u: Positions commanded last [rad], (n,).
        ud: Their speeds [rad/s], (n,).
        spans: Time since the last good reading by ticks' and by readings' count [s], (2,); the first < 0: none.
        memory: See ``Q``, changed unless the reading is unbelievable, (ROWS, n).
        scale: See ``LOW``, (6, n).
        tune: frozen, moving, memory, travel, against, swap, stuck of ``CheckConfig``, (7,).
        n_arm: Number of arm joints, which come first.
    """
    code = believable(q, qd, tau, spans, memory, scale)
    if code != GOOD:
        return code
    found = consistent(q, qd, tau, ud, spans, memory, scale, tune, n_arm)
    memory[Q], memory[QD], memory[TAU] = q, qd, tau
    other = obedient(q, tau, u, ud, memory, scale, tune, n_arm)
    return found if found != GOOD else other


@njit(cache=True, nogil=True)
def believable(q, qd, tau, spans, memory, scale):
    """Whether a reading can be true by itself and after the one before."""
    longest = max(spans[0], spans[1])
    for i in range(len(q)):
        if not (math.isfinite(q[i]) and math.isfinite(qd[i]) and math.isfinite(tau[i])):
            return NONFINITE * 256 + i
    for i in range(len(q)):
        if not (scale[LOW, i] <= q[i] <= scale[HIGH, i]):
            return IMPLAUSIBLE * 256 + i
        if abs(qd[i]) > scale[FASTEST, i] or abs(tau[i]) > scale[STRONGEST, i]:
            return IMPLAUSIBLE * 256 + i
        if spans[0] >= 0 and abs(q[i] - memory[Q, i]) > scale[JUMP, i] + 0.5 * scale[FASTEST, i] * longest:
            return IMPLAUSIBLE * 256 + i
    return GOOD


@njit(cache=True, nogil=True)
def consistent(q, qd, tau, ud, spans, memory, scale, tune, n_arm):
    """Whether the readings change as they must: not frozen, speeds that are those of the positions."""
    if spans[0] < 0:
        return GOOD
    n, found = len(q), GOOD
    frozen, moving, fade = tune[0], tune[1], math.exp(-spans[0] / tune[2])
    driven, same = 0.0, np.inf
    for i in range(n_arm, n):
        driven = max(driven, abs(ud[i]))
    for i in range(n):
        mean = 0.5 * (qd[i] + memory[QD, i])
        a, b = mean * spans[0], mean * spans[1]
        moved = q[i] - memory[Q, i]
        memory[DRIFT, i] = fade * memory[DRIFT, i] + moved - min(max(moved, min(a, b)), max(a, b))
        if abs(memory[DRIFT, i]) > scale[APART, i]:
            found = INCONSISTENT * 256 + i
        if moved != 0.0 or qd[i] != memory[QD, i] or tau[i] != memory[TAU, i]:
            memory[SAME, i] = 0.0
        elif (abs(ud[i]) if i < n_arm else driven) > moving:
            memory[SAME, i] += spans[0]
        if i < n_arm and memory[SAME, i] >= frozen:
            found = FROZEN * 256 + i
        elif i >= n_arm:
            same = min(same, memory[SAME, i])
    return FROZEN * 256 + n_arm if frozen <= same < np.inf else found


@njit(cache=True, nogil=True)
def obedient(q, tau, u, ud, memory, scale, tune, n_arm):
    """Whether joints move as they are commanded to, over a stretch of command in one direction.

    What a joint lagged behind when the stretch began it may still have to make good, so twice that is added to
    what the command must have travelled.
    """
    travel, against, stuck = tune[3], tune[4], tune[6]
    for i in range(len(q)):
        way = 0.0 if abs(ud[i]) < 0.01 else math.copysign(1.0, ud[i])
        if way == 0.0 or way != memory[WAY, i]:
            memory[WAY, i], memory[LAG, i], memory[U0, i], memory[Q0, i] = way, abs(u[i] - q[i]), u[i], q[i]
            continue
        lag = memory[LAG, i]
        asked, done = way * (u[i] - memory[U0, i]), way * (q[i] - memory[Q0, i])
        if i >= n_arm:
            if asked > 10 * travel + 2 * lag and done < -(5 * travel + lag) and abs(tau[i]) < 0.1 * scale[STRONGEST, i]:
                return AGAINST * 256 + i
            continue
        if asked > travel + 2 * lag and done < -(against + lag):
            return AGAINST * 256 + i
        if asked > stuck + 2 * lag and abs(done) < asked / 12:
            return STUCK * 256 + i
    return swapped(q, u, ud, memory, tune[5], n_arm)


@njit(cache=True, nogil=True)
def swapped(q, u, ud, memory, least, n_arm):
    """Whether two arm joints move as the other is commanded to, since one of them last turned or all rested."""
    turned, rest = False, True
    for i in range(n_arm):
        way = 0.0 if abs(ud[i]) < 0.01 else math.copysign(1.0, ud[i])
        rest = rest and way == 0.0
        if way != 0.0 and way != memory[TURN, i]:
            memory[TURN, i], turned = way, True
    if turned or rest:
        memory[SNAP_U], memory[SNAP_Q] = u, q
        return GOOD
    for i in range(n_arm):
        a, x = u[i] - memory[SNAP_U, i], q[i] - memory[SNAP_Q, i]
        lag = abs(memory[SNAP_U, i] - memory[SNAP_Q, i])
        for j in range(n_arm):
            b, y = u[j] - memory[SNAP_U, j], q[j] - memory[SNAP_Q, j]
            started = lag + abs(memory[SNAP_U, j] - memory[SNAP_Q, j])
            if abs(a - b) > least + 2 * started and abs(x - b) < 0.3 * abs(x - a) and abs(y - a) < 0.6 * abs(y - b):
                return SWAPPED * 256 + i
    return GOOD
