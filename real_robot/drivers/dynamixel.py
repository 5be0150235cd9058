"""A Dynamixel bus from the host's side: dynamixel-sdk's packets over a port with honest timeouts.

The SDK's own port spins at full load while it waits and allows 34 ms for every answer; this one sleeps until bytes
arrive and gives up after the time that the answer needs on the wire plus ``timeout``.
"""

from __future__ import annotations

import os
import select
import termios
import time
from collections.abc import Sequence

import numpy as np
import serial
from dynamixel_sdk import COMM_SUCCESS, PortHandler, Protocol2PacketHandler

from palmar.real_robot.drivers.error import DriverError

Array = np.ndarray
BAUDS = (57_600, 1_000_000, 2_000_000, 3_000_000, 4_000_000, 115_200, 9_600)
"""What the 330 motors can be set to, the likely ones first."""
BROKEN = (serial.SerialException, OSError, termios.error)
"""What an unplugged adapter raises."""
QUIET = 0.003
"""After a failed read the line has to be silent for so long before the next request [s]."""

FULL = 0.05
"""Patience with an adapter that takes no more bytes [s]."""


class Port(PortHandler):
    """A serial port of this process alone, which waits for bytes instead of spinning."""

    def __init__(self, name: str, baudrate: int, *, timeout: float):
        super().__init__(name)
        self.timeout, self._deadline = timeout, 0.0
        self.baudrate, self.tx_time_per_byte = baudrate, 1e4 / baudrate
        self.ser = serial.Serial(name, baudrate, timeout=0, exclusive=True)
        self.is_open = True
        try:
            self.ser.set_low_latency_mode(True)
        except (OSError, ValueError, NotImplementedError):
            pass  # not an FTDI adapter; a pseudo-terminal has no such timer
        self.ser.reset_input_buffer()

    def setPacketTimeout(self, packet_length: int) -> None:  # noqa: N802 (the SDK's name)
        """Wait for ``packet_length`` bytes from now on."""
        self._deadline = time.monotonic() + self.timeout + 1e-3 * self.tx_time_per_byte * packet_length

    def setPacketTimeoutMillis(self, msec: float) -> None:  # noqa: N802
        """Wait for ``msec`` milliseconds from now on."""
        self._deadline = time.monotonic() + 1e-3 * msec

    def isPacketTimeout(self) -> bool:  # noqa: N802
        """Whether that time is over."""
        return time.monotonic() > self._deadline

    def readPort(self, length: int) -> bytes:  # noqa: N802
        """Bytes that are there, or come in time; b'' where none do."""
        ready, _, _ = select.select([self.ser.fileno()], [], [], max(self._deadline - time.monotonic(), 0.0))
        return os.read(self.ser.fileno(), length) if ready else b""

    def writePort(self, packet: Sequence[int]) -> int:  # noqa: N802
        """Send bytes; how many went out before a full buffer stayed full."""
        rest = bytes(packet)
        while rest and select.select([], [self.ser.fileno()], [], FULL)[1]:
            rest = rest[os.write(self.ser.fileno(), rest) :]
        return len(packet) - len(rest)

    def drain(self) -> None:
        """Throw away late answers until the line is silent."""
        end = time.monotonic() + 0.1
        while time.monotonic() < end and select.select([self.ser.fileno()], [], [], QUIET)[0]:
            os.read(self.ser.fileno(), 4096)


class Bus:
    """Registers of many motors at once.  Every failure is a DriverError; nothing is repeated or made up."""

    def __init__(self, port: str, baudrate: int, *, timeout: float):
        self._handler = Protocol2PacketHandler()
        self._dirty, self._turn = False, 0
        try:
            self.port = Port(port, baudrate, timeout=timeout)
        except BROKEN as error:
            raise DriverError(f"cannot open {port} at {baudrate} baud: {error}") from error

    def close(self) -> None:
        """Let go of the port."""
        try:
            self.port.closePort()
        except BROKEN:
            pass  # it is gone already

    def ping(self, ident: int) -> tuple[int, int] | None:
        """Model number and firmware version of a motor; None where it does not answer."""
        packet = [0] * 10
        packet[4:8] = [ident, 3, 0, 0x01]
        answer, result, _ = self._talk(lambda: self._handler.txRxPacket(self.port, packet))
        if result != COMM_SUCCESS or answer is None or len(answer) < 12:
            self._dirty = True
            return None
        return answer[9] | answer[10] << 8, answer[11]

    def find(self) -> dict[int, int]:
        """Model number of every motor on the bus by its address; takes about a second."""
        found, _ = self._talk(lambda: self._handler.broadcastPing(self.port))
        return {ident: int(model) for ident, (model, _) in found.items()}

    def read(self, idents: Sequence[int], address: int, size: int) -> tuple[Array, Array]:
        """Registers of all motors by one fast sync read: data (k, size) uint8 and error bytes (k,) uint8.

        Motors answer in the order in which they are asked.  Each request begins with another motor, so that an
        answer to an earlier request is known by its order.

        Raises:
            DriverError: If one of them did not answer in time and whole, or this is an earlier answer.
        """
        self._turn += 1
        first, step = self._turn % len(idents), size + 4
        asked = [*idents[first:], *idents[:first]]
        data, result, _ = self._talk(lambda: self._fast(asked, address, size))
        if result != COMM_SUCCESS or len(data) != step * len(idents):
            self._dirty = True
            raise DriverError(f"reading register {address} of motors {list(idents)}: {self._why(result)}")
        table = np.array(data, dtype=np.uint8).reshape(len(idents), step)
        if table[:, 1].tolist() != asked:
            self._dirty = True
            raise DriverError(f"asked motors {asked}, got answers of {table[:, 1].tolist()}: an earlier answer?")
        table = np.roll(table, first, axis=0)
        return table[:, 2:-2], table[:, 0]

    def write(self, idents: Sequence[int], address: int, rows: Array) -> None:
        """Registers of all motors by one sync write; rows (k, size) uint8.  Motors do not answer it.

        Raises:
            DriverError: If the bytes could not be sent.
        """
        size = rows.shape[1]
        body = np.column_stack([np.asarray(idents, dtype=np.uint8), rows]).ravel().tolist()
        result = self._talk(lambda: self._handler.syncWriteTxOnly(self.port, address, size, body, len(body)))
        if result != COMM_SUCCESS:
            raise DriverError(f"writing register {address}: {self._why(result)}")

    def write_one(self, ident: int, address: int, value: int, size: int) -> None:
        """One register of one motor, which confirms it.

        Raises:
            DriverError: If it does not, or refuses.
        """
        data = list(value.to_bytes(size, "little", signed=value < 0))
        result, error = self._talk(lambda: self._handler.writeTxRx(self.port, ident, address, size, data))
        if result != COMM_SUCCESS or error & 0x7F:
            self._dirty = True
            why = self._why(result) if result != COMM_SUCCESS else self._handler.getRxPacketError(error & 0x7F)
            raise DriverError(f"writing {value} to register {address} of motor {ident}: {why}")

    def reboot(self, ident: int) -> None:
        """Restart a motor: its torque goes off."""
        self._talk(lambda: self._handler.reboot(self.port, ident))

    def _fast(self, idents: list[int], address: int, size: int) -> tuple[list[int], int, int]:
        result = self._handler.syncReadTx(self.port, address, size, idents, len(idents), True)
        if result != COMM_SUCCESS:
            return [], result, 0
        return self._handler.fastSyncReadRx(self.port, 0xFE, (size + 4) * len(idents))

    def _talk(self, request):  # noqa: ANN001, ANN202 (whatever the SDK returns)
        """One transaction; after a failed one, only once the line is silent."""
        self.port.is_using = False
        try:
            if self._dirty:
                self.port.drain()
                self._dirty = False
            return request()
        except BROKEN as error:
            self._dirty = True
            raise DriverError(f"{self.port.port_name} is gone: {error}") from error

    def _why(self, result: int) -> str:
        return self._handler.getTxRxResult(result).removeprefix("[TxRxResult] ") or "the answer is incomplete"


def rows_of(values: Array, size: int) -> Array:
    """Little-endian bytes (n, size) uint8 of integers (n,), negative ones as two's complement."""
    return np.asarray(values).astype("<i8").view(np.uint8).reshape(len(values), 8)[:, :size]


def integers(rows: Array, *, signed: bool = True) -> Array:
    """Integers (n,) of little-endian bytes (n, 1), (n, 2) or (n, 4)."""
    kind = ("<i" if signed else "<u") + str(rows.shape[1])
    return np.ascontiguousarray(rows).view(kind).ravel().astype(np.int64)
