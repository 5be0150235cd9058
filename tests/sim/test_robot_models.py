"""Our primitive robots against the published kinematics and, where present, the reference models."""

import json
from importlib.resources import files
from pathlib import Path

import mujoco
import numpy as np
import pytest

from palmar.assets.fit_capsules import body_points, outside
from palmar.benchmarks.attack import counted as episode
from palmar.benchmarks.count import Count
from palmar.benchmarks.filter import DT, Reading, make_filter
from palmar.safety.constraints import load
from palmar.safety.types import CONTACT_PAIRS, ConfigError
from palmar.sim.arm_hand import ASSETS
from palmar.sim.menagerie import reference_robot_spec
from palmar.sim.robots import arm_and_hand, load_robot, robot_names
from palmar.sim.scene import ARM_JOINTS, HAND_JOINTS, TIPS, compose, robot_spec

CONSTRAINTS = Path(str(files("palmar.configs"))) / "constraints" / "arm_hand.yaml"
REPO = Path(__file__).resolve().parents[2]
REFERENCE = REPO.parent / "shared" / "assets"
FILES = {
    "fr3": (ASSETS / "fr3" / "fr3.xml", REFERENCE / "franka_fr3_lite" / "fr3.xml"),
    "leap": (ASSETS / "leap" / "leap_right.xml", REFERENCE / "leap_hand_lite" / "right_hand.xml"),
    "allegro": (ASSETS / "allegro" / "allegro_right.xml", REFERENCE / "wonik_allegro" / "right_hand.xml"),
}
ALLEGRO_LINKS = {"bs": "base", "px": "proximal", "md": "medial", "ds": "distal"}
needs_reference = pytest.mark.skipif(not REFERENCE.is_dir(), reason="reference models are not in the repository")

# Modified DH of the FR3: a(i-1) [m], alpha(i-1) [rad], d(i) [m]; franka_description kinematics.yaml.
DH_A = (0, 0, 0, 0.0825, -0.0825, 0, 0.088, 0)
DH_ALPHA = np.deg2rad((0, -90, 90, 90, -90, 90, 90, 0))
DH_D = (0.333, 0, 0.316, 0, 0.384, 0, 0, 0.107)


def dh_flange(q):
    """T_base_flange of joint angles q (7,), written without MuJoCo."""
    T = np.eye(4)
    for a, alpha, d, theta in zip(DH_A, DH_ALPHA, DH_D, [*q, 0.0], strict=True):
        ca, sa, ct, st = np.cos(alpha), np.sin(alpha), np.cos(theta), np.sin(theta)
        T = T @ np.array(
            [[ct, -st, 0, a], [st * ca, ct * ca, -sa, -d * sa], [st * sa, ct * sa, ca, d * ca], [0, 0, 0, 1]]
        )
    return T


def pose(model, q_by_name):
    data = mujoco.MjData(model)
    for name, q in q_by_name.items():
        data.joint(name).qpos = q
    mujoco.mj_kinematics(model, data)
    return data


@pytest.fixture(scope="module")
def ours():
    return robot_spec().compile()


@pytest.fixture(scope="module")
def reference():
    return reference_robot_spec(REFERENCE).compile()


def random_configurations(model, names, n):
    ranges = np.array([model.joint(name).range for name in names])
    return np.random.default_rng(0).uniform(ranges[:, 0], ranges[:, 1], (n, len(names)))


def test_flange_pose_is_the_published_dh_table(ours):
    for q in random_configurations(ours, ARM_JOINTS, 100):
        site = pose(ours, dict(zip(ARM_JOINTS, q, strict=True))).site("flange")
        T = dh_flange(q)
        assert np.abs(site.xpos - T[:3, 3]).max() < 1e-6
        assert np.abs(site.xmat.reshape(3, 3) - T[:3, :3]).max() < 1e-6


@needs_reference
def test_every_link_moves_as_in_the_reference(ours, reference):
    names = ARM_JOINTS + HAND_JOINTS
    bodies = [ours.body(k).name for k in range(1, ours.nbody)]
    for q in random_configurations(ours, names, 20):
        a, b = (pose(m, dict(zip(names, q, strict=True))) for m in (ours, reference))
        for body in bodies:
            assert np.abs(a.body(body).xpos - b.body(body).xpos).max() < 1e-4, body
            assert np.abs(a.body(body).xmat - b.body(body).xmat).max() < 1e-3, body


@needs_reference
def test_masses_and_inertias_are_within_one_percent(ours, reference):
    for k in range(1, ours.nbody):
        body = ours.body(k)
        if body.name == "fr3_link0":  # fixed to the table; the reference has no inertia for it
            continue
        other = reference.body(body.name)
        assert body.mass == pytest.approx(other.mass, rel=0.01)
        assert body.inertia == pytest.approx(other.inertia, rel=0.01)
        assert body.ipos == pytest.approx(other.ipos, abs=1e-4)


def reference_body(robot, name):
    """What Menagerie calls a body of ours; its first finger of the Allegro is our index."""
    finger, _, link = name.partition("_")
    return f"{finger.replace('if', 'ff')}_{ALLEGRO_LINKS[link]}" if robot == "allegro" and link else name


def reference_joint(robot, own, k):
    """What Menagerie calls the k-th joint of one of our models."""
    name = own.joint(k).name
    return f"{name[:2].replace('if', 'ff')}j{k % 4}" if robot == "allegro" else name


@needs_reference
def test_every_link_of_the_allegro_moves_as_in_the_reference():
    own, other = (mujoco.MjModel.from_xml_path(str(path)) for path in FILES["allegro"])
    names = [own.joint(k).name for k in range(own.njnt)]
    for q in random_configurations(own, names, 20):
        a = pose(own, dict(zip(names, q, strict=True)))
        b = pose(other, {reference_joint("allegro", own, k): x for k, x in enumerate(q)})
        turn = a.body("palm").xmat.reshape(3, 3) @ b.body("palm").xmat.reshape(3, 3).T  # Menagerie's palm lies down
        for k in range(1, own.nbody):
            body = own.body(k).name
            there = b.body(reference_body("allegro", body))
            assert np.abs(a.body(body).xpos - turn @ there.xpos).max() < 1e-6, body
            assert np.abs(a.body(body).xmat.reshape(3, 3) - turn @ there.xmat.reshape(3, 3)).max() < 1e-6, body


@needs_reference
def test_the_allegro_weighs_what_the_reference_weighs():
    own, other = (mujoco.MjModel.from_xml_path(str(path)) for path in FILES["allegro"])
    assert own.body_mass.sum() == pytest.approx(other.body_mass.sum(), rel=1e-3)
    distal = other.body("ff_distal").mass + other.body("ff_tip").mass
    assert own.body("if_ds").mass == pytest.approx(distal, rel=1e-3)


def test_the_shipped_robot_is_unchanged():
    contract = json.loads((ASSETS / "bundles" / "lift" / "contract.json").read_text())
    assert load_robot("fr3_leap").hash() == contract["robot"]["hash"]


@pytest.mark.parametrize("name", robot_names())
def test_home_is_inside_every_limit_and_clear_of_the_robot_and_the_table(name):
    robot = load_robot(name)
    constraints = load(CONSTRAINTS, robot.limits)
    margins = Count(robot, constraints)(np.stack([robot.home, robot.home]), DT).worst
    assert np.all((robot.home > robot.limits.q_min + 0.004) & (robot.home < robot.limits.q_max - 0.004))
    assert margins["self_clearance"] > 0.004
    assert margins["table_clearance"] > 0.05
    assert margins["workspace"] > 0.1


@pytest.mark.parametrize("name", robot_names())
def test_every_robot_has_a_scene_with_contact_forces_of_its_tips(name):
    arm, hand = arm_and_hand(name)
    model, _ = compose(arm=arm, hand=hand)
    robot = load_robot(name)
    assert robot.tip_geoms == tuple(tip for tip in TIPS if tip in robot.tip_geoms)
    assert [model.sensor(k).name for k in range(model.nsensor)] == [f"force_{pair}" for pair in CONTACT_PAIRS]
    assert {model.actuator(k).name for k in range(model.nu)} == set(robot.joints)


@pytest.mark.parametrize("name", [n for n in robot_names() if n != "fr3_leap"])
def test_an_adversary_gets_no_other_robot_past_a_limit(name):
    robot = load_robot(name)
    constraints = load(CONSTRAINTS, robot.limits)
    at_home = make_filter(robot, constraints)
    at_home.start(Reading(0.0, 0, robot.home, np.zeros(robot.n), np.zeros(robot.n)))
    count = episode(robot, constraints, make_filter(robot, constraints), 2, 1000)
    assert count.violations == 0, count.worst
    assert count.worst["joint_position"] < 0.01  # it came close to a limit


def test_the_panda_moves_as_the_fr3_and_has_limits_of_its_own():
    fr3, panda = (load_robot(name) for name in ("fr3_leap", "panda_leap"))
    models = [mujoco.MjModel.from_xml_string(r.xml) for r in (fr3, panda)]
    palms = [
        pose(m, dict(zip(r.joints, fr3.home, strict=True))).body("palm").xpos
        for m, r in zip(models, (fr3, panda), strict=True)
    ]
    assert palms[0] == pytest.approx(palms[1], abs=1e-12)
    for limit in ("q_min", "q_max", "v_max", "a_max", "j_max"):
        assert not np.array_equal(getattr(fr3.limits, limit)[:7], getattr(panda.limits, limit)[:7]), limit
    assert np.all(np.isinf(panda.limits.curve_two_a))


def test_an_unknown_robot_is_refused_with_those_there_are():
    with pytest.raises(ConfigError, match="panda_leap"):
        load_robot("fr4_leap")


@needs_reference
@pytest.mark.parametrize("robot", FILES)
def test_joint_ranges_equal_the_reference_or_are_tighter(robot):
    own, other = (mujoco.MjModel.from_xml_path(str(path)) for path in FILES[robot])
    for k in range(own.njnt):
        lower, upper = own.jnt_range[k]
        ref_lower, ref_upper = other.joint(reference_joint(robot, own, k)).range
        assert ref_lower - 1e-9 <= lower < upper <= ref_upper + 1e-9


def test_control_ranges_are_the_joint_ranges_and_forces_are_bounded(ours):
    for k in range(ours.nu):
        actuator = ours.actuator(k)
        assert actuator.ctrlrange == pytest.approx(ours.joint(actuator.name).range)
        limit = 1.0 if actuator.name in HAND_JOINTS else 12.0 if actuator.name[-1] in "567" else 87.0
        assert np.array_equal(actuator.forcerange, [-limit, limit])


def test_only_capsules_can_collide(ours):
    for k in range(ours.ngeom):
        if ours.geom(k).name != "table" and (ours.geom_contype[k] or ours.geom_conaffinity[k]):
            assert ours.geom_type[k] == mujoco.mjtGeom.mjGEOM_CAPSULE
            assert ours.geom(k).name in TIPS or "_c" in ours.geom(k).name


# Largest distance of a reference collision surface point outside our capsules [m]: measured, rounded up.
PROTRUSION = {"fr3": 0.007, "leap": 0.006, "allegro": 0.003}


@needs_reference
@pytest.mark.parametrize("robot", FILES)
def test_reference_geometry_stays_near_our_capsules(robot):
    own, other = (mujoco.MjModel.from_xml_path(str(path)) for path in FILES[robot])
    worst = {}
    for k in range(1, own.nbody):
        geoms = [g for g in range(own.ngeom) if own.geom_bodyid[g] == k and own.geom_group[g] == 3]
        capsules = [own_capsule(own, g) for g in geoms]
        name = own.body(k).name
        worst[name] = outside(body_points(other, reference_body(robot, name)), np.array(capsules)).max()
    print({name: f"{1e3 * value:.1f} mm" for name, value in worst.items()})
    assert max(worst.values()) <= PROTRUSION[robot]


def own_capsule(model, geom):
    """End points and radius (7,) of a capsule geom in its body's frame [m]."""
    axis = np.zeros(3)
    mujoco.mju_rotVecQuat(axis, np.array([0.0, 0, model.geom_size[geom, 1]]), model.geom_quat[geom])
    centre = model.geom_pos[geom]
    return np.r_[centre - axis, centre + axis, model.geom_size[geom, 0]]
