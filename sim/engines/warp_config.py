"""Settings of engine ``mujoco_warp``; imports nothing of Warp, so that they can be read where it is missing."""

from __future__ import annotations

from dataclasses import dataclass

from palmar.safety.types import ConfigError, PalmarError


class SimulationOverflow(PalmarError):
    """Contacts or constraints were dropped because their buffers were full: what was simulated means nothing."""


@dataclass(frozen=True)
class WarpConfig:
    """How the simulator runs.  A full buffer is an error, an oversized one costs memory and time."""

    device: str = "auto"
    """``cpu``, ``cuda``, ``cuda:1``, ...; ``auto`` takes a GPU where there is one."""
    njmax: int = 384
    """Constraint rows of a world: one per joint with friction or at its limit, six per contact."""
    nconmax: int = 64
    """Contacts of a world, on average over the worlds."""
    graph: bool = True
    """Record a step once and replay it."""
    pool: int = 0
    """Episode starts drawn ahead, shared by all worlds; 0: two for each."""

    def __post_init__(self) -> None:
        if not (self.njmax > 0 and self.nconmax > 0 and self.pool >= 0):
            raise ConfigError(f"need njmax, nconmax > 0 and pool >= 0, got {self.njmax}, {self.nconmax}, {self.pool}")
        kind, _, number = self.device.partition(":")
        if self.device not in ("auto", "cpu", "cuda") and not (kind == "cuda" and number.isdigit()):
            raise ConfigError(f"device must be auto, cpu, cuda or cuda:<number>, got {self.device!r}")
