"""Scripts for ``edge`` and ``wall`` that grasp the box where it lies, two ways, or do nothing; where the hand then is.

They show what these tasks make impossible, and see only the deployed observation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from palmar.sim.kinematics import rotation_z
from palmar.sim.scene import GRASP
from palmar.sim.tasks.extrinsic_io import N_ACTION, TIGHTEST, rotation_x
from palmar.sim.tasks.oracles import DoNothing
from palmar.sim.tasks.skills import Aim, Script, See, Skill, after, arrived, never

Array = np.ndarray
QUARTER = np.pi / 2
"""Pitch of the hand that grasps from the side, backwards [rad]."""


def offset(pitch: float) -> Array:
    """Palm minus middle of the nominal grasp at a pitch of the hand [m], (3,)."""
    nominal = rotation_z(np.array([GRASP.yaw]))[0] @ np.array(GRASP.palm_pos)
    return rotation_x(np.array([pitch]))[0] @ nominal


FLAT, SIDEWAYS = offset(0.0), offset(-QUARTER)
"""From above, and from the side, fingers below and thumb above."""


def held(first: See, dz: float) -> Aim:
    """The fingers closed around something thin, the palm as it was, ``dz`` higher [m]."""
    return Aim(first["palm"] + [0.0, 0.0, dz], *first["turn_target"].T, shares=TIGHTEST)


def scripts() -> dict[str, Callable[[], Any]]:
    """By name."""
    return {"direct": direct, "corner": corner, "nothing": partial(DoNothing, N_ACTION)}


def direct() -> Script:
    """Grasp the box where it lies, over its middle, as ``lift`` does it."""
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

    return Script((
        Skill("above", lambda see, first, since: aim(see, 0.10), arrived(0.02), 60),
        Skill("down", lambda see, first, since: replace(aim(first, 0.0), speed=0.4), arrived(0.006), 40),
        Skill("close", lambda see, first, since: held(first, 0.0), after(14), 14),
        Skill("raise", lambda see, first, since: held(first, 0.2), never, 10**9),
    ))  # fmt: skip
