"""When something was seen: stamps on ROS's clock, and what is too old, from the future or out of order.

Stamps of different machines are compared, so their clocks must agree (PTP or chrony, docs/nodes.md): a stamp more
than ``FUTURE`` ahead of this machine's clock is refused.
"""

from __future__ import annotations

from typing import Any

from palmar.safety.types import PalmarError

FUTURE = 0.05
"""Largest disagreement of two clocks that is let pass [s]."""


class SightRefused(PalmarError):
    """A reading, pose or picture that is not acted on; the message begins with the reason that is counted."""

    @property
    def reason(self) -> str:
        """What is counted in ``/diagnostics``."""
        return str(self).split(":")[0]


def seconds(stamp: Any) -> float:
    """A ``builtin_interfaces/Time`` in seconds."""
    return stamp.sec + 1e-9 * stamp.nanosec


def age(what: str, stamp: float, now: float, *, oldest: float) -> float:
    """How long ago ``stamp`` was [s], at least 0.

    Args:
        what: Named in the refusal.
        stamp: On ROS's clock [s].
        now: The same clock now [s].
        oldest: Largest age that is acted on [s].

    Raises:
        SightRefused: If it is ``old`` or in the ``future``.
    """
    since = now - stamp
    if since > oldest:
        raise SightRefused(f"old: {what} is {since:.3f} s old, accepted up to {oldest} s")
    if since < -FUTURE:
        raise SightRefused(f"future: {what} is stamped {-since:.3f} s ahead of this clock, accepted up to {FUTURE} s")
    return max(since, 0.0)


def after(what: str, stamp: float, last: float | None) -> None:
    """Refuse a stamp that is not after the last one.

    Raises:
        SightRefused: Of reason ``order``.
    """
    if last is not None and stamp <= last:
        raise SightRefused(f"order: {what} is stamped {last - stamp:.6f} s before the last one, need increasing stamps")
