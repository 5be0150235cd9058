"""The filter's first layer: may this reading be believed, is it new, and does the robot do what it is told?

A reading that cannot be true (not finite, out of range, faster than the joint can be) is dropped and the one
before is kept; three in a row stop the robot.  What no single reading shows is seen over time: a sensor that
repeats itself while the joint is driven, speeds that do not belong to the positions, and arm joints that move
against their commands or with another joint's.  Only the monotonic clock of the ticks decides; stamps of the
readings are looked at and counted, no more.

Where it ends: a bias too small to be a jump, or a slow drift, shows only as distance from the command, which the
watchdog's ``deviation_*`` bound.  Of the hand's joints only a reversed sign is looked for, and only while their
torque is small: a finger that something holds is not where it was sent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from palmar.safety.evidence import (
    AGAINST,
    FROZEN,
    GOOD,
    HIGH,
    IMPLAUSIBLE,
    INCONSISTENT,
    LOW,
    NONFINITE,
    QD,
    ROWS,
    STUCK,
    SWAPPED,
    TAU,
    Q,
    believable,
    look,
)
from palmar.safety.robot import RobotModel
from palmar.safety.types import CommandRefused, ConfigError, RobotState
from palmar.safety.watchdog import Event

Array = np.ndarray

TOLD = (
    "",
    "is not finite",
    "is out of range or has jumped",
    "has speeds that do not belong to its positions",
    "repeats itself while driven",
    "moves against its command",
    "moves as another joint is commanded to",
    "does not move with its command",
)
TOLD_AT_START = "start: {} reads {:.4f} rad, believable is {:.4f} to {:.4f}: wrong order, sign or unit?"


@dataclass(frozen=True)
class CheckConfig:
    """What counts as unbelievable.  Tuned on the twin: see ``tests/safety/test_check.py``."""

    state_stale: float = 0.020
    """Longest time without a new reading [s]."""
    gap: float = 0.005
    """Time without a new reading that is bridged with the one before [s]; two ticks where those are longer."""
    bad: int = 3
    """Unbelievable readings in a row that stop the robot."""
    frozen: float = 0.015
    """Time of exact repetition in fresh readings, while driven, that makes a sensor a frozen one [s]."""
    moving: float = 0.05
    """A joint commanded faster than this is driven [rad/s]."""
    beyond_arm: float = 0.1
    """How far outside its range an arm joint may read [rad]: end stops and calibration give way."""
    beyond_hand: float = 0.3
    """The same for a hand joint."""
    too_fast: float = 4.0
    """Multiple of a joint's speed limit that no reading may show: contacts throw fingers."""
    too_strong: float = 3.0
    """The same for torque."""
    jump_arm: float = 0.01
    """Jump of a reading [rad] that is allowed on top of twice the speed limit."""
    jump_hand: float = 0.05
    """The same for a hand joint."""
    drift_arm: float = 0.02
    """Motion of an arm joint in the last ``memory`` that its speeds do not explain [rad]."""
    drift_hand: float = 0.06
    """The same for a hand joint."""
    memory: float = 0.1
    """[s]"""
    travel: float = 0.03
    """Commanded motion in one direction from which its sign is looked at [rad]."""
    against: float = 0.008
    """Measured motion of an arm joint the other way that is one too many [rad]."""
    swap: float = 0.05
    """Difference of two joints' commanded motions that shows whether they are swapped [rad]."""
    stuck: float = 0.12
    """Commanded motion after which an arm joint must have moved by a twelfth of it [rad]."""
    pose: float = 0.1
    """Largest distance from an expected pose at the start [rad]."""

    def __post_init__(self) -> None:
        for name, value in self.__dict__.items():
            if not 0 < value < math.inf:
                raise ConfigError(f"check.{name} must be positive and finite, got {value!r}")


EVENTS = {
    INCONSISTENT: Event.STATE_IMPLAUSIBLE,
    FROZEN: Event.STATE_FROZEN,
    AGAINST: Event.JOINT_MISMATCH,
    SWAPPED: Event.JOINT_MISMATCH,
    STUCK: Event.JOINT_MISMATCH,
}
"""What a believable reading can show; the unbelievable ones count."""


class Check:
    """Readings of one robot over time."""

    def __init__(self, robot: RobotModel, config: CheckConfig, dt: float) -> None:
        """For ticks of ``dt`` seconds; compiles the kernels."""
        self.robot, self.config, self.dt = robot, config, dt
        m, n, arm = robot.limits, robot.n, np.arange(robot.n) < robot.n_arm
        beyond = np.where(arm, config.beyond_arm, config.beyond_hand)
        self._scale = np.array(
            [
                m.q_min - beyond,
                m.q_max + beyond,
                config.too_fast * m.v_max,
                config.too_strong * m.tau_max,
                np.where(arm, config.jump_arm, config.jump_hand),
                np.where(arm, config.drift_arm, config.drift_hand),
            ]
        )
        c = config
        self._tune = np.array([c.frozen, c.moving, c.memory, c.travel, c.against, c.swap, c.stuck])
        self._memory, self._spans = np.zeros((ROWS, n)), np.zeros(2)
        self._gap = max(config.gap, 2 * dt)
        self.counts = dict.fromkeys(
            ("readings", "repeated", "lost", "backwards", "unshaped", "nonfinite", "implausible", "stamp", "clock"), 0
        )
        self.detail = ""
        """The last finding in words, '' before the first."""
        self.state: RobotState | None = None
        """The last believable reading."""
        self._now, self._fresh, self._good, self._seq, self._good_seq = -math.inf, -math.inf, 0.0, -1, -1
        self._bad, self._worst, self._found = 0, Event.STATE_NONFINITE, GOOD
        zero = np.zeros(n)
        look(zero, zero, zero, zero, zero, self._spans, self._memory.copy(), self._scale, self._tune, robot.n_arm)

    def start(self, state: RobotState, expected: Array | None = None) -> None:
        """Begin with a first reading, at rest.

        Args:
            state: The reading.
            expected: Where the robot should be [rad], (n,), if that is known: a calibration or park pose.

        Raises:
            CommandRefused: If the reading has the wrong shape or is not finite, a position cannot be that of this
                joint, or is far from the expected one.
        """
        if (values := self._values(state)) is None:
            raise CommandRefused(f"start needs finite states of {self.robot.n} joints, got q = {state.q}")
        q, qd, tau = values
        self._spans[0] = -1.0
        code = believable(q, qd, tau, self._spans, self._memory, self._scale)
        if code // 256 == NONFINITE:
            raise CommandRefused(f"start needs finite states of {self.robot.n} joints, got q = {state.q}")
        if code:
            j, s = code % 256, self._scale
            if s[LOW, j] <= q[j] <= s[HIGH, j]:
                raise CommandRefused(f"start: {self.robot.joints[j]} reads {qd[j]:.3g} rad/s and {tau[j]:.3g} N m")
            raise CommandRefused(TOLD_AT_START.format(self.robot.joints[j], q[j], s[LOW, j], s[HIGH, j]))
        if expected is not None and np.abs(q - expected).max() > self.config.pose:
            j = int(np.abs(q - expected).argmax())
            raise CommandRefused(
                f"start: {self.robot.joints[j]} reads {q[j]:.4f} rad, expected {expected[j]:.4f} "
                f"within {self.config.pose}: wrong order, sign or calibration?"
            )
        self.state, self._now, self._fresh = state, state.t, state.t
        self._seq = self._good_seq = int(state.seq)
        self._good, self._bad, self._found = state.t, 0, GOOD
        self._memory[:] = 0.0
        self._memory[Q], self._memory[QD], self._memory[TAU] = q, qd, tau

    def resume(self) -> None:
        """After an operator's reset: what was found is forgotten, and the driver may count anew."""
        self._memory[3:] = 0.0
        self._found, self._bad, self._seq = GOOD, 0, -1

    def reading(self, state: RobotState, now: float, u: Array, ud: Array) -> Event | None:
        """Note what is known at a tick; the most urgent event it makes.

        Args:
            state: The newest reading; the same one again if there is no newer.
            now: Monotonic time [s].
            u: Positions commanded last [rad], (n,), float64.
            ud: Their speeds [rad/s], (n,), float64.
        """
        back = self._clock(now)
        if self._is_new(int(state.seq)):
            self._take(state, u, ud)
        if self._bad >= self.config.bad:
            return self._worst
        age = self._now - self._fresh
        if age > self.config.state_stale + 1e-9:
            self.detail = f"no believable reading for {1e3 * age:.1f} ms"
            return Event.STATE_STALE
        if self._found:
            return EVENTS[self._found]
        if back:
            return Event.CLOCK_BACKWARDS
        return Event.READING_GAP if age > self._gap + 1e-9 else None

    def _clock(self, now: float) -> bool:
        """Note the time; whether it went backwards.  Ages go on from where they were."""
        back = not now >= self._now
        if back:
            self.counts["clock"] += 1
            self.detail = f"the clock went from {self._now:.6f} to {now:.6f} s"
            if not math.isfinite(now):
                now = self._now + self.dt
            shift = now - self._now - self.dt
            self._fresh += shift
            self._good += shift
        self._now = now
        return back

    def _is_new(self, seq: int) -> bool:
        """Whether a reading is a later one than those before."""
        if seq == self._seq:
            self.counts["repeated"] += 1
            return False
        if seq < self._seq:
            self.counts["backwards"] += 1
            self.detail = f"reading {seq} after {self._seq}"
            return False
        if self._seq >= 0:
            self.counts["lost"] += seq - self._seq - 1
        else:
            self._good_seq = seq - 1
        self._seq = seq
        return True

    def _take(self, state: RobotState, u: Array, ud: Array) -> None:
        """Judge a new reading."""
        self.counts["readings"] += 1
        if not abs(state.t - self._now) < 0.1:
            self.counts["stamp"] += 1
        values = self._values(state)
        if values is None:
            self.counts["unshaped"] += 1
            self.detail = f"a reading is not {self.robot.n} numbers of each kind"
            return self._drop(Event.STATE_NONFINITE)
        self._spans[0], self._spans[1] = self._now - self._good, (self._seq - self._good_seq) * self.dt
        code = look(*values, u, ud, self._spans, self._memory, self._scale, self._tune, self.robot.n_arm)
        found, joint = divmod(code, 256)
        if found:
            self.detail = f"{self.robot.joints[joint]} {TOLD[found]}"
        if found in (NONFINITE, IMPLAUSIBLE):
            self.counts["nonfinite" if found == NONFINITE else "implausible"] += 1
            return self._drop(Event.STATE_NONFINITE if found == NONFINITE else Event.STATE_IMPLAUSIBLE)
        # A sensor thaws by itself; a joint found to be another stays so until an operator has looked.
        self._found = found if self._found in (GOOD, FROZEN) or found not in (GOOD, FROZEN) else self._found
        self.state, self._bad = state, 0
        self._fresh = self._good = self._now
        self._good_seq = self._seq

    def _drop(self, event: Event) -> None:
        self._bad, self._worst = self._bad + 1, event

    def _values(self, state: RobotState) -> tuple[Array, Array, Array] | None:
        """The reading's arrays as (n,) float64, None if they are not."""
        try:
            q, qd, tau = (np.ascontiguousarray(x, dtype=np.float64) for x in (state.q, state.qd, state.tau))
        except (TypeError, ValueError):
            return None
        shape = (self.robot.n,)
        return (q, qd, tau) if q.shape == qd.shape == tau.shape == shape else None
