"""How a real robot and its surroundings may differ from the model: a file of ``configs/randomize``, drawn per episode.

``none`` is the model as it is; ``train`` what identification leaves open; ``wide`` what a policy has never seen.
Nothing is drawn where nothing is asked: with ``none`` a run is bit-identical to one without this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib.resources import files
from pathlib import Path

import mujoco
import numpy as np
import yaml

from palmar.safety.config import load, unknown
from palmar.safety.robot import RobotModel
from palmar.safety.types import ConfigError
from palmar.sim import appearance, randomize
from palmar.sim.actuators import ActuatorConfig, torque_limits
from palmar.sim.randomize import Fields, Parts, Range
from palmar.sim.sensors import SensorConfig

Array = np.ndarray


@dataclass(frozen=True)
class Physics:
    """Ranges of what is drawn per world and episode; None leaves the model's value.  Factors multiply it."""

    link_mass: Range | None = None
    """Factor of each link's mass and inertia; gravity compensation keeps to the model's masses."""
    payload: Range | None = None
    """Mass at the palm that nobody told the controller of [kg]."""
    object_mass: Range | None = None
    """Factor of each object's mass and inertia."""
    object_size: Range | None = None
    """Factor of each object's size, at constant density; objects of meshes keep theirs."""
    grip_friction: Range | None = None
    """Sliding coefficient of hand and objects, one per world [-]."""
    table_friction: Range | None = None
    """Sliding coefficient of the table [-]; the larger one of a contact decides."""
    damping: Range | None = None
    """Factor of each joint's viscous friction."""
    armature: Range | None = None
    """Factor of each joint's rotor inertia."""
    frictionloss: Range | None = None
    """Factor of each joint's dry friction."""
    stiffness: Range | None = None
    """Factor of each servo's stiffness."""
    servo_damping: Range | None = None
    """Factor of each servo's damping."""
    gravity: float = 0.0
    """Largest offset per axis [m/s2]."""

    def __post_init__(self) -> None:
        _check(self, zero=("payload",))
        if not 0.0 <= self.gravity < 9.0:
            raise ConfigError(f"gravity is an offset per axis in [0, 9) m/s2, got {self.gravity}")


@dataclass(frozen=True)
class Looks:
    """Ranges of what only cameras see."""

    light_position: float = 0.0
    """Largest offset per axis [m]."""
    light_angle: float = 0.0
    """Largest turn [rad]."""
    light_strength: Range | None = None
    """Factor of ambient, diffuse and specular light."""
    object_brightness: Range | None = None
    """Factor of objects' colours."""
    object_tint: float = 0.0
    """Added per channel of objects' colours; small, for words name them."""
    material_brightness: Range | None = None
    """Factor of every material's colour."""
    material_tint: float = 0.0
    """Added per channel of materials' colours."""
    table_texture: bool = False
    """The table wears one of ``appearance.add_materials``."""
    camera_position: float = 0.0
    """Largest error per axis [m]."""
    camera_angle: float = 0.0
    """Largest error [rad]."""

    def __post_init__(self) -> None:
        _check(self)
        for name in (
            "light_position",
            "light_angle",
            "object_tint",
            "material_tint",
            "camera_position",
            "camera_angle",
        ):
            if not 0.0 <= getattr(self, name) <= 2.0:
                raise ConfigError(f"{name} must be in [0, 2], got {getattr(self, name)}")


@dataclass(frozen=True)
class Reality:
    """Everything that differs."""

    physics: Physics = field(default_factory=Physics)
    looks: Looks = field(default_factory=Looks)
    actuators: ActuatorConfig = field(default_factory=ActuatorConfig)
    sensors: SensorConfig = field(default_factory=SensorConfig)


def named(name: str) -> Reality:
    """``configs/randomize/NAME.yaml``, or a file of one's own where ``name`` ends in ``.yaml``.

    Raises:
        ConfigError: If there is no such file, a key is unknown, or a range is impossible.
    """
    folder = Path(str(files("palmar.configs"))) / "randomize"
    path = Path(name) if name.endswith(".yaml") else folder / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(unknown("randomization", name, sorted(p.stem for p in folder.glob("*.yaml"))))
    try:
        raw = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"{path.name} is no YAML: {error}") from error
    return load(Reality, raw or {}, where="randomize")


def draw(
    model: mujoco.MjModel,
    robot: RobotModel,
    parts: Parts,
    reality: Reality,
    rng: np.random.Generator,
    k: int,
    *,
    given: Mapping[str, Array] | None = None,
) -> Fields:
    """Fields for k fresh episodes, for an engine's ``set_fields``; {} beyond ``given`` where nothing is asked.

    Each quantity has a stream of its own, seeded from one draw of ``rng``: to switch one off changes no other.

    Args:
        model: The compiled scene.
        robot: Its joints are driven by ``reality.actuators``.
        parts: Whose is what.
        reality: The ranges.
        rng: Of the environment; nothing is drawn where nothing is asked.
        k: Worlds.
        given: What the task's ``start`` drew already; the result starts from it and contains it.
    """
    out: Fields = dict(given or {})
    motors = reality.actuators
    stages = [
        *_physics(model, parts, reality.physics),
        (motors.hand_motor or motors.strength, _bind(torque_limits, robot=robot, config=motors)),
        *_looks(model, parts, reality.looks),
    ]
    if not any(active for active, _ in stages):
        return out
    seeds = rng.integers(0, 2**63, len(stages))
    for seed, (active, stage) in zip(seeds, stages, strict=True):
        if active:
            out |= stage(model, np.random.default_rng(int(seed)), k, given=out)
    if reality.physics.link_mass or reality.physics.payload:
        out |= randomize.believed_gravity(model, k, bodies=parts.links, given=out)
    return out


def _physics(model: mujoco.MjModel, parts: Parts, c: Physics) -> list:
    """Whether each quantity is asked for, and how it is drawn; the order is fixed."""
    r = randomize
    one = (1.0, 1.0)
    hold = np.concatenate([parts.hand_geoms, parts.object_geoms])
    servo = {"stiffness": c.stiffness or one, "damping": c.servo_damping or one}
    return [
        (c.link_mass, _bind(r.mass, bodies=parts.links, scale=c.link_mass)),
        (c.payload, _bind(r.payload, body=parts.palm, added=c.payload)),
        (c.object_mass, _bind(r.mass, bodies=parts.objects, scale=c.object_mass)),
        (c.object_size, _bind(r.size, bodies=parts.scalable(model), scale=c.object_size)),
        (c.grip_friction, _bind(r.friction, geoms=hold, coefficient=c.grip_friction)),
        (c.table_friction, _bind(r.friction, geoms=parts.table, coefficient=c.table_friction)),
        (c.damping, _bind(r.damping, dofs=parts.dofs, scale=c.damping)),
        (c.armature, _bind(r.armature, dofs=parts.dofs, scale=c.armature)),
        (c.frictionloss, _bind(r.frictionloss, dofs=parts.dofs, scale=c.frictionloss)),
        (c.stiffness or c.servo_damping, _bind(r.gains, actuators=parts.actuators, **servo)),
        (c.gravity, _bind(r.gravity, offset=c.gravity)),
    ]


def _looks(model: mujoco.MjModel, parts: Parts, c: Looks) -> list:
    a = appearance
    one = (1.0, 1.0)
    lamp = {"position": c.light_position, "angle": c.light_angle, "strength": c.light_strength or one}
    thing = {"ids": parts.object_geoms, "brightness": c.object_brightness or one, "tint": c.object_tint}
    paint = {"ids": np.arange(model.nmat), "brightness": c.material_brightness or one, "tint": c.material_tint}
    eye = {"ids": np.arange(model.ncam), "position": c.camera_position, "angle": c.camera_angle}
    return [
        (c.light_position or c.light_angle or c.light_strength, _bind(a.lighting, **lamp)),
        (c.object_brightness or c.object_tint, _bind(a.colours, field="geom_rgba", **thing)),
        (c.material_brightness or c.material_tint, _bind(a.colours, field="mat_rgba", **paint)),
        (c.table_texture, _bind(a.textures, geoms=parts.table, materials=a.materials(model))),
        (c.camera_position or c.camera_angle, _bind(a.cameras, **eye)),
    ]


def _bind(function, **ranges):
    """``function`` with its ranges; model, generator and number of worlds come later."""
    return lambda model, rng, k, *, given: function(model, rng, k, given=given, **ranges)


def _check(config: Physics | Looks, *, zero: tuple[str, ...] = ()) -> None:
    """Ranges are increasing and positive; those named in ``zero`` may start at 0."""
    for f in fields(config):
        value = getattr(config, f.name)
        if isinstance(value, tuple):
            low, high = value
            if not (low <= high < np.inf and (low > 0 or (f.name in zero and low == 0))):
                raise ConfigError(f"{f.name} must be an increasing pair of positive numbers, got {value}")
