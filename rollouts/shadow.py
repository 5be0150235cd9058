"""What a filter would have done to a recorded run: its intentions, once more, through a filter in shadow mode.

The reference of every recorded tick is offered again as chunks and followed unedited by a perfect robot, so what is
counted is the motion as intended, also where the recorded run was edited.  People are not recorded; none are assumed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from palmar.rollouts.rollout import Rollout
from palmar.safety.filter import Filter
from palmar.safety.types import Chunk, ConfigError, People, RolloutRefused, State
from palmar.sim.interface import RobotState

Array = np.ndarray

AFTER = 1.0
"""An intervention was called for if the intended motion violates something until this long after it [s]: a barrier
acts before the violation, not at it."""


@dataclass(frozen=True)
class Shadow:
    """Statistics of one run."""

    ticks: int
    changed: int
    """Ticks whose command would have been changed."""
    interventions: int
    """Unbroken runs of such ticks."""
    edit_mean: float
    """Mean over the changed ticks of the largest change of a joint's acceleration [rad/s2]."""
    edit_max: float
    """[rad/s2]"""
    by: dict[str, int]
    """Changed ticks per named reason: a constraint, or why the QP's answer was not sent."""
    violated: dict[str, int]
    """Ticks at which the intended motion violates a hard row, per constraint."""
    false_trips: int
    """Interventions during which, and until AFTER, the intended motion violates no hard row."""
    false_by: dict[str, int]
    """Their ticks per named reason."""
    not_run: int
    """Ticks in which the filter was not in RUN, for bad input; they are no interventions."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def shadow(rollout: Rollout, filter_: Filter) -> Shadow:
    """Run the recorded intentions through ``filter_``.

    Args:
        rollout: With an intention and a command per tick.
        filter_: In shadow mode and not started, for the run's robot; its chunk check must let recorded jumps of the
            reference pass, at holds for instance.

    Raises:
        ConfigError: If the filter is not in shadow mode or its period is not the run's.
        RolloutRefused: If there is no intention to follow, or the robot did not begin at rest.
    """
    dt = rollout.header.control_dt
    if filter_.mode != "shadow" or abs(filter_.config.dt - dt) > 1e-9:
        raise ConfigError(f"need a shadow filter of period {dt}, got {filter_.mode} of {filter_.config.dt}")
    wanted = rollout.intended.q
    if len(wanted) < 2 or not len(rollout.command.t):
        raise RolloutRefused(f"{rollout.path}: no intention of at least two ticks and a command were recorded")
    reasons, edits, bad = _run(wanted, rollout.command.u[0], filter_, dt)
    return _count(reasons, edits, bad, dt)


def _run(wanted: Array, start: Array, filter_: Filter, dt: float) -> tuple[list[str | None], Array, list[set[str]]]:
    """Per tick: why it was changed ('' for not at all, None for not in RUN), by how much, what it violates."""
    zero = np.zeros(len(start))
    filter_.start(RobotState(0.0, 0, start.copy(), zero, zero))
    hard = {c.name for c in filter_.constraints.constraints if c.runtime == "hard row"}
    reasons: list[str | None] = []
    edits, bad = np.zeros(len(wanted)), list[set[str]]()
    chunks = filter_.config.chunks
    renew = max(1, min(int(0.5 * chunks.timeout / dt), chunks.longest // 2))
    for k in range(len(wanted)):
        now = (k + 1) * dt
        if k % renew == 0:
            rows = wanted[k : k + 2 * renew]
            times = (k + 1 + np.arange(len(rows))) * dt
            filter_.offer(Chunk(q=rows, t=times, seq=k, received=k * dt))
        reading = RobotState(now, k + 1, filter_.u, filter_.ud, zero)
        _, verdict = filter_.tick(reading, now, people=_nobody(now))
        running = verdict.state is State.RUN
        reasons.append((verdict.reason if verdict.changed else "") if running else None)
        edits[k] = verdict.edit
        bad.append({name for name, m in verdict.margins.items() if name in hard and m < 0})
    return reasons, edits, bad


def _nobody(now: float) -> People:
    return People(np.zeros((0, 2, 3)), np.zeros(0), np.zeros((0, 3)), now)


def _count(reasons: list[str | None], edits: Array, bad: list[set[str]], dt: float) -> Shadow:
    """The statistics of the ticks."""
    changed = np.array([bool(r) for r in reasons])
    edges = np.flatnonzero(np.diff(np.concatenate([[False], changed, [False]]).astype(int)))
    spans = edges.reshape(-1, 2)
    worse = np.flatnonzero([bool(b) for b in bad])
    after = round(AFTER / dt)
    false = [(i, j) for i, j in spans if not np.any((worse >= i) & (worse < j + after))]
    return Shadow(
        ticks=len(reasons),
        changed=int(changed.sum()),
        interventions=len(spans),
        edit_mean=float(edits[changed].mean()) if changed.any() else 0.0,
        edit_max=float(edits[changed].max()) if changed.any() else 0.0,
        by=dict(Counter(r for r in reasons if r).most_common()),
        violated=dict(Counter(name for b in bad for name in b).most_common()),
        false_trips=len(false),
        false_by=dict(Counter(r for i, j in false for r in reasons[i:j] if r).most_common()),
        not_run=sum(r is None for r in reasons),
    )
