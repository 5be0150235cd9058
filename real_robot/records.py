"""Records of the shared files as the types that everything else speaks of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from palmar.real_robot.layout import STATES
from palmar.safety.types import Chunk, People, Verdict


def chunk(r: Any) -> Chunk:
    """A record of the block ``chunk``."""
    h = int(r["count"])
    stiffness, damping = (r["stiffness"][:h], r["damping"][:h]) if r["impedance"] else (None, None)
    return Chunk(r["q"][:h], r["t"][:h], int(r["seq"]), float(r["received"]), stiffness=stiffness, damping=damping)


def people(r: Any) -> People:
    """A record of the block ``people``."""
    h = int(r["count"])
    return People(r["ends"][:h], r["radius"][:h], r["velocity"][:h], float(r["received"]))


def verdict(r: Any, names: Iterable[str]) -> Verdict:
    """A record of the ring ``ticks`` or the block ``state``; ``names`` are the constraints, in the file's order."""
    return Verdict(
        state=STATES[int(r["state"])],
        reason=r["reason"].decode(),
        changed=bool(r["changed"]),
        edit=float(r["edit"]),
        active=active(r, names),
        margins=dict(zip(names, r["margins"].tolist(), strict=True)),
        compute_s=float(r["compute_s"]),
    )


def put_verdict(r: Any, v: Verdict, names: Iterable[str]) -> None:
    """The inverse of ``verdict``; a margin that is not known is NaN."""
    r["state"], r["reason"], r["changed"], r["edit"] = STATES.index(v.state), v.reason, v.changed, v.edit
    r["active"] = sum(1 << k for k, name in enumerate(names) if name in v.active)
    r["margins"] = [v.margins.get(name, float("nan")) for name in names]
    r["compute_s"] = v.compute_s


def active(r: Any, names: Iterable[str]) -> tuple[str, ...]:
    """Constraints whose row or bound was active: a bit each."""
    bits = int(r["active"])
    return tuple(name for k, name in enumerate(names) if bits >> k & 1)
