"""Two ways to draw what a camera of a MuJoCo model sees: ``Gl`` and, where no OpenGL can be, ``Rays``.

Both give the same depth and the same geoms.  ``Gl`` draws textures, highlights and, if asked, shadows; curved geoms
are faceted (1 mm at a block's edge).  ``Rays`` asks MuJoCo's own ray caster, is exact, needs nothing but MuJoCo, gives
equal bits on every machine, and paints matte colours.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import mujoco
import numpy as np

from palmar.safety.types import PalmarError

Array = np.ndarray
GROUPS = np.array([1, 1, 1, 0, 0, 0], dtype=np.uint8)
"""Geom groups that are drawn: collision capsules of a robot (group 3) are not."""
SKY = np.array([155, 165, 178], dtype=np.uint8)
"""Colour of ``Rays`` where there is nothing."""
DEFAULT_RGBA = np.array([0.5, 0.5, 0.5, 1.0], dtype=np.float32)
"""A geom's colour where none is given."""
FAR = 100.0
"""Length of rays [m]."""
PLATFORM = "PYOPENGL_PLATFORM"
SHAPES = ("geom_type", "geom_size", "geom_pos", "geom_quat", "geom_dataid")
BOUNDS = ("geom_rbound", "geom_aabb", "bvh_aabb")
"""Model fields that say where a geom's surface is, and those by which MuJoCo's rays pass it over."""
RENDERERS = ("rays", "gl")


class RenderRefused(PalmarError):
    """A picture that cannot be drawn: no OpenGL, an unknown renderer or camera, a state that is not finite."""


@dataclass(frozen=True)
class Image:
    """One picture."""

    color: Array
    """(h, w, 3) uint8."""
    depth: Array
    """Distance along the optical axis [m], 0 where there is nothing, (h, w) float32."""
    geom: Array
    """Id of the geom that is seen, -1 where there is nothing, (h, w) int32."""


class Renderer(Protocol):
    """Draws cameras of one model, whose arrays may change between pictures."""

    def draw(self, data: mujoco.MjData, camera: int) -> Image:
        """What camera ``camera`` sees; kinematics, camera and light poses of ``data`` are up to date."""
        ...

    def close(self) -> None:
        """Give resources back; nothing can be drawn afterwards."""
        ...


def renderer(kind: str | Callable[[mujoco.MjModel], Renderer], model: mujoco.MjModel) -> Renderer:
    """A renderer by its name, or made by a function, such as ``partial(Gl, shadows=True)``.

    Raises:
        RenderRefused: If there is no such renderer, or no OpenGL for ``gl``.
    """
    if callable(kind):
        return kind(model)
    if kind not in RENDERERS:
        raise RenderRefused(f"no renderer {kind!r}; there are {list(RENDERERS)}")
    return Gl(model) if kind == "gl" else Rays(model)


class Gl:
    """OpenGL without a window: EGL, or what ``MUJOCO_GL`` names.  One thread, one context.

    Colours of one picture, then depth and geoms of a second one without light, in one reading.
    """

    def __init__(self, model: mujoco.MjModel, *, shadows: bool = False, samples: int = 0) -> None:
        """A context with room for the largest camera.

        Args:
            model: Its cameras have a resolution.
            shadows: Take two thirds of the time in software.
            samples: Of each pixel's colour; 4 smooth edges and double the time in software.

        Raises:
            RenderRefused: If no OpenGL can be had.
        """
        self._model = model
        width, height = (int(x) for x in model.cam_resolution.max(axis=0))
        kept = model.vis.quality.offsamples, model.vis.global_.offwidth, model.vis.global_.offheight
        self._context = _context(width, height)
        self._context.make_current()
        try:
            model.vis.quality.offsamples = samples
            model.vis.global_.offwidth, model.vis.global_.offheight = width, height
            self._gl = mujoco.MjrContext(model, int(mujoco.mjtFontScale.mjFONTSCALE_100))
        except mujoco.FatalError as error:
            self._context.free()
            raise RenderRefused(f"OpenGL fails: {error}; accepted instead: renderer 'rays'") from error
        finally:
            model.vis.quality.offsamples, model.vis.global_.offwidth, model.vis.global_.offheight = kept
        mujoco.mjr_setBuffer(int(mujoco.mjtFramebuffer.mjFB_OFFSCREEN), self._gl)
        self._gl.readDepthMap = int(mujoco.mjtDepthMap.mjDEPTH_ZEROFAR)
        self._scene = mujoco.MjvScene(model, maxgeom=4 * model.ngeom + 100)
        self._option = mujoco.MjvOption()
        self._option.geomgroup[:] = GROUPS
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = shadows
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        self._view = mujoco.MjvCamera()
        self._view.type = int(mujoco.mjtCamera.mjCAMERA_FIXED)

    def draw(self, data: mujoco.MjData, camera: int) -> Image:
        """What camera ``camera`` sees."""
        model = self._model
        width, height = (int(x) for x in model.cam_resolution[camera])
        rect = mujoco.MjrRect(0, 0, width, height)
        color, code = np.empty((2, height, width, 3), np.uint8)
        depth = np.empty((height, width), np.float32)
        self._view.fixedcamid = camera
        self._context.make_current()
        category = int(mujoco.mjtCatBit.mjCAT_ALL)
        mujoco.mjv_updateScene(model, data, self._option, None, self._view, category, self._scene)
        mujoco.mjr_render(rect, self._scene, self._gl)
        mujoco.mjr_readPixels(color, None, rect, self._gl)
        self._flat(True)
        mujoco.mjr_render(rect, self._scene, self._gl)
        mujoco.mjr_readPixels(code, depth, rect, self._gl)
        self._flat(False)
        return Image(color[::-1], self._metres(depth[::-1]), self._geoms(code[::-1]))

    def close(self) -> None:
        """Free the context; OSMesa complains at exit otherwise."""
        self._context.make_current()
        self._gl.free()
        self._context.free()

    def _flat(self, on: bool) -> None:
        """Whether colours are numbers of things."""
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = on
        self._scene.flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = on

    def _metres(self, buffer: Array) -> Array:
        """Depth [m] of a depth buffer that is 1 at the near plane and 0 far away; 0 where there is nothing."""
        extent, clip = self._model.stat.extent, self._model.vis.map
        near, far = float(np.float32(clip.znear * extent)), float(np.float32(clip.zfar * extent))
        z = near * far / (near + buffer.astype(np.float64) * (far - near))
        return np.where(buffer > 0, z, 0.0).astype(np.float32)

    def _geoms(self, code: Array) -> Array:
        """Geom ids of colours that are numbers of things; -1 for nothing and for what is no geom."""
        number = code.astype(np.int32) @ np.array([1, 1 << 8, 1 << 16], dtype=np.int32)
        table = np.full(self._scene.ngeom + 1, -1, dtype=np.int32)
        for g in self._scene.geoms[: self._scene.ngeom]:
            if g.segid >= 0 and g.objtype == mujoco.mjtObj.mjOBJ_GEOM:
                table[g.segid + 1] = g.objid
        return table[number]


def _context(width: int, height: int) -> Any:
    """An off-screen OpenGL context.

    PyOpenGL binds to one platform per process, so there is no trying of one after the other here.

    Raises:
        RenderRefused: If there is none.
    """
    kind = os.environ.get("MUJOCO_GL", "").strip().lower() or "egl"
    asked = os.environ.get(PLATFORM)
    try:
        if kind == "egl":
            from mujoco.egl import GLContext
        elif kind == "osmesa":
            from mujoco.osmesa import GLContext
        else:
            raise ImportError("only egl and osmesa draw without a window")
        return GLContext(width, height)
    except (ImportError, AttributeError, RuntimeError, OSError) as error:
        raise RenderRefused(
            f"no OpenGL with MUJOCO_GL={kind} ({error}); accepted: egl (apt install libegl1 libegl-mesa0 "
            "libgl1-mesa-dri), osmesa (libosmesa6), or renderer 'rays', which needs neither"
        ) from error
    finally:
        if asked is None:
            os.environ.pop(PLATFORM, None)  # set by the import; a child process shall choose for itself


class Rays:
    """MuJoCo's ray caster: one ray through the centre of each pixel."""

    def __init__(self, model: mujoco.MjModel) -> None:
        """A ray caster of the cameras of ``model``."""
        self._model = model
        self._textures = _mean_colors(model)
        self._kept = {name: getattr(model, name).copy() for name in (*SHAPES, *BOUNDS)}

    def draw(self, data: mujoco.MjData, camera: int) -> Image:
        """What camera ``camera`` sees."""
        model = self._model
        self._loosen()
        turn = data.cam_xmat[camera].reshape(3, 3)
        width, height = (int(x) for x in model.cam_resolution[camera])
        rays = (_directions(model, camera) @ turn.T).reshape(-1)
        geom, depth = np.empty(width * height, np.int32), np.empty(width * height)
        normal = np.empty(3 * width * height)
        mujoco.mj_multiRay(
            model, data, data.cam_xpos[camera], rays, GROUPS, True, -1, geom, depth, normal, width * height, FAR
        )
        color = self._paint(data, geom, normal.reshape(-1, 3), -turn[:, 2])
        shape = (height, width)
        return Image(
            color.reshape(*shape, 3), np.maximum(depth, 0).reshape(shape).astype(np.float32), geom.reshape(shape)
        )

    def close(self) -> None:
        """Nothing is held."""

    def _loosen(self) -> None:
        """Make the bounds of geoms and bodies whose shape is not the compiled one so wide that no ray skips them."""
        model, kept = self._model, self._kept
        for name in BOUNDS:
            getattr(model, name)[...] = kept[name]
        differs = [(getattr(model, name) != kept[name]).reshape(model.ngeom, -1).any(axis=1) for name in SHAPES]
        changed = np.any(differs, axis=0)
        model.geom_rbound[changed] = FAR
        model.geom_aabb[changed] = [0, 0, 0, FAR, FAR, FAR]
        for body in np.unique(model.geom_bodyid[changed]):
            start = model.body_bvhadr[body]
            model.bvh_aabb[start : start + model.body_bvhnum[body]] = [0, 0, 0, FAR, FAR, FAR]

    def _paint(self, data: mujoco.MjData, geom: Array, normal: Array, forward: Array) -> Array:
        """Matte colours (N, 3) of geoms seen along ``forward`` (3,): head light and lights, Lambert's law."""
        model, head = self._model, self._model.vis.headlight
        light = np.asarray(head.ambient) + np.asarray(head.diffuse) * np.abs(normal @ forward)[:, None]
        for k in np.flatnonzero(model.light_active):
            light = light + model.light_diffuse[k] * np.maximum(-normal @ data.light_xdir[k], 0.0)[:, None]
        color = np.clip(255.0 * self._colors()[geom] * light, 0, 255).astype(np.uint8)
        color[geom < 0] = SKY
        return color

    def _colors(self) -> Array:
        """Colour of each geom now, (ngeom, 3); as in MuJoCo a geom's own, if not the default, hides its material's."""
        model = self._model
        if not model.nmat:
            return model.geom_rgba[:, :3]
        worn = model.geom_matid >= 0
        default = (model.geom_rgba == DEFAULT_RGBA).all(axis=1)
        painted = np.where((worn & default)[:, None], model.mat_rgba[model.geom_matid, :3], model.geom_rgba[:, :3])
        return np.where(worn[:, None], painted * self._textures[model.geom_matid], painted)


def _directions(model: mujoco.MjModel, camera: int) -> Array:
    """Points of each pixel's centre at distance 1 in MuJoCo's camera frame (y up, looking along -z), (h w, 3)."""
    (width, height), (fx, fy, left, up) = model.cam_resolution[camera], model.cam_intrinsic[camera]
    pitch_x, pitch_y = model.cam_sensorsize[camera] / (width, height)
    x = (np.arange(width) + 0.5 - width / 2) * pitch_x + left
    y = (height / 2 - np.arange(height) - 0.5) * pitch_y - up
    u, v = np.meshgrid(x / fx, y / fy)
    return np.stack([u, v, np.full(u.shape, -1.0)], axis=-1).reshape(-1, 3)


def _mean_colors(model: mujoco.MjModel) -> Array:
    """Mean colour of each material's texture, white without one, (nmat, 3) in [0, 1]."""
    out = np.ones((model.nmat, 3))
    for k in range(model.nmat):
        texture = model.mat_texid[k, int(mujoco.mjtTextureRole.mjTEXROLE_RGB)]
        if texture >= 0:
            start, channels = model.tex_adr[texture], model.tex_nchannel[texture]
            size = model.tex_height[texture] * model.tex_width[texture] * channels
            pixels = model.tex_data[start : start + size].reshape(-1, channels)
            out[k] = pixels[:, :3].mean(axis=0) / 255.0
    return out
