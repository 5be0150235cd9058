"""Violations of a constraint file in sent joint positions, counted by code that shares nothing with the filter.

Only the positions are believed.  Their derivatives follow from them, poses, torques and distances from MuJoCo.
Distances are MuJoCo's wherever they could decide: numpy only proves that the others are large enough, by a
separating direction.  Any direction gives a true lower bound of a distance, so a bad one costs time, not a violation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import mujoco
import numpy as np

from palmar.safety.constraints import Constraint, ConstraintSet
from palmar.safety.robot import RobotModel

Array = np.ndarray

FAR = 0.01
"""Distances count as exact up to this much beyond the limit, and as this much beyond it above [m]."""
NEAR = 1e-4
"""MuJoCo is asked for a distance whose lower bound is within this of the limit [m]."""
BLOCK = 200
"""Ticks whose pairs are looked at together: a block stays in the cache."""


class Tally(NamedTuple):
    """What became of one constraint."""

    violations: int
    """Commands that violate it."""
    worst: float
    """Smallest margin, in the margin's unit; a lower bound, exact where it is negative."""
    first: int | None
    """Index of the first command that violates it."""


@dataclass(frozen=True)
class Counted:
    """What ``Count`` found in an episode."""

    tallies: dict[str, Tally]
    """Per constraint that the sent positions decide."""
    commands: int
    violations: int
    """Commands that violate a hard row."""

    @property
    def worst(self) -> dict[str, float]:
        """Smallest margin per constraint."""
        return {name: tally.worst for name, tally in self.tallies.items()}


@dataclass(frozen=True)
class Motion:
    """Sent commands and their derivatives, (T, n) each."""

    q: Array
    v: Array
    a: Array
    jerk: Array
    dt: float


@dataclass(frozen=True)
class Poses:
    """Where MuJoCo puts the robot and what moving it takes, tick by tick."""

    centre: Array
    """Centres of the named geoms [m], (T, g, 3)."""
    half: Array
    """From the centre to the upper end of the geom's segment [m], (T, g, 3)."""
    palm: Array
    """Palm origin [m], (T, 3)."""
    torque: Array
    """Joint torques of the sent motion without gravity [N m], (T, n)."""


def derive(q: Array, dt: float) -> Motion:
    """Derivatives of positions (T + 1, n) whose first row is a pose at rest; T commands.

    Acceleration is constant within a tick, so the mean of the two velocities is the slope.
    """
    sign = np.where(np.arange(1, len(q)) % 2, -1.0, 1.0)[:, None]
    v = sign * np.cumsum(sign * 2.0 * np.diff(q, axis=0) / dt, axis=0)
    rest = np.zeros((1, q.shape[1]))
    a = np.diff(np.concatenate([rest, v]), axis=0) / dt
    return Motion(q[1:], v, a, np.diff(np.concatenate([rest, a]), axis=0) / dt, dt)


class Count:
    """Counts violations in episodes of sent joint positions.  Made once per robot and constraint file."""

    def __init__(self, robot: RobotModel, constraints: ConstraintSet) -> None:
        """Compile the robot's MJCF with the keep-out boxes of the constraint file added, without gravity."""
        self.limits = robot.limits
        self.constraints = [c for c in constraints.constraints if c.margin in MARGINS and c.runtime.endswith("row")]
        spec = mujoco.MjSpec.from_string(robot.xml)
        for c in self.constraints:
            if c.margin == "keep_out":
                lower, upper = np.array(c.params["lower"]), np.array(c.params["upper"])
                size, pos = 0.5 * (upper - lower), 0.5 * (upper + lower)
                spec.worldbody.add_geom(name=f"keep_out/{c.name}", type=mujoco.mjtGeom.mjGEOM_BOX, size=size, pos=pos)
        self.model = spec.compile()
        self.model.opt.gravity[:] = 0.0
        self.data = mujoco.MjData(self.model)
        model, names = self.model, list(dict.fromkeys([*sum(robot.pairs, ()), *robot.table_geoms]))
        self.address = np.array([model.joint(j).qposadr[0] for j in robot.joints])
        self.dof = np.array([model.joint(j).dofadr[0] for j in robot.joints])
        self.palm = model.body(robot.palm_body).id
        self.geoms = np.array([model.geom(g).id for g in names])
        self.pairs = np.array([[names.index(a), names.index(b)] for a, b in robot.pairs]).reshape(-1, 2)
        self.low = np.array([names.index(g) for g in robot.table_geoms])
        capsule = model.geom_type[self.geoms] == int(mujoco.mjtGeom.mjGEOM_CAPSULE)
        self.half = np.where(capsule, model.geom_size[self.geoms, 1], 0.0)
        self.radius = model.geom_size[self.geoms, 0]

    def __call__(self, q: Array, dt: float) -> Counted:
        """Count an episode.

        Args:
            q: Sent joint positions [rad], (T + 1, n); the first is the pose at rest that the robot started from.
            dt: Tick [s].
        """
        with np.errstate(invalid="ignore", over="ignore"):
            motion = derive(np.asarray(q, dtype=np.float64), dt)
            poses = self._poses(motion)
            margins = {c.name: MARGINS[c.margin](self, c, motion, poses) for c in self.constraints}
        hard = [~(margins[c.name] >= 0.0) for c in self.constraints if c.runtime == "hard row"]
        tallies = {name: _tally(margin) for name, margin in margins.items()}
        return Counted(tallies, len(motion.q), int(np.any(hard, axis=0).sum()))

    def _poses(self, motion: Motion) -> Poses:
        """Run MuJoCo's kinematics and inverse dynamics at every tick."""
        model, data, ticks = self.model, self.data, len(motion.q)
        centre, axes = np.empty((ticks, len(self.geoms), 3)), np.empty((ticks, len(self.geoms), 9))
        palm, torque, out = np.empty((ticks, 3)), np.empty((ticks, model.nv)), np.zeros(model.nv)
        q, v, a = np.zeros((ticks, model.nq)), np.zeros((ticks, model.nv)), np.zeros((ticks, model.nv))
        q[:, self.address], v[:, self.dof], a[:, self.dof] = motion.q, motion.v, motion.a
        for k in range(ticks):
            data.qpos, data.qvel, data.qacc = q[k], v[k], a[k]
            mujoco.mj_kinematics(model, data)
            mujoco.mj_comPos(model, data)
            mujoco.mj_comVel(model, data)
            mujoco.mj_rne(model, data, 1, out)
            torque[k], palm[k] = out, data.xpos[self.palm]
            data.geom_xpos.take(self.geoms, axis=0, out=centre[k], mode="clip")
            data.geom_xmat.take(self.geoms, axis=0, out=axes[k], mode="clip")
        torque += model.dof_armature * a  # mj_rne leaves the rotors out
        return Poses(centre, axes[..., 2::3] * self.half[:, None], palm, torque[:, self.dof])

    def exact(self, q: Array, ticks: Array, one: Array, two: Array, out: Array) -> None:
        """MuJoCo's distances of geoms ``one`` and ``two`` (ids) at ``ticks``, (c,) each, into ``out`` [m]."""
        model, data, at = self.model, self.data, -1
        for c in np.argsort(ticks, kind="stable"):
            if ticks[c] != at:
                at = ticks[c]
                data.qpos[self.address] = q[at]
                mujoco.mj_kinematics(model, data)
            out[c] = mujoco.mj_geomDistance(model, data, one[c], two[c], 1.0, None)

    def self_clearance(self, c: Constraint, m: Motion, p: Poses) -> Array:
        """Smallest distance of the pairs, (T,)."""
        limit, (one, two) = c.params["limit"], self.pairs.T
        reach = (self.half + self.radius)[one] + (self.half + self.radius)[two] + limit + FAR
        found = []
        for k in range(0, len(m.q), BLOCK):
            x = p.centre[k : k + BLOCK].transpose(2, 1, 0)  # (3, g, block): rows of ticks are contiguous
            x = np.ascontiguousarray(x)
            square = sum((axis[one] - axis[two]) ** 2 for axis in x)
            # Not the far ones, so that a pose that is no number is looked at.
            i, t = np.nonzero(~(square >= (reach * reach)[:, None]))
            found.append((t + k, i))
        t, i = (np.concatenate(x) for x in zip(*found, strict=True))
        a, b = one[i], two[i]
        ha, hb = p.half[t, a], p.half[t, b]
        bound = segment_bound(p.centre[t, a], ha, p.centre[t, b], hb) - self.radius[a] - self.radius[b]
        return self._smallest(m, t, self.geoms[a], self.geoms[b], bound, limit)

    def keep_out(self, c: Constraint, m: Motion, p: Poses) -> Array:
        """Smallest distance of the moving links to the box, (T,)."""
        limit, low = c.params["limit"], self.low
        lower, upper = np.array(c.params["lower"]), np.array(c.params["upper"])
        x, h = p.centre[:, low], p.half[:, low]
        gap = np.maximum(np.maximum(lower - x, x - upper), 0.0)
        reach = (self.half + self.radius)[low] + limit + FAR
        t, i = np.nonzero(~((gap * gap).sum(axis=-1) >= reach * reach))
        bound = box_bound(x[t, i], h[t, i], lower, upper) - self.radius[low[i]]
        box = np.full(len(t), self.model.geom(f"keep_out/{c.name}").id)
        return self._smallest(m, t, self.geoms[low[i]], box, bound, limit)

    def _smallest(self, m: Motion, t: Array, one: Array, two: Array, bound: Array, limit: float) -> Array:
        """Margins (T,) from candidates' ticks, geoms and lower bounds of their distance, MuJoCo's where near."""
        margin, bound = np.full(len(m.q), FAR), bound.copy()
        if len(t):
            near = np.nonzero(~(bound > max(limit + NEAR, np.nanmin(bound, initial=np.inf) + 1e-9)))[0]
            out = np.empty(len(near))
            self.exact(m.q, t[near], one[near], two[near], out)
            bound[near] = np.where(np.isnan(bound[near]), np.nan, out)
            np.minimum.at(margin, t, bound - limit)
        return margin


def segment_bound(a: Array, ha: Array, b: Array, hb: Array) -> Array:
    """Lower bound of the distance of segments ``a +- ha`` and ``b +- hb`` (c, 3), (c,); tight unless they cross."""
    aa, bb, ab = _dot(ha, ha), _dot(hb, hb), _dot(ha, hb)
    d = b - a
    da, db = _dot(d, ha), _dot(d, hb)
    det = aa * bb - ab * ab
    s = np.clip((da * bb - db * ab) / np.where(det > 1e-12 * aa * bb, det, np.inf), -1.0, 1.0)
    for _ in range(3):  # nearest point on the other segment, and back; exact after two where the first was inside
        t = np.clip((s * ab - db) / np.where(bb > 0, bb, 1.0), -1.0, 1.0)
        s = np.clip((t * ab + da) / np.where(aa > 0, aa, 1.0), -1.0, 1.0)
    n = d + t[:, None] * hb - s[:, None] * ha
    n /= np.maximum(np.sqrt(_dot(n, n)), 1e-12)[:, None]
    return _dot(d, n) - np.abs(_dot(ha, n)) - np.abs(_dot(hb, n))


def box_bound(x: Array, h: Array, lower: Array, upper: Array) -> Array:
    """Lower bound of the distance of segments ``x +- h`` (c, 3) to a box, (c,); tight unless they touch."""
    centre, size, hh = 0.5 * (lower + upper), 0.5 * (upper - lower), np.maximum(_dot(h, h), 1e-18)
    d = x - centre
    s = np.zeros(len(x))
    for _ in range(8):  # nearest point of the box, nearest point of the segment to that
        s = np.clip(_dot(np.clip(d + s[:, None] * h, -size, size) - d, h) / hh, -1.0, 1.0)
    y = d + s[:, None] * h
    n = y - np.clip(y, -size, size)
    n /= np.maximum(np.sqrt(_dot(n, n)), 1e-12)[:, None]
    return _dot(d, n) - np.abs(_dot(h, n)) - np.abs(n) @ size


def _dot(a: Array, b: Array) -> Array:
    return np.einsum("ci,ci->c", a, b)


def _tally(margin: Array) -> Tally:
    """Of margins (T,); what is no number is a violation."""
    bad = np.nonzero(~(margin >= 0.0))[0]
    worst = float(np.nan if np.isnan(margin).any() else margin.min(initial=np.inf))
    return Tally(len(bad), worst, int(bad[0]) if len(bad) else None)


def _position(count: Count, c: Constraint, m: Motion, p: Poses) -> Array:
    x = count.limits
    return np.minimum(m.q - x.q_min, x.q_max - m.q).min(axis=1) - c.params["buffer"]


def _velocity(count: Count, c: Constraint, m: Motion, p: Poses) -> Array:
    """Below the published curve; speeds below 1e-9 are rounding and may stand where the curve is zero."""
    x, v = count.limits, m.v
    room = np.where(v > 0, x.curve_q_up - m.q, m.q - x.curve_q_low)
    curve = np.maximum(0.0, np.sqrt(np.maximum(0.0, x.curve_two_a * room)) - x.curve_offset)
    return (np.fmin(x.v_max, curve) - np.abs(v) + 1e-9 * (np.abs(v) < 1e-9)).min(axis=1)


def _acceleration(count: Count, c: Constraint, m: Motion, p: Poses) -> Array:
    return (count.limits.a_max - np.abs(m.a)).min(axis=1)


def _jerk(count: Count, c: Constraint, m: Motion, p: Poses) -> Array:
    return (count.limits.j_max - np.abs(m.jerk)).min(axis=1)


def _torque(count: Count, c: Constraint, m: Motion, p: Poses) -> Array:
    return (count.limits.tau_max - np.abs(p.torque)).min(axis=1)


def _torque_rate(count: Count, c: Constraint, m: Motion, p: Poses) -> Array:
    """The robot starts at rest, where gravity compensation leaves no torque."""
    rate = np.diff(p.torque, axis=0, prepend=np.zeros((1, p.torque.shape[1]))) / m.dt
    return c.params["limit"] - np.abs(rate).max(axis=1)


def _table(count: Count, c: Constraint, m: Motion, p: Poses) -> Array:
    low = count.low
    height = p.centre[:, low, 2] - np.abs(p.half[:, low, 2]) - count.radius[low]
    return height.min(axis=1) - c.params["limit"]


def _workspace(count: Count, c: Constraint, m: Motion, p: Poses) -> Array:
    return np.minimum(p.palm - c.params["lower"], np.array(c.params["upper"]) - p.palm).min(axis=1)


MARGINS = {
    "joint_position": _position,
    "joint_velocity": _velocity,
    "joint_acceleration": _acceleration,
    "joint_jerk": _jerk,
    "joint_torque": _torque,
    "joint_torque_rate": _torque_rate,
    "self_clearance": Count.self_clearance,
    "table_clearance": _table,
    "workspace": _workspace,
    "keep_out": Count.keep_out,
}
"""What sent positions alone decide, by the name of the margin."""
