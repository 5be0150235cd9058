"""What a device that commands over a topic asks again and again: who else does, and how fast its commands go."""

from __future__ import annotations

from typing import Any

import numpy as np

from palmar.safety.types import Array


def alone(node: Any, topic: str) -> str:
    """Fault of a commander that has company, or nobody to command; '' for neither."""
    if node.count_publishers(topic) > 1:
        return "second_commander"
    return "no_controller" if node.count_subscribers(topic) == 0 else ""


def velocity(q: Array, stamp: float, last: tuple[float, Array] | None, *, gap: float) -> Array:
    """Velocity of commands q (n,) [rad/s], from the one before; 0 where that is missing or ``gap`` [s] or more ago.

    Args:
        q: The newest command [rad], (n,).
        stamp: Its time [s].
        last: Time [s] and positions [rad] of the one before.
        gap: From which age on the one before says nothing [s].
    """
    if last is None or not 0.0 < stamp - last[0] < gap:
        return np.zeros(len(q))
    return (q - last[1]) / (stamp - last[0])
