"""Scripted policies for ``hazards``: one that goes over what it may not touch, and one that does not know of it.

Both are the pinch of ``lift`` and differ only in the height of the way.
"""

from __future__ import annotations

from palmar.sim.tasks.lift_oracle import PinchScript

TRAVEL = 0.30
"""Height of the palm on its way: the fingertips are 8 cm lower, the highest hazard ends at 0.18 [m]."""
SQUEEZE = 0.9
"""How far the fingers close: with more a cylinder creeps out of the grip within 2 s, with less a heavy cube does."""


def careful() -> PinchScript:
    """Over everything that may not be touched."""
    return _holding(TRAVEL)


def unaware() -> PinchScript:
    """Straight to the block."""
    return _holding(None)


def _holding(travel: float | None) -> PinchScript:
    return PinchScript(travel, raised=0.13, squeeze=SQUEEZE, near=0.012, patience=(90, 40))
