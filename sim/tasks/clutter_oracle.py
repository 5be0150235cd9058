"""A scripted policy for ``clutter``: the pinch of ``lift``, turned to where it fits between the neighbours.

It sees the deployed observation only.  Before the descent the fingers close to a little more than the object is wide;
among the turns that put the thinner side between thumb and fingers, the one with most room is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from palmar.sim.forms import FAMILIES
from palmar.sim.kinematics import rotation_z
from palmar.sim.layout import gap
from palmar.sim.scene import GRASP
from palmar.sim.tasks.clutter_io import MOST, ClutterIO
from palmar.sim.tasks.oracles import begun, fresh, named
from palmar.sim.tasks.palm import CLOSEST, N_ACTION, PALM_STEP, SYNERGY_STEP, YAW_STEP

Array = np.ndarray
ABOVE, RAISE = 0.10, 0.16
"""Heights above the grasp: before the descent, and at the end [m]."""
CLOSING_STEPS = 12
SQUEEZE = 0.16
"""Share of closing beyond touching."""
SHIFT = 0.0033
"""The fingers' middle lies this far beside the grasp's centre, along y [m]."""
BELOW = 0.011
"""The grasp is this far below the object's centre where the table allows it [m]."""
HEADROOM = 0.038
"""The grasp is at most this far below the object's top [m]: the palm would touch it."""
TURNS = np.array([0.0, 0.25, -0.25, 0.5, -0.5, 0.75, -0.75, 1.0, -1.0, 1.25, -1.25, 1.5, -1.5])
"""Turns tried on round things [rad]; of others, those of their sides."""
FURTHEST = 1.58
"""No turn of the hand goes further from home [rad]."""
BROAD = 0.029
"""Half the width up to which the second side fits as well [m]."""
ENOUGH = 0.02
"""More room than this does not count; a radian of turn costs 4 mm of it [m]."""


@dataclass(frozen=True)
class Progress:
    """Where each robot is in the script."""

    phase: Array
    """0 go above, 1 descend, 2 close, 3 raise; (B,) int."""
    since: Array
    """Control steps in this phase, (B,) int."""
    turn: Array
    """Of the hand from home, chosen at the start [rad], (B,)."""
    grasp: Array
    """Palm position of the grasp, fixed when the fingers start to close [m], (B, 3)."""


class ClutterOracle:
    """Above, down, close, raise; restarted by the age of the episode."""

    def start(self, batch: int) -> Progress:
        """Every robot at the beginning."""
        return Progress(np.zeros(batch, int), np.zeros(batch, int), np.zeros(batch), np.zeros((batch, 3)))

    def act(self, obs: Array, carry: Progress) -> tuple[Array, Progress]:
        """Actions (B, 8) and the progress after them."""
        see = named(ClutterIO, obs)
        just = fresh(see)
        phase, since = np.where(just, 0, carry.phase), np.where(just, 0, carry.since)
        turn = np.where(just, chosen_turn(see), carry.turn) if just.any() else carry.turn
        place, palm = see["object_position"], see["object_position"] - see["palm_to_object"]
        half = see["half_size"]
        at = place.copy()
        at[:, 2] = grasp_height(half)
        now = at + (rotation_z(GRASP.yaw + turn) @ (np.array(GRASP.palm_pos) + np.array([0, SHIFT, 0])))
        grasp = np.where((phase < 2)[:, None], now, carry.grasp)
        height = np.choose(phase, [ABOVE, 0.0, 0.0, RAISE])
        want = grasp + np.stack([0 * height, 0 * height, height], 1)
        action = np.zeros((len(obs), N_ACTION))
        action[:, :3] = (want - palm - see["palm_target"]) / PALM_STEP
        action[:, 3] = np.where(phase < 2, (turn - see["yaw_target"][:, 0]) / YAW_STEP, 0.0)
        share = np.where(phase >= 2, np.minimum(touch(half[:, 0]) + SQUEEZE, CLOSEST), preshape(half[:, 0]))
        action[:, 4:] = (share[:, None] - see["finger_shares"]) / SYNERGY_STEP
        error = np.linalg.norm(want - palm, axis=1)
        turned = np.abs(turn - see["yaw_target"][:, 0]) < 0.02
        done: list[Any] = [(error < 0.02) & turned, error < 0.006, since >= CLOSING_STEPS, False]
        ready = np.choose(phase, done)
        patience = np.choose(phase, [40, 25, 99, 10**9])
        ready |= since > patience
        return begun(np.clip(action, -1, 1), just), Progress(phase + ready, np.where(ready, 0, since + 1), turn, grasp)


def grasp_height(half: Array) -> Array:
    """Height of the grasp above the table for half extents (B, 3) [m], (B,).

    The fingertips touch up to 9 mm above it.  Above the equator of something round, contacts creep up and it slips out
    (seen with capsules), so the grasp is ``BELOW`` the centre, or as low as the fingers, at the width they stop at,
    stay 4 mm clear of the table.
    """
    clear = 0.0125 + 0.009 * touch(half[:, 0])
    return np.maximum(np.maximum(half[:, 2] - BELOW, 2 * half[:, 2] - HEADROOM), clear)


def touch(half_width: Array) -> Array:
    """Share of closing at which the fingertips, 10 mm in radius, touch the faces, (B,)."""
    return (0.060 - half_width - 0.0104) / 0.039


def preshape(half_width: Array) -> Array:
    """Share of closing at which the fingertips are 14 mm away from the faces, (B,)."""
    return np.clip(touch(half_width) - 0.35, 0.0, 0.6)


def chosen_turn(see: dict[str, Array]) -> Array:
    """Turn of the hand with most room beside the neighbours, and of those the smallest [rad], (B,)."""
    yaw = np.arctan2(see["object_yaw2"][:, 1], see["object_yaw2"][:, 0]) / 2
    half, b = see["half_size"], len(yaw)
    sides = yaw[:, None] - GRASP.yaw + np.pi / 2 * np.arange(4)
    sides = (sides + np.pi) % (2 * np.pi) - np.pi
    fits = (np.arange(4) % 2 == 0) | (half[:, 1:2] <= BROAD)
    fits = fits & (np.abs(sides) <= FURTHEST)
    is_round = see["family"][:, FAMILIES.index("cylinder")] > 0.5
    turns = np.where(is_round[:, None], TURNS, np.nan)
    turns[:, :4] = np.where(is_round[:, None], TURNS[:4], np.where(fits, sides, np.nan))
    room = np.minimum(free(see, np.nan_to_num(turns)), ENOUGH) - 0.004 * np.abs(turns)
    return np.take_along_axis(turns, np.nanargmax(room, axis=1)[:, None], axis=1)[:, 0].reshape(b)


def free(see: dict[str, Array], turns: Array) -> Array:
    """Room between the hand at turns (B, T) [rad] and the nearest neighbour [m], (B, T); inf where there is none."""
    half, others = see["half_size"], see["others"].reshape(-1, 1, MOST - 1, 9)
    there = others[..., 8] > 0.5
    size = np.where(there[..., None], others[..., 5:7], 0.01)
    neighbour = rectangle(others[..., :2], size, np.arctan2(others[..., 4], others[..., 3]) / 2)
    top = 2 * others[..., 7] - grasp_height(half)[:, None, None]
    room = np.full((*turns.shape, MOST - 1), np.inf)
    for centre, size, low in shadow(half[:, 0] + 0.0104 + 0.014):
        at = turned(np.broadcast_to(centre[:, None], (*turns.shape, 2)), turns + GRASP.yaw)
        sides = np.broadcast_to(size, (*turns.shape, 1, 2))
        part = rectangle(at[:, :, None], sides, (turns + GRASP.yaw)[..., None])
        room = np.minimum(room, np.where(top > low, gap(part, neighbour), np.inf))
    return np.where(there, room, np.inf).min(-1)


def shadow(tip: Array) -> tuple[tuple[Array, Array, float], ...]:
    """Rectangles that the hand covers from above, in the frame of the grasp (x the pinch): fingers, thumb, ring, palm.

    Read off the robot's capsules.  Fingers and thumb move with the tips.

    Args:
        tip: Distance of the fingertips' centres from the grasp, along x [m], (B,).

    Returns:
        Of each, centres [m] (B, 2), half extents [m] (2,), and the height above the grasp at which it begins [m].
    """
    o = np.zeros_like(tip)
    return (
        (np.stack([tip + 0.028, o + 0.005], 1), np.array([0.045, 0.050]), -np.inf),
        (np.stack([-tip - 0.012, o], 1), np.array([0.024, 0.022]), -np.inf),
        (np.stack([o + 0.029, o - 0.073], 1), np.array([0.026, 0.026]), 0.028),
        (np.stack([o + 0.020, o - 0.010], 1), np.array([0.070, 0.080]), 0.042),
    )


def rectangle(centre: Array, half: Array, yaw: Array) -> Array:
    """Corners (..., 4, 2) of rectangles turned by yaw (...) [rad]."""
    corner = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]], dtype=float) * half[..., None, :]
    return centre[..., None, :] + turned(corner, yaw[..., None])


def turned(points: Array, yaw: Array) -> Array:
    """Points (..., 2) turned by yaw (...) [rad]."""
    c, s = np.cos(yaw), np.sin(yaw)
    return np.stack([c * points[..., 0] - s * points[..., 1], s * points[..., 0] + c * points[..., 1]], -1)
