"""Engine ``mujoco_warp``: B scenes on a GPU, or slowly on a processor; with ``warp_*`` the only place that names Warp.

The state are torch tensors over MuJoCo Warp's own memory.  A control step is one call: S physics steps, a sample
after each, and no number read by the host in between; where the device allows it the whole of it is one recorded
graph (CUDA's, or Warp's on a processor).  Sampling is that of ``mujoco_cpu``: poses after a step are recorded by the
next one, the last by one more pass of kinematics; forces and torques are those of the step that led to the sample.

What does not fit (constraints, contacts) is dropped by MuJoCo Warp and remembered in a device counter: ``check``
reads it and raises.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np
import torch
import warp as wp
from torch import Tensor

from palmar.safety.robot import RobotModel
from palmar.safety.types import ConfigError, Measurement
from palmar.sim import people
from palmar.sim.engines import warp_kernels as kernels
from palmar.sim.engines.mujoco_cpu import PEOPLE
from palmar.sim.engines.warp_config import SimulationOverflow, WarpConfig
from palmar.sim.engines.warp_samples import Samples

mjw: Any = importlib.import_module("mujoco_warp")  # the package; type checkers would take this file for it

LOST = (
    mjw.OverflowType.NEFC | mjw.OverflowType.NJMAX_NNZ | mjw.OverflowType.BROADPHASE | mjw.OverflowType.NARROWPHASE
    | mjw.OverflowType.CCD | mjw.OverflowType.HFIELD | mjw.OverflowType.CONTACT_MATCH | mjw.OverflowType.NVMAX
    | mjw.OverflowType.EPA_HORIZON
)  # fmt: skip
"""Overflows by which physics is lost.  The others say that a solver stopped at its iterations, as MuJoCo's does."""
CCD_TOLERANCE = 1e-5
"""Of convex collisions [m].  At MuJoCo's 1e-6, made for float64, MuJoCo Warp 4.0.0 (float32) now and then sees an
upright cylinder 0.6 m deep in the table it stands on: 4 of 131,072 poses; at 1e-5 none of 983,040 (docs/engines.md)."""
PLAIN_BOXES = int(mujoco.mjtDisableBit.mjDSBL_NATIVECCD)
"""With this bit MuJoCo Warp 4.0.0 computes boxes against boxes as MuJoCo does, and every other pair as without.  By its
convex routine a resting block has now and then a single contact, or one whose normal lies on its side: after a finger's
touch joints were 1e-2 rad off MuJoCo's within a second, with it 1e-5 (docs/engines.md)."""
FAILED = 1e10
"""MuJoCo gives up on a state with a larger number (mjMAXVAL)."""

wp.config.quiet = True  # type: ignore[attr-defined]


def device_of(name: str) -> str:
    """The device called ``name``.

    Raises:
        ConfigError: If it is a GPU and there is none.
    """
    there = torch.cuda.is_available() and wp.is_cuda_available()
    if name == "auto":
        return "cuda:0" if there else "cpu"
    if name.startswith("cuda") and not there:
        raise ConfigError(f"device {name!r}: torch or Warp sees no NVIDIA GPU, accepted are auto and cpu")
    return "cuda:0" if name == "cuda" else name


class WarpEngine:
    """B copies of one compiled scene.

    Args:
        model: The composed scene; every joint of ``robot`` has an actuator of its name, every object a free joint.
        robot: Names and order of the joints.
        objects: Names of the free bodies, in the order of ``Measurement.object_position``.
        nworld: B.
        substeps: S, physics steps of one call of ``advance``.
        config: Device and sizes.
        clearance: Whether to measure distances; without they are +inf (costs off).
        supply: Margins asked for; decides which optional fields are filled.
        graph: Record the physics of a step by itself; not where the caller records a larger whole.

    Raises:
        ConfigError: If the robot has geoms other than capsules and spheres, or a margin needs what is not measured:
            people among them.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        robot: RobotModel,
        *,
        objects: tuple[str, ...],
        nworld: int,
        substeps: int,
        config: WarpConfig | None = None,
        clearance: bool = True,
        supply: frozenset[str] = frozenset(),
        graph: bool = True,
    ):
        self.config = config = config or WarpConfig()
        if PEOPLE in supply and len(there := people.geoms(model)):
            names = [model.geom(int(g)).name for g in there]
            raise ConfigError(f"people {names} are in the scene: engine mujoco_warp does not measure how near they are")
        model = copy.copy(model)
        model.opt.ccd_tolerance = max(model.opt.ccd_tolerance, CCD_TOLERANCE)
        model.opt.disableflags |= PLAIN_BOXES
        self.model, self.robot, self.nworld, self.substeps = model, robot, nworld, substeps
        self.dt, self.device, self._record = float(model.opt.timestep), device_of(config.device), graph and config.graph
        self.samples = Samples(
            model, robot, objects=objects, nworld=nworld, substeps=substeps, device=self.device, clearance=clearance,
            supply=supply,
        )  # fmt: skip
        with wp.ScopedDevice(self.device):
            self.m = mjw.put_model(model)
            self.d = mjw.make_data(model, nworld=nworld, njmax=config.njmax, nconmax=config.nconmax)
            self._commands = wp.zeros((substeps, nworld, robot.n), dtype=float)
            self._scripted = wp.zeros((substeps, nworld, model.nmocap, 7), dtype=float)
            self._actuator = wp.from_torch(self.samples.act.int())
        self.m.opt.warn_overflow = 0  # counted, and raised by ``check``, not printed
        self._graph: Any = None
        d = self.d
        self.qpos, self.qvel, self.time = wp.to_torch(d.qpos), wp.to_torch(d.qvel), wp.to_torch(d.time)
        """Live: positions (B, nq), velocities (B, nv), time (B,), float32."""
        self.ctrl, self._warmstart = wp.to_torch(d.ctrl), wp.to_torch(d.qacc_warmstart)
        self.overflow = wp.to_torch(d.overflow)
        """What did not fit since the last ``check``, bits of ``mjw.OverflowType``, (B,) int32."""
        self._mocap = wp.to_torch(d.mocap_pos), wp.to_torch(d.mocap_quat)
        self._xfrc, self._qfrc = wp.to_torch(d.xfrc_applied), wp.to_torch(d.qfrc_applied)
        self.told, self._posed = wp.to_torch(self._commands), wp.to_torch(self._scripted)
        """Joint commands of the newest control step [rad], (S, B, n) float32; and scripted bodies."""
        self.per_world: dict[str, Tensor] = {}
        """Model fields that differ per world, live."""

    def _physics(self) -> None:
        """S steps and their samples: launches only, to be recorded."""
        m, d, b = self.m, self.d, self.nworld
        self.samples.begin()
        for s in range(self.substeps):
            wp.launch(kernels.send, (b, self.robot.n), inputs=[s, self._commands, self._actuator, d.ctrl])
            if self.model.nmocap:
                poses = [s, self._scripted, d.mocap_pos, d.mocap_quat]
                wp.launch(kernels.place_mocap, (b, self.model.nmocap), inputs=poses)
            mjw.step(m, d)
            if s > 0:
                self.samples.record_poses(s - 1, d)
            self.samples.record(s, d)
        mjw.kinematics(m, d)
        self.samples.record_poses(self.substeps - 1, d)

    def _run(self) -> None:
        """The physics of one control step, from the commands in the buffer; recorded at the first call."""
        with self.stream():
            if not self._record:
                self._physics()
                return
            if self._graph is None:
                with wp.ScopedCapture(device=self.device) as capture:
                    self._physics()
                self._graph = capture.graph
            wp.capture_launch(self._graph)

    def stream(self) -> Any:
        """Warp on torch's stream, so that neither waits for the other."""
        if self.device == "cpu":
            return wp.ScopedDevice("cpu")
        return wp.ScopedStream(wp.stream_from_torch(torch.cuda.current_stream(self.device)))

    def advance(self, u: Tensor, ud: Tensor, udd: Tensor, uddd: Tensor, mocap: Tensor | None = None) -> Measurement:
        """Send commands at S physics steps, (S, B, n) float64 each, scripted bodies at (S, B, c, 7).

        Returns:
            The S measurements after them, (S, B, ...), float64; copies.
        """
        self.told.copy_(u)
        if mocap is not None:
            self._posed.copy_(mocap)
        start = self.time.double()
        self._run()
        return self.samples.measurement(start, (u, ud, udd, uddd))

    def reset(self, mask: Tensor, qpos: Tensor, qvel: Tensor, mocap: Tensor | None = None) -> None:
        """Put the worlds of ``mask`` (B,) into states (B, nq), (B, nv) with standing commands; others keep theirs."""
        row = mask[:, None]
        self.qpos.copy_(torch.where(row, qpos.float(), self.qpos))
        self.qvel.copy_(torch.where(row, qvel.float(), self.qvel))
        standing = torch.zeros_like(self.ctrl).index_copy(1, self.samples.act, self.q.float())
        self.ctrl.copy_(torch.where(row, standing, self.ctrl))
        for value in (self._warmstart, self.samples.torque, self._qfrc):
            value.masked_fill_(row, 0.0)
        self._xfrc.masked_fill_(row[..., None], 0.0)
        self.time.masked_fill_(mask, 0.0)
        if mocap is not None:
            for value, new in zip(self._mocap, (mocap[..., :3], mocap[..., 3:]), strict=True):
                value.copy_(torch.where(row[..., None], new.float(), value))

    def holds(self, name: str) -> bool:
        """Whether a model field may differ per world."""
        value: Any = getattr(self.m, name, None)
        return isinstance(value, wp.array) and len(value.shape) > 1 and value.shape[0] in (1, self.nworld)

    def field(self, name: str) -> Tensor:
        """A model field that differs per world, (B, ...), live; see ``device.starts.with_constants``.

        Raises:
            ConfigError: If there is no such field, or a step was recorded while the worlds still shared it.
        """
        if name not in self.per_world:
            if not self.holds(name):
                raise ConfigError(f"no model field {name!r} that may differ per world in MuJoCo Warp")
            value = getattr(self.m, name)
            if value.shape[0] != self.nworld:
                if self._graph is not None:
                    raise ConfigError(f"field {name} must be made per world before the first step is recorded")
                tiled = wp.to_torch(value).repeat(self.nworld, *[1] * (wp.to_torch(value).ndim - 1))
                setattr(self.m, name, value := wp.from_torch(tiled, dtype=value.dtype))
            self.per_world[name] = wp.to_torch(value)
        return self.per_world[name]

    def set_fields(self, mask: Tensor, fields: Mapping[str, Tensor]) -> None:
        """Give the worlds of ``mask`` (B,) fields of their own, (B, ...); constants do not follow by themselves.

        Raises:
            ConfigError: If there is no such field, or a value has another size.
        """
        for name, value in fields.items():
            own = self.field(name)
            if value.numel() != own.numel():
                raise ConfigError(
                    f"{name} of {len(own)} worlds has shape {tuple(value.shape)}, need {tuple(own.shape)}"
                )
            row = mask.reshape(-1, *[1] * (own.ndim - 1))
            own.copy_(torch.where(row, value.reshape(own.shape).to(own.dtype), own))

    def disturb(self, wrench: Tensor | None, torque: Tensor | None) -> None:
        """Forces and torques on bodies (B, nbody, 6) and on joints (B, n), until the next call or reset."""
        self._xfrc.zero_() if wrench is None else self._xfrc.copy_(wrench)
        self._qfrc.zero_()
        if torque is not None:
            self._qfrc.index_copy_(1, self.samples.vadr, torque.float())

    def impedance(self, stiffness: Tensor, damping: Tensor) -> None:
        """Stiffness [N m/rad] and damping [N m s/rad] of the position servos, (B, n), until the next call."""
        gain, bias = self.field("actuator_gainprm"), self.field("actuator_biasprm")
        gain[:, :, 0].index_copy_(1, self.samples.act, stiffness.float())
        bias[:, :, 1].index_copy_(1, self.samples.act, -stiffness.float())
        bias[:, :, 2].index_copy_(1, self.samples.act, -damping.float())

    def broken(self) -> Tensor:
        """Worlds (B,) bool whose state is not finite, or beyond what MuJoCo goes on with."""
        return ~((self.qpos.abs() < FAILED).all(1) & (self.qvel.abs() < FAILED).all(1))

    def check(self) -> None:
        """Raise if physics was lost since the last call.  Reads the device: not for inside a step.

        Raises:
            SimulationOverflow: Naming the buffer, the worlds and the sizes.
        """
        bits = self.overflow.cpu().numpy() & int(LOST)
        self.overflow.zero_()
        worlds = np.flatnonzero(bits)
        if len(worlds):
            kinds = mjw.OverflowType(int(np.bitwise_or.reduce(bits)))
            raise SimulationOverflow(
                f"{kinds.name} in {len(worlds)} of {self.nworld} worlds (first: {worlds[0]}): contacts or constraints "
                f"were dropped; now njmax={self.config.njmax} per world, nconmax={self.config.nconmax} on average"
            )

    @property
    def q(self) -> Tensor:
        """Joint positions now [rad], (B, n) float64."""
        return self.qpos.index_select(1, self.samples.qadr).double()

    @property
    def qd(self) -> Tensor:
        """Joint velocities now [rad/s], (B, n) float64."""
        return self.qvel.index_select(1, self.samples.vadr).double()

    def objects(self) -> tuple[Tensor, Tensor]:
        """Positions [m] (B, m, 3) and quaternions (B, m, 4) of the objects now, float64."""
        return self.samples.objects(self.qpos)
