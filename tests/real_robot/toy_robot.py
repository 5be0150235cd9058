"""A two-joint arm with a block, small enough for fast tests; the real model is tested where it matters."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import numpy as np

from palmar.real_robot import shared
from palmar.real_robot.config import RunConfig, TwinConfig
from palmar.safety.robot import Limits, RobotModel

ROBOT = """
<mujoco model="toy"><compiler angle="radian"/><option timestep="0.001" integrator="implicitfast"/>
<worldbody>
  <geom name="table" type="box" size="1 1 0.02" pos="0 0 -0.02"/>
  <body name="upper" pos="0 0 0.4" gravcomp="1">
    <joint name="shoulder" axis="0 1 0" range="-2 2" damping="1" armature="0.1"/>
    <geom name="upper_geom" type="capsule" fromto="0 0 0 0.2 0 0" size="0.02" mass="1"/>
    <body name="palm" pos="0.2 0 0" gravcomp="1">
      <joint name="elbow" axis="0 1 0" range="-2 2" damping="1" armature="0.1"/>
      <geom name="th_tip" type="capsule" fromto="0 0 0 0.1 0 0" size="0.02" mass="0.5"/></body></body>
  {block}
</worldbody>
<actuator>
  <position name="shoulder" joint="shoulder" kp="200" kv="15" ctrlrange="-2 2" forcerange="-50 50"/>
  <position name="elbow" joint="elbow" kp="200" kv="15" ctrlrange="-2 2" forcerange="-50 50"/>
</actuator></mujoco>"""
BLOCK = '<body name="red" pos="0.6 0 0.03"><freejoint/><geom type="box" size="0.03 0.03 0.03" mass="0.1"/></body>'
SCENE = ROBOT.format(block=BLOCK)
HOME = np.array([-0.5, 1.0])
QPOS = (*HOME, 0.6, 0.0, 0.03, 1.0, 0.0, 0.0, 0.0)

CONSTRAINTS = """
name: toy
version: 1
constraints:
  joint_position: {margin: joint_position, params: {buffer: 0.0}, signal: state,
    source: measured, memory: none, runtime: hard row, budget: 0.0, unit: s}
"""


def robot() -> RobotModel:
    n = 2
    one = np.ones(n)
    limits = Limits(
        q_min=-2 * one, q_max=2 * one, v_max=2 * one, a_max=10 * one, j_max=5000 * one, tau_max=50 * one,
        curve_offset=0 * one, curve_two_a=np.inf * one, curve_q_up=1e9 * one, curve_q_low=-1e9 * one,
    )  # fmt: skip
    return RobotModel(
        name="toy", joints=("shoulder", "elbow"), n_arm=2, limits=limits, xml=ROBOT.format(block=""),
        palm_body="palm", tip_geoms=("th_tip",), pairs=(), table_geoms=("upper_geom", "th_tip"), home=HOME,
    )  # fmt: skip


def run_config(folder: Path, **changes: object) -> RunConfig:
    tag = uuid4().hex[:10]
    base = dict(
        run_dir=str(folder), robot=robot().to_json(), constraints=CONSTRAINTS, scene=SCENE,
        objects=("red",), qpos=QPOS,
        control_memory=str(shared.directory() / f"palmar-test-{tag}-control"),
        twin_memory=str(shared.directory() / f"palmar-test-{tag}-twin"),
        die_with_parent=True, twin=TwinConfig(),
    )  # fmt: skip
    return RunConfig(**{**base, **changes})


@contextmanager
def process(module: str, run: RunConfig, env: dict[str, str] | None = None):
    """A module of ``palmar.real_robot`` as a process; killed at the end if it still runs."""
    path = Path(run.run_dir) / "run.json"
    run.write(path)
    with (Path(run.run_dir) / f"{module.rsplit('.')[-1]}.log").open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", f"palmar.real_robot.{module}", "--config", str(path)],
            stdout=log,
            stderr=log,
            env=env,
        )
    try:
        yield child
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        for path in (run.control_memory, run.twin_memory):
            if not os.path.exists(path):
                continue
            if shared.owner(Path(path)) == child.pid:
                os.unlink(path)


def until(condition, timeout: float = 5.0, what: str = "condition"):
    """The first true value of ``condition()``."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.005)
    raise AssertionError(f"{what} did not come true within {timeout} s")
