"""Why a tick of a recorded run went as it did: what was intended, what was sent, and what stood in between.

State, reason, edit and margins are the recorded ones.  The rows are not recorded: the QP of the tick is assembled and
solved again from the recorded command and intention, by a filter that is passed in.  Where it does not give what was
sent, ``agrees`` is false and says that the rows below may not be those of the run: another version, tracked people
and objects, a reflex, stiffness, or a target that began between two ticks.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from palmar.rollouts.rollout import Rollout
from palmar.rollouts.schema import STATE_CODES
from palmar.safety.filter import Filter
from palmar.safety.intention import intend
from palmar.safety.qp import FAULTS
from palmar.safety.rows import KINDS, PALM_KIND, REGION_KIND, SELF_KIND, TABLE_KIND
from palmar.safety.types import RolloutRefused, State

Array = np.ndarray

AGREE = 1e-3
"""Recomputed and sent accelerations are the same up to this part of a_max."""
ACTIVE = 1e-6
"""A row is active where this little of it is left, in parts of its own size."""


@dataclass(frozen=True)
class Row:
    """One barrier of the tick's QP: a distance, its rate, and what it asks of the second derivative."""

    constraint: str
    between: str
    """What the distance is of."""
    distance: float
    """Now [m]; NaN where it is not one distance."""
    limit: float
    """Kept, errors and rounding included [m]."""
    rate: float
    """Now [m/s]; below 0 it closes."""
    allowed: float
    """Least rate at this distance [m/s]; NaN where that is not one number."""
    needed: float
    """Least second derivative [m/s2]."""
    wanted: float
    """Second derivative of the intended motion [m/s2]."""
    sent: float
    """Of the motion sent [m/s2]."""


@dataclass(frozen=True)
class JointChange:
    """One joint whose acceleration was changed."""

    joint: str
    position: float
    """[rad]"""
    velocity: float
    """[rad/s]"""
    reference: float
    """What the policy asked for [rad]."""
    wanted: float
    """Acceleration of the intention [rad/s2]."""
    sent: float
    """[rad/s2]"""
    low: float
    """Bounds of the tick [rad/s2]."""
    high: float
    at_bound: bool
    """Whether the answer lies at one of them."""


@dataclass(frozen=True)
class Explanation:
    """One tick."""

    t: float
    """Since the run began [s]."""
    state: str
    since: float
    """When it entered this state [s], since the run began."""
    reason: str
    changed: bool
    edit: float
    """[rad/s2]"""
    active: tuple[str, ...]
    """Constraints with an active row or bound, as recorded."""
    margins: dict[str, float]
    """As recorded, tightest first."""
    chunk: int | None
    """Sequence number of the newest chunk, and its age [s]."""
    chunk_age: float
    agrees: bool | None
    """Whether the tick, solved again, gives what was sent; None where it was not a tick of RUN."""
    again: str
    """What the QP said when solved again, '' for solved."""
    rows: tuple[Row, ...]
    joints: tuple[JointChange, ...]
    """Most changed first."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; what is no number is None."""
        return _plain(asdict(self))


def find(rollout: Rollout, when: str) -> float:
    """Time since the run began [s]: a number, ``first`` changed tick or tick of the ``worst`` edit.

    Raises:
        RolloutRefused: If it is neither, outside the run, or nothing was changed.
    """
    v, t0 = rollout.verdicts, rollout.begin
    if when in ("first", "worst"):
        at = np.flatnonzero(v.changed & (v.state == STATE_CODES.index(State.RUN)))
        if not len(at):
            raise RolloutRefused(f"{rollout.path}: the filter changed nothing in this run")
        return float(v.t[at[0] if when == "first" else at[np.argmax(v.edit[at])]] - t0)
    try:
        t = float(when)
    except ValueError as error:
        raise RolloutRefused(f"time {when!r}, accepted: seconds since the start, 'first', 'worst'") from error
    if not 0 <= t <= v.t[-1] - t0:
        raise RolloutRefused(f"time {t} s is outside the run, accepted 0 to {v.t[-1] - t0:.3f}")
    return t


def explain(rollout: Rollout, t: float, filter_: Filter) -> Explanation:
    """The newest tick at or before ``t``.

    Args:
        rollout: A recorded run.
        t: Time since the run began [s].
        filter_: For the run's robot and constraints; its QP is used, nothing is sent.

    Raises:
        RolloutRefused: If the run has no verdict, command and intention at that time.
    """
    v, t0 = rollout.verdicts, rollout.begin
    k = int(np.searchsorted(v.t, t0 + t + 1e-9, side="right")) - 1
    if k < 1 or not _ticks(rollout):
        raise RolloutRefused(f"{rollout.path}: no two ticks with verdict, command and intention until {t} s")
    began = k
    while began > 0 and v.state[began - 1] == v.state[k]:
        began -= 1
    names = rollout.header.constraint_set().names
    margins = {name: float(m) for name, m in zip(names, v.margins[k], strict=True) if not math.isnan(m)}
    chunk = next((c for c in reversed(rollout.chunks) if c.received <= v.t[k]), None)
    agrees, again, rows, joints = None, "", (), ()
    if STATE_CODES[int(v.state[k])] is State.RUN:
        agrees, again, rows, joints = _solve_again(rollout, k, filter_)
    return Explanation(
        t=float(v.t[k] - t0),
        state=STATE_CODES[int(v.state[k])].value,
        since=float(v.t[began] - t0),
        reason=v.reason[k],
        changed=bool(v.changed[k]),
        edit=float(v.edit[k]),
        active=tuple(name for name, on in zip(names, v.active[k], strict=True) if on),
        margins=dict(sorted(margins.items(), key=lambda item: item[1])),
        chunk=None if chunk is None else int(chunk.seq),
        chunk_age=math.nan if chunk is None else float(v.t[k] - chunk.received),
        agrees=agrees,
        again=again,
        rows=rows,
        joints=joints,
    )


def _ticks(rollout: Rollout) -> bool:
    """Whether verdict, command and intention were recorded tick by tick."""
    n = len(rollout.verdicts.t)
    return n > 1 and len(rollout.command.t) >= n and len(rollout.intended.t) >= n


def _solve_again(rollout: Rollout, k: int, f: Filter) -> tuple[bool, str, tuple[Row, ...], tuple[JointChange, ...]]:
    """The tick's QP from what was recorded: whether it agrees, what it said, active rows, changed joints."""
    c, t = rollout.command, rollout.verdicts.t[k]
    now = int(np.searchsorted(c.t, t + 1e-9, side="right")) - 1
    i = int(np.searchsorted(rollout.intended.t, t + 1e-9, side="right")) - 1
    u, ud, udd, sent = c.u[now - 1], c.ud[now - 1], c.udd[now - 1], c.udd[now]
    r, rd = _reference(rollout, i)
    wanted = np.empty(len(u))
    intend(u, ud, udd, r, rd, f.bounds, f.config.dt, wanted)
    code, x, _ = f.qp.solve(u, ud, udd, wanted, obstacles=f.obstacles)
    agrees = bool(np.all(np.abs(x - sent) <= AGREE * f.bounds.a))
    rows = _rows(f, u, ud, wanted, sent, x) if not FAULTS[code] else ()
    far = np.abs(sent - wanted)
    order = [int(j) for j in np.argsort(-far) if far[j] > 1e-3 * f.bounds.a[j]]
    joints = tuple(_joint(f, j, u, ud, r, wanted, sent) for j in order)
    return agrees, FAULTS[code], rows, joints


def _reference(rollout: Rollout, i: int) -> tuple[Array, Array]:
    """Reference at tick i and its rate: the slope of the line it stands on, that is to the next tick."""
    t, q = rollout.intended.t, rollout.intended.q
    a, b = (i, i + 1) if i + 1 < len(t) else (i - 1, i)
    return q[i], (q[b] - q[a]) / max(t[b] - t[a], 1e-9)


def _joint(f: Filter, j: int, u: Array, ud: Array, r: Array, wanted: Array, sent: Array) -> JointChange:
    low, high = float(f.qp.low[j]), float(f.qp.high[j])
    near = 1e-4 * float(f.bounds.a[j])
    return JointChange(
        joint=f.robot.joints[j],
        position=float(u[j]),
        velocity=float(ud[j]),
        reference=float(r[j]),
        wanted=float(wanted[j]),
        sent=float(sent[j]),
        low=low,
        high=high,
        at_bound=bool(sent[j] <= low + near or sent[j] >= high - near),
    )


def _rows(f: Filter, u: Array, ud: Array, wanted: Array, sent: Array, x: Array) -> tuple[Row, ...]:
    """The barriers that are active at the QP's answer x."""
    qp, n = f.qp, len(u)
    first, rows = len(qp.wanted), []
    pair, table = f.kinematics.clearances(u)
    gradients = f.kinematics.rows(u)
    for k in range(qp.first_torque):
        slope, need = qp.matrix[k, :n] / f.bounds.a, float(qp.lower[first + k])
        size = float(np.abs(slope) @ f.bounds.a)
        if size == 0.0 or float(slope @ x) - need > ACTIVE * size:
            continue
        between, distance, limit = _named(f, int(qp.kind[k]), slope, u, pair, table, gradients)
        rows.append(
            Row(
                constraint=_constraint(f, int(qp.kind[k])),
                between=between,
                distance=distance,
                limit=limit,
                rate=float(slope @ ud),
                allowed=_allowed(f, distance - limit),
                needed=need,
                wanted=float(slope @ wanted),
                sent=float(slope @ sent),
            )
        )
    return tuple(rows)


def _constraint(f: Filter, kind: int) -> str:
    """Name of the constraint that a kind of row keeps."""
    if kind >= REGION_KIND:
        return f.enforced.names["keep_out"][kind - REGION_KIND]
    return f.enforced.names.get(KINDS[kind], (KINDS[kind],))[0]


def _named(
    f: Filter, kind: int, slope: Array, u: Array, pair: Array, table: Array, gradients: tuple[Array, Array]
) -> tuple[str, float, float]:
    """What a row's distance is of, the distance and its limit [m]: found by the row's gradient."""
    tree, geoms = f.kinematics.tree, f.kinematics.geoms
    if kind == SELF_KIND:
        i = int(np.abs(gradients[0] - slope).sum(axis=1).argmin())
        a, b = (geoms[g] for g in tree.pairs[i])
        return f"{a} and {b}", float(pair[i]), f.space.self_limit
    if kind == TABLE_KIND:
        i = int(np.abs(gradients[1] - slope).sum(axis=1).argmin())
        return f"{geoms[tree.table[i]]} and the table", float(table[i]), f.space.table_limit
    if kind == PALM_KIND:
        palm = f.kinematics.palm(u)
        gaps = np.concatenate([palm - f.space.lower, f.space.upper - palm])
        i = int(gaps.argmin())
        return f"palm and the {'lower' if i < 3 else 'upper'} {'xyz'[i % 3]} side", float(gaps[i]), 0.0
    if kind >= REGION_KIND:
        return "a link and the region", math.nan, math.nan
    return KINDS[kind].replace("_", " "), math.nan, math.nan


def _allowed(f: Filter, room: float) -> float:
    """Least rate of a distance with this much room: ``rows`` says how a barrier is shaped [m/s]."""
    b = f.config.barrier
    h = room - b.buffer
    if math.isnan(h):
        return math.nan
    return -(math.sqrt(2.0 * b.brake * h + b.soft**2) - b.soft) if h > 0 else -b.brake / b.soft * h


def _plain(value: Any) -> Any:
    """Without numbers that JSON has not."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
