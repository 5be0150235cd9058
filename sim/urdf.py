"""URDF and xacro of a robot, from its one MJCF: kinematics, inertia, limits, shapes without meshes.

A link's frame is that of the MJCF's body, a joint's that of its child link.  What URDF cannot say is left out and named
here: armature (reflected rotor inertia), gravity compensation, actuators and their gains; of the looks, ellipsoids.

The xacro is in three pieces, so that arm, hand and mount are arguments: ``arm_<arm>.xacro`` and ``hand_<hand>.xacro``
define a macro each and where the hand's palm sits on link 7; ``palmar.urdf.xacro`` puts them together.
"""

from __future__ import annotations

import argparse
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from pathlib import Path

import mujoco
import numpy as np

from palmar.safety.robot import RobotModel
from palmar.safety.types import ConfigError
from palmar.sim.robots import arm_and_hand, load_robot, robot_names

Array = np.ndarray

XACRO = "http://www.ros.org/wiki/xacro"
ET.register_namespace("xacro", XACRO)
TOP = """\
<?xml version="1.0"?>
<!-- xacro palmar.urdf.xacro arm:=fr3 hand:=leap base_xyz:='0 0 0' table:=false; arm and hand are cut from the MJCF by
     python -m palmar.sim.urdf, see there for what URDF leaves out. -->
<robot name="palmar" xmlns:xacro="http://www.ros.org/wiki/xacro">
  <xacro:arg name="arm" default="fr3"/>
  <xacro:arg name="hand" default="leap"/>
  <xacro:include filename="arm_$(arg arm).xacro"/>
  <xacro:include filename="hand_$(arg hand).xacro"/>
  <!-- The arm's base in the world, and the palm on the arm's last link [m, rad]. -->
  <xacro:arg name="base_xyz" default="0 0 0"/>
  <xacro:arg name="base_rpy" default="0 0 0"/>
  <xacro:arg name="mount_xyz" default="${palm_xyz}"/>
  <xacro:arg name="mount_rpy" default="${palm_rpy}"/>
  <xacro:arg name="table" default="true"/>
  <link name="world"/>
  <xacro:if value="$(arg table)">
    <xacro:include filename="table.xacro"/>
    <xacro:palmar_table parent="world"/>
  </xacro:if>
  <xacro:palmar_arm parent="world">
    <origin xyz="$(arg base_xyz)" rpy="$(arg base_rpy)"/>
  </xacro:palmar_arm>
  <xacro:palmar_hand parent="${arm_tip}">
    <origin xyz="$(arg mount_xyz)" rpy="$(arg mount_rpy)"/>
  </xacro:palmar_hand>
</robot>
"""


class _Source:
    """A robot and its compiled MJCF."""

    def __init__(self, robot: RobotModel):
        self.robot, self.model = robot, mujoco.MjModel.from_xml_string(robot.xml)

    def name(self, body: int) -> str:
        return self.model.body(body).name or f"body{body}"

    def below(self, root: int, *, without: int = -1) -> list[int]:
        """Bodies of the tree at ``root``, parents first, the subtree at ``without`` left out."""
        found = [root]
        for body in range(root + 1, self.model.nbody):
            if int(self.model.body_parentid[body]) in found and body != without:
                found.append(body)
        return found


def urdf(robot: RobotModel) -> str:
    """A URDF whose links, joints, inertia, limits and collision shapes are the robot's.

    The world is a link, the table another one that is fixed to it.

    Raises:
        ConfigError: If a body has more than one joint, one that is no hinge, or one away from the body's origin.
    """
    source = _Source(robot)
    root = ET.Element("robot", name=robot.name)
    ET.SubElement(root, "link", name="world")
    root.extend(_table(source, "world"))
    for body in source.below(0)[1:]:
        root.append(_link(source, body))
        root.append(_joint(source, body, source.name(int(source.model.body_parentid[body])), _pose(source, body)))
    return _printed(root)


def pieces(arm: str, hand: str) -> dict[str, str]:
    """File name to text of the xacro of one arm and one hand.

    Raises:
        ConfigError: If no robot of ``configs/robot`` has this arm and hand.
    """
    names = [name for name in robot_names() if arm_and_hand(name) == (arm, hand)]
    if not names:
        there = sorted({arm_and_hand(name) for name in robot_names()})
        raise ConfigError(f"no robot has arm {arm!r} and hand {hand!r}; there are {there}")
    source = _Source(load_robot(names[0]))
    palm, base = source.model.body(source.robot.palm_body).id, int(source.below(0)[1])
    last = source.name(int(source.model.body_parentid[palm]))
    seat = {f"palm_{key}": value for key, value in _pose(source, palm).attrib.items()}
    return {
        f"arm_{arm}.xacro": _macro(source, "palmar_arm", source.below(base, without=palm), {"arm_tip": last}),
        f"hand_{hand}.xacro": _macro(source, "palmar_hand", source.below(palm), seat),
        "table.xacro": _table_macro(source),
        "palmar.urdf.xacro": TOP,
    }


def shipped() -> dict[str, str]:
    """File name to text of the xacro that ``palmar_description`` ships."""
    files: dict[str, str] = {}
    for name in robot_names():
        files |= pieces(*arm_and_hand(name))
    return files


def _macro(source: _Source, name: str, bodies: list[int], properties: dict[str, str]) -> str:
    """A xacro file with one macro: these bodies, the first of them fixed to ``parent`` at ``origin``."""
    root = ET.Element("robot")
    for key, value in properties.items():
        ET.SubElement(root, f"{{{XACRO}}}property", name=key, value=value)
    macro = ET.SubElement(root, f"{{{XACRO}}}macro", name=name, params="parent *origin")
    for body in bodies:
        first = body == bodies[0]
        parent = "${parent}" if first else source.name(int(source.model.body_parentid[body]))
        origin = ET.Element(f"{{{XACRO}}}insert_block", name="origin") if first else _pose(source, body)
        macro.append(_link(source, body))
        macro.append(_joint(source, body, parent, origin))
    return _printed(root)


def _table_macro(source: _Source) -> str:
    root = ET.Element("robot")
    macro = ET.SubElement(root, f"{{{XACRO}}}macro", name="palmar_table", params="parent")
    macro.extend(_table(source, "${parent}"))
    return _printed(root)


def _table(source: _Source, parent: str) -> list[ET.Element]:
    """The world's own shapes as a link ``table``."""
    link = ET.Element("link", name="table")
    for geom in np.flatnonzero(source.model.geom_bodyid == 0):
        _geometry(link, source.model, int(geom))
    joint = ET.Element("joint", name="table_fixed", type="fixed")
    joint.append(_origin(np.zeros(3), np.array([1.0, 0, 0, 0])))
    ET.SubElement(joint, "parent", link=parent)
    ET.SubElement(joint, "child", link="table")
    return [link, joint]


def _link(source: _Source, body: int) -> ET.Element:
    """The link of a body: mass, inertia tensor about the centre of mass in the link's axes, shapes."""
    model = source.model
    link = ET.Element("link", name=source.name(body))
    if model.body_mass[body] > 0:
        inertial = ET.SubElement(link, "inertial")
        inertial.append(_origin(model.body_ipos[body], np.array([1.0, 0, 0, 0])))
        ET.SubElement(inertial, "mass", value=_text([model.body_mass[body]]))
        turn = _matrix(model.body_iquat[body])
        full = turn @ np.diag(model.body_inertia[body]) @ turn.T
        entries = {"ixx": (0, 0), "ixy": (0, 1), "ixz": (0, 2), "iyy": (1, 1), "iyz": (1, 2), "izz": (2, 2)}
        ET.SubElement(inertial, "inertia", {key: _text([full[at]]) for key, at in entries.items()})
    for geom in np.flatnonzero(model.geom_bodyid == body):
        _geometry(link, model, int(geom))
    return link


def _joint(source: _Source, body: int, parent: str, origin: ET.Element) -> ET.Element:
    """The joint between a body and its parent; a body without joint is fixed."""
    model, robot = source.model, source.robot
    count, first = int(model.body_jntnum[body]), int(model.body_jntadr[body])
    if count > 1:
        raise ConfigError(f"body {source.name(body)} has {count} joints, a URDF link has at most one")
    name = model.joint(first).name if count else f"{source.name(body)}_fixed"
    joint = ET.Element("joint", name=name, type="revolute" if count else "fixed")
    joint.append(origin)
    ET.SubElement(joint, "parent", link=parent)
    ET.SubElement(joint, "child", link=source.name(body))
    if not count:
        return joint
    if model.jnt_type[first] != mujoco.mjtJoint.mjJNT_HINGE:
        raise ConfigError(f"joint {name} is of MuJoCo's type {int(model.jnt_type[first])}, accepted: hinge (3)")
    if np.any(np.abs(model.jnt_pos[first]) > 1e-9):
        raise ConfigError(f"joint {name} is {model.jnt_pos[first]} away from its body's origin: not in a URDF")
    k, limits, dof = robot.joints.index(name), robot.limits, int(model.jnt_dofadr[first])
    ET.SubElement(joint, "axis", xyz=_text(model.jnt_axis[first]))
    ends = {"lower": limits.q_min, "upper": limits.q_max, "velocity": limits.v_max, "effort": limits.tau_max}
    ET.SubElement(joint, "limit", {key: _text([value[k]]) for key, value in ends.items()})
    rubs = {"damping": model.dof_damping, "friction": model.dof_frictionloss}
    ET.SubElement(joint, "dynamics", {key: _text([value[dof]]) for key, value in rubs.items()})
    return joint


def _geometry(link: ET.Element, model: mujoco.MjModel, geom: int) -> None:
    """A geom as shapes of the link; a capsule is a cylinder with a sphere at each end."""
    kinds = mujoco.mjtGeom
    kind, size = kinds(int(model.geom_type[geom])), model.geom_size[geom]
    pos, quat = model.geom_pos[geom], model.geom_quat[geom]
    hit = bool(model.geom_contype[geom] or model.geom_conaffinity[geom])
    at = ("collision", None) if hit else ("visual", _colour(model, geom))
    radius, length = _text([size[0]]), _text([2 * size[1]])
    if kind == kinds.mjGEOM_BOX:
        _shape(link, at, pos, quat, "box", size=_text(2 * size))
    elif kind == kinds.mjGEOM_SPHERE:
        _shape(link, at, pos, quat, "sphere", radius=radius)
    elif kind in (kinds.mjGEOM_CYLINDER, kinds.mjGEOM_CAPSULE):
        _shape(link, at, pos, quat, "cylinder", radius=radius, length=length)
    if kind == kinds.mjGEOM_CAPSULE:
        for sign in (1, -1):
            end = pos + sign * size[1] * _matrix(quat)[:, 2]
            _shape(link, at, end, np.array([1.0, 0, 0, 0]), "sphere", radius=radius)


def _shape(
    link: ET.Element, at: tuple[str, tuple[str, str] | None], pos: Array, quat: Array, kind: str, **size: str
) -> None:
    tag, colour = at
    element = ET.SubElement(link, tag)
    element.append(_origin(pos, quat))
    ET.SubElement(ET.SubElement(element, "geometry"), kind, size)
    if colour is not None:
        ET.SubElement(ET.SubElement(element, "material", name=colour[0]), "color", rgba=colour[1])


def _colour(model: mujoco.MjModel, geom: int) -> tuple[str, str]:
    """Name and red, green, blue, alpha of a geom's looks."""
    material = int(model.geom_matid[geom])
    rgba = model.mat_rgba[material] if material >= 0 else model.geom_rgba[geom]
    values = [round(float(x), 3) for x in rgba]
    return "rgba_" + "_".join(f"{round(100 * x):02d}" for x in values), _text(values)


def _pose(source: _Source, body: int) -> ET.Element:
    return _origin(source.model.body_pos[body], source.model.body_quat[body])


def _origin(pos: Array, quat: Array) -> ET.Element:
    """Position [m] and fixed-axis roll, pitch, yaw [rad] of a unit quaternion w-x-y-z."""
    m = _matrix(quat)
    # Near pitch 90 degrees yaw alone is ill-conditioned; a roll from what yaw leaves makes their product exact.
    pitch, yaw = np.arctan2(-m[2, 0], np.hypot(m[0, 0], m[1, 0])), np.arctan2(m[1, 0], m[0, 0])
    s, c = np.sin(yaw), np.cos(yaw)
    roll = np.arctan2(s * m[0, 2] - c * m[1, 2], c * m[1, 1] - s * m[0, 1])
    return ET.Element("origin", xyz=_text(pos), rpy=_text((roll, pitch, yaw)))


def _matrix(quat: Array) -> Array:
    out = np.zeros(9)
    mujoco.mju_quat2Mat(out, np.asarray(quat, np.float64))
    return out.reshape(3, 3)


def _text(values: Iterable[float]) -> str:
    return " ".join(f"{float(v) + 0.0:.15g}" for v in values)


def _printed(root: ET.Element) -> str:
    ET.indent(root)
    return '<?xml version="1.0"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def main(argv: list[str] | None = None) -> int:
    """Print the URDF of a robot, or write the xacro that ``palmar_description`` ships."""
    parser = argparse.ArgumentParser(prog="palmar.sim.urdf", description=main.__doc__)
    parser.add_argument("robot", nargs="?", default="fr3_leap", help=f"{', '.join(robot_names())}, or a robot's YAML")
    parser.add_argument("--write", type=Path, metavar="DIR", help="write the xacro of every arm and hand here")
    args = parser.parse_args(argv)
    if args.write is None:
        sys.stdout.write(urdf(load_robot(args.robot)))
        return 0
    args.write.mkdir(parents=True, exist_ok=True)
    for name, text in shipped().items():
        (args.write / name).write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
