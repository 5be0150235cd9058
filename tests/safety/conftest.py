"""A small arm of capsules, so that the tests of safety need nothing from sim."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from palmar.safety.constraints import parse
from palmar.safety.robot import Limits, RobotModel

sys.path.insert(0, str(Path(__file__).parent))  # helpers beside the tests

# The same examples each time, so that a failure is a change of the code; and none is too slow for a busy machine.
settings.register_profile("same", derandomize=True, deadline=None)
settings.load_profile("same")

XML = """
<mujoco>
  <compiler angle="radian" autolimits="true"/>
  <worldbody>
    <geom name="table" type="plane" size="2 2 .1"/>
    <body name="base" pos="0 0 0">
      <geom name="base_c0" type="capsule" size=".07" fromto="0 0 .1 0 0 .3"/>
      <body name="l1" pos="0 0 .33">
        <joint name="j1" axis="0 0 1" range="-2.7 2.7"/>
        <geom name="l1_c0" type="capsule" size=".06" fromto="0 0 -.05 0 0 .02" mass="2"/>
        <body name="l2" pos="0 0 .02" quat=".9 .1 0 .05">
          <joint name="j2" axis="0 1 0" range="-1.7 1.7"/>
          <geom name="l2_c0" type="capsule" size=".05" fromto="0 0 0 .03 0 .32" mass="2"/>
          <body name="l3" pos="0 0 .34">
            <joint name="j3" axis="0 1 0" range="-2.8 2.8" pos=".02 0 0"/>
            <geom name="l3_c0" type="capsule" size=".045" fromto="0 0 0 0 0 .3" mass="1.5"/>
            <body name="l4" pos="0 0 .34">
              <joint name="j4" axis="1 0 0" range="-2.5 2.5"/>
              <geom name="l4_c0" type="capsule" size=".04" fromto="0 0 0 0 0 .12" mass=".8"/>
              <body name="palm" pos="0 0 .12">
                <geom name="palm_c0" type="capsule" size=".03" fromto="0 -.03 .02 0 .03 .02" mass=".3"/>
                <body name="f1" pos="0 .04 .05">
                  <joint name="f1_a" axis="1 0 0" range="-.5 1.6"/>
                  <geom name="f1_c0" type="capsule" size=".012" fromto="0 0 0 0 0 .05" mass=".05"/>
                  <body name="f1d" pos="0 0 .05">
                    <joint name="f1_b" axis="1 0 0" range="-.3 1.8"/>
                    <geom name="f1_tip" type="sphere" size=".013" pos="0 0 .04" mass=".02"/>
                    <geom name="f1d_c0" type="capsule" size=".011" fromto="0 0 0 0 0 .035" mass=".02"/>
                  </body>
                </body>
                <body name="f2" pos="0 -.04 .05">
                  <joint name="f2_a" axis="-1 0 0" range="-.5 1.6"/>
                  <geom name="f2_c0" type="capsule" size=".012" fromto="0 0 0 0 0 .05" mass=".05"/>
                  <body name="f2d" pos="0 0 .05">
                    <joint name="f2_b" axis="-1 0 0" range="-.3 1.8"/>
                    <geom name="f2_tip" type="sphere" size=".013" pos="0 0 .04" mass=".02"/>
                  </body>
                </body>
              </body>
            </body>
          </body>
        </body>
      </body>
    </body>
  </worldbody>
</mujoco>
"""
JOINTS = ("j1", "j2", "j3", "j4", "f1_a", "f1_b", "f2_a", "f2_b")
FINGERS = (("f1_c0", "f1d_c0", "f1_tip"), ("f2_c0", "f2_tip"))
DISTAL = ("l3_c0", "l4_c0", "palm_c0", *FINGERS[0], *FINGERS[1])
PAIRS = (
    *((a, b) for a in FINGERS[0] for b in FINGERS[1]),
    *((a, b) for a in ("base_c0", "l1_c0") for b in DISTAL if b != "l3_c0"),
    *(("l2_c0", b) for b in DISTAL[2:]),
    ("base_c0", "l3_c0"),
)


def row(margin, params="{}", use="signal: state, source: measured, memory: none, runtime: hard row"):
    return f"  {margin}: {{margin: {margin}, params: {params}, {use}, budget: 0.05, unit: s}}"


CONSTRAINTS = "\n".join(
    (
        "name: arm\nversion: 1\nconstraints:",
        row("joint_position", "{buffer: 0.0}"),
        row("joint_velocity"),
        row("joint_acceleration"),
        row("joint_jerk"),
        row(
            "joint_torque",
            use="signal: state, source: estimated, error: 2.0, memory: none, runtime: soft row",
        ),
        row("self_clearance", "{limit: 0.005}"),
        row("table_clearance", "{limit: 0.01}"),
        row("workspace", "{lower: [-0.9, -0.9, 0.05], upper: [0.9, 0.9, 1.2]}"),
        row(
            "contact_force",
            "{pair: tips, limit: 30.0}",
            "signal: contact, source: simulation only, memory: none, runtime: monitor",
        ),
        row(
            "dropped_object",
            "{fall: 0.05}",
            "signal: event, source: estimated, error: 0.01, memory: highest point, runtime: monitor",
        ).replace("unit: s", "unit: events"),
    )
)


def _limits() -> Limits:
    """FR3-like: on j3 the published curve asks for 17 rad/s2 where 10 are allowed."""
    inf = np.inf
    q_max = np.array([2.7, 1.7, 2.8, 2.5, 1.6, 1.8, 1.6, 1.8])
    q_min = np.array([-2.7, -1.7, -2.8, -2.5, -0.5, -0.3, -0.5, -0.3])
    return Limits(
        q_min=q_min,
        q_max=q_max,
        v_max=np.array([2.619, 2.619, 5.259, 4.179, 6.3, 6.3, 6.3, 6.3]),
        a_max=np.array([9.999] * 4 + [100.0] * 4),
        j_max=np.array([4999.0] * 4 + [20000.0] * 4),
        tau_max=np.array([87.0, 87.0, 30.0, 20.0, 1.0, 1.0, 1.0, 1.0]),
        curve_offset=np.array([0.3, 0.2, 0.35, 0.35] + [0.0] * 4),
        curve_two_a=np.array([12.0, 5.17, 34.0, 11.0] + [inf] * 4),
        curve_q_up=q_max + np.array([0.0064, 0.0081, 0.0036, 0.004] + [0.0] * 4),
        curve_q_low=q_min - np.array([0.0064, 0.0081, 0.0036, 0.004] + [0.0] * 4),
    )


@pytest.fixture(scope="session")
def robot() -> RobotModel:
    return RobotModel(
        name="small",
        joints=JOINTS,
        n_arm=4,
        limits=_limits(),
        xml=XML,
        palm_body="palm",
        tip_geoms=("f1_tip", "f2_tip"),
        pairs=PAIRS,
        table_geoms=("l2_c0", *DISTAL),
        home=np.array([0.0, 0.4, 1.2, 0.0, 0.0, 0.1, 0.0, 0.1]),
    )


@pytest.fixture(scope="session")
def text() -> str:
    return CONSTRAINTS


@pytest.fixture(scope="session")
def constraints(robot):
    return parse(CONSTRAINTS, robot.limits)
