"""A fake Allegro Hand V5 on a CAN bus: periodic finger frames out, torque frames in, and nothing that forgives.

Frames as in Wonikrobotics-git/allegro_hand_ros2_v5 2a6de97 and allegrohand.com/v5-4f-can-protocol: 11-bit address =
message << 2 | device, little-endian words.  Like the real hand, it keeps its last torque when nothing is sent.

Two kinds of bus: python-can's ``virtual`` one (driver and fake in one process), or a pseudo-terminal that speaks
slcan as a CANable adapter does (any process; python-can's ``slcan``).
"""

from __future__ import annotations

import math
import os
import random
import select
import time
from pathlib import Path
from typing import Protocol

import can
import numpy as np

from palmar.real_robot.fakes.plant import Plant
from palmar.real_robot.fakes.serial_line import Terminal
from palmar.real_robot.fakes.served import Served

SYSTEM_ON, SYSTEM_OFF, TORQUE, PERIOD = 0x40, 0x41, 0x60, 0x81
INFO, SERIAL, POSITION, TEMPERATURE = 0x80, 0x88, 0x20, 0x38
COUNT = math.radians(0.088)
"""[rad]."""
UNITS = 1430.0
"""Torque words per command unit of the vendor's driver, read here as N m."""

Frame = tuple[int, bytes, bool]
"""Arbitration id, data, whether it is a remote request."""


class Line(Protocol):
    """The hand's end of a bus."""

    def receive(self, timeout: float) -> Frame | None:
        """The next frame; None where none comes within ``timeout`` seconds."""
        ...

    def send(self, frame: Frame) -> None:
        """Put a frame on the bus."""
        ...

    def close(self) -> None:
        """Leave the bus."""
        ...


class Virtual:
    """python-can's bus inside one process."""

    interface = "virtual"

    def __init__(self, channel: str):
        self.channel = channel
        self._bus = can.Bus(interface="virtual", channel=channel)

    def receive(self, timeout: float) -> Frame | None:
        """See ``Line``."""
        m = self._bus.recv(timeout)
        return None if m is None else (m.arbitration_id, bytes(m.data), m.is_remote_frame)

    def send(self, frame: Frame) -> None:
        """See ``Line``."""
        ident, data, remote = frame
        self._bus.send(can.Message(arbitration_id=ident, data=data, is_extended_id=False, is_remote_frame=remote))

    def close(self) -> None:
        """See ``Line``."""
        self._bus.shutdown()


class Slcan:
    """A pseudo-terminal with the ASCII protocol of serial-line CAN adapters (t = data, r = remote frame)."""

    interface = "slcan"

    def __init__(self, link: Path | None = None):
        self._terminal = Terminal(link)
        os.set_blocking(self._terminal.master, False)
        self.channel = self._terminal.name
        self._rest, self._open = b"", False

    def receive(self, timeout: float) -> Frame | None:
        """See ``Line``."""
        if b"\r" not in self._rest and select.select([self._terminal.master], [], [], timeout)[0]:
            self._rest += os.read(self._terminal.master, 4096)
        line, found, rest = self._rest.partition(b"\r")
        if not found:
            return None
        self._rest = rest
        if line[:1] in (b"O", b"C"):
            self._open = line[:1] == b"O"
        if line[:1] not in (b"t", b"r") or len(line) < 5:
            return self.receive(0.0) if rest else None
        return int(line[1:4], 16), bytes.fromhex(line[5:].decode()), line[:1] == b"r"

    def send(self, frame: Frame) -> None:
        """See ``Line``; frames for a port that nobody empties are lost."""
        ident, data, _ = frame
        if self._open:
            try:
                os.write(self._terminal.master, f"t{ident:03X}{len(data)}{data.hex().upper()}\r".encode())
            except BlockingIOError:
                pass

    def close(self) -> None:
        """See ``Line``; the port goes away."""
        self._terminal.close()


class AllegroHand(Served):
    """The hand; its plant's joints are index, middle, ring, thumb, four each from the palm outward."""

    orders = ("cut", "restore", "freeze", "drop", "shorten", "silence", "raise_fault", "reset")

    def __init__(
        self, plant: Plant, line: Line, *, hand: str = "right", kind: str = "A", device: int = 0, seed: int = 0
    ):
        self.plant, self.line, self.device = plant, line, device
        self.serial = f"V5{kind}{'R' if hand == 'right' else 'L'}0001".encode()
        self.kind, self.on, self.temperature = kind, False, 35
        self.torques = 0
        """Torque frames so far, of all fingers."""
        self._words, self._periods = np.zeros(16), [0, 0, 0]
        self._due, self._heat_due = 0.0, 0.0
        self._cut, self._frozen, self._drop, self._short, self._silent = False, False, 0.0, 0, set[int]()
        self._rng = random.Random(seed)
        plant.torque(np.zeros(16))

    def _unplug(self) -> None:
        self.line.close()

    # what can be done to it

    def cut(self) -> None:
        """The CAN cable: nothing passes."""
        self._cut = True

    def freeze(self) -> None:
        """The finger controller hangs: no reports, the last torque stays."""
        self._frozen = True

    def restore(self) -> None:
        """Undo ``cut``, ``freeze`` and ``silence``."""
        self._cut = self._frozen = False
        self._silent.clear()

    def drop(self, share: float) -> None:
        """This share of reports is lost from now on."""
        self._drop = share

    def shorten(self, n: int) -> None:
        """The next n reports have two bytes instead of eight."""
        self._short = n

    def silence(self, finger: int) -> None:
        """One finger no longer reports."""
        self._silent.add(finger)

    def raise_fault(self, name: str) -> None:
        """``servo_off``: the motor stage switches off; ``overheating``: the motors report 80 deg C."""
        if name == "servo_off":
            self.on = False
            self.plant.torque(np.zeros(16))
        elif name == "overheating":
            self.temperature = 80
        else:
            raise ValueError(f"no fault {name!r}; there are servo_off, overheating")

    def reset(self) -> None:
        """The causes of faults go away; the motors stay off until they are switched on."""
        self.temperature = 35

    def torque(self) -> np.ndarray:
        """Joint torques that it holds now [N m], (16,)."""
        scale = np.ones(16)
        if self.kind == "B":
            scale[[1, 5, 9]] = 2.0  # geared: half the motor torque for the same joint torque
        return self._words / UNITS * scale if self.on else np.zeros(16)

    # the thread

    def _serve(self) -> None:
        while self.running:
            frame = self.line.receive(max(0.0, min(self._due - time.monotonic(), 0.002)) if self._periods[0] else 0.002)
            if frame is not None and not (self._cut or self._frozen):
                self._obey(*frame)
            now = time.monotonic()
            if self._periods[0] and now >= self._due:
                self._due = max(self._due + 1e-3 * self._periods[0], now)
                self._report(now)

    def _obey(self, ident: int, data: bytes, remote: bool) -> None:
        message, device = ident >> 2, ident & 3
        if device != self.device:
            return
        if remote and message == INFO:
            self._say(INFO, bytes([1, 5, 2, 1, self.temperature, 0, int(self.on)]))
        elif remote and message == SERIAL:
            self._say(SERIAL, self.serial)
        elif message in (SYSTEM_ON, SYSTEM_OFF):
            self.on = message == SYSTEM_ON
            self._words = np.zeros(16)
            self.plant.torque(self.torque())
        elif message == PERIOD and len(data) == 6:
            self._periods = np.frombuffer(data, "<i2").tolist()
            self._due = time.monotonic()
        elif TORQUE <= message < TORQUE + 4 and len(data) == 8:
            finger = message - TORQUE
            self._words[4 * finger : 4 * finger + 4] = np.frombuffer(data, "<i2")
            self.torques += 1
            self.plant.torque(self.torque())

    def _report(self, now: float) -> None:
        if self._cut or self._frozen:
            return
        q = self.plant.measure()[0]
        words = np.rint(q / COUNT).astype("<i2").reshape(4, 4)
        for finger in range(4):
            if finger not in self._silent and self._rng.random() >= self._drop:
                data = words[finger].tobytes()
                if self._short:
                    self._short, data = self._short - 1, data[:2]
                self._say(POSITION + finger, data)
        if self._periods[2] and now >= self._heat_due:
            self._heat_due = now + 1e-3 * self._periods[2]
            for finger in range(4):
                self._say(TEMPERATURE + finger, bytes([self.temperature] * 4))

    def _say(self, message: int, data: bytes) -> None:
        self.line.send((message << 2 | self.device, data, False))
