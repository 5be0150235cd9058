"""A small real scene: three-joint arm, table, free box; recorded by simulating it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import mujoco
import numpy as np
import pytest

from palmar.rollouts.header import RolloutHeader
from palmar.rollouts.record import RolloutWriter
from palmar.rollouts.replay import fingerprint, integration_state
from palmar.safety.robot import Limits, RobotModel
from palmar.safety.types import Chunk, State, Verdict

CONSTRAINTS = (Path(__file__).parents[2] / "configs/constraints/arm_hand.yaml").read_text()
XML = """
<mujoco model="small">
  <option timestep="0.002" integrator="implicitfast"/>
  <visual><headlight ambient=".4 .4 .4"/></visual>
  <worldbody>
    <light pos="0 0 3"/>
    <camera name="front" pos="1.6 -1.2 1.1" xyaxes="0.6 0.8 0 -0.35 0.26 0.9"/>
    <geom name="table" type="plane" size="1 1 .1" rgba=".75 .7 .62 1"/>
    <body name="link1" pos="0 0 .3"><joint name="j1" axis="0 0 1" range="-2 2" damping=".5"/>
      <geom type="capsule" size=".04" fromto="0 0 0 .25 0 0" rgba=".3 .45 .7 1"/>
      <body name="link2" pos=".25 0 0"><joint name="j2" axis="0 1 0" range="-2 2" damping=".5"/>
        <geom type="capsule" size=".03" fromto="0 0 0 .2 0 0" rgba=".3 .6 .7 1"/>
        <body name="palm" pos=".2 0 0"><joint name="j3" axis="0 1 0" range="-2 2" damping=".2"/>
          <geom name="tip" type="capsule" size=".02" fromto="0 0 0 .1 0 0" rgba=".9 .5 .2 1"/></body>
      </body></body>
    <body name="box" pos=".5 .1 .05"><freejoint name="box"/>
      <geom type="box" size=".03 .03 .03" mass=".1" rgba=".8 .2 .2 1"/></body>
  </worldbody>
  <actuator><position joint="j1" kp="60" kv="6"/><position joint="j2" kp="60" kv="6"/>
    <position joint="j3" kp="20" kv="2"/></actuator>
</mujoco>
"""


def robot() -> RobotModel:
    ones, inf = np.ones(3), np.full(3, np.inf)
    limits = Limits(
        q_min=-2 * ones,
        q_max=2 * ones,
        v_max=1.5 * ones,
        a_max=10 * ones,
        j_max=5000 * ones,
        tau_max=20 * ones,
        curve_offset=0 * ones,
        curve_two_a=inf,
        curve_q_up=2.1 * ones,
        curve_q_low=-2.1 * ones,
    )
    return RobotModel(
        name="small",
        joints=("j1", "j2", "j3"),
        n_arm=3,
        limits=limits,
        xml=XML,
        palm_body="palm",
        tip_geoms=("tip",),
        pairs=(),
        table_geoms=("tip",),
        home=np.zeros(3),
    )


def header(**changes) -> RolloutHeader:
    model = mujoco.MjModel.from_xml_string(XML)
    base = {
        "task": "push",
        "instruction": "push the <red> box & stop",
        "robot": robot(),
        "constraints": CONSTRAINTS,
        "control_dt": 0.002,
        "t0": 12.5,
        "wall_start_ns": 1_790_000_000_123_456_789,
        "scene": "small",
        "objects": ("box",),
        "engine": "mujoco",
        "versions": {"mujoco": mujoco.__version__},
        "seed": 7,
        "noise_seeds": {"object": 11},
        "config": {"task": {"height": 0.1}},
        "git": {"commit": "0" * 40, "dirty": False},
        "physics_dt": 0.002,
        "model_xml": XML,
        "model_hash": fingerprint(model),
    }
    return RolloutHeader(**{**base, **changes})


def clearance(q):
    """Forward kinematics of the small arm: no self collision, height of the tip capsule, palm origin."""
    model = mujoco.MjModel.from_xml_string(XML)
    data = mujoco.MjData(model)
    low, palm = np.zeros(len(q)), np.zeros((len(q), 3))
    for i, row in enumerate(q):
        data.qpos[:3] = row
        mujoco.mj_kinematics(model, data)
        tip, axis = data.geom("tip").xpos, data.geom("tip").xmat.reshape(3, 3)[:, 2]
        low[i] = tip[2] - 0.05 * abs(axis[2]) - 0.02
        palm[i] = data.body("palm").xpos
    return np.full(len(q), 0.1), low, palm


@dataclass(frozen=True)
class Truth:
    """What was handed to the writer, kept apart from the file."""

    t: np.ndarray
    q: np.ndarray
    u: np.ndarray
    uddd: np.ndarray
    box: np.ndarray
    ctrl: np.ndarray
    qpos: np.ndarray
    force: np.ndarray


def simulate(path, *, steps=300, every=5, alter=lambda step, ctrl: ctrl, seed=0) -> Truth:
    """Run the scene and record it; ``alter`` changes what is *recorded* as control, not what is applied."""
    model = mujoco.MjModel.from_xml_string(XML)
    data = mujoco.MjData(model)
    rng = np.random.default_rng(seed)
    data.qpos[:3] = rng.uniform(-0.2, 0.2, 3)
    mujoco.mj_forward(model, data)
    head = header(state0=integration_state(model, data))
    names = head.constraint_set().names
    rows = []
    with RolloutWriter(path, head) as out:
        chunk = Chunk(np.zeros((4, 3)), head.t0 + 0.01 + 0.05 * np.arange(4), 3, head.t0, ("j1", "j2", "j3"))
        out.chunk(chunk)
        out.state(0, data.qpos, data.qvel)
        for s in range(steps):
            t = head.t0 + s * 0.002
            u = np.array([0.6 * np.sin(3 * t), 0.9 + 0.3 * np.sin(2 * t), 0.3])
            ud, udd, uddd = rng.normal(size=(3, 3)) * [[1.0], [5.0], [2600.0]]
            force = np.abs(rng.normal(size=5)) * 4
            q, box = data.qpos[:3].copy(), data.qpos[3:].copy()
            out.joint_state(t, q, data.qvel[:3], data.actuator_force)
            out.intended(t, u + 0.01)
            out.command(t, u, ud, udd, uddd)
            out.object_pose(t, "box", box[:3], box[3:])
            out.contact(t, force)
            state = State.HOLD if 100 <= s < 120 else State.RUN
            margins = dict.fromkeys(names, 0.1 - 0.001 * s)
            out.verdict(t, Verdict(state, "stale" if state is State.HOLD else "", s % 3 == 0, 0.5, names[:2], margins))
            data.ctrl[:] = u
            out.physics(s, alter(s, u.copy()))
            mujoco.mj_step(model, data)
            if (s + 1) % every == 0:
                out.state(s + 1, data.qpos, data.qvel)
            rows.append((t, q, u, uddd, box, u, data.qpos.copy(), force))
        out.event(head.t0, "error", "refusal", "chunk too old", age="0.4")
        out.finish(success=True, detail={"height": 0.12})
    return Truth(*(np.array(column) for column in zip(*rows, strict=True)))


@pytest.fixture(scope="session")
def small() -> SimpleNamespace:
    """The scene and how to record it, for every test of this folder."""
    return SimpleNamespace(XML=XML, CONSTRAINTS=CONSTRAINTS, header=header, clearance=clearance, simulate=simulate)


@pytest.fixture(scope="session")
def recorded(tmp_path_factory):
    path = tmp_path_factory.mktemp("rollout") / "run.mcap"
    return path, simulate(path)
