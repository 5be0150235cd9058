"""Colour, depth and segmentation of every world at once, by MuJoCo Warp's ray caster: launches only, recordable.

The picture is the truth of the newest state: what a real camera loses and when it delivers is ``sim.cameras``'
business.  Frames: depth is along the optical axis; pixels are rows from the top.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mujoco
import torch
import warp as wp
from torch import Tensor

from palmar.safety.types import ConfigError
from palmar.sim.engines.mujoco_warp import WarpEngine

mjw: Any = importlib.import_module("mujoco_warp")


@dataclass(frozen=True)
class Pictures:
    """What c cameras see in B worlds."""

    color: Tensor
    """(B, c, h, w, 3) uint8."""
    depth: Tensor
    """[m], 0 where there is nothing, (B, c, h, w) float32."""
    geom: Tensor
    """Id of the geom behind each pixel, -1 for none, (B, c, h, w) int32."""


class WarpCameras:
    """Cameras of an engine's scene, drawn together.

    Args:
        engine: Whose newest state is drawn.
        names: Cameras of its model.
        width: [px]
        height: [px]

    Raises:
        ConfigError: If there is no such camera or a size is not positive.
    """

    def __init__(self, engine: WarpEngine, names: Sequence[str], *, width: int, height: int):
        model, there = engine.model, [engine.model.camera(k).name for k in range(engine.model.ncam)]
        if not names or set(names) - set(there) or min(width, height) < 1:
            raise ConfigError(f"need cameras among {there} and a size, got {list(names)}, {width} x {height}")
        ordered = [name for name in there if name in names]
        self._order = torch.tensor([ordered.index(name) for name in names], device=engine.device)
        self._engine, self._shape = engine, (engine.nworld, len(names), height, width)
        with wp.ScopedDevice(engine.device):
            self._context: Any = mjw.create_render_context(
                model, nworld=engine.nworld, cam_res=(width, height), render_rgb=True, render_depth=True,
                render_seg=True, cam_active=ordered,
            )  # fmt: skip
        self._views = [wp.to_torch(getattr(self._context, f"{kind}_data")) for kind in ("rgb", "depth", "seg")]

    def draw(self) -> Pictures:
        """What is seen now; new memory."""
        m, d = self._engine.m, self._engine.d
        with self._engine.stream():
            for launch in (mjw.kinematics, mjw.com_pos, mjw.camlight):
                launch(m, d)
            mjw.refit_bvh(m, d, self._context)
            mjw.render(m, d, self._context)
        packed, depth, seen = self._views
        color = packed.contiguous().view(torch.uint8).reshape(*self._shape, 4)[..., :3].flip(-1)  # b, g, r, a
        kind = seen[..., 1].reshape(self._shape)
        geom = seen[..., 0].reshape(self._shape).masked_fill(kind != int(mujoco.mjtObj.mjOBJ_GEOM), -1)
        depth = depth.reshape(self._shape).masked_fill(kind < 0, 0.0)
        return Pictures(*(x.index_select(1, self._order).clone() for x in (color, depth, geom)))
