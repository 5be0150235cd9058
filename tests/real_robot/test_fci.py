"""The fake Franka arm: its rules, and what the real libfranka makes of them."""

import json
import subprocess
import sys

import numpy as np
import pytest
from fr3_case import JOINTS, PATIENCE, PRIORITY, address, needs_libfranka

from palmar.real_robot.drivers.error import DriverError
from palmar.real_robot.drivers.fr3 import open_driver
from palmar.real_robot.drivers.fr3_config import Fr3Config
from palmar.real_robot.fakes.fci_motion import DT, FR3, SetPoint
from palmar.real_robot.fakes.fci_process import HOME, FciProcess


@pytest.mark.parametrize(
    ("steps", "error"),
    [
        ([0.1, 0.1], "joint_motion_generator_velocity_limits_violation"),
        ([3.0], "joint_motion_generator_position_limits_violation"),
        ([2e-5], "joint_motion_generator_velocity_discontinuity"),
        ([0.9e-5], "joint_motion_generator_acceleration_discontinuity"),
        ([4e-6, 12e-6, 20e-6, 24e-6], ""),
    ],
)
def test_the_fake_names_the_first_limit_a_command_breaks(steps, error):
    s = SetPoint(np.array(HOME), FR3)
    for step in steps:
        q = s.q.copy()
        q[1] += step
        found = s.refusal(q)
        if found:
            break
        s.take(q)
    assert found == error


def test_a_lost_packet_is_extrapolated_with_constant_acceleration():
    s = SetPoint(np.array(HOME), FR3)
    for k in range(1, 4):
        s.take(s.q + 1e-6 * k)
    q, v, a = s.q.copy(), s.v.copy(), s.a.copy()
    s.extrapolate()
    np.testing.assert_allclose(s.v, v + DT * a)
    np.testing.assert_allclose(s.q, q + DT * s.v)


def test_the_speed_limit_falls_towards_the_end_of_a_joint():
    s, up = SetPoint(np.array(HOME), FR3), np.ones(7)
    q = np.array(HOME)
    q[1] = 1.7
    assert s.fastest(q, up)[1] == pytest.approx(np.sqrt(2 * 2.585 * (1.7918 - 1.7)) - 0.2)
    assert s.fastest(q, -up)[1] == s.fastest(np.array(HOME), up)[1] == 2.62


# What libfranka says of it, without the driver

RAW = """
import json, sys, pylibfranka as f
robot = f.Robot(sys.argv[1], f.RealtimeConfig.kIgnore)

def told(kind):
    start = list(robot.read_once().q_d)
    motion = robot.start_joint_position_control(f.ControllerMode.JointImpedance)
    def send(d, finished=False):
        motion.readOnce()
        q = f.JointPositions([x + (d if i == 1 else 0.0) for i, x in enumerate(start)])
        q.motion_finished = finished
        motion.writeOnce(q)
    try:
        if kind != "start": send(0.0)
        if kind == "start": send(0.01)
        if kind == "velocity": send(0.2)
        if kind == "acceleration": send(2e-5)
        if kind == "jerk": send(0.95e-5)
        if kind == "position": send(3.0)
        if kind == "moving":
            for k in range(60): send(5e-6 * k * (k + 1) / 2 * 0.9)
            send(5e-6 * 60 * 61 / 2 * 0.9, True)
        for _ in range(40): motion.readOnce()
        return "nothing"
    except f.ControlException as error:
        return str(error)

for kind in sys.argv[2:]:
    said = told(kind)
    mode = robot.read_once().robot_mode.name
    for _ in range(100):  # it is braking at first
        try:
            robot.automatic_error_recovery()
            break
        except f.CommandException:
            robot.read_once()
    print(json.dumps([kind, said, mode]))
"""
SAYS = {
    "start": "joint_position_motion_generator_start_pose_invalid",
    "velocity": "joint_motion_generator_velocity_limits_violation",
    "acceleration": "joint_motion_generator_velocity_discontinuity",
    "jerk": "joint_motion_generator_acceleration_discontinuity",
    "position": "joint_motion_generator_position_limits_violation",
    "moving": "still moving",
    "silent": "communication_constraints_violation",
}


@needs_libfranka
def test_libfranka_itself_reports_what_the_fake_refuses():
    with FciProcess(address(), patience=PATIENCE, priority=PRIORITY) as fake:
        done = subprocess.run(
            [sys.executable, "-c", RAW, fake.address, *SAYS], capture_output=True, text=True, timeout=100
        )
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [kind for kind, _, _ in told] == list(SAYS), done.stderr
    assert [kind for kind, said, mode in told if SAYS[kind] not in said or mode != "Reflex"] == []


@needs_libfranka
def test_a_wrong_version_is_refused_by_libfranka_itself():
    with FciProcess(address(), version=9) as fake:
        code = "import sys, pylibfranka as f\ntry: f.Robot(sys.argv[1], f.RealtimeConfig.kIgnore)\n"
        code += "except f.FrankaException as e: print(e)"
        done = subprocess.run([sys.executable, "-c", code, fake.address], capture_output=True, text=True, timeout=60)
        assert "version" in done.stdout and "9" in done.stdout, done.stdout + done.stderr
        with pytest.raises(DriverError, match="version 9"):
            open_driver(Fr3Config(address=fake.address), JOINTS)
