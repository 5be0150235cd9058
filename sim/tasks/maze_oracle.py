"""Scripted policies for ``maze``: one that feels its way, one that presses straight on.

Both see only the deployed observation: no walls, no obstacles.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from palmar.sim.tasks.maze_io import N_ACTION, STEP, STIFF, STIFF_RATIO, MazeIO
from palmar.sim.tasks.maze_layout import HALF_WIDTH
from palmar.sim.tasks.oracles import fresh, named

Array = np.ndarray
SOFT = (200.0, 250.0)
"""Stiffness in x and y [N/m]."""
CALM = 0.007
"""Lead of the set-point in free space [m]: sets the speed, and with it the blow of the first touch."""
PRESS, SLIDE = 0.020, 0.022
"""Lead onto a wall, and along it [m]."""
TOUCH = 1.5
"""Force that is a touch [N]; an obstacle on the table resists with less than 1.6."""
SMOOTH = 0.3
"""Weight of the newest force: a touch chatters."""
STUCK = 0.004
"""A lateral way per WINDOW below this, against a lateral force, is the corridor's side [m]."""
WINDOW = 8
"""[control steps]."""
SIDE = HALF_WIDTH - 0.025
"""Beyond this |y| it is the corridor's side that stops the peg [m]: the width is no secret, the gaps are."""
RETREAT = 12
"""Control steps of backing off, before an obstacle or after PATIENCE stops without a way through."""
PATIENCE = 4


@dataclass(frozen=True)
class Feeling:
    """What each robot remembers."""

    side: Array
    """Which way it searches along a wall, +1 or -1, (B,)."""
    turns: Array
    """How often it has turned since it last got on, (B,)."""
    back: Array
    """Control steps left of backing off, (B,) int."""
    furthest: Array
    """Largest x reached [m], (B,)."""
    past: Array
    """The peg's y in the last WINDOW steps, newest first [m], (B, WINDOW)."""
    force: Array
    """Smoothed force in the plane [N], (B, 2)."""


class MazeOracle:
    """Press forward softly; on a wall, slide along it; at a side, turn; without luck, back off and try again."""

    def start(self, batch: int) -> Feeling:
        """Every robot at the entrance."""
        zero = np.zeros(batch)
        return Feeling(
            np.ones(batch), zero, np.zeros(batch, int), zero, np.full((batch, WINDOW), np.nan), np.zeros((batch, 2))
        )

    def act(self, obs: Array, carry: Feeling) -> tuple[Array, Feeling]:
        """Actions (B, 4) and the memory after them."""
        see = named(MazeIO, obs)
        peg = see["peg"][:, :2]
        now = self._remembered(see, peg, carry)
        force = now.force
        blocked = force[:, 0] > TOUCH
        moved = np.abs(peg[:, 1] - now.past[:, -1])
        stopped = (moved < STUCK) & (now.side * force[:, 1] > TOUCH)  # nan (a short memory) compares false
        now = self._turned(now, stopped, peg)
        lead = np.empty_like(peg)
        lead[:, 0] = np.where(now.back > 0, -CALM, np.where(blocked, PRESS, CALM))
        sliding = blocked | (now.back > 0)
        lead[:, 1] = np.where(sliding, now.side * SLIDE, -0.5 * force[:, 1] / SOFT[1])
        action = np.empty((len(obs), N_ACTION))
        action[:, :2] = (lead - see["set_point_error"]) / STEP
        action[:, 2:] = np.log(np.array(SOFT) / STIFF) / np.log(STIFF_RATIO)
        past = np.concatenate([peg[:, 1:], now.past[:, :-1]], axis=1)
        return np.clip(action, -1, 1), replace(now, past=past, back=np.maximum(now.back - 1, 0))

    def _remembered(self, see: dict[str, Array], peg: Array, carry: Feeling) -> Feeling:
        """The memory, blank for episodes that just began; getting on clears the count of turns."""
        just = fresh(see)
        on = peg[:, 0] > carry.furthest + 0.01
        return Feeling(
            side=np.where(just, np.where(peg[:, 1] > 0, -1.0, 1.0), carry.side),
            turns=np.where(just | on, 0.0, carry.turns),
            back=np.where(just, 0, carry.back),
            furthest=np.where(just, peg[:, 0], np.where(on, peg[:, 0], carry.furthest)),
            past=np.where(just[:, None], np.nan, carry.past),
            force=np.where(just[:, None], 0.0, (1 - SMOOTH) * carry.force + SMOOTH * see["wrench"][:, :2]),
        )

    def _turned(self, now: Feeling, stopped: Array, peg: Array) -> Feeling:
        """The other way at the corridor's side; elsewhere an obstacle is in the way: back off and on over it."""
        wall = np.abs(peg[:, 1]) > SIDE
        turns = now.turns + stopped
        tired = turns >= PATIENCE
        return replace(
            now,
            side=np.where(stopped & (wall | tired), -now.side, now.side),
            turns=np.where(tired, 0.0, turns),
            back=np.where(tired | (stopped & ~wall), RETREAT, now.back),
            past=np.where(stopped[:, None], np.nan, now.past),
        )


class StraightOn:
    """Presses forward as hard as the leash lets it: what a policy does that does not feel."""

    def start(self, batch: int) -> None:
        """No memory."""
        return None

    def act(self, obs: Array, carry: None) -> tuple[Array, None]:
        """Actions (B, 4)."""
        return np.tile([1.0, 0.0, 1.0, 1.0], (len(obs), 1)), None
