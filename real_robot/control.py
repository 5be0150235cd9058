"""The control process: filter and driver at 1 kHz, alone in its interpreter; no ROS, no torch.

It owns the shared file that joins it to the bridge.  Whoever else dies or hangs, it brings the robot to a
hold; if it dies itself, the hardware's own watchdog does.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np

from palmar.real_robot import realtime, shared
from palmar.real_robot.alignment import Alignment
from palmar.real_robot.config import RunConfig
from palmar.real_robot.drivers.assembled import Assembled
from palmar.real_robot.drivers.error import DriverError
from palmar.real_robot.drivers.twin import twin_robot
from palmar.real_robot.drivers.wire import RECOVERING, WireRobot
from palmar.real_robot.layout import LAYOUTS, OPERATOR, STATES, control_layout
from palmar.real_robot.process import Stopping, Watch, begin
from palmar.safety.constraints import ConstraintSet
from palmar.safety.filter import Filter, FilterConfig
from palmar.safety.hulls import shipped_detail
from palmar.safety.robot import RobotModel
from palmar.safety.types import Chunk, Command, CommandRefused, People, State, Verdict
from palmar.sim.interface import Robot, RobotState

START_TIMEOUT = 10.0
"""How long to wait for the hardware's first state [s]."""
STOP_TIMEOUT = 2.0
"""How long the controlled stop at the end may take [s]."""
RECOVERY_TIMEOUT = 5.0
"""How long hardware may take to recover from a fault [s]."""
MOST_MISSES = 10_000
"""Missed periods that are remembered one by one."""
WARM_UP = 50
"""Ticks computed, and not sent, before the first: compiles and touches everything."""


class Control:
    """One robot, one filter, one shared file; ``tick`` once per period."""

    def __init__(
        self,
        run: RunConfig,
        driver: Robot,
        memory: shared.SharedMap,
        filter_: Filter,
        log: logging.Logger,
        tracker: shared.Block | None = None,
    ):
        self.tracker = tracker
        """Where tracked objects appear; None without any."""
        self._objects: tuple[np.ndarray, np.ndarray] | None = None
        self._objects_version = 0
        self.run, self.driver, self.filter, self.log = run, driver, filter_, log
        self.names = memory.description.constraints
        self.blocks, self._ring = memory.blocks, memory.rings["ticks"]
        self.watch, self.latencies, self.sights = Watch(), [], []
        self.verdict: Verdict | None = None
        self._index = self._refused = self._chunks = self._driver_errors = self._missed = 0
        self.misses: list[tuple[float, int]] = []
        self._lost = self._lost_before = self._last_seq = 0
        self._refusal, self._late_max, self._held, self._lost_at = "", 0.0, 0.0, 0.0
        self._versions = {"chunk": 0, "request": 0, "operator": 0, "policy": 0, "people": 0}
        self._counts = {name: dict.fromkeys(OPERATOR, 0) for name in ("request", "operator")}
        self._people: People | None = None
        self._external = ""
        self._chunk: Any = None
        self._chunk_used = True
        self._worst = np.full(len(self.names), np.inf)
        self._state: RobotState | None = None
        self._alignment = Alignment(filter_.robot.joints, run.glide, mode=run.alignment)
        self._fault, self._recovering, self._unread = "", 0.0, False

    def start(self) -> None:
        """Wait for the hardware, compile, and take its pose as the first command.

        Raises:
            DriverError: If no state arrives in time.
            CommandRefused: If the robot does not rest at a pose that the filter accepts in time.
        """
        end = time.monotonic() + START_TIMEOUT
        while self._state is None:
            try:
                self._state = self.driver.read()
            except DriverError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.01)
        warm_up(self.filter, self._state, self.run.period)
        while True:
            try:
                self._state = self.driver.read()
                return self.filter.start(self._state)
            except (CommandRefused, DriverError):
                if time.monotonic() > end:
                    raise
                time.sleep(0.01)

    def tick(self, now: float, skipped: int, late: float) -> Verdict:
        """One period: requests, deaths, chunks in; state in; filter; command and record out."""
        self._missed += skipped
        if skipped and len(self.misses) < MOST_MISSES:
            self.misses.append((now, skipped))
        self._late_max = max(self._late_max, late)
        self._heed_deaths(now)
        self._heed_requests()
        self._heed_people()
        self._heed_chunk(now)
        state = self._read()
        self._heed_recovery(now)
        command, verdict = self.filter.tick(state, now, objects=self._look(), people=self._people)
        self._write(command)
        self._note(now, state, command, verdict)
        self.verdict = verdict
        return verdict

    def _heed_deaths(self, now: float) -> None:
        for name in self.watch.dead():
            self.log.error("%s died: hold", name)
            self._lost_at = now
            self.filter.hold(f"{name}_died")
        if (policy := self._changed("policy")) is not None and not self.watch.add("policy", int(policy["pid"])):
            self._lost_at = now
            self.filter.hold("policy_died")

    def _heed_requests(self) -> None:
        """Operator's stops, release and reset, from the monitor or the bridge; the bridge's own hold by level."""
        if (asked := self._changed("operator")) is not None:
            self._act("operator", asked)
        r = self._changed("request")
        if r is None:
            return
        if self.watch.watching("bridge") != int(r["pid"]):
            self.watch.add("bridge", int(r["pid"]))
        self._act("request", r)
        external = r["reason"].decode() if r["hold"] else ""
        if external and external != self._external:
            self.log.error("hold for %s", external)
        self._external = external

    def _act(self, block: str, asked: np.void) -> None:
        """What was asked for since the last look, by counter, in the order of ``OPERATOR``."""
        acts = {"estop": self._estop, "stop": self._stop, "release": self._release, "reset": self._reset}
        counts = self._counts[block]
        for name in OPERATOR:
            if int(asked[name]) != counts[name]:
                counts[name] = int(asked[name])
                acts[name]("operator_" + name)

    def _stop(self, reason: str) -> None:
        self.log.warning("stop: %s", reason)
        self.filter.stop(reason)

    def _estop(self, reason: str) -> None:
        self.log.warning("emergency stop: %s", reason)
        self.filter.estop(reason)

    def _release(self, reason: str) -> None:
        """The emergency stop is let go of; the robot stays where it is until the reset."""
        self.log.warning("released by the operator")
        self.filter.release()

    def _reset(self, reason: str) -> None:
        if why := self.filter.watchdog.refusal():
            self.log.error("reset refused: %s", why)
            return
        self.log.warning("reset by the operator")
        if not self._fault:
            return self._reset_filter()
        self.driver.recover()
        self._recovering = time.monotonic() + RECOVERY_TIMEOUT

    def _heed_recovery(self, now: float) -> None:
        """Finish a reset once the hardware has recovered; what it cannot recover from refuses the reset."""
        if not self._recovering or (self.driver.fault == RECOVERING and now < self._recovering):
            return
        if self._unread and now < self._recovering:
            return
        self._recovering = 0.0
        if self.driver.fault or self._unread:
            self.log.error("reset refused: the hardware has not recovered: %s", self.driver.fault or "no reading")
            return
        self._fault = ""
        self._reset_filter()

    def _reset_filter(self) -> None:
        try:
            self.filter.reset()
        except CommandRefused as error:
            self._start_anew(error)

    def _start_anew(self, refusal: CommandRefused) -> None:
        """After a reset was refused: the hardware stopped away from its command, so begin where it is."""
        try:
            assert self._state is not None
            self.filter.start(self._state)
        except CommandRefused as error:
            self.log.error("reset refused: %s; and %s", refusal, error)

    def _heed_people(self) -> None:
        """The newest capsules; the filter judges their age."""
        p = self._changed("people")
        if p is not None:
            h = int(p["count"])
            self._people = People(p["ends"][:h], p["radius"][:h], p["velocity"][:h], float(p["received"]))

    def _look(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Newest positions (m, 3) and quaternions (m, 4) of the objects; None until each was seen once."""
        if self.tracker is None or self.tracker.version in (self._objects_version, 0):
            return self._objects
        try:
            o = self.tracker.read()
        except shared.TornRead:
            return self._objects
        self._objects_version = self.tracker.version
        if o is not None and np.all(o["seq"] > 0):
            self._objects = o["position"], o["quaternion"]
        return self._objects

    def _heed_chunk(self, now: float) -> None:
        if self._external:
            self.filter.hold(self._external)
        c = self._changed("chunk")
        if c is None or self._external or float(c["sent"]) < self._lost_at:
            return  # a chunk from somebody who has died since is not followed
        if self._last_seq:
            self._lost += max(0, int(c["seq"]) - self._last_seq - 1)
        self._last_seq, self._lost_before = int(c["seq"]), int(c["lost"])
        h = int(c["count"])
        stiffness, damping = (c["stiffness"][:h], c["damping"][:h]) if c["impedance"] else (None, None)
        chunk = Chunk(
            q=c["q"][:h],
            t=c["t"][:h],
            seq=int(c["seq"]),
            received=float(c["received"]),
            stiffness=stiffness,
            damping=damping,
        )
        was = self._alignment.gliding
        try:
            running = self.filter.state is State.RUN
            reference, _ = self.filter.player.reference(now)
            self.filter.offer(self._alignment.take(chunk, reference, now, running=running))
        except CommandRefused as error:
            self._refused += 1
            self._refusal = str(error)[:48]
            return
        self._chunk, self._chunk_used, self._chunks = c, False, self._chunks + 1
        if self._alignment.gliding != was:
            self.log.info("gliding to the policy's first command" if not was else "arrived at the policy's command")

    def _changed(self, name: str) -> np.void | None:
        """The block if it was written since the last look; a block torn for good is as good as none."""
        block = self.blocks[name]
        version = block.version
        if version == self._versions[name] or version % 2:
            return None
        try:
            value = block.read()
        except shared.TornRead:
            return None
        self._versions[name] = version
        return value

    def _read(self) -> RobotState:
        """The newest state, or the previous one again with its old stamp: the filter judges its age."""
        try:
            self._state, self._unread = self.driver.read(), False
        except DriverError:
            self._driver_errors += 1
            self._unread = True
        assert self._state is not None
        return self._state

    def _write(self, command: Command) -> None:
        if self._recovering:
            return
        try:
            self.driver.write(command)
        except (DriverError, CommandRefused) as error:
            self._driver_errors += 1
            if not self._fault:
                self._fault = str(error)
                self._stop(self._fault)

    def _note(self, now: float, state: RobotState, command: Command, verdict: Verdict) -> None:
        """Publish the state block every tick and append to the ring."""
        if self._chunks and (verdict.changed or verdict.state is not State.RUN):
            self._held += self.run.period
        if not self._chunk_used and verdict.state is State.RUN and len(self.latencies) < 200_000:
            self._chunk_used = True
            reached = time.monotonic()
            self.latencies.append(reached - float(self._chunk["sent"]))
            if self._chunk["seen"] > 0:
                self.sights.append(reached - float(self._chunk["seen"]))
        self._index += 1
        ring = self._ring.record
        self._fill(ring, now, state, command, verdict)
        np.fmin(self._worst, ring["margins"], out=self._worst)
        self._ring.push()
        block = self.blocks["state"].record
        for name in ring.dtype.names or ():
            block[name] = ring[name]
        block["beat"], block["ready"], block["realtime"] = self._index, 1, realtime.is_realtime()
        block["missed"], block["late_max"], block["chunks"] = self._missed, self._late_max, self._chunks
        block["refused"], block["refusal"], block["driver_errors"] = (
            self._refused,
            self._refusal,
            self._driver_errors,
        )
        block["dropped"], block["lost_at"], block["intervention_s"] = (
            self._ring.dropped,
            self._lost_at,
            self._held,
        )
        block["worst"] = self._worst
        block["foreseen_t"], block["foreseen"] = self.filter.foreseen or (np.nan, "")
        block["edited_seq"], block["edited_from"] = self.filter.edited or (-1, np.nan)
        self.blocks["state"].write()

    def _fill(self, r: Any, now: float, state: RobotState, command: Command, verdict: Verdict) -> None:
        intended, _ = self.filter.player.reference(now)
        r["index"], r["t"], r["state"], r["reason"] = (
            self._index,
            now,
            STATES.index(verdict.state),
            verdict.reason,
        )
        r["changed"], r["edit"], r["compute_s"] = verdict.changed, verdict.edit, verdict.compute_s
        r["active"] = sum(1 << k for k, name in enumerate(self.names) if name in verdict.active)
        r["margins"] = [verdict.margins.get(name, np.nan) for name in self.names]
        r["chunk"] = int(self._chunk["seq"]) if self._chunk is not None else -1
        r["chunk_age"] = now - float(self._chunk["received"]) if self._chunk is not None else np.inf
        r["read_seq"], r["read_t"] = state.seq, state.t
        r["q"], r["qd"], r["tau"], r["intended"] = state.q, state.qd, state.tau, intended
        sent = self.filter.measurement
        assert sent is not None
        r["u"], r["ud"], r["udd"], r["uddd"] = command.q, sent.ud, sent.udd, sent.uddd
        r["impedance"] = command.stiffness is not None
        if command.stiffness is not None:
            r["stiffness"], r["damping"] = command.stiffness, command.damping

    def finish(self, beat: realtime.Beat) -> None:
        """Controlled stop, then let the hardware hold."""
        self.filter.stop("shutdown")
        end = time.monotonic() + STOP_TIMEOUT
        while time.monotonic() < end:
            now, skipped = beat.wait()
            if self.tick(now, skipped, 0.0).state is State.LATCHED:
                break
        else:
            self.log.error("no standstill within %.1f s", STOP_TIMEOUT)
        self.driver.stop("shutdown")

    def summary(self) -> dict[str, Any]:
        """What happened, in numbers."""
        p50, p99 = _percentiles_ms(self.latencies)
        seen50, seen99 = _percentiles_ms(self.sights)
        return {
            "ticks": self._index,
            "missed": self._missed,
            "late_max_ms": 1e3 * self._late_max,
            "chunks": self._chunks,
            "refused": self._refused,
            "lost": self._lost + self._lost_before,
            "misses": self.misses,
            "driver_errors": self._driver_errors,
            "intervention_s": self._held,
            "chunk_to_robot_p50_ms": p50,
            "chunk_to_robot_p99_ms": p99,
            "camera_to_command_p50_ms": seen50,
            "camera_to_command_p99_ms": seen99,
            "worst_margin": {n: float(w) for n, w in zip(self.names, self._worst, strict=True) if np.isfinite(w)},
            "realtime": realtime.is_realtime(),
            "dropped_records": self._ring.dropped,
        }


def _percentiles_ms(seconds: list[float]) -> tuple[float | None, float | None]:
    if not seconds:
        return None, None
    p50, p99 = 1e3 * np.percentile(seconds, (50, 99))
    return float(p50), float(p99)


def warm_up(like: Filter, state: RobotState, period: float) -> None:
    """Run a filter of the same kind that commands nothing, so that the first tick is as fast as the rest."""
    filter_ = Filter(like.robot, like.constraints, like.config, mode="shadow")
    rest = np.zeros_like(state.qd)
    rest.flags.writeable = state.qd.flags.writeable  # kernels are compiled for arrays that may be written, or not
    still = RobotState(state.t, state.seq, state.q, rest, state.tau)
    filter_.start(still)
    filter_.tick(still, state.t)
    ahead = state.t + 0.05 * np.arange(1, 5)
    filter_.offer(Chunk(q=np.tile(state.q, (4, 1)), t=ahead, seq=0, received=state.t))
    for k in range(1, WARM_UP):
        moment = state.t + k * period
        filter_.tick(RobotState(moment, state.seq + k, still.q, still.qd, still.tau), moment)


def open_memory(run: RunConfig, robot: RobotModel, constraints: ConstraintSet) -> shared.SharedMap:
    """The control process's shared file."""
    description = shared.Description(
        kind="control",
        robot=robot.hash(),
        joints=robot.joints,
        objects=run.objects,
        constraints=constraints.names,
    )
    return shared.create(Path(run.control_memory), description, control_layout(description))


def open_robot(run: RunConfig, robot: RobotModel) -> Robot:
    """The robot of ``run``: the twin, or its devices as one.

    Raises:
        PalmarError: If a wire does not appear in time, or is another robot's.
    """
    if run.hardware == "twin":
        return twin_robot(robot, Path(run.twin_memory), timeout=START_TIMEOUT)
    parts = [
        WireRobot(d.joints, Path(d.memory), robot=robot.hash(), fresh=d.fresh, timeout=START_TIMEOUT)
        for d in run.devices
    ]
    return Assembled(parts, robot.joints)


def run_control(run: RunConfig, stopping: Stopping, log: logging.Logger) -> dict[str, Any]:
    """Control until told to stop; the summary, which is also written to ``control.json``."""
    robot = run.robot_model()
    constraints = run.constraint_set(robot)
    config = FilterConfig(dt=run.period, detail=shipped_detail(robot))
    with ExitStack() as stack:
        driver = stack.enter_context(closing(open_robot(run, robot)))
        filter_ = Filter(robot, constraints, config, mode=run.mode)
        memory = stack.enter_context(closing(open_memory(run, robot, constraints)))
        seen = memory
        if run.objects and run.hardware != "real":
            twin = Path(run.twin_memory)
            seen = stack.enter_context(closing(shared.attach(twin, LAYOUTS, kind="twin", robot=robot.hash())))
        tracker = seen.blocks["objects"] if run.objects else None
        control = Control(run, driver, memory, filter_, log, tracker)
        control.start()
        log.info("control of %s: %s", robot.name, realtime.go_realtime(run.priority))
        realtime.freeze_collector()
        beat = realtime.Beat(run.period)
        beat.start()
        while not stopping:
            now, skipped = beat.wait()
            control.tick(now, skipped, beat.late)
        control.finish(beat)
        summary = control.summary()
        (Path(run.run_dir) / "control.json").write_text(json.dumps(summary, indent=1))
        log.info("stopped: %s", {k: v for k, v in summary.items() if k not in ("worst_margin", "misses")})
        return summary


def main(argv: Sequence[str] | None = None) -> int:
    """Run the control process of ``--config FILE``."""
    run, log = begin("control", argv)
    run_control(run, Stopping(), log)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
