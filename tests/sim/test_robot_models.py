"""Our primitive robots against the published kinematics and, where present, the reference models."""

from pathlib import Path

import mujoco
import numpy as np
import pytest

from palmar.assets.fit_capsules import body_points, outside
from palmar.sim.scene import ARM_JOINTS, ASSETS, HAND_JOINTS, TIPS, reference_robot_spec, robot_spec

REPO = Path(__file__).resolve().parents[2]
REFERENCE = REPO.parent / "shared" / "assets"
FILES = {
    "fr3": (ASSETS / "fr3" / "fr3.xml", REFERENCE / "franka_fr3_lite" / "fr3.xml"),
    "leap": (ASSETS / "leap" / "leap_right.xml", REFERENCE / "leap_hand_lite" / "right_hand.xml"),
}
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


@needs_reference
@pytest.mark.parametrize("robot", FILES)
def test_joint_ranges_equal_the_reference_or_are_tighter(robot):
    own, other = (mujoco.MjModel.from_xml_path(str(path)) for path in FILES[robot])
    for k in range(own.njnt):
        lower, upper = own.jnt_range[k]
        ref_lower, ref_upper = other.joint(own.joint(k).name).range
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
PROTRUSION = {"fr3": 0.007, "leap": 0.006}


@needs_reference
@pytest.mark.parametrize("robot", FILES)
def test_reference_geometry_stays_near_our_capsules(robot):
    own, other = (mujoco.MjModel.from_xml_path(str(path)) for path in FILES[robot])
    worst = {}
    for k in range(1, own.nbody):
        geoms = [g for g in range(own.ngeom) if own.geom_bodyid[g] == k and own.geom_group[g] == 3]
        capsules = [own_capsule(own, g) for g in geoms]
        name = own.body(k).name
        worst[name] = outside(body_points(other, name), np.array(capsules)).max()
    print({name: f"{1e3 * value:.1f} mm" for name, value in worst.items()})
    assert max(worst.values()) <= PROTRUSION[robot]


def own_capsule(model, geom):
    """End points and radius (7,) of a capsule geom in its body's frame [m]."""
    axis = np.zeros(3)
    mujoco.mju_rotVecQuat(axis, np.array([0.0, 0, model.geom_size[geom, 1]]), model.geom_quat[geom])
    centre = model.geom_pos[geom]
    return np.r_[centre - axis, centre + axis, model.geom_size[geom, 0]]
