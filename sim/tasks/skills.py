"""Skills in sequence: each has an aim, a predicate that ends it, and the predicate that sends the robot back.

A skill is a function of what the policy sees, so that a script, and later a learned skill, can be put into its
place; ExDex trains push, wall and edge skills and hands over between them likewise (arXiv:2503.23120).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from palmar.sim.tasks.extrinsic_io import N_ACTION, PITCH_STEP, ExtrinsicIO
from palmar.sim.tasks.oracles import begun, fresh, named
from palmar.sim.tasks.palm import PALM_STEP, SYNERGY_STEP, YAW_STEP

Array = np.ndarray
See = Mapping[str, Array]
"""Parts of the observation by name, (B, d) each; besides ``palm`` (B, 3) and ``axes`` (B, 3, 3) of the box."""


@dataclass(frozen=True)
class Aim:
    """Where the hand should be."""

    palm: Array
    """[m], (B, 3)."""
    yaw: Array | float = 0.0
    """[rad], (B,)."""
    pitch: Array | float = 0.0
    """[rad], (B,)."""
    shares: Sequence[float] | Array = (0.0, 0.0, 0.0)
    """Of index, middle, thumb."""
    speed: float = 1.0
    """Share of the largest palm step."""


@dataclass(frozen=True)
class Skill:
    """One piece of a sequence."""

    name: str
    aim: Callable[[See, See, Array], Aim]
    """Of what is seen now, what was seen when the skill began, and the steps since (B,)."""
    done: Callable[[See, Aim, Array], Array]
    """Whether the next skill may begin, (B,) bool; of what is seen, the aim, the steps since."""
    patience: int
    """Control steps after which the next begins anyway."""
    lost: Callable[[See, Aim, Array], Array] | None = None
    """Whether to begin the whole sequence again, (B,) bool."""


@dataclass(frozen=True)
class Progress:
    """Where each robot is in a sequence."""

    phase: Array
    """Index of the skill, (B,) int."""
    since: Array
    """Control steps in it, (B,) int."""
    first: dict[str, Array]
    """What was seen when it began."""


class Script:
    """A policy: the skills in order, restarted with the episode."""

    def __init__(self, skills: Sequence[Skill]) -> None:
        self.skills = tuple(skills)

    def start(self, batch: int) -> Progress:
        """Every robot at the beginning."""
        return Progress(np.zeros(batch, int), np.zeros(batch, int), {})

    def act(self, obs: Array, carry: Progress) -> tuple[Array, Progress]:
        """Actions (B, 8) and the progress after them."""
        see = seen(obs)
        just = fresh(see)
        phase, since = np.where(just, 0, carry.phase), np.where(just, 0, carry.since)
        first = {n: np.where(_over(since == 0, v), v, carry.first.get(n, v)) for n, v in see.items()}
        action, ready, lost = np.zeros((len(obs), N_ACTION)), np.zeros(len(obs), bool), np.zeros(len(obs), bool)
        for k, skill in enumerate(self.skills):
            mine = phase == k
            if not mine.any():
                continue
            aim = skill.aim(see, first, since)
            action[mine] = towards(see, aim)[mine]
            ready |= mine & (skill.done(see, aim, since) | (since >= skill.patience))
            if skill.lost is not None:
                lost |= mine & skill.lost(see, aim, since)
        ready &= phase < len(self.skills) - 1
        after = np.where(lost, 0, phase + ready)
        return begun(action, just), Progress(after, np.where(ready | lost, 0, since + 1), first)


def seen(obs: Array) -> dict[str, Array]:
    """Parts of observations (B, d) by name."""
    see = named(ExtrinsicIO, obs)
    x, z = see["box_axes"].reshape(-1, 3, 2).transpose(2, 0, 1)
    return see | {"palm": see["box_position"] - see["palm_to_box"], "axes": np.stack([x, np.cross(z, x), z], axis=2)}


def towards(see: See, aim: Aim) -> Array:
    """Actions (B, 8) that bring the targets nearer to an aim."""
    b = len(see["palm"])
    palm = (aim.palm - see["palm"] - see["palm_target"]) / PALM_STEP
    turn = np.stack([np.broadcast_to(aim.yaw, b), np.broadcast_to(aim.pitch, b)], axis=1) - see["turn_target"]
    fingers = (np.array(aim.shares) - see["finger_shares"]) / SYNERGY_STEP
    palm = palm * np.minimum(1.0, aim.speed / np.maximum(np.abs(palm).max(1, keepdims=True), 1e-9))
    return np.clip(np.concatenate([palm, turn / [YAW_STEP, PITCH_STEP], fingers], axis=1), -1, 1)


def arrived(tolerance: float, turn: float = 0.15) -> Callable[[See, Aim, Array], Array]:
    """Palm within ``tolerance`` [m] of the aim, and targets of its turn and fingers there too."""

    def done(see: See, aim: Aim, since: Array) -> Array:
        b = len(see["palm"])
        wanted = np.stack([np.broadcast_to(aim.yaw, b), np.broadcast_to(aim.pitch, b)], axis=1)
        near = np.linalg.norm(aim.palm - see["palm"], axis=1) < tolerance
        still = np.abs(wanted - see["turn_target"]).max(1) < turn
        return near & still & (np.abs(np.array(aim.shares) - see["finger_shares"]).max(1) < 0.1)

    return done


def after(steps: int) -> Callable[[See, Aim, Array], Array]:
    """A number of control steps have passed."""
    return lambda see, aim, since: since >= steps


def never(see: See, aim: Aim, since: Array) -> Array:
    """The last skill of a sequence does not end."""
    return np.zeros(len(since), dtype=bool)


def _over(flag: Array, like: Array) -> Array:
    """``flag`` (B,) with the dimensions of ``like``."""
    return flag.reshape(-1, *[1] * (like.ndim - 1))


__all__ = ["Aim", "Progress", "See", "Script", "Skill", "after", "arrived", "never", "seen", "towards"]
