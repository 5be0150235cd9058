"""The tabletop scene: arm, hand, table and free blocks as one MuJoCo model; FR3 with LEAP where nothing else is said.

World frame: x forward from the arm's base, z up, origin at the arm's base on the table top (z = 0) [m].
Everything is addressed by name; names carry no prefix (`fr3_joint1`, `if_mcp`, `palm`, `if_tip`).
"""

import hashlib
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np

ASSETS = Path(__file__).resolve().parents[1] / "assets"
ARMS = {"fr3": ASSETS / "fr3" / "fr3.xml", "panda": ASSETS / "panda" / "panda.xml"}
HANDS = {"leap": ASSETS / "leap" / "leap_right.xml", "allegro": ASSETS / "allegro" / "allegro_right.xml"}

ARM_JOINTS = tuple(f"fr3_joint{k}" for k in range(1, 8))
HAND_JOINTS = tuple(f"{f}_{j}" for f in ("if", "mf", "rf") for j in ("mcp", "rot", "pip", "dip")) + tuple(
    f"th_{j}" for j in ("cmc", "axl", "mcp", "ipl")
)
JOINTS = ARM_JOINTS + HAND_JOINTS
TIPS = ("if_tip", "mf_tip", "rf_tip", "th_tip")
TABLE = "table"
FORCE_ROBOT_TABLE = "force_robot_table"

FLANGE = 0.107  # flange along link 7's z [m]
# Palm in the flange frame [m]: the fingers along the flange's z, and curling towards its x.
PALMS = {
    "leap": ((-0.011, 0.033, 0.137), (0.7071067811865476, 0.0, -0.7071067811865476, 0.0)),
    "allegro": ((0.0093, 0.0, 0.140), (1.0, 0.0, 0.0, 0.0)),
}

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
            raise ValueError(f"shape must be one of {sorted(_SHAPES)}, got {self.shape!r}")
        if min(self.half_size) <= 0 or self.mass <= 0:
            raise ValueError(f"half_size and mass must be positive, got {self.half_size}, {self.mass}")

    @property
    def geom_size(self) -> tuple[float, float, float]:
        """MuJoCo's size triple for the shape [m]."""
        x, _, z = self.half_size
        return {"cylinder": (x, z, 0.0), "capsule": (x, z, 0.0), "sphere": (x, 0.0, 0.0)}.get(
            self.shape, self.half_size
        )


def robot_spec(arm: str = "fr3", hand: str = "leap") -> mujoco.MjSpec:
    """Arm with hand on the table, our primitive models, without blocks or sensors."""
    if arm not in ARMS or hand not in HANDS:
        raise ValueError(f"arm must be in {sorted(ARMS)} and hand in {sorted(HANDS)}, got {arm!r}, {hand!r}")
    spec = mujoco.MjSpec.from_string(_merged_xml(ARMS[arm], HANDS[hand], arm=arm, hand=hand))
    _furnish(spec, arm)
    return spec


def reference_robot_spec(assets_dir: Path) -> mujoco.MjSpec:
    """The same scene from Menagerie's models: their meshes, boxes, inertias and friction; our actuators.

    Kept: geometry, masses, joint damping and friction (tips 0.5, other hand geoms 0.2; MuJoCo takes the
    larger of a pair, so a block's 1.0 decides).  Replaced by ours, so that a policy trained on `robot_spec`
    runs unchanged: option, actuator names, gains and force ranges, hand armature and gravity compensation,
    collision bits, sites, sensors' names.  solref and solimp are ours too: LEAP's 1e-4 s makes force spikes
    of 160-200 N at a 5 ms step.  Joint ranges stay theirs; control ranges are ours (equal or tighter).

    Args:
        assets_dir: Folder with `franka_fr3_lite/fr3.xml` and `leap_hand_lite/right_hand.xml`.

    Raises:
        FileNotFoundError: If a model is missing.
    """
    paths = [Path(assets_dir) / p for p in ("franka_fr3_lite/fr3.xml", "leap_hand_lite/right_hand.xml")]
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"no reference model at {path}")
    spec = mujoco.MjSpec.from_string(_merged_xml(*paths, arm="fr3", hand="leap"))
    _adopt_reference(spec)
    _furnish(spec, "fr3")
    return spec


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
    a tip squeezed from two sides reads the difference.  Zero without contact.
    """
    root = next(f"{arm}_link0" for arm in ARMS if spec.body(f"{arm}_link0") is not None)
    _contact_sensor(spec, FORCE_ROBOT_TABLE, mujoco.mjtObj.mjOBJ_XBODY, root, against=TABLE)
    for tip in TIPS:
        _contact_sensor(spec, f"force_{tip}", mujoco.mjtObj.mjOBJ_GEOM, tip)


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


def model_hash(xml: str) -> str:
    """SHA-256 of a model's XML, hex."""
    return hashlib.sha256(xml.encode()).hexdigest()


def _merged_xml(arm_path: Path, hand_path: Path, *, arm: str, hand: str) -> str:
    """One MJCF of arm and hand, the palm under link 7; hand classes, materials, meshes get `hand_`.

    Not `MjSpec.attach`: without a name prefix it warns (and logs to a file) and refuses repeated materials.
    Contact excludes and keyframes are dropped: `_furnish` sets collision bits and `HOME` is by name.
    """
    arm_root, hand_root = ET.parse(arm_path).getroot(), ET.parse(hand_path).getroot()
    for root, path in ((arm_root, arm_path), (hand_root, hand_path)):
        for mesh in root.findall("asset/mesh"):
            mesh.set("file", str(path.resolve().parent / "assets" / mesh.attrib["file"]))
    for element in hand_root.iter():
        names = ("class", "childclass", "material", "mesh")
        names += ("name",) if element.tag in ("mesh", "material") else ()
        for name in set(names) & element.attrib.keys():
            element.set(name, "hand_" + element.attrib[name])
    palm = _found(hand_root, "worldbody/body[@name='palm']")
    defaults = _found(hand_root, "default")
    defaults.set("class", "hand")
    palm.set("childclass", palm.get("childclass", "hand"))
    (x, y, z), quat = PALMS[hand]
    palm.set("pos", " ".join(map(str, (x, y, z + FLANGE))))
    palm.set("quat", " ".join(map(str, quat)))
    _found(arm_root, f".//body[@name='{arm}_link7']").append(palm)
    _found(arm_root, "default").append(defaults)
    for section in ("asset", "actuator"):
        _found(arm_root, section).extend(_found(hand_root, section))
    for section in ("contact", "keyframe"):
        for element in arm_root.findall(section):
            arm_root.remove(element)
    _found(arm_root, "compiler").attrib.pop("meshdir", None)
    return ET.tostring(arm_root, encoding="unicode")


def _found(root: ET.Element, path: str) -> ET.Element:
    """The element at path, which must exist."""
    element = root.find(path)
    if element is None:
        raise ValueError(f"model has no {path}")
    return element


def _furnish(spec: mujoco.MjSpec, arm: str) -> None:
    """Add option, table, mount, light and cameras, and set the collision bits."""
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
    root = next(f"{arm}_link0" for arm in ARMS if spec.body(f"{arm}_link0") is not None)
    for name in objects:
        sensor = spec.add_sensor(
            name=f"touch_{name}", type=mujoco.mjtSensor.mjSENS_CONTACT, objtype=mujoco.mjtObj.mjOBJ_XBODY, objname=root
        )
        sensor.reftype, sensor.refname = mujoco.mjtObj.mjOBJ_BODY, name
        sensor.intprm[:3] = [1 << int(mujoco.mjtConDataField.mjCONDATA_FORCE), 3, 1]


def _contact_sensor(
    spec: mujoco.MjSpec, name: str, kind: mujoco.mjtObj, first: str, *, against: str | None = None
) -> None:
    """One contact sensor: intprm is (data bits, reduction, number); reduction 3 is `netforce`."""
    sensor = spec.add_sensor(name=name, type=mujoco.mjtSensor.mjSENS_CONTACT, objtype=kind, objname=first)
    if against is not None:
        sensor.reftype, sensor.refname = mujoco.mjtObj.mjOBJ_GEOM, against
    sensor.intprm[:3] = [1 << int(mujoco.mjtConDataField.mjCONDATA_FORCE), 3, 1]


def _adopt_reference(spec: mujoco.MjSpec) -> None:
    """Give Menagerie's models our actuators, sites and contact softness."""
    ours = robot_spec().compile()
    spec.delete(spec.site("attachment_site"))
    for actuator in spec.actuators:
        _copy_actuator(actuator, ours.actuator(actuator.target))
    for geom in spec.geoms:
        geom.solref, geom.solimp = SOLREF, SOLIMP
    for body in spec.bodies[1:]:
        body.gravcomp = 1.0
    for name in HAND_JOINTS:
        spec.joint(name).armature = float(ours.dof_armature[ours.joint(name).dofadr[0]])
    for k in range(ours.nsite):
        body = spec.body(ours.body(ours.site_bodyid[k]).name)
        body.add_site(name=ours.site(k).name, pos=ours.site_pos[k], size=[0.003] * 3, group=4)


def _copy_actuator(actuator: mujoco.MjsActuator, ours) -> None:
    """Name, gains and ranges of one of our compiled position actuators."""
    actuator.name, actuator.inheritrange = actuator.target, 0.0
    actuator.gainprm, actuator.biasprm = ours.gainprm, ours.biasprm
    actuator.ctrlrange, actuator.forcerange = ours.ctrlrange, ours.forcerange
