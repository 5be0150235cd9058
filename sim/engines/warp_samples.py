"""What engine ``mujoco_warp`` measures at each physics step of a control step, as torch tensors.

The buffers (S, B, ...) are written by kernels inside the recorded step and read by torch after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np
import torch
import warp as wp
from torch import Tensor

from palmar.safety.geometry import FAR, Kinematics
from palmar.safety.robot import RobotModel
from palmar.safety.types import CONTACT_PAIRS, ConfigError, Measurement
from palmar.sim.engines import warp_kernels as kernels
from palmar.sim.engines.mujoco_cpu import PEOPLE, TORQUE_RATE, WRENCH

UNSUPPLIED = ("keep_out", "contact_approach", "energy_tank")
"""Margins whose measurement this engine does not fill."""


class Samples:
    """Buffers of one engine's samples; see ``WarpEngine`` for the arguments."""

    def __init__(
        self,
        model: mujoco.MjModel,
        robot: RobotModel,
        *,
        objects: tuple[str, ...],
        nworld: int,
        substeps: int,
        device: str,
        clearance: bool,
        supply: frozenset[str],
    ):
        if missing := sorted(supply & set(UNSUPPLIED)):
            raise ConfigError(f"engine mujoco_warp measures nothing for {missing}; engine mujoco does for keep_out")
        self._device, self._supply, self._clearance = device, supply, clearance
        self._nworld, self._dt = nworld, float(model.opt.timestep)
        self.qadr = self._ids([model.joint(j).qposadr[0] for j in robot.joints])
        self.vadr = self._ids([model.joint(j).dofadr[0] for j in robot.joints])
        self.act = self._ids([model.actuator(j).id for j in robot.joints])
        self._objects = self._ids(_spread([model.joint(f"{o}_free").qposadr[0] for o in objects], 7))
        self._n_objects, self._palm = len(objects), model.body(robot.palm_body).id
        sensors = {model.sensor(k).name: int(model.sensor(k).adr[0]) for k in range(model.nsensor)}
        self._force = self._ids(_spread([sensors[f"force_{p}"] for p in CONTACT_PAIRS], 3))
        touch, wrench = [sensors.get(f"touch_{o}", -1) for o in objects], [sensors.get(name, -1) for name in WRENCH]
        self._touch = self._ids(_spread(touch, 3)) if touch and min(touch) >= 0 else None
        self._wrench = self._ids(_spread(wrench, 3)) if min(wrench) >= 0 else None
        wide = {"qpos": model.nq, "qvel": model.nv, "actuator_force": model.nu, "sensordata": model.nsensordata}
        with wp.ScopedDevice(device):
            self._rows = {name: wp.zeros((substeps, nworld, w), dtype=float) for name, w in wide.items()}
            self._palms = wp.zeros((substeps, nworld), dtype=wp.vec3)
            self._near = [wp.zeros((substeps, nworld), dtype=float) for _ in range(2)]
            if clearance:
                self._capsules(model, robot)
        self._of = {name: wp.to_torch(row) for name, row in self._rows.items()}
        self._palm_of, self._near_of = wp.to_torch(self._palms), [wp.to_torch(x) for x in self._near]
        self.torque = torch.zeros(nworld, robot.n, dtype=torch.float64, device=device)
        """Joint torques of the newest sample [N m], (B, n)."""

    def _ids(self, values: Any) -> Tensor:
        return torch.as_tensor(np.asarray(values, dtype=np.int64), device=self._device)

    def _capsules(self, model: mujoco.MjModel, robot: RobotModel) -> None:
        """The robot's collision geometry, the filter's, by column of the scene's geoms."""
        g = Kinematics.from_model(robot).batch([model.geom(k).name for k in range(model.ngeom)])
        self._shape = [wp.array(x, dtype=float) for x in (g.half, g.radius)]
        self._shape += [wp.array(g.pairs, dtype=int), wp.array(g.table, dtype=int)]
        self._items = len(g.pairs) + len(g.table)

    def begin(self) -> None:
        """Before the first physics step; launches only, as the next two."""
        self._near[0].fill_(FAR)
        self._near[1].fill_(float("inf"))

    def record(self, s: int, data: Any) -> None:
        """Keep state and forces right after physics step s."""
        for name, rows in self._rows.items():
            wp.launch(kernels.copy_row, rows.shape[1:], inputs=[s, getattr(data, name), rows])

    def record_poses(self, s: int, data: Any) -> None:
        """Keep palm and clearances of sample s, once the poses are those of its state."""
        wp.launch(kernels.copy_point, self._nworld, inputs=[s, self._palm, data.xpos, self._palms])
        if self._clearance:
            where = [s, FAR, data.geom_xpos, data.geom_xmat]
            wp.launch(kernels.clearances, (self._nworld, self._items), inputs=[*where, *self._shape, *self._near])

    def objects(self, qpos: Tensor) -> tuple[Tensor, Tensor]:
        """Positions [m] (..., m, 3) and quaternions (..., m, 4) of the objects in states (..., nq), float64."""
        pose = qpos.index_select(-1, self._objects).double().reshape(*qpos.shape[:-1], self._n_objects, 7)
        return pose[..., :3], pose[..., 3:]

    def measurement(self, start: Tensor, sent: Sequence[Tensor]) -> Measurement:
        """The samples of the control step that began at time ``start`` (B,), float64 copies."""
        qpos, sensed = self._of["qpos"], self._of["sensordata"]
        count = torch.arange(1, len(qpos) + 1, device=self._device, dtype=torch.float64)
        t = start + self._dt * count[:, None]
        tau = self._of["actuator_force"].index_select(2, self.act).double()
        rate = None
        if TORQUE_RATE in self._supply:
            rate = torch.diff(torch.cat([self.torque[None], tau]), dim=0) / self._dt
        self.torque.copy_(tau[-1])
        position, quaternion = self.objects(qpos)
        far = torch.full_like(t, torch.inf)
        own, table = (x.double() for x in self._near_of) if self._clearance else (far, far)
        people = PEOPLE in self._supply
        return Measurement(
            t=t,
            q=qpos.index_select(2, self.qadr).double(),
            qd=self._of["qvel"].index_select(2, self.vadr).double(),
            tau=tau,
            u=sent[0],
            ud=sent[1],
            udd=sent[2],
            uddd=sent[3],
            palm_position=self._palm_of.double(),
            clearance_self=own,
            clearance_table=table,
            contact_force=_norms(sensed, self._force),
            object_position=position,
            object_quaternion=quaternion,
            tau_rate=rate,
            clearance_person=far if people else None,
            approach_person=torch.zeros_like(t) if people else None,
            object_contact=None if self._touch is None else _norms(sensed, self._touch),
            wrench=None if self._wrench is None else sensed.index_select(2, self._wrench).double(),
        )


def _spread(first: Sequence[int], width: int) -> np.ndarray:
    """Indices of ``width`` numbers from each of ``first`` on, flat."""
    return (np.array(first, dtype=np.int64)[:, None] + np.arange(width)).ravel()


def _norms(sensed: Tensor, triples: Tensor) -> Tensor:
    """Lengths of the vectors at ``triples`` (3 k,) of sensor data (..., w), (..., k) float64."""
    value = sensed.index_select(-1, triples).double()
    return value.reshape(*value.shape[:-1], -1, 3).norm(dim=-1)
