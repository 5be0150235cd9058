"""What is left when the FR3's driver dies, and when the robot does."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fr3_case import JOINTS, PATIENCE, PRIORITY, TIMEOUT, address, needs_libfranka, stands, stopped

from palmar.real_robot.drivers.fr3 import open_driver
from palmar.real_robot.drivers.fr3_config import Fr3Config
from palmar.real_robot.fakes.fci_motion import DT, braking_time
from palmar.real_robot.fakes.fci_process import FciProcess

HERE = str(Path(__file__).parent)

KILLED = """
import sys, numpy as np
sys.path.insert(0, sys.argv[2])
from fr3_case import JOINTS
from palmar.real_robot.drivers.fr3 import open_driver
from palmar.real_robot.drivers.fr3_config import Fr3Config
from palmar.safety.types import Command
driver = open_driver(Fr3Config(address=sys.argv[1], timeout=0.3), JOINTS)
q = driver.read().q
for k in range(100_000):
    q[0] += 1e-3 * min(1.0, k / 150)
    driver.write(Command(q=q.copy(), seq=k, stamp=0.0))
    driver.read()
    if k == 200:
        print("moving", flush=True)
"""


@needs_libfranka
def test_the_driver_killed_in_motion_leaves_the_arm_braking_and_holding():
    with FciProcess(address(), patience=PATIENCE, priority=PRIORITY) as fake:
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, fake.address, HERE], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None and process.stdout.readline() == "moving\n"
        assert np.abs(fake.report()["dq_d"]).max() > 0.5
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        r = stopped(fake)
        assert r["errors"] == "communication_constraints_violation"
        assert 0 < r["braking_ticks"] * DT <= braking_time()
        assert stands(fake)
        driver = open_driver(Fr3Config(address=fake.address, timeout=TIMEOUT), JOINTS)
        try:
            driver.read()
            assert "communication_constraints_violation" in driver.fault
            driver.recover()
            assert driver.fault == ""
        finally:
            driver.close()


LEFT = """
import sys
sys.path.insert(0, sys.argv[1])
from fr3_case import Arm, rig
from palmar.real_robot.drivers.error import DriverError
with rig() as (driver, fake):
    arm = Arm(driver, fake)
    arm.swing(150)
    fake.process.send_signal(int(sys.argv[2]))
    try:
        arm.swing(2000)
    except DriverError as error:
        print("read:", error)
    driver.stop("robot gone")
    try:
        driver.recover()
    except DriverError:
        print("recover: refused")
    driver.close()
    print("closed", flush=True)
    fake.process.kill()
"""


@needs_libfranka
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "freezes"])
def test_a_robot_that_dies_or_freezes_in_motion_is_an_error_and_not_the_end_of_the_driver(end):
    """libfranka's own clean-up waits for ever for a robot that is silent: in a process of its own, which can end."""
    child = subprocess.Popen(
        [sys.executable, "-c", LEFT, HERE, str(int(end))],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        said, complained = child.communicate(timeout=90)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)  # and the fake, which may be stopped
        said, complained = child.communicate()
    lines = said.splitlines()
    assert lines[1:] == ["recover: refused", "closed"] and child.returncode == 0, said + complained
    assert lines[0].startswith("read:") and ("lost" in lines[0] or "no packet" in lines[0])
