"""The 1 kHz filter: a policy's chunks in, one safe command and a verdict out per tick; it has the last word.

    check -> chunk check -> reflex -> one QP -> verifier -> watchdog and stop state

Why no sent command violates a hard row: every tick leaves behind a state whose stop trajectory was verified
to its end.  A candidate of the QP is sent only if the state it leads to is of that kind.  Else the stop law's
tick is sent, and because that law is memoryless the rest of its verified trajectory is verified.  See
``docs/filter.md`` for what is assumed.  Not safety-rated.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numba import njit

from palmar.safety.chunks import ChunkConfig, ChunkPlayer
from palmar.safety.constraints import ConstraintSet
from palmar.safety.geometry import FAR, Kinematics, pair_gap, poses
from palmar.safety.intention import intend, step
from palmar.safety.obstacles import nothing
from palmar.safety.qp import SOLVED, AccelerationQP, BarrierConfig
from palmar.safety.robot import RobotModel
from palmar.safety.stop import FAILURES, OK, Space, bounds_of, posture, stop_law, verify_stop, work_of
from palmar.safety.types import (
    CONTACT_PAIRS,
    Chunk,
    Command,
    CommandRefused,
    ConfigError,
    Measurement,
    State,
    Verdict,
)
from palmar.safety.watchdog import Event, Watchdog, WatchdogConfig

Array = np.ndarray

MODES = ("enforce", "shadow")
QP_FAULTS = (
    "",
    "qp_infeasible",
    "qp_not_feasible",
    "qp_not_stationary",
    "qp_not_complementary",
    "qp_not_finite",
)
AT_REST = 0.05
"""Largest measured speed of a robot that counts as at rest at the start [rad/s]."""


@dataclass(frozen=True)
class FilterConfig:
    """How the filter works; what it enforces stands in the constraint file."""

    dt: float = 0.001
    """Period of the tick [s]."""
    allowance: float = 1e-5
    """Kept back from every clearance and side of the workspace for rounding [m]."""
    table_tracking: float = 0.004
    """Kept back from the table because the measured hand is not where it was commanded [m]: joints whose servos lag
    differently dip 2.1 mm lower under a hostile policy (``tests/test_one_constraint.py``)."""
    barrier: BarrierConfig = field(default_factory=BarrierConfig)
    chunks: ChunkConfig = field(default_factory=ChunkConfig)
    watchdog: WatchdogConfig = field(default_factory=WatchdogConfig)

    def __post_init__(self) -> None:
        if not 0 <= self.table_tracking < 0.05:
            raise ConfigError(f"need 0 <= table_tracking < 0.05, got {self.table_tracking}")
        if not (0 < self.dt <= 0.02 and 0 <= self.allowance < 0.01):
            raise ConfigError(f"need 0 < dt <= 0.02 and 0 <= allowance < 0.01, got {self.dt}, {self.allowance}")


class Reading(Protocol):
    """What a tick needs of a driver's state; ``palmar.sim.interface.RobotState`` is one."""

    @property
    def t(self) -> float:
        """Monotonic time of the reading [s]."""
        ...

    @property
    def seq(self) -> int:
        """Counts readings; a repeated number is a repeated reading."""
        ...

    @property
    def q(self) -> Array:
        """[rad], (n,)."""
        ...

    @property
    def qd(self) -> Array:
        """[rad/s], (n,)."""
        ...

    @property
    def tau(self) -> Array:
        """[N m], (n,)."""
        ...


class Reflex(Protocol):
    """Chooses the candidate motion from the measurement, between policy ticks."""

    def propose(self, m: Measurement | None, wanted: Array) -> Array:
        """The acceleration to ask the QP for [rad/s2], (n,)."""
        ...


class NoReflex:
    """Asks for what the policy wants."""

    def propose(self, m: Measurement | None, wanted: Array) -> Array:
        """``wanted``."""
        return wanted


@njit(cache=True, nogil=True)
def _sound(q, qd, tau):
    """Whether a reading is finite."""
    for i in range(len(q)):
        if not (math.isfinite(q[i]) and math.isfinite(qd[i]) and math.isfinite(tau[i])):
            return False
    return True


@njit(cache=True, nogil=True)
def _astray(q, u, most):
    """Whether a joint is further from its command than it may be."""
    for i in range(len(q)):
        if abs(q[i] - u[i]) > most[i]:
            return True
    return False


@njit(cache=True, nogil=True)
def _look(tree, q, w, palm):
    """Self clearance (clamped to FAR), table clearance and palm position at q."""
    poses(tree, q, w.p, w.r, w.axis, w.anchor, w.ends)
    palm[:] = w.p[tree.palm]
    own, low = FAR, np.inf
    for i in range(len(tree.pairs)):
        own = min(own, pair_gap(tree, w.ends, i, own))
    for i in range(len(tree.table)):
        g = tree.table[i]
        low = min(low, min(w.ends[g, 0, 2], w.ends[g, 1, 2]) - tree.radius[g])
    return own, low


def space_of(constraints: ConstraintSet, allowance: float, table_tracking: float = 0.0) -> Space:
    """The hard rows' limits of the geometry, tighter by what is kept back [m]; infinite where there is none."""
    own = table = -math.inf
    lower, upper = np.full(3, -np.inf), np.full(3, np.inf)
    for c in constraints.constraints:
        if c.runtime != "hard row":
            continue
        keep = allowance + c.error
        if c.margin == "self_clearance":
            own = max(own, c.params["limit"] + keep)
        elif c.margin == "table_clearance":
            table = max(table, c.params["limit"] + keep + table_tracking)
        elif c.margin == "workspace":
            lower = np.maximum(lower, np.array(c.params["lower"], dtype=np.float64) + keep)
            upper = np.minimum(upper, np.array(c.params["upper"], dtype=np.float64) - keep)
    if own > FAR or np.any(lower >= upper):
        raise ConfigError(f"self clearance limit {own} above {FAR} m, or empty workspace {lower} to {upper}")
    return Space(own, table, lower, upper)


class Filter:
    """The filter of one robot.  One thread; nothing here blocks or allocates much."""

    def __init__(
        self,
        robot: RobotModel,
        constraints: ConstraintSet,
        config: FilterConfig | None = None,
        *,
        mode: str = "enforce",
        reflex: Reflex | None = None,
    ) -> None:
        """Prepare; compiles the kernels on a machine's first use.

        Args:
            robot: The robot.
            constraints: The constraint file, bound to the robot's limits.
            config: How the filter works; None for the defaults.
            mode: ``enforce``, or ``shadow``: the intended command passes and the verdict says what would have
                been done.  Bad input, the watchdog and an operator's stop act in both.
            reflex: Chooses the candidate motion.

        Raises:
            ConfigError: If robot, constraints or mode cannot be used.
        """
        if mode not in MODES:
            raise ConfigError(f"mode {mode!r}, accepted {list(MODES)}")
        self.robot, self.constraints, self.mode = robot, constraints, mode
        self.config = config = config or FilterConfig()
        self.reflex = reflex or NoReflex()
        hard = [c for c in constraints.constraints if c.runtime.endswith("row")]
        buffer = max([c.params["buffer"] for c in hard if c.margin == "joint_position"], default=0.0)
        torque = max([c.error for c in hard if c.margin == "joint_torque"], default=None)
        self.kinematics = Kinematics.from_model(robot)
        self.bounds, self.space = (
            bounds_of(constraints.limits, buffer),
            space_of(constraints, config.allowance, config.table_tracking),
        )
        self.obstacles = nothing()
        self.qp = AccelerationQP(
            robot, self.kinematics, self.bounds, self.space, config.barrier, dt=config.dt, torque_error=torque
        )
        self.watchdog = Watchdog(config.watchdog, config.dt)
        self.player = ChunkPlayer(robot.joints, config.chunks)
        self._deviation = np.full(robot.n, config.watchdog.deviation_hand)
        self._deviation[: robot.n_arm] = config.watchdog.deviation_arm
        plain = [c for c in constraints.constraints if c.source != "simulation only"]
        self._sets = {
            True: constraints.select(tuple(c.name for c in plain)),
            False: constraints.select(tuple(c.name for c in plain if not c.remembers)),
        }
        n = robot.n
        self._work = work_of(self.kinematics.tree)
        self._wanted, self._stop, self._q, self._v = np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n)
        self._nothing = (np.full(len(CONTACT_PAIRS), np.nan), np.zeros((0, 3)), np.zeros((0, 4)))
        self._started, self._fresh, self._foresee = False, False, 0
        self._chosen: ConstraintSet | None = None
        self._carry: dict[str, Array] = {}
        self._state: Reading | None = None
        self._now, self.seq = -math.inf, -1
        self.u, self.ud, self.udd = np.zeros(n), np.zeros(n), np.zeros(n)
        self._warm_up()
        self.measurement: Measurement | None = None
        """The measurement of the last tick, without batch dimensions."""
        self.foreseen: tuple[float, str] | None = None
        """Time and constraint of the first pending target that is not safe, as far as checked."""

    def _warm_up(self) -> None:
        """Call every kernel once, so that none is compiled or loaded while the robot moves."""
        home, zero, tree = np.array(self.robot.home, dtype=np.float64), self.ud, self.kinematics.tree
        intend(home, zero, zero, home, zero, self.bounds, self.config.dt, self._wanted)
        self.qp.solve(home, zero, zero, zero)
        step(home, zero, zero, self.config.dt, self._q, self._v)
        stop_law(zero, zero, self.bounds, self.config.dt, self._stop)
        verify_stop(tree, self.bounds, self.space, self.obstacles, home, zero, zero, self.config.dt, self._work)
        posture(tree, self.bounds, self.space, self.obstacles, home, self._work)
        _look(tree, home, self._work, np.empty(3))
        _sound(home, zero, zero)
        _astray(home, home, self._deviation)

    @property
    def state(self) -> State:
        """What the filter is doing."""
        return self.watchdog.state

    def start(self, state: Reading) -> None:
        """Begin at a measured pose at rest; the filter then holds until the first chunk.

        Raises:
            CommandRefused: If it is running, the reading is unusable, the robot moves, or its pose violates a
                limit or clearance.
        """
        if self._started and self.watchdog.state is not State.LATCHED:
            raise CommandRefused(f"start needs a new or latched filter, it is in {self.watchdog.state.value}")
        if not self._usable(state):
            raise CommandRefused(f"start needs finite states of {self.robot.n} joints, got q = {state.q}")
        if np.abs(state.qd).max() > AT_REST:
            raise CommandRefused(f"start needs a robot at rest (|qd| <= {AT_REST}), got {state.qd}")
        q = np.array(state.q, dtype=np.float64)
        code = posture(self.kinematics.tree, self.bounds, self.space, self.obstacles, q, self._work)
        if code != OK and self.mode == "enforce":
            raise CommandRefused(f"start pose violates {FAILURES[code]}: q = {np.round(q, 4).tolist()}")
        self.u, self.ud, self.udd = q, np.zeros(self.robot.n), np.zeros(self.robot.n)
        self._state, self._now, self._started, self._fresh, self._chosen = state, state.t, True, False, None
        self.player.rest(q, state.t)
        self.watchdog.start(state.t, state.seq)

    def offer(self, chunk: Chunk) -> None:
        """Take a policy's chunk.

        Raises:
            CommandRefused: If it cannot be followed; nothing changes then.
        """
        if not self._started:
            raise CommandRefused(f"chunk {chunk.seq}: the filter has not been started")
        self.player.offer(chunk)
        self._fresh, self._foresee, self.foreseen = True, 0, None

    def stop(self, reason: str = Event.OPERATOR_STOP.value) -> None:
        """An operator's stop: takes effect in the next tick and needs a ``reset``."""
        self.watchdog.happen(Event.OPERATOR_STOP, reason)

    def hold(self, reason: str) -> None:
        """Come to rest with power on (category 2) and wait for a chunk newer than any taken so far."""
        if self.watchdog.state is State.RUN:
            self.watchdog.happen(Event.CHUNK_STALE, reason)
        self._fresh = False

    def reset(self) -> None:
        """Leave LATCHED for HOLD.

        Raises:
            CommandRefused: If the filter is not latched, or a joint is still too far from its command (then
                ``start`` anew from the measured pose).
        """
        if self.watchdog.state is not State.LATCHED:
            raise CommandRefused(f"reset is accepted in latched, the filter is in {self.watchdog.state.value}")
        assert self._state is not None
        far = np.abs(self._state.q - self.u)
        if np.any(far > self._deviation):
            j = self.robot.joints[int((far - self._deviation).argmax())]
            raise CommandRefused(f"reset refused: {j} is {far.max():.3f} rad from its command; start anew")
        self._fresh = False
        self.watchdog.happen(Event.RESET)

    def tick(
        self, state: Reading, now: float, *, objects: tuple[Array, Array] | None = None
    ) -> tuple[Command, Verdict]:
        """The next command.

        Args:
            state: Newest reading of the robot; the same one again if there is no newer.
            now: Monotonic time [s].
            objects: Positions (m, 3) and quaternions (m, 4) of tracked objects, for the monitors.

        Raises:
            CommandRefused: If the filter has not been started.
        """
        begin = time.thread_time()
        if not self._started:
            raise CommandRefused("tick: the filter has not been started")
        self._watch(state, now)
        running = self.watchdog.state is State.RUN
        if running:
            self._look_ahead()
            sent, changed, edit, reason, active = self._follow(now)
        else:
            stop_law(self.ud, self.udd, self.bounds, self.config.dt, self._stop)
            sent, edit, reason, active = self._stop, float(np.abs(self._stop).max()), self.watchdog.reason, ()
            changed = edit > 0.0
        jerk = (sent - self.udd) / self.config.dt
        u, ud = np.empty_like(self.u), np.empty_like(self.ud)
        step(self.u, self.ud, sent, self.config.dt, u, ud)
        self.u, self.ud, self.udd = u, ud, sent.copy()
        if not running:
            self.player.rest(u, now)
            if self.watchdog.state is State.STOP and not (np.any(np.abs(ud) > 1e-9) or np.any(sent)):
                self.watchdog.happen(Event.AT_REST)
        self.seq += 1
        margins = self._margins(jerk, objects)
        command = Command(q=u.copy(), seq=self.seq, stamp=now + self.config.dt)
        used = time.thread_time() - begin
        return command, Verdict(self.watchdog.state, reason, changed, edit, active, margins, used)

    def _usable(self, state: Reading) -> bool:
        """Whether a reading has the right shape and is finite."""
        n = self.robot.n
        return len(state.q) == len(state.qd) == len(state.tau) == n and _sound(
            np.asarray(state.q, np.float64),
            np.asarray(state.qd, np.float64),
            np.asarray(state.tau, np.float64),
        )

    def _watch(self, state: Reading, now: float) -> None:
        """Let happen what this tick shows, most urgent first."""
        dog = self.watchdog
        late = dog.late(now)
        self._now = now
        finite = self._usable(state)
        if finite:
            self._state = state
        event = dog.reading(state.seq, finite, now)
        if event is None and finite and _astray(np.asarray(state.q, np.float64), self.u, self._deviation):
            event = Event.TRACKING_ERROR
        if event is None and late:
            event = Event.MISSED_PERIOD
        if event is None and self.player.age(now) > self.config.chunks.timeout and dog.state is State.RUN:
            event = Event.CHUNK_STALE
        if event is not None:
            dog.happen(event)
            self._fresh = False
        elif self._fresh and dog.state is State.HOLD:
            dog.happen(Event.CHUNK_FRESH)
            self._fresh = False

    def _look_ahead(self) -> None:
        """Check one more pending target per tick, so that a long chunk costs no tick its time."""
        _, targets = self.player.pending()
        if self.foreseen is None and self._foresee < len(targets):
            times, k = self.player.pending()[0], self._foresee
            code = posture(self.kinematics.tree, self.bounds, self.space, self.obstacles, targets[k], self._work)
            self._foresee += 1
            if code != OK:
                self.foreseen = (float(times[k]), FAILURES[code])

    def _follow(self, now: float) -> tuple[Array, bool, float, str, tuple[str, ...]]:
        """The acceleration to send in RUN, whether and how much it was changed, why, and what was active."""
        r, rd = self.player.reference(now)
        dt, scale = self.config.dt, self.bounds.a
        intend(self.u, self.ud, self.udd, r, rd, self.bounds, dt, self._wanted)
        wanted = self.reflex.propose(self.measurement, self._wanted)
        reason, active = "", ()
        if not np.isfinite(wanted).all():
            code, reason = -1, "reflex_not_finite"
        else:
            code, x = self.qp.solve(self.u, self.ud, self.udd, wanted)
        if code == SOLVED:
            active = self.qp.active
            step(self.u, self.ud, x, dt, self._q, self._v)
            found, _, _ = verify_stop(
                self.kinematics.tree, self.bounds, self.space, self.obstacles, self._q, self._v, x, dt, self._work
            )
            reason = "" if found == OK else "unverified_" + FAILURES[found]
        elif code > 0:
            reason = QP_FAULTS[code]
        if reason:
            x = self._stop
            stop_law(self.ud, self.udd, self.bounds, dt, x)
            active = (FAILURES[found],) if code == SOLVED else ()
        change = np.abs(x - self._wanted)
        changed = bool(np.any(change > 1e-5 * scale))
        if changed and not reason:
            reason = active[0] if active else "limits"
        sent = self._wanted if self.mode == "shadow" else x
        return sent, changed, float(change.max()), reason, active

    def _margins(self, jerk: Array, objects: tuple[Array, Array] | None) -> dict[str, float]:
        """Margins of the sent command and the measured state, by the same functions as in training."""
        state = self._state
        assert state is not None
        palm = np.empty(3)
        q = np.asarray(state.q, dtype=np.float64)
        own, low = _look(self.kinematics.tree, q, self._work, palm)
        force, position, quaternion = self._nothing
        if objects is not None:
            position, quaternion = objects
        m = self.measurement = Measurement(
            t=np.float64(state.t),
            q=q,
            qd=state.qd,
            tau=state.tau,
            u=self.u,
            ud=self.ud,
            udd=self.udd,
            uddd=jerk,
            palm_position=palm,
            clearance_self=np.array(own),
            clearance_table=np.array(low),
            contact_force=force,
            object_position=position,
            object_quaternion=quaternion,
        )
        chosen = self._sets[objects is not None and len(position) > 0]
        if chosen is not self._chosen:
            self._chosen, self._carry = chosen, chosen.start(m)
        values, self._carry = chosen.margins(m, self._carry)
        return dict(zip(chosen.names, values.tolist(), strict=True))
