"""docs/add_a_robot.md, followed; and what a robot's own file is refused for."""

import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
import yaml

from palmar.benchmarks.filter import Reading, make_filter
from palmar.safety.constraints import parse
from palmar.safety.types import ConfigError
from palmar.sim import arm_hand, robots
from palmar.sim.env import make_env
from palmar.sim.mjcf import capsules_only, enclosing_capsule
from palmar.sim.robots import load_robot
from palmar.sim.scene import TIPS
from palmar.sim.tasks import find

PAGE = (Path(__file__).parents[2] / "docs" / "add_a_robot.md").read_text()
BLOCKS = {language: re.findall(rf"```{language}\n(.*?)```", PAGE, re.S) for language in ("xml", "yaml", "python")}
(HAND, XML), (PAIR, YAML), (CODE,) = (BLOCKS[language] for language in ("xml", "yaml", "python"))
CELL = (files("palmar.configs") / "constraints" / "arm_hand.yaml").read_text()


@pytest.fixture
def place(tmp_path):
    """Write the page's two files, changed as given; the YAML's path."""

    def write(xml=XML, **changes):
        (tmp_path / "small.xml").write_text(xml)
        raw = yaml.safe_load(YAML) | changes
        path = tmp_path / "small.yaml"
        path.write_text(yaml.safe_dump({k: v for k, v in raw.items() if v is not None}))
        return path

    return write


@pytest.fixture
def pair(tmp_path, monkeypatch):
    """Put the page's hand and its robot, changed as given, beside what is shipped; the robot's name."""
    (tmp_path / "pinch").mkdir()
    (tmp_path / "fr3").symlink_to(arm_hand.ASSETS / "fr3")
    monkeypatch.setattr(arm_hand, "ASSETS", tmp_path)
    monkeypatch.setattr(robots, "FOLDER", tmp_path)

    def write(xml=HAND, **changes):
        (tmp_path / "pinch" / "pinch_right.xml").write_text(xml)
        raw = yaml.safe_load(PAIR) | changes
        (tmp_path / "fr3_pinch.yaml").write_text(yaml.safe_dump(raw))
        return "fr3_pinch"

    return write


def test_a_hand_on_an_arm_of_ours_learns_to_reach(pair):
    robot, found = load_robot(pair()), find.load("reach")
    assert robots.robot_names() == ("fr3_pinch",)
    constraints = parse(CELL, robot.limits)
    env = make_env(found.task(found.config()), robot, constraints, num_envs=2, nthread=1)
    step = env.step(np.zeros((2, env.action_dim)))
    assert np.isfinite(step.obs).all()
    np.testing.assert_array_equal(step.cost, 0.0)
    samples = env.engine.measure()
    np.testing.assert_array_equal(samples.contact_force, 0.0)
    make_filter(robot, constraints).start(Reading(0.0, 0, robot.home, np.zeros(9), np.zeros(9)))


def test_a_hands_servos_have_its_defaults_and_its_palm_is_where_it_says(pair):
    model = mujoco.MjModel.from_xml_string(load_robot(pair()).xml)
    assert model.actuator("th_base").gainprm[0] == 3.0
    assert model.body("palm").pos == pytest.approx([0.0, 0.0, arm_hand.FLANGE + 0.044])
    assert model.body("palm").parentid[0] == model.body("fr3_link7").id


def test_a_tip_that_is_not_there_touches_nothing(pair):
    robot = load_robot(pair())
    at_home = mujoco.MjData(model := robots.scene_of(robot))
    at_home.qpos[: robot.n] = robot.home
    mujoco.mj_kinematics(model, at_home)
    top = float(at_home.geom("th_tip").xpos[2]) - 0.03  # of a table that reaches up to the thumb
    data = mujoco.MjData(
        model := robots.scene_of(robot, lambda spec: setattr(spec.geom("table"), "pos", [0.35, 0, top]))
    )
    data.qpos[: robot.n] = robot.home
    mujoco.mj_forward(model, data)
    assert [np.linalg.norm(data.sensor(f"force_{tip}").data) > 1 for tip in TIPS] == [False, False, False, True]


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ('angle="radian" ', "", "radian"),
        ("</mujoco>", "<equality/></mujoco>", "equality"),
        ('name="palm_c0" ', "", "of palm, nameless"),
        ('<geom type="capsule" group="3"/>', '<geom type="capsule"/>', "group 3"),
        ('name="palm"', 'name="hand"', "palm"),
        ("</actuator>", "", "pinch_right.xml"),
        ('size="0.025"', 'size="0.025" type="blob"', "fr3 with pinch: .*blob"),
        ("</worldbody>", '<body name="wrist"/></worldbody>', r"\['palm', 'wrist'\]"),
        ('<position name="th_base"', '<position name="thumb"', "th_base.*no actuator"),
    ],
)
def test_a_hand_that_would_not_be_itself_on_the_arm_is_refused(pair, old, new, match):
    assert old in HAND
    with pytest.raises(ConfigError, match=match):
        load_robot(pair(HAND.replace(old, new)))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"hand": "claw"}, r"hands \['pinch'\]"),
        ({"tip_geoms": ["if_tip", "pinky_tip"]}, "if_tip.*pinky_tip"),
        ({"home": [0.0]}, "home of each"),
    ],
)
def test_a_pair_that_cannot_be_is_refused(pair, changes, match):
    with pytest.raises(ConfigError, match=match):
        load_robot(pair(**changes))


def test_the_page_is_true(place, monkeypatch, capsys):
    path = place()
    monkeypatch.chdir(path.parent)
    raw = yaml.safe_load(CELL)
    raw["constraints"]["workspace"]["params"] = {"lower": [-0.9, -0.9, 0.05], "upper": [0.9, 0.9, 1.2]}
    Path("cell.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    names: dict[str, Any] = {}
    exec(CODE, names)
    out = capsys.readouterr().out.splitlines()
    assert out[-1].startswith("0 ")
    assert names["count"].worst["joint_position"] < 0.05  # the adversary came close to something
    robot, zero = names["robot"], np.zeros(6)
    at_home = make_filter(robot, names["constraints"])
    at_home.start(Reading(0.0, 0, robot.home, zero, zero))


def test_joints_come_in_the_order_of_the_yaml_with_limits_of_both_files(place):
    robot = load_robot(str(place()))
    assert robot.joints == ("turn", "shoulder", "elbow", "wrist", "left", "right")
    np.testing.assert_array_equal(robot.limits.tau_max, [50, 50, 30, 10, 1, 1])
    np.testing.assert_array_equal(robot.limits.v_max, [2, 2, 2, 3, 5, 5])
    np.testing.assert_array_equal(robot.limits.q_max, [2.5, 1.6, 2.4, 1.8, 1.2, 1.2])
    np.testing.assert_array_equal(robot.home, [0, 0.4, 1.2, 0.6, 0, 0])
    assert np.all(np.isinf(robot.limits.curve_two_a))


def test_pairs_are_of_links_that_share_no_joint_and_are_apart_at_home(place):
    robot = load_robot(str(place()))
    model = mujoco.MjModel.from_xml_string(robot.xml)
    of = {g: model.body(model.geom(g).bodyid[0]).name for pair in robot.pairs for g in pair}
    pairs = {frozenset((of[a], of[b])) for a, b in robot.pairs}
    assert frozenset(("left", "right")) in pairs
    assert frozenset(("base", "palm")) in pairs
    assert not {frozenset(("upper", "lower")), frozenset(("palm", "left")), frozenset(("turret", "upper"))} & pairs
    named = load_robot(str(place(may_touch=[["left", "right"]])))
    model = mujoco.MjModel.from_xml_string(named.xml)
    assert not any(
        {model.body(model.geom(g).bodyid[0]).name for g in pair} == {"left", "right"} for pair in named.pairs
    )


def test_links_that_only_turn_about_the_vertical_need_no_height(place):
    robot = load_robot(str(place()))
    model = mujoco.MjModel.from_xml_string(robot.xml)
    assert {model.body(model.geom(g).bodyid[0]).name for g in robot.table_geoms} == {
        "upper", "lower", "palm", "left", "right"
    }  # fmt: skip


def test_boxes_and_cylinders_become_capsules_that_enclose_them_and_weights_stay(place):
    path = place()
    original = mujoco.MjModel.from_xml_path(str(path.parent / "small.xml"))
    model = mujoco.MjModel.from_xml_string(load_robot(str(path)).xml)
    assert set(model.geom_type) <= {int(mujoco.mjtGeom.mjGEOM_CAPSULE), int(mujoco.mjtGeom.mjGEOM_SPHERE)}
    for b in range(1, original.nbody):
        other = model.body(original.body(b).name)
        assert other.mass == pytest.approx(original.body(b).mass, rel=1e-5)
        assert other.inertia == pytest.approx(original.body(b).inertia, rel=1e-4)
        assert other.ipos == pytest.approx(original.body(b).ipos, abs=1e-6)
    g = next(g for g in range(model.ngeom) if model.body(model.geom_bodyid[g]).name == "lower")
    corners = np.array([[x, y, z] for x in (-0.03, 0.03) for y in (-0.03, 0.03) for z in (0.05, 0.25)])
    axis = np.zeros(3)
    mujoco.mju_rotVecQuat(axis, np.array([0, 0, model.geom_size[g, 1]]), model.geom_quat[g])
    t = np.clip((corners - model.geom_pos[g]) @ axis / (axis @ axis), -1, 1)
    off = np.linalg.norm(corners - model.geom_pos[g] - t[:, None] * axis, axis=1) - model.geom_size[g, 0]
    assert off.max() < 1e-5
    assert off.max() > -0.005  # and not much larger


def test_a_mesh_needs_no_file_once_loaded(place):
    mesh = '<asset><mesh name="m" vertex="-.03 -.03 0  .03 -.03 0  0 .04 0  0 0 .2"/></asset><worldbody>'
    box = '<geom type="box" size="0.03 0.03 0.1" pos="0 0 0.15" mass="1"/>'
    visual = '<geom type="mesh" mesh="m" contype="0" conaffinity="0"/>'
    xml = XML.replace("<worldbody>", mesh, 1).replace(box, '<geom type="mesh" mesh="m"/>' + visual)
    spec, _ = capsules_only(place(xml).parent / "small.xml")
    text = spec.to_xml()
    assert "mesh" not in text
    assert sum(geom.parent.name == "lower" for geom in spec.geoms) == 1


@pytest.mark.parametrize("seed", range(20))
def test_an_enclosing_capsule_contains_every_point(seed):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(30, 3)) * rng.uniform(0.01, 0.2, 3)
    a, b, radius = enclosing_capsule(points)
    t = np.clip((points - a) @ (b - a) / max((b - a) @ (b - a), 1e-18), 0, 1)
    assert (np.linalg.norm(points - a - t[:, None] * (b - a), axis=1) - radius).max() < 1e-12


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"colour": "red"}, "accepted keys"),
        ({"palm_body": None}, "accepted keys"),
        ({"joints": ["turn"]}, "need the joints"),
        ({"home": [0.0]}, "home of each"),
        ({"arm_limits": {"v_max": [1.0], "a_max": 8.0, "j_max": 4e3}}, "v_max has 1 numbers for 4"),
        ({"hand_limits": {"v_max": 5.0, "a_max": 80.0}}, "no j_max"),
        ({"mjcf": "other.xml"}, r"other\.xml"),
    ],
)
def test_a_file_that_cannot_be_is_refused(place, changes, match):
    with pytest.raises(ConfigError, match=match):
        load_robot(str(place(**changes)))


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ('axis="0 0 1" range="-2.5 2.5"', 'type="slide" axis="0 0 1" range="0 1"', "hinge"),
        (' forcerange="-50 50"/>\n    <position joint="elbow"', '/>\n    <position joint="elbow"', "forcerange"),
        ('    <position joint="wrist" forcerange="-10 10"/>\n', "", "no actuator"),
    ],
)
def test_an_mjcf_that_lacks_something_is_refused(place, old, new, match):
    assert old in XML
    with pytest.raises(ConfigError, match=match):
        load_robot(str(place(XML.replace(old, new))))


@pytest.mark.parametrize(
    "asset",
    [
        '<asset><mesh name="m" file="../secret.stl"/></asset>',
        '<asset><mesh name="m" file="/etc/hostname"/></asset>',
        '<asset><texture name="t" type="2d" file="../../picture.png"/></asset>',
        '<compiler meshdir="../elsewhere"/><asset><mesh name="m" file="link.stl"/></asset>',
        '<include file="../other.xml"/>',
    ],
)
def test_files_outside_the_robots_folder_are_refused_before_they_are_opened(place, asset):
    xml = XML.replace("<worldbody>", asset + "<worldbody>", 1)
    with pytest.raises(ConfigError, match="outside"):
        load_robot(str(place(xml)))


def test_an_included_file_may_not_lead_outside_either(place):
    path = place(XML.replace("<worldbody>", '<include file="part.xml"/><worldbody>', 1))
    (path.parent / "part.xml").write_text('<mujoco><asset><mesh name="m" file="../secret.stl"/></asset></mujoco>')
    with pytest.raises(ConfigError, match="outside"):
        load_robot(str(path))
