"""URDF and xacro against the MJCF they come from, through readers that share nothing with the writer."""

import re
import xml.etree.ElementTree as ET
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from palmar.benchmarks import urdf as bench
from palmar.safety.types import ConfigError
from palmar.sim.robots import arm_and_hand, load_robot, robot_names
from palmar.sim.urdf import main, pieces, shipped, urdf

FOLDER = Path(__file__).resolve().parents[2] / "ros_ws" / "src" / "palmar_description" / "urdf"
load_robot = cache(load_robot)
BUDGET = {"position_m": 1e-9, "rotation_rad": 1e-9, "mass_rel": 1e-9, "bias_nm": 1e-9}


@pytest.mark.parametrize("name", robot_names())
def test_kinematics_inertia_and_bias_forces_are_the_mjcfs_for_every_reader(name):
    robot = load_robot(name)
    text = urdf(robot)
    for reader in bench.readers():
        found = bench.dynamics(robot, text, reader, states=20)
        assert all(found[key] < most for key, most in BUDGET.items()), (reader, found)


@pytest.mark.parametrize("name", robot_names())
def test_limits_damping_and_friction_are_the_robots(name):
    robot = load_robot(name)
    assert bench.limits(robot, urdf(robot)) < 1e-12


@pytest.mark.parametrize("name", ["fr3_leap", "panda_allegro"])
def test_links_are_as_far_apart_as_in_the_mjcf(name):
    robot = load_robot(name)
    assert bench.shapes(robot, urdf(robot), states=2, pairs=40) < 1e-8


@pytest.mark.parametrize(
    ("pattern", "law"),
    [
        (r'(<joint name="fr3_joint4".*?xyz=")([-\d.]+)', "position_m"),
        (r'(<joint name="if_pip".*?rpy=")([-\d.]+)', "rotation_rad"),
        (r'(<link name="fr3_link6">.*?ixx=")([-\d.e]+)', "mass_rel"),
        (r'(<link name="th_ds">.*?<mass value=")([\d.]+)', "bias_nm"),
        (r'(<joint name="rf_dip".*?upper=")([\d.]+)', "limits"),
        (r'(<link name="fr3_link5">.*?<collision>.*?<cylinder radius=")([\d.]+)', "shapes"),
    ],
)
def test_the_laws_see_a_number_that_is_off(pattern, law):
    robot = load_robot("fr3_leap")
    text = urdf(robot)
    wrong = re.sub(pattern, lambda m: f"{m[1]}{float(m[2]) * 1.01 + 1e-3}", text, count=1, flags=re.DOTALL)
    assert wrong != text
    if law == "limits":
        assert bench.limits(robot, wrong) > 1e-4
    elif law == "shapes":
        assert bench.shapes(robot, wrong, states=2, pairs=200) > 1e-5
    else:
        found = bench.dynamics(robot, wrong, bench.readers()[0], states=3)
        assert found[law] > 1e-5, found


def test_the_shipped_xacro_is_the_generated_one():
    files = shipped()
    assert {p.name for p in FOLDER.iterdir()} == set(files)
    for name, text in files.items():
        assert (FOLDER / name).read_text() == text, f"{name}: python -m palmar.sim.urdf --write {FOLDER}"


def test_a_piece_does_not_depend_on_what_it_is_put_together_with():
    assert pieces("fr3", "leap")["arm_fr3.xacro"] == pieces("fr3", "allegro")["arm_fr3.xacro"]
    assert pieces("fr3", "leap")["hand_leap.xacro"] == pieces("panda", "leap")["hand_leap.xacro"]
    with pytest.raises(ConfigError, match="no robot has arm 'ur5'"):
        pieces("ur5", "leap")


def canonical(text):
    """Links and joints by name, each as sorted text, without comments."""
    root = ET.fromstring(text)
    return {(e.tag, e.get("name")): ET.canonicalize(ET.tostring(e), strip_text=True) for e in root}


def expanded(**arguments):
    xacro = pytest.importorskip("xacro", reason="xacro is not installed")
    return xacro.process_file(str(FOLDER / "palmar.urdf.xacro"), mappings=arguments).toxml()


@pytest.mark.parametrize("name", robot_names())
def test_the_xacro_of_arm_and_hand_is_the_robots_urdf(name):
    arm, hand = arm_and_hand(name)
    assert canonical(expanded(arm=arm, hand=hand)) == canonical(urdf(load_robot(name)))


def test_base_mount_and_table_are_arguments():
    plain, moved = canonical(expanded()), canonical(expanded(base_xyz="1 2 3", mount_rpy="0 0 1", table="false"))
    assert {k for k in plain if plain[k] != moved.get(k)} == {
        ("link", "table"),
        ("joint", "table_fixed"),
        ("joint", "fr3_link0_fixed"),
        ("joint", "palm_fixed"),
    }
    assert 'xyz="1 2 3"' in moved["joint", "fr3_link0_fixed"] and 'rpy="0 0 1"' in moved["joint", "palm_fixed"]


def test_a_hand_that_does_not_exist_is_refused_by_name():
    with pytest.raises(Exception, match="hand_shadow.xacro"):
        expanded(hand="shadow")


def test_the_command_prints_a_robot_and_refuses_another(capsys):
    assert main(["fr3_allegro"]) == 0
    assert ET.fromstring(capsys.readouterr().out).get("name") == "fr3_allegro"
    with pytest.raises(ConfigError, match="no robot"):
        main(["fr4"])


def test_what_a_urdf_cannot_say_is_refused():
    from dataclasses import replace

    robot = load_robot("fr3_leap")
    away = robot.xml.replace('<joint name="if_pip"', '<joint name="if_pip" pos="0.01 0 0"')
    assert away != robot.xml
    with pytest.raises(ConfigError, match="away from its body's origin"):
        urdf(replace(robot, xml=away))
    assert np.isfinite(bench.limits(robot, urdf(robot)))
