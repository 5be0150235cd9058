"""What a driver says instead of a state that it does not have, and the checks that commands pass first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from palmar.safety.types import Command, CommandRefused, PalmarError

Array = np.ndarray


class DriverError(PalmarError):
    """No fresh reading, or the hardware does not follow."""


def checked(command: Command, joints: Sequence[str]) -> tuple[Array, Array | None, Array | None]:
    """Targets [rad], stiffness [N m/rad] and damping [N m s/rad] of a command for ``joints``, (n,) float64 each.

    Every driver's ``write`` calls this before it sends a byte: clamps and casts pass NaN on.

    Raises:
        CommandRefused: If one has another shape, is not finite, or a gain is negative, or only one gain is given.
    """
    if (command.stiffness is None) != (command.damping is None):
        raise CommandRefused("stiffness and damping come together, got only one of them")
    parts = {"q": command.q, "stiffness": command.stiffness, "damping": command.damping}
    found = {name: _vector(name, value, joints) for name, value in parts.items() if value is not None}
    for name in ("stiffness", "damping"):
        if name in found and np.any(found[name] < 0.0):
            raise CommandRefused(f"{name} must be >= 0, got {found[name].tolist()}")
    return found["q"], found.get("stiffness"), found.get("damping")


def check_near(q: Array, here: Array, joints: Sequence[str], *, most: float, what: str) -> None:
    """Refuse targets q (n,) [rad] that are farther than ``most`` [rad] from ``here`` (n,) [rad], which is ``what``.

    Raises:
        CommandRefused: It names the joint that is farthest away.
    """
    far = np.abs(q - here)
    i = int(np.argmax(far))
    if far[i] > most:
        raise CommandRefused(f"{joints[i]}: {q[i]:.4f} rad is {far[i]:.4f} from {what}, at most {most}")


def _vector(name: str, value: object, joints: Sequence[str]) -> Array:
    try:
        vector = np.asarray(value, dtype=float)
    except (TypeError, ValueError) as error:
        raise CommandRefused(f"{name} must be {len(joints)} numbers, got {value!r}") from error
    if vector.shape != (len(joints),):
        raise CommandRefused(f"{name} must have the shape ({len(joints)},) of {list(joints)}, got {vector.shape}")
    if not np.isfinite(vector).all():
        raise CommandRefused(f"{name} must be finite, got {dict(zip(joints, vector.tolist(), strict=True))}")
    return vector
