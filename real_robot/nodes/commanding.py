"""What drivers that command over a topic share: who else does, whether the hardware follows, how a command ends."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from palmar.safety.types import Array

LOOK_AROUND = 0.5
"""How often the graph is asked who listens and who else commands [s]."""
GAP = 0.2
"""Commands farther apart than this say nothing about a velocity [s]."""


class Watch:
    """Does the hardware follow what is published on ``topic``, and does nobody else command it?"""

    def __init__(self, node: Any, topic: str, *, follow: float, follow_time: float):
        """Joints farther than ``follow`` [rad] from their commands for ``follow_time`` [s] do not follow."""
        self._node, self._topic, self._follow, self._follow_time = node, topic, follow, follow_time
        self.forgive()

    def forgive(self) -> None:
        """Begin anew, and look around at once."""
        self._near_since, self._looked = time.monotonic(), 0.0

    def fault(self, now: float, far: float) -> str:
        """``not_following``, ``second_commander`` or ``no_controller``, '' for none.

        Args:
            now: Monotonic time [s].
            far: How far the farthest joint is from its command [rad], 0 without one.
        """
        found = ""
        if far < self._follow:
            self._near_since = now
        elif now - self._near_since > self._follow_time:
            found = "not_following"
        if now - self._looked > LOOK_AROUND:
            self._looked = now
            found = self._company() or found
        return found

    def _company(self) -> str:
        if self._node.count_publishers(self._topic) > 1:
            return "second_commander"
        return "no_controller" if self._node.count_subscribers(self._topic) == 0 else ""


def velocity(q: Array, stamp: float, last: tuple[float, Array] | None) -> Array:
    """Velocity of commands q (n,) [rad/s], from the one before; 0 where that is missing or ``GAP`` or more ago.

    Args:
        q: The newest command [rad], (n,).
        stamp: Its time [s].
        last: Time [s] and positions [rad] of the one before.
    """
    if last is None or not 0.0 < stamp - last[0] < GAP:
        return np.zeros(len(q))
    return (q - last[1]) / (stamp - last[0])


def to_rest(
    names: Sequence[str], q: Array, v: Array, *, ahead: float, brake: float, least: float, low: Array, high: Array
) -> JointTrajectory:
    """A short trajectory that ends at rest: a joint_trajectory_controller refuses others, and holds its last point.

    Args:
        names: The controller's names of the joints.
        q: Where the joints are to be after ``ahead`` [rad], (n,); with 0 they brake from there at once.
        v: Their velocity there [rad/s], (n,).
        ahead: [s]; the trajectory begins when it arrives.
        brake: Deceleration of the fastest joint from there on [rad/s2]; all come to rest together.
        least: Shortest time for that [s].
        low: Lower ends of the ranges, which the way to rest keeps [rad], (n,).
        high: Upper ends [rad], (n,).
    """
    rest = max(float(np.abs(v).max()) / brake, least)
    points = [_point(q, v, ahead)] if ahead > 0.0 else []
    points.append(_point(np.clip(q + 0.5 * rest * v, low, high), np.zeros(len(q)), ahead + rest))
    return JointTrajectory(joint_names=list(names), points=points)


def _point(q: Array, v: Array, t: float) -> JointTrajectoryPoint:
    point = JointTrajectoryPoint(positions=q.tolist(), velocities=v.tolist())
    point.time_from_start.sec, point.time_from_start.nanosec = divmod(round(t * 1e9), 10**9)
    return point
