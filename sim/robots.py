"""Robots by name: limits of a YAML file joined with an MJCF, of ``assets`` or of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import yaml

from palmar.safety.robot import Limits, RobotModel
from palmar.safety.types import ConfigError
from palmar.sim import scene
from palmar.sim.mjcf import GROUP, capsules_only

FOLDER = Path(str(files("palmar.configs"))) / "robot"

NO_CURVE = {"curve_offset": 0.0, "curve_two_a": np.inf, "curve_q_up": 1e9, "curve_q_low": -1e9}
"""Limits of a joint whose speed limit does not depend on its position."""
TOUCHING = 0.001
"""Capsules closer than this at home overlap by design [m]."""


NEEDED = {"name", "n_arm", "arm_limits", "hand_limits", "palm_body", "tip_geoms"}
OPTIONAL = {"joints", "home", "may_touch"}
PARTS = {"arm", "hand"}
"""Keys of a robot of ``assets``; a robot of one's own has ``mjcf`` in their place."""


@dataclass(frozen=True)
class _Body:
    """What a robot's MJCF says of it."""

    model: mujoco.MjModel
    xml: str
    rest: Mapping[str, float]
    """A position for each joint that has one at rest [rad]."""


def robot_names() -> tuple[str, ...]:
    """Names that ``load_robot`` accepts."""
    return tuple(sorted(p.stem for p in FOLDER.glob("*.yaml")))


def load_robot(name: str = "fr3_leap") -> RobotModel:
    """The robot of ``configs/robot/<name>.yaml``; a name that ends in ``.yaml`` is a file of one's own.

    Both kinds of file are explained in docs/add_a_robot.md.

    Raises:
        ConfigError: If there is none, a key is missing or unknown, or its YAML and its MJCF disagree.
    """
    raw, path = _read(name)
    body = _own(path, raw["mjcf"]) if "mjcf" in raw else _of_parts(raw)
    model, there = body.model, [body.model.joint(k).name for k in range(body.model.njnt)]
    joints = tuple(raw.get("joints", there))
    home = raw.get("home", [body.rest.get(j) for j in joints])
    if set(joints) != set(there) or len(home) != len(joints) or None in home:
        raise ConfigError(f"{path}: need the joints {there} and a home of each, in the YAML or as keyframe `home`")
    missing = [j for j in joints if j not in {model.actuator(k).name for k in range(model.nu)}]
    if missing:
        raise ConfigError(f"{path}: joints {missing} have no actuator of their name")
    geoms, home = _collision_geoms(model), np.array(home, dtype=np.float64)
    leap = raw.get("hand") == "leap"
    return RobotModel(
        name=raw["name"],
        joints=joints,
        n_arm=int(raw["n_arm"]),
        limits=limits_of(model, joints, raw),
        xml=body.xml,
        palm_body=raw["palm_body"],
        tip_geoms=tuple(raw["tip_geoms"]),
        pairs=_leap_pairs(model, raw["arm"]) if leap else self_pairs(model, geoms, joints, home, raw),
        table_geoms=table_geoms(model, geoms),
        home=home,
    )


def arm_and_hand(name: str) -> tuple[str, str]:
    """Arm and hand of ``assets`` that a robot of ``configs/robot`` is made of.

    Raises:
        ConfigError: If there is no such robot, or its file names no arm and hand.
    """
    raw, path = _read(name)
    if "mjcf" in raw:
        raise ConfigError(f"{path}: scenes are made of an arm and a hand of assets/, this robot is one MJCF")
    return raw["arm"], raw["hand"]


def scene_of(robot: RobotModel, furnish: scene.Furnish | None = None) -> mujoco.MjModel:
    """The compiled scene of a robot, with what a task's ``furnish`` adds.

    Raises:
        ConfigError: See ``arm_and_hand``.
    """
    arm, hand = arm_and_hand(robot.name)
    return scene.compose(arm=arm, hand=hand, furnish=furnish)[0]


def _read(name: str) -> tuple[dict[str, Any], Path]:
    """A robot's YAML, its keys checked, and where it lies."""
    path = Path(name) if name.endswith(".yaml") else FOLDER / f"{name}.yaml"
    if path.parent == FOLDER and not path.is_file():
        raise ConfigError(f"no robot {name!r}; configs/robot has {list(robot_names())}")
    raw = yaml.safe_load(path.read_text())
    got = set(raw) if isinstance(raw, dict) else set()
    if got - OPTIONAL not in (NEEDED | PARTS, NEEDED | {"mjcf"}):
        accepted = f"{sorted(NEEDED)}, `arm` and `hand` or `mjcf`, and perhaps {sorted(OPTIONAL)}"
        raise ConfigError(f"{path}: accepted keys {accepted}, got {sorted(got) or raw}")
    return raw, path


def _own(path: Path, mjcf: str) -> _Body:
    """Any MJCF of an arm with its hand, beside the YAML."""
    spec, keyframe = capsules_only(path.parent / mjcf, within=path.parent)
    model = spec.compile()
    at = (
        {} if keyframe is None else {j.name: float(keyframe[j.qposadr[0]]) for j in map(model.joint, range(model.njnt))}
    )
    return _Body(model, spec.to_xml(), at)


def _of_parts(raw: dict[str, Any]) -> _Body:
    """An arm and a hand of ``assets`` on the table."""
    if wrong := sorted(set(raw["tip_geoms"]) - set(scene.TIPS)):
        raise ConfigError(f"fingertips on an arm of assets/ are called {list(scene.TIPS)}, got {wrong}")
    try:
        xml = scene.robot_xml(raw["arm"], raw["hand"])
    except ValueError as error:
        raise ConfigError(f"{raw['arm']} with {raw['hand']}: {error}") from error
    model = mujoco.MjModel.from_xml_string(xml)
    fit, table = _collision_geoms(model), model.geom(scene.TABLE).id
    hit = np.flatnonzero(model.geom_contype | model.geom_conaffinity)
    wrong = [model.geom(g).name or f"of {model.body(model.geom_bodyid[g]).name}, nameless" for g in hit
             if g != table and not (g in fit and model.geom(g).name)]  # fmt: skip
    if wrong:
        raise ConfigError(f"geoms that collide must be capsules or spheres of group {GROUP} with names, got {wrong}")
    return _Body(model, xml, scene.HOME)


def limits_of(model: mujoco.MjModel, joints: tuple[str, ...], raw: dict) -> Limits:
    """Position and torque limits of the MJCF, the rest of the YAML; without a speed curve where it names none."""
    n_arm, n_hand = raw["n_arm"], len(joints) - raw["n_arm"]
    arm, hand = raw["arm_limits"], raw["hand_limits"]
    rng = np.array([model.joint(j).range for j in joints])
    force = np.array([_strongest(model, j) for j in joints])
    rest = {
        k: np.array([*_each(arm, k, n_arm), *_each(hand, k, n_hand)]) for k in ("v_max", "a_max", "j_max", *NO_CURVE)
    }
    return Limits(q_min=rng[:, 0], q_max=rng[:, 1], tau_max=force, **rest)


def _strongest(model: mujoco.MjModel, joint: str) -> float:
    """Largest torque of a joint [N m]: of its actuator, else of the joint."""
    for limited, (_, most) in (
        (model.actuator(joint).forcelimited[0], model.actuator(joint).forcerange),
        (model.jnt_actfrclimited[model.joint(joint).id], model.jnt_actfrcrange[model.joint(joint).id]),
    ):
        if limited:
            return float(most)
    raise ConfigError(f"joint {joint} has neither an actuator forcerange nor an actuatorfrcrange")


def _each(group: dict, key: str, n: int) -> list[float]:
    """A limit of n joints: a list, or one number for all of them."""
    if key not in group and key not in NO_CURVE:
        raise ConfigError(f"limits have no {key}, got {sorted(group)}")
    value = group.get(key, NO_CURVE.get(key))
    values = value if isinstance(value, list) else [value] * n
    if len(values) != n:
        raise ConfigError(f"{key} has {len(values)} numbers for {n} joints")
    return [float(x) for x in values]


def _collision_geoms(model: mujoco.MjModel) -> list[int]:
    """Collision capsules and spheres of the robot."""
    shapes = (int(mujoco.mjtGeom.mjGEOM_CAPSULE), int(mujoco.mjtGeom.mjGEOM_SPHERE))
    return [g for g in range(model.ngeom) if model.geom_group[g] == GROUP and model.geom_type[g] in shapes]


def table_geoms(model: mujoco.MjModel, geoms: list[int]) -> tuple[str, ...]:
    """Those of ``geoms`` that can move up or down: some joint below them in the chain is not vertical."""
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    rises = np.zeros(model.nbody, dtype=bool)
    for b in range(1, model.nbody):
        first, count = model.body_jntadr[b], model.body_jntnum[b]
        tilted = np.abs(data.xaxis[first : first + count, 2]) < 1.0 - 1e-9
        rises[b] = rises[model.body_parentid[b]] or bool(tilted.any())
    return tuple(model.geom(g).name for g in geoms if rises[model.geom_bodyid[g]])


def self_pairs(
    model: mujoco.MjModel, geoms: list[int], joints: tuple[str, ...], home: np.ndarray, raw: dict
) -> tuple[tuple[str, str], ...]:
    """Pairs of ``geoms`` that may not touch: of bodies that are not neighbours, and apart at home.

    Neighbours share a joint, and so do bodies fixed to each other.  What overlaps at home overlaps by design, for
    the robot starts there; ``may_touch`` of the YAML names the pairs of bodies besides.
    """
    data = mujoco.MjData(model)
    data.qpos[[model.joint(j).qposadr[0] for j in joints]] = home
    mujoco.mj_kinematics(model, data)
    allowed = {frozenset(pair) for pair in raw.get("may_touch", ())}
    out = []
    for i, a in enumerate(geoms):
        for b in geoms[:i]:
            first, second = int(model.geom_bodyid[a]), int(model.geom_bodyid[b])
            if _neighbours(model, first, second) or {model.body(first).name, model.body(second).name} in allowed:
                continue
            if mujoco.mj_geomDistance(model, data, a, b, 2 * TOUCHING, None) >= TOUCHING:
                out.append((model.geom(b).name, model.geom(a).name))
    return tuple(out)


def _neighbours(model: mujoco.MjModel, first: int, second: int) -> bool:
    """Whether two bodies are one rigid piece or share a joint."""
    one, two = model.body_weldid[first], model.body_weldid[second]
    up_one, up_two = (model.body_weldid[model.body_parentid[b]] for b in (one, two))
    return one == two or up_one == two or up_two == one


def _leap_pairs(model: mujoco.MjModel, arm: str) -> tuple[tuple[str, str], ...]:
    """The pairs of a robot with the LEAP hand, chosen by hand; shipped policies are bound to this very list."""
    geoms = _collision_geoms(model)
    out = []
    for i, a in enumerate(geoms):
        for b in geoms[:i]:
            first, second = (model.body(model.geom_bodyid[g]).name for g in (a, b))
            if _apart(first, second, f"{arm}_link"):
                out.append((model.geom(b).name, model.geom(a).name))
    return tuple(out)


def _apart(first: str, second: str, link: str) -> bool:
    """Whether two bodies can collide; neighbours in the chain and a finger with itself cannot."""
    hand_a, hand_b = not first.startswith(link), not second.startswith(link)
    if hand_a and hand_b:
        return _fingers_apart(first, second)
    if hand_a or hand_b:
        return int((second if hand_a else first)[-1]) <= 5
    return abs(int(first[-1]) - int(second[-1])) > 2


def _fingers_apart(first: str, second: str) -> bool:
    """Links of different fingers, one of them from the middle phalanx on (knuckles turn beside each other);
    of the links only the last reaches the palm.
    """
    distal = ("_md", "_ds", "th_px", "th_ds")
    one, two = first.split("_")[0], second.split("_")[0]
    if "palm" in (one, two):
        return first.endswith("_ds") or second.endswith("_ds")
    if one == two:
        return False
    return any(any(body.endswith(d) for d in distal) for body in (first, second))
