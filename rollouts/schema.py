"""Topics, message types and layout of a rollout file: MCAP with ROS 2's standard messages.

Every message is CDR with its ``ros2msg`` definition in the file, so PlotJuggler, Foxglove and rosbags open a
rollout without Palmar.  ``Float64MultiArray`` carries what ROS 2 has no standard message for; the order of
its numbers is written here and in docs/rollouts.md.
"""

from __future__ import annotations

from functools import cache

from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

from palmar.safety.types import State

FORMAT_VERSION = 1
"""Raised whenever an older Palmar could misread a newer file."""

METADATA = "palmar"
"""Name of the MCAP metadata record written first."""
RESULT = "palmar_result"
"""Name of the MCAP metadata record written last: a file without it was cut off."""

JOINT_STATES = "/joint_states"
"""Measured q, qd, tau (JointState)."""
CHUNK = "/palmar/chunk"
"""Chunks as received (JointTrajectory); the MCAP sequence is the chunk's, log time is the time of receipt."""
INTENDED = "/palmar/intended"
"""What the policy wanted at this tick (JointState, position)."""
COMMAND = "/palmar/command"
"""What was sent: u, ud (JointState)."""
DERIVATIVES = "/palmar/command_derivatives"
"""The rest of what was sent: udd (n), uddd (n)."""
VERDICT = "/palmar/verdict"
"""state code, changed, edit, compute_s; then a margin per constraint (K); then active per constraint (K)."""
EVENTS = "/palmar/events"
"""State changes, refusals and whatever else happened (DiagnosticArray)."""
PHYSICS = "/palmar/physics"
"""Physics step index and the actuator controls applied during that step (1 + nu)."""
SERVO = "/palmar/servo"
"""Physics step index; stiffness (n) and damping (n) of the joints' servos from that step on.  Before the first: the
model's own."""
STATE = "/palmar/state"
"""Number of physics steps taken, then qpos (nq) and qvel (nv) after them."""
IMPEDANCE = "/palmar/command_impedance"
"""What was sent beside the command of the same stamp: stiffness (n), damping (n).  Absent: position control."""
CONTACT = "/palmar/contact"
"""Force of each of CONTACT_PAIRS [N] (p)."""

JOINT_STATE_TYPE = "sensor_msgs/msg/JointState"
TRAJECTORY_TYPE = "trajectory_msgs/msg/JointTrajectory"
POSE_TYPE = "geometry_msgs/msg/PoseStamped"
NUMBERS_TYPE = "std_msgs/msg/Float64MultiArray"
EVENTS_TYPE = "diagnostic_msgs/msg/DiagnosticArray"

TYPES = {
    JOINT_STATES: JOINT_STATE_TYPE,
    CHUNK: TRAJECTORY_TYPE,
    INTENDED: JOINT_STATE_TYPE,
    COMMAND: JOINT_STATE_TYPE,
    DERIVATIVES: NUMBERS_TYPE,
    VERDICT: NUMBERS_TYPE,
    EVENTS: EVENTS_TYPE,
    PHYSICS: NUMBERS_TYPE,
    SERVO: NUMBERS_TYPE,
    IMPEDANCE: NUMBERS_TYPE,
    STATE: NUMBERS_TYPE,
    CONTACT: NUMBERS_TYPE,
}
"""Message type of every topic but the objects'."""

STIFFNESS, DAMPING = "{}/stiffness", "{}/damping"
"""Names of a chunk's columns that follow the joints' [N m/rad], [N m s/rad]."""
STATE_CODES = tuple(State)
"""The filter's state as a number: index in this tuple."""
VERDICT_HEAD = 4
"""Numbers before the margins in a verdict."""

MODEL_XML, ROBOT_JSON, CONSTRAINTS_YAML, STATE0 = "model.xml", "robot.json", "constraints.yaml", "state0.f64"
ASSET_PREFIX = "asset:"
"""Attachments with this prefix are files ``model.xml`` names."""


def object_topic(name: str) -> str:
    """Topic of an object's pose."""
    return f"/objects/{name}/pose"


def object_name(topic: str) -> str | None:
    """The object a topic speaks about, if any."""
    parts = topic.split("/")
    return parts[2] if len(parts) == 4 and parts[1] == "objects" and parts[3] == "pose" else None


@cache
def typestore() -> Typestore:
    """ROS 2 Jazzy's message types; built once per process (70 ms)."""
    return get_typestore(Stores.ROS2_JAZZY)
