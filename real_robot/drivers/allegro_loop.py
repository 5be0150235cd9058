"""The Allegro hand's frames and its position loop: every complete report is answered with torques.

Facts: Wonikrobotics-git/allegro_hand_ros2_v5 2a6de97 (messages, counts, clamp), as read, not copied.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import can
import numpy as np

from palmar.real_robot.drivers.allegro_config import FINGERS, AllegroConfig
from palmar.real_robot.drivers.error import DriverError

Array = np.ndarray

SYSTEM_ON, TORQUE, PERIOD = 0x40, 0x60, 0x81
INFO, SERIAL, POSITION, TEMPERATURE = 0x80, 0x88, 0x20, 0x38
COUNT = math.radians(0.088)
"""[rad]."""
GEARED = (1, 5, 9)
"""Joints of a B hand whose motors have a gear: half the torque word."""
HEAT_MS = 500
"""Between two reports of temperature."""
REST = 0.15
"""A joint slower than this is at rest [rad/s]; a single count in 3 ms, filtered at 10 Hz, looks like 0.09."""
PRESSES = 0.02
"""A joint at rest with more torque than this towards its goal presses on something [N m]."""
MEAN = 0.1
"""Time constant of the mean torque, which is what a standing joint needs [s]."""
LOST = 8
"""Frames in a row that the adapter did not take after which the bus counts as lost."""
ASK_EVERY = 0.1
"""Between two questions whether the motor stage is on [s]."""


@dataclass(frozen=True)
class Seen:
    """One complete report of the fingers, in the hand's order."""

    t: float
    """When the oldest of its frames came [s, monotonic]; -inf for none yet."""
    seq: int
    q: Array
    """[rad], (16,)."""
    qd: Array
    """[rad/s], (16,), filtered."""
    tau: Array
    """Sent in answer [N m], (16,)."""


Kept = tuple[Array, Array, tuple[Array, ...]]


class Loop:
    """The bus and the thread on it.  Public methods are for the driver's thread."""

    def __init__(self, config: AllegroConfig):
        self.config = config
        self.serial: bytes | None = None
        self.info: bytes | None = None
        self.heard = np.full(4, -math.inf)
        """When each finger last reported [s, monotonic]."""
        self._words = np.full(16, config.units)
        if config.kind == "B":
            self._words[list(GEARED)] *= 0.5
        zero = np.zeros(16)
        self._seen, self._fault = Seen(-math.inf, 0, zero, zero, zero), ""
        self._raw, self._fresh = zero.copy(), [False] * 4
        self._mean, self._failures = zero, 0
        self._goal, self._gains = zero, (np.full(16, config.stiffness), np.full(16, config.damping))
        self._pressing, self._passive = np.zeros(16, dtype=bool), False
        self._engaged, self._followed, self._asked, self._settled = False, -math.inf, 0.0, False
        self._lock, self._sending, self._running = threading.RLock(), threading.Lock(), True
        try:
            self._bus = can.Bus(interface=config.interface, channel=config.channel, **config.options)
        except (can.CanError, OSError, ValueError) as error:
            raise DriverError(f"cannot open CAN {config.interface} {config.channel}: {error}") from error
        self._thread = threading.Thread(target=self._run, name="allegro loop", daemon=True)
        self._thread.start()

    def close(self, *, leave: bool = False) -> None:
        """Stop the loop and leave the bus.

        The hand keeps its last torques; with ``leave`` these are the mean ones, for the last are never quite right.
        """
        self._running = False
        self._thread.join()
        if leave and self._engaged and not self._passive and not self._fault:
            self._apply(self._mean)
        try:
            self._bus.shutdown()
        except (can.CanError, OSError):
            pass  # it is gone already

    def newest(self) -> tuple[Seen, str]:
        """The newest complete report, and the fault, '' for none."""
        with self._lock:
            return self._seen, self._fault

    def follow(self, goal: Array, stiffness: Array, damping: Array) -> None:
        """Pull towards ``goal`` [rad] from the next report on, (16,) each."""
        with self._lock:
            self._goal, self._gains, self._followed = goal, (stiffness, damping), time.monotonic()
            self._passive = False

    def hold(self) -> None:
        """What presses goes on pressing, the rest stays where it is."""
        with self._lock:
            seen, self._followed = self._seen, -math.inf
            towards = np.sign(self._goal - seen.q) * seen.tau
            self._pressing = (np.abs(seen.qd) < REST) & (towards > PRESSES)
            self._goal = np.where(self._pressing, self._goal, seen.q)
            own = self.config.stiffness, self.config.damping
            pairs = zip(self._gains, own, strict=True)
            self._gains = tuple(np.where(self._pressing, gain, np.maximum(gain, least)) for gain, least in pairs)

    def kept(self) -> Kept:
        """Which joints ``hold`` found pressing, their goals and gains: for the loop that takes over."""
        with self._lock:
            return self._pressing, self._goal, self._gains

    def rests(self) -> bool:
        """Whether no joint moves."""
        return bool(np.all(np.abs(self.newest()[0].qd) < REST))

    def servo_on(self) -> bool:
        """Whether the hand said that its motor stage is on."""
        return self.info is not None and bool(self.info[6] & 1)

    def ask(self) -> None:
        """Ask for information and serial number."""
        self._send(INFO, remote=True)
        if self.serial is None:
            self._send(SERIAL, remote=True)

    def report(self) -> None:
        """Let the fingers report periodically."""
        words = np.array([round(1e3 * self.config.period), 0, HEAT_MS], dtype="<i2")
        self._send(PERIOD, words.tobytes())

    def engage(self, kept: Kept | None) -> None:
        """Hold where the hand is, and what presses by ``kept`` with that goal; switch the motor stage on if it is off.

        A hand that is on already and of which nothing is known keeps its torques until the first ``follow``: they may
        be a grip.
        """
        with self._lock:
            self._goal, self._engaged = self._seen.q, True
            self._passive = self.servo_on() and kept is None
            if self.servo_on() and kept is not None:
                pressing, goal, gains = kept
                self._pressing, self._gains = pressing, gains
                self._goal = np.where(pressing, goal, self._seen.q)
        if not self.servo_on():
            self._send(SYSTEM_ON)

    def await_that(
        self, condition: Callable[[], bool], seconds: float, repeat: Callable[[], None] | None = None
    ) -> None:
        """Wait until ``condition``, at most ``seconds``; ``repeat`` every 50 ms."""
        end, again = time.monotonic() + seconds, 0.0
        while not condition() and time.monotonic() < end:
            if repeat is not None and time.monotonic() >= again:
                again = time.monotonic() + 0.05
                repeat()
            time.sleep(0.002)

    # the thread

    def _run(self) -> None:
        while self._running:
            try:
                frame = self._bus.recv(self.config.period)
            except (can.CanError, OSError) as error:
                self._fail(error)
                time.sleep(self.config.period)
                continue
            except (ValueError, IndexError):
                continue  # a serial-line adapter's garbled frame is a lost one
            now = time.monotonic()
            if frame is not None and not frame.is_error_frame and frame.arbitration_id & 3 == self.config.device:
                self._take(frame.arbitration_id >> 2, bytes(frame.data), now)
            self._mind(now)

    def _take(self, message: int, data: bytes, now: float) -> None:
        if message == SERIAL and len(data) == 8:
            self.serial = data
        elif message == INFO and len(data) >= 7:
            self.info = data
            if self._engaged and self._settled and not data[6] & 1:
                self._accuse("servo_off: the motor stage is off")
            self._settled = self._settled or bool(data[6] & 1)
        elif TEMPERATURE <= message < TEMPERATURE + 4 and len(data) == 4 and max(data) > self.config.temperature:
            self._accuse(f"overheating: {FINGERS[message - TEMPERATURE]} has {max(data)} deg C")
        elif POSITION <= message < POSITION + 4 and len(data) == 8:
            self._take_finger(message - POSITION, data, now)

    def _take_finger(self, finger: int, data: bytes, now: float) -> None:
        self._raw[4 * finger : 4 * finger + 4] = COUNT * np.frombuffer(data, "<i2")
        self._fresh[finger], self.heard[finger] = True, now
        if all(self._fresh):
            self._fresh = [False] * 4
            self._answer()

    def _answer(self) -> None:
        """A complete report: torques for it, and the new state."""
        with self._lock:
            q, old, t = self._raw.copy(), self._seen, float(self.heard.min())
            # frames that waited in a queue come together, but the hand took them a period apart
            passed = max(t - old.t, self.config.period)
            share = 1.0 - math.exp(-2.0 * math.pi * self.config.cutoff * passed)
            qd = old.qd + share * ((q - old.q) / passed - old.qd) if math.isfinite(passed) else np.zeros(16)
            answers = self._engaged and not self._passive and not self._fault.startswith(("bus_lost", "finger_silent"))
            tau = self._torque(q, qd) if answers else old.tau
            self._seen = Seen(t, old.seq + 1, q, qd, tau)
            self._mean = self._mean + (tau - self._mean) * min(1.0, self.config.period / MEAN)
        if answers:
            self._apply(tau)

    def _torque(self, q: Array, qd: Array) -> Array:
        stiffness, damping = self._gains
        most = self.config.clamp / self._words
        return np.clip(stiffness * (self._goal - q) - damping * qd, -most, most)

    def _apply(self, tau: Array) -> None:
        words = np.rint(tau * self._words).astype("<i2")
        for finger in range(4):
            self._send(TORQUE + finger, words[4 * finger : 4 * finger + 4].tobytes())

    def _mind(self, now: float) -> None:
        """What has to happen although nothing comes: hold without commands, say who is silent, ask how it is."""
        with self._lock:
            if self._engaged and math.isfinite(self._followed) and now - self._followed > self.config.watchdog:
                self.hold()
            seen = self._seen
        if self._engaged and now - seen.t > self.config.stale and not self._fault:
            silent = [f for f, t in zip(FINGERS, self.heard, strict=True) if now - t > 0.5 * self.config.stale]
            self._accuse("finger_silent: " + (", ".join(silent) if len(silent) < 4 else "all"))
            self._apply(np.where(np.abs(seen.qd) < REST, seen.tau, 0.0))
        if self._engaged and now - self._asked > ASK_EVERY:
            self._asked = now
            self._send(INFO, remote=True)

    def _accuse(self, fault: str) -> None:
        with self._lock:
            self._fault = self._fault or fault

    def _send(self, message: int, data: bytes = b"", *, remote: bool = False) -> None:
        ident = message << 2 | self.config.device
        frame = can.Message(arbitration_id=ident, data=data, is_extended_id=False, is_remote_frame=remote)
        try:
            with self._sending:
                self._bus.send(frame, timeout=0.1)
        except (can.CanError, OSError, ValueError) as error:
            self._fail(error)
        else:
            self._failures = 0

    def _fail(self, error: Exception) -> None:
        """One frame that the adapter did not take may be chance; a row of them is a lost bus."""
        self._failures += 1
        if self._failures >= LOST:
            self._accuse(f"bus_lost: {error}")
