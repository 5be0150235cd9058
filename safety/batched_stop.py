"""``bounds.box`` and ``stop.stop_law`` of a batch of robots, over an array namespace: same formulas, elementwise."""

from __future__ import annotations

from palmar.safety.bounds import HALVINGS, Bounds
from palmar.safety.namespace import namespace
from palmar.safety.types import Array


def stop_law(v: Array, a: Array, b: Bounds, dt: float) -> Array:
    """``stop.stop_law``: the acceleration that brings every joint to rest, (B, n) [rad/s2]."""
    xp = namespace(v)
    step = b.j * dt
    speed = xp.abs(v) / dt
    m = xp.ceil(0.5 * (xp.sqrt(1.0 + 8.0 * speed / step) - 1.0) - 1e-12)
    m = xp.maximum(m, xp.ones_like(m))
    x = xp.minimum(b.a, speed / m + 0.5 * step * (m - 1.0))
    x = xp.where(v > 0.0, -x, x)
    return xp.minimum(xp.minimum(b.a, a + step), xp.maximum(xp.maximum(-b.a, a - step), x))


def box(q: Array, v: Array, a: Array, b: Bounds, dt: float) -> tuple[Array, Array]:
    """``bounds.box``: bounds of the acceleration, low and high, (B, n) [rad/s2].

    The lower bound is the upper one of the mirrored joint; both run as one array (2, B, n).
    """
    xp = namespace(q)
    least, most = xp.maximum(-b.a, a - b.j * dt), xp.minimum(b.a, a + b.j * dt)
    q2, v2 = xp.stack([q, -q]), xp.stack([v, -v])
    good, bad = xp.stack([least, -most]), xp.stack([most, -least])
    end, curve = xp.stack([b.high, -b.low])[:, None], xp.stack([b.up, -b.down])[:, None]
    all_of, none_of = _may_reach(q2, v2, bad, end, curve, b, dt), ~_may_reach(q2, v2, good, end, curve, b, dt)
    lo, hi = good, bad
    for _ in range(HALVINGS):
        x = 0.5 * (lo + hi)
        may = _may_reach(q2, v2, x, end, curve, b, dt)
        lo, hi = xp.where(may, x, lo), xp.where(may, hi, x)
    found = xp.where(all_of, bad, xp.where(none_of, good, lo))
    high, low = found[0], -found[1]
    stop = stop_law(v, a, b, dt)
    crossed = low > high
    return xp.where(crossed, stop, low), xp.where(crossed, stop, high)


def _may_reach(q: Array, v: Array, x: Array, end: Array, curve: Array, b: Bounds, dt: float) -> Array:
    """``bounds.may_reach`` for joints that move up towards ``end``."""
    xp = namespace(q)
    nil = xp.zeros_like(q)
    s, p = v + dt * x, q + dt * v + 0.5 * dt * dt * x
    ramp = x / b.j + dt
    push = x > 0.0
    p = p + xp.where(push, xp.maximum(s, nil) * ramp + x * ramp * ramp, nil)
    s = s + xp.where(push, 0.5 * x * ramp, nil)
    room = end - p
    c = 0.5 * b.a / b.j + 2.0 * dt
    bound = xp.where(room <= 0.0, nil, b.a * (xp.sqrt(c * c + 2.0 * xp.maximum(room, nil) / b.a) - c))
    left = curve - p - s * c
    bent = xp.where(
        s <= b.corner,
        (s + b.offset) ** 2 <= b.two_a * left,
        s * s <= b.corner * b.corner + 2.0 * b.a * (left - b.corner_room),
    )
    free = xp.isinf(b.two_a)
    return xp.where(s <= 0.0, room >= 0.0, (s <= b.v) & (s <= bound) & (free | bent))
