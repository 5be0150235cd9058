"""MuJoCo Warp's contacts of things at rest: why engine ``mujoco_warp`` has settings of its own, and how long yet."""

import mujoco
import mujoco_warp as mjw
import numpy as np
import pytest
import warp as wp

from palmar.sim.engines.mujoco_warp import CCD_TOLERANCE, PLAIN_BOXES


@pytest.mark.slow
def test_a_standing_cylinder_does_not_leave_the_table_by_itself():
    """MuJoCo Warp at MuJoCo's own tolerance sees it 0.6 m deep in the table, once in ten thousand poses."""
    xml = """<mujoco><worldbody><geom type="box" size=".65 .7 .025" pos=".35 0 -.025" condim="4"/>
    <body><freejoint/><geom type="cylinder" size=".025 .025" condim="4"/></body></worldbody></mujoco>"""
    count, deepest = 16384, {}
    rng = np.random.default_rng(1)
    q = np.zeros((count, 7))
    q[:, 0], q[:, 1] = rng.uniform(0.35, 0.65, count), rng.uniform(-0.2, 0.2, count)
    q[:, 2] = 0.025 - 10 ** rng.uniform(-5.5, -3.5, count)
    yaw = rng.uniform(-np.pi, np.pi, count)
    q[:, 3], q[:, 6] = np.cos(yaw / 2), np.sin(yaw / 2)
    q[:, 4:6] = rng.normal(0, 1, (count, 2)) * 10 ** rng.uniform(-5, -3.5, (count, 1))
    q[0] = [0.57815379, 0.06052571, 0.024974942, 0.80138445, 5.301208e-05, 2.162316e-05, -0.59814966]  # met in lift
    q[:, 3:] /= np.linalg.norm(q[:, 3:], axis=1, keepdims=True)
    for tolerance in (1e-6, CCD_TOLERANCE):
        model = mujoco.MjModel.from_xml_string(xml)
        model.opt.ccd_tolerance = tolerance
        with wp.ScopedDevice("cpu"):
            m, d = mjw.put_model(model), mjw.make_data(model, nworld=count, nconmax=8, njmax=48)
            d.qpos.assign(q.astype(np.float32))
            mjw.kinematics(m, d)
            mjw.collision(m, d)
            deepest[tolerance] = -float(d.contact.dist.numpy()[: int(d.nacon.numpy()[0])].min())
    assert deepest[CCD_TOLERANCE] < 1e-3
    assert deepest[1e-6] > 0.1, "MuJoCo Warp is cured: CCD_TOLERANCE can go"


@pytest.mark.slow
def test_a_block_rests_on_two_corners_or_more_with_normals_upwards():
    """By MuJoCo Warp's convex routine one pose in seventy has a single contact, where MuJoCo has two to four."""
    xml = """<mujoco><worldbody><geom type="box" size=".65 .7 .025" pos=".35 0 -.025" condim="4"/>
    <body><freejoint/><geom type="box" size=".025 .025 .025" condim="4"/></body></worldbody></mujoco>"""
    count, alone, tilt = 16384, {}, {}
    rng, q = np.random.default_rng(1), np.zeros((16384, 7))
    q[:, 0], q[:, 1] = rng.uniform(0.35, 0.65, count), rng.uniform(-0.2, 0.2, count)
    q[:, 2] = 0.025 - 10 ** rng.uniform(-5, -3.5, count)
    yaw = rng.uniform(-np.pi, np.pi, count)
    q[:, 3], q[:, 6] = np.cos(yaw / 2), np.sin(yaw / 2)
    q[:, 4:6] = rng.normal(0, 1, (count, 2)) * 10 ** rng.uniform(-8, -4, (count, 1))
    q[:, 3:] /= np.linalg.norm(q[:, 3:], axis=1, keepdims=True)
    for flag in (0, PLAIN_BOXES):
        model = mujoco.MjModel.from_xml_string(xml)
        model.opt.disableflags |= flag
        model.opt.ccd_tolerance = CCD_TOLERANCE
        with wp.ScopedDevice("cpu"):
            m, d = mjw.put_model(model), mjw.make_data(model, nworld=count, nconmax=8, njmax=64)
            d.qpos.assign(q.astype(np.float32))
            mjw.kinematics(m, d)
            mjw.collision(m, d)
            found = int(d.nacon.numpy()[0])
        assert -1e-3 < d.contact.dist.numpy()[:found].min()
        alone[flag] = int((np.bincount(d.contact.worldid.numpy()[:found], minlength=count) == 1).sum())
        tilt[flag] = float(np.abs(d.contact.frame.numpy()[:found].reshape(found, 9)[:, :2]).max())
    assert alone[PLAIN_BOXES] == 0 and tilt[PLAIN_BOXES] < 1e-6
    assert alone[0] > 0, "MuJoCo Warp is cured: PLAIN_BOXES can go"
