"""A task's scene in Isaac Lab's words: the robot's shipped USD, and what the task furnishes, from the same MJCF.

The MJCF of robot and task is compiled and read, so shapes, masses, friction, contact softness and gains are written
once.  What has no counterpart is refused: bodies of several geoms, scripted bodies, meshes.
Isaac Lab's quaternions are x-y-z-w; ours are w-x-y-z everywhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import isaaclab.sim as sim_utils
import mujoco
import numpy as np
from isaaclab.actuators import ImplicitActuatorCfg
from isaaclab.assets import ArticulationCfg, AssetBaseCfg, RigidObjectCfg
from isaaclab.scene import InteractiveSceneCfg
from isaaclab.sensors import ContactSensorCfg
from isaaclab.sim.schemas import MassCfg, UsdPhysicsCollisionCfg, UsdPhysicsRigidBodyCfg
from isaaclab.utils import configclass
from isaaclab_newton.sim.schemas import (
    MujocoCollisionCfg,
    MujocoRigidBodyCfg,
    NewtonArticulationCfg,
    NewtonCollisionCfg,
)

from palmar.safety.robot import RobotModel
from palmar.safety.types import ConfigError
from palmar.sim import scene
from palmar.sim.robots import arm_and_hand

Array = np.ndarray
USD = Path(__file__).resolve().parents[2] / "assets" / "usd"
ENV = "{ENV_REGEX_NS}"
BOX, CYLINDER, CAPSULE, SPHERE = (
    int(getattr(mujoco.mjtGeom, f"mjGEOM_{name}")) for name in ("BOX", "CYLINDER", "CAPSULE", "SPHERE")
)


@configclass
class PalmarSceneCfg(InteractiveSceneCfg):
    """Filled by ``scene_of``: entities are attributes, in the order in which they are set."""


@dataclass(frozen=True)
class Parts:
    """Names of what stands in a scene."""

    model: mujoco.MjModel
    """The compiled MJCF that everything was read from."""
    objects: tuple[str, ...]
    """Free bodies, in the task's order."""
    fixtures: tuple[str, ...]
    """Geoms that do not move, the table first."""


def scene_of(
    task: Any, robot: RobotModel, *, num_envs: int, variant: str = "mujoco", spacing: float = 3.0
) -> tuple[PalmarSceneCfg, Parts]:
    """Robot, table and what ``task`` furnishes.

    Args:
        task: Its ``furnish`` and ``objects`` are used.
        robot: One of ``configs/robot``.
        num_envs: Number of worlds.
        variant: ``Physics`` variant of the USD: ``mujoco`` for Newton, ``physx`` for PhysX.
        spacing: Distance between worlds [m].

    Raises:
        ConfigError: If the robot has no USD, or the task furnishes what this engine cannot spawn.
    """
    path = USD / robot.name / f"{robot.name}.usda"
    if not path.is_file():
        shipped = sorted(p.name for p in USD.iterdir() if p.is_dir())
        raise ConfigError(f"no USD of robot {robot.name!r}; there are {shipped} (assets/convert_usd.py makes them)")
    spec = scene.robot_spec(*arm_and_hand(robot.name))
    robot_bodies = {b.name for b in spec.bodies}
    task.furnish(spec)
    model = spec.compile()
    made = PalmarSceneCfg(num_envs=num_envs, env_spacing=spacing)
    fixtures = tuple(_fixtures(model))
    for name in fixtures:
        setattr(made, name, _fixture(model, name))
    made.robot = _robot(model, robot, path, variant)
    for name in task.objects:
        setattr(made, name, _object(model, name))
    strange = {model.body(b).name for b in range(1, model.nbody)} - robot_bodies - set(task.objects)
    if strange:
        raise ConfigError(f"task {task.name} furnishes {sorted(strange)}: engine isaaclab has free objects only")
    made.light = AssetBaseCfg(prim_path="/World/Light", spawn=sim_utils.DomeLightCfg(intensity=1500.0))
    made.tips = ContactSensorCfg(
        prim_path=f"{ENV}/Robot", sensor_shape_prim_expr=[f"{ENV}/Robot/.*/{tip}" for tip in robot.tip_geoms]
    )
    made.table_touch = _touch(scene.TABLE)
    for name in task.objects:
        setattr(made, f"{name}_touch", _touch(name))
    return made, Parts(model, tuple(task.objects), fixtures)


def _robot(model: mujoco.MjModel, robot: RobotModel, path: Path, variant: str) -> ArticulationCfg:
    """The arm with its hand; gains and torque limits are those of the MJCF's actuators."""
    gain = {j: model.actuator(j) for j in robot.joints}
    return ArticulationCfg(
        prim_path=f"{ENV}/Robot",
        spawn=sim_utils.UsdFileCfg(
            usd_path=str(path),
            variants={"Physics": variant},
            rigid_props=[MujocoRigidBodyCfg(gravcomp=1.0)],
            articulation_props=[NewtonArticulationCfg(self_collision_enabled=True)],  # of tips: ``isaaclab_model``
        ),  # fmt: skip
        init_state=ArticulationCfg.InitialStateCfg(
            joint_pos={j: float(x) for j, x in zip(robot.joints, robot.home, strict=True)}
        ),
        actuators={
            "all": ImplicitActuatorCfg(
                joint_names_expr=list(robot.joints),
                stiffness={j: float(a.gainprm[0]) for j, a in gain.items()},
                damping={j: float(-a.biasprm[2]) for j, a in gain.items()},
                joint_effort_limit={j: float(t) for j, t in zip(robot.joints, robot.limits.tau_max, strict=True)},
            )
        },
    )


def _fixtures(model: mujoco.MjModel) -> list[str]:
    """Names of the colliding geoms of the world body."""
    return [model.geom(g).name for g in range(model.ngeom) if model.geom_bodyid[g] == 0 and _collides(model, g)]


def _collides(model: mujoco.MjModel, g: int) -> bool:
    return bool(model.geom_contype[g] or model.geom_conaffinity[g])


def _fixture(model: mujoco.MjModel, name: str) -> AssetBaseCfg:
    """A geom that never moves."""
    g = model.geom(name).id
    return AssetBaseCfg(
        prim_path=f"{ENV}/{name}",
        spawn=_shape(model, g),
        init_state=AssetBaseCfg.InitialStateCfg(pos=_numbers(model.geom_pos[g]), rot=xyzw(model.geom_quat[g])),
    )


def _object(model: mujoco.MjModel, name: str) -> RigidObjectCfg:
    """A free body of one geom that sits in its frame."""
    body = model.body(name)
    geoms = range(body.geomadr[0], body.geomadr[0] + body.geomnum[0])
    g = next(iter(geoms), -1)
    if len(geoms) != 1 or np.any(model.geom_pos[g]) or not np.allclose(model.geom_quat[g], (1, 0, 0, 0)):
        raise ConfigError(f"object {name!r} is not one geom in its body's frame: engine isaaclab cannot spawn it")
    adr = model.joint(body.jntadr[0]).qposadr[0]
    return RigidObjectCfg(
        prim_path=f"{ENV}/{name}",
        spawn=_shape(
            model, g, rigid_props=[UsdPhysicsRigidBodyCfg()], mass_props=[MassCfg(mass=float(model.body_mass[body.id]))]
        ),
        init_state=RigidObjectCfg.InitialStateCfg(
            pos=_numbers(model.qpos0[adr : adr + 3]), rot=xyzw(model.qpos0[adr + 3 : adr + 7])
        ),
    )


def _shape(model: mujoco.MjModel, g: int, **props: Any) -> Any:
    """Spawner of a geom, with its contact parameters and colour."""
    size, kind = model.geom_size[g], int(model.geom_type[g])
    spawn: dict[int, tuple[Callable[..., Any], dict[str, Any]]] = {
        BOX: (sim_utils.CuboidCfg, {"size": _numbers(2 * size)}),
        CYLINDER: (sim_utils.CylinderCfg, {"radius": float(size[0]), "height": float(2 * size[1])}),
        CAPSULE: (sim_utils.CapsuleCfg, {"radius": float(size[0]), "height": float(2 * size[1])}),
        SPHERE: (sim_utils.SphereCfg, {"radius": float(size[0])}),
    }
    if kind not in spawn:
        known = ", ".join(mujoco.mjtGeom(k).name for k in spawn)
        raise ConfigError(f"geom {model.geom(g).name!r} is a {mujoco.mjtGeom(kind).name}; engine isaaclab has {known}")
    make, shape = spawn[kind]
    contact = MujocoCollisionCfg(
        condim=int(model.geom_condim[g]), solref=_numbers(model.geom_solref[g]), solimp=_numbers(model.geom_solimp[g])
    )
    mu = float(model.geom_friction[g, 0])
    return make(
        **shape,
        **props,
        collision_props=[UsdPhysicsCollisionCfg(), NewtonCollisionCfg(contact_gap=0.0, contact_margin=0.0), contact],
        physics_material=sim_utils.RigidBodyMaterialCfg(static_friction=mu, dynamic_friction=mu),
        visual_material=sim_utils.PreviewSurfaceCfg(diffuse_color=_numbers(model.geom_rgba[g, :3])),
    )


def _touch(name: str) -> ContactSensorCfg:
    """What the robot presses on a thing with; forces per shape of the robot, to be summed."""
    return ContactSensorCfg(
        prim_path=f"{ENV}/{name}",
        sensor_shape_prim_expr=[f"{ENV}/{name}/.*"],
        filter_shape_prim_expr=[f"{ENV}/Robot/.*"],
    )


def xyzw(quaternion: Array) -> tuple[float, ...]:
    """Isaac Lab's order of a quaternion w-x-y-z (4,)."""
    return _numbers(np.roll(quaternion, -1))


def _numbers(x: Array) -> tuple[float, ...]:
    return tuple(float(v) for v in x)
