"""Messages between a process that learns and the process that simulates: JSON and raw arrays over a socket, no pickle.

A message is the length of its head (4 bytes, network order), the head (JSON), and the bytes of its arrays in order.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

Array = np.ndarray
LONGEST = 1 << 20
"""Longest head [bytes]."""


def send(sock: socket.socket, head: Mapping[str, Any], arrays: Mapping[str, Array] | None = None) -> None:
    """Send one message."""
    whole = {name: np.ascontiguousarray(x) for name, x in (arrays or {}).items()}
    listed = [[name, x.dtype.str, list(x.shape)] for name, x in whole.items()]
    text = json.dumps({**head, "arrays": listed}).encode()
    sock.sendall(struct.pack("!I", len(text)) + text + b"".join(x.tobytes() for x in whole.values()))


def receive(sock: socket.socket) -> tuple[dict[str, Any], dict[str, Array]]:
    """Wait for one message: its head, and its arrays by name.

    Raises:
        EOFError: If the other side is gone.
        ValueError: If what arrives is no message.
    """
    (length,) = struct.unpack("!I", _exactly(sock, 4))
    if length > LONGEST:
        raise ValueError(f"a head of {length} bytes, at most {LONGEST} are sent")
    head = json.loads(_exactly(sock, length))
    arrays = {}
    for name, dtype, shape in head.pop("arrays"):
        kind = np.dtype(dtype)
        if kind.hasobject:
            raise ValueError(f"array {name} of {dtype}: numbers only")
        raw = _exactly(sock, int(np.prod(shape, dtype=np.int64)) * kind.itemsize)
        arrays[name] = np.frombuffer(raw, kind).reshape(shape).copy()
    return head, arrays


def _exactly(sock: socket.socket, count: int) -> bytes:
    """The next ``count`` bytes."""
    parts = bytearray()
    while len(parts) < count:
        part = sock.recv(min(count - len(parts), 1 << 20))
        if not part:
            raise EOFError("the other process is gone")
        parts += part
    return bytes(parts)
