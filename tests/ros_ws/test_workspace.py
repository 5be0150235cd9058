"""The colcon workspace, as far as it can be checked without a ROS 2 distribution."""

import ast
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import mujoco
import pytest

SRC = Path(__file__).resolve().parents[2] / "ros_ws" / "src"
PACKAGES = ("palmar_description", "palmar_bringup", "palmar_nodes")


def load(path):
    spec = spec_from_file_location(path.stem, path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_says_what_colcon_needs_to_take_it_for_ament_python(name):
    root = ET.parse(SRC / name / "package.xml").getroot()
    assert root.get("format") == "3" and root.findtext("name") == name
    assert root.findtext("export/build_type") == "ament_python"
    # an invalid address silently turns the package into a plain python one
    assert re.fullmatch(r"[\w.+-]+@[\w-]+(\.[\w-]+)+", root.find("maintainer").get("email"))
    assert root.findtext("license") == "Apache-2.0"
    assert (SRC / name / "resource" / name).is_file()
    assert f"script_dir=$base/lib/{name}" in (SRC / name / "setup.cfg").read_text()


@pytest.mark.parametrize("name", PACKAGES)
def test_every_entry_point_exists(name):
    text = (SRC / name / "setup.py").read_text()
    points = re.findall(r'"\w+ = ([\w.]+):(\w+)"', text)
    assert points
    for module, function in points:
        tree = ast.parse((SRC / name / (module.replace(".", "/") + ".py")).read_text())
        assert function in {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}


def test_the_launch_file_compiles_and_starts_only_executables_that_exist():
    path = SRC / "palmar_bringup" / "launch" / "deploy.launch.py"
    source = path.read_text()
    compile(source, str(path), "exec")
    tree = ast.parse(source)
    arguments = next(
        ast.literal_eval(n.value) for n in tree.body if isinstance(n, ast.Assign) and n.targets[0].id == "ARGUMENTS"
    )
    assert set(arguments) >= {"robot", "hardware", "mode", "policy", "instruction", "record"}
    prepare = load(SRC / "palmar_bringup" / "palmar_bringup" / "prepare.py")
    executables = set(re.findall(r'"(\w+) = ', (SRC / "palmar_nodes" / "setup.py").read_text()))
    assert {*prepare.PROCESSES, "bridge", "policy"} == executables
    prepare.check({k: v for k, (v, _) in arguments.items()})


def test_the_pure_part_of_the_launch_file_refuses_impossible_arguments():
    prepare = load(SRC / "palmar_bringup" / "palmar_bringup" / "prepare.py")
    good = {"hardware": "twin", "mode": "enforce", "record": "true"}
    assert prepare.processes(good) == ("twin", "recorder", "control")
    assert prepare.processes(good | {"record": "False"}) == ("twin", "control")
    for bad in ({"hardware": "fr4"}, {"mode": "off"}, {"record": "maybe"}):
        with pytest.raises(ValueError, match="accepted"):
            prepare.check(good | bad)


def test_the_launch_file_and_palmar_deploy_run_the_same_configuration(tmp_path, monkeypatch):
    from palmar.real_robot import config

    monkeypatch.setenv("ROS_DOMAIN_ID", "42")
    prepare = load(SRC / "palmar_bringup" / "palmar_bringup" / "prepare.py")
    arguments = {
        "robot": "fr3_leap",
        "hardware": "twin",
        "mode": "shadow",
        "policy": "",
        "record": "true",
        "instruction": "lift the blue box",
    }
    run = config.read(prepare.write_run(arguments, tmp_path))
    assert run.domain == 42 and run.mode == "shadow" and run.robot_model().name == "fr3_leap"
    assert len(run.qpos) == mujoco.MjModel.from_xml_string(run.scene).nq


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("colcon") is None, reason="colcon is not installed")
def test_colcon_builds_every_package_as_ament_python(tmp_path):
    env = {**os.environ, "AMENT_PREFIX_PATH": os.environ.get("AMENT_PREFIX_PATH", sys.prefix)}
    listed = subprocess.run(
        ["colcon", "list", "--base-paths", str(SRC)], capture_output=True, text=True, env=env, check=True
    ).stdout
    assert listed.count("ros.ament_python") == len(PACKAGES), listed
    shutil.copytree(SRC, tmp_path / "src")
    done = subprocess.run(
        ["colcon", "build", "--base-paths", "src"], cwd=tmp_path, capture_output=True, text=True, env=env
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "install" / "palmar_nodes" / "lib" / "palmar_nodes" / "bridge").exists()
