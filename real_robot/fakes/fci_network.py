"""The sockets of the fake arm, and what can go wrong on the way: cuts, losses, damage."""

from __future__ import annotations

import contextlib
import select
import socket
from collections import deque
from typing import Any

import numpy as np

from palmar.real_robot.fakes import fci_wire as wire


class Network:
    """TCP 1337 for one client at a time, and UDP."""

    def __init__(self, address: str, rng: np.random.Generator):
        self.address, self._rng = address, rng
        self.tcp: socket.socket | None = None
        """The client's connection."""
        self.is_cut = False
        self.drop, self.share, self.hide, self.corrupt = 0, 0.0, 0, 0
        """Answers still to lose, share of all to lose, states not to send, states to damage."""
        self.received = self.late = 0
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind((address, 0))
        self._udp.setblocking(False)
        self._server: socket.socket | None = socket.create_server((address, wire.PORT))

    def send(self, packet: bytes, peer: tuple[str, int]) -> None:
        """A state, unless it is lost."""
        if self.is_cut:
            return
        if self.hide:
            self.hide -= 1
            return
        if self.corrupt:
            self.corrupt, packet = self.corrupt - 1, packet[:-1]
        with contextlib.suppress(OSError):
            self._udp.sendto(packet, peer)

    def wait(self, timeout: float, *, answers: bool) -> tuple[bool, bool]:
        """Wait for something to arrive: whether an answer did, whether the client's TCP has something."""
        watched = [] if self.is_cut else [s for s in (self._server, self.tcp) if s is not None]
        ready, _, _ = select.select(watched + [self._udp] * answers, [], [], timeout)
        if self._server is not None and self._server in ready:
            self._accept(self._server)
        return self._udp in ready, self.tcp is not None and self.tcp in ready

    def answer(self, tick: int) -> Any:
        """The answer to state ``tick``; False where it was lost on the way, None for a late or foreign packet."""
        try:
            packet, _ = self._udp.recvfrom(2048)
        except OSError:
            return None
        if self.is_cut or len(packet) != wire.COMMAND.itemsize:
            return None
        command = np.frombuffer(packet, wire.COMMAND)[0]
        if int(command["message_id"]) != tick:
            self.late += 1
            return None
        if self.drop or self._rng.random() < self.share:
            self.drop = max(0, self.drop - 1)
            return False
        self.received += 1
        return command

    def _accept(self, server: socket.socket) -> None:
        self.tcp, _ = server.accept()
        self.tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server.close()  # others are refused as long as this one is there
        self._server = None

    def hang_up(self) -> None:
        """The client is gone; the next one may come."""
        if self.tcp is not None:
            self.tcp.close()
        self.tcp = None
        self._server = socket.create_server((self.address, wire.PORT))

    def close(self) -> None:
        """Every socket."""
        for s in (self.tcp, self._server, self._udp):
            if s is not None:
                s.close()


class SuccessRate:
    """Share of the last 100 packets that came in time."""

    def __init__(self) -> None:
        self._last: deque[bool] = deque()
        self._kept = 0

    def note(self, kept: bool) -> None:
        """One more packet."""
        self._last.append(kept)
        self._kept += kept
        if len(self._last) > 100:
            self._kept -= self._last.popleft()

    @property
    def share(self) -> float:
        """0 before the first packet, as with the robot."""
        return self._kept / max(1, len(self._last))
