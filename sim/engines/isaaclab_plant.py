"""What Isaac Lab simulates, in Palmar's arrays: states written, commands sent, measurements taken.

Arrays are float64 torch tensors on the simulation's device, worlds first, each world's frame at its own robot's base,
quaternions w-x-y-z.  Isaac Lab's own are float32, in one common frame, x-y-z-w: the border is this file.
Not measured here: the wrench at the palm, visibility, people (nobody is there).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from isaaclab.scene import InteractiveScene
from torch import Tensor

from palmar.safety import batched_tree
from palmar.safety.batched_obstacles import Boxes, to_boxes
from palmar.safety.constraints import ConstraintSet
from palmar.safety.geometry import FAR, Kinematics, PoseGeometry
from palmar.safety.obstacles import keep_outs
from palmar.safety.robot import RobotModel
from palmar.safety.types import CONTACT_PAIRS, ConfigError, Measurement, PalmarError
from palmar.sim.engines.isaaclab_scene import Parts

DTYPE = torch.float64
TORQUE_RATE, PEOPLE = "joint_torque_rate", "speed_separation"
"""Margins whose fields are filled on demand, as in engine ``mujoco``."""
FATAL = {0: "nefc (njmax)", 1: "njmax_nnz", 2: "broadphase (nconmax)", 3: "contacts (nconmax)", 4: "convex collisions",
         5: "height field", 6: "contact match", 7: "nvmax", 8: "EPA horizon"}  # fmt: skip
"""Bits of MuJoCo Warp's overflow mask after which contacts or constraints are missing; the solver's own are not."""


class ContactOverflow(PalmarError):
    """A buffer of the simulator was too small: contacts are missing and no cost can be trusted."""


class Distances:
    """Clearances of the robot at joint positions: the filter's geometry, compiled on a CPU, batched on a GPU."""

    def __init__(self, robot: RobotModel, constraints: ConstraintSet, device: str):
        kin, like = Kinematics.from_model(robot), torch.zeros(1, dtype=DTYPE, device=device)
        self._links = batched_tree.converted(batched_tree.links_of(kin), like)
        self._parent, self._boxes = kin.tree.parent.tolist(), None
        tree, half = kin.tree, 0.5 * np.linalg.norm(kin.tree.ends[:, 1] - kin.tree.ends[:, 0], axis=-1)
        self._compiled = PoseGeometry(half, tree.radius, tree.pairs, tree.table, tree.moving)
        rows = tuple(c.name for c in constraints.constraints if c.margin == "keep_out")
        if rows:
            held = keep_outs(constraints.select(rows), 0.0)
            used = slice(0, held.count)
            boxes = Boxes(held.centre[used], held.frame[used], held.half[used], held.limit[used])
            self._boxes = batched_tree.converted(boxes, like)

    def __call__(self, q: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Self and table clearance (*B,) and distances to keep-out regions (*B, R) [m] at q (*B, n)."""
        lead = q.shape[:-1]
        at = batched_tree.place(self._links, self._parent, q.reshape(-1, q.shape[-1]))
        own, table = self._smallest(at)
        regions = None
        if self._boxes is not None:
            regions = to_boxes(self._links, at, self._boxes)[0].amin(-1).reshape(*lead, -1)
        return own.reshape(lead), table.reshape(lead), regions

    def _smallest(self, at: batched_tree.Placed) -> tuple[Tensor, Tensor]:
        """Self and table clearance (N,) [m]."""
        if at.ends.is_cuda:
            own = batched_tree.pair_distances(self._links, at)[0].amin(-1).clamp(max=FAR)
            return own, batched_tree.table_heights(self._links, at)[0].amin(-1)
        centre, half = (x.numpy() for x in batched_tree.middle(at.ends))
        axis = np.zeros((*half.shape[:2], 9))  # of a rotation the kernel reads the column along the segment
        axis[..., 2::3] = half / np.maximum(self._compiled.half, 1e-12)[:, None]
        own, table = self._compiled.clearances(centre, axis)
        return torch.from_numpy(own), torch.from_numpy(table)


class Plant:
    """The bodies of B worlds.

    Args:
        scene: Built from ``scene_of`` and running.
        robot: The robot the policy commands.
        parts: What stands in the scene.
        constraints: Decide which fields of a measurement are filled; None fills no clearance.
        solver: Newton's MuJoCo solver, to look for overflows; None where there is none (PhysX).
    """

    def __init__(
        self,
        scene: InteractiveScene,
        robot: RobotModel,
        parts: Parts,
        constraints: ConstraintSet | None,
        *,
        dt: float,
        solver: Any = None,
    ):
        self.scene, self.robot, self.parts, self.dt, self._solver = scene, robot, parts, dt, solver
        self.arm = scene["robot"]
        if not self.arm.is_fixed_base:
            raise ConfigError(f"the base of robot {robot.name} floats: its USD was converted without fix_base")
        self.device = self.arm.device
        self._columns = self.arm.find_joints(list(robot.joints), preserve_order=True)[0]
        self._palm = self.arm.find_bodies(robot.palm_body)[0][0]
        self._objects = [scene[name] for name in parts.objects]
        self._tips = [scene["tips"].sensor_names.index(name) for name in robot.tip_geoms]
        if len(self._tips) + 1 != len(CONTACT_PAIRS):
            raise ConfigError(f"need {len(CONTACT_PAIRS) - 1} fingertips for {CONTACT_PAIRS}, got {robot.tip_geoms}")
        self._touch = [scene[f"{name}_touch"] for name in parts.objects]
        gain = [parts.model.actuator(j) for j in robot.joints]
        self._kp, self._kd = self._of([a.gainprm[0] for a in gain]), self._of([-a.biasprm[2] for a in gain])
        self._limit = self._of(robot.limits.tau_max)
        self._distances = Distances(robot, constraints, self.device) if constraints is not None else None
        self._supply = frozenset(c.margin for c in constraints.constraints) if constraints is not None else frozenset()
        self._tau: Tensor | None = None

    @property
    def q(self) -> Tensor:
        """Joint positions now [rad], (B, n)."""
        return self.arm.data.joint_pos.torch[:, self._columns].to(DTYPE)

    @property
    def qd(self) -> Tensor:
        """Joint velocities now [rad/s], (B, n)."""
        return self.arm.data.joint_vel.torch[:, self._columns].to(DTYPE)

    @property
    def palm(self) -> Tensor:
        """Palm origin now [m], (B, 3)."""
        return self._local(self.arm.data.body_link_pos_w.torch[:, self._palm])

    def objects(self) -> tuple[Tensor, Tensor]:
        """Positions [m] (B, m, 3) and quaternions (B, m, 4) of the objects now."""
        if not self._objects:
            empty = torch.zeros(self.scene.num_envs, 0, 4, dtype=DTYPE, device=self.device)
            return empty[..., :3], empty
        pose = torch.stack([o.data.root_link_pose_w.torch for o in self._objects], dim=1)
        position = pose[..., :3] - self.scene.env_origins[:, None]
        return position.to(DTYPE), pose[..., [6, 3, 4, 5]].to(DTYPE)

    def reset(
        self, ids: Tensor, q: Tensor, poses: Tensor, *, qd: Tensor | None = None, twists: Tensor | None = None
    ) -> None:
        """Put worlds ``ids`` (k,) at q (k, n) with objects at poses (k, m, 7), w-x-y-z; at rest where not said.

        ``twists`` are the objects' linear and angular velocities in the world frame [m/s, rad/s], (k, m, 6).
        """
        ids = ids.to(torch.int32)
        full = self.arm.data.joint_pos.torch[ids.long()].clone()
        speed = torch.zeros_like(full)
        full[:, self._columns] = q.to(torch.float32)
        if qd is not None:
            speed[:, self._columns] = qd.to(torch.float32)
        self.arm.write_joint_position_to_sim_index(position=full, env_ids=ids)
        self.arm.write_joint_velocity_to_sim_index(velocity=speed, env_ids=ids)
        self.arm.actuators.target_command.set_position_index(value=full, env_ids=ids)
        for m, one in enumerate(self._objects):
            pose = poses[:, m, [0, 1, 2, 4, 5, 6, 3]].to(torch.float32)
            pose[:, :3] += self.scene.env_origins[ids.long()]
            one.write_root_pose_to_sim_index(root_pose=pose, env_ids=ids)
            twist = torch.zeros_like(pose[:, :6]) if twists is None else twists[:, m].to(torch.float32).contiguous()
            one.write_root_velocity_to_sim_index(root_velocity=twist, env_ids=ids)
        if self._tau is not None:
            self._tau[ids.long()] = 0.0

    def command(self, u: Tensor) -> None:
        """Send joint targets (B, n) [rad] for the next physics step."""
        self._sent = u
        self._before = self._torque(u)
        value = self.arm.data.joint_pos.torch.clone()
        value[:, self._columns] = u.to(torch.float32)
        self.arm.actuators.target_command.set_position_index(value=value)

    def _torque(self, u: Tensor) -> Tensor:
        """Torques of the servos (B, n) [N m], as MuJoCo computes them at the start of a step."""
        force = self._kp * (u - self.q) - self._kd * self.qd
        return torch.minimum(torch.maximum(force, -self._limit), self._limit)

    def sample(self) -> dict[str, Tensor]:
        """What is measured of the state now and of the step that led to it; stacked by ``measurement``."""
        position, quaternion = self.objects()
        sensors = self.scene.sensors
        table = sensors["table_touch"].data.force_matrix_w.torch.sum(dim=(1, 2))
        tips = sensors["tips"].data.net_forces_w.torch[:, self._tips]
        force = torch.cat([table[:, None], tips], dim=1).norm(dim=-1)
        found = {
            "q": self.q, "qd": self.qd, "tau": self._before, "palm_position": self.palm,
            "contact_force": force.to(DTYPE), "object_position": position, "object_quaternion": quaternion,
        }  # fmt: skip
        if self._touch:
            touch = [s.data.force_matrix_w.torch.sum(dim=(1, 2)).norm(dim=-1) for s in self._touch]
            found["object_contact"] = torch.stack(touch, dim=-1).to(DTYPE)
        return found

    def measurement(self, samples: Sequence[dict[str, Tensor]], t: Tensor, sent: Sequence[Tensor]) -> Measurement:
        """Samples of S physics steps, (S, B, ...), at times t (S, B) with commands u, ud, udd, uddd (S, B, n)."""
        fields: dict[str, Any] = {name: torch.stack([s[name] for s in samples]) for name in samples[0]}
        tau, far = fields["tau"], torch.full_like(t, float("inf"))
        own, table, regions = self._distances(fields["q"]) if self._distances else (far, far, None)
        if TORQUE_RATE in self._supply:
            first = tau[:1] if self._tau is None else self._tau[None]
            fields["tau_rate"] = torch.diff(tau, dim=0, prepend=first) / self.dt
            self._tau = tau[-1].clone()
        if PEOPLE in self._supply:
            fields |= {"clearance_person": far, "approach_person": torch.zeros_like(t)}
        return Measurement(
            t=t, u=sent[0], ud=sent[1], udd=sent[2], uddd=sent[3], clearance_self=own, clearance_table=table,
            clearance_keep_out=regions, **fields,
        )  # fmt: skip

    def check(self) -> None:
        """Raise if contacts or constraints of any world did not fit into the simulator's buffers.

        Raises:
            ContactOverflow: Naming the buffers and the worlds; the state is no longer what it should be.
        """
        if self._solver is None:
            return
        import warp as wp

        mask = wp.to_torch(self._solver.mjw_data.overflow)
        bits = [k for k in FATAL if bool(((mask >> k) & 1).any())]
        if bits:
            worlds = torch.nonzero((mask & sum(1 << k for k in bits)) != 0).flatten().tolist()
            names = ", ".join(FATAL[k] for k in bits)
            raise ContactOverflow(f"overflow of {names} in worlds {worlds[:8]}: give the physics preset more room")

    def broken(self) -> Tensor:
        """Worlds (B,) bool whose state is not finite."""
        position, quaternion = self.objects()
        b = self.scene.num_envs
        parts = (self.q, self.qd, position.reshape(b, -1), quaternion.reshape(b, -1))
        return ~torch.cat([torch.isfinite(x) for x in parts], dim=1).all(dim=1)

    def draw(self, friction: np.ndarray | None, mass: np.ndarray) -> None:
        """Friction of tips and objects (B,) and mass of objects (B, m) [kg], for each world its own."""
        for m, one in enumerate(self._objects):
            value = torch.as_tensor(mass[:, m : m + 1], dtype=torch.float32, device=self.device).contiguous()
            before = one.data.body_mass.torch.clone()
            inertia = one.data.body_inertia.torch.clone() * (value / before)[..., None]
            one.set_masses_index(masses=value)
            one.set_inertias_index(inertias=inertia)
        if friction is not None and self._solver is not None:
            self._rub(torch.as_tensor(friction, dtype=torch.float32, device=self.device))

    def _rub(self, mu: Tensor) -> None:
        """Sliding friction of tips and objects (B,), on Newton."""
        import warp as wp
        from isaaclab_newton.physics import NewtonManager
        from newton import ModelFlags

        model = NewtonManager.get_model()
        value, labels = wp.to_torch(model.shape_material_mu), list(model.shape_label)
        world = wp.to_torch(model.shape_world)
        ends = (*self.robot.tip_geoms,)
        for k, label in enumerate(labels):
            parts = label.split("/")
            if int(world[k]) >= 0 and (parts[-1] in ends or any(o in parts for o in self.parts.objects)):
                value[k] = mu[int(world[k])]
        NewtonManager.add_model_change(ModelFlags.SHAPE_PROPERTIES)

    def _local(self, position: Tensor) -> Tensor:
        return (position - self.scene.env_origins).to(DTYPE)

    def _of(self, values: Any) -> Tensor:
        return torch.as_tensor(np.asarray(values, dtype=np.float64), dtype=DTYPE, device=self.device)
