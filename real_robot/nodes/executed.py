"""What was sent where the filter changed a chunk: told to the policy, so that its next plan starts from there.

The bridge samples the control process's state and, from the first edited tick of a chunk on, publishes what has
been sent since that chunk came as a ``trajectory_msgs/JointTrajectory``: stamped with the first sample's time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from palmar.real_robot.layout import MAX_CHUNK
from palmar.real_robot.nodes.trajectory import columns
from palmar.safety.types import Array, CommandRefused


@dataclass(frozen=True)
class Executed:
    """Commands that were sent since the last chunk came, which differ from it."""

    t: Array
    """Monotonic times [s], (K,), increasing."""
    q: Array
    """Commanded positions [rad], (K, n), hardware order."""
    qd: Array
    """Commanded velocities [rad/s], (K, n)."""


@runtime_checkable
class Listener(Protocol):
    """A policy that plans from what was executed, such as a sampler that starts at its last plan."""

    def executed(self, carry: Any, sent: Executed) -> Any:
        """The policy's memory, told what was sent."""
        ...


class Sent:
    """The newest MAX_CHUNK samples of what was sent since the chunk in use came."""

    def __init__(self) -> None:
        self._chunk = -1
        self._samples: deque[tuple[float, Array, Array]] = deque(maxlen=MAX_CHUNK)

    def take(self, s: Any) -> Executed | None:
        """Take a record of the control process's state; what to tell, None while its chunk was not edited."""
        if int(s["chunk"]) != self._chunk:
            self._chunk = int(s["chunk"])
            self._samples.clear()
        if not self._samples or float(s["t"]) > self._samples[-1][0]:
            self._samples.append((float(s["t"]), s["u"].copy(), s["ud"].copy()))
        if self._chunk < 0 or int(s["edited_seq"]) != self._chunk:
            return None
        t, q, qd = zip(*self._samples, strict=True)
        return Executed(np.array(t), np.array(q), np.array(qd))


def message(joints: Sequence[str], sent: Executed, stamp: Any) -> JointTrajectory:
    """As a message; ``stamp`` is the time of the first sample on ROS's clock."""
    points = []
    for t, q, qd in zip(sent.t, sent.q, sent.qd, strict=True):
        point = JointTrajectoryPoint(positions=q.tolist(), velocities=qd.tolist())
        nanoseconds = round((t - sent.t[0]) * 1e9)
        point.time_from_start.sec, point.time_from_start.nanosec = divmod(nanoseconds, 10**9)
        points.append(point)
    out = JointTrajectory(joint_names=list(joints), points=points)
    out.header.stamp = stamp
    return out


def parse(told: Any, joints: Sequence[str], age: float, now: float) -> Executed:
    """The inverse of ``message``.

    Args:
        told: The message.
        joints: The robot's, in hardware order.
        age: Time since the message's stamp on ROS's clock [s].
        now: Monotonic time [s].

    Raises:
        CommandRefused: If names, shapes or values do not fit.
    """
    order = columns(list(told.joint_names), joints)
    after = np.array([p.time_from_start.sec + 1e-9 * p.time_from_start.nanosec for p in told.points])
    q, qd = ([list(getattr(p, k)) for p in told.points] for k in ("positions", "velocities"))
    if not q or {len(row) for row in q + qd} != {len(joints)}:
        raise CommandRefused(f"shape: executed points {[len(row) for row in q + qd][:4]}, need {len(joints)} each")
    q, qd = np.array(q)[:, order], np.array(qd)[:, order]
    if not (np.isfinite(q).all() and np.isfinite(qd).all()):
        raise CommandRefused("non-finite: executed positions or velocities contain NaN or infinity")
    return Executed(now - age + after, q, qd)
