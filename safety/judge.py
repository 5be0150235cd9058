"""The margins of every tick: what was measured and sent, judged by the very functions that training pays with."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from palmar.safety.constraints import Constraint, ConstraintSet
from palmar.safety.types import CONTACT_PAIRS, Measurement

Array = np.ndarray


class Reading(Protocol):
    """What a tick needs of a driver's state; ``palmar.sim.interface.RobotState`` is one."""

    @property
    def t(self) -> float:
        """Monotonic time of the reading [s]."""
        ...

    @property
    def seq(self) -> int:
        """Counts readings; a repeated number is a repeated reading."""
        ...

    @property
    def q(self) -> Array:
        """[rad], (n,)."""
        ...

    @property
    def qd(self) -> Array:
        """[rad/s], (n,)."""
        ...

    @property
    def tau(self) -> Array:
        """[N m], (n,)."""
        ...


NEEDS = {
    "dropped_object": "objects",
    "contact_approach": "objects",
    "speed_separation": "people",
    "energy_tank": "tank",
    "joint_torque_rate": "torque",
}
"""Margins that are judged only where their source is there."""


class Judge:
    """Margins of one robot's ticks, with the memory that some of them have."""

    def __init__(self, constraints: ConstraintSet, *, sources: frozenset[str]) -> None:
        """Prepare.

        Args:
            constraints: The file.
            sources: Which of the values of NEEDS this robot has at all.
        """
        self._all = [c for c in constraints.constraints if c.source != "simulation only"]
        self._constraints, self._sources = constraints, sources
        self._sets: dict[bool, ConstraintSet] = {}
        self._chosen: ConstraintSet | None = None
        self._carry: dict[str, Array] = {}
        self.no_force = np.full(len(CONTACT_PAIRS), np.nan)
        self.no_objects = np.zeros((0, 3)), np.zeros((0, 4))

    def forget(self) -> None:
        """Begin an episode."""
        self._chosen = None

    def _select(self, objects: bool) -> ConstraintSet:
        """The constraints that can be judged, with or without objects in sight."""
        if objects not in self._sets:
            have = {"", *self._sources} | ({"objects"} if objects else set())
            names = tuple(
                c.name for c in self._all if NEEDS.get(c.margin, "objects" if c.remembers else "") in {*have, ""}
            )
            self._sets[objects] = self._constraints.select(names)
        return self._sets[objects]

    @staticmethod
    def _need(c: Constraint) -> str:
        """What a constraint's margin needs, '' for nothing."""
        return NEEDS.get(c.margin, "objects" if c.remembers else "")

    def margins(self, m: Measurement) -> dict[str, float]:
        """Margin per constraint that can be judged, SI units, < 0 is violated."""
        chosen = self._select(len(m.object_position) > 0)
        if chosen is not self._chosen:
            self._chosen, self._carry = chosen, chosen.start(m)
        values, self._carry = chosen.margins(m, self._carry)
        return dict(zip(chosen.names, values.tolist(), strict=True))
