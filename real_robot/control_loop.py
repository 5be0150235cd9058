"""One robot, one filter, one shared file: what the control process does in each period."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import numpy as np

from palmar.real_robot import realtime, records
from palmar.real_robot.alignment import Alignment
from palmar.real_robot.config import RunConfig
from palmar.real_robot.drivers.error import DriverError
from palmar.real_robot.drivers.wire import RECOVERING
from palmar.real_robot.inbox import Inbox
from palmar.real_robot.process import Watch
from palmar.real_robot.tally import Tally
from palmar.safety.filter import Filter
from palmar.safety.types import Chunk, Command, CommandRefused, State, Verdict
from palmar.sim.interface import Robot, RobotState

START_TIMEOUT = 30.0
"""How long the hardware may take to give a state, and to rest where the filter accepts it [s]."""
STOP_TIMEOUT = 2.0
"""How long the controlled stop at the end may take [s]."""
RECOVERY_TIMEOUT = 5.0
"""How long hardware may take to recover from a fault [s]."""
WARM_UP = 50
"""Ticks computed, and not sent, before the first: compiles and touches everything."""
RETRY = 0.01
"""Time between two looks at hardware that is not there yet [s]."""


class Control:
    """``start`` once, ``tick`` once per period, ``finish`` once."""

    def __init__(self, run: RunConfig, driver: Robot, filter_: Filter, inbox: Inbox, tally: Tally, log: logging.Logger):
        self.run, self.driver, self.filter, self.log = run, driver, filter_, log
        self.inbox, self.tally, self.watch = inbox, tally, Watch()
        self._alignment = Alignment(filter_.robot.joints, run.glide, mode=run.alignment)
        self._state: RobotState | None = None
        self._unread = False
        """Whether ``_state`` is an old one, because there was none to read."""
        self._external = ""
        """Why the bridge asks for a hold, '' where it does not."""
        self._fault = ""
        """Of the hardware, since it refused a command; until an operator's reset has recovered it."""
        self._recovering = 0.0
        """Until when the hardware may take to recover, 0 where it is not asked to [s]."""

    def start(self, stopping: Callable[[], bool] = lambda: False) -> bool:
        """Wait for the hardware, compile, and take its pose as the first command; whether it came to that.

        Args:
            stopping: Asked again and again; once it is true, waiting ends.

        Raises:
            DriverError: If no state arrives in time.
            CommandRefused: If the robot does not rest at a pose that the filter accepts in time.
        """
        return all(self._in_time(step, stopping) for step in (self._read_once, self._warm_up, self._take_over))

    def _in_time(self, step: Callable[[], None], stopping: Callable[[], bool]) -> bool:
        """Try a step until it succeeds; False if told to stop before."""
        end = time.monotonic() + START_TIMEOUT
        while not stopping():
            try:
                step()
                return True
            except (DriverError, CommandRefused):
                if time.monotonic() > end:
                    raise
                time.sleep(RETRY)
        return False

    def _read_once(self) -> None:
        self._state = self.driver.read()

    def _warm_up(self) -> None:
        assert self._state is not None
        warm_up(self.filter, self._state, self.run.period)

    def _take_over(self) -> None:
        self._state = self.driver.read()
        self.filter.start(self._state)

    def tick(self, now: float, skipped: int, late: float) -> Verdict:
        """One period: requests, deaths, chunks in; state in; filter; command and record out."""
        self.tally.woke(now, skipped, late)
        self._heed_deaths(now)
        self._heed_requests()
        self._heed_chunk(now)
        state = self._read()
        self._heed_recovery(now)
        command, verdict = self.filter.tick(state, now, objects=self.inbox.objects(), people=self.inbox.people())
        self._write(command)
        self.tally.note(now, state, command, verdict)
        return verdict

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

    # Who commands, and how ---------------------------------------------------------------------------------------

    def _heed_deaths(self, now: float) -> None:
        for name in self.watch.dead():
            self.log.error("%s died: hold", name)
            self._lose(name, now)
        policy = self.inbox.new("policy")
        if policy is not None and not self.watch.add("policy", int(policy["pid"])):
            self._lose("policy", now)

    def _lose(self, name: str, now: float) -> None:
        self.tally.lost_at = now
        self.filter.hold(f"{name}_died")

    def _heed_requests(self) -> None:
        """Operator's stops, release and reset, from the monitor or the bridge; the bridge's own hold by level."""
        if (asked := self.inbox.new("operator")) is not None:
            self._act("operator", asked)
        r = self.inbox.new("request")
        if r is None:
            return
        if self.watch.watching("bridge") != int(r["pid"]):
            self.watch.add("bridge", int(r["pid"]))
        self._act("request", r)
        external = r["reason"].decode() if r["hold"] else ""
        if external and external != self._external:
            self.log.error("hold for %s", external)
        self._external = external

    def _heed_chunk(self, now: float) -> None:
        if self._external:
            self.filter.hold(self._external)
        c = self.inbox.new("chunk")
        if c is None or self._external or float(c["sent"]) < self.tally.lost_at:
            return  # a chunk from somebody who has died since is not followed
        self.tally.heard(c)
        try:
            self.filter.offer(self._aligned(records.chunk(c), now))
        except CommandRefused as error:
            self.tally.refuse(str(error))
        else:
            self.tally.follow(c)

    def _aligned(self, chunk: Chunk, now: float) -> Chunk:
        """The chunk, or on a far first move the way to it."""
        was, running = self._alignment.gliding, self.filter.state is State.RUN
        reference, _ = self.filter.player.reference(now)
        chunk = self._alignment.take(chunk, reference, now, running=running)
        if self._alignment.gliding != was:
            self.log.info("gliding to the policy's first command" if not was else "arrived at the policy's command")
        return chunk

    # The operator ------------------------------------------------------------------------------------------------

    def _act(self, block: str, record: np.void) -> None:
        """Do what was asked for since the last look."""
        acts = {"estop": self._estop, "stop": self._stop, "release": self._release, "reset": self._reset}
        for name in self.inbox.asked(block, record):
            acts[name]("operator_" + name)

    def _stop(self, reason: str) -> None:
        self.log.warning("stop: %s", reason)
        self.filter.stop(reason)

    def _estop(self, reason: str) -> None:
        self.log.warning("emergency stop: %s", reason)
        self.filter.estop(reason)

    def _release(self, reason: str) -> None:
        """The emergency stop is let go of; the robot stays where it is until the reset."""
        self.log.warning("released: %s", reason)
        self.filter.release()

    def _reset(self, reason: str) -> None:
        if why := self.filter.watchdog.refusal():
            self.log.error("reset refused: %s", why)
            return
        self.log.warning("reset: %s", reason)
        if not self._fault:
            return self._reset_filter()
        self.driver.recover()
        self._recovering = time.monotonic() + RECOVERY_TIMEOUT

    def _heed_recovery(self, now: float) -> None:
        """Finish a reset once the hardware has recovered; what it cannot recover from refuses the reset."""
        busy = self.driver.fault == RECOVERING or self._unread
        if not self._recovering or (busy and now < self._recovering):
            return
        self._recovering = 0.0
        if self.driver.fault or self._unread:
            self.log.error("reset refused: the hardware has not recovered: %s", self.driver.fault or "no reading")
            return
        self._fault = ""
        self._reset_filter()

    def _reset_filter(self) -> None:
        """Where the filter refuses, the hardware stopped away from its command: begin where it is."""
        try:
            return self.filter.reset()
        except CommandRefused as error:
            refusal = error
        try:
            assert self._state is not None
            self.filter.start(self._state)
        except CommandRefused as error:
            self.log.error("reset refused: %s; and %s", refusal, error)

    # The hardware ------------------------------------------------------------------------------------------------

    def _read(self) -> RobotState:
        """The newest state, or the previous one again with its old stamp: the filter judges its age."""
        try:
            self._state, self._unread = self.driver.read(), False
        except DriverError:
            self.tally.driver_errors += 1
            self._unread = True
        assert self._state is not None
        return self._state

    def _write(self, command: Command) -> None:
        if self._recovering:
            return
        try:
            self.driver.write(command)
        except (DriverError, CommandRefused) as error:
            self.tally.driver_errors += 1
            if not self._fault:
                self._fault = str(error)
                self._stop(self._fault)


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
