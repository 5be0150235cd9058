"""The filter's QP for a batch of robots, for training: numpy or torch, CPU or GPU, without a loop over robots.

Same bounds and rows as ``qp``, from the same constraint file; the solver is ``interior_point`` instead of DAQP, which
finds the same, unique, answer.  Nothing verifies the stop trajectory here: this shapes what a policy learns and
protects nobody.

Derivatives by the wanted acceleration and by the barrier rows are those of the QP's solution; the bounds are found by
bisection and carry derivatives only where jerk or acceleration set them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from palmar.safety import batched_rows, interior_point
from palmar.safety.barrier import BarrierConfig, Slots, barrier_of
from palmar.safety.batched_obstacles import Boxes, Cell
from palmar.safety.batched_rows import Limits, Rows
from palmar.safety.batched_stop import box, stop_law
from palmar.safety.batched_tree import Links, Placed, converted, dot, dynamics, links_of, place
from palmar.safety.bounds import Bounds, Space
from palmar.safety.constraints import ConstraintSet
from palmar.safety.enforced import KeepBack, Torque, enforced
from palmar.safety.geometry import Kinematics
from palmar.safety.interior_point import QP
from palmar.safety.namespace import namespace
from palmar.safety.obstacles import keep_outs
from palmar.safety.qp import SLACK, TankRows
from palmar.safety.robot import RobotModel
from palmar.safety.rows import CONTACT_SLACK
from palmar.safety.types import Array, ConfigError

TOLERANCE = {"float64": 1e-6, "float32": 2e-3}
"""What counts as solved, in units of a_max, by precision."""


@dataclass(frozen=True)
class BatchedConfig:
    """How the batched filter works; what it enforces stands in the constraint file."""

    dt: float = 0.001
    """Period of the tick [s]."""
    barrier: BarrierConfig = field(default_factory=BarrierConfig)
    keep: KeepBack = field(default_factory=KeepBack)
    slots: Slots = field(default_factory=Slots)
    steps: int = interior_point.STEPS
    """Steps of the solver."""

    def __post_init__(self) -> None:
        if not (0 < self.dt <= 0.02 and self.steps >= 1):
            raise ConfigError(f"need 0 < dt <= 0.02 and steps >= 1, got {self.dt}, {self.steps}")


class Answer(NamedTuple):
    """What became of a batch."""

    x: Array
    """Accelerations [rad/s2], (B, n); the stop law's where not ``solved``."""
    share: Array
    """Granted share of the wanted rise of stiffness, 0 where not ``solved``, (B,)."""
    solved: Array
    """Whether the QP has a solution and this is it, to TOLERANCE, (B,) bool."""
    violation: Array
    """Largest violation of a row or bound, rows scaled to length 1, in units of a_max, (B,)."""
    stationary: Array
    """Largest entry of the gradient of the Lagrangian, in parts of 1 + |z|, (B,)."""
    torque: Array
    """How far the torque rows had to give way, in parts of the torque limit, (B,)."""
    contact: Array
    """Deceleration that an approach to contact lacks [m/s2], (B,)."""
    crowded: Array
    """Whether rows were left out because there were more than places, (B,) bool."""


class Numbers(NamedTuple):
    """The robot and its limits in one namespace."""

    links: Links
    bounds: Bounds
    space: Space
    boxes: Boxes
    part: Array
    """(arm,) torque limits less what is kept back [N m]."""


class BatchedFilter:
    """The QP of B robots of one model."""

    def __init__(self, robot: RobotModel, constraints: ConstraintSet, config: BatchedConfig | None = None) -> None:
        """Prepare for a robot.

        Raises:
            ConfigError: If robot or constraints cannot be used.
        """
        self.config = config = config or BatchedConfig()
        asked = enforced(constraints, config.keep)
        self.bar = barrier_of(config.barrier, config.slots, asked.people, asked.impact)
        kin = Kinematics.from_model(robot)
        self.parent, self.palm, self.impact = kin.tree.parent.tolist(), kin.tree.palm, asked.impact
        self.torque, self.rows_of_file = asked.torque, asked
        self.arm = robot.n_arm if asked.torque is not None else 0
        part = (asked.torque or Torque()).part(robot.limits.tau_max[: self.arm])
        held = keep_outs(constraints, config.keep.keep_out)
        self.standing = held.intrusion + held.human * held.reaction
        self.people = asked.people is not None
        used = np.flatnonzero(held.limit[: held.count] > -math.inf)
        boxes = Boxes(held.centre[used], held.frame[used], held.half[used], held.limit[used])
        self.regions = len(used)
        self._numbers = Numbers(links_of(kin), asked.bounds, asked.space, boxes, part)
        self._known: dict[Any, Numbers] = {}

    def numbers(self, like: Array) -> Numbers:
        """The robot in the namespace, precision and device of ``like``."""
        key = (type(like), like.dtype, like.device)
        if key not in self._known:
            self._known[key] = converted(self._numbers, like)
        return self._known[key]

    def solve(
        self, q: Array, v: Array, a: Array, wanted: Array, *, cell: Cell | None = None, tank: TankRows | None = None
    ) -> Answer:
        """Accelerations nearest to the wanted ones.

        Args:
            q: Commanded positions [rad], (B, n), all of one namespace.
            v: Commanded velocities [rad/s], (B, n).
            a: Accelerations of the tick before [rad/s2], (B, n).
            wanted: [rad/s2], (B, n).
            cell: People, if the constraint file keeps away from them, and objects, if it limits contacts.
            tank: The energy tanks; without them stiffness is granted in full.
        """
        xp, k, dt, n = namespace(q), self.numbers(q), self.config.dt, q.shape[-1]
        low, high = box(q, v, a, k.bounds, dt)
        at = place(k.links, self.parent, q)
        barriers = self._barriers(k, at, cell or Cell(), Limits(v, low, high, self.bar))
        problem = self._problem(k, at, v, a, wanted, low, high, barriers, tank)
        found = interior_point.solve(problem, steps=self.config.steps)
        tolerance = TOLERANCE["float64" if float(xp.finfo(q.dtype).eps) < 1e-10 else "float32"]
        solved = (found.violation <= tolerance) & (found.stationary <= tolerance)
        x = xp.minimum(xp.maximum(found.z[:, :n] * k.bounds.a, low), high)
        share = xp.ones_like(q[:, 0]) if tank is None else xp.clip(found.z[:, n], 0.0, 1.0)
        crowded = xp.any(xp.stack([kind.crowded for kind in barriers if kind is not None], axis=-1), axis=-1)
        return Answer(
            xp.where(solved[:, None], x, stop_law(v, a, k.bounds, dt)),
            xp.where(solved, share, xp.zeros_like(share)),
            solved,
            found.violation,
            found.stationary,
            SLACK * found.z[:, -2],
            CONTACT_SLACK * found.z[:, -1],
            crowded,
        )

    def __call__(
        self, q: Array, v: Array, a: Array, wanted: Array, *, cell: Cell | None = None, tank: TankRows | None = None
    ) -> tuple[Array, Array, Answer]:
        """One tick: positions and velocities after it, and what was done; see ``solve``."""
        found, dt = self.solve(q, v, a, wanted, cell=cell, tank=tank), self.config.dt
        return q + dt * v + 0.5 * dt * dt * found.x, v + dt * found.x, found

    def _barriers(
        self, k: Numbers, at: Placed, cell: Cell, limits: batched_rows.Limits
    ) -> list[batched_rows.Rows | None]:
        """Rows of every kind or None; the last are those of contact, which give way."""
        boxes = k.boxes if self.regions else None
        cell = cell if self.people else cell._replace(people=None)
        return [
            batched_rows.pair_rows(k.links, at, k.space, limits),
            batched_rows.table_rows(k.links, at, k.space, limits),
            batched_rows.palm_rows(k.links, at, self.palm, k.space, limits) if self.bar.palm else None,
            batched_rows.obstacle_rows(k.links, at, boxes, cell, self.standing, limits),
            batched_rows.contact_rows(k.links, at, cell, limits) if math.isfinite(self.impact) else None,
        ]

    def _problem(
        self,
        k: Numbers,
        at: Placed,
        v: Array,
        a: Array,
        wanted: Array,
        low: Array,
        high: Array,
        barriers: list[Rows | None],
        tank: TankRows | None,
    ) -> QP:
        """The QPs in z = (x / a_max, granted share where there is a tank, torque slack, contact slack)."""
        xp, scale = namespace(v), k.bounds.a
        nil, one = xp.zeros_like(v[:, :1]), xp.ones_like(v[:, :1])
        parts = [_widened(kind.g * scale, 0.0, 0.0) for kind in barriers[:-1] if kind is not None]
        right = [kind.d for kind in barriers if kind is not None]
        if (contact := barriers[-1]) is not None:
            used = xp.astype(contact.d != -1.0, v.dtype)
            parts.append(_widened(contact.g * scale, 0.0, CONTACT_SLACK * used))
        if self.arm:
            g, d = self._torque(k, at, v, a)
            parts.append(_widened(g, SLACK, 0.0))
            right.append(d)
        g, d = xp.concat(parts, axis=1), xp.concat(right, axis=-1)
        slacks = xp.stack([xp.concat([0.0 * v, one, nil], axis=-1), xp.concat([0.0 * v, nil, one], axis=-1)], axis=1)
        g, d = xp.concat([g, slacks], axis=1), xp.concat([d, nil, nil], axis=-1)
        w, low, high = wanted / scale, low / scale, high / scale
        if tank is not None:
            n, loose = v.shape[1], xp.zeros_like(tank.share)[..., None]
            row = xp.concat([tank.x * scale, tank.share[..., None], loose, loose], axis=-1)
            g = xp.concat([g[:, :, :n], 0.0 * g[:, :, :1], g[:, :, n:]], axis=-1)
            g, d = xp.concat([g, -row], axis=1), xp.concat([d, -tank.room], axis=-1)
            w, low, high = (xp.concat([x, y], axis=-1) for x, y in ((w, one), (low, nil), (high, one)))
        length = xp.sqrt(dot(g, g))
        length = xp.where(length > 1e-12, length, xp.ones_like(length))
        return QP(xp.concat([w, nil, nil], axis=-1), low, high, g / length[..., None], d / length)

    def _torque(self, k: Numbers, at: Placed, v: Array, a: Array) -> tuple[Array, Array]:
        """Rows ``|M x + c| <= part`` and ``|M (x - a)| <= rate dt`` of the arm: ``qp.torque_rows``."""
        xp = namespace(v)
        assert self.torque is not None
        mass, bias = dynamics(k.links, at, v, self.arm)
        g, bias = mass / k.part[:, None], bias / k.part
        upper, lower = 1.0 - bias, -1.0 - bias
        if math.isfinite(self.torque.rate):
            before, most = dot(g, a[:, None]), self.torque.rate * self.config.dt / k.part
            upper, lower = xp.minimum(upper, before + most), xp.maximum(lower, before - most)
        g = g * k.bounds.a
        return xp.concat([-g, g], axis=1), xp.concat([-upper, lower], axis=-1)


def _widened(g: Array, torque: float, contact: Any) -> Array:
    """Rows (B, m, n) with the coefficients of both slacks, (B, m, n + 2)."""
    xp = namespace(g)
    nil = xp.zeros_like(g[:, :, 0])
    return xp.concat([g, (nil + torque)[..., None], (nil + contact)[..., None]], axis=-1)
