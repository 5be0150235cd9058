"""The filter's states and what leads from one to another, as a table.

RUN follows the policy.  HOLD is a controlled stop with power kept (category 2 of IEC 60204-1) that resumes
by itself with fresh chunks.  STOP is a controlled stop after which the arm is released (category 1); a hand
keeps its targets and power (category 2), so that it drops nothing.  LATCHED is at rest after a STOP and left
only by an operator's reset, into HOLD.  Inspired by the standard; nothing here is safety-rated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from palmar.safety.types import ConfigError, State


class Event(Enum):
    """What the watchdog can see in a tick, most urgent first; the value is the named reason."""

    OPERATOR_STOP = "operator_stop"
    STATE_NONFINITE = "state_nonfinite"
    STATE_STALE = "state_stale"
    TRACKING_ERROR = "tracking_error"
    MISSED_PERIOD = "missed_period"
    CHUNK_STALE = "chunk_stale"
    RESET = "reset"
    AT_REST = "at_rest"
    CHUNK_FRESH = "chunk_fresh"


STOPPING = (Event.OPERATOR_STOP, Event.STATE_NONFINITE, Event.STATE_STALE, Event.TRACKING_ERROR)
HOLDING = (Event.MISSED_PERIOD, Event.CHUNK_STALE)

TRANSITIONS: dict[tuple[State, Event], State] = {
    **{(state, event): State.STOP for state in (State.RUN, State.HOLD) for event in STOPPING},
    **{(State.RUN, event): State.HOLD for event in HOLDING},
    (State.HOLD, Event.CHUNK_FRESH): State.RUN,
    (State.STOP, Event.AT_REST): State.LATCHED,
    (State.LATCHED, Event.RESET): State.HOLD,
}
"""Where an event leads.  A pair that is not here changes nothing; no way leads out of STOP but to LATCHED."""


@dataclass(frozen=True)
class WatchdogConfig:
    """When something counts as wrong."""

    missed_periods: float = 2.0
    """A tick later than this many periods after the one before was missed."""
    state_stale: float = 0.020
    """Longest time without a new reading [s]."""
    state_nonfinite: int = 3
    """Non-finite readings in a row that stop the robot."""
    deviation_arm: float = 0.25
    """Largest distance of an arm joint from its command [rad]."""
    deviation_hand: float = 1.5
    """The same for a hand joint, which squeezes by commanding beyond the contact [rad]."""

    def __post_init__(self) -> None:
        for name, value in self.__dict__.items():
            if not 0 < value < math.inf:
                raise ConfigError(f"watchdog.{name} must be positive and finite, got {value!r}")


class Watchdog:
    """State, reason and counters."""

    def __init__(self, config: WatchdogConfig, dt: float) -> None:
        """For a tick of ``dt`` seconds."""
        self.config, self.dt = config, dt
        self.state, self.reason = State.HOLD, "no_chunk"
        self.counts: dict[str, int] = {event.value: 0 for event in Event}
        self._tick = -math.inf
        self._reading, self._fresh, self._bad = -1, -math.inf, 0

    def start(self, now: float, seq: int) -> None:
        """Begin in HOLD, waiting for a chunk."""
        self.state, self.reason = State.HOLD, "no_chunk"
        self._tick, self._reading, self._fresh, self._bad = -math.inf, seq, now, 0

    def late(self, now: float) -> bool:
        """Note a tick; whether a period was missed before it."""
        gap, self._tick = now - self._tick, now
        return self._tick > -math.inf and self.config.missed_periods * self.dt < gap < math.inf

    def reading(self, seq: int, finite: bool, now: float) -> Event | None:
        """Note a reading of the robot; the event it makes."""
        if seq != self._reading:
            self._reading = seq
            self._bad = 0 if finite else self._bad + 1
            if finite:
                self._fresh = now
        if self._bad >= self.config.state_nonfinite:
            return Event.STATE_NONFINITE
        if now - self._fresh > self.config.state_stale:
            return Event.STATE_STALE
        return None

    def happen(self, event: Event, reason: str = "") -> bool:
        """Let an event happen; whether it changed the state."""
        self.counts[event.value] += 1
        target = TRANSITIONS.get((self.state, event))
        if target is None:
            return False
        if target is State.RUN:
            self.reason = ""
        elif target is not State.LATCHED:  # which keeps the reason of the STOP
            self.reason = reason or event.value
        self.state = target
        return True
