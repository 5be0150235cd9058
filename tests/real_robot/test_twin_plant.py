"""The simulated robot as a plant for fakes, and the devices that a robot's file names."""

import time
from dataclasses import replace
from pathlib import Path

import mujoco
import numpy as np
import pytest
import toy_robot as toy

from palmar.real_robot.config import TwinConfig
from palmar.real_robot.drivers.twin import twin_robot
from palmar.real_robot.fakes.twin_plant import TwinBody
from palmar.real_robot.hardware import devices, names
from palmar.real_robot.twin import Twin, open_memory
from palmar.safety.types import ConfigError
from palmar.sim.robots import load_robot


@pytest.fixture
def body(tmp_path):
    """A twin and its body, stepped in turn: no process, no real time."""
    run = toy.run_config(tmp_path, twin=TwinConfig(q_noise=0.0, qd_noise=0.0, latency=0))
    model = mujoco.MjModel.from_xml_string(run.scene)
    memory = open_memory(Path(run.twin_memory), run, model)
    twin = Twin(run, model, memory, rng=np.random.default_rng(0))
    twin.step(time.monotonic())
    wire = twin_robot(toy.robot(), Path(run.twin_memory))
    wire.fresh = 10.0  # the machine may be slower than the clock

    def steps(n):
        for _ in range(n):
            made.step()
            twin.step(time.monotonic())
        made.step()

    made = TwinBody(wire, run.scene)
    made.steps, made.twin = steps, twin
    yield made
    memory.close()


def test_parts_move_their_own_joints_and_measure_them(body):
    arm, hand = body.part(["shoulder"]), body.part(["elbow"])
    arm.target(toy.HOME[:1] + 0.3)
    body.steps(800)
    assert abs(arm.measure()[0][0] - toy.HOME[0] - 0.3) < 0.01 and abs(hand.measure()[0][0] - toy.HOME[1]) < 0.01
    hand.target(toy.HOME[1:] - 0.2)
    body.steps(800)
    assert abs(hand.measure()[0][0] - toy.HOME[1] + 0.2) < 0.01 and abs(arm.measure()[0][0] - toy.HOME[0] - 0.3) < 0.01
    assert body.faults == 0


def test_a_softer_target_pulls_softer_and_none_is_stiffer_than_the_twin(body):
    plant = body.part(["shoulder", "elbow"])
    pull = []
    for share in (0.1, 1.0, 10.0):
        plant.target(plant.measure()[0] + 0.1, share * body.servo[0], np.zeros(2))
        body.steps(1)
        pull.append(plant.measure()[2].max())
    assert pull[0] == pytest.approx(0.1 * pull[1], rel=0.1) and pull[2] == pytest.approx(pull[1], rel=0.1)


@pytest.mark.parametrize("tau", [(3.0, -1.5), (-2.0, 0.5), (0.0, 0.0)])
def test_a_torque_is_what_the_joints_get_wherever_they_are(body, tau):
    plant = body.part(["elbow", "shoulder"])
    plant.torque(np.array(tau))
    for _ in range(10):
        body.steps(5)
        assert np.allclose(plant.measure()[2], tau, atol=0.05 * np.abs(tau).max())


def test_joints_that_the_twin_has_not_are_refused(body):
    with pytest.raises(ConfigError, match="wrist"):
        body.part(["wrist"])


MEMORIES = {"arm": "a", "hand": "h"}


@pytest.mark.parametrize("name", names())
def test_every_file_of_hardware_names_the_drivers_of_the_robot_it_is_called_after(name):
    robot = load_robot(name)
    arm, hand = devices(name, robot, MEMORIES, {})
    assert arm.joints + hand.joints == robot.joints and (arm.memory, hand.memory) == ("a", "h")
    assert arm.settings["low"] == pytest.approx(robot.limits.q_min[:7])  # what the robot's own limits are held against
    changed, _ = devices(name, robot, MEMORIES, {"arm": {"address": "1.2.3.4", "silence": 0.1}})
    assert (changed.settings["address"], changed.silence) == ("1.2.3.4", 0.1)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("panda_leap", {}, "fr3_leap"),
        ("nowhere.yaml", {}, "nowhere"),
        ("fr3_leap", {"arm": {"adress": "1.2.3.4"}}, "address"),
        ("fr3_leap", {"hand": {"driver": "shadow"}}, "leap"),
        ("fr3_leap", {"hand": {"silence": 0.0}}, "silence"),
    ],
)
def test_what_no_file_or_driver_has_is_refused(name, changes, message):
    with pytest.raises(ConfigError, match=message):
        devices(name, load_robot("fr3_leap"), MEMORIES, changes)


def test_another_driver_by_name_needs_no_file_and_inherits_no_keys():
    arm, _ = devices("fr3_leap", load_robot("fr3_leap"), MEMORIES, {"arm": {"driver": "franka_ros"}})
    assert arm.driver == "franka_ros" and "address" not in arm.settings and arm.silence == 0.02


def test_a_file_of_ones_own_is_taken_by_its_path(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("arm: {driver: fr3, address: 10.0.0.1}\nhand: {driver: leap, port: /dev/mine}\n")
    _, hand = devices(str(path), load_robot("fr3_leap"), MEMORIES, {})
    assert hand.settings["port"] == "/dev/mine"
    path.write_text("arm: {driver: fr3, address: 10.0.0.1}\n")
    with pytest.raises(ConfigError, match="hand"):
        devices(str(path), load_robot("fr3_leap"), MEMORIES, {})
    with pytest.raises(ConfigError):
        replace(hand, fresh=0.0)
