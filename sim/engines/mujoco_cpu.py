"""Engine ``mujoco``: B scenes on MuJoCo's own threads; the only file that names ``mujoco.batch``.

Sampling: ``advance`` records every physics step.  MuJoCo's derived fields (geom poses) after a step belong to the state
*before* it, so distances are computed from the joint positions after the step instead; forces and torques of a sample
are those that acted during the step that led to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mujoco
import numpy as np
from mujoco.batch import Batch

from palmar.safety.robot import RobotModel
from palmar.safety.types import CONTACT_PAIRS, ConfigError, Measurement
from palmar.sim import people

Array = np.ndarray
FORCES = ("sensordata", "actuator_force")
"""Fields of MjData that belong to the step that led to a state."""
TORQUE_RATE, PEOPLE = "joint_torque_rate", "speed_separation"
"""Margins whose fields the engine fills on demand.  Without people nobody is near and nothing comes nearer."""
WRENCH = ("wrench_force", "wrench_torque")
"""Sensors of ``Measurement.wrench``; those of ``object_contact`` are called ``touch_<object>``.  Both are optional."""
Clearance = Callable[[Array], tuple[Array, Array, Array]]
"""Joint positions (S, B, n), samples of an interval, to self and table clearance (S, B) and palm (S, B, 3) [m]."""
Regions = Callable[[Array], Array]
"""The same to the distance to each keep-out region [m], (S, B, R)."""

FATAL = (
    mujoco.mjtWarning.mjWARN_BADQPOS.value,
    mujoco.mjtWarning.mjWARN_BADQVEL.value,
    mujoco.mjtWarning.mjWARN_BADQACC.value,
)
"""Warnings after which a state means nothing."""

Geometry = tuple[Array, Array, Array, Array | None]
"""Self clearance, table clearance, palm position, distances to regions: (S, B), (S, B), (S, B, 3), (S, B, R) [m]."""


class MujocoEngine:
    """B copies of one compiled scene.

    Args:
        model: The composed scene; every joint of ``robot`` has an actuator of its name, every object a free joint.
        robot: Names and order of the joints.
        objects: Names of the free bodies, in the order of ``Measurement.object_position``.
        nworld: B.
        nthread: MuJoCo threads; results are bit-identical at any number.
        clearance: The routine shared with the filter; None leaves clearances at +inf (costs off).
        regions: The same for keep-out regions; None where no constraint speaks of any.
        supply: Which of the measurement's optional fields TORQUE_RATE and PEOPLE to fill.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        robot: RobotModel,
        *,
        objects: tuple[str, ...],
        nworld: int,
        nthread: int = 0,
        clearance: Clearance | None = None,
        regions: Regions | None = None,
        supply: frozenset[str] = frozenset(),
    ):
        self.model, self.robot, self.nworld, self.dt = model, robot, nworld, float(model.opt.timestep)
        self.batch = Batch(model, nsim=nworld, nthread=nthread)
        self._clearance, self._regions, self._supply = clearance, regions, supply
        self._qadr = _places([int(model.joint(j).qposadr[0]) for j in robot.joints])
        self._vadr = _places([int(model.joint(j).dofadr[0]) for j in robot.joints])
        self._act = _places([int(model.actuator(j).id) for j in robot.joints])
        self._obj = np.array([model.joint(f"{o}_free").qposadr[0] for o in objects], dtype=int)
        self._force = np.array([model.sensor(f"force_{p}").adr[0] for p in CONTACT_PAIRS])
        sensors = {model.sensor(k).name: int(model.sensor(k).adr[0]) for k in range(model.nsensor)}
        self._touch = np.array([sensors.get(f"touch_{o}", -1) for o in objects], dtype=int)
        self._wrench = np.array([sensors.get(name, -1) for name in WRENCH])
        watched = PEOPLE in supply and clearance is not None and len(people.geoms(model)) > 0
        self._people = people.Near(robot, model) if watched else None
        self.qpos, self.qvel = self.batch.bind("qpos"), self.batch.bind("qvel")
        for name in FORCES:
            self.batch.bind(name)
        self._recorded: dict[Any, Array] = {}
        self.before = self.batch.state.copy()
        """State rows (mjSTATE_INTEGRATION) at the start of the newest interval, (B, nstate)."""
        n = robot.n
        self._sent = [np.zeros((nworld, n)) for _ in range(4)]
        self._tau = np.zeros((nworld, n))

    def reset(self, ids: Array, qpos: Array, qvel: Array, mocap: Array | None = None) -> None:
        """Put worlds ``ids`` (k,) into a state with standing commands at its joint positions.

        ``mocap`` are the poses of the scripted bodies, (k, c, 7).
        """
        if len(ids) == 0:
            return
        self.batch.reset(ids, stage=mujoco.mjtStage.mjSTAGE_NONE)
        self.qpos[ids], self.qvel[ids] = qpos, qvel
        if mocap is not None:
            self.batch.mocap_pos[ids], self.batch.mocap_quat[ids] = mocap[..., :3], mocap[..., 3:]
        q = qpos[:, self._qadr]
        self.batch.ctrl[ids[:, None], np.arange(self.model.nu)[self._act]] = q
        self._sent[0][ids] = q
        for derivative in self._sent[1:]:
            derivative[ids] = 0.0
        self.batch.forward(ids)
        self._tau[ids] = self.batch.bind("actuator_force")[ids][:, self._act]

    def set_fields(self, ids: Array, fields: Mapping[str, Array]) -> None:
        """Give worlds ``ids`` (k,) model fields of their own, by MuJoCo's name, (k, ...); constants follow.

        Raises:
            ConfigError: If there is no such field, or a value has another shape or is not finite.
        """
        for name, value in fields.items():
            try:
                own = self.batch.expand(name)
            except (ValueError, AttributeError) as error:
                raise ConfigError(f"no model field {name!r} that may differ per world: {error}") from None
            if np.shape(value) != (len(ids), *own.shape[1:]):
                raise ConfigError(f"{name} of {len(ids)} worlds has shape {np.shape(value)}, need {own.shape[1:]} each")
            if not np.isfinite(value).all():
                raise ConfigError(f"{name} holds a number that is not finite")
            own[ids] = value
        if fields.keys() & (set(mujoco.MjModel._setconst_inputs) | {"opt.gravity"}):
            self.batch.set_const(ids)

    def disturb(self, wrench: Array | None, torque: Array | None) -> None:
        """Forces and torques on every body (B, nbody, 6) and on joints (B, n), until the next call; None for none."""
        self.batch.xfrc_applied = 0.0 if wrench is None else wrench
        applied = self.batch.bind("qfrc_applied")
        applied[:] = 0.0
        if torque is not None:
            applied[:, self._vadr] = torque

    def impedance(self, stiffness: Array, damping: Array) -> None:
        """Stiffness [N m/rad] and damping [N m s/rad] of the position servos, (B, n), until the next call.

        Raises:
            ConfigError: If one is negative or not finite.
        """
        for name, value in (("stiffness", stiffness), ("damping", damping)):
            if not (np.isfinite(value).all() and (value >= 0).all()):
                raise ConfigError(f"{name} must be finite and >= 0, got {np.min(value)} to {np.max(value)}")
        gain, bias = self.batch.expand("actuator_gainprm"), self.batch.expand("actuator_biasprm")
        gain[:, self._act, 0] = stiffness
        bias[:, self._act, 1], bias[:, self._act, 2] = -stiffness, -damping

    def broken(self) -> Array:
        """Worlds (B,) bool whose state is not finite or that MuJoCo gave up on in the last call."""
        state = np.isfinite(self.qpos).all(1) & np.isfinite(self.qvel).all(1)
        return ~state | (self.batch.warning[:, list(FATAL), 1] > 0).any(axis=1)

    @property
    def q(self) -> Array:
        """Joint positions now [rad], (B, n)."""
        return self.qpos[:, self._qadr].copy()

    @property
    def qd(self) -> Array:
        """Joint velocities now [rad/s], (B, n)."""
        return self.qvel[:, self._vadr].copy()

    def objects(self) -> tuple[Array, Array]:
        """Positions [m] (B, m, 3) and quaternions (B, m, 4) of the objects now."""
        return self._object_poses(self.qpos)

    def measure(self) -> Measurement:
        """The measurement of the current state, (B, ...)."""
        self.batch.forward()
        now = {name: self.batch.bind(name)[None] for name in ("qpos", "qvel", *FORCES)}
        q, qd, near = self.q[None], self.qd[None], None
        if self._people is not None:
            near = self._people.at(q, qd, np.concatenate([self.batch.mocap_pos, self.batch.mocap_quat], axis=-1)[None])
        sent, rate = [x[None] for x in self._sent], np.zeros((1, self.nworld, self.robot.n))
        return self._measurement(self.batch.time[None].copy(), now, sent, self._geometry(q), rate, near).at(0)

    def advance(
        self,
        u: Array,
        ud: Array,
        udd: Array,
        uddd: Array,
        mocap: Array | None = None,
        applied: Array | None = None,
    ) -> Measurement:
        """Send commands at S physics steps, (S, B, n) each; the S measurements after them, (S, B, ...).

        ``applied`` is what the servos follow where that is not what was sent, (S, B, n).
        """
        steps = u.shape[0]
        ctrl = np.empty((self.nworld, steps, self.model.nu))
        ctrl[:, :, self._act] = np.swapaxes(u if applied is None else applied, 0, 1)
        spec = mujoco.mjtState.mjSTATE_CTRL.value
        if mocap is not None:
            moved = np.swapaxes(mocap, 0, 1)
            flat = (moved[..., :3].reshape(*ctrl.shape[:2], -1), moved[..., 3:].reshape(*ctrl.shape[:2], -1))
            ctrl = np.concatenate([ctrl, *flat], axis=-1)
            spec |= mujoco.mjtState.mjSTATE_MOCAP_POS.value | mujoco.mjtState.mjSTATE_MOCAP_QUAT.value
        self.before[:] = self.batch.state
        start, q = self.batch.time.copy(), self.q
        record = ("qpos", "qvel", *FORCES)
        if self._recorded and self._recorded["qpos"].shape[1] != steps:
            self._recorded = {}
        out = self.batch.rollout(steps, control=ctrl, control_spec=spec, record=record, out=self._recorded)
        self._recorded = out  # written again by the next call: what leaves this class are copies
        self._sent = [u[-1], ud[-1], udd[-1], uddd[-1]]
        of = {k: np.swapaxes(out[k], 0, 1) for k in record}
        t = start + self.dt * np.arange(1, steps + 1)[:, None]
        rate = None
        if TORQUE_RATE in self._supply:
            rate = np.diff(of["actuator_force"][..., self._act], axis=0, prepend=self._tau[None]) / self.dt
        self._tau = out["actuator_force"][:, -1, self._act].copy()
        after = np.array(of["qpos"][..., self._qadr], order="C")
        near = None
        if self._people is not None and mocap is not None:
            qd = of["qvel"][..., self._vadr]
            near = self._people.over(np.concatenate([q[None], after]), qd, mocap, self.dt)
        return self._measurement(t, of, (u, ud, udd, uddd), self._geometry(after), rate, near)

    def _geometry(self, q: Array) -> Geometry | None:
        """Clearances and palm at joint positions (S, B, n); None with costs off."""
        if self._clearance is None:
            return None
        return *self._clearance(q), None if self._regions is None else self._regions(q)

    def _object_poses(self, qpos: Array) -> tuple[Array, Array]:
        i = self._obj[:, None]
        return qpos[..., i + np.arange(3)], qpos[..., i + np.arange(3, 7)]

    def _measurement(
        self,
        t: Array,
        of: Mapping[str, Array],
        sent: Sequence[Array],
        geometry: Geometry | None,
        torque_rate: Array | None,
        near: tuple[Array, Array] | None,
    ) -> Measurement:
        """Fill a measurement from fields of MjData with leading dimensions like t."""
        position, quaternion = self._object_poses(of["qpos"])
        far = np.full(t.shape, np.inf)
        own, table, palm, regions = geometry or (far, far, np.full((*t.shape, 3), np.nan), None)
        alone = (far, np.zeros(t.shape)) if PEOPLE in self._supply else (None, None)
        person, approach = alone if near is None else near
        sensed = of["sensordata"]
        force = sensed[..., self._force[:, None] + np.arange(3)]
        touch = np.linalg.norm(sensed[..., self._touch[:, None] + np.arange(3)], axis=-1)
        return Measurement(
            t=t,
            q=np.array(of["qpos"][..., self._qadr], order="C"),
            qd=np.array(of["qvel"][..., self._vadr], order="C"),
            tau=np.array(of["actuator_force"][..., self._act], order="C"),
            u=sent[0],
            ud=sent[1],
            udd=sent[2],
            uddd=sent[3],
            palm_position=palm,
            clearance_self=own,
            clearance_table=table,
            contact_force=np.linalg.norm(force, axis=-1),
            object_position=position,
            object_quaternion=quaternion,
            tau_rate=torque_rate if TORQUE_RATE in self._supply else None,
            clearance_keep_out=regions,
            clearance_person=person,
            approach_person=approach,
            object_contact=touch if len(self._touch) and self._touch.min() >= 0 else None,
            wrench=sensed[..., (self._wrench[:, None] + np.arange(3)).ravel()] if self._wrench.min() >= 0 else None,
        )


def _places(adr: list[int]) -> Any:
    """Addresses as a slice where they follow one another, which is faster to read, else as they are."""
    in_a_row = adr == list(range(adr[0], adr[0] + len(adr)))
    return slice(adr[0], adr[0] + len(adr)) if in_a_row else np.array(adr)
