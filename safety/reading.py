"""How margins read a measurement, over any array namespace."""

from __future__ import annotations

from palmar.safety.namespace import namespace
from palmar.safety.types import Array, ConfigError, Measurement


def like(m: Measurement, values: Array) -> Array:
    """``values`` as an array of the measurement's namespace, device and precision."""
    return cast(values, m.q)


def cast(values: Array, q: Array) -> Array:
    """``values`` like ``q``; at 1 kHz a conversion that does nothing would cost."""
    if type(values) is type(q) and values.dtype == q.dtype:
        return values
    return namespace(q).asarray(values, dtype=q.dtype, device=q.device)


def smallest(x: Array) -> Array:
    """Smallest entry of the last axis."""
    return namespace(x).min(x, axis=-1)


def supplied(m: Measurement, name: str) -> Array:
    """A field that not every robot or engine supplies."""
    value = getattr(m, name)
    if value is None:
        raise ConfigError(f"a constraint needs the measurement's {name}, which nothing supplies here")
    return value


def largest(m: Measurement, x: Array) -> Array:
    """Largest entry of the last axis, not below 0: no object is no violation."""
    xp = namespace(m.q)
    return xp.max(xp.concat([x, xp.zeros_like(m.t)[..., None]], axis=-1), axis=-1)
