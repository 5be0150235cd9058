"""What a policy sees and says: names, sizes, units and rate, from the task's policy side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TaskContract:
    """What passes between a task and its policy."""

    name: str
    observation: tuple[tuple[str, int, str], ...]
    """(name, size, unit) of each part, in order."""
    action: tuple[tuple[str, str, float], ...]
    """(name, unit, scale) of each component: a component of 1 means ``scale`` units."""
    rate_hz: float
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of the task in training, plain JSON values.  Recorded, not compared: a robot draws no friction."""

    @staticmethod
    def of(name: str, io: Any, settings: Mapping[str, Any] | None = None) -> TaskContract:
        """From a task's policy side: ``obs_names, obs_sizes, obs_units, action_names, rate``.

        ``action_units`` and ``action_scales`` are taken where it has them, else '1' and 1.
        """
        n = len(io.action_names)
        units, scales = getattr(io, "action_units", ("1",) * n), getattr(io, "action_scales", (1.0,) * n)
        return TaskContract(
            name=name,
            observation=tuple(zip(io.obs_names, map(int, io.obs_sizes), io.obs_units, strict=True)),
            action=tuple(zip(io.action_names, units, map(float, scales), strict=True)),
            rate_hz=float(io.rate),
            settings=dict(settings or {}),
        )

    @property
    def obs_dim(self) -> int:
        """Length of an observation."""
        return sum(size for _, size, _ in self.observation)

    @staticmethod
    def from_json(raw: Mapping[str, Any]) -> TaskContract:
        """The inverse of ``asdict`` followed by JSON."""
        return TaskContract(
            name=raw["name"],
            observation=tuple((str(n), int(size), str(unit)) for n, size, unit in raw["observation"]),
            action=tuple((str(n), str(unit), float(scale)) for n, unit, scale in raw["action"]),
            rate_hz=float(raw["rate_hz"]),
            settings=dict(raw["settings"]),
        )
