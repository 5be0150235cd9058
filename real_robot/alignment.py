"""The first move of an episode: a policy whose first command is far from where the robot stands.

The filter would go there as fast as its limits let it.  Here the chunk is exchanged for a slow straight line in joint
space to the policy's first target, renewed with every chunk, until the policy's own chunk starts near enough.  The
filter gets that line as it would get any chunk, and keeps the last word.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from palmar.safety.types import Chunk, CommandRefused, ConfigError

Array = np.ndarray
MODES = ("glide", "refuse")
HORIZON, POINTS = 0.4, 8
"""Length of a line [s], longer than a chunk is followed, and its targets."""


@dataclass(frozen=True)
class GlideConfig:
    """When a first command is far, and how the robot goes there."""

    near: float = 0.25
    """Distance of a joint from the policy's first target that needs no glide [rad]: what a policy may ask per step."""
    arrived: float = 0.05
    """Distance at which a glide ends [rad]."""
    furthest: float = 1.2
    """Distance from which a first command is refused [rad]: a policy for another pose, robot or order of joints."""
    speed: float = 0.3
    """Of the fastest joint on the way [rad/s]."""

    def __post_init__(self) -> None:
        if not (0.02 <= self.arrived <= self.near < self.furthest <= 1.5 and 0.0 < self.speed <= 1.0):
            raise ConfigError(f"need 0.02 <= arrived <= near < furthest <= 1.5 and 0 < speed <= 1, got {self}")


class Alignment:
    """Exchanges the chunks of one robot until it stands where the policy begins."""

    def __init__(self, joints: tuple[str, ...], config: GlideConfig, *, mode: str = "glide"):
        """For joints in hardware order; ``mode`` is one of ``MODES``.

        Raises:
            ConfigError: If it is another one.
        """
        if mode not in MODES:
            raise ConfigError(f"alignment is {mode!r}, accepted {list(MODES)}")
        self.joints, self.config, self.mode = joints, config, mode
        self.gliding = False
        """Whether the last chunk was exchanged."""

    def take(self, chunk: Chunk, u: Array, now: float, *, running: bool) -> Chunk:
        """The chunk to offer to the filter in place of ``chunk``.

        Args:
            chunk: The policy's, targets (H, n) in hardware order.
            u: Where the filter's reference is [rad], (n,); it rests where the robot does.
            now: Monotonic time [s].
            running: Whether the robot follows the policy already: then a chunk is not the first one.

        Raises:
            CommandRefused: If the first target is farther than ``furthest``, or farther than ``near`` where the mode
                is ``refuse``.
        """
        if running and not self.gliding:
            return chunk
        near = self.config.arrived if self.gliding and running else self.config.near
        self.gliding = False
        distance, joint = first_distance(chunk, u, now)
        if not distance > near:
            return chunk  # what is not finite the filter refuses
        most = self.config.near if self.mode == "refuse" else self.config.furthest
        if distance > most:
            raise CommandRefused(
                f"alignment: {self.joints[joint]} {distance:.2f} rad from first command, accepted {most}"
            )
        self.gliding = True
        return line(chunk, u, now, speed=self.config.speed)


def first(chunk: Chunk, now: float) -> int:
    """Index of the first target that is still to come, the last one where none is."""
    return min(int(np.searchsorted(chunk.t, now, side="right")), len(chunk.t) - 1)


def first_distance(chunk: Chunk, u: Array, now: float) -> tuple[float, int]:
    """Largest distance of a joint of ``u`` (n,) from the first target still to come [rad], and which joint.

    A chunk whose shape is wrong has none, nan: the filter says what is wrong with it.
    """
    q, t = np.asarray(chunk.q), np.asarray(chunk.t)
    if q.ndim != 2 or q.shape[1:] != u.shape or t.shape != q.shape[:1] or not len(t):
        return float("nan"), 0
    away = np.abs(q[first(chunk, now)] - u)
    joint = int(away.argmax())
    return float(away[joint]), joint


def line(chunk: Chunk, u: Array, now: float, *, speed: float) -> Chunk:
    """From ``u`` straight towards the chunk's first target, the fastest joint at ``speed`` [rad/s].

    Number and time of receipt stay the policy's, so that a policy that dies on the way ends the motion; stiffness and
    damping are those of the first target.
    """
    at = first(chunk, now)
    way = np.asarray(chunk.q)[at] - u
    ahead = HORIZON * np.arange(1, POINTS + 1) / POINTS
    share = np.minimum(1.0, ahead * speed / max(float(np.abs(way).max()), 1e-9))
    gains = {
        name: None if value is None else np.tile(np.asarray(value)[at], (POINTS, 1))
        for name, value in (("stiffness", chunk.stiffness), ("damping", chunk.damping))
    }
    return replace(chunk, q=u + share[:, None] * way, t=now + ahead, **gains)
