"""The colcon workspace, as far as it can be checked without a ROS 2 distribution."""

import ast
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import mujoco
import pytest
from palmar_bringup import arguments, prepare
from palmar_nodes import ready

SRC = Path(__file__).resolve().parents[2] / "ros_ws" / "src"
PACKAGES = ("palmar_description", "palmar_bringup", "palmar_nodes")


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
    assert points or name == "palmar_bringup"
    for module, function in points:
        tree = ast.parse((SRC / name / (module.replace(".", "/") + ".py")).read_text())
        assert function in {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}


@pytest.mark.parametrize("path", sorted((SRC / "palmar_bringup" / "launch").glob("*.launch.py")), ids=lambda p: p.name)
def test_a_launch_file_compiles_and_uses_only_what_is_there(path):
    tree = ast.parse(path.read_text())
    compile(tree, str(path), "exec")
    assert "generate_launch_description" in {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}
    # launch is in no registry: names are checked against the tree, the run itself where ROS 2 is (test_launch.py)
    shared = ast.parse((SRC / "palmar_bringup" / "palmar_bringup" / "graph.py").read_text())
    there = {n.name for n in shared.body if isinstance(n, ast.FunctionDef)} | set(vars(prepare)) | set(vars(arguments))
    used = [n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name)]
    missing = {n.attr for n in used if n.value.id in ("graph", "prepare", "arguments")} - there
    assert not missing


def test_a_launch_in_another_python_finds_palmar_where_the_workspace_was_built(tmp_path):
    """A bare interpreter stands for the distribution's; the executable's first line for who ran colcon."""
    executable = tmp_path / "ready"
    executable.write_text(f"#!{sys.executable}\n")
    code = "from palmar_bringup import environment as e; e.enter(e.Path({!r})); import palmar.safety"
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(SRC / "palmar_bringup")}
    base = [os.path.realpath(sys.executable), "-S", "-c"]

    def bare(path):
        return subprocess.run([*base, code.format(str(path))], capture_output=True, text=True, env=env, timeout=60)

    assert bare(executable).returncode == 0, bare(executable).stderr
    executable.write_text("#!/usr/bin/python3\n")
    done = bare(executable)
    assert done.returncode == 1 and "python -m colcon build" in done.stderr


GOOD = {name: a.default for name, a in arguments.DEPLOY.items()}


def test_the_defaults_of_every_launch_file_are_accepted():
    for table in (arguments.DEPLOY, arguments.RECORD, arguments.REPLAY):
        arguments.check(table, {name: a.default for name, a in table.items()})


@pytest.mark.parametrize(
    ("table", "bad"),
    [
        (arguments.DEPLOY, {"hardware": "fr4"}),
        (arguments.DEPLOY, {"mode": "off"}),
        (arguments.DEPLOY, {"record": "maybe"}),
        (arguments.DEPLOY, {"state_publisher": "1"}),
        (arguments.REPLAY, {"target": "hand"}),
        (arguments.REPLAY, {"speed": "2"}),
        (arguments.REPLAY, {"speed": "nan"}),
        (arguments.REPLAY, {"speed": "slow"}),
    ],
)
def test_impossible_launch_arguments_are_refused_with_those_accepted(table, bad):
    with pytest.raises(arguments.Refused, match="accepted") as refused:
        arguments.check(table, {name: a.default for name, a in table.items()} | bad)
    assert all(repr(value) in str(refused.value) for value in bad.values())


def test_misspelt_launch_arguments_are_refused_unless_another_launch_file_may_own_them():
    words = ["/opt/ros/jazzy/bin/ros2", "launch", "palmar_bringup", "deploy.launch.py", "hardwear:=real"]
    with pytest.raises(arguments.Refused, match=r"\['hardwear'\], accepted .*'hardware'"):
        arguments.strangers(arguments.DEPLOY, words, "deploy.launch.py")
    arguments.strangers(arguments.DEPLOY, [*words[:3], "cell.launch.py", "conveyor:=on"], "deploy.launch.py")
    arguments.strangers(arguments.DEPLOY, [*words[:4], "hardware:=fake"], "deploy.launch.py")


def test_a_replay_or_a_recording_of_nothing_is_refused(tmp_path):
    replay = {name: a.default for name, a in arguments.REPLAY.items()}
    for path in ("", str(tmp_path), "nowhere.mcap"):
        with pytest.raises(arguments.Refused, match="accepted the path of a rollout.mcap"):
            prepare.rollout(replay | {"rollout": path})
    with pytest.raises(arguments.Refused, match="with its run.json"):
        prepare.running({"run": str(tmp_path)})
    run, _ = prepare.deployment(GOOD, tmp_path)
    with pytest.raises(arguments.Refused, match="is over"):
        prepare.running({"run": str(tmp_path)})
    Path(run.control_memory).touch()
    try:
        assert prepare.running({"run": str(tmp_path)}) == tmp_path / "run.json"
        (tmp_path / "rollout.mcap").touch()
        with pytest.raises(arguments.Refused, match="holds a rollout already"):
            prepare.running({"run": str(tmp_path)})
    finally:
        Path(run.control_memory).unlink()


@pytest.mark.parametrize(("given", "found"), [("", ""), ("left", "/left"), ("/cell_1/left/", "/cell_1/left")])
def test_namespaces_get_their_slash(given, found):
    assert prepare.full(given) == found


@pytest.mark.parametrize("given", ["a-b", "1st", "a//b", "cell/ü"])
def test_namespaces_that_ros_would_not_take_are_refused(given):
    with pytest.raises(arguments.Refused, match="namespace is"):
        prepare.full(given)


def test_the_launch_file_and_palmar_deploy_run_the_same_configuration(tmp_path, monkeypatch):
    from palmar.real_robot import config

    monkeypatch.setenv("ROS_DOMAIN_ID", "42")
    given = GOOD | {"mode": "shadow", "instruction": "lift the blue box", "namespace": "left"}
    run, path = prepare.deployment(given, tmp_path)
    assert config.read(path).robot_model().hash() == run.robot_model().hash()
    run = config.read(path)
    assert run.domain == 42 and run.mode == "shadow" and run.robot_model().name == "fr3_leap"
    assert run.namespace == "/left"
    assert len(run.qpos) == mujoco.MjModel.from_xml_string(run.scene).nq
    assert prepare.processes(run, record=False) == (("twin", ()), ("control", ()))


def test_a_process_begins_after_what_it_needs_is_there(tmp_path, monkeypatch):
    run, path = prepare.deployment(GOOD, tmp_path)
    began = []

    def begin(after):
        monkeypatch.setattr(sys, "argv", ["control", "--config", str(path), "--after", after, "--ros-args"])
        monkeypatch.setattr(ready, "TIMEOUT", 0.3)
        return ready.after(lambda: began.append(after) or 0)

    assert begin("twin") == 1 and not began
    Path(run.twin_memory).touch()
    try:
        assert begin("twin") == 0 and began == ["twin"]
    finally:
        Path(run.twin_memory).unlink()
    assert begin("fakes") == 1
    (tmp_path / "fakes.json").write_text("{}")
    assert begin("fakes") == 0


def test_every_process_of_every_hardware_is_an_executable():
    executables = set(re.findall(r'"(\w+) = ', (SRC / "palmar_nodes" / "setup.py").read_text()))

    def started(hardware, *devices):
        run = SimpleNamespace(hardware=hardware, devices=[SimpleNamespace(name=d) for d in devices])
        found = prepare.processes(run, record=True)
        assert {name for name, _ in found} <= executables
        assert {told[-1] for _, told in found if "--after" in told} <= set(ready.STAGES)
        return [" ".join((name, *told)) for name, told in found]

    assert started("twin") == ["twin", "recorder", "control"]
    last = ["recorder --after devices", "control --after devices"]
    assert started("real", "arm", "hand") == ["device --name arm", "device --name hand", *last]
    fake = ["device --name arm --after fakes", "device --name hand --after fakes", *last]
    assert started("fake", "arm", "hand") == ["twin", "fakes --after twin", *fake]
    assert {"bridge", "policy", "replay", "ready"} <= executables


@pytest.mark.skipif(find_spec("colcon_core") is None, reason="colcon is not installed")
def test_colcon_builds_every_package_as_ament_python(tmp_path):
    env = {**os.environ, "AMENT_PREFIX_PATH": os.environ.get("AMENT_PREFIX_PATH", sys.prefix)}
    shutil.copytree(SRC, tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))

    def colcon(*words):
        call = [sys.executable, "-m", "colcon", *words, "--base-paths", "src"]
        done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, env=env, timeout=110)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert colcon("list").count("ros.ament_python") == len(PACKAGES)
    colcon("build")
    nodes, bringup, description = (tmp_path / "install" / f"palmar_{p}" for p in ("nodes", "bringup", "description"))
    executables = set(re.findall(r'"(\w+) = ', (SRC / "palmar_nodes" / "setup.py").read_text()))
    assert {p.name for p in (nodes / "lib" / "palmar_nodes").iterdir()} == executables
    share = bringup / "share" / "palmar_bringup"
    assert {p.name for p in (share / "launch").iterdir()} == {p.name for p in SRC.glob("palmar_bringup/launch/*.py")}
    assert (share / "config" / "deploy.yaml").is_file()
    assert (description / "share" / "palmar_description" / "urdf" / "palmar.urdf.xacro").is_file()
    # what was built runs: an executable finds palmar and refuses a run that is not there, by name
    call = [str(nodes / "lib" / "palmar_nodes" / "ready"), "--config", "nowhere.json", "--until", "twin"]
    paths = [str(p / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages") for p in (nodes,)]
    env["PYTHONPATH"] = os.pathsep.join([*paths, env.get("PYTHONPATH", "")])
    done = subprocess.run(call, capture_output=True, text=True, env=env, timeout=60)
    assert done.returncode == 1 and "nowhere.json" in done.stderr
