"""What came of a scenario: read from the rollout tick by tick, held against what must come of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from palmar.real_robot.config import RunConfig
from palmar.real_robot.graph import BACK, Played
from palmar.real_robot.scenarios import Scenario
from palmar.rollouts.rollout import Rollout
from palmar.rollouts.schema import STATE_CODES
from palmar.safety.chunks import ChunkConfig
from palmar.safety.types import State
from palmar.safety.watchdog import rest_within

STILL = 0.03
"""A measured joint slower than this stands, noise of the reading included [rad/s]."""
TRUE_STILL = 0.01
"""The same for the twin's true joint speeds [rad/s]."""
BUSY = ("missed_period", "reading_gap")
"""A machine that is late makes the filter hold before anything else can; that is no fault of the graph."""


@dataclass(frozen=True)
class Row:
    """What came of one scenario."""

    scenario: str
    what: str
    reaction_ms: float | None
    """From the deed to the first tick outside RUN; None where it never left."""
    state: str
    reason: str
    """Of that tick; of the last tick of the scenario where it never left RUN."""
    standstill_ms: float | None
    """From the deed until commands and joints stand for the rest of the scenario; None where they do not."""
    worst: str
    """The hard row with the smallest margin during the scenario."""
    margin: float
    violated: tuple[str, ...]
    """Hard rows whose margin fell below zero, or below their declared error where they are estimated."""
    resumed_ms: float | None
    """From the end of the deed, or the operator's reset, to RUN; None where nothing can resume."""
    problems: tuple[str, ...]
    """What was not as it must be; empty: passed."""

    @property
    def ok(self) -> bool:
        """Whether it passed."""
        return not self.problems


def time_to_rest(run: RunConfig) -> float:
    """The time to rest that the filter declares for this robot, from the last fresh chunk [s]."""
    return rest_within(run.robot_model().limits, ChunkConfig().timeout, run.period)


def judge(played: Played, rollout: Rollout, run: RunConfig) -> Row:
    """One scenario's row, from the ticks between its begin and its end in the rollout of the rehearsal."""
    s, v = played.scenario, rollout.verdicts
    if played.blocked:
        why = f"not played: the robot does not follow the policy: {played.blocked}"
        state, _, reason = played.blocked.partition(" ")
        return Row(s.name, s.what, None, state, reason, None, "", float("nan"), (), None, (why,))
    inside = np.flatnonzero((v.t >= played.begin) & (v.t <= played.undone))
    off = inside[v.state[inside] != STATE_CODES.index(State.RUN)]
    named = [k for k in off if v.reason[k] in s.reasons]
    off = np.array(named, dtype=int) if named else off
    at = int(off[0]) if len(off) else int(inside[-1]) if len(inside) else -1
    reaction = 1e3 * (float(v.t[off[0]]) - played.begin) if len(off) else None
    rest = _true_rest(played) if s.last else _rest(rollout, played) if len(off) else None
    worst, margin, violated = _margins(rollout, run, (v.t >= played.begin) & (v.t <= played.end))
    row = Row(
        scenario=s.name,
        what=s.what,
        reaction_ms=reaction,
        state=STATE_CODES[int(v.state[at])].value,
        reason=v.reason[at],
        standstill_ms=rest,
        worst=worst,
        margin=margin,
        violated=violated,
        resumed_ms=1e3 * (played.resumed - played.undone) if played.resumed is not None else None,
        problems=(),
    )
    return replace(row, problems=tuple(_problems(row, s, 1e3 * time_to_rest(run))))


def _rest(rollout: Rollout, played: Played) -> float | None:
    """Time until neither commands nor joints move any more before the deed ends [ms]."""
    c, j = rollout.command, rollout.joints
    sent = (c.t >= played.begin) & (c.t <= played.undone)
    felt = (j.t >= played.begin) & (j.t <= played.undone)
    ends = [
        _last(c.t[sent], np.abs(c.ud[sent]).max(axis=1, initial=0.0) > 0.0),
        _last(j.t[felt], np.abs(j.qd[felt]).max(axis=1, initial=0.0) > STILL),
    ]
    last = max((e for e in ends if e is not None), default=played.begin)
    return 1e3 * (last - played.begin) if last < played.undone - 0.002 else None


def _true_rest(played: Played) -> float | None:
    """The same by the twin's truth, for when nobody records any more [ms]."""
    t, speed = played.speeds.T
    last = _last(t, speed > TRUE_STILL)
    if last is None:
        return 0.0
    return 1e3 * max(0.0, last - played.begin) if last < t[-1] else None


def _last(t: np.ndarray, moving: np.ndarray) -> float | None:
    return float(t[np.flatnonzero(moving)[-1]]) if moving.any() else None


def _margins(rollout: Rollout, run: RunConfig, inside: np.ndarray) -> tuple[str, float, tuple[str, ...]]:
    """Of the hard rows while it lasted: the smallest margin with its name, and those below zero."""
    constraints = run.constraint_set(run.robot_model()).constraints
    lost = np.array([reason == "person_lost" for reason in rollout.verdicts.reason])
    smallest: dict[str, float] = {}
    for k, c in enumerate(constraints):
        # Without a tracker a person is presumed everywhere, so that the margin says nothing about one.
        judged = inside & ~lost if c.margin == "speed_separation" else inside
        seen = rollout.verdicts.margins[judged, k]
        seen = seen[np.isfinite(seen)]
        if c.runtime == "hard row" and len(seen):
            smallest[c.name] = float(seen.min())
    if not smallest:
        return "", float("nan"), ()
    error = {c.name: c.error for c in constraints}
    worst = min(smallest, key=lambda name: smallest[name] + error[name])
    return worst, smallest[worst], tuple(name for name, value in smallest.items() if value < -error[name])


def _problems(row: Row, s: Scenario, declared: float) -> list[str]:
    """What was not as it must be."""
    found = [f"{name} was violated" for name in row.violated]
    if s.last:
        return found + ([] if row.standstill_ms is not None else ["the hardware did not stop by itself"])
    if s.leaves_run is not None:
        if row.reaction_ms is None or row.reaction_ms > 1e3 * s.leaves_run:
            found.append(f"left RUN after {_ms(row.reaction_ms)}, need <= {_ms(1e3 * s.leaves_run)}")
        elif row.reason not in (*s.reasons, *BUSY):
            found.append(f"the reason is {row.reason!r}, expected one of {list(s.reasons)}")
        if row.standstill_ms is None or row.standstill_ms > 1e3 * s.leaves_run + declared:
            found.append(f"stood after {_ms(row.standstill_ms)}, need <= {_ms(1e3 * s.leaves_run + declared)}")
    if row.resumed_ms is None:
        found.append(f"did not follow the policy again within {BACK:.0f} s")
    if s.latches is False and row.state in (State.STOP.value, State.LATCHED.value):
        found.append(f"stopped for {row.reason!r}, which needs an operator")
    return found


def _ms(value: float | None) -> str:
    return "never" if value is None else f"{value:.0f} ms"
