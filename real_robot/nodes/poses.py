"""From a tracker's messages to object poses: what is accepted on ``objects/<name>/pose``, without ROS.

Each object has a topic of its own, each pose the stamp of the picture that it was found in.  A pose that cannot be
trusted is refused with a name and is as if it had not come: the last good one ages, and too old a one is not acted on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from palmar.real_robot.nodes import stamps
from palmar.real_robot.nodes.stamps import SightRefused
from palmar.safety.types import Array

FRAME = "world"
UNIT = 1e-3
"""Largest difference of a quaternion's length from 1."""
REACH = 5.0
"""A table-top object is not farther from the arm's base [m]."""
OLDEST = 0.5
"""Default of the oldest pose that is acted on [s]: seven frames of a tracker with 15 Hz."""


@dataclass(frozen=True)
class Pose:
    """One object as tracked."""

    stamp: float
    """On ROS's clock [s]."""
    position: Array
    """[m], world frame, (3,)."""
    quaternion: Array
    """w-x-y-z, (4,)."""


def pose(message: Any, name: str) -> Pose:
    """The pose in a ``geometry_msgs/PoseStamped``, or anything with its fields.

    Raises:
        SightRefused: If its frame is not ``world`` (reason ``frame``), a number is not finite (``non-finite``),
            it is out of reach (``position``) or the quaternion is not of length 1 (``quaternion``).
    """
    if message.header.frame_id != FRAME:
        raise SightRefused(f"frame: {name} is given in {message.header.frame_id!r}, accepted {FRAME!r}")
    p, o = message.pose.position, message.pose.orientation
    position, quaternion = np.array([p.x, p.y, p.z]), np.array([o.w, o.x, o.y, o.z])
    if not (np.isfinite(position).all() and np.isfinite(quaternion).all()):
        raise SightRefused(f"non-finite: {name} is at {position.tolist()}, turned by {quaternion.tolist()}")
    if np.abs(position).max() > REACH:
        raise SightRefused(f"position: {name} is at {position.tolist()} m, accepted within {REACH} m")
    length = float(np.linalg.norm(quaternion))
    if abs(length - 1.0) > UNIT:
        raise SightRefused(f"quaternion: that of {name} has length {length:.4f}, accepted 1 within {UNIT}")
    return Pose(stamps.seconds(message.header.stamp), position, quaternion / length)


class Tracked:
    """The newest pose of each of m objects."""

    def __init__(self, names: Sequence[str], *, oldest: float = OLDEST):
        """Nothing was seen yet; ``oldest`` is the largest age that is acted on [s]."""
        self.names, self.oldest = tuple(names), oldest
        self.seen: list[Pose | None] = [None] * len(self.names)

    def take(self, k: int, message: Any, now: float) -> Pose:
        """Take a message about object k at time ``now`` on ROS's clock [s].

        Raises:
            SightRefused: If ``pose`` refuses it, it is old or in the future, or not after the last one.
        """
        name, last = self.names[k], self.seen[k]
        new = pose(message, name)
        stamps.age(name, new.stamp, now, oldest=self.oldest)
        stamps.after(name, new.stamp, last.stamp if last else None)
        self.seen[k] = new
        return new

    def look(self, now: float) -> tuple[Array, Array]:
        """Positions (m, 3) and quaternions (m, 4) to act on at time ``now`` on ROS's clock [s].

        Raises:
            SightRefused: If an object was never seen (``unseen``) or its last pose is old (``old``).
        """
        for name, found in zip(self.names, self.seen, strict=True):
            if found is None:
                raise SightRefused(f"unseen: no pose of {name!r} yet")
            stamps.age(name, found.stamp, now, oldest=self.oldest)
        poses = [p for p in self.seen if p is not None]
        position = np.array([p.position for p in poses]).reshape(-1, 3)
        return position, np.array([p.quaternion for p in poses]).reshape(-1, 4)

    def stamps(self) -> list[float]:
        """Stamps of the poses seen, on ROS's clock [s]."""
        return [p.stamp for p in self.seen if p is not None]

    def forget(self) -> None:
        """As if nothing had been seen: an episode begins."""
        self.seen = [None] * len(self.names)
