"""From time-stamped targets to an acceleration: what the filter is asked to do, in training and at runtime.

Training runs it over a batch at the physics rate, the filter over one robot at 1 kHz, so a policy meets the
same motion in both.
"""

from __future__ import annotations

from palmar.safety.margins import speed_limit
from palmar.safety.namespace import namespace
from palmar.safety.robot import Limits
from palmar.safety.types import Array

OMEGA = 20.0
"""Natural frequency of the tracking law [rad/s].

Both poles sit at -OMEGA and half of the reference's speed is fed forward: the zero cancels one pole, so what is
left is a first-order lag of 1/OMEGA that cannot overshoot.  (All of it fed forward overshoots by v / (e OMEGA)
where a line of speed v ends.)  With 10 rad/s2 of braking this holds below 2 rad/s: the law brakes from 2 v/OMEGA
before its goal and a stop needs v^2/20.
"""
KEPT = 0.9
"""Part of the position-dependent speed limit that is asked for: braking takes a few ticks of jerk."""


def toward(q: Array, qd: Array, r: Array, rd: Array) -> Array:
    """Acceleration that tracks a moving reference, before any limit [rad/s2].

    Args:
        q: Commanded positions [rad], (*B, n).
        qd: Commanded velocities [rad/s], (*B, n).
        r: Reference positions [rad], (*B, n).
        rd: Reference velocities [rad/s], (*B, n).
    """
    return OMEGA * OMEGA * (r - q) + OMEGA * (rd - 2.0 * qd)


def box_limited(x: Array, previous: Array, q: Array, qd: Array, *, limits: Limits, dt: float) -> Array:
    """Clip an acceleration to speed, jerk and acceleration limits (last wins).

    The batched stand-in for the filter's box bounds in training; position ends are left to the margins.  The
    speed that is kept is ``KEPT`` of the position-dependent one.

    Args:
        x: Wanted acceleration [rad/s2], (*B, n).
        previous: Acceleration of the tick before [rad/s2], (*B, n).
        q: Commanded position [rad], (*B, n).
        qd: Commanded velocity [rad/s], (*B, n).
        limits: The robot's.
        dt: Tick [s].
    """
    xp = namespace(x)
    a, j = (xp.asarray(getattr(limits, k), dtype=x.dtype, device=x.device) for k in ("a_max", "j_max"))
    downwards, upwards = speed_limit(q, limits)
    x = xp.minimum(xp.maximum(x, (-KEPT * downwards - qd) / dt), (KEPT * upwards - qd) / dt)
    x = xp.minimum(xp.maximum(x, previous - j * dt), previous + j * dt)
    return xp.minimum(xp.maximum(x, -a), a)


def integrate(q: Array, qd: Array, x: Array, *, dt: float) -> tuple[Array, Array]:
    """One tick at constant acceleration: new position and velocity."""
    return q + dt * qd + 0.5 * dt * dt * x, qd + dt * x


def interpolate(start: Array, target: Array, *, phase: float, period: float) -> tuple[Array, Array]:
    """Reference on the straight line from ``start`` to ``target``: position and velocity.

    Args:
        start: Where the line begins [rad], (*B, n).
        target: Where it ends [rad], (*B, n).
        phase: Share of the line, 0 to 1; beyond 1 the reference rests at the target.
        period: Duration of the line [s].
    """
    if phase >= 1.0:
        return target, target * 0.0
    return start + phase * (target - start), (target - start) / period
