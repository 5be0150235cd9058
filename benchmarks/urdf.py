"""``palmar bench urdf``: how far a robot's URDF is from its MJCF, through readers that share nothing with the writer.

MuJoCo's own importer of URDF, and Pinocchio where it is installed (``pip install pin``).  Both get the text alone.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

from palmar.safety.robot import RobotModel
from palmar.sim.robots import load_robot, robot_names
from palmar.sim.urdf import urdf

Array = np.ndarray
Progress = Callable[[str], None]
LAWS: tuple[str, ...] = ("position_m", "rotation_rad", "mass_rel", "bias_nm")


@dataclass(frozen=True)
class Seen:
    """What a model says at one state; joints in the robot's order."""

    positions: Array
    """Of the links' frames in the world [m], (links, 3)."""
    rotations: Array
    """Of the links' frames to the world, (links, 3, 3)."""
    mass: Array
    """Mass matrix without armature [kg m2], (n, n)."""
    bias: Array
    """Gravity, centrifugal and Coriolis torques [N m], (n,)."""


class FromMujoco:
    """A model read by MuJoCo, MJCF or URDF."""

    name = "mujoco"

    def __init__(self, xml: str, robot: RobotModel, links: list[str]):
        self.model = mujoco.MjModel.from_xml_string(xml)
        self.data = mujoco.MjData(self.model)
        self.dofs = np.array([self.model.joint(j).dofadr[0] for j in robot.joints])
        self.bodies = [self.model.body(link).id for link in links]

    def look(self, q: Array, qd: Array) -> Seen:
        """Everything at joint positions ``q`` [rad] and velocities ``qd`` [rad/s], both (n,)."""
        model, data = self.model, self.data
        data.qpos[self.dofs], data.qvel[self.dofs] = q, qd
        mujoco.mj_forward(model, data)
        full = np.zeros((model.nv, model.nv))
        mujoco.mj_fullM(model, data, full)
        full -= np.diag(model.dof_armature)
        return Seen(
            data.xpos[self.bodies].copy(),
            data.xmat[self.bodies].reshape(-1, 3, 3).copy(),
            full[np.ix_(self.dofs, self.dofs)],
            data.qfrc_bias[self.dofs].copy(),
        )


class FromPinocchio:
    """A URDF read by Pinocchio."""

    name = "pinocchio"

    def __init__(self, text: str, robot: RobotModel, links: list[str]):
        import pinocchio

        self.pin = pinocchio
        self.model = pinocchio.buildModelFromXML(text)
        self.data = self.model.createData()
        self.dofs = np.array([self.model.joints[self.model.getJointId(j)].idx_v for j in robot.joints])
        self.frames = [self.model.getFrameId(link) for link in links]

    def look(self, q: Array, qd: Array) -> Seen:
        """As ``FromMujoco.look``."""
        pin, model, data = self.pin, self.model, self.data
        q_all, qd_all = np.zeros(model.nq), np.zeros(model.nv)
        q_all[self.dofs], qd_all[self.dofs] = q, qd
        pin.framesForwardKinematics(model, data, q_all)
        mass = np.triu(pin.crba(model, data, q_all))
        mass = mass + np.triu(mass, 1).T
        bias = pin.nonLinearEffects(model, data, q_all, qd_all)
        poses = [data.oMf[frame] for frame in self.frames]
        return Seen(
            np.array([p.translation for p in poses]),
            np.array([p.rotation for p in poses]),
            mass[np.ix_(self.dofs, self.dofs)],
            bias[self.dofs],
        )


def whole(text: str) -> str:
    """The URDF with a word to MuJoCo alone: merge no links and drop no shapes."""
    root = ET.fromstring(text)
    extension = ET.SubElement(root, "mujoco")
    ET.SubElement(extension, "compiler", fusestatic="false", discardvisual="false")
    return ET.tostring(root, encoding="unicode")


def readers() -> list[Callable[[str, RobotModel, list[str]], FromMujoco | FromPinocchio]]:
    """The readers that are here, each from (URDF, robot, links)."""
    there: list[Any] = [lambda text, robot, links: FromMujoco(whole(text), robot, links)]
    try:
        import pinocchio  # noqa: F401
    except ImportError:
        return there
    return [*there, FromPinocchio]


def dynamics(robot: RobotModel, text: str, reader: Any, *, states: int, seed: int = 0) -> dict[str, float]:
    """Worst errors of the URDF ``text`` against the robot's MJCF over random states.

    Returns:
        ``position_m``, ``rotation_rad`` of any link; ``mass_rel``, an entry of the mass matrix over the geometric mean
        of its row's and column's diagonals; ``bias_nm``.
    """
    model = mujoco.MjModel.from_xml_string(robot.xml)
    links = [model.body(b).name for b in range(1, model.nbody)]
    ours, theirs = FromMujoco(robot.xml, robot, links), reader(text, robot, links)
    rng, worst = np.random.default_rng(seed), dict.fromkeys(LAWS, 0.0)
    for _ in range(states):
        q = rng.uniform(robot.limits.q_min, robot.limits.q_max)
        qd = rng.uniform(-robot.limits.v_max, robot.limits.v_max)
        a, b = ours.look(q, qd), theirs.look(q, qd)
        scale = np.sqrt(np.outer(np.diag(a.mass), np.diag(a.mass)))
        found = {
            "position_m": np.linalg.norm(a.positions - b.positions, axis=1).max(),
            "rotation_rad": np.linalg.norm(a.rotations - b.rotations, axis=(1, 2)).max() / np.sqrt(2),
            "mass_rel": (np.abs(a.mass - b.mass) / scale).max(),
            "bias_nm": np.abs(a.bias - b.bias).max(),
        }
        worst = {key: max(worst[key], float(value)) for key, value in found.items()}
    return worst


def limits(robot: RobotModel, text: str) -> float:
    """Largest difference of any limit, damping or friction in the URDF's text from the robot's and the MJCF's."""
    model, wanted = mujoco.MjModel.from_xml_string(robot.xml), robot.limits
    joints = {e.attrib["name"]: e for e in ET.fromstring(text).findall("joint") if e.get("type") == "revolute"}
    if set(joints) != set(robot.joints):
        return np.inf
    off = 0.0
    for k, name in enumerate(robot.joints):
        dof = model.joint(name).dofadr[0]
        ends = {"lower": wanted.q_min, "upper": wanted.q_max, "velocity": wanted.v_max, "effort": wanted.tau_max}
        pairs = [(joints[name].find("limit"), key, value[k]) for key, value in ends.items()]
        rubs = {"damping": model.dof_damping[dof], "friction": model.dof_frictionloss[dof]}
        pairs += [(joints[name].find("dynamics"), key, value) for key, value in rubs.items()]
        for element, key, value in pairs:
            off = max(off, abs(float(element.attrib[key]) - float(value)) if element is not None else np.inf)
    return off


def shapes(robot: RobotModel, text: str, *, states: int, pairs: int, seed: int = 0) -> float:
    """Largest difference of the distance between two links' collision shapes, URDF against MJCF [m].

    Links that are less than a millimetre apart are left out: a capsule's parts overlap, and depths of overlap differ.
    """
    models = [mujoco.MjModel.from_xml_string(x) for x in (robot.xml, whole(text))]
    datas = [mujoco.MjData(m) for m in models]
    names = [models[0].body(b).name for b in range(1, models[0].nbody)]
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(states):
        q = rng.uniform(robot.limits.q_min, robot.limits.q_max)
        for model, data in zip(models, datas, strict=True):
            for name, value in zip(robot.joints, q, strict=True):
                data.joint(name).qpos[0] = value
            mujoco.mj_kinematics(model, data)
        for _ in range(pairs):
            first, second = (names[k] for k in rng.choice(len(names), 2, replace=False))
            a, b = (_apart(m, d, first, second) for m, d in zip(models, datas, strict=True))
            if a > 1e-3:
                worst = max(worst, abs(a - b))
    return worst


def _apart(model: mujoco.MjModel, data: mujoco.MjData, first: str, second: str) -> float:
    """Distance of the collision shapes of two bodies [m]."""
    sides = [_colliding(model, model.body(name).id) for name in (first, second)]
    return min((mujoco.mj_geomDistance(model, data, a, b, 5.0, None) for a in sides[0] for b in sides[1]), default=5.0)


def _colliding(model: mujoco.MjModel, body: int) -> list[int]:
    of_body = np.flatnonzero(model.geom_bodyid == body)
    return [int(g) for g in of_body if model.geom_contype[g] or model.geom_conaffinity[g]]


def run(*, states: int = 500, progress: Progress | None = None) -> dict[str, Any]:
    """A row per robot and reader.

    Args:
        states: Random joint positions and velocities per row.
        progress: Told what is being compared.
    """
    rows = []
    for name in robot_names():
        robot = load_robot(name)
        text = urdf(robot)
        for reader in readers():
            which = getattr(reader, "name", "mujoco")
            (progress or (lambda _: None))(f"{name}: {which}")
            row = {"robot": name, "reader": which, "states": states, **dynamics(robot, text, reader, states=states)}
            rows.append(row | {"limits": limits(robot, text)})
        rows[-1]["clearance_m"] = shapes(robot, text, states=5, pairs=60)
    return {"name": "urdf", "rows": rows}
