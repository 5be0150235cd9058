"""The commands of the fake's TCP side: what is accepted when, and the answers that come later."""

from __future__ import annotations

import socket
import struct
from typing import Any, Protocol

import numpy as np

from palmar.real_robot.fakes import fci_wire as wire

STIFFEST = 14250.0
"""Largest joint stiffness of the internal controller [N m/rad]."""
HEAVIEST = 15.0
"""A load beyond it is no load of this arm [kg]; the real check is not published."""


class Arm(Protocol):
    """What a command may ask of the robot."""

    mode: int

    def begin_motion(self) -> bool:
        """Whether a motion may begin, which it then does."""
        ...

    def stop_motion(self) -> bool:
        """Whether one was stopped."""
        ...

    def recover(self) -> int:
        """Status of an error recovery."""
        ...


class Desk:
    """One client's commands."""

    def __init__(self, urdf: str, version: int):
        self.urdf, self.version = urdf, version
        self.peer: tuple[str, int] | None = None
        """Where states go."""
        self.settings: dict[str, tuple[float, ...]] = {}
        """What setters were given: ``impedance``, ``collision``, ``load``."""
        self.controller = wire.CONTROLLER_JOINT_IMPEDANCE
        """Of the motion: joint or Cartesian impedance; the plant follows either alike."""
        self._move: int | None = None
        self._stop: int | None = None
        self._buffer = b""

    def serve(self, tcp: socket.socket, arm: Arm) -> bool:
        """Answer what arrived; False when the client is gone."""
        try:
            data = tcp.recv(4096)
        except OSError:
            data = b""
        if not data:
            self.peer, self._buffer, self._move, self._stop = None, b"", None, None
            return False
        self._buffer += data
        while len(self._buffer) >= wire.HEADER.size:
            command, number, size = wire.HEADER.unpack_from(self._buffer)
            if command not in wire.REQUEST_SIZE or size != wire.HEADER.size + wire.REQUEST_SIZE[command]:
                self._buffer = b""
                return False
            if len(self._buffer) < size:
                break
            body, self._buffer = self._buffer[wire.HEADER.size : size], self._buffer[size:]
            self._answer(tcp, arm, command, number, body)
        return True

    def _answer(self, tcp: socket.socket, arm: Arm, command: int, number: int, body: bytes) -> None:
        status, payload = wire.SUCCESS, b""
        if command == wire.CONNECT:
            theirs, port = struct.unpack("<HH", body)
            status = wire.SUCCESS if theirs == self.version else wire.INCOMPATIBLE
            payload = struct.pack("<H", self.version)
            self.peer = (tcp.getpeername()[0], port) if status == wire.SUCCESS else None
        elif command == wire.GET_MODEL:
            payload = self.urdf.encode()
        elif command == wire.MOVE:
            status = self._begin(arm, number, body)
        elif command == wire.STOP_MOVE:
            if arm.stop_motion():
                self._stop = number  # answered at standstill
                return self.moved(tcp, wire.MOVE_PREEMPTED)
        elif command == wire.RECOVER:
            status = arm.recover()
        else:
            status = wire.NOT_POSSIBLE if arm.mode != wire.IDLE else self._set(command, body)
        _send(tcp, wire.response(command, number, status, payload))

    def _begin(self, arm: Arm, number: int, body: bytes) -> int:
        controller, generator = struct.unpack_from("<II", body)
        if controller > wire.CONTROLLER_CARTESIAN_IMPEDANCE or generator != 0:
            return wire.MOVE_INVALID  # only joint positions over an internal controller are faked
        if not arm.begin_motion():
            return wire.MOVE_NOT_POSSIBLE
        self._move, self.controller = number, controller
        return wire.MOVE_STARTED

    def _set(self, command: int, body: bytes) -> int:
        """Setters; the values must make sense."""
        values = [float(v) for v in np.frombuffer(body, "<f8")] if len(body) % 8 == 0 else []
        if command == wire.SET_IMPEDANCE:
            good, name = all(0.0 <= v <= STIFFEST for v in values), "impedance"
        elif command == wire.SET_COLLISION:
            good, name = all(v > 0.0 for v in values), "collision"
        elif command == wire.SET_LOAD:
            good, name = 0.0 <= values[0] <= HEAVIEST, "load"
        else:
            good, name = True, f"command_{command}"
        if good:
            self.settings[name] = tuple(values)
        return wire.SUCCESS if good else wire.INVALID

    def moved(self, tcp: Any, status: int) -> None:
        """The motion is over: answer the Move command."""
        if self._move is not None and tcp is not None:
            _send(tcp, wire.response(wire.MOVE, self._move, status))
        self._move = None

    def stopped(self, tcp: Any) -> None:
        """The robot stands: answer the StopMove command, if there was one."""
        if self._stop is not None and tcp is not None:
            _send(tcp, wire.response(wire.STOP_MOVE, self._stop, wire.SUCCESS))
        self._stop = None


def _send(tcp: socket.socket, message: bytes) -> None:
    try:
        tcp.sendall(message)
    except OSError:
        pass  # the client is gone; the next read says so
