"""A rollout's motion to be followed again, slower: what was sent, on a clock that waits for the robot; no ROS.

What is followed is the recorded *sent* command, not the measurement: it has no noise and kept every limit.  Slowed by
a factor s <= 1 its velocity is s, its acceleration s**2 and its jerk s**3 of the recorded ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from palmar.rollouts.rollout import Poses, Rollout
from palmar.safety.robot import RobotModel
from palmar.safety.types import RolloutRefused

Array = np.ndarray

APPROACH = 0.3
"""Largest joint speed on the way to the rollout's first command [rad/s]."""
LAG = 0.2
"""The clock waits while a joint is further than this from its target [rad]."""


@dataclass(frozen=True)
class Motion:
    """Joint positions over time."""

    t: Array
    """Increasing, from 0 [s], (T,)."""
    q: Array
    """Hardware order [rad], (T, n)."""

    @property
    def duration(self) -> float:
        """[s]"""
        return float(self.t[-1])

    def at(self, t: Array) -> Array:
        """Positions (len(t), n) at times ``t`` [s]; the ends beyond the ends."""
        return np.stack([np.interp(t, self.t, column) for column in self.q.T], axis=-1)


def load(rollout: Rollout, robot: RobotModel) -> Motion:
    """The motion that was sent.

    Raises:
        RolloutRefused: If it is of another robot, has no commands, or numbers that are none.
    """
    theirs = rollout.header.robot
    if theirs.hash() != robot.hash():
        raise RolloutRefused(
            f"{rollout.path}: of robot {theirs.name} ({theirs.hash()[:12]}, joints {list(theirs.joints)[:3]}...), "
            f"this is {robot.name} ({robot.hash()[:12]}, joints {list(robot.joints)[:3]}...)"
        )
    t, q = rollout.command.t, rollout.command.u
    if len(t) < 2:
        raise RolloutRefused(f"{rollout.path}: {len(t)} commands, need 2 or more")
    if not (np.isfinite(t).all() and np.isfinite(q).all()) or np.any(np.diff(t) <= 0):
        raise RolloutRefused(f"{rollout.path}: commands with NaN, infinity, or stamps that do not increase")
    outside = np.flatnonzero(np.any((q < robot.limits.q_min) | (q > robot.limits.q_max), axis=0))
    if len(outside):
        raise RolloutRefused(f"{rollout.path}: commands beyond the range of {[robot.joints[k] for k in outside]}")
    return Motion(t - t[0], q)


def slowed(motion: Motion, speed: float) -> Motion:
    """The same path at ``speed`` times the recorded speed.

    Raises:
        RolloutRefused: If it is not in (0, 1].
    """
    if not 0 < speed <= 1:  # also NaN
        raise RolloutRefused(f"speed is {speed}, accepted above 0 and up to 1")
    return Motion(motion.t / speed, motion.q)


def led_to(motion: Motion, q: Array, *, most: float = APPROACH) -> Motion:
    """``motion`` with a way to its first position from rest at ``q`` (n,), straight in joint space.

    The way has minimum jerk (position 10 s^3 - 15 s^4 + 6 s^5), so its peak speed is 1.875 times its mean.
    """
    way = motion.q[0] - q
    last = max(1.875 * float(np.abs(way).max()) / most, 0.5)
    s = np.linspace(0.0, 1.0, max(2, int(np.ceil(100 * last)) + 1))
    blend = s**3 * (10 - 15 * s + 6 * s**2)
    return Motion(
        np.concatenate([s * last, motion.t[1:] + last]), np.concatenate([q + blend[:, None] * way, motion.q[1:]])
    )


class Playback:
    """Follows a motion: targets for one chunk at a time, on a clock that stands while the robot does not follow."""

    def __init__(self, motion: Motion, *, rate: float = 20.0, ahead: int = 8, lag: float = LAG):
        self.motion, self.rate, self.ahead, self.lag = motion, rate, ahead, lag
        self._led, self._t = motion, 0.0
        self.waited = 0
        """Periods in which the clock stood."""

    def start(self, q: Array) -> None:
        """Begin where the robot is, q (n,)."""
        self._led, self._t, self.waited = led_to(self.motion, q), 0.0, 0

    def targets(self, q: Array) -> Array:
        """Targets (H, n), one per period from now, for a robot at ``q`` (n,)."""
        if np.abs(self._led.at(np.array([self._t]))[0] - q).max() <= self.lag:
            self._t += 1 / self.rate
        else:
            self.waited += 1
        return self._led.at(self._t + np.arange(self.ahead) / self.rate)

    @property
    def left(self) -> float:
        """Time left on its clock [s], 0 at the end."""
        return max(0.0, self._led.duration - self._t)


def pose_at(poses: Poses, t: float) -> tuple[Array, Array] | None:
    """The newest recorded position and quaternion at or before ``t`` of the run's clock; None before the first."""
    k = int(np.searchsorted(poses.t, t, side="right")) - 1
    return (poses.position[k], poses.quaternion[k]) if k >= 0 else None
