"""A drive of ``sim.parity`` on plain simulators of whatever version is installed, without an engine of ours.

MuJoCo goes world after world; MuJoCo Warp has the options that engine ``isaaclab`` gives it.  Imports neither Isaac Lab
nor ``mujoco.batch``, so it runs in both environments.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import mujoco
import numpy as np

from palmar.safety.constraints import ConstraintSet
from palmar.safety.geometry import FAR, Kinematics
from palmar.safety.robot import RobotModel
from palmar.safety.types import CONTACT_PAIRS, Measurement
from palmar.sim import parity
from palmar.sim.robots import scene_of

Array = np.ndarray
World = tuple[mujoco.MjModel, mujoco.MjData]
NJMAX, NCONMAX = 400, 64
"""Room of a world in MuJoCo Warp."""
OPTIONS = {"ccd_tolerance": 1e-5, "iterations": 20, "ls_iterations": 30}
"""Of engine ``isaaclab``."""
DERIVED = ("body_subtreemass", "body_invweight0", "dof_invweight0", "dof_M0")
"""Constants that follow from a drive's own masses."""


def worlds_of(drive: parity.Drive, task: Any, robot: RobotModel) -> list[World]:
    """A model and its data for every world, in the drive's state."""
    worlds = []
    for k in range(len(drive.qpos)):
        model = scene_of(robot, task.furnish)
        for name, value in drive.fields.items():
            getattr(model, name)[:] = value[k]
        data = mujoco.MjData(model)
        mujoco.mj_setConst(model, data)
        mujoco.mj_resetData(model, data)
        data.qpos[:], data.qvel[:] = drive.qpos[k], drive.qvel[k]
        mujoco.mj_forward(model, data)
        worlds.append((model, data))
    return worlds


def on_mujoco(drive: parity.Drive, task: Any, robot: RobotModel, held: ConstraintSet) -> tuple[parity.Advance, float]:
    """Plain MuJoCo in the drive's state, and its physics step [s]."""
    worlds = worlds_of(drive, task, robot)
    act = _actuators(worlds[0][0], robot)

    def step(u: Array) -> None:
        for (model, data), sent in zip(worlds, u, strict=True):
            data.ctrl[act] = sent
            mujoco.mj_step(model, data)

    return _advance(step, worlds, task, robot), float(worlds[0][0].opt.timestep)


def on_mujoco_warp(
    drive: parity.Drive, task: Any, robot: RobotModel, held: ConstraintSet
) -> tuple[parity.Advance, float]:
    """Plain MuJoCo Warp on the processor in the drive's state, and its physics step [s]."""
    wp, mjw = importlib.import_module("warp"), importlib.import_module("mujoco_warp")
    worlds, nworld = worlds_of(drive, task, robot), len(drive.qpos)
    first = worlds[0][0]
    for name, value in OPTIONS.items():
        setattr(first.opt, name, value)
    act, ctrl = _actuators(first, robot), np.zeros((nworld, first.nu), np.float32)
    with wp.ScopedDevice("cpu"):
        m, d = mjw.put_model(first), mjw.make_data(first, nworld=nworld, njmax=NJMAX, nconmax=NCONMAX)
        for name in (*drive.fields, *DERIVED):
            _own(wp, m, name, np.stack([getattr(model, name) for model, _ in worlds]))
        d.qpos.assign(drive.qpos.astype(np.float32))
        d.qvel.assign(drive.qvel.astype(np.float32))
        with wp.ScopedCapture() as capture:
            mjw.step(m, d)

    def step(u: Array) -> None:
        ctrl[:, act] = u
        d.ctrl.assign(ctrl)
        with wp.ScopedDevice("cpu"):
            wp.capture_launch(capture.graph)
        found = {name: getattr(d, name).numpy() for name in ("qpos", "qvel", "sensordata", "actuator_force", "time")}
        for k, (_, data) in enumerate(worlds):
            data.qpos[:], data.qvel[:], data.time = found["qpos"][k], found["qvel"][k], found["time"][k]
            data.sensordata[:], data.actuator_force[:] = found["sensordata"][k], found["actuator_force"][k]

    return _advance(step, worlds, task, robot), float(first.opt.timestep)


def touched(drive: parity.Drive, task: Any, robot: RobotModel, *, steps: Sequence[int]) -> Array:
    """Worlds in which the robot touched anything up to each of the compared steps, by plain MuJoCo, (len(steps), B)."""
    worlds, rows, wanted = worlds_of(drive, task, robot), [], sorted(steps)
    act, own = _actuators(worlds[0][0], robot), _robot_bodies(worlds[0][0], task)
    seen = np.zeros(len(worlds), dtype=bool)
    for k, sent in enumerate(drive.commands[: wanted[-1], 0], 1):
        for u in sent:
            for w, (model, data) in enumerate(worlds):
                data.ctrl[act] = u[w]
                mujoco.mj_step(model, data)
                seen[w] |= bool(own[model.geom_bodyid[data.contact.geom]].any()) if data.ncon else False
        if k in wanted:
            rows.append(seen.copy())
    return np.stack(rows)


def _robot_bodies(model: mujoco.MjModel, task: Any) -> Array:
    """Which bodies are neither the world nor an object, (nbody,) bool."""
    own = np.ones(model.nbody, dtype=bool)
    own[[0, *(model.body(name).id for name in task.objects)]] = False
    return own


def _actuators(model: mujoco.MjModel, robot: RobotModel) -> list[int]:
    return [model.actuator(j).id for j in robot.joints]


def _own(wp: Any, m: Any, name: str, rows: Array) -> None:
    """Give every world its own value of a field that MuJoCo Warp has per world."""
    shared: Any = getattr(m, name, None)
    if isinstance(shared, wp.array) and shared.shape[0] == 1:
        shape = (len(rows), *shared.numpy().shape[1:])
        setattr(m, name, wp.array(rows.astype(np.float32).reshape(shape), dtype=shared.dtype))


def _advance(step: Callable[[Array], None], worlds: list[World], task: Any, robot: RobotModel) -> parity.Advance:
    """Steps and looks at every world after each."""
    kinematics = Kinematics.from_model(robot)

    def advance(*sent: Array) -> Measurement:
        rows = []
        for u in sent[0]:
            step(u)
            rows.append([_look(data, task, robot, kinematics) for _, data in worlds])
        stacked = {name: np.array([[w[name] for w in row] for row in rows]) for name in rows[0][0]}
        return Measurement(u=sent[0], ud=sent[1], udd=sent[2], uddd=sent[3], **stacked)

    return advance


def _look(data: mujoco.MjData, task: Any, robot: RobotModel, kin: Kinematics) -> dict[str, Array]:
    """What is measured of one world after a step; torques and forces are those of the step."""
    q = np.array([data.joint(j).qpos[0] for j in robot.joints])
    own, table = kin.clearances(q, near=FAR)
    force = [np.linalg.norm(data.sensor(f"force_{pair}").data) for pair in CONTACT_PAIRS]
    free = [data.joint(f"{name}_free").qpos for name in task.objects]
    return {
        "t": np.array(data.time),
        "q": q,
        "qd": np.array([data.joint(j).qvel[0] for j in robot.joints]),
        "tau": np.array([data.actuator(j).force[0] for j in robot.joints]),
        "palm_position": kin.palm(q),
        "clearance_self": np.minimum(own.min(), FAR),
        "clearance_table": table.min(),
        "contact_force": np.array(force),
        "object_position": np.array([x[:3] for x in free]).reshape(-1, 3),
        "object_quaternion": np.array([x[3:] for x in free]).reshape(-1, 4),
    }
