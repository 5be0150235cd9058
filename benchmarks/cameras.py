"""``palmar bench cameras``: what a frame costs, per camera and renderer, and how much of it is the error of depth.

CPU milliseconds of one process on one thread of Python; OpenGL in software uses threads of its own, which count too.
Worlds differ in where the objects lie; every frame is drawn anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import mujoco
import numpy as np

from palmar.sim import scene
from palmar.sim.cameras import Cameras, Worlds
from palmar.sim.render import RENDERERS, RenderRefused
from palmar.sim.rig import load_rig, mount
from palmar.sim.robots import arm_and_hand, load_robot
from palmar.sim.tasks.lift import BLOCKS

Array = np.ndarray
Progress = Callable[[str], None]


def run(*, frames: int = 60, robot: str = "fr3_leap", rig: str = "tabletop", progress: Progress | None = None) -> dict:
    """A row per camera and renderer; renderers that this machine lacks are named with the reason.

    Args:
        frames: Pictures per row; the median is told.
        robot: Whose rig.
        rig: In ``configs/camera``.
        progress: Told what is being measured.
    """
    rows = []
    cameras, (model, qpos) = load_rig(rig, robot), _scene(robot, rig)
    for kind in RENDERERS:
        try:
            drawn = Cameras(model, cameras, batch=len(qpos), rng=np.random.default_rng(0), kind=kind)
        except RenderRefused as error:
            rows.append({"renderer": kind, "reason": str(error)})
            continue
        for camera in cameras:
            (progress or (lambda _: None))(f"{kind}: {camera.name}")
            draw, spoil = _times(drawn, camera.name, Worlds(qpos), frames)
            rows.append(
                {
                    "camera": camera.name,
                    "device": camera.device.name,
                    "width": camera.width,
                    "height": camera.height,
                    "renderer": kind,
                    "frames": frames,
                    "ms_per_frame": round(1e3 * draw, 2),
                    "ms_of_depth_errors": round(1e3 * spoil, 2),
                    "frames_per_cpu_s": round(1 / (draw + spoil), 1),
                }
            )
        drawn.close()
    return {"name": "cameras", "rows": rows}


def _scene(robot: str, rig: str) -> tuple[mujoco.MjModel, Array]:
    """A robot at home over the blocks of `lift`, and eight states (8, nq) with the blocks elsewhere."""
    found, (arm, hand), rng = load_robot(robot), arm_and_hand(robot), np.random.default_rng(0)
    spec = scene.scene_spec(BLOCKS, arm=arm, hand=hand)
    mount(spec, load_rig(rig, robot))
    model = spec.compile()
    qpos = np.tile(model.qpos0, (8, 1))
    for joint, q in zip(found.joints, found.home, strict=True):
        qpos[:, model.joint(joint).qposadr[0]] = q
    for block in BLOCKS:
        start = model.joint(f"{block.name}_free").qposadr[0]
        qpos[:, start : start + 2] += rng.uniform(-0.05, 0.05, (8, 2))
    return model, qpos


def _times(cameras: Cameras, name: str, worlds: Worlds, frames: int) -> tuple[float, float]:
    """Median CPU seconds of a picture and of the errors of its depth."""
    camera, rng = cameras.cameras[name], np.random.default_rng(0)
    spent = np.empty((2, frames))
    for k in range(-2, frames):
        begin = time.process_time()
        image = cameras.look(worlds, k % cameras.batch, name)
        drawn = time.process_time()
        camera.device.stereo.measure(image.depth, camera.intrinsics, rng)
        spent[:, k] = drawn - begin, time.process_time() - drawn  # the first two are overwritten: they warm up
    return float(np.median(spent[0])), float(np.median(spent[1]))
