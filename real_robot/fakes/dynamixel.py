"""A fake Dynamixel bus: a pseudo-terminal behind which motors answer Protocol 2.0 packets and move a plant.

The driver opens ``port`` as it would open ``/dev/ttyUSB0``.  The motors hear only a host that speaks at their
baud rate, obey access rights, torque lock, alert bit and bus watchdog, and can be hurt in every way that a bus is:
cut, unplugged, silent, slow, corrupt, torn, in hardware error.
"""

from __future__ import annotations

import math
import os
import random
import select
import termios
import threading
import time
import tty
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from palmar.real_robot.fakes.dynamixel_motor import HARDWARE_ERRORS, INSTRUCTION_ERROR, Motor
from palmar.real_robot.fakes.dynamixel_packets import BROADCAST, STATUS, Framer, Packet, fast_status, packet
from palmar.real_robot.fakes.plant import Plant

PING, READ, WRITE, REBOOT = 0x01, 0x02, 0x03, 0x08
SYNC_READ, SYNC_WRITE, FAST_SYNC_READ = 0x82, 0x83, 0x8A
BAUDS = (9_600, 57_600, 115_200, 1_000_000, 2_000_000, 3_000_000, 4_000_000)
"""Register 8's values."""
COUNT = 2.0 * math.pi / 4096
"""[rad]."""
VELOCITY = 0.229 * 2.0 * math.pi / 60.0
"""Unit of Present Velocity [rad/s]."""
CRC_ERROR = 0x03


class DynamixelBus:
    """Motors on one bus.  Use as a context manager, or ``start`` and ``close``; methods may be called meanwhile."""

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
        self.motors = {i: Motor(i, model=model, firmware=firmware) for i in idents}
        self._order, self._rng = idents, random.Random(seed)
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
        self._cut, self._frozen, self._drop, self._corrupt, self._torn, self._foreign = False, False, 0.0, 0, 0, 0
        self._running, self._thread, self._master, self._slave = False, None, -1, -1
        self._present()

    @property
    def port(self) -> str:
        """Path for the driver."""
        return str(self._link) if self._link is not None else os.ttyname(self._slave)

    def start(self) -> DynamixelBus:
        """Open the pseudo-terminal and answer from a thread."""
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        if self._link is not None:
            self._link.unlink(missing_ok=True)
            self._link.symlink_to(os.ttyname(self._slave))
        self._running = True
        self._thread = threading.Thread(target=self._serve, name="dynamixel bus", daemon=True)
        self._thread.start()
        return self

    def close(self) -> None:
        """The adapter is unplugged and the port goes away; ``start`` plugs it in again, the motors lived on."""
        self._running = False
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            os.close(self._master)
            os.close(self._slave)
            if self._link is not None:
                self._link.unlink(missing_ok=True)

    def __enter__(self) -> DynamixelBus:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

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
        self._drop = share

    def corrupt(self, n: int) -> None:
        """One byte of each of the next n replies is changed."""
        self._corrupt = n

    def tear(self, n: int) -> None:
        """The next n replies stop half way."""
        self._torn = n

    def foreign(self, n: int) -> None:
        """The next n replies carry the address of another motor, with a fitting checksum."""
        self._foreign = n

    def silence(self, ident: int, *, silent: bool = True) -> None:
        """One motor loses its connector, or finds it again; without power it would also be limp."""
        with self._lock:
            self.motors[ident].silent_until = math.inf if silent else 0.0

    def raise_fault(self, name: str, ident: int | None = None) -> None:
        """A hardware error of one motor (the first where none is named), by its name in HARDWARE_ERRORS."""
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
        framer = Framer()
        while self._running:
            ready, _, _ = select.select([self._master], [], [], 0.002)
            with self._lock:
                self._watch(time.monotonic())
            if not ready or self._frozen:
                continue
            data = os.read(self._master, 4096)
            if self._cut or not self._same_baud():
                continue
            for one in framer.feed(data):
                self._reply(self._execute(one), len(data))

    def _same_baud(self) -> bool:
        speed = termios.tcgetattr(self._slave)[5]
        return speed == getattr(termios, f"B{self._baud}")

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
        if p.instruction == FAST_SYNC_READ:
            return fast_status(self._swapped(parts), len(rest))
        return b"".join(packet(i, STATUS, bytes([e]) + d) for i, e, d in parts)

    def _swapped(self, parts: list[tuple[int, int, bytes]]) -> list[tuple[int, int, bytes]]:
        if self._foreign and parts:
            self._foreign -= 1
            return [(200, *parts[0][1:]), *parts[1:]]
        return parts

    def _reply(self, answer: bytes, heard: int) -> None:
        if not answer or self._rng.random() < self._drop:
            return
        wait = self.latency + 2e-6 * max(m.get(9) for m in self.motors.values())
        if self._wire_time:
            wait += 10.0 * (heard + len(answer)) / self._baud
        if wait:
            time.sleep(wait)
        if self._corrupt:
            self._corrupt -= 1
            at = self._rng.randrange(8, len(answer))
            answer = answer[:at] + bytes([answer[at] ^ 0x55]) + answer[at + 1 :]
        if self._torn:
            self._torn -= 1
            answer = answer[: len(answer) // 2]
        if not self._cut:
            os.write(self._master, answer)

    # between registers and plant

    def _present(self) -> None:
        """Fill the registers of what the motors measure."""
        q, qd, tau = self.plant.measure()
        tick = int((time.monotonic() - self._epoch) * 1000) % 32_768
        for i, ident in enumerate(self._order):
            m = self.motors[ident]
            m.put(132, round((q[i] + self._offset) / COUNT))
            m.put(128, round(qd[i] / VELOCITY))
            limit = m.get(38)
            m.put(126, min(max(round(1000.0 * tau[i] / self._constant), -limit), limit) if m.on else 0)
            m.put(120, tick)

    def _drive(self) -> None:
        """Hand goals on: a motor with its torque off neither pulls nor damps."""
        motors = [self.motors[i] for i in self._order]
        on = np.array([m.on for m in motors], dtype=float)
        goal = np.array([m.get(116) for m in motors]) * COUNT - self._offset
        gain = self._stiffness * np.array([m.get(84) for m in motors]) / 600.0
        self.plant.target(goal, on * gain, on * gain / 30.0)


def _word(data: bytes) -> int:
    return int.from_bytes(data[:2], "little")


__all__ = ["BAUDS", "HARDWARE_ERRORS", "DynamixelBus"]
