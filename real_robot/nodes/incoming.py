"""What the bridge writes into the control process's shared memory: chunks, people, objects, and requests."""

from __future__ import annotations

import os
from typing import Any

from palmar.real_robot.nodes.poses import Pose
from palmar.real_robot.shared import Block
from palmar.safety.types import Chunk, People


def write_chunk(block: Block, chunk: Chunk, *, sent: float, seen: float, lost: int) -> None:
    """A chunk that was accepted, with monotonic times [s]: when it was published, when a camera saw what it is for."""
    r, h = block.record, len(chunk.t)
    r["seen"] = seen
    r["seq"], r["received"], r["count"], r["sent"], r["lost"] = chunk.seq, chunk.received, h, sent, lost
    r["t"][:h], r["q"][:h] = chunk.t, chunk.q
    r["impedance"] = chunk.stiffness is not None
    if chunk.stiffness is not None:
        r["stiffness"][:h], r["damping"][:h] = chunk.stiffness, chunk.damping
    block.write()


def write_people(block: Block, found: People) -> None:
    """Every capsule that a tracker sees."""
    r, h = block.record, len(found.radius)
    r["count"], r["received"] = h, found.received
    r["ends"][:h], r["radius"][:h], r["velocity"][:h] = found.ends, found.radius, found.velocity
    block.write()


def write_object(block: Block, k: int, found: Pose, t: float) -> None:
    """Object k as tracked at monotonic time ``t`` [s]; the others stay."""
    r = block.record
    r["seq"][k], r["t"][k] = r["seq"][k] + 1, t
    r["position"][k], r["quaternion"][k] = found.position, found.quaternion
    block.write()


class Requests:
    """The block ``request``: holds by level, the operator's requests by counter; goes on where a predecessor ended."""

    def __init__(self, block: Block):
        self._block = block
        old = block.read()
        if old is not None:
            block.record[()] = old

    def hold(self, reason: str) -> None:
        """Ask for a hold, or with '' for none."""
        self._write(hold=int(bool(reason)), reason=reason)

    def count(self, name: str) -> None:
        """Pass on what the operator asks for, once."""
        self._write(**{name: int(self._block.record[name]) + 1})

    def _write(self, **values: Any) -> None:
        r = self._block.record
        for name, value in values.items():
            r[name] = value
        r["beat"], r["pid"] = int(r["beat"]) + 1, os.getpid()
        self._block.write()
