"""Randomisation: pure functions from a model and a generator to per-world values of MjModel's fields.

Every function returns ``{field: (k, *shape of the field)}``, whole arrays under MjModel's own names ("opt.gravity"
for an option), ready for an engine's ``set_fields``.  It changes the entries it names and nothing else; what MuJoCo
derives from them (constraint weights, bounding volumes) follows from ``mj_setConst``, which the engine calls.
``given`` are values drawn before, by a task's ``start`` or by another function: a function starts from them where
they hold its field, else from the model, so functions compose in any order.

How things look is in ``sim.appearance``; the ranges are in ``configs/randomize``, their sources in docs/sim_to_real.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import mujoco
import numpy as np

from palmar.safety.robot import RobotModel
from palmar.safety.types import ConfigError
from palmar.sim import scene

Array = np.ndarray
Fields = dict[str, Array]
"""Per-world values by field of MjModel, (k, *shape)."""
Range = tuple[float, float]
"""Ends of a uniform distribution; the unit is named where it is used."""

_SCALABLE = tuple(
    int(getattr(mujoco.mjtGeom, f"mjGEOM_{name}")) for name in ("BOX", "SPHERE", "CAPSULE", "CYLINDER", "ELLIPSOID")
)


@dataclass(frozen=True)
class Parts:
    """What belongs to whom in a composed scene: ids, in the order of the robot's joints and of the objects."""

    links: Array
    """Bodies of the robot that have mass."""
    dofs: Array
    """Degrees of freedom of the robot's joints, (n,)."""
    actuators: Array
    """(n,)."""
    hand_geoms: Array
    """Colliding geoms of the palm and everything on it."""
    objects: Array
    """Bodies of the objects, (m,)."""
    object_geoms: Array
    """Geoms of the objects."""
    table: Array
    """Geom of the table, (1,)."""
    palm: int
    """Body of the palm."""

    @classmethod
    def of(cls, model: mujoco.MjModel, robot: RobotModel, objects: tuple[str, ...]) -> Parts:
        """The parts of ``model``.

        Raises:
            ConfigError: If the model lacks a joint, an actuator, an object or the table.
        """
        body = np.array([_id(model, "body", name) for name in objects], dtype=int)
        joints = [_id(model, "joint", name) for name in robot.joints]
        links = _below(model, {int(model.body_rootid[model.jnt_bodyid[joints[0]]])})
        hand = _below(model, {_id(model, "body", robot.palm_body)})
        collides = (model.geom_contype | model.geom_conaffinity) != 0
        return cls(
            links=np.array([b for b in sorted(links) if model.body_mass[b] > 0], dtype=int),
            dofs=model.jnt_dofadr[joints],
            actuators=np.array([_id(model, "actuator", name) for name in robot.joints]),
            hand_geoms=np.flatnonzero(np.isin(model.geom_bodyid, sorted(hand)) & collides),
            objects=body,
            object_geoms=np.flatnonzero(np.isin(model.geom_bodyid, body)),
            table=np.array([_id(model, "geom", scene.TABLE)]),
            palm=_id(model, "body", robot.palm_body),
        )

    def scalable(self, model: mujoco.MjModel) -> Array:
        """The objects made of primitives alone: a mesh has its size in its vertices, which all worlds share."""
        geoms = [np.flatnonzero(model.geom_bodyid == b) for b in self.objects]
        keep = [bool(np.isin(model.geom_type[g], _SCALABLE).all()) for g in geoms]
        return self.objects[np.array(keep, dtype=bool)]


def mass(
    model: mujoco.MjModel, rng: np.random.Generator, k: int, *, bodies: Array, scale: Range, given: Fields | None = None
) -> Fields:
    """Mass and inertia of each body times one factor of its own: density changes, shape does not."""
    factor = rng.uniform(*scale, (k, len(bodies)))
    out = current(model, k, given, "body_mass", "body_inertia")
    out["body_mass"][:, bodies] *= factor
    out["body_inertia"][:, bodies] *= factor[..., None]
    return out


def payload(
    model: mujoco.MjModel, rng: np.random.Generator, k: int, *, body: int, added: Range, given: Fields | None = None
) -> Fields:
    """An unknown point mass [kg] at a body's centre of mass: a camera, a cable, a glove."""
    out = current(model, k, given, "body_mass")
    out["body_mass"][:, body] += rng.uniform(*added, k)
    return out


def believed_gravity(model: mujoco.MjModel, k: int, *, bodies: Array, given: Fields) -> Fields:
    """Gravity compensation of the masses a controller believes in, the model's, not of the true ones."""
    out = current(model, k, given, "body_gravcomp")
    true = current(model, k, given, "body_mass")["body_mass"][:, bodies]
    out["body_gravcomp"][:, bodies] = model.body_gravcomp[bodies] * model.body_mass[bodies] / true
    return out


def friction(
    model: mujoco.MjModel,
    rng: np.random.Generator,
    k: int,
    *,
    geoms: Array,
    coefficient: Range,
    given: Fields | None = None,
) -> Fields:
    """One sliding coefficient [-] per world for all of ``geoms``.

    MuJoCo takes the larger coefficient of a pair, so what shall slip must be drawn on both sides of the contact.
    """
    out = current(model, k, given, "geom_friction")
    out["geom_friction"][:, geoms, 0] = rng.uniform(*coefficient, k)[:, None]
    return out


def damping(
    model: mujoco.MjModel, rng: np.random.Generator, k: int, *, dofs: Array, scale: Range, given: Fields | None = None
) -> Fields:
    """Viscous friction of each joint times a factor of its own."""
    return _scaled(model, rng, k, "dof_damping", dofs, scale, given)


def armature(
    model: mujoco.MjModel, rng: np.random.Generator, k: int, *, dofs: Array, scale: Range, given: Fields | None = None
) -> Fields:
    """Reflected rotor inertia of each joint times a factor of its own."""
    return _scaled(model, rng, k, "dof_armature", dofs, scale, given)


def frictionloss(
    model: mujoco.MjModel, rng: np.random.Generator, k: int, *, dofs: Array, scale: Range, given: Fields | None = None
) -> Fields:
    """Dry friction of each joint times a factor of its own."""
    return _scaled(model, rng, k, "dof_frictionloss", dofs, scale, given)


def gains(
    model: mujoco.MjModel,
    rng: np.random.Generator,
    k: int,
    *,
    actuators: Array,
    stiffness: Range,
    damping: Range,
    given: Fields | None = None,
) -> Fields:
    """Stiffness and damping of each position servo times factors of their own; no servo gets a standing error.

    Raises:
        ConfigError: If an actuator is not a position servo, torque = kp (u - q) - kv qd.
    """
    kp, bias = model.actuator_gainprm[actuators, 0], model.actuator_biasprm[actuators]
    if np.any(bias[:, 1] != -kp) or np.any(bias[:, 0] != 0):
        raise ConfigError(f"gains need position servos, got gains {kp.tolist()} and biases {bias[:, :3].tolist()}")
    out = current(model, k, given, "actuator_gainprm", "actuator_biasprm")
    s, d = rng.uniform(*stiffness, (k, len(actuators))), rng.uniform(*damping, (k, len(actuators)))
    out["actuator_gainprm"][:, actuators, 0] *= s
    out["actuator_biasprm"][:, actuators, 1] *= s
    out["actuator_biasprm"][:, actuators, 2] *= d
    return out


def size(
    model: mujoco.MjModel, rng: np.random.Generator, k: int, *, bodies: Array, scale: Range, given: Fields | None = None
) -> Fields:
    """Each body, with everything on it, larger or smaller by one factor s: mass by s^3 and inertia by s^5.

    Raises:
        ConfigError: If a body has a geom that is no primitive, naming it.
    """
    names = ("geom_size", "geom_pos", "geom_rbound", "geom_aabb", "site_pos", "body_ipos", "body_mass", "body_inertia")
    out = current(model, k, given, *names)
    for body, s in zip(bodies, rng.uniform(*scale, (len(bodies), k)), strict=True):
        geoms, sites = np.flatnonzero(model.geom_bodyid == body), np.flatnonzero(model.site_bodyid == body)
        if not np.isin(model.geom_type[geoms], _SCALABLE).all():
            raise ConfigError(f"body {model.body(body).name!r} has a mesh; only primitives have a size per world")
        out["geom_size"][:, geoms] *= s[:, None, None]
        out["geom_pos"][:, geoms] *= s[:, None, None]
        for g in geoms:
            out["geom_aabb"][:, g], out["geom_rbound"][:, g] = _bounds(model.geom_type[g], out["geom_size"][:, g])
        out["site_pos"][:, sites] *= s[:, None, None]
        out["body_ipos"][:, body] *= s[:, None]
        out["body_mass"][:, body] *= s**3
        out["body_inertia"][:, body] *= (s**5)[:, None]
    return out


def gravity(
    model: mujoco.MjModel, rng: np.random.Generator, k: int, *, offset: float, given: Fields | None = None
) -> Fields:
    """Gravity plus up to ``offset`` along each axis [m/s2]: a table, or a robot's base, that is not level.

    Bodies with gravity compensation are compensated for the gravity there is.
    """
    out = current(model, k, given, "opt.gravity")
    out["opt.gravity"] += rng.uniform(-offset, offset, (k, 3))
    return out


def standing(
    poses: Array, model: mujoco.MjModel, parts: Parts, *, before: Mapping[str, Array], after: Mapping[str, Array]
) -> Array:
    """Start poses (k, m, 7) of objects that stand on the table (z = 0), after ``size`` has changed the objects.

    An object's lowest point is at a distance from its origin that grows with it, so z grows likewise.

    Args:
        poses: Positions [m] and quaternions w-x-y-z, world frame.
        model: The scene.
        parts: Its parts.
        before: Fields before randomisation (a task's own), may be empty.
        after: Fields after it.
    """
    if "geom_size" not in after:
        return poses
    first = [np.flatnonzero(model.geom_bodyid == b)[0] for b in parts.objects]
    old = before["geom_size"] if "geom_size" in before else model.geom_size[None]
    out = poses.copy()
    out[..., 2] *= after["geom_size"][:, first, 0] / old[:, first, 0]
    return out


def _bounds(kind: int, size: Array) -> tuple[Array, Array]:
    """Box (k, 6) around primitives of sizes (k, 3), and radius of their bounding spheres (k,), as MuJoCo's compiler."""
    r, h = size[:, 0], size[:, 1]
    half, radius = {
        "BOX": lambda: (size, np.linalg.norm(size, axis=1)),
        "ELLIPSOID": lambda: (size, size.max(axis=1)),
        "SPHERE": lambda: (np.stack([r, r, r], 1), r),
        "CAPSULE": lambda: (np.stack([r, r, r + h], 1), r + h),
        "CYLINDER": lambda: (np.stack([r, r, h], 1), np.hypot(r, h)),
    }[mujoco.mjtGeom(int(kind)).name.removeprefix("mjGEOM_")]()
    return np.concatenate([np.zeros_like(half), half], axis=1), radius


def _scaled(
    model: mujoco.MjModel,
    rng: np.random.Generator,
    k: int,
    field: str,
    ids: Array,
    scale: Range,
    given: Fields | None,
) -> Fields:
    """Entries ``ids`` of a field, each times a factor of its own."""
    out = current(model, k, given, field)
    out[field][:, ids] *= rng.uniform(*scale, (k, len(ids)))
    return out


def current(model: mujoco.MjModel, k: int, given: Fields | None, *names: str) -> Fields:
    """Copies of fields as they are now: those drawn before, else the model's for every world."""
    out: Fields = {}
    for name in names:
        if given is not None and name in given:
            out[name] = np.array(given[name])
            continue
        holder, _, field = name.rpartition(".")
        value = np.asarray(getattr(model.opt if holder else model, field))
        out[name] = np.tile(value, (k, *[1] * value.ndim))
    return out


def _below(model: mujoco.MjModel, bodies: set[int]) -> set[int]:
    """Bodies and all their descendants; parents come before children."""
    found = set(bodies)
    for b in range(1, model.nbody):
        if int(model.body_parentid[b]) in found:
            found.add(b)
    return found


def _id(model: mujoco.MjModel, kind: str, name: str) -> int:
    """Id of a named element.

    Raises:
        ConfigError: If there is none, naming those there are.
    """
    found = mujoco.mj_name2id(model, getattr(mujoco.mjtObj, f"mjOBJ_{kind.upper()}"), name)
    if found < 0:
        count = {"body": model.nbody, "joint": model.njnt, "actuator": model.nu, "geom": model.ngeom}[kind]
        known = [getattr(model, kind)(i).name for i in range(count)]
        raise ConfigError(f"the scene has no {kind} {name!r}; it has {[n for n in known if n]}")
    return found
