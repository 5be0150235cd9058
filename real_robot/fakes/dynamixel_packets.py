"""Bytes of Dynamixel Protocol 2.0, written from ROBOTIS' e-manual (docs/en/dxl/protocol2, docs/en/dxl/crc).

The driver uses dynamixel-sdk for the same bytes; this is the motors' side and shares no code with it.
"""

from __future__ import annotations

from dataclasses import dataclass

HEADER = b"\xff\xff\xfd"
STATUS = 0x55
BROADCAST = 0xFE
LONGEST = 1024
"""A length field above this is noise, not a packet."""


def _crc_row(byte: int) -> int:
    """CRC-16 of one byte: polynomial 0x8005, not reflected."""
    crc = byte << 8
    for _ in range(8):
        crc = (crc << 1 ^ 0x8005 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


CRC_TABLE = tuple(_crc_row(byte) for byte in range(256))


def crc16(data: bytes, crc: int = 0) -> int:
    """Checksum of ``data``, continued from ``crc``."""
    for byte in data:
        crc = (crc << 8 & 0xFFFF) ^ CRC_TABLE[crc >> 8 ^ byte]
    return crc


def packet(ident: int, instruction: int, body: bytes, *, stuffed: bool = True) -> bytes:
    """A whole packet; ``body`` is the parameters, of a status packet the error byte before them."""
    content = bytes([instruction]) + body
    if stuffed:
        content = content.replace(HEADER, HEADER + b"\xfd")
    start = HEADER + b"\x00" + bytes([ident]) + (len(content) + 2).to_bytes(2, "little") + content
    return start + crc16(start).to_bytes(2, "little")


def fast_status(parts: list[tuple[int, int, bytes]], expected: int) -> bytes:
    """What motors say one after another to a fast sync read: (id, error, data) of each that spoke.

    The first announces the length of all ``expected`` answers; each ends with the checksum so far; nothing is
    stuffed.  With fewer parts than expected the packet breaks off, as on the wire.
    """
    if not parts:
        return b""
    size = len(parts[0][2]) + 4
    out = HEADER + b"\x00" + bytes([BROADCAST]) + (expected * size + 1).to_bytes(2, "little") + bytes([STATUS])
    crc = crc16(out)
    for ident, error, data in parts:
        part = bytes([error, ident]) + data
        crc = crc16(part, crc)
        sent = crc.to_bytes(2, "little")
        out, crc = out + part + sent, crc16(sent, crc)
    return out


@dataclass(frozen=True)
class Packet:
    """One packet as it came off the wire."""

    ident: int
    instruction: int
    body: bytes
    """Parameters, unstuffed."""
    intact: bool
    """Whether its checksum fits."""


class Framer:
    """Cuts a stream of bytes into packets; noise between them is skipped, the unfinished rest is kept."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Packet]:
        """The packets that ``data`` completes."""
        self._rest += data
        found = []
        while (one := self._next()) is not None:
            found.append(one)
        return found

    def _next(self) -> Packet | None:
        while True:
            at = self._rest.find(HEADER)
            if at < 0:
                self._rest = self._rest[-2:]
                return None
            self._rest = self._rest[at:]
            if len(self._rest) < 10:
                return None
            length = int.from_bytes(self._rest[5:7], "little")
            if self._rest[3] == 0xFD or not 3 <= length <= LONGEST:
                self._rest = self._rest[3:]
                continue
            if len(self._rest) < 7 + length:
                return None
            whole, self._rest = self._rest[: 7 + length], self._rest[7 + length :]
            content = whole[7:-2].replace(HEADER + b"\xfd", HEADER)
            intact = crc16(whole[:-2]) == int.from_bytes(whole[-2:], "little")
            return Packet(whole[4], content[0], content[1:], intact)
