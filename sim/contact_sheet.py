"""One picture of all a rig sees: a row per camera, columns colour, measured depth, bodies.

``python -m palmar.sim.contact_sheet docs/img/cameras.png`` made the one in docs/cameras.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import imageio.v3 as imageio
import numpy as np

from palmar.sim import scene
from palmar.sim.cameras import Cameras, Worlds
from palmar.sim.render import RENDERERS
from palmar.sim.rig import Camera, load_rig, mount
from palmar.sim.robots import arm_and_hand, load_robot, robot_names
from palmar.sim.tasks.lift import BLOCKS

Array = np.ndarray
WIDTH = 300
"""Of each camera's picture at least [px]."""
GAP = 4
"""Between pictures [px]."""


def sheet(robot: str, rig: str, kind: str, *, seed: int = 0) -> Array:
    """The picture, (H, W, 3) uint8: a robot at home over the blocks of `lift`."""
    cameras, found, (arm, hand) = [_larger(c) for c in load_rig(rig, robot)], load_robot(robot), arm_and_hand(robot)
    spec = scene.scene_spec(BLOCKS, arm=arm, hand=hand)
    mount(spec, cameras)
    model = spec.compile()
    qpos = model.qpos0[None].copy()
    for joint, q in zip(found.joints, found.home, strict=True):
        qpos[0, model.joint(joint).qposadr[0]] = q
    drawn = Cameras(model, cameras, batch=1, rng=np.random.default_rng(seed), kind=kind)
    drawn.reset(np.array([0]), np.zeros(1), Worlds(qpos))
    colors = np.random.default_rng(seed).integers(60, 256, (model.nbody + 1, 3), dtype=np.uint8)
    colors[0], colors[-1] = 90, 0  # the world, and nothing (-1)
    rows = []
    for camera in cameras:
        frame = drawn.frames[camera.name]
        rows.append([frame.color[0], _gray(frame.depth[0]), colors[frame.body[0]]])
    drawn.close()
    return _tiled(rows)


def _larger(camera: Camera) -> Camera:
    """The camera at the least whole multiple of its resolution that is wide enough."""
    times = -(-WIDTH // camera.width)
    return replace(camera, width=camera.width * times, height=camera.height * times)


def _gray(depth: Array) -> Array:
    """Near is bright, the farthest dark, none black, (h, w, 3) uint8."""
    found = depth > 0
    near, far = (depth[found].min(), depth[found].max()) if found.any() else (0.0, 1.0)
    shade = np.where(found, 255 - 200 * (depth - near) / max(far - near, 1e-6), 0)
    return np.repeat(shade[..., None].astype(np.uint8), 3, axis=2)


def _tiled(rows: Sequence[Sequence[Array]]) -> Array:
    """Pictures of each row side by side, rows below each other, on white."""
    width = max(sum(p.shape[1] + GAP for p in row) for row in rows) - GAP
    out = np.full((sum(row[0].shape[0] + GAP for row in rows) - GAP, width, 3), 255, np.uint8)
    top = 0
    for row in rows:
        left = 0
        for picture in row:
            out[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
            left += picture.shape[1] + GAP
        top += row[0].shape[0] + GAP
    return out


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--robot", default="fr3_leap", choices=robot_names())
    parser.add_argument("--rig", default="tabletop", help="name in configs/camera, or a .yaml of one's own")
    parser.add_argument("--renderer", default="gl", choices=RENDERERS)
    chosen = parser.parse_args()
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    imageio.imwrite(chosen.out, sheet(chosen.robot, chosen.rig, chosen.renderer))


if __name__ == "__main__":
    main()
