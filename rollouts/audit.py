"""Evaluate a constraint file on a recorded run: the margins of training and the filter, after the fact."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from palmar.rollouts.rollout import Clearance, Rollout
from palmar.safety.constraints import Constraint, ConstraintSet
from palmar.safety.types import Measurement

Array = np.ndarray


@dataclass(frozen=True)
class ConstraintAudit:
    """One constraint on one run."""

    constraint: Constraint
    margin: Array
    """Per sample, (T,); NaN where something it needs was not recorded."""
    cost: float
    """Seconds violated or events, from ``ConstraintSet.over``."""
    spans: tuple[tuple[float, float], ...]
    """Begin and end of each violation [s]; one sample long is [t, t + dt]."""
    worst: float
    """Smallest known margin; NaN where none is known."""
    worst_t: float
    """Time of the worst margin [s]; NaN where none is known."""
    unknown: int
    """Samples whose margin is NaN: neither safe nor violated."""

    @property
    def name(self) -> str:
        """The constraint's."""
        return self.constraint.name

    @property
    def violated(self) -> Array:
        """Per sample, (T,) bool."""
        return self.margin < 0

    @property
    def within_budget(self) -> bool:
        """Whether the cost stays in the budget; of the known samples only."""
        # The slack is a rounding error of summing dt, nothing more.
        return self.cost <= self.constraint.budget * (1 + 1e-12)

    @property
    def enforced(self) -> bool:
        """Whether the filter claims it: a hard row from a measured source.  Law 3 of docs/rollouts.md."""
        return enforced(self.constraint)


@dataclass(frozen=True)
class Audit:
    """A constraint file on one run."""

    t: Array
    """Time of the samples [s], (T,)."""
    dt: float
    """Time one sample stands for [s]."""
    rows: tuple[ConstraintAudit, ...]
    """In the order of the constraint file."""
    longest_gap: float
    """Longest time between two samples [s]: what happened inside was not seen."""
    same_constraints: bool
    """Whether this is the constraint file that was in force during the run."""

    def __getitem__(self, name: str) -> ConstraintAudit:
        return {row.name: row for row in self.rows}[name]

    @property
    def violated(self) -> tuple[str, ...]:
        """Names of the constraints with at least one violated sample."""
        return tuple(row.name for row in self.rows if row.violated.any())

    @property
    def not_enforced(self) -> tuple[str, ...]:
        """Names of the constraints the filter makes no claim about."""
        return tuple(row.name for row in self.rows if not row.enforced)


def enforced(constraint: Constraint) -> bool:
    """Whether an enforced row implies ``margin >= 0`` later: hard rows from measured sources only."""
    return constraint.runtime == "hard row" and constraint.source == "measured"


def audit(rollout: Rollout, constraints: ConstraintSet, clearance: Clearance) -> Audit:
    """Which samples of ``rollout`` violate which constraint, how deep and for how long.

    Args:
        rollout: What was recorded.
        constraints: Any constraint file for this robot, not only the one that was in force.
        clearance: Recomputes clearances and palm position from q.

    Raises:
        RolloutRefused: If the rollout has no sample with a joint state and a command.
    """
    regions = max((1 + c.params["region"] for c in constraints.constraints if c.margin == "keep_out"), default=0)
    samples = rollout.measurements(clearance, regions=regions)
    dt = rollout.header.control_dt
    cost = np.asarray(constraints.over(samples, constraints.start(samples.at(0)), dt=dt).cost)
    margin = margins_of(samples, constraints)
    rows = [_row(c, samples.t, margin[:, k], float(cost[k]), dt) for k, c in enumerate(constraints.constraints)]
    return Audit(
        t=samples.t,
        dt=dt,
        rows=tuple(rows),
        longest_gap=float(np.diff(samples.t).max(initial=0.0)),
        same_constraints=constraints.hash() == rollout.header.constraint_set().hash(),
    )


def margins_of(samples: Measurement, constraints: ConstraintSet) -> Array:
    """Margin of every sample, (T, K): those without memory at once, the others in order of time."""
    out = np.full((len(samples.t), len(constraints.names)), np.nan)
    for k, c in enumerate(constraints.constraints):
        one = constraints.select((c.name,))
        carry = one.start(samples.at(0))
        if not c.remembers:
            out[:, k] = one.margins(samples, carry)[0][..., 0]
            continue
        for s in range(len(samples.t)):
            value, carry = one.margins(samples.at(s), carry)
            out[s, k] = value[..., 0]
    return out


def disagreement(found: Audit, rollout: Rollout) -> dict[str, int]:
    """Per constraint, the ticks where the filter's recorded verdict and the audit name different violations.

    Law 1 wants zeros where both saw the same measurement.  Ticks without a recorded margin are not counted.
    """
    stamps = np.rint(rollout.verdicts.t * 1e9).astype(np.int64)
    _, mine, theirs = np.intersect1d(np.rint(found.t * 1e9).astype(np.int64), stamps, return_indices=True)
    names = rollout.header.constraint_set().names
    out = {}
    for row in found.rows:
        if row.name in names:
            said = rollout.verdicts.margins[theirs, names.index(row.name)]
            both = ~np.isnan(said) & ~np.isnan(row.margin[mine])
            out[row.name] = int(np.sum(((said < 0) != row.violated[mine]) & both))
    return out


def _row(constraint: Constraint, t: Array, margin: Array, cost: float, dt: float) -> ConstraintAudit:
    unknown = np.isnan(margin)
    at = None if unknown.all() else int(np.nanargmin(margin))
    return ConstraintAudit(
        constraint=constraint,
        margin=margin,
        cost=cost,
        spans=_spans(t, margin < 0, dt),
        worst=float("nan") if at is None else float(margin[at]),
        worst_t=float("nan") if at is None else float(t[at]),
        unknown=int(unknown.sum()),
    )


def _spans(t: Array, violated: Array, dt: float) -> tuple[tuple[float, float], ...]:
    edge = np.diff(np.concatenate([[0], violated.astype(np.int8), [0]]))
    begin, end = np.flatnonzero(edge == 1), np.flatnonzero(edge == -1)
    return tuple((float(t[a]), float(t[b - 1]) + dt) for a, b in zip(begin, end, strict=True))
