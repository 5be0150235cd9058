"""Script for ``wall``: behind the box, push it to the wall, tip it up on an arc, let go, grasp it from above, lift.

It sees only the deployed observation.  Tipping: the backs of the fingers press the box's side towards the wall; the
friction that this gives carries the side up while the opposite lower edge stays where table and wall meet.
"""

from __future__ import annotations

import numpy as np

from palmar.sim.tasks.grasp_in_place import FLAT
from palmar.sim.tasks.skills import Aim, Script, See, Skill, after, arrived, never

Array = np.ndarray
KNUCKLE = np.array([0.030, 0.042, -0.061])
"""Last joint of the open fingers, between index and middle, less the palm [m]."""
RADIUS = 0.019
"""Of the thickest link there [m]."""
LOW = 0.030
"""Height of the last joint while pushing [m]: the tips clear the table by 12 mm."""
SQUEEZE = 0.004
"""How far inside the box's side the fingers' targets are while tipping [m]."""
LEAN = 0.025
"""How much further the arc ends, so that the box leans on the wall [m]."""
RATE = 0.06
"""Of tipping [rad per control step]."""
DEPTH = 0.05
"""Of the grasp below the top of the standing box [m]."""
GRIP = (1.15, 1.15, 1.15)


def _knuckle(x: Array, y: Array, z: Array | float) -> Array:
    """Palm with the fingers' last joints at (x, y, z)."""
    return np.stack([x, y, np.broadcast_to(z, np.shape(x))], axis=1) - KNUCKLE


def _side(see: See) -> Array:
    """Y of the box's side away from the wall, at its middle [m], (B,)."""
    axes = see["axes"]
    return see["box_position"][:, 1] - np.abs(axes[:, 1] * see["goal"][:, :3]).sum(1)


def _high(see: See, first: See, since: Array) -> Aim:
    return Aim(_knuckle(see["box_position"][:, 0], _side(see) - RADIUS - 0.05, 0.12))


def _low(see: See, first: See, since: Array) -> Aim:
    return Aim(_knuckle(see["box_position"][:, 0], _side(see) - RADIUS - 0.03, LOW), speed=0.6)


def _push(see: See, first: See, since: Array) -> Aim:
    y = see["goal"][:, 3] - 2 * see["goal"][:, 1] - RADIUS + SQUEEZE
    return Aim(_knuckle(first["box_position"][:, 0], y, LOW), speed=0.3)


def _tip(see: See, first: See, since: Array) -> Aim:
    angle = np.minimum(RATE * since, np.pi / 2 + 0.05)
    goal = see["goal"]
    out, up = 2 * goal[:, 1] + RADIUS - SQUEEZE, LOW
    y = goal[:, 3] - out * np.cos(angle) + up * np.sin(angle) + LEAN * np.sin(angle) ** 2
    return Aim(_knuckle(first["box_position"][:, 0], y, out * np.sin(angle) + up * np.cos(angle)))


def _free(see: See, first: See, since: Array) -> Aim:
    return Aim(first["palm"] + [0.0, -0.02, 0.10])


def _middle(see: See, dz: float) -> Array:
    """Palm with the middle of the grasp ``dz`` above where the standing box is held."""
    box, goal = see["box_position"], see["goal"]
    z = 2 * goal[:, 1] - DEPTH + dz
    return np.stack([box[:, 0], box[:, 1], z], axis=1) + FLAT


def _over(see: See, first: See, since: Array) -> Aim:
    return Aim(_middle(see, 0.12))


def _astride(see: See, first: See, since: Array) -> Aim:
    return Aim(_middle(see, 0.0), speed=0.5)


def _close(see: See, first: See, since: Array) -> Aim:
    return Aim(first["palm"], shares=GRIP)


def _raise(see: See, first: See, since: Array) -> Aim:
    return Aim(first["palm"] + [0.0, 0.0, 0.18], shares=GRIP, speed=0.6)


def _touches(see: See, aim: Aim, since: Array) -> Array:
    """The box is at the wall and the fingers at the box, as far as the tracker tells."""
    at_wall = see["goal"][:, 3] - (2 * see["box_position"][:, 1] - _side(see)) < 0.008
    return at_wall & (see["palm"][:, 1] + KNUCKLE[1] + RADIUS > _side(see) - 0.004)


def _lying(see: See, aim: Aim, since: Array) -> Array:
    """The box did not stay up."""
    return (since > 6) & (np.abs(see["axes"][:, 2, 2]) > 0.5)


def oracle() -> Script:
    """Push, tip, let go, grasp, lift; from the beginning again if the box falls back."""
    return Script((
        Skill("high", _high, arrived(0.03), 60),
        Skill("low", _low, arrived(0.01), 40),
        Skill("push", _push, _touches, 60),
        Skill("tip", _tip, after(30), 30),
        Skill("free", _free, arrived(0.03), 20, _lying),
        Skill("over", _over, arrived(0.01), 40, _lying),
        Skill("astride", _astride, arrived(0.008), 30),
        Skill("close", _close, after(12), 12),
        Skill("raise", _raise, never, 10**9),
    ))  # fmt: skip
