"""The filter's states and what leads from one to another, as a table.

RUN follows the policy.  HOLD is a controlled stop with power kept (category 2 of IEC 60204-1) that resumes
by itself with fresh chunks once what caused it is gone.  STOP is a controlled stop after which the arm is
released (category 1); a hand keeps its targets and power (category 2), so that it drops nothing.  LATCHED is at
rest after a STOP and left only by an operator's reset, into HOLD, and not while an emergency stop is pressed.
Inspired by the standard; nothing here is safety-rated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numba import njit

from palmar.safety.robot import Limits
from palmar.safety.types import CommandRefused, ConfigError, State


class Event(Enum):
    """What the watchdog can see in a tick, most urgent first; the value is the named reason."""

    ESTOP = "estop"
    """The emergency stop is pressed, or its cable is cut."""
    OPERATOR_STOP = "operator_stop"
    DRIVER_FAULT = "driver_fault"
    """The hardware, or its driver, does not follow any more."""
    STATE_NONFINITE = "state_nonfinite"
    STATE_IMPLAUSIBLE = "state_implausible"
    """Readings that no such robot can give."""
    STATE_STALE = "state_stale"
    JOINT_MISMATCH = "joint_mismatch"
    """A joint does not do what it is told: reversed, swapped, or it does not move."""
    TRACKING_ERROR = "tracking_error"
    STATE_FROZEN = "state_frozen"
    """A sensor repeats itself while its joint is driven."""
    READING_GAP = "reading_gap"
    """No new reading for longer than is bridged with the one before."""
    CLOCK_BACKWARDS = "clock_backwards"
    PERSON_LOST = "person_lost"
    """The person tracker is silent: a person is presumed present."""
    MISSED_PERIOD = "missed_period"
    CHUNK_STALE = "chunk_stale"
    RELEASE = "release"
    """The emergency stop is no longer pressed.  That alone leads nowhere."""
    RESET = "reset"
    AT_REST = "at_rest"
    CHUNK_FRESH = "chunk_fresh"


STOPPING = (
    Event.ESTOP,
    Event.OPERATOR_STOP,
    Event.DRIVER_FAULT,
    Event.STATE_NONFINITE,
    Event.STATE_IMPLAUSIBLE,
    Event.STATE_STALE,
    Event.JOINT_MISMATCH,
    Event.TRACKING_ERROR,
)
HOLDING = (
    Event.STATE_FROZEN,
    Event.READING_GAP,
    Event.CLOCK_BACKWARDS,
    Event.PERSON_LOST,
    Event.MISSED_PERIOD,
    Event.CHUNK_STALE,
)

TRANSITIONS: dict[tuple[State, Event], State] = {
    **{(state, event): State.STOP for state in (State.RUN, State.HOLD) for event in STOPPING},
    **{(State.RUN, event): State.HOLD for event in HOLDING},
    (State.HOLD, Event.CHUNK_FRESH): State.RUN,
    (State.STOP, Event.AT_REST): State.LATCHED,
    (State.LATCHED, Event.RESET): State.HOLD,
}
"""Where an event leads.  A pair that is not here changes nothing; no way leads out of STOP but to LATCHED.  A
RESET happens only while no emergency stop is pressed, and not until it has been released for a while."""


def diagram() -> str:
    """The table as a Mermaid state diagram, one arrow per pair of states; it stands in ``docs/filter.md``."""
    arrows: dict[tuple[State, State], list[str]] = {}
    for (state, event), target in TRANSITIONS.items():
        arrows.setdefault((state, target), []).append(event.value)
    lines = [f"    {a.value} --> {b.value}: {', '.join(events)}" for (a, b), events in arrows.items()]
    return "\n".join(["```mermaid", "stateDiagram-v2", "    [*] --> hold: start", *lines, "```"])


def rest_within(limits: Limits, chunk_timeout: float, dt: float) -> float:
    """The declared time from the last fresh command to rest [s].

    A chunk moves the robot until it is ``chunk_timeout`` old, the watchdog sees that in the next tick, and the
    stop law brakes: from the fastest joint's speed at full deceleration, with the jerk limit's time to take back
    the acceleration of the moment, to build up the braking and to end it.  Each phase is rounded up to a tick.
    """
    brake = np.max(limits.v_max / limits.a_max + 3.0 * limits.a_max / limits.j_max)
    return chunk_timeout + float(brake) + 5.0 * dt


@dataclass(frozen=True)
class WatchdogConfig:
    """When something counts as wrong."""

    missed_periods: float = 2.0
    """A tick later than this many periods after the one before was missed."""
    deviation_arm: float = 0.25
    """Largest distance of an arm joint from its command [rad]."""
    deviation_hand: float = 1.5
    """The same for a hand joint, which squeezes by commanding beyond the contact [rad]."""
    released: float = 0.05
    """How long an emergency stop must have been released before a reset counts [s]: contacts bounce."""

    def __post_init__(self) -> None:
        for name, value in self.__dict__.items():
            if not 0 < value < math.inf:
                raise ConfigError(f"watchdog.{name} must be positive and finite, got {value!r}")


@njit(cache=True, nogil=True)
def _astray(q, u, most):
    """Whether a joint is further from its command than it may be."""
    for i in range(len(q)):
        if abs(q[i] - u[i]) > most[i]:
            return True
    return False


class Watchdog:
    """State, reason and counters."""

    def __init__(self, config: WatchdogConfig, dt: float, *, arm: int, joints: int) -> None:
        """For a tick of ``dt`` seconds and so many joints, of which the first ``arm`` are the arm's."""
        self.config, self.dt = config, dt
        self.deviation = np.where(np.arange(joints) < arm, config.deviation_arm, config.deviation_hand)
        """Largest distance of each joint from its command [rad], (n,)."""
        self.state, self.reason = State.HOLD, "no_chunk"
        self.counts: dict[str, int] = {event.value: 0 for event in Event}
        self._tick = -math.inf
        self.pressed = False
        """Whether the emergency stop is pressed, as far as known."""
        self._released = -math.inf

    def start(self, now: float) -> None:
        """Begin in HOLD, waiting for a chunk.

        Raises:
            CommandRefused: See ``check_start``.
        """
        self.check_start(now)
        self.state, self.reason = State.HOLD, "no_chunk"
        self._tick = -math.inf

    def check_start(self, now: float) -> None:
        """Change nothing.

        Raises:
            CommandRefused: If the emergency stop is pressed or was a moment ago.
        """
        if self.pressed or now - self._released < self.config.released:
            raise CommandRefused(f"start refused: {self.refusal() or 'the emergency stop was pressed a moment ago'}")

    def astray(self, q: np.ndarray, u: np.ndarray) -> bool:
        """Whether a joint measured at q (n,) is further from its command u (n,) [rad] than it may be."""
        return _astray(q, u, self.deviation)

    def late(self, now: float) -> bool:
        """Note a tick; whether a period was missed before it."""
        gap, self._tick = now - self._tick, now
        return self._tick > -math.inf and self.config.missed_periods * self.dt + 1e-9 < gap < math.inf

    def press(self, reason: str = Event.ESTOP.value) -> bool:
        """The emergency stop is pressed, or cannot be read: whether that changed the state.  May be repeated."""
        self.pressed = True
        return self.happen(Event.ESTOP, reason)

    def release(self) -> None:
        """The emergency stop is released.  Changes no state; a reset counts a little later."""
        if self.pressed:
            self.pressed, self._released = False, self._tick
        self.happen(Event.RELEASE)

    def refusal(self) -> str:
        """Why a reset would not count now, '' if it would."""
        if self.state is not State.LATCHED:
            return f"reset is accepted in latched, the filter is in {self.state.value}"
        if self.pressed:
            return "the emergency stop is pressed"
        since = self._tick - self._released
        if since < self.config.released:
            return f"the emergency stop was released {since:.3f} s ago, accepted from {self.config.released} s on"
        return ""

    def happen(self, event: Event, reason: str = "") -> bool:
        """Let an event happen; whether it changed the state."""
        self.counts[event.value] += 1
        if event is Event.RESET and self.refusal():
            return False
        target = TRANSITIONS.get((self.state, event))
        if target is None:
            return False
        if target is State.RUN:
            self.reason = ""
        elif target is not State.LATCHED:  # which keeps the reason of the STOP
            self.reason = reason or event.value
        self.state = target
        return True
