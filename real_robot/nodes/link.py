"""A bad network, a thief and a person, for rehearsals: node ``palmar_link`` between policy and bridge.

The policy's command topic is remapped to ``rehearsal/palmar/chunk``; this node passes its chunks on to the bridge,
late, shuffled or not at all.  It passes the tracker's poses on to the policy the same way, publishes what a person
tracker would see, and can be a second commander.  What it does stands in ``<run_dir>/link.json``, read anew when it
changes.
"""

from __future__ import annotations

import heapq
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from geometry_msgs.msg import Point, PoseStamped
from rclpy.lifecycle import LifecycleNode
from trajectory_msgs.msg import JointTrajectory
from visualization_msgs.msg import Marker, MarkerArray

from palmar.real_robot.config import RunConfig
from palmar.real_robot.nodes import spinning, topics
from palmar.safety.types import ConfigError

PREFIX = "rehearsal/"
"""Topics between the link and the policy."""
FILE = "link.json"
PEOPLE = ("nobody", "walks", "silent")
RATE = 500.0
"""How often the link looks for what is due [Hz]."""
TRACKER = 30.0
"""Messages of the person tracker per second [Hz]."""
FAR, NEAR, PACE = 2.5, 0.75, 1.6
"""A person walks from 2.5 m in front of the robot's base to 0.75 m, at the 1.6 m/s of ISO 13855 [m, m, m/s]."""
TALL, RADIUS = 1.8, 0.25
"""[m]"""


@dataclass(frozen=True)
class Link:
    """What the network and the people do."""

    delay: float = 0.0
    """Of every chunk [s]."""
    jitter: float = 0.0
    """Further delay, drawn evenly from 0 to this for each chunk [s]; shuffles them if larger than their period."""
    loss: float = 0.0
    """Share of chunks that never arrive."""
    poses: bool = True
    """Whether the tracker's poses reach the policy."""
    people: str = "nobody"
    """What the person tracker says: nobody, somebody walks in, or nothing at all."""
    thief: bool = False
    """Whether a second node publishes on the command topic."""

    def __post_init__(self) -> None:
        if min(self.delay, self.jitter) < 0 or not 0 <= self.loss <= 1:
            raise ConfigError(f"need delay and jitter >= 0 and 0 <= loss <= 1, got {self}")
        if self.people not in PEOPLE:
            raise ConfigError(f"people is {self.people!r}, accepted {list(PEOPLE)}")

    def write(self, folder: Path) -> None:
        """Let the node of this run do so from now on."""
        part = folder / f"{FILE}.part"
        part.write_text(json.dumps(asdict(self)))
        part.replace(folder / FILE)


def remaps(objects: Sequence[str]) -> list[str]:
    """Arguments that put the link between the bridge and the policy; they belong to the policy."""
    names = [topics.CHUNK, *(topics.pose(name) for name in objects)]
    return ["--ros-args", *(word for name in names for word in ("-r", f"{name}:={PREFIX}{name}"))]


def walk(since: float) -> tuple[float, float]:
    """Distance from the base [m] and speed towards it [m/s] of a person who began to walk so long ago [s]."""
    x = max(NEAR, FAR - PACE * since)
    return x, PACE if x > NEAR else 0.0


class LinkNode(LifecycleNode):
    """See the module.  It works in every state: a network has no lifecycle."""

    def __init__(self, run: RunConfig):
        super().__init__("palmar_link", namespace=run.namespace or None)
        self.run, self._path, self._seen = run, Path(run.run_dir) / FILE, -1
        self._link, self._walks = Link(), 0.0
        self._rng, self._order = np.random.default_rng(run.seed), count()
        self._due: list[tuple[float, int, Any, Any]] = []
        self._chunks = self.create_publisher(JointTrajectory, topics.CHUNK, topics.NEWEST)
        self.create_subscription(JointTrajectory, PREFIX + topics.CHUNK, self._on_chunk, topics.NEWEST)
        for name in run.objects:
            out = self.create_publisher(PoseStamped, PREFIX + topics.pose(name), 10)
            self.create_subscription(PoseStamped, topics.pose(name), self._on_pose(out), topics.SENSOR)
        self._people = self.create_publisher(MarkerArray, topics.PEOPLE, topics.NEWEST)
        self._thief: Any = None
        self.create_timer(1 / RATE, self._deliver)
        self.create_timer(1 / TRACKER, self._track)

    def _on_chunk(self, message: JointTrajectory) -> None:
        c = self._link
        if self._rng.random() < c.loss:
            return
        due = time.monotonic() + c.delay + c.jitter * self._rng.random()
        heapq.heappush(self._due, (due, next(self._order), self._chunks, message))
        self._deliver()

    def _on_pose(self, out: Any) -> Any:
        def handle(message: PoseStamped) -> None:
            if self._link.poses:
                out.publish(message)

        return handle

    def _deliver(self) -> None:
        self._heed()
        while self._due and self._due[0][0] <= time.monotonic():
            _, _, publisher, message = heapq.heappop(self._due)
            publisher.publish(message)

    def _heed(self) -> None:
        """Take a changed ``link.json``."""
        try:
            stamp = self._path.stat().st_mtime_ns
            if stamp == self._seen:
                return
            link = Link(**json.loads(self._path.read_text()))
        except FileNotFoundError:
            return
        if link.people == "walks" and self._link.people != "walks":
            self._walks = time.monotonic()
        if link.thief and self._thief is None:
            self._thief = self.create_publisher(JointTrajectory, topics.CHUNK, topics.NEWEST)
        elif not link.thief and self._thief is not None:
            self.destroy_publisher(self._thief)
            self._thief = None
        self._link, self._seen = link, stamp
        self.get_logger().info(f"from now on {link}")

    def _track(self) -> None:
        """What a person tracker sees."""
        if self._link.people != "silent":
            seen = [self._person(time.monotonic() - self._walks)] if self._link.people == "walks" else []
            self._people.publish(MarkerArray(markers=seen))

    def _person(self, since: float) -> Marker:
        x, speed = walk(since)
        ends = [Point(x=x, y=0.0, z=RADIUS - 0.8), Point(x=x, y=0.0, z=TALL - RADIUS - 0.8)]
        way = [ends[0], Point(x=x - speed, y=0.0, z=ends[0].z)]
        marker = Marker(type=Marker.LINE_LIST, action=Marker.ADD, points=[*ends, *way])
        marker.header.frame_id = "world"
        marker.header.stamp = self.get_clock().now().to_msg()
        marker.scale.x, marker.pose.orientation.w = 2 * RADIUS, 1.0
        return marker


def main(argv: Sequence[str] | None = None) -> int:
    """Run the link of ``--config FILE``."""
    return spinning.main("link", LinkNode, argv)


if __name__ == "__main__":
    raise SystemExit(main())
