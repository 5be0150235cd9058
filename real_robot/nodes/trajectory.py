"""From a JointTrajectory to a chunk: what is accepted on the command topic, without ROS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from palmar.real_robot.layout import MAX_CHUNK
from palmar.safety.types import Array, Chunk, CommandRefused

HORIZON = 5.0
"""Latest target of a chunk after its receipt [s]."""
IMPEDANCE = ("/stiffness", "/damping")
"""Columns named ``<joint>/stiffness`` [N m/rad] and ``<joint>/damping`` [N m s/rad] stand beside ``<joint>`` [rad]."""


def columns(names: Sequence[str], joints: Sequence[str]) -> list[int]:
    """Column of each joint in hardware order.

    Raises:
        CommandRefused: If the names are not exactly the joints, in any order.
    """
    if len(names) != len(joints) or set(names) != set(joints):
        strange, missing = sorted(set(names) - set(joints)), sorted(set(joints) - set(names))
        raise CommandRefused(
            f"names: {len(names)} joints, need {len(joints)}; unknown {strange[:5]}, missing {missing[:5]}"
        )
    where = {name: k for k, name in enumerate(names)}
    return [where[j] for j in joints]


def parse(message: Any, *, joints: Sequence[str], seq: int, received: float, horizon: float = HORIZON) -> Chunk:
    """The chunk in a ``trajectory_msgs/JointTrajectory``, or anything with its fields; see ``chunk``."""
    points = list(message.points)[: MAX_CHUNK + 1]
    after = [p.time_from_start.sec + 1e-9 * p.time_from_start.nanosec for p in points]
    positions = [p.positions for p in points]
    names = list(message.joint_names)
    return chunk(names, positions, after, joints=joints, seq=seq, received=received, horizon=horizon)


def chunk(
    names: Sequence[str],
    positions: Sequence[Sequence[float]],
    after: Sequence[float],
    *,
    joints: Sequence[str],
    seq: int,
    received: float,
    horizon: float = HORIZON,
) -> Chunk:
    """A chunk in hardware order with monotonic stamps.

    Args:
        names: Joint name per column, in any order; with stiffness and damping of every joint or of none.
        positions: Targets [rad], one row per point, and stiffness and damping where they are named.
        after: ``time_from_start`` of each point [s]; time starts at the receipt.
        joints: The robot's, in hardware order.
        seq: Strictly increasing number.
        received: Monotonic receive time [s].
        horizon: Latest target after the receipt that is accepted [s].

    Raises:
        CommandRefused: If names, shape, values or times do not fit.
    """
    if not 1 <= len(positions) <= MAX_CHUNK:
        raise CommandRefused(f"shape: {len(positions)} points, accepted 1 to {MAX_CHUNK}")
    soft = any(name.endswith(IMPEDANCE) for name in names)
    wanted = [joint + kind for kind in ("", *IMPEDANCE) for joint in joints] if soft else joints
    order = columns(names, wanted)
    lengths = {len(row) for row in positions}
    if lengths != {len(wanted)}:
        raise CommandRefused(f"shape: points with {sorted(lengths)} positions, need {len(wanted)}")
    rows = np.array([np.asarray(row, dtype=np.float64) for row in positions])[:, order]
    if not np.isfinite(rows).all():
        raise CommandRefused("non-finite: positions contain NaN or infinity")
    n = len(joints)
    if np.any(rows[:, n:] < 0):
        raise CommandRefused(f"negative: stiffness and damping must be >= 0, got {rows[:, n:].min()}")
    t, q = received + _times(np.asarray(after, dtype=np.float64), horizon), rows[:, :n]
    if not soft:
        return Chunk(q=q, t=t, seq=seq, received=received)
    return Chunk(q=q, t=t, seq=seq, received=received, stiffness=rows[:, n : 2 * n], damping=rows[:, 2 * n :])


def _times(after: Array, horizon: float) -> Array:
    if not (after[0] >= 0 and after[-1] <= horizon and np.all(np.diff(after) > 0)):
        raise CommandRefused(
            f"time_from_start: {after[:3].tolist()}...{after[-1]}, need increasing within 0 to {horizon} s"
        )
    return after


class Publishers:
    """Who may command: the first publisher seen alone; another one is named until it is gone."""

    def __init__(self, expected: str = ""):
        self.expected = expected
        """Full name of the only node that may command, '' for whoever comes first."""
        self._owner: tuple[int, ...] | None = None
        self.intruders: tuple[str, ...] = ()
        """Full names of the publishers that may not be there."""

    def update(self, endpoints: Sequence[tuple[str, tuple[int, ...]]]) -> bool:
        """Take the graph's publishers, (full node name, endpoint id); whether the owner changed.

        While two are present nobody is obeyed: who spoke cannot be told from the message.
        """
        ids = [gid for _, gid in endpoints]
        if self._owner not in ids:
            self._owner = None
        if self._owner is None and len(endpoints) == 1 and self._allowed(endpoints[0][0]):
            self._owner = ids[0]
            self.intruders = ()
            return True
        self.intruders = tuple(name for name, gid in endpoints if gid != self._owner)
        return False

    def _allowed(self, name: str) -> bool:
        return not self.expected or name == self.expected

    @property
    def obeyed(self) -> bool:
        """Whether there is an owner and nobody else."""
        return self._owner is not None and not self.intruders
