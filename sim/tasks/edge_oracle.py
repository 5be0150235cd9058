"""Scripts for ``edge``: drag the plate over the edge and grasp it there; grasp it where it lies, two ways; do nothing.

All see only the deployed observation.  Offsets are from the palm to the middle of the grasp, from ``scene.GRASP``.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from palmar.sim.kinematics import rotation_z
from palmar.sim.scene import GRASP
from palmar.sim.tasks.extrinsic import N_ACTION, rotation_x
from palmar.sim.tasks.skills import Aim, Script, See, Skill, after, arrived, never

Array = np.ndarray
QUARTER = np.pi / 2
"""Pitch of the hand that grasps from the side, backwards [rad]."""
PRESS = 0.005
"""How far the tips would be inside the plate if it gave way: the force that drags it [m]."""
OVER = 0.075
"""How far the plate is brought over the edge [m]."""
UNDER = 0.05
"""Depth of the grasp behind the plate's side [m]."""
STANDING = 0.010
"""Height of the middle of the nominal grasp over what the open tips stand on [m]: 0.006 by kinematics, 0.004 found by
trying (the hand leans and the tracker is 2 mm off)."""
TIGHT = (1.4, 1.8, 1.15)
"""Shares of index, middle and thumb around something thin."""
LEAN = -0.15
"""Pitch for dragging [rad]: index and middle stand on the plate, the thumb does not."""
BACK = 0.03
"""They stand this far behind the plate's middle [m], so as not to end up beyond the edge."""
SLIP = 0.03
"""How much further than the plate the hand is ready to go [m]."""
ENOUGH = 0.055
"""With less over the edge the robot drags again [m]."""


def offset(pitch: float) -> Array:
    """Palm minus middle of the grasp at a pitch of the hand [m], (3,)."""
    nominal = rotation_z(np.array([GRASP.yaw]))[0] @ np.array(GRASP.palm_pos)
    return rotation_x(np.array([pitch]))[0] @ nominal


FLAT, SIDEWAYS = offset(0.0), offset(-QUARTER)
"""For dragging, and for grasping from the side, fingers below and thumb above."""


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


def _held(first: See, dz: float) -> Aim:
    """The fingers closed, the palm as it was, ``dz`` higher."""
    return Aim(first["palm"] + [0.0, 0.0, dz], *first["turn_target"].T, shares=TIGHT)


def _close(see: See, first: See, since: Array) -> Aim:
    return _held(first, 0.0)


def _raise(see: See, first: See, since: Array) -> Aim:
    return replace(_held(first, 0.26), speed=0.5)


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


def direct() -> Script:
    """Grasp the box where it lies, over its middle, as ``lift`` does it: what these tasks make impossible."""
    return in_place(inset=None)


def corner() -> Script:
    """Grasp the box where it lies by its far corner, where it is narrow: what friction below 1 makes impossible."""
    return in_place(inset=0.015)


def in_place(*, inset: float | None) -> Script:
    """Above, down until the tips are beside the box's upper half or stand on it, close, raise.

    ``inset`` is the distance of the grasp from the corner along the diagonal [m]; None is the middle of the box.
    """

    def aim(see: See, dz: float) -> Aim:
        box, goal, turn = see["box_position"], see["goal"], np.arctan2(see["axes"][:, 1, 0], see["axes"][:, 0, 0])
        if inset is None:
            return Aim(box + [0.0, 0.0, dz] + np.stack([0 * turn, 0 * turn, goal[:, 2] - 0.005], 1) + FLAT)
        yaw = turn + np.pi / 4  # fingers and thumb on either side of the corner at +x, +y
        deep = np.maximum(0.013 - goal[:, 2], 0.0) - 0.004 + dz  # tips at half height, or just above what it lies on
        at = np.stack([goal[:, 0] - inset / np.sqrt(2), goal[:, 1] - inset / np.sqrt(2), deep], axis=1)
        at = np.einsum("bij,bj->bi", rotation_z(turn), at) + box
        return Aim(at + np.einsum("bij,j->bi", rotation_z(yaw), FLAT), yaw=yaw)

    def hold(first: See, dz: float) -> Aim:
        return Aim(first["palm"] + [0.0, 0.0, dz], *first["turn_target"].T, shares=TIGHT)

    return Script((
        Skill("above", lambda see, first, since: aim(see, 0.10), arrived(0.02), 60),
        Skill("down", lambda see, first, since: replace(aim(first, 0.0), speed=0.4), arrived(0.006), 40),
        Skill("close", lambda see, first, since: hold(first, 0.0), after(14), 14),
        Skill("raise", lambda see, first, since: hold(first, 0.2), never, 10**9),
    ))  # fmt: skip


class Nothing:
    """Keeps the arm where it is."""

    def start(self, batch: int) -> None:
        """No memory."""
        return None

    def act(self, obs: Array, carry: None) -> tuple[Array, None]:
        """Zero actions (B, 8)."""
        return np.zeros((len(obs), N_ACTION)), None
