"""Scripts for ``edge``: drag the plate over the edge and grasp it there; grasp it where it lies; do nothing.

All see only the deployed observation.  Offsets are from the palm to the middle of the grasp, from ``scene.GRASP``.
"""

from __future__ import annotations

import numpy as np

from palmar.sim.kinematics import rotation_z
from palmar.sim.scene import GRASP
from palmar.sim.tasks.extrinsic import N_ACTION, rotation_x
from palmar.sim.tasks.skills import Aim, Script, See, Skill, after, arrived, never

Array = np.ndarray
QUARTER = np.pi / 2
PRESS = 0.005
"""How far the tips would be inside the plate if it gave way: the force that drags it [m]."""
OVER = 0.075
"""How far the plate is brought over the edge [m]."""
UNDER = 0.045
"""Depth of the grasp behind the plate's side [m]."""
STANDING = -0.010
"""Height of the middle of the nominal grasp over what the open tips stand on [m]: their centres are 0.004 higher,
their radius is 0.0104; less the arm's lag under load."""
TIGHT = (1.4, 1.4, 1.15)
LEAN = -0.15
"""Pitch for dragging [rad]: index and middle stand on the plate, the thumb does not."""
BACK = 0.03
"""They stand this far behind the plate's middle [m], so as not to end up beyond the edge."""
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
    z = see["goal"][:, 4] + 2 * see["goal"][:, 2] - STANDING + dz
    return np.stack([box[:, 0], box[:, 1] + dy, z], axis=1) + FLAT


def _overhang(see: See) -> Array:
    return see["box_position"][:, 1] + see["goal"][:, 1] - see["goal"][:, 3]


def _above(see: See, first: See, since: Array) -> Aim:
    return Aim(_on(see, see["box_position"], dy=-BACK, dz=0.05), pitch=LEAN)


def _down(see: See, first: See, since: Array) -> Aim:
    return Aim(_on(see, first["box_position"], dy=-BACK, dz=-PRESS), pitch=LEAN, speed=0.25)


def _drag(see: See, first: See, since: Array) -> Aim:
    return Aim(
        _on(see, first["box_position"], dy=OVER - _overhang(first) + 0.03 - BACK, dz=-PRESS), pitch=LEAN, speed=0.4
    )


def _off(see: See, first: See, since: Array) -> Aim:
    return Aim(first["palm"] + [0.0, 0.0, 0.08], pitch=LEAN)


def _beside(see: See, *, dy: float, dz: float) -> Array:
    """Palm of the grasp from the side, its middle ``dy`` inside the plate's side and ``dz`` above it."""
    goal, box = see["goal"], see["box_position"]
    middle = np.stack([box[:, 0], box[:, 1] + goal[:, 1] - dy, goal[:, 4] + goal[:, 2] + dz], axis=1)
    return middle + SIDEWAYS


def _turn(see: See, first: See, since: Array) -> Aim:
    return Aim(_beside(see, dy=-0.09, dz=0.15), pitch=-QUARTER)


def _level(see: See, first: See, since: Array) -> Aim:
    return Aim(_beside(see, dy=-0.06, dz=0.0), pitch=-QUARTER, speed=0.6)


def _enter(see: See, first: See, since: Array) -> Aim:
    return Aim(_beside(first, dy=UNDER, dz=0.0), pitch=-QUARTER, speed=0.3)


def _close(see: See, first: See, since: Array) -> Aim:
    return Aim(first["palm"], pitch=-QUARTER, shares=TIGHT)


def _raise(see: See, first: See, since: Array) -> Aim:
    return Aim(first["palm"] + [0.0, 0.0, 0.26], pitch=-QUARTER, shares=TIGHT, speed=0.5)


def oracle() -> Script:
    """Press, drag over the edge, let go, come from the side, grasp, lift."""
    return Script((
        Skill("above", _above, arrived(0.02), 60),
        Skill("down", _down, arrived(0.004), 20),
        Skill("drag", _drag, lambda see, aim, since: _overhang(see) > OVER, 60),
        Skill("off", _off, arrived(0.03), 15, lambda see, aim, since: (since > 4) & (_overhang(see) < ENOUGH)),
        Skill("turn", _turn, arrived(0.03), 45),
        Skill("level", _level, arrived(0.01), 40),
        Skill("enter", _enter, arrived(0.01), 25),
        Skill("close", _close, after(14), 14),
        Skill("raise", _raise, never, 10**9),
    ))  # fmt: skip


def direct() -> Script:
    """Grasp the plate where it lies, along its shorter side, as ``lift`` does it."""
    return grasp_in_place()


def grasp_in_place() -> Script:
    """Above the middle, down until the tips are at half height or on it, close, raise."""

    def at(see: See, dz: float) -> Array:
        return see["box_position"] + [0.0, 0.0, dz] + FLAT

    def on(see: See) -> Array:
        """Height above the box's middle at which the tips stand on it."""
        return see["goal"][:, 2] - STANDING

    def down(see: See, first: See, since: Array) -> Aim:
        return Aim(at(first, 0.0) + np.stack([0 * on(see), 0 * on(see), on(see) - 0.005], 1), speed=0.4)

    return Script((
        Skill("above", lambda see, first, since: Aim(at(see, 0.10)), arrived(0.02), 40),
        Skill("down", down, arrived(0.006), 40),
        Skill("close", lambda see, first, since: Aim(first["palm"], shares=TIGHT), after(14), 14),
        Skill("raise", lambda see, first, since: Aim(first["palm"] + [0, 0, 0.2], shares=TIGHT), never, 10**9),
    ))  # fmt: skip


class Nothing:
    """Keeps the arm where it is."""

    def start(self, batch: int) -> None:
        """No memory."""
        return None

    def act(self, obs: Array, carry: None) -> tuple[Array, None]:
        """Zero actions (B, 8)."""
        return np.zeros((len(obs), N_ACTION)), None
