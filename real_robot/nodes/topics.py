"""Names and qualities of service of every topic, in one place; docs/nodes.md is the same as a table.

Names are relative: they live in the namespace of the run, so two robots share one ROS domain and do not hear each
other.  Only ``/diagnostics`` is absolute, where ROS tools look for it; its entries carry the namespace instead.
"""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data

CHUNK = "palmar/chunk"
EXECUTED = "palmar/executed"
STATE = "palmar/state"
PEOPLE = "palmar/people"
JOINT_STATES = "joint_states"
DIAGNOSTICS = "/diagnostics"

NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
"""Commands and requests: the newest wins, none is lost silently."""
LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
"""States that change rarely: who comes late gets the last one."""
SENSOR = qos_profile_sensor_data
"""Poses: best effort, so it matches reliable and best-effort publishers alike."""
READING = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT, history=HistoryPolicy.KEEP_LAST)
"""Readings of joints: the same, and a listener that is late gets the newest only."""
PICTURE = QoSProfile(depth=2, reliability=ReliabilityPolicy.BEST_EFFORT, history=HistoryPolicy.KEEP_LAST)
"""Pictures: best effort, nothing queues up."""


def pose(name: str) -> str:
    """Where the tracked pose of object ``name`` comes, ``geometry_msgs/PoseStamped``."""
    return f"objects/{name}/pose"


def picture(camera: str, kind: str, *, compressed: bool = False) -> str:
    """Where pictures of ``camera`` come, as image_transport names them; ``kind`` is ``color`` or ``depth``."""
    return f"cameras/{camera}/{kind}/image" + ("/compressed" if compressed else "")


def info(camera: str, kind: str) -> str:
    """Where the intrinsics of ``camera`` come, ``sensor_msgs/CameraInfo``."""
    return f"cameras/{camera}/{kind}/camera_info"


def named(namespace: str, status: str) -> str:
    """Name of an entry in ``/diagnostics``: ``status``, after the robot's namespace if it has one."""
    return f"{namespace.strip('/')}/{status}" if namespace.strip("/") else status
