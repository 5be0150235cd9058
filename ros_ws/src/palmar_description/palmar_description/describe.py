"""URDF of a Palmar robot, generated from its one model: kinematics, limits and capsules, no meshes."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET

import mujoco
import numpy as np

from palmar.safety.robot import RobotModel


def urdf(robot: RobotModel) -> str:
    """A URDF whose joints have the robot's names, order, axes and limits.

    Every body of the MJCF becomes a link.  Geometry: capsules as cylinders and spheres, boxes, cylinders.
    A URDF joint's frame is its child link's, so an MJCF joint away from its body's origin is refused.
    """
    model = mujoco.MjModel.from_xml_string(robot.xml)
    root = ET.Element("robot", name=robot.name)
    for body in range(model.nbody):
        link = ET.SubElement(root, "link", name=model.body(body).name or f"body{body}")
        for geom in np.flatnonzero(model.geom_bodyid == body):
            _geometry(link, model, int(geom))
        if body:
            _joint(root, model, robot, body)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode")


def _joint(root: ET.Element, model: mujoco.MjModel, robot: RobotModel, body: int) -> None:
    b = model.body(body)
    count = int(b.jntnum[0])
    if count > 1:
        raise ValueError(f"body {b.name} has {count} joints, a URDF link has at most one")
    joint = model.joint(int(b.jntadr[0])) if count else None
    name = joint.name if joint is not None else f"{b.name}_fixed"
    element = ET.SubElement(root, "joint", name=name, type="revolute" if joint is not None else "fixed")
    _origin(element, b.pos, b.quat)
    ET.SubElement(element, "parent", link=model.body(int(b.parentid[0])).name)
    ET.SubElement(element, "child", link=b.name)
    if joint is None:
        return
    if np.any(np.abs(joint.pos) > 1e-9):
        raise ValueError(f"joint {name} is {joint.pos} away from its body's origin, which a URDF cannot say")
    ET.SubElement(element, "axis", xyz=_text(joint.axis))
    k, limits = robot.joints.index(name), robot.limits
    ET.SubElement(
        element,
        "limit",
        lower=f"{limits.q_min[k]:.9g}",
        upper=f"{limits.q_max[k]:.9g}",
        velocity=f"{limits.v_max[k]:.9g}",
        effort=f"{limits.tau_max[k]:.9g}",
    )


def _geometry(link: ET.Element, model: mujoco.MjModel, geom: int) -> None:
    kinds = mujoco.mjtGeom
    kind, size = model.geom_type[geom], model.geom_size[geom]
    pos, quat = model.geom_pos[geom], model.geom_quat[geom]
    tag = "collision" if model.geom_contype[geom] or model.geom_conaffinity[geom] else "visual"
    if kind == kinds.mjGEOM_BOX:
        _shape(link, tag, pos, quat, "box", size=_text(2 * size))
    elif kind == kinds.mjGEOM_SPHERE:
        _shape(link, tag, pos, quat, "sphere", radius=f"{size[0]:.9g}")
    elif kind in (kinds.mjGEOM_CYLINDER, kinds.mjGEOM_CAPSULE):
        _shape(link, tag, pos, quat, "cylinder", radius=f"{size[0]:.9g}", length=f"{2 * size[1]:.9g}")
    if kind == kinds.mjGEOM_CAPSULE:
        axis = np.zeros(3)
        mujoco.mju_rotVecQuat(axis, np.array([0.0, 0.0, size[1]]), quat)
        for sign in (1, -1):
            _shape(link, tag, pos + sign * axis, quat, "sphere", radius=f"{size[0]:.9g}")


def _shape(link: ET.Element, tag: str, pos: np.ndarray, quat: np.ndarray, shape: str, **size: str) -> None:
    element = ET.SubElement(link, tag)
    _origin(element, pos, quat)
    ET.SubElement(ET.SubElement(element, "geometry"), shape, **size)


def _origin(element: ET.Element, pos: np.ndarray, quat: np.ndarray) -> None:
    w, x, y, z = quat
    roll = np.arctan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y))
    pitch = np.arcsin(np.clip(2 * (w * y - z * x), -1, 1))
    yaw = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
    ET.SubElement(element, "origin", xyz=_text(pos), rpy=_text((roll, pitch, yaw)))


def _text(values: np.ndarray | tuple) -> str:
    return " ".join(f"{v:.9g}" for v in values)


def main() -> int:
    """Write the URDF of the robot named by the first argument to the standard output."""
    from palmar.sim.robots import load_robot

    sys.stdout.write(urdf(load_robot(sys.argv[1] if len(sys.argv) > 1 else "fr3_leap")) + "\n")
    return 0
