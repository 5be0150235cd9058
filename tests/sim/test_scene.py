"""The tabletop scene: it composes, starts free of contact, and its force sensors read newtons."""

from pathlib import Path

import mujoco
import numpy as np
import pytest

from palmar.safety.types import ConfigError
from palmar.sim.menagerie import reference_robot_spec
from palmar.sim.scene import (
    GRASP,
    HOME,
    JOINTS,
    TIPS,
    Block,
    add_blocks,
    add_contact_sensors,
    compose,
    robot_spec,
)

# A pinch where only the tips touch a 5 cm block: found like GRASP, kept here so that GRASP may change.
PINCH_ARM = (0.0972, 0.1787, -0.2716, -2.1094, 0.7153, 1.8373, 0.5014)
PINCH_OPEN = (-0.309, 0.416, 0.257, 2.037, -0.309, 0.541, 0.847, 1.615)
PINCH_OPEN += (2.225, -0.27, 0.776, 0.563, 1.27, -0.016, 0.497, 0.465)
PINCH_CLOSE = (-0.309, 0.398, 1.392, 1.278, -0.139, 0.875, 1.782, 0.533)
PINCH_CLOSE += (2.225, -0.27, 0.776, 0.563, 1.385, 0.002, 1.145, -0.015)
PINCH_YAW = 1.571

REFERENCE = Path(__file__).resolve().parents[3] / "shared" / "assets"
BLOCK = Block("red")


def at(model, pose):
    data = mujoco.MjData(model)
    for name, q in pose.items():
        data.joint(name).qpos = q
        data.actuator(name).ctrl = q
    mujoco.mj_forward(model, data)
    return data


def touching(model, data):
    return [{model.geom(c.geom1).name, model.geom(c.geom2).name} for c in data.contact]


def reference_model():
    if not REFERENCE.is_dir():
        pytest.skip("reference models are not in the repository")
    spec = reference_robot_spec(REFERENCE)
    add_blocks(spec, [BLOCK])
    add_contact_sensors(spec)
    return spec.compile()


def test_xml_reproduces_the_model():
    model, xml = compose([BLOCK, Block("green", shape="cylinder")])
    again = mujoco.MjModel.from_xml_string(xml)
    assert xml == compose([BLOCK, Block("green", shape="cylinder")])[1]
    for field in ("body_mass", "jnt_range", "geom_size", "geom_contype", "actuator_gainprm", "sensor_intprm"):
        assert np.allclose(getattr(model, field), getattr(again, field), atol=1e-6), field


def test_home_names_every_joint_inside_its_range():
    model, _ = compose()
    assert tuple(HOME) == JOINTS == tuple(model.actuator(k).name for k in range(model.nu))
    for pose in (HOME, GRASP.open, GRASP.close):
        for name, q in pose.items():
            lower, upper = model.joint(name).range
            assert lower <= q <= upper, name


def test_home_touches_nothing_and_stays():
    model, _ = compose()
    data = at(model, HOME)
    assert data.ncon == 0
    mujoco.mj_step(model, data, 200)
    assert data.ncon == 0
    assert max(abs(data.joint(name).qpos[0] - q) for name, q in HOME.items()) < 1e-3


def test_home_in_the_reference_touches_only_the_resting_block():
    model = reference_model()
    assert all("red_geom" in pair and "table" in pair for pair in touching(model, at(model, HOME)))


@pytest.mark.parametrize("fingers", [GRASP.open, GRASP.close], ids=["open", "close"])
def test_fingers_in_the_grasp_stay_apart_from_the_middle_phalanx_on(fingers):
    """Finger roots are left out: their capsules overreach (middle phalanx on ring root: 3 mm when closed)."""
    model = robot_spec().compile()
    data = at(model, HOME | fingers)
    names = [model.geom(g).name for g in range(model.ngeom) if model.geom_group[g] == 3]
    outer = [n for n in names if any(part in n for part in ("_md", "_ds", "_tip", "th_px"))]
    for k, a in enumerate(outer):
        for b in outer[:k]:
            if a[:2] != b[:2]:
                pair = model.geom(a).id, model.geom(b).id
                assert mujoco.mj_geomDistance(model, data, *pair, 0.02, np.zeros(6)) > 0.004, (a, b)


def test_only_the_listed_pairs_collide():
    model, _ = compose([BLOCK, Block("blue")])

    def collide(a, b):
        a, b = model.geom(a).id, model.geom(b).id
        ca, cb = model.geom_contype[[a, b]]
        aa, ab = model.geom_conaffinity[[a, b]]
        return bool(ca & ab or cb & aa)

    for pair in (
        ("if_md_c0", "table"),
        ("if_tip", "table"),
        ("fr3_link5_c0", "red_geom"),
        ("if_tip", "red_geom"),
        ("red_geom", "blue_geom"),
        ("red_geom", "table"),
        ("if_tip", "th_tip"),
    ):
        assert collide(*pair), pair
    for pair in (("if_md_c0", "mf_md_c0"), ("if_tip", "mf_md_c0"), ("fr3_link5_c0", "palm_c0")):
        assert not collide(*pair), pair


def test_held_block_hangs_on_the_tips_by_its_weight():
    model, _ = compose([BLOCK])
    start, end = np.array(PINCH_ARM + PINCH_OPEN), np.array(PINCH_ARM + PINCH_CLOSE)
    data = at(model, dict(zip(JOINTS, start, strict=True)))
    pose = [0.5, 0, 0.145, np.cos(PINCH_YAW / 2), 0, 0, np.sin(PINCH_YAW / 2)]
    for k in range(160):
        data.ctrl = start + min(k / 120, 1.0) * (end - start)
        data.joint("red_free").qpos, data.joint("red_free").qvel = pose, 0.0
        mujoco.mj_step(model, data)
    mujoco.mj_step(model, data, 400)
    assert data.body("red").xpos[2] > 0.12
    on_tips = sum(data.sensor(f"force_{tip}").data for tip in TIPS)
    tips = {model.geom(tip).id for tip in TIPS}
    by_tips, by_all = forces_on(model, data, model.geom("red_geom").id, tips)
    assert on_tips == pytest.approx(by_tips, abs=1e-6) and np.linalg.norm(by_tips) > 0.5
    assert by_all == pytest.approx([0, 0, BLOCK.mass * 9.81], abs=0.05 * BLOCK.mass * 9.81)


def forces_on(model, data, geom, tips):
    """World-frame contact force on a geom: that of the tips, and of everything."""
    by_tips, by_all, local = np.zeros(3), np.zeros(3), np.zeros(6)
    for k in range(data.ncon):
        contact = data.contact[k]
        if geom in contact.geom:
            mujoco.mj_contactForce(model, data, k, local)
            force = contact.frame.reshape(3, 3).T @ local[:3] * (1 if contact.geom[1] == geom else -1)
            by_all += force
            by_tips += force * bool(tips & set(contact.geom))
    return by_tips, by_all


@pytest.mark.parametrize("make", [lambda: compose()[0], reference_model], ids=["ours", "reference"])
def test_pressing_the_table_reads_the_contact_force_downwards(make):
    model = make()
    pose = HOME | {"fr3_joint2": HOME["fr3_joint2"] + 0.4}
    data = at(model, HOME)
    for name, q in pose.items():
        data.actuator(name).ctrl = q
    for _ in range(600):
        mujoco.mj_step(model, data)
        if data.sensor("force_robot_table").data[2] < -5:
            break
    tips = sum(data.sensor(f"force_{tip}").data for tip in TIPS)
    table = data.sensor("force_robot_table").data
    assert table[2] < -5
    assert table == pytest.approx(summed_contact_force(model, data, "table"), rel=0.05, abs=0.01)
    assert np.linalg.norm(tips) <= np.linalg.norm(table) * 1.05


def summed_contact_force(model, data, geom):
    """World-frame force that everything but the block exerts on geom [N], from the contacts."""
    total, wrench = np.zeros(3), np.zeros(6)
    for k, contact in enumerate(data.contact):
        names = [model.geom(g).name for g in contact.geom]
        if geom not in names or "red_geom" in names:
            continue
        mujoco.mj_contactForce(model, data, k, wrench)
        force = contact.frame.reshape(3, 3).T @ wrench[:3]
        total += force if names[1] == geom else -force
    return total


def test_bad_blocks_and_unknown_robots_are_refused():
    with pytest.raises(ConfigError, match="shape"):
        Block("x", shape="cone")
    with pytest.raises(ConfigError, match="positive"):
        Block("x", mass=0.0)
    with pytest.raises(ConfigError, match="hand"):
        robot_spec(hand="shadow")
    with pytest.raises(ConfigError, match="nowhere"):
        reference_robot_spec(Path("nowhere"))
