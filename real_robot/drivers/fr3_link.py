"""libfranka's own sockets, found among this process's, to bound waits that it does not bound itself."""

from __future__ import annotations

import os
import select
import socket
import stat

from palmar.real_robot.drivers.error import DriverError


class LinkSocket:
    """One of libfranka's sockets, through a descriptor of our own."""

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


def open_sockets() -> set[int]:
    """Descriptors of every socket of this process (Linux)."""
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
