"""CDR messages of fixed layout, filled in place: several times faster than serialising each field.

At 1 kHz the recorder writes seven messages per tick beside a control process; names and layouts never change.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from palmar.rollouts import schema

STAMP = (0x12345678, 0x09ABCDEF)
"""Seconds and nanoseconds that stand for the stamp in a template."""


def sentinel(size: int, slot: int) -> np.ndarray:
    """Numbers that stand for an array in a template: unlike any other slot's, name or count."""
    return np.arange(size) * 1.000244140625e-77 - (slot + 1) * 3.0517578125e111


class Template:
    """A serialised message whose stamp and float64 arrays are exchanged.

    Args:
        message: With ``STAMP`` as its stamp, if it has one, and ``sentinel(size, slot)`` as its arrays.
        kind: Its ROS 2 type.
        sizes: Length of each slot, in order; an empty one is not in the bytes.
    """

    def __init__(self, message: Any, kind: str, sizes: tuple[int, ...]) -> None:
        self._bytes = bytes(schema.typestore().serialize_cdr(message, kind, little_endian=True))
        self._stamp = self._bytes.find(struct.pack("<iI", *STAMP))
        self._slots = []
        for slot, size in enumerate(sizes):
            if size:
                pattern = sentinel(size, slot).astype("<f8").tobytes()
                self._slots.append((self._bytes.index(pattern), 8 * size, slot))

    def fill(self, ns: int, arrays: tuple[np.ndarray, ...]) -> bytes:
        """The message with stamp ``ns`` [ns] and these arrays, float64 of the promised sizes."""
        out = bytearray(self._bytes)
        if self._stamp >= 0:
            struct.pack_into("<iI", out, self._stamp, *divmod(ns, 10**9))
        for at, length, slot in self._slots:
            out[at : at + length] = np.ascontiguousarray(arrays[slot], dtype="<f8").tobytes()
        return bytes(out)
