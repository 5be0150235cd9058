"""What a camera's driver gives: pictures with their own time of exposure, and the pinhole they were taken through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from palmar.safety.types import Array


@dataclass(frozen=True)
class Pinhole:
    """Intrinsics without distortion; the centre of the first pixel is (0, 0)."""

    width: int
    height: int
    fx: float
    """[px]."""
    fy: float
    cx: float
    """Principal point [px]."""
    cy: float


@dataclass(frozen=True)
class Shot:
    """One exposure of one camera."""

    camera: str
    t: float
    """Monotonic time of the exposure [s]."""
    color: Array
    """(h, w, 3) uint8, red first."""
    depth: Array | None = None
    """Aligned to colour [m], 0 where there is none, (h, w) float32; None for a camera without depth."""


class CameraSource(Protocol):
    """One or more cameras, of real or simulated hardware.  Used by one thread."""

    pinholes: dict[str, Pinhole]
    """By camera."""

    def read(self) -> list[Shot]:
        """What was exposed since the last call, oldest first; never the same picture twice.

        Raises:
            DriverError: If a camera is gone, or gave nothing for its declared time.
        """
        ...

    def close(self) -> None:
        """Stop the cameras."""
        ...
