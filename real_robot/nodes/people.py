"""From a tracker's markers to capsules: what is accepted on the people topic, without ROS.

Each person or limb is one ``visualization_msgs/Marker`` of type LINE_LIST in frame ``world``: its first line is the
capsule's axis, its width the capsule's diameter, an optional second line the way it goes within one second.  An
empty array says that nobody is there.  A message that cannot be understood is refused as a whole: it then ages
until the tracker counts as lost, and lost means that a person is present.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from palmar.real_robot.layout import MAX_PEOPLE
from palmar.safety.types import Array, CommandRefused, People

FRAME = "world"
LINE_LIST, ADD = 5, 0
"""Type and action of a marker."""
WIDEST = 2.0
"""Largest diameter of a capsule [m]."""
FASTEST = 10.0
"""Largest speed of a person [m/s]."""


def people(markers: Sequence[Any], received: float) -> People:
    """Capsules of a MarkerArray's markers.

    Args:
        markers: The markers, or anything with their fields.
        received: Monotonic receive time [s].

    Raises:
        CommandRefused: If there are too many, or one is no line, in another frame, or no number.
    """
    if len(markers) > MAX_PEOPLE:
        raise CommandRefused(f"people: {len(markers)} capsules, accepted up to {MAX_PEOPLE}")
    h = len(markers)
    ends, radius, velocity = np.zeros((h, 2, 3)), np.zeros(h), np.zeros((h, 3))
    for k, marker in enumerate(markers):
        ends[k], radius[k], velocity[k] = _capsule(marker)
    return People(ends=ends, radius=radius, velocity=velocity, received=received)


def _capsule(marker: Any) -> tuple[Array, float, Array]:
    """Ends (2, 3) [m], radius [m] and velocity (3,) [m/s] of one marker."""
    name = f"people: marker {marker.id}"
    if marker.header.frame_id != FRAME or marker.type != LINE_LIST or marker.action != ADD:
        raise CommandRefused(
            f"{name}: frame {marker.header.frame_id!r}, type {marker.type}, action {marker.action}; "
            f"accepted {FRAME!r}, {LINE_LIST} (LINE_LIST), {ADD} (ADD)"
        )
    pose = marker.pose
    if [pose.position.x, pose.position.y, pose.position.z, abs(pose.orientation.w)] != [0.0, 0.0, 0.0, 1.0]:
        raise CommandRefused(f"{name}: its pose must be that of the frame: give the points in {FRAME!r}")
    points = np.array([[p.x, p.y, p.z] for p in marker.points], dtype=np.float64)
    if len(points) not in (2, 4):
        raise CommandRefused(f"{name}: {len(points)} points, need 2 (axis) or 4 (axis and way of one second)")
    width = float(marker.scale.x)
    velocity = points[3] - points[2] if len(points) == 4 else np.zeros(3)
    if not (np.isfinite(points).all() and 0 < width <= WIDEST and np.linalg.norm(velocity) <= FASTEST):
        raise CommandRefused(
            f"{name}: points {points.tolist()}, width {width}; need finite, 0 < width <= {WIDEST} m, "
            f"at most {FASTEST} m/s"
        )
    return points[:2], 0.5 * width, velocity
