"""A rollout in memory: one frozen value with an array per recorded quantity."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from palmar.rollouts.header import RolloutHeader
from palmar.safety.types import CONTACT_PAIRS, Chunk, Measurement, RolloutRefused

Array = np.ndarray

Clearance = Callable[[Array], tuple[Array, Array, Array]]
"""From q (T, n) to clearance_self (T,) [m], clearance_table (T,) [m] and palm_position (T, 3) [m]."""


@dataclass(frozen=True)
class Joints:
    """Measured joints; T rows."""

    t: Array
    q: Array
    qd: Array
    tau: Array


@dataclass(frozen=True)
class Intended:
    """What the policy asked for at each tick."""

    t: Array
    q: Array


@dataclass(frozen=True)
class Commands:
    """What was sent."""

    t: Array
    u: Array
    ud: Array
    udd: Array
    uddd: Array


@dataclass(frozen=True)
class Poses:
    """Poses of one object, world frame, w-x-y-z."""

    t: Array
    position: Array
    quaternion: Array


@dataclass(frozen=True)
class Verdicts:
    """What the filter said; K constraints in the order of the constraint file."""

    t: Array
    state: Array
    """Index in ``schema.STATE_CODES``, (T,)."""
    changed: Array
    edit: Array
    compute_s: Array
    margins: Array
    """(T, K); NaN where the filter evaluated none."""
    active: Array
    """(T, K) bool."""
    reason: tuple[str, ...]


@dataclass(frozen=True)
class Event:
    """One entry of the log."""

    t: float
    level: str
    name: str
    detail: str
    values: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Physics:
    """Controls applied during each physics step."""

    step: Array
    ctrl: Array


@dataclass(frozen=True)
class Impedances:
    """Stiffness [N m/rad] and damping [N m s/rad] sent with commands, (T, n); no rows under position control."""

    t: Array
    stiffness: Array
    damping: Array


@dataclass(frozen=True)
class Servos:
    """Stiffness and damping of the joints' servos, each row from physics step ``step`` on, (S, n)."""

    step: Array
    stiffness: Array
    damping: Array


@dataclass(frozen=True)
class States:
    """Physics state after so many steps."""

    step: Array
    qpos: Array
    qvel: Array


@dataclass(frozen=True)
class Contacts:
    """Forces of CONTACT_PAIRS."""

    t: Array
    force: Array


@dataclass(frozen=True)
class Rollout:
    """One recorded run.  Times are the run's own clock [s], ``header.t0`` onwards."""

    path: Path
    header: RolloutHeader
    complete: bool
    """Whether the recorder closed the file itself."""
    damage: str
    """What is wrong with a recovered file, '' otherwise."""
    result: Mapping[str, Any]
    """What ``RolloutWriter.finish`` said; empty where the recorder was killed."""
    other_topics: tuple[str, ...]
    """Topics of the file this version does not read."""
    joints: Joints
    intended: Intended
    command: Commands
    chunks: tuple[Chunk, ...]
    objects: Mapping[str, Poses]
    verdicts: Verdicts
    events: tuple[Event, ...]
    physics: Physics
    states: States
    contact: Contacts
    impedance: Impedances
    servos: Servos

    @property
    def success(self) -> bool | None:
        """Whether the task succeeded; None where nobody said."""
        return self.result.get("success")

    @property
    def begin(self) -> float:
        """Time of the first measurement [s]: zero of every plot, table and video."""
        return float(self.joints.t[0]) if len(self.joints.t) else self.header.t0

    @property
    def duration(self) -> float:
        """Time from the first to the last measurement [s]."""
        return float(self.joints.t[-1] - self.joints.t[0]) if len(self.joints.t) else 0.0

    def measurements(self, clearance: Clearance, *, regions: int = 0) -> Measurement:
        """The recorded measurements, time first: (T, ...).

        One sample per joint state; commands and object poses are the newest at or before it, contact forces
        the strongest since the sample before: forces may be recorded faster, and no peak may fall between.
        Samples before the first value of a recorded topic are left out.  A topic that was never recorded is
        NaN, never a guess; a run without objects has one at NaN.

        Args:
            clearance: Recomputes distances and palm position from q, which no sensor measures.
            regions: How many keep-out regions are asked about; nothing is known of them.

        Raises:
            RolloutRefused: If no sample has both a joint state and a command.
        """
        streams = [self.command.t, *(p.t for p in self.objects.values()), self.contact.t]
        begin = max((s[0] for s in streams if len(s)), default=np.inf)
        keep = self.joints.t >= begin
        t, q = self.joints.t[keep], self.joints.q[keep]
        if not len(t) or not len(self.command.t):
            raise RolloutRefused(f"{self.path}: no sample has both a joint state and a command")
        sent = _newest(self.command.t, t)
        near_self, near_table, palm = clearance(q)
        poses = list(self.objects.values())
        return Measurement(
            t=t,
            q=q,
            qd=self.joints.qd[keep],
            tau=self.joints.tau[keep],
            u=self.command.u[sent],
            ud=self.command.ud[sent],
            udd=self.command.udd[sent],
            uddd=self.command.uddd[sent],
            palm_position=np.asarray(palm, dtype=np.float64),
            clearance_self=np.asarray(near_self, dtype=np.float64),
            clearance_table=np.asarray(near_table, dtype=np.float64),
            contact_force=_strongest(self.contact.t, self.contact.force, t, len(CONTACT_PAIRS)),
            object_position=_all(poses, "position", t, 3),
            object_quaternion=_all(poses, "quaternion", t, 4),
            wrench=np.full((len(t), 6), np.nan),
            object_contact=np.full((len(t), max(1, len(poses))), np.nan),
            object_visible=np.full((len(t), max(1, len(poses))), np.nan),
            free_cells=np.full(len(t), np.nan),
            tau_rate=np.full(q.shape, np.nan),
            clearance_keep_out=np.full((len(t), regions), np.nan),
            clearance_person=np.full(len(t), np.nan),
            approach_person=np.full(len(t), np.nan),
            approach_contact=np.full(len(t), np.nan),
            tank=np.full(len(t), np.nan),
        )


def _newest(stamps: Array, t: Array) -> Array:
    """Index of the newest stamp at or before each t."""
    return np.searchsorted(stamps, t, side="right") - 1


def _held(stamps: Array, values: Array, t: Array, width: int) -> Array:
    return values[_newest(stamps, t)] if len(stamps) else np.full((len(t), width), np.nan)


def _strongest(stamps: Array, values: Array, t: Array, width: int) -> Array:
    """Largest of the values since the previous t; the newest where there is none."""
    if not len(stamps):
        return np.full((len(t), width), np.nan)
    end = _newest(stamps, t) + 1
    begin = np.minimum(np.concatenate([end[:1] - 1, end[:-1]]), end - 1)
    edges = np.stack([begin, end], axis=1).ravel()
    padded = np.concatenate([values, values[-1:]])
    return np.maximum.reduceat(padded, edges, axis=0)[::2]


def _all(poses: list[Poses], name: str, t: Array, width: int) -> Array:
    rows = [_held(p.t, getattr(p, name), t, width) for p in poses]
    return np.stack(rows, axis=1) if rows else np.full((len(t), 1, width), np.nan)
