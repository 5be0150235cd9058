"""The tabletop scene: arm, hand, table and free blocks as one MuJoCo model; FR3 with LEAP where nothing else is said.

World frame: x forward from the arm's base, z up, origin at the arm's base on the table top (z = 0) [m].
Everything is addressed by name; names carry no prefix (`fr3_joint1`, `if_mcp`, `palm`, `if_tip`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from palmar.safety.types import CONTACT_PAIRS, ConfigError
from palmar.sim.arm_hand import FLANGE, arm_hand_xml, arms

ARM_JOINTS = tuple(f"fr3_joint{k}" for k in range(1, 8))
HAND_JOINTS = tuple(f"{f}_{j}" for f in ("if", "mf", "rf") for j in ("mcp", "rot", "pip", "dip")) + tuple(
    f"th_{j}" for j in ("cmc", "axl", "mcp", "ipl")
)
JOINTS = ARM_JOINTS + HAND_JOINTS
TIPS = CONTACT_PAIRS[1:]
"""Names of the fingertips' geoms; a hand with fewer fingers leaves some out."""
TABLE = "table"
FORCE_ROBOT_TABLE = f"force_{CONTACT_PAIRS[0]}"

FRICTION = (1.0, 0.005, 0.0001)  # sliding [-], torsional [m], rolling [m]
SOLREF = (0.01, 1.0)  # contact time constant [s], damping ratio
SOLIMP = (0.9, 0.95, 0.001, 0.5, 2.0)

# Collision bits (contype, conaffinity): robot-table, robot-block, block-block, block-table and tip-tip
# collide in the simulator; every other pair is the safety filter's business.
_TABLE_BITS, _ROBOT_BITS, _BLOCK_BITS, _TIP_BITS = (1, 0), (0, 3), (2, 3), (4, 7)

_SHAPES = {
    "box": mujoco.mjtGeom.mjGEOM_BOX,
    "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,
    "capsule": mujoco.mjtGeom.mjGEOM_CAPSULE,
    "sphere": mujoco.mjtGeom.mjGEOM_SPHERE,
}


@dataclass(frozen=True)
class Grasp:
    """A pinch of a 5 cm block: thumb on one face, index and middle on the opposite one, ring folded away."""

    palm_pos: tuple[float, float, float]
    """Palm origin in the block's frame, x the grasp axis, z up [m]."""
    palm_quat: tuple[float, float, float, float]
    yaw: float
    """World yaw of the grasp axis that suits a block straight ahead [rad]; use the nearest of four."""
    open: dict[str, float]
    """Joint targets with the tips about 22 mm away from the faces [rad]."""
    close: dict[str, float]
    """Joint targets with the tips about 18 mm inside them: the squeeze [rad]."""


def _hand(*q: float) -> dict[str, float]:
    """Name the sixteen hand angles [rad]."""
    return dict(zip(HAND_JOINTS, q, strict=True))


# fmt: off
GRASP = Grasp(
    palm_pos=(0.0412, 0.0295, 0.0730),
    palm_quat=(0.8869, -0.1766, 0.3900, 0.1736),
    yaw=1.571,
    open=_hand(-0.28, 0.416, 0.257, 2.037, -0.28, 0.541, 0.847, 1.615,
              2.225, -0.27, 0.776, 0.563, 1.27, -0.016, 0.497, 0.465),
    close=_hand(-0.28, 0.398, 1.392, 1.278, -0.139, 0.875, 1.782, 0.533,
               2.225, -0.27, 0.776, 0.563, 1.385, 0.002, 1.145, -0.015),
)
# fmt: on
"""Least squares as in ``sim.tasks.grasp_search``; links stay 4 mm apart at any mix of open and closed fingers."""

HOME_ARM = (0.0972, 0.1787, -0.2716, -2.1094, 0.7153, 1.8373, 0.5014)
HOME = dict(zip(ARM_JOINTS, HOME_ARM, strict=True)) | GRASP.open
"""Joint name to rest position [rad]: open hand 12 cm above the grasp of a block at (0.5, 0, 0.025) m."""


@dataclass(frozen=True)
class Block:
    """A free object on the table."""

    name: str
    shape: str = "box"
    """box, cylinder, capsule or sphere."""
    half_size: tuple[float, float, float] = (0.025, 0.025, 0.025)
    """Half extents [m].  Cylinder: (r, r, half height); capsule likewise, caps apart; sphere: (r, r, r)."""
    rgba: tuple[float, float, float, float] = (0.85, 0.25, 0.2, 1.0)
    mass: float = 0.1
    """[kg], spread evenly."""

    def __post_init__(self) -> None:
        if self.shape not in _SHAPES:
            raise ConfigError(f"shape must be one of {sorted(_SHAPES)}, got {self.shape!r}")
        if min(self.half_size) <= 0 or self.mass <= 0:
            raise ConfigError(f"half_size and mass must be positive, got {self.half_size}, {self.mass}")

    @property
    def geom_size(self) -> tuple[float, float, float]:
        """MuJoCo's size triple for the shape [m]."""
        x, _, z = self.half_size
        return {"cylinder": (x, z, 0.0), "capsule": (x, z, 0.0), "sphere": (x, 0.0, 0.0)}.get(
            self.shape, self.half_size
        )


def robot_spec(arm: str = "fr3", hand: str = "leap") -> mujoco.MjSpec:
    """Arm with hand on the table, our primitive models, without blocks or sensors.

    Raises:
        ConfigError: See ``arm_hand_xml``.
    """
    return furnished(mujoco.MjSpec.from_string(arm_hand_xml(arm, hand)), arm)


def add_blocks(spec: mujoco.MjSpec, blocks: Sequence[Block]) -> None:
    """Add each block as body `name`, joint `<name>_free` and geom `<name>_geom`, resting at x = 0.5 m."""
    for k, block in enumerate(blocks):
        height = block.half_size[2] + (block.half_size[0] if block.shape == "capsule" else 0.0)
        side = 0.12 * (k - (len(blocks) - 1) / 2)
        body = spec.worldbody.add_body(name=block.name, pos=[0.5, side, height])
        body.add_freejoint(name=f"{block.name}_free")
        geom = body.add_geom(name=f"{block.name}_geom", type=_SHAPES[block.shape], size=block.geom_size)
        geom.mass, geom.rgba = block.mass, block.rgba
        geom.condim, geom.friction = 4, FRICTION
        geom.solref, geom.solimp = SOLREF, SOLIMP
        geom.contype, geom.conaffinity = _BLOCK_BITS


def add_contact_sensors(spec: mujoco.MjSpec) -> None:
    """Add `force_robot_table` and `force_<tip>`: net contact force, three numbers each, in this order [N].

    Layout: `data.sensor(name).data` is the world-frame vector (x, y, z) of the summed contact force that
    the robot or tip exerts on what it touches: a tip pressed on the table reads -z, tips holding a block
    in the air sum to +z times its weight (measured, see the tests).  Forces are summed as vectors:
    a tip squeezed from two sides reads the difference.  Zero without contact, and for a tip that is not there.
    """
    _contact_sensor(spec, FORCE_ROBOT_TABLE, mujoco.mjtObj.mjOBJ_XBODY, _root(spec), against=TABLE)
    for tip in TIPS:
        if spec.geom(tip) is not None:
            _contact_sensor(spec, f"force_{tip}", mujoco.mjtObj.mjOBJ_GEOM, tip)
        else:
            spec.add_sensor(name=f"force_{tip}", type=mujoco.mjtSensor.mjSENS_USER).dim = 3  # that nobody writes


Furnish = Callable[[mujoco.MjSpec], None]
"""What a task adds to the scene."""


def scene_spec(
    blocks: Sequence[Block] = (), *, arm: str = "fr3", hand: str = "leap", furnish: Furnish | None = None
) -> mujoco.MjSpec:
    """Robot, table, blocks, contact sensors, the camera of reports, and what ``furnish`` adds."""
    spec = robot_spec(arm, hand)
    add_blocks(spec, blocks)
    add_contact_sensors(spec)
    if furnish is not None:
        furnish(spec)
    _camera(spec, "report", eye=(1.12, -0.52, 0.42), target=(0.42, 0.0, 0.16))
    return spec


def compose(
    blocks: Sequence[Block] = (), *, arm: str = "fr3", hand: str = "leap", furnish: Furnish | None = None
) -> tuple[mujoco.MjModel, str]:
    """``scene_spec`` compiled, and the XML that reproduces it."""
    spec = scene_spec(blocks, arm=arm, hand=hand, furnish=furnish)
    spec.compile()
    xml = spec.to_xml()  # numbers are printed: the model of the text is not bit-equal to the spec's
    return mujoco.MjModel.from_xml_string(xml), xml


def robot_xml(arm: str = "fr3", hand: str = "leap") -> str:
    """XML of robot and table only, same names as `compose`: the model the safety filter loads."""
    spec = robot_spec(arm, hand)
    spec.compile()
    return spec.to_xml()


def furnished(spec: mujoco.MjSpec, arm: str) -> mujoco.MjSpec:
    """``spec``, changed: with option, table, mount, light and cameras and our collision bits.

    ``arm`` begins the names of its links.
    """
    spec.modelname = "palmar"
    option = spec.option
    option.timestep, option.integrator = 0.005, mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    option.cone, option.impratio = mujoco.mjtCone.mjCONE_PYRAMIDAL, 1.0
    option.solver, option.iterations, option.ls_iterations = mujoco.mjtSolver.mjSOL_NEWTON, 10, 15
    for geom in spec.geoms:
        if geom.contype or geom.conaffinity:
            geom.contype, geom.conaffinity = _TIP_BITS if geom.name in TIPS else _ROBOT_BITS
    box, cylinder = mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_CYLINDER
    table = spec.worldbody.add_geom(name=TABLE, type=box, size=[0.65, 0.7, 0.025], pos=[0.35, 0, -0.025])
    table.friction, table.solref, table.solimp, table.condim = FRICTION, SOLREF, SOLIMP, 4
    table.contype, table.conaffinity = _TABLE_BITS
    mount = spec.body(f"{arm}_link7").add_geom(name="mount", type=cylinder, size=[0.03, 0.022, 0])
    mount.pos, mount.group, mount.mass, mount.rgba = [0, 0, FLANGE + 0.022], 2, 0.0, [0.16, 0.17, 0.19, 1]
    mount.contype = mount.conaffinity = 0
    for body in (f"{arm}_link0", f"{arm}_link1"):
        spec.add_exclude(bodyname1="world", bodyname2=body)
    _looks(spec)
    return spec


def _looks(spec: mujoco.MjSpec) -> None:
    """Light, sky, table texture and the cameras `front` and `side`."""
    spec.visual.headlight.ambient, spec.visual.headlight.diffuse = [0.35] * 3, [0.35] * 3
    spec.visual.headlight.specular = [0.1] * 3
    spec.visual.quality.shadowsize = 2048
    spec.visual.global_.offwidth, spec.visual.global_.offheight = 1280, 960
    spec.stat.center, spec.stat.extent = [0.35, 0, 0.3], 1.2
    gradient, flat = mujoco.mjtBuiltin.mjBUILTIN_GRADIENT, mujoco.mjtBuiltin.mjBUILTIN_CHECKER
    sky = spec.add_texture(name="sky", type=mujoco.mjtTexture.mjTEXTURE_SKYBOX, builtin=gradient)
    sky.rgb1, sky.rgb2, sky.width, sky.height = [0.80, 0.85, 0.90], [0.42, 0.47, 0.54], 256, 1536
    check = spec.add_texture(name="check", type=mujoco.mjtTexture.mjTEXTURE_2D, builtin=flat)
    check.rgb1, check.rgb2, check.width, check.height = [0.60, 0.62, 0.64], [0.565, 0.585, 0.605], 256, 256
    spec.geom(TABLE).material = "table"
    material = spec.add_material(name="table", texrepeat=[10, 10], specular=0.1, texuniform=True)
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "check"
    light = spec.worldbody.add_light(name="key", pos=[0.9, -0.9, 1.8], dir=[-0.35, 0.6, -1.0])
    light.diffuse, light.specular, light.castshadow = [0.55] * 3, [0.25] * 3, True
    _camera(spec, "front", eye=(1.35, -0.75, 0.75), target=(0.33, 0.0, 0.27))
    _camera(spec, "side", eye=(0.45, -1.45, 0.45), target=(0.33, 0.0, 0.32))


def _camera(spec: mujoco.MjSpec, name: str, *, eye: tuple[float, ...], target: tuple[float, ...]) -> None:
    """A fixed, upright camera at eye looking at target, both in the world frame [m]."""
    back = np.subtract(eye, target)
    right = np.cross([0.0, 0.0, 1.0], back)
    axes = np.stack([right, np.cross(back, right), back])
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, axes.T.ravel())
    spec.worldbody.add_camera(name=name, pos=eye, quat=quat, fovy=45)


def add_touch_sensors(spec: mujoco.MjSpec, objects: Sequence[str]) -> None:
    """Add ``touch_<object>``: net contact force that the robot exerts on each free body [N], world axes."""
    for name in objects:
        sensor = _contact_sensor(spec, f"touch_{name}", mujoco.mjtObj.mjOBJ_XBODY, _root(spec))
        sensor.reftype, sensor.refname = mujoco.mjtObj.mjOBJ_BODY, name


def _root(spec: mujoco.MjSpec) -> str:
    """The arm's first body."""
    return next(f"{arm}_link0" for arm in arms() if spec.body(f"{arm}_link0") is not None)


def _contact_sensor(
    spec: mujoco.MjSpec, name: str, kind: mujoco.mjtObj, first: str, *, against: str | None = None
) -> mujoco.MjsSensor:
    """One contact sensor: intprm is (data bits, reduction, number); reduction 3 is `netforce`."""
    sensor = spec.add_sensor(name=name, type=mujoco.mjtSensor.mjSENS_CONTACT, objtype=kind, objname=first)
    if against is not None:
        sensor.reftype, sensor.refname = mujoco.mjtObj.mjOBJ_GEOM, against
    sensor.intprm[:3] = [1 << int(mujoco.mjtConDataField.mjCONDATA_FORCE), 3, 1]
    return sensor
