"""The half of engine ``isaaclab`` that runs everywhere; the other half is in tests/isaac (``make test-isaac``)."""

import socket
import subprocess
import sys
import xml.etree.ElementTree as ET
from importlib.resources import files

import numpy as np
import pytest

from palmar.safety import constraints
from palmar.safety.types import ConfigError
from palmar.sim.engines import isaaclab_client, isaaclab_wire
from palmar.sim.engines.isaaclab_client import IsaacVectorEnv, SimulatorGone, text_of
from palmar.sim.robots import load_robot, robot_names
from palmar.sim.tasks import find


@pytest.fixture(scope="module")
def robot():
    return load_robot("fr3_leap")


def lift():
    found = find.load("lift")
    return found.task(found.config())


def test_messages_arrive_as_they_were_sent():
    arrays = {"q": np.arange(6.0).reshape(2, 3), "none": np.zeros((0, 3), np.float32), "done": np.array([True, False])}
    one, two = socket.socketpair()
    with one, two:
        isaaclab_wire.send(one, {"do": "step", "t": 0.5}, arrays)
        head, found = isaaclab_wire.receive(two)
        assert head == {"do": "step", "t": 0.5} and list(found) == list(arrays)
        for name, x in arrays.items():
            assert found[name].dtype == x.dtype
            np.testing.assert_array_equal(found[name], x)
        one.close()
        with pytest.raises(EOFError):
            isaaclab_wire.receive(two)


def test_messages_hold_numbers_only():
    one, two = socket.socketpair()
    with one, two:
        isaaclab_wire.send(one, {}, {"x": np.array([None])})
        with pytest.raises(ValueError, match="numbers only"):
            isaaclab_wire.receive(two)


@pytest.mark.parametrize("name", ["arm_hand", "shared_cell"])
def test_constraints_cross_the_border_unchanged(robot, name):
    held = constraints.parse((files("palmar.configs") / "constraints" / f"{name}.yaml").read_text(), robot.limits)
    assert constraints.parse(text_of(held), robot.limits).hash() == held.hash()


def test_without_isaac_lab_it_says_how_to_get_it(robot, monkeypatch, tmp_path):
    monkeypatch.setenv(isaaclab_client.PYTHON, str(tmp_path / "python"))
    with pytest.raises(ConfigError, match="make isaac"):
        IsaacVectorEnv(lift(), robot, None, num_envs=1)


def test_a_simulator_that_ends_at_its_start_is_named_with_its_last_words(robot, monkeypatch, tmp_path):
    dying = tmp_path / "python"
    dying.write_text("#!/bin/sh\necho no GPU today >&2\nexit 3\n")
    dying.chmod(0o755)
    monkeypatch.setenv(isaaclab_client.PYTHON, str(dying))
    with pytest.raises(SimulatorGone, match="no GPU today"):
        IsaacVectorEnv(lift(), robot, None, num_envs=1)


def test_the_names_of_our_tasks_are_registered_without_isaac_lab():
    code = "import palmar.sim.isaac_tasks as t, gymnasium, sys; [gymnasium.spec(n) for n in t.TASKS]; " \
           "assert not any(m.startswith(('isaaclab', 'torch', 'mujoco')) for m in sys.modules)"  # fmt: skip
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", robot_names())
def test_every_robot_is_shipped_as_usd_with_its_joints_and_links(name):
    folder = files("palmar.assets") / "usd" / name
    physics = (folder / "payloads" / "Physics" / "physics.usda").read_text()
    tree = ET.fromstring(load_robot(name).xml)
    for joint in tree.iter("joint"):
        if "name" in joint.attrib:
            assert f'PhysicsRevoluteJoint "{joint.attrib["name"]}"' in physics
    for body in tree.iter("body"):
        assert f'over "{body.attrib["name"]}"' in physics
    servos = (folder / "payloads" / "Physics" / "mujoco.usda").read_text()
    assert servos.count("mjc:forceRange:max") == servos.count('def MjcActuator "') == load_robot(name).n
