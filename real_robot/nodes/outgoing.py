"""Messages that the nodes send: joint states, poses and diagnostics, from records of the shared memory."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import JointState

from palmar.real_robot.layout import STATES
from palmar.safety.types import Array, State

LEVELS = {State.RUN: DiagnosticStatus.OK, State.HOLD: DiagnosticStatus.WARN}


def stamp(clock: Any, t: float) -> Time:
    """Monotonic time ``t`` [s] on ROS's clock."""
    wall = clock.now().nanoseconds - int((time.monotonic() - t) * 1e9)
    sec, nanosec = divmod(wall, 10**9)
    return Time(sec=sec, nanosec=nanosec)


def joint_state(joints: Sequence[str], s: Any, at: Time) -> JointState:
    """The joints in a record of block ``state``."""
    message = JointState(name=list(joints))
    message.header.stamp = at
    message.position, message.velocity, message.effort = (s[k].tolist() for k in ("q", "qd", "tau"))
    return message


def pose(position: Array, quaternion: Array, at: Time) -> PoseStamped:
    """A pose in the world: [m] (3,), w-x-y-z (4,)."""
    message = PoseStamped()
    message.header.stamp, message.header.frame_id = at, "world"
    p, o = message.pose.position, message.pose.orientation
    p.x, p.y, p.z = map(float, position)
    o.w, o.x, o.y, o.z = map(float, quaternion)
    return message


def filter_status(s: Any, *, name: str, robot: str, mode: str) -> DiagnosticStatus:
    """A record of block ``state`` as one status."""
    state, reason = STATES[int(s["state"])], s["reason"].decode()
    values = {k: int(s[k]) for k in ("missed", "chunks", "refused", "driver_errors", "dropped", "beat")}
    values |= {"refusal": s["refusal"].decode(), "mode": mode, "realtime": bool(s["realtime"])}
    values |= {"foreseen": s["foreseen"].decode(), "chunk": int(s["chunk"]), "edited_chunk": int(s["edited_seq"])}
    for key, field in (("foreseen_in_s", "foreseen_t"), ("edited_since_s", "edited_from")):
        if np.isfinite(s[field]):
            values[key] = round(abs(float(s[field]) - float(s["t"])), 4)
    level = LEVELS.get(state, DiagnosticStatus.ERROR)
    return status(name, level, f"{state.value} {reason}".strip(), values, hardware=robot)


def status(name: str, level: bytes, message: str, values: Mapping[str, Any], *, hardware: str = "") -> DiagnosticStatus:
    """One entry of ``/diagnostics``."""
    pairs = [KeyValue(key=k, value=str(v)) for k, v in values.items()]
    return DiagnosticStatus(level=level, name=name, message=message, hardware_id=hardware, values=pairs)
