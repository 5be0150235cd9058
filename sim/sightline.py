"""Lines of sight past a robot: its capsules as a camera meets them, and distances of segments.  World frame [m]."""

from __future__ import annotations

import numpy as np

from palmar.sim.kinematics import Hand

Array = np.ndarray

FINGER, WRIST, ARM = 0.025, 0.06, 0.065
"""Radii of what hides things: palm to each fingertip, palm to wrist, wrist to shoulder [m]."""
WRIST_UP, SHOULDER = (0.0, 0.0, 0.22), (0.0, 0.0, 0.60)
"""The wrist above the palm, as the hand points down, and where the upper arm ends [m]."""


def robot(hand: Hand) -> tuple[Array, Array]:
    """Ends (B, 6, 2, 3) and radii (6,) of the capsules that stand for an arm with a hand that points down."""
    palm, wrist = hand.palm, hand.palm + np.array(WRIST_UP)
    fingers = np.stack([np.repeat(palm[:, None], 4, 1), hand.tips], 2)
    rest = np.stack([np.stack([palm, wrist], 1), np.stack([wrist, np.broadcast_to(SHOULDER, palm.shape)], 1)], 1)
    return np.concatenate([fingers, rest], 1), np.array([FINGER] * 4 + [WRIST, ARM])


def clear(camera: tuple[float, float, float], points: Array, hand: Hand) -> Array:
    """Whether the robot leaves the line from a camera to points (B, p, 3) free, (B, p) bool."""
    ends, radius = robot(hand)
    near = segment_distance(np.array(camera), points[:, :, None], ends[:, None, :, 0], ends[:, None, :, 1])
    return np.asarray((near > radius).all(-1))


def segment_distance(a: Array, b: Array, c: Array, d: Array) -> Array:
    """Distance of segments ab and cd [m], (...), of ends (..., 3) that broadcast; points are short segments.

    Source: Ericson, "Real-Time Collision Detection", 5.1.9.
    """
    u, v, w = b - a, d - c, a - c
    uu, vv, uv = np.sum(u * u, -1), np.sum(v * v, -1), np.sum(u * v, -1)
    uw, vw = np.sum(u * w, -1), np.sum(v * w, -1)
    s = np.clip((uv * vw - uw * vv) / np.maximum(uu * vv - uv * uv, 1e-12), 0, 1)
    t = np.clip((uv * s + vw) / np.maximum(vv, 1e-12), 0, 1)
    s = np.clip((uv * t - uw) / np.maximum(uu, 1e-12), 0, 1)
    gap = w + s[..., None] * u - t[..., None] * v
    return np.asarray(np.sqrt(np.sum(gap * gap, axis=-1)))
