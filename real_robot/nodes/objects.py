"""Tracked objects at the bridge: out to topics from simulated hardware's tracker, in from topics on real hardware."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped

from palmar.real_robot import shared
from palmar.real_robot.nodes import incoming, outgoing, poses, topics
from palmar.real_robot.nodes.refusals import Refusals
from palmar.real_robot.nodes.stamps import SightRefused
from palmar.real_robot.nodes.topics import SENSOR


class ObjectsOut:
    """What the twin's tracker found, once per frame."""

    def __init__(self, node: Any, names: Sequence[str], block: shared.Block):
        """Publishers on ``node``, which destroys them; ``block`` is the twin's ``objects``."""
        self._clock, self._block = node.get_clock(), block
        self.publishers = [node.create_lifecycle_publisher(PoseStamped, topics.pose(name), 10) for name in names]
        self._seen = np.zeros(len(names), np.int64)

    def publish(self) -> None:
        """Whatever is new."""
        try:
            o = self._block.read()
        except shared.TornRead:
            return
        if o is None:
            return
        for k in np.flatnonzero(o["seq"] != self._seen):
            at = outgoing.stamp(self._clock, float(o["t"][k]))
            self.publishers[k].publish(outgoing.pose(o["position"][k], o["quaternion"][k], at))
        self._seen = o["seq"].copy()


class ObjectsIn:
    """What a tracker says, on to the filter at the monotonic time of its stamp; refusals are counted."""

    def __init__(
        self,
        node: Any,
        names: Sequence[str],
        block: shared.Block,
        *,
        oldest: float,
        refusals: Refusals,
        heeded: Callable[[], bool],
    ):
        """Subscriptions on ``node``, which destroys them; ``block`` is the control process's ``objects``.

        Nothing is taken while ``heeded`` says no; poses older than ``oldest`` [s] are refused.
        """
        self._clock, self._block, self._refusals, self._heeded = node.get_clock(), block, refusals, heeded
        self._tracked = poses.Tracked(names, oldest=oldest)
        self.subscriptions = [
            node.create_subscription(PoseStamped, topics.pose(name), self._take(k), SENSOR)
            for k, name in enumerate(names)
        ]

    def _take(self, k: int) -> Callable[[PoseStamped], None]:
        def handle(message: PoseStamped) -> None:
            if not self._heeded():
                return
            now = 1e-9 * self._clock.now().nanoseconds
            try:
                found = self._tracked.take(k, message, now)
            except SightRefused as error:
                return self._refusals.note(f"object_{error.reason}", str(error))
            incoming.write_object(self._block, k, found, time.monotonic() - max(now - found.stamp, 0.0))

        return handle
