"""Trajectories of a rigid body: generated, written to and read from files, and looked up by time.

A pose is a position [m] and a quaternion w-x-y-z, seven numbers.  Files are CSV with the header
``t,x,y,z,qw,qx,qy,qz`` or JSON ``{"t": [...], "pose": [[...], ...]}``; both are checked before anything moves.
"""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from palmar.safety.types import ConfigError

Array = np.ndarray
HEADER = ("t", "x", "y", "z", "qw", "qx", "qy", "qz")
LARGEST = 8_000_000
"""Size of a file that is still read [bytes]."""
FASTEST, FASTEST_TURN = 2.0, 8.0
"""Speeds above these are taken for broken data [m/s, rad/s]."""


@dataclass(frozen=True)
class Trajectory:
    """Poses at times; the body moves straight, and turns about one axis, from each to the next."""

    t: Array
    """From 0, strictly increasing [s], (N,), N >= 2."""
    pose: Array
    """(N, 7)."""

    def __post_init__(self) -> None:
        t, pose = self.t, self.pose
        if t.ndim != 1 or len(t) < 2 or pose.shape != (len(t), 7):
            raise ConfigError(f"need times (N,) and poses (N, 7) with N >= 2, got {t.shape} and {pose.shape}")
        if not (np.isfinite(t).all() and np.isfinite(pose).all()):
            raise ConfigError("a trajectory holds a number that is not finite")
        if t[0] != 0.0 or (np.diff(t) <= 0).any():
            raise ConfigError(f"times must start at 0 and increase, got {t[:3].tolist()} ... {t[-1]}")
        norm = np.linalg.norm(pose[:, 3:], axis=1)
        if np.abs(norm - 1.0).max() > 1e-3:
            raise ConfigError(f"quaternions must have length 1, got {norm.min():.4f} to {norm.max():.4f}")
        speed = np.linalg.norm(np.diff(pose[:, :3], axis=0), axis=1) / np.diff(t)
        turn = angle_between(pose[:-1, 3:], pose[1:, 3:]) / np.diff(t)
        for name, most, value in (("speed", FASTEST, speed), ("turn rate", FASTEST_TURN, turn)):
            if value.max() > most:
                k = int(value.argmax())
                raise ConfigError(f"{name} {value[k]:.2f} after t = {t[k]:.3f} s, at most {most} is accepted")

    @property
    def duration(self) -> float:
        """[s]."""
        return float(self.t[-1])

    def sampled(self, times: Array) -> Array:
        """Poses (*S, 7) at times (*S,) [s]; before the start and after the end it stands still."""
        times = np.clip(times, 0.0, self.t[-1])
        k = np.clip(np.searchsorted(self.t, times, side="right") - 1, 0, len(self.t) - 2)
        share = (times - self.t[k]) / (self.t[k + 1] - self.t[k])
        return between(self.pose[k], self.pose[k + 1], share)


def angle_between(a: Array, b: Array) -> Array:
    """Angle of the rotation from quaternions a to b (*S, 4) [rad], (*S,)."""
    return 2.0 * np.arccos(np.clip(np.abs(np.sum(a * b, axis=-1)), 0.0, 1.0))


def between(a: Array, b: Array, share: Array) -> Array:
    """Pose (*S, 7) at a share (*S,) of the way from a to b: straight, and about one axis at a constant rate."""
    share = np.asarray(share)[..., None]
    dot = np.sum(a[..., 3:] * b[..., 3:], axis=-1, keepdims=True)
    q1, dot = b[..., 3:] * np.where(dot < 0, -1.0, 1.0), np.minimum(np.abs(dot), 1.0)
    half = np.arccos(dot)
    safe = np.maximum(np.sin(half), 1e-9)
    near = half < 1e-6
    w0 = np.where(near, 1.0 - share, np.sin((1.0 - share) * half) / safe)
    w1 = np.where(near, share, np.sin(share * half) / safe)
    q = w0 * a[..., 3:] + w1 * q1
    q = q / np.linalg.norm(q, axis=-1, keepdims=True)
    return np.concatenate([a[..., :3] + share * (b[..., :3] - a[..., :3]), q], axis=-1)


def generate(
    rng: np.random.Generator,
    start: Array,
    *,
    lower: tuple[float, float, float],
    upper: tuple[float, float, float],
    turn: float,
    tilt: float,
    legs: int,
    leg: float,
    rate: float = 20.0,
) -> Trajectory:
    """A carry: straight up into the box, then from one random pose in it to the next, at rest in between.

    Args:
        rng: Of the poses.
        start: Pose at t = 0, on the table, (7,).
        lower: Lower corner of the box the body is carried in [m].
        upper: Upper corner.
        turn: Largest turn about z away from the start's [rad].
        tilt: Largest tilt [rad].
        legs: How many moves, >= 1; the first is the lift.
        leg: Duration of one [s].
        rate: Samples per second [Hz].

    Returns:
        Minimum-jerk moves (Flash and Hogan, 1985), ``legs * leg`` seconds long.

    Raises:
        ConfigError: If the box is empty, no leg is asked for, or a move would be too fast.
    """
    low, high = np.array(lower), np.array(upper)
    if not ((low < high).all() and legs >= 1 and leg > 0):
        raise ConfigError(f"need lower < upper, legs >= 1 and leg > 0, got {lower}, {upper}, {legs}, {leg}")
    stops = [np.asarray(start, dtype=np.float64)]
    up = stops[0].copy()
    up[2] = rng.uniform(low[2], high[2])
    stops.append(up)
    for _ in range(legs - 1):
        heading, lean = rng.uniform(-turn, turn), rng.uniform(0.0, tilt)
        about = rng.uniform(-math.pi, math.pi)
        axis = np.array([math.cos(about), math.sin(about), 0.0])
        q = product(axis_angle(axis, lean), product(axis_angle(np.array([0.0, 0.0, 1.0]), heading), stops[0][3:]))
        stops.append(np.concatenate([rng.uniform(low, high), q]))
    n = max(2, round(leg * rate))
    s = np.arange(1, n + 1) / n
    smooth = s**3 * (10.0 - 15.0 * s + 6.0 * s * s)
    poses = [stops[0][None]] + [between(a[None], b[None], smooth) for a, b in zip(stops[:-1], stops[1:], strict=True)]
    pose = np.concatenate(poses)
    return Trajectory(np.arange(len(pose)) * (leg / n), pose)


def axis_angle(axis: Array, angle: float) -> Array:
    """Quaternion (4,) of a rotation about a unit axis (3,) [rad]."""
    return np.concatenate([[math.cos(angle / 2)], math.sin(angle / 2) * axis])


def yawed(yaw: Array) -> Array:
    """Quaternions (..., 4) of turns about z by yaw (...) [rad]."""
    zero = np.zeros_like(yaw)
    return np.stack([np.cos(yaw / 2), zero, zero, np.sin(yaw / 2)], axis=-1)


def product(a: Array, b: Array) -> Array:
    """Quaternion of rotation b followed by a, (*S, 4)."""
    p, x, y, z = np.moveaxis(a, -1, 0)
    q, i, j, k = np.moveaxis(b, -1, 0)
    parts = (
        p * q - (x * i + y * j + z * k), p * i + q * x + (y * k - z * j), p * j + q * y + (z * i - x * k),
        p * k + q * z + (x * j - y * i),
    )  # fmt: skip
    return np.stack(parts, axis=-1)


def write(path: Path, trajectory: Trajectory) -> None:
    """Write CSV or JSON, by the name's ending; numbers keep every digit.

    Raises:
        ConfigError: If the ending is another.
    """
    path = Path(path)
    if _ending(path) == ".json":
        path.write_text(json.dumps({"t": trajectory.t.tolist(), "pose": trajectory.pose.tolist()}))
        return
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        for t, pose in zip(trajectory.t.tolist(), trajectory.pose.tolist(), strict=True):
            writer.writerow([t, *pose])


def read(path: Path) -> Trajectory:
    """The trajectory in a CSV or JSON file.

    Raises:
        ConfigError: If there is no such file, it is too large, not of its format, or no trajectory.
    """
    path = Path(path)
    ending = _ending(path)
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise ConfigError(f"{path.name} has {size} bytes, at most {LARGEST} are read")
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read trajectory {path}: {error}") from error
    try:
        t, pose = _from_json(text) if ending == ".json" else _from_csv(text)
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path.name} is no trajectory: {error}") from error
    return Trajectory(t, pose)


def _ending(path: Path) -> str:
    if path.suffix not in (".csv", ".json"):
        raise ConfigError(f"trajectory {path.name!r}: accepted endings are ['.csv', '.json']")
    return path.suffix


def _from_json(text: str) -> tuple[Array, Array]:
    raw = json.loads(text)
    if not isinstance(raw, dict) or set(raw) != {"t", "pose"}:
        raise ConfigError(f"need the keys ['pose', 't'], got {sorted(raw) if isinstance(raw, dict) else raw!r}")
    return np.array(raw["t"], dtype=np.float64), np.array(raw["pose"], dtype=np.float64)


def _from_csv(text: str) -> tuple[Array, Array]:
    rows = list(csv.reader(text.splitlines()))
    if not rows or tuple(rows[0]) != HEADER:
        raise ConfigError(f"header {rows[0] if rows else []}, need {list(HEADER)}")
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(HEADER):
            raise ConfigError(f"line {number} has {len(row)} numbers, need {len(HEADER)}")
    table = np.array(rows[1:], dtype=np.float64).reshape(-1, len(HEADER))
    return table[:, 0], table[:, 1:]
