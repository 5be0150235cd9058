"""One connection to an arm through libfranka: opened, bounded where libfranka waits without bound, let go of."""

from __future__ import annotations

import ctypes
import json
import os
import select
import socket
import stat
import time
from importlib import import_module
from typing import Any

from palmar.real_robot.drivers.error import DriverError
from palmar.real_robot.drivers.fr3_config import Fr3Config
from palmar.safety.types import ConfigError

CONNECT_TIME = 1.0
"""How long a robot that refuses a second client is asked again [s]."""


def libfranka() -> Any:
    """The module.

    Raises:
        ConfigError: If it is not installed.
    """
    try:
        return import_module("pylibfranka")
    except ImportError as error:
        raise ConfigError(f"no pylibfranka here ({error}): pip install 'palmar[franka]', Linux x86_64") from error


class Link:
    """A connected robot, its model, and its two sockets."""

    def __init__(self, lib: Any, config: Fr3Config):
        """Connect.

        Raises:
            RuntimeError: libfranka's, or its FrankaException.
            DriverError: If its sockets cannot be told apart from others of this process.
        """
        kind = lib.RealtimeConfig.kEnforce if config.realtime_kernel else lib.RealtimeConfig.kIgnore
        before = _open_sockets()
        self.robot: Any = _connect(lib, config.address, kind)
        mine = _open_sockets() - before
        self._packets, self._commands = _Socket(mine, socket.SOCK_DGRAM), _Socket(mine, socket.SOCK_STREAM)
        self.model: Any = self.robot.load_model()

    def await_packet(self, timeout: float) -> None:
        """Return when a packet of the robot is there.

        Raises:
            DriverError: If none comes in time.
        """
        if not self._packets.wait(timeout):
            raise DriverError(f"no packet from the robot for {1e3 * timeout:.0f} ms")

    def abandon(self, motion: Any) -> None:
        """Let go of a robot that does not answer, and of the motion that it was in.

        libfranka's destructor of a running motion asks the robot to stop and waits for its answer without bound.  So
        that object is never destroyed, and its connection is shut down here.
        """
        if motion is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(motion))
        self._commands.shut()


def _connect(lib: Any, address: str, kind: Any) -> Any:
    end = time.monotonic() + CONNECT_TIME
    policy, parameter = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        while True:
            try:
                return lib.Robot(address, kind)
            except lib.NetworkException:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)
    finally:  # libfranka takes the highest real-time priority there is; which is right is this process's business
        os.sched_setscheduler(0, policy, parameter)


def fault(state: Any) -> str:
    """What keeps the robot of this state from moving, '' where nothing does."""
    mode, errors = state.robot_mode.name, state.current_errors
    if not errors and mode in ("Move", "Idle"):
        return ""
    names = json.loads(str(errors))
    if not names and mode == "Reflex":
        names = json.loads(str(state.last_motion_errors))
    if names:
        return ",".join(names)
    known = {"UserStopped": "user_stopped", "AutomaticErrorRecovery": "error_recovery"}
    return known.get(mode, mode.lower())


class _Socket:
    """One of libfranka's sockets, found among this process's new ones, through a descriptor of our own."""

    def __init__(self, found: set[int], kind: int):
        mine = [fd for fd in found if _kind(fd) == kind]
        if len(mine) != 1:
            raise DriverError(f"libfranka opened {len(mine)} sockets of kind {kind}, expected 1")
        self._socket = socket.socket(fileno=os.dup(mine[0]))
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)

    def wait(self, timeout: float) -> bool:
        """Whether something arrives in time."""
        return bool(self._poll.poll(1e3 * timeout))

    def shut(self) -> None:
        """End the connection for both sides."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it is gone already


def _open_sockets() -> set[int]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                found.add(int(name))
        except OSError:
            continue  # the listing's own descriptor
    return found


def _kind(fd: int) -> int:
    s = socket.socket(fileno=os.dup(fd))
    kind = s.type
    s.close()
    return kind
