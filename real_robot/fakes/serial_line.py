"""A serial line without hardware: a pseudo-terminal, and what can happen to bytes on the way."""

from __future__ import annotations

import os
import random
import termios
import tty
from pathlib import Path


class Terminal:
    """A pseudo-terminal whose ``name`` is a port for somebody else, kept as a symbolic link where one is asked for."""

    def __init__(self, link: Path | None = None):
        self.master, self._slave = os.openpty()
        tty.setraw(self._slave)
        self._link = link
        if link is not None:
            link.unlink(missing_ok=True)
            link.symlink_to(os.ttyname(self._slave))
        self.name = os.ttyname(self._slave) if link is None else str(link)

    def speaks(self, baudrate: int) -> bool:
        """Whether the other side has set this baud rate."""
        return termios.tcgetattr(self._slave)[5] == getattr(termios, f"B{baudrate}")

    def close(self) -> None:
        """The adapter is unplugged: the port goes away."""
        os.close(self.master)
        os.close(self._slave)
        if self._link is not None:
            self._link.unlink(missing_ok=True)


class Damage:
    """What befalls answers; all counters start at none."""

    def __init__(self, seed: int):
        self._rng = random.Random(seed)
        self.drop = 0.0
        """Share that is lost."""
        self.corrupt = 0
        """So many of the next have one byte changed."""
        self.torn = 0
        """So many of the next stop half way."""
        self.lag = 0
        """So many answers stay in the adapter until others push them out."""
        self._waiting: list[bytes] = []

    def to(self, answer: bytes) -> bytes:
        """What comes out when this answer goes in."""
        self._waiting.append(self._hurt(answer))
        out, self._waiting = self._waiting[: -self.lag or None], self._waiting[-self.lag :] if self.lag else []
        return b"".join(out)

    def _hurt(self, answer: bytes) -> bytes:
        if self._rng.random() < self.drop:
            return b""
        if self.corrupt:
            self.corrupt -= 1
            at = self._rng.randrange(8, len(answer))
            answer = answer[:at] + bytes([answer[at] ^ 0x55]) + answer[at + 1 :]
        if self.torn:
            self.torn -= 1
            answer = answer[: len(answer) // 2]
        return answer
