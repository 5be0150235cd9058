"""Script for ``edge``: drag the plate over the edge and grasp it there.  It sees only the deployed observation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from palmar.sim.kinematics import rotation_z
from palmar.sim.tasks.grasp_in_place import FLAT, QUARTER, SIDEWAYS, held
from palmar.sim.tasks.skills import Aim, Script, See, Skill, after, arrived, never

Array = np.ndarray
PRESS = 0.005
"""How far the tips would be inside the plate if it gave way: the force that drags it [m]."""
OVER = 0.075
"""How far the plate is brought over the edge [m]."""
UNDER = 0.05
"""Depth of the grasp behind the plate's side [m]."""
STANDING = 0.010
"""Height of the middle of the nominal grasp over what the open tips stand on [m]: 0.006 by kinematics, 0.004 found by
trying (the hand leans and the tracker is 2 mm off)."""
LEAN = -0.15
"""Pitch for dragging [rad]: index and middle stand on the plate, the thumb does not."""
BACK = 0.03
"""They stand this far behind the plate's middle [m], so as not to end up beyond the edge."""
SLIP = 0.03
"""How much further than the plate the hand is ready to go [m]."""
ENOUGH = 0.055
"""With less over the edge the robot drags again [m]."""


def _on(see: See, box: Array, *, dy: Array | float, dz: float) -> Array:
    """Palm with the tips ``dz`` above the plate, ``dy`` further than its middle at ``box``."""
    z = see["goal"][:, 4] + 2 * see["goal"][:, 2] + STANDING + dz
    return np.stack([box[:, 0], box[:, 1] + dy, z], axis=1) + FLAT


def _overhang(see: See) -> Array:
    return see["box_position"][:, 1] + see["goal"][:, 1] - see["goal"][:, 3]


def _above(see: See, first: See, since: Array) -> Aim:
    return Aim(_on(see, see["box_position"], dy=-BACK, dz=0.05), pitch=LEAN)


def _down(see: See, first: See, since: Array) -> Aim:
    return Aim(_on(see, first["box_position"], dy=-BACK, dz=-PRESS), pitch=LEAN, speed=0.25)


def _drag(see: See, first: See, since: Array) -> Aim:
    way = OVER - _overhang(first) + SLIP - BACK
    return Aim(_on(see, first["box_position"], dy=way, dz=-PRESS), pitch=LEAN, speed=0.4)


def _off(see: See, first: See, since: Array) -> Aim:
    return Aim(first["palm"] + [0.0, 0.0, 0.08], pitch=LEAN)


def _beside(see: See, *, dy: float, dz: float) -> Aim:
    """The hand along the plate's side, the middle of the grasp ``dy`` inside it and ``dz`` above the plate's."""
    goal, box = see["goal"], see["box_position"]
    yaw = np.arctan2(see["axes"][:, 1, 0], see["axes"][:, 0, 0])
    inwards = np.stack([0 * yaw, goal[:, 1] - dy, goal[:, 4] + goal[:, 2] + dz - box[:, 2]], axis=1) + SIDEWAYS
    return Aim(box + np.einsum("bij,bj->bi", rotation_z(yaw), inwards), yaw=yaw, pitch=-QUARTER)


def _turn(see: See, first: See, since: Array) -> Aim:
    return _beside(see, dy=-0.09, dz=0.15)


def _level(see: See, first: See, since: Array) -> Aim:
    return replace(_beside(see, dy=-0.06, dz=0.0), speed=0.6)


def _enter(see: See, first: See, since: Array) -> Aim:
    return replace(_beside(first, dy=UNDER, dz=0.0), speed=0.3)


def _close(see: See, first: See, since: Array) -> Aim:
    return held(first, 0.0)


def _raise(see: See, first: See, since: Array) -> Aim:
    return replace(held(first, 0.26), speed=0.5)


def oracle() -> Script:
    """Press, drag over the edge, let go, come from the side, grasp, lift."""
    return Script((
        Skill("above", _above, arrived(0.02), 60),
        Skill("down", _down, arrived(0.004), 20),
        Skill("drag", _drag, lambda see, aim, since: _overhang(see) > OVER, 60),
        Skill("off", _off, arrived(0.03), 15, lambda see, aim, since: (since > 4) & (_overhang(see) < ENOUGH)),
        Skill("turn", _turn, arrived(0.03), 45),
        Skill("level", _level, arrived(0.01), 40),
        Skill("enter", _enter, arrived(0.006), 30),
        Skill("close", _close, after(14), 14),
        Skill("raise", _raise, never, 10**9),
    ))  # fmt: skip
