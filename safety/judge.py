"""The margins of every tick: what was measured and sent, judged by the very functions that training pays with."""

from __future__ import annotations

import numpy as np

from palmar.safety.constraints import Constraint, ConstraintSet
from palmar.safety.dynamics import Inertia, inverse_dynamics
from palmar.safety.obstacles import Obstacles
from palmar.safety.sight import (
    NEAREST_PERSON,
    OWN,
    PALM,
    REGIONS,
    TABLE,
    TOWARDS_CONTACT,
    TOWARDS_PERSON,
    answer_of,
    measure_space,
    sight_of,
)
from palmar.safety.tree import Tree
from palmar.safety.types import CONTACT_PAIRS, Measurement, RobotState

Array = np.ndarray

NEEDS = {"dropped_object": "objects", "contact_approach": "objects", "energy_tank": "tank"}
"""Margins that are judged only where their source is there."""


class Judge:
    """Measures and judges one robot's ticks, with the memory that some margins have."""

    def __init__(self, constraints: ConstraintSet, tree: Tree, inertia: Inertia, *, tank: bool) -> None:
        """Prepare.

        Args:
            constraints: The file.
            tree: The robot's, without skins and hulls: what training measures.
            inertia: Its links.
            tank: Whether it has energy tanks.
        """
        self._all = [c for c in constraints.constraints if c.source != "simulation only"]
        self._constraints, self._tree, self._inertia, self._tank = constraints, tree, inertia, tank
        self._sets: dict[bool, ConstraintSet] = {}
        self._chosen: ConstraintSet | None = None
        self._carry: dict[str, Array] = {}
        self._sight, self._near, self._tau = sight_of(tree), answer_of(), np.zeros(len(tree.joint_body))
        self._rated = any(c.margin == "joint_torque_rate" for c in self._all)
        self._no_force = np.full(len(CONTACT_PAIRS), np.nan)
        self._no_objects = np.zeros((0, 3)), np.zeros((0, 4))

    def warm_up(self, q: Array, obstacles: Obstacles) -> None:
        """Call the kernels once, so that none is compiled or loaded while the robot moves."""
        zero = np.zeros(len(q))
        measure_space(self._tree, obstacles, q, zero, self._sight, self._near)
        self._torque_rate(q, zero, zero, 1.0)
        self.forget()

    def forget(self) -> None:
        """Begin an episode."""
        self._chosen = None
        self._tau[:] = 0.0

    def measurement(
        self,
        state: RobotState,
        u: Array,
        ud: Array,
        udd: Array,
        uddd: Array,
        *,
        dt: float,
        obstacles: Obstacles,
        objects: tuple[Array, Array] | None,
        level: float,
    ) -> Measurement:
        """What is known of a tick, without batch dimensions.

        Args:
            state: What was measured.
            u: What was sent [rad], (n,), and its derivatives.
            ud: [rad/s], (n,).
            udd: [rad/s2], (n,).
            uddd: [rad/s3], (n,).
            dt: Tick [s].
            obstacles: What is in the cell.
            objects: Positions (m, 3) [m] and quaternions (m, 4) of tracked objects.
            level: Energy left in the emptier tank [J].
        """
        q, qd, near = np.asarray(state.q, dtype=np.float64), np.asarray(state.qd, dtype=np.float64), self._near
        measure_space(self._tree, obstacles, q, qd, self._sight, near)
        position, quaternion = objects if objects is not None else self._no_objects
        return Measurement(
            t=np.float64(state.t),
            q=q,
            qd=qd,
            tau=state.tau,
            u=u,
            ud=ud,
            udd=udd,
            uddd=uddd,
            palm_position=near[PALM : PALM + 3].copy(),
            clearance_self=near[OWN],
            clearance_table=near[TABLE],
            contact_force=self._no_force,
            object_position=position,
            object_quaternion=quaternion,
            tau_rate=self._torque_rate(u, ud, udd, dt) if self._rated else None,
            clearance_keep_out=near[REGIONS:].copy(),
            clearance_person=near[NEAREST_PERSON],
            approach_person=near[TOWARDS_PERSON],
            approach_contact=near[TOWARDS_CONTACT],
            tank=np.float64(level) if self._tank else None,
        )

    def margins(self, m: Measurement) -> dict[str, float]:
        """Margin per constraint that can be judged, SI units, < 0 is violated."""
        chosen = self._select(len(m.object_position) > 0)
        if chosen is not self._chosen:
            self._chosen, self._carry = chosen, chosen.start(m)
        values, self._carry = chosen.margins(m, self._carry)
        return dict(zip(chosen.names, values.tolist(), strict=True))

    def _torque_rate(self, u: Array, ud: Array, udd: Array, dt: float) -> Array:
        """Rate of change of the torque that the sent motion needs [N m/s], (n,)."""
        before, self._tau = self._tau, np.empty(len(u))
        inverse_dynamics(self._inertia, u, ud, udd, self._tau)
        return (self._tau - before) / dt

    def _select(self, objects: bool) -> ConstraintSet:
        """The constraints that can be judged, with or without objects in sight."""
        if objects not in self._sets:
            have = {"", *(("objects",) if objects else ()), *(("tank",) if self._tank else ())}
            self._sets[objects] = self._constraints.select(tuple(c.name for c in self._all if _need(c) in have))
        return self._sets[objects]


def _need(c: Constraint) -> str:
    """What a constraint's margin needs, '' for nothing."""
    return NEEDS.get(c.margin, "objects" if c.remembers else "")
