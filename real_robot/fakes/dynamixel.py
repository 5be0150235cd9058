"""A fake Dynamixel bus: a pseudo-terminal behind which motors answer Protocol 2.0 packets and move a plant.

The driver opens ``port`` as it would open ``/dev/ttyUSB0``.  The motors hear only a host that speaks at their
baud rate, obey access rights, torque lock, alert bit and bus watchdog, and can be hurt in every way that a bus is:
cut, unplugged, silent, slow, corrupt, torn, in hardware error.
"""

from __future__ import annotations

import math
import os
import select
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from palmar.real_robot.fakes.dynamixel_motor import INSTRUCTION_ERROR, Motor
from palmar.real_robot.fakes.dynamixel_packets import BROADCAST, STATUS, Framer, Packet, fast_status, packet
from palmar.real_robot.fakes.plant import Plant
from palmar.real_robot.fakes.serial_line import Damage, Terminal
from palmar.real_robot.fakes.served import Served

PING, READ, WRITE, REBOOT = 0x01, 0x02, 0x03, 0x08
SYNC_READ, SYNC_WRITE, FAST_SYNC_READ = 0x82, 0x83, 0x8A
BAUDS = (9_600, 57_600, 115_200, 1_000_000, 2_000_000, 3_000_000, 4_000_000)
"""Register 8's values."""
COUNT = 2.0 * math.pi / 4096
"""[rad]."""
VELOCITY = 0.229 * 2.0 * math.pi / 60.0
"""Unit of Present Velocity [rad/s]."""
CRC_ERROR = 0x03


class DynamixelBus(Served):
    """Motors on one bus, which live on while the adapter is unplugged; methods may be called meanwhile."""

    orders = (
        *("cut", "restore", "freeze", "drop", "corrupt", "tear", "lag", "foreign"),
        *("silence", "raise_fault", "brown_out"),
    )

    def __init__(
        self,
        plant: Plant,
        *,
        ids: Sequence[int] | None = None,
        offset: float = math.pi,
        model: int = 1240,
        firmware: int = 52,
        constant: float = 0.517,
        stiffness: float = 3.0,
        baudrate: int = 4_000_000,
        wire_time: bool = False,
        link: Path | None = None,
        seed: int = 0,
    ):
        """
        Args:
            plant: What the motors move; its joint i is the motor ``ids[i]``.
            ids: Bus addresses, one per joint; 0, 1, ... where not given.
            offset: Motor angle of the plant's zero [rad].
            model: Model number, 1240 (XC330-M288) or 1200 (XL330-M288).
            firmware: Firmware version.
            constant: Torque per current [N m/A], for Present Current.
            stiffness: Of a joint at Position P Gain 600 [N m/rad].
            baudrate: The motors' own.
            wire_time: Whether replies take the time that their bytes need at that baud rate.
            link: Where a symbolic link to the port is kept, as ``/dev/serial/by-id`` keeps one.
            seed: Of what is left to chance.
        """
        idents = list(range(plant.n)) if ids is None else list(ids)
        self.plant, self._offset, self._constant, self._stiffness = plant, offset, constant, stiffness
        memory = memoryview(bytearray(256 * len(idents)))
        rams = [memory[256 * k : 256 * (k + 1)] for k in range(len(idents))]
        self._table = np.frombuffer(memory, np.uint8).reshape(len(idents), 256)
        self.motors = {i: Motor(i, ram, model=model, firmware=firmware) for i, ram in zip(idents, rams, strict=True)}
        self._order, self._damage = idents, Damage(seed)
        self._wire_time, self._link, self._lock = wire_time, link, threading.RLock()
        self._baud, self._epoch = baudrate, time.monotonic()
        for motor in self.motors.values():
            motor.put(8, BAUDS.index(baudrate))
        self.latency = 0.0
        """Time that every reply waits [s], as an adapter's latency timer makes it."""
        self.instructions = 0
        """Intact instruction packets so far."""
        self.goals_written = 0
        """Sync writes of goal positions so far."""
        self._cut, self._frozen, self._foreign = False, False, 0
        self._terminal: Terminal | None = None
        self._present()

    @property
    def port(self) -> str:
        """Path for the driver."""
        return self._plugged().name

    def _plug_in(self) -> None:
        self._terminal = Terminal(self._link)

    def _unplug(self) -> None:
        self._plugged().close()
        self._terminal = None

    # what can be done to it

    def cut(self) -> None:
        """The cable between adapter and hand: bytes vanish, the port stays."""
        self._cut = True

    def freeze(self) -> None:
        """An adapter that hangs: nothing is answered until ``restore``, then everything, late."""
        self._frozen = True

    def restore(self) -> None:
        """Undo ``cut`` and ``freeze``."""
        self._cut = self._frozen = False

    def drop(self, share: float) -> None:
        """This share of replies is lost from now on."""
        self._damage.drop = share

    def corrupt(self, n: int) -> None:
        """One byte of each of the next n replies is changed."""
        self._damage.corrupt = n

    def tear(self, n: int) -> None:
        """The next n replies stop half way."""
        self._damage.torn = n

    def lag(self, n: int) -> None:
        """The adapter is n answers behind from now on; 0 delivers what it kept back."""
        self._damage.lag = n

    def foreign(self, n: int) -> None:
        """The next n replies carry the address of another motor, with a fitting checksum."""
        self._foreign = n

    def silence(self, ident: int, *, silent: bool = True) -> None:
        """One motor loses its connector, or finds it again; without power it would also be limp."""
        with self._lock:
            self.motors[ident].silent_until = math.inf if silent else 0.0

    def raise_fault(self, name: str, ident: int | None = None) -> None:
        """A hardware error of one motor (the first where none is named), by its name in ``dynamixel_motor``."""
        with self._lock:
            self.motors[self._order[0] if ident is None else ident].fail(name)
            self._drive()

    def brown_out(self, ident: int) -> None:
        """One motor restarts by itself, as after a dip of its supply."""
        with self._lock:
            self.motors[ident].reboot(time.monotonic())
            self._drive()

    def holding(self) -> np.ndarray:
        """Which motors have their torque on, in the plant's order, bool."""
        with self._lock:
            return np.array([self.motors[i].on for i in self._order])

    # the thread

    def _serve(self) -> None:
        framer, terminal = Framer(), self._plugged()
        while self.running:
            ready, _, _ = select.select([terminal.master], [], [], 0.002)
            with self._lock:
                self._watch(time.monotonic())
            if not ready or self._frozen:
                continue
            data = os.read(terminal.master, 4096)
            if self._cut or not terminal.speaks(self._baud):
                continue
            for one in framer.feed(data):
                self._reply(self._execute(one), len(data))

    def _plugged(self) -> Terminal:
        if self._terminal is None:
            raise RuntimeError("the adapter is not plugged in: call start")
        return self._terminal

    def _watch(self, now: float) -> None:
        if any(motor.overdue(now) for motor in self.motors.values()):
            self._present()
            for motor in self.motors.values():
                motor.trip(now)
            self._drive()

    def _execute(self, p: Packet) -> bytes:
        if p.instruction == STATUS:
            return b""
        with self._lock:
            now = time.monotonic()
            hearing = {i: m for i, m in self.motors.items() if m.silent_until <= now}
            if not p.intact:
                named = hearing.get(p.ident)
                return packet(p.ident, STATUS, bytes([CRC_ERROR | named.alert])) if named else b""
            self.instructions += 1
            if p.instruction != SYNC_WRITE or _word(p.body) != 116:
                self._present()
            if p.instruction in (SYNC_READ, FAST_SYNC_READ, SYNC_WRITE):
                return self._group(p, hearing, now)
            addressed = hearing if p.ident == BROADCAST else {p.ident: hearing.get(p.ident)}
            out = b""
            for ident, motor in addressed.items():
                if motor is not None:
                    motor.bus_seen = now
                    answer = self._single(ident, motor, p, now)
                    out += answer if p.ident != BROADCAST or p.instruction == PING else b""
            return out

    def _single(self, ident: int, motor: Motor, p: Packet, now: float) -> bytes:
        """Answer of one motor to ping, read, write or reboot."""
        error, data = 0, b""
        if p.instruction == PING:
            data = bytes(motor.ram[0:2]) + bytes(motor.ram[6:7])
        elif p.instruction == READ and len(p.body) == 4:
            error, data = motor.read(_word(p.body), _word(p.body[2:]))
        elif p.instruction == WRITE and len(p.body) > 2:
            error = motor.write(_word(p.body), p.body[2:])
            self._drive()
        elif p.instruction == REBOOT:
            motor.reboot(now)
            self._drive()
        else:
            error = INSTRUCTION_ERROR
        if motor.get(68) == 0 and p.instruction != PING:
            return b""
        return packet(ident, STATUS, bytes([error | motor.alert]) + data)

    def _group(self, p: Packet, hearing: dict[int, Motor], now: float) -> bytes:
        """Sync write (no answer), sync read (a packet each), fast sync read (one packet of all)."""
        address, size, rest = _word(p.body), _word(p.body[2:]), p.body[4:]
        if p.instruction == SYNC_WRITE:
            self.goals_written += address == 116
            for at in range(0, len(rest) - size, size + 1):
                if rest[at] in hearing:
                    hearing[rest[at]].bus_seen = now
                    hearing[rest[at]].write(address, rest[at + 1 : at + 1 + size])
            self._drive()
            return b""
        for ident in rest:
            if ident in hearing:
                hearing[ident].bus_seen = now
        parts = []
        for ident in rest:
            if ident not in hearing:
                break  # each waits for the one before it
            error, data = hearing[ident].read(address, size)
            parts.append((ident, error | hearing[ident].alert, data))
        if self._foreign and parts:
            self._foreign, parts[0] = self._foreign - 1, (200, *parts[0][1:])
        if p.instruction == FAST_SYNC_READ:
            return fast_status(parts, len(rest))
        return b"".join(packet(i, STATUS, bytes([e]) + d) for i, e, d in parts)

    def _reply(self, answer: bytes, heard: int) -> None:
        answer = self._damage.to(answer) if answer else b""
        wait = self.latency + 2e-6 * max(m.get(9) for m in self.motors.values())
        if self._wire_time:
            wait += 10.0 * (heard + len(answer)) / self._baud
        if answer and wait:
            time.sleep(wait)
        if answer and not self._cut:
            os.write(self._plugged().master, answer)

    # between registers and plant

    def _present(self) -> None:
        """Fill the registers of what the motors measure."""
        q, qd, tau = self.plant.measure()
        on, limit = self._column(64, 1), self._column(38, 2)
        current = np.clip(1000.0 * tau / self._constant, -limit, limit) * (on != 0)
        tick = int((time.monotonic() - self._epoch) * 1000) % 32_768
        for address, size, values in (
            (132, 4, (q + self._offset) / COUNT),
            (128, 4, qd / VELOCITY),
            (126, 2, current),
            (120, 2, np.full(len(q), tick)),
        ):
            raw = np.rint(values).astype("<i4").view(np.uint8).reshape(-1, 4)
            self._table[:, address : address + size] = raw[:, :size]

    def _drive(self) -> None:
        """Hand goals on: a motor with its torque off neither pulls nor damps."""
        goal = self._column(116, 4) * COUNT - self._offset
        gain = self._stiffness * self._column(84, 2) / 600.0 * (self._column(64, 1) != 0)
        self.plant.target(goal, gain, gain / 30.0)

    def _column(self, address: int, size: int) -> np.ndarray:
        """A register of all motors."""
        return np.ascontiguousarray(self._table[:, address : address + size]).view(f"<i{size}").ravel()


def _word(data: bytes) -> int:
    return int.from_bytes(data[:2], "little")
