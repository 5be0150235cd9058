"""Cameras of engine ``mujoco_warp`` see what MuJoCo's rays see."""

import mujoco
import numpy as np
import pytest
import torch

from palmar.sim.device.env import make_device_env
from palmar.sim.engines.warp_cameras import WarpCameras
from palmar.sim.engines.warp_config import WarpConfig
from palmar.sim.tasks.lift import LiftConfig, LiftTask


@pytest.mark.slow
def test_cameras_see_the_depth_and_the_geoms_that_mujocos_rays_see(robot):
    """In two worlds whose hands are apart; edges of a pixel may fall either way."""
    task = LiftTask(LiftConfig())
    env = make_device_env(task, robot, None, num_envs=2, config=WarpConfig("cpu"))
    step = np.zeros((2, 8))
    step[1, 1] = 1.0
    for _ in range(4):
        env.step(step)
    names = ("side", "front")
    pictures = WarpCameras(env.engine, names, width=64, height=48).draw()
    assert pictures.color.shape == (2, 2, 48, 64, 3) and pictures.color.float().std() > 10
    model = env.engine.model
    data = mujoco.MjData(model)
    for world in range(2):
        data.qpos[:] = env.engine.qpos[world].numpy()
        mujoco.mj_forward(model, data)
        for k, name in enumerate(names):
            depth, geom = cast(model, data, name, 64, 48)
            ours = pictures.depth[world, k].numpy(), pictures.geom[world, k].numpy()
            same = ours[1] == geom
            assert same.mean() > 0.99 and (geom > 0).sum() > 100, (name, same.mean())
            np.testing.assert_allclose(ours[0][same], depth[same], atol=1e-3)
    assert not torch.equal(pictures.depth[0], pictures.depth[1])


def cast(model, data, name, width, height):
    """Depth along the axis and geom of every pixel's centre, by MuJoCo's rays."""
    camera, groups = model.camera(name), np.array([1, 1, 1, 0, 0, 0], dtype=np.uint8)
    tangent = np.tan(np.deg2rad(camera.fovy[0]) / 2)
    y, x = np.meshgrid(
        1 - 2 * (np.arange(height) + 0.5) / height, 2 * (np.arange(width) + 0.5) / width - 1, indexing="ij"
    )
    rays = np.stack([x * tangent * width / height, y * tangent, -np.ones_like(x)], axis=-1).reshape(-1, 3)
    unit = rays / np.linalg.norm(rays, axis=1, keepdims=True)
    turned = unit @ data.cam_xmat[camera.id].reshape(3, 3).T
    geom, depth, hit = np.full(len(rays), -1), np.zeros(len(rays)), np.zeros(1, dtype=np.int32)
    for i, ray in enumerate(turned):
        length = mujoco.mj_ray(model, data, data.cam_xpos[camera.id], ray, groups, 1, -1, hit)
        if length >= 0:
            geom[i], depth[i] = hit[0], -length * unit[i, 2]
    return depth.reshape(height, width), geom.reshape(height, width)
