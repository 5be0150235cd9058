"""The command topic at the bridge: who may command, which chunks are accepted, and where they go."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from trajectory_msgs.msg import JointTrajectory

from palmar.real_robot.nodes import incoming, outgoing, stamps, topics, trajectory
from palmar.real_robot.nodes.incoming import Requests
from palmar.real_robot.nodes.refusals import Refusals
from palmar.real_robot.nodes.topics import NEWEST
from palmar.real_robot.shared import Block
from palmar.safety.types import CommandRefused


class ChunksIn:
    """Chunks of the one publisher that may command, on to the filter; while there is another, nobody is obeyed."""

    def __init__(
        self,
        node: Any,
        joints: Sequence[str],
        block: Block,
        requests: Requests,
        *,
        expected: str,
        horizon: float,
        counts: dict[str, int],
        refusals: Refusals,
        heeded: Callable[[], bool],
        changed: Callable[[], None],
    ):
        """A subscription on ``node``, which destroys it.

        Args:
            node: The bridge.
            joints: The robot's, in hardware order.
            block: The control process's ``chunk``, whose numbers go on where a predecessor ended.
            requests: Where a hold is asked for.
            expected: Name of the only node that may command, '' for whoever comes first.
            horizon: Latest target after the receipt that is accepted [s].
            counts: ``received`` and ``lost`` chunks, counted on.
            refusals: Likewise, by reason.
            heeded: Nothing is taken while it says no.
            changed: Called when another publisher has come or gone.
        """
        self._node, self._joints, self._block, self._requests = node, tuple(joints), block, requests
        self._horizon, self._counts, self._refusals, self._heeded = horizon, counts, refusals, heeded
        self._changed = changed
        self._commanders = trajectory.Publishers(_full(node, expected))
        previous = block.read()
        self._seq = int(previous["seq"]) if previous is not None else 0
        self._last_number = -1
        # rclpy passes the message's info to a callback of two arguments, though its annotation knows only one.
        take: Any = self._take
        self.subscription = node.create_subscription(JointTrajectory, topics.CHUNK, take, NEWEST)

    def look_around(self) -> None:
        """Hold while another publisher is on the topic, and say which."""
        infos = self._node.get_publishers_info_by_topic(topics.CHUNK)
        ends = [(f"{i.node_namespace.rstrip('/')}/{i.node_name}", tuple(i.endpoint_gid)) for i in infos]
        before = self._commanders.intruders
        if self._commanders.update(ends):
            self._last_number = -1
        intruders = self._commanders.intruders
        self._requests.hold("second_publisher" if intruders else "")
        if intruders == before:
            return
        if intruders:  # rclpy refuses two severities from one line
            self._node.get_logger().error(f"may not command on {topics.CHUNK}: {', '.join(intruders)}")
        else:
            self._node.get_logger().info(f"{topics.CHUNK} has one publisher again")
        self._changed()

    def status(self, hardware: str) -> DiagnosticStatus:
        """Who commands and what was refused."""
        intruders = self._commanders.intruders
        return outgoing.status(
            topics.named(self._node.get_namespace(), "palmar_command_topic"),
            DiagnosticStatus.ERROR if intruders else DiagnosticStatus.OK,
            f"refused: second publisher {', '.join(intruders)}" if intruders else "",
            {**self._counts, "passed": self._seq, **self._refusals.counts},
            hardware=hardware,
        )

    def _take(self, message: JointTrajectory, info: Any) -> None:
        """Check who spoke and what; pass it on with a monotonic time of receipt."""
        received, transit = time.monotonic(), (time.time_ns() - info["source_timestamp"]) * 1e-9
        if not self._heeded():
            return
        self._counts["received"] += 1
        self.look_around()
        if not self._commanders.obeyed:
            detail = f"publishers besides the owner: {self._commanders.intruders}"
            return self._refusals.note("second_publisher", detail)
        if not self._in_order(info):
            return
        try:
            accepted = trajectory.parse(
                message, joints=self._joints, seq=self._seq + 1, received=received, horizon=self._horizon
            )
        except CommandRefused as error:
            return self._refusals.note(str(error).split(":")[0], str(error))
        self._seq += 1
        sent, stamp = received - max(0.0, transit), stamps.seconds(message.header.stamp)
        seen = received - (1e-9 * self._node.get_clock().now().nanoseconds - stamp) if stamp else float("nan")
        incoming.write_chunk(self._block, accepted, sent=sent, seen=seen, lost=self._counts["lost"])

    def _in_order(self, info: Any) -> bool:
        """Whether it is newer than the last one; numbers that were left out are lost chunks."""
        published = info.get("publication_sequence_number")
        number = published or info["source_timestamp"]
        if number <= self._last_number:
            self._refusals.note("out_of_order", f"number {number} after {self._last_number}")
            return False
        if published and self._last_number > 0:
            self._counts["lost"] += number - self._last_number - 1
        self._last_number = number
        return True


def _full(node: Any, name: str) -> str:
    """A node's full name; one without a leading slash is in the namespace of ``node``."""
    return name if not name or name.startswith("/") else f"{node.get_namespace().rstrip('/')}/{name}"
