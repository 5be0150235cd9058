"""A tabletop with a block and a dot before the cameras of a rig, and points seen from them."""

from types import SimpleNamespace

import mujoco
import numpy as np

from palmar.sim import scene
from palmar.sim.rig import load_rig, mount
from palmar.sim.robots import arm_and_hand, load_robot

BLOCK = scene.Block("block", "box", (0.03, 0.02, 0.025), (0.8, 0.1, 0.1, 1.0))
DOT = scene.Block("dot", "sphere", (0.006, 0.006, 0.006), (0.1, 0.8, 0.1, 1.0))


def built(robot="fr3_leap", blocks=(BLOCK, DOT), rig=None):
    """Robot at home with a rig: model, qpos (nq,), cameras by name."""
    model_of, (arm, hand) = load_robot(robot), arm_and_hand(robot)
    spec = scene.scene_spec(blocks, arm=arm, hand=hand)
    rig = load_rig("tabletop", robot) if rig is None else rig
    mount(spec, rig)
    model = spec.compile()
    data = mujoco.MjData(model)
    for joint, q in zip(model_of.joints, model_of.home, strict=True):
        data.joint(joint).qpos = q
    return SimpleNamespace(model=model, qpos=data.qpos.copy(), rig={c.name: c for c in rig})


def with_pose(scene_, name, position, quaternion=(1, 0, 0, 0)):
    """Its qpos (1, nq) with a body elsewhere."""
    qpos = scene_.qpos.copy()
    start = scene_.model.joint(f"{name}_free").qposadr[0]
    qpos[start : start + 7] = [*position, *(np.asarray(quaternion) / np.linalg.norm(quaternion))]
    return qpos[None]


def to_world(points, pose):
    turn = np.zeros(9)
    mujoco.mju_quat2Mat(turn, pose[3:])
    return points @ turn.reshape(3, 3).T + pose[:3]


def to_camera(points, pose):
    turn = np.zeros(9)
    mujoco.mju_quat2Mat(turn, pose[3:])
    return (points - pose[:3]) @ turn.reshape(3, 3)
