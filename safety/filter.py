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
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from palmar.safety import obstacles as cell
from palmar.safety.barrier import BarrierConfig, Slots
from palmar.safety.check import Check, CheckConfig
from palmar.safety.chunks import ChunkConfig, ChunkPlayer
from palmar.safety.constraints import ConstraintSet
from palmar.safety.enforced import KeepBack, enforced
from palmar.safety.geometry import Kinematics
from palmar.safety.hulls import Detail
from palmar.safety.intention import intend, step
from palmar.safety.judge import Judge
from palmar.safety.lookahead import LookAhead
from palmar.safety.qp import FAULTS, SOLVED, AccelerationQP, TankRows
from palmar.safety.reflex import NoReflex, Proposal, Reflex
from palmar.safety.robot import RobotModel
from palmar.safety.rows import KINDS, REGION_KIND
from palmar.safety.stop import stop_law
from palmar.safety.tank import ARM, HAND, Tank, TankConfig, check_impedance, servo_of
from palmar.safety.torque import effort_of
from palmar.safety.types import (
    Chunk,
    Command,
    CommandRefused,
    ConfigError,
    Measurement,
    People,
    RobotState,
    State,
    Verdict,
)
from palmar.safety.verify import Verifier
from palmar.safety.watchdog import HOLDING, Event, Watchdog, WatchdogConfig

Array = np.ndarray

MODES = ("enforce", "shadow")
AT_REST = 0.05
"""Largest measured speed of a robot that counts as at rest at the start [rad/s]."""
OBJECT_RADIUS = 0.05
"""Tracked objects are spheres of this radius to the approach speed [m]."""


@dataclass(frozen=True)
class FilterConfig:
    """How the filter works; what it enforces stands in the constraint file."""

    dt: float = 0.001
    """Period of the tick [s]."""
    keep_back: KeepBack = field(default_factory=KeepBack)
    detail: Detail = field(default_factory=Detail)
    """What sticks out of the robot's capsules, enforced besides them (``configs/filter``)."""
    barrier: BarrierConfig = field(default_factory=BarrierConfig)
    slots: Slots = field(default_factory=Slots)
    chunks: ChunkConfig = field(default_factory=ChunkConfig)
    check: CheckConfig = field(default_factory=CheckConfig)
    watchdog: WatchdogConfig = field(default_factory=WatchdogConfig)
    tanks: tuple[TankConfig, TankConfig] = (ARM, HAND)
    """Energy of arm and hand, where the constraint file asks for tanks; the floor is the file's."""
    torque_reserve: float = 0.05
    """Part of every torque limit kept back for what lies between the samples of a stop."""
    people_timeout: float = 0.1
    """Age by receive time from which people count as lost [s]."""
    timing: bool = False
    """Whether verdicts say how long each layer took."""

    def __post_init__(self) -> None:
        if not (0 < self.dt <= 0.02 and 0 < self.people_timeout <= 1.0):
            raise ConfigError(f"need 0 < dt <= 0.02 and 0 < people_timeout <= 1, got {self.dt}, {self.people_timeout}")


class Sent(NamedTuple):
    """What a tick decided on."""

    x: Array
    """Acceleration [rad/s2], (n,)."""
    changed: bool
    edit: float
    reason: str
    active: tuple[str, ...]
    stiffness: Array | None
    """[N m/rad], (n,); None without tanks."""


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
        self.enforced = asked = enforced(constraints, config.keep_back)
        self.bounds, self.space = asked.bounds, asked.space
        self.kinematics = Kinematics.from_model(robot, config.detail, own=config.keep_back.own)
        """Of the enforced geometry, skins included."""
        self._plain = Kinematics.from_model(robot)
        self.obstacles = cell.keep_outs(constraints, config.keep_back.keep_out)
        self.qp = AccelerationQP(
            robot, self.kinematics, self.bounds, self.space, config.barrier, dt=config.dt, torque=asked.torque,
            people=asked.people, impact=asked.impact, slots=config.slots,
        )  # fmt: skip
        effort = effort_of(
            self.qp.inertia, robot.limits.tau_max, self.bounds, arm=robot.n_arm, reserve=config.torque_reserve
        )
        self.verifier = Verifier(self.kinematics.tree, self.bounds, self.space, self.qp.inertia, effort, config.dt)
        self.check = Check(robot, config.check, config.dt)
        self.tank: Tank | None = None
        """Of arm and hand, where the constraint file enforces one."""
        if asked.floor is not None:
            self.tank = Tank(
                self._plain, self.bounds, servo_of(self._plain), arm=robot.n_arm, dt=config.dt,
                configs=tuple(replace(c, floor=asked.floor) for c in config.tanks),  # type: ignore[arg-type]
            )  # fmt: skip
        self.watchdog = Watchdog(config.watchdog, config.dt, arm=robot.n_arm, joints=robot.n)
        self.player = ChunkPlayer(robot.joints, config.chunks)
        self.lookahead = LookAhead(self._plain.tree, self.bounds, constraints, config.dt)
        self.judge = Judge(constraints, self._plain.tree, self.qp.inertia, tank=self.tank is not None)
        n = robot.n
        self._level = math.inf
        self._damping: Array | None = None
        self.wanted = np.zeros(n)
        """Acceleration that the policy's reference asks for in this tick [rad/s2], (n,)."""
        self._stop, self._q, self._v = np.zeros(n), np.zeros(n), np.zeros(n)
        self._codes = _codes(asked.names)
        self._started, self._fresh = False, False
        self._state: RobotState | None = None
        self._now, self.seq = -math.inf, -1
        self.u, self.ud, self.udd = np.zeros(n), np.zeros(n), np.zeros(n)
        self.measurement: Measurement | None = None
        """The measurement of the last tick, without batch dimensions."""
        self.foreseen: tuple[float, str] | None = None
        """Time and constraint of the first tick that would violate one if nothing were edited, where known."""
        self.edited: tuple[int, float] | None = None
        """Chunk whose motion is being changed, and the time of the first tick that was."""
        self._laps: dict[str, float] = {}
        self._lap = 0
        self.counts: dict[str, int] = {"ticks": 0, "changed": 0, "unverified": 0, "people_lost": 0}
        self._warm_up()

    def _warm_up(self) -> None:
        """Call every kernel once, so that none is compiled or loaded while the robot moves."""
        home, zero, dt = np.array(self.robot.home, dtype=np.float64), self.ud, self.config.dt
        intend(home, zero, zero, home, zero, self.bounds, dt, self.wanted)
        self.qp.solve(home, zero, zero, zero, obstacles=self.obstacles)
        step(home, zero, zero, dt, self._q, self._v)
        stop_law(zero, zero, self.bounds, dt, self._stop)
        self.verifier.fault(self.obstacles, home, zero, zero)
        self.verifier.standing(self.obstacles, home)
        self.player.rest(home, 0.0)
        self.lookahead.advance(self.player, home, zero, zero, 0.0)
        self.watchdog.astray(home, home)
        self.judge.warm_up(home, self.obstacles)
        self.qp.counts = dict.fromkeys(self.qp.counts, 0)
        self.player = ChunkPlayer(self.robot.joints, self.config.chunks)

    @property
    def state(self) -> State:
        """What the filter is doing."""
        return self.watchdog.state

    def start(self, state: RobotState) -> None:
        """Begin at a measured pose at rest; the filter then holds until the first chunk.

        Raises:
            CommandRefused: If it is running, the reading is unusable, the robot moves, or its pose violates a
                limit or clearance.
        """
        if self._started and self.watchdog.state is not State.LATCHED:
            raise CommandRefused(f"start needs a new or latched filter, it is in {self.watchdog.state.value}")
        self.watchdog.check_start(state.t)
        self.check.start(state)
        if np.abs(state.qd).max() > AT_REST:
            raise CommandRefused(f"start needs a robot at rest (|qd| <= {AT_REST}), got {state.qd}")
        q = np.array(state.q, dtype=np.float64)
        if (code := self.verifier.standing(self.obstacles, q)) and self.mode == "enforce":
            raise CommandRefused(f"start pose violates {code}: q = {np.round(q, 4).tolist()}")
        self.u, self.ud, self.udd = q, np.zeros(self.robot.n), np.zeros(self.robot.n)
        self._state, self._now, self._started, self._fresh = state, state.t, True, False
        self._damping = None
        if self.tank is not None:
            self.tank.start(int(state.seq), q, q, np.array(state.tau, dtype=np.float64))
        self.judge.forget()
        self.player.rest(q, state.t)
        self.watchdog.start(state.t)

    def offer(self, chunk: Chunk) -> None:
        """Take a policy's chunk.

        Raises:
            CommandRefused: If it cannot be followed; nothing changes then.
        """
        if not self._started:
            raise CommandRefused(f"chunk {chunk.seq}: the filter has not been started")
        check_impedance(chunk, self.tank)
        self.player.offer(chunk)
        self._fresh, self.foreseen, self.edited = True, None, None

    def stop(self, reason: str = Event.OPERATOR_STOP.value) -> None:
        """An operator's stop: takes effect in the next tick and needs a ``reset``."""
        self.watchdog.happen(Event.OPERATOR_STOP, reason)

    def estop(self, reason: str = "operator_estop") -> None:
        """An emergency stop is pressed: needs a ``release``, and then a ``reset``."""
        self.watchdog.press(reason)

    def release(self) -> None:
        """The emergency stop is released; nothing moves before a ``reset``."""
        self.watchdog.release()

    def hold(self, reason: str) -> None:
        """Come to rest with power on (category 2) and wait for a chunk newer than any taken so far."""
        if self.watchdog.state is State.RUN:
            self.watchdog.happen(Event.CHUNK_STALE, reason)
        self._fresh = False

    def reset(self) -> None:
        """Leave LATCHED for HOLD.

        Raises:
            CommandRefused: If the filter is not latched, the emergency stop is pressed, or a joint is still too far
                from its command (then ``start`` anew from the measured pose).
        """
        if refusal := self.watchdog.refusal():
            raise CommandRefused(f"reset refused: {refusal}")
        assert self._state is not None
        far, most = np.abs(self._state.q - self.u), self.watchdog.deviation
        if np.any(far > most):
            j = self.robot.joints[int((far - most).argmax())]
            raise CommandRefused(f"reset refused: {j} is {far.max():.3f} rad from its command; start anew")
        self._fresh = False
        self.check.resume()
        if self.tank is not None:
            self.tank.refill()  # a new budget, as the operator decides
        self.watchdog.happen(Event.RESET)

    def tick(
        self,
        state: RobotState,
        now: float,
        *,
        objects: tuple[Array, Array] | None = None,
        people: People | None = None,
    ) -> tuple[Command, Verdict]:
        """The next command.

        Args:
            state: Newest reading of the robot; the same one again if there is no newer.
            now: Monotonic time [s].
            objects: Positions (m, 3) and quaternions (m, 4) of tracked objects.
            people: Newest message of the person tracker; None for none yet.  Only a constraint file that separates
                from people asks for one, and then a message too old or unusable means a person is present: HOLD.

        Raises:
            CommandRefused: If the filter has not been started.
        """
        begin = time.thread_time()
        self._laps, self._lap = {}, time.thread_time_ns()
        if not self._started:
            raise CommandRefused("tick: the filter has not been started")
        seen = self._look_around(objects, people, now)
        self._watch(state, now, seen)
        self._timed("check")
        running = self.watchdog.state is State.RUN
        sent = self._follow(now) if running else self._brake(now)
        jerk = (sent.x - self.udd) / self.config.dt
        u, ud = np.empty_like(self.u), np.empty_like(self.ud)
        step(self.u, self.ud, sent.x, self.config.dt, u, ud)
        self.u, self.ud, self.udd = u, ud, sent.x.copy()
        if not running:
            self.player.rest(u, now)
            if self.watchdog.state is State.STOP and not (np.any(np.abs(ud) > 1e-9) or np.any(sent.x)):
                self.watchdog.happen(Event.AT_REST)
        elif sent.changed:
            self.edited = self.edited or (self.player.seq, now)
            self.counts["changed"] += 1
            if self.mode == "enforce":
                self.lookahead.edited()
        self.seq += 1
        self.counts["ticks"] += 1
        command = self._command(sent, now)
        assert self._state is not None
        self.measurement = self.judge.measurement(
            self._state,
            u,
            ud,
            self.udd,
            jerk,
            dt=self.config.dt,
            obstacles=self.obstacles,
            objects=objects,
            level=self._level,
        )
        margins = self.judge.margins(self.measurement)
        self._timed("margins")
        used = time.thread_time() - begin
        verdict = Verdict(
            self.watchdog.state, sent.reason, sent.changed, sent.edit, sent.active, margins, used, self._laps
        )
        return command, verdict

    def _command(self, sent: Sent, now: float) -> Command:
        """The command of this tick, entered into the tanks."""
        stamp = now + self.config.dt
        if self.tank is None:
            return Command(q=self.u.copy(), seq=self.seq, stamp=stamp)
        u = self.u.copy()
        self.tank.sent(stamp, u, sent.stiffness)
        if self._damping is None:
            return Command(q=u, seq=self.seq, stamp=stamp)
        return Command(q=u, seq=self.seq, stamp=stamp, stiffness=self.tank.stiffness, damping=self._damping)

    def _meter(self, now: float, stiffness: Array | None) -> TankRows | None:
        """Enter the newest reading into the tanks; what they allow in this tick."""
        if self.tank is None or self._state is None:
            return None
        s = self._state
        q, qd, tau = (np.asarray(x, dtype=np.float64) for x in (s.q, s.qd, s.tau))
        reading = (s.t, int(s.seq), q, qd, tau)
        self._level = float(self.tank.meter(now, reading, self.ud, self.udd, stiffness).min())
        return TankRows(*self.tank.rows)

    def _timed(self, layer: str) -> None:
        """Note the CPU time since the last lap."""
        if self.config.timing:
            now = time.thread_time_ns()
            self._laps[layer], self._lap = (now - self._lap) * 1e-9, time.thread_time_ns()

    def _look_around(self, objects: tuple[Array, Array] | None, people: People | None, now: float) -> bool:
        """Put people and objects into the cell; whether people are known where they must be."""
        seen = True
        if self.enforced.people is not None:
            fresh = people is not None and 0.0 <= now - people.received <= self.config.people_timeout
            try:
                self.obstacles = cell.with_people(self.obstacles, people if fresh else None)
                seen = fresh
            except CommandRefused:
                self.obstacles, seen = cell.with_people(self.obstacles, None), False
            self.counts["people_lost"] += not seen
        if math.isfinite(self.enforced.impact) and objects is not None:
            try:
                self.obstacles = cell.with_objects(self.obstacles, objects[0], OBJECT_RADIUS)
            except CommandRefused:
                self.counts["objects_refused"] = self.counts.get("objects_refused", 0) + 1
        return seen

    def _watch(self, state: RobotState, now: float, seen: bool) -> None:
        """Let happen what this tick shows, most urgent first."""
        dog = self.watchdog
        late = dog.late(now)
        self._now = now
        # A soft robot may be pushed anywhere: what it obeys is then not to be seen from its positions.
        obeyed = self.u if self._damping is None or self._state is None else np.asarray(self._state.q, dtype=np.float64)
        event = self.check.reading(state, now, obeyed, self.ud)
        assert self.check.state is not None
        self._state = self.check.state
        q = np.asarray(self._state.q, dtype=np.float64)
        if (event is None or event in HOLDING) and self.watchdog.astray(q, self.u):
            event = Event.TRACKING_ERROR
        if event is None and late:
            event = Event.MISSED_PERIOD
        if event is None and not seen:
            event = Event.PERSON_LOST
        if event is None and self.player.age(now) > self.config.chunks.timeout and dog.state is State.RUN:
            event = Event.CHUNK_STALE
        if event is not None:
            dog.happen(event)
            self._fresh = False
        elif self._fresh and dog.state is State.HOLD:
            dog.happen(Event.CHUNK_FRESH)
            self._fresh = False

    def _brake(self, now: float) -> Sent:
        """The stop law's tick; stiffness stays as it is."""
        self._meter(now, None)
        stop_law(self.ud, self.udd, self.bounds, self.config.dt, self._stop)
        edit = float(np.abs(self._stop).max())
        self.foreseen = None
        return Sent(self._stop, edit > 0.0, edit, self.watchdog.reason, (), self.tank.stiffness if self.tank else None)

    def _follow(self, now: float) -> Sent:
        """What to send in RUN: the policy's motion as far as QP and verifier let it."""
        dt = self.config.dt
        self.foreseen = self.lookahead.advance(self.player, self.u, self.ud, self.udd, now)
        self._timed("chunk")
        r, rd = self.player.reference(now)
        intend(self.u, self.ud, self.udd, r, rd, self.bounds, dt, self.wanted)
        proposal = self.reflex.propose(self.measurement, self.wanted, self.ud)
        self._timed("reflex")
        stiffness = self._impedance(now, proposal)
        rows = self._meter(now, stiffness)
        self._timed("tank")
        active: tuple[str, ...] = ()
        if not np.isfinite(proposal.x).all():
            x, reason = self._stop, "reflex_not_finite"
        else:
            code, x, _ = self.qp.solve(self.u, self.ud, self.udd, proposal.x, obstacles=self.obstacles, tank=rows)
            reason = FAULTS[code]
            self._timed("qp")
            if code == SOLVED:
                active = tuple(name for k, name in self._codes if self.qp.kinds >> k & 1)
                step(self.u, self.ud, x, dt, self._q, self._v)
                reason = self.verifier.fault(self.obstacles, self._q, self._v, x)
            self._timed("verify")
        if reason:
            x = self._stop
            stop_law(self.ud, self.udd, self.bounds, dt, x)
            active = (reason.removeprefix("unverified_"),) if reason.startswith("unverified_") else ()
            self.counts["unverified"] += 1
        if self.tank is not None:
            # Granted beside what is sent, by the same rows; a stop grants nothing new.
            stiffness = self.tank.stiffness if reason or stiffness is None else self.tank.granted(x, stiffness)
        change = np.abs(x - self.wanted)
        changed = bool(np.any(change > 1e-5 * self.bounds.a))
        if changed and not reason:
            reason = active[0] if active else "reflex" if proposal.x is not self.wanted else "limits"
        sent = self.wanted if self.mode == "shadow" else x
        return Sent(sent, changed, float(change.max()), reason, active, stiffness)

    def _impedance(self, now: float, proposal: Proposal) -> Array | None:
        """Stiffness wanted in this tick [N m/rad], (n,), and the damping to send with it; None for position control."""
        stiffness, damping = self.player.impedance(now)
        if stiffness is None or damping is None or self.tank is None:
            return None
        soften = min(1.0, max(0.0, proposal.soften))
        self._damping = soften * damping
        return soften * stiffness


def _codes(names: dict[str, tuple[str, ...]]) -> tuple[tuple[int, str], ...]:
    """Kind of a QP row to the name of its constraint in the file."""
    out = [(kind, names[margin][0]) for kind, margin in KINDS.items() if names.get(margin)]
    return (*out, *((REGION_KIND + r, name) for r, name in enumerate(names["keep_out"])))
