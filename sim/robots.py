"""Robots by name: limits of ``configs/robot`` joined with the MJCF of ``assets``."""

from __future__ import annotations

from importlib.resources import files

import mujoco
import numpy as np
import yaml

from palmar.safety.robot import Limits, RobotModel
from palmar.safety.types import ConfigError
from palmar.sim import scene

FINGERS = ("if", "mf", "rf", "th")


def robot_names() -> tuple[str, ...]:
    """Names that ``load_robot`` accepts."""
    return tuple(sorted(p.name.removesuffix(".yaml") for p in (files("palmar.configs") / "robot").iterdir()))


def load_robot(name: str = "fr3_leap") -> RobotModel:
    """The robot called ``name``.

    Raises:
        ConfigError: If there is none, or its YAML and its MJCF disagree.
    """
    if name not in robot_names():
        raise ConfigError(f"no robot {name!r}; there are {list(robot_names())}")
    raw = yaml.safe_load((files("palmar.configs") / "robot" / f"{name}.yaml").read_text())
    xml = scene.robot_xml()
    model = mujoco.MjModel.from_xml_string(xml)
    joints = tuple(raw["joints"])
    if set(joints) != {model.joint(i).name for i in range(model.njnt)}:
        raise ConfigError(f"robot {name}: joints of its YAML and MJCF differ")
    return RobotModel(
        name=name,
        joints=joints,
        n_arm=int(raw["n_arm"]),
        limits=_limits(model, joints, raw),
        xml=xml,
        palm_body=raw["palm_body"],
        tip_geoms=tuple(raw["tip_geoms"]),
        pairs=_self_pairs(model),
        table_geoms=_table_geoms(model),
        home=np.array([scene.HOME[j] for j in joints]),
    )


def _limits(model: mujoco.MjModel, joints: tuple[str, ...], raw: dict) -> Limits:
    """Position and torque limits of the MJCF, the rest of the YAML; the hand has no speed curve."""
    n_arm, n_hand = raw["n_arm"], len(joints) - raw["n_arm"]
    arm, hand = raw["arm_limits"], raw["hand_limits"]
    rng = np.array([model.joint(j).range for j in joints])
    force = np.array([model.actuator(j).forcerange[1] for j in joints])
    no_curve = {"curve_offset": 0.0, "curve_two_a": np.inf, "curve_q_up": 1e9, "curve_q_low": -1e9}
    rest = {
        k: np.array([*arm[k], *([hand.get(k, no_curve.get(k))] * n_hand)])
        for k in ("v_max", "a_max", "j_max", *no_curve)
    }
    assert len(rest["v_max"]) == n_arm + n_hand
    return Limits(q_min=rng[:, 0], q_max=rng[:, 1], tau_max=force, **rest)


def _collision_geoms(model: mujoco.MjModel) -> list[int]:
    """Collision capsules and spheres of the robot (group 3)."""
    shapes = (int(mujoco.mjtGeom.mjGEOM_CAPSULE), int(mujoco.mjtGeom.mjGEOM_SPHERE))
    return [g for g in range(model.ngeom) if model.geom_group[g] == 3 and model.geom_type[g] in shapes]


def _table_geoms(model: mujoco.MjModel) -> tuple[str, ...]:
    """Links that move relative to the table: all but the arm's first two."""
    fixed = {"fr3_link0", "fr3_link1"}
    return tuple(
        model.geom(g).name for g in _collision_geoms(model) if model.body(model.geom_bodyid[g]).name not in fixed
    )


def _self_pairs(model: mujoco.MjModel) -> tuple[tuple[str, str], ...]:
    """Capsule pairs that may not touch: links at least two joints apart whose capsules do not overlap by design."""
    geoms = _collision_geoms(model)
    out = []
    for i, a in enumerate(geoms):
        for b in geoms[:i]:
            if _apart(model, int(model.geom_bodyid[a]), int(model.geom_bodyid[b])):
                out.append((model.geom(b).name, model.geom(a).name))
    return tuple(out)


def _apart(model: mujoco.MjModel, a: int, b: int) -> bool:
    """Whether two bodies can collide; neighbours in the chain and a finger with itself cannot."""
    first, second = model.body(a).name, model.body(b).name
    hand_a, hand_b = not first.startswith("fr3"), not second.startswith("fr3")
    if hand_a and hand_b:
        return _fingers_apart(first, second)
    if hand_a or hand_b:
        arm = second if hand_a else first
        return arm in ("fr3_link0", "fr3_link1", "fr3_link2", "fr3_link3", "fr3_link4", "fr3_link5")
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
