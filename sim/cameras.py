"""RGB-D cameras of B worlds: what they see, and when it arrives.

``sim.rig`` says where they stand.  ``Cameras`` draws them (``sim.render``), spoils the depth as the device does
(``sim.realsense``), and delivers each frame ``latency`` after its exposure, at the device's rate, like
``sim.tracker.Tracker``.

Frames: world as everywhere.  A camera's pose is that of its optical frame: x right, y down, z forward.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import mujoco
import numpy as np

from palmar.safety.types import ConfigError
from palmar.sim.render import Image, Renderer, RenderRefused, renderer
from palmar.sim.rig import Camera

Array = np.ndarray
# fmt: off
LOOKS = (
    "geom_type", "geom_size", "geom_pos", "geom_quat", "geom_dataid", "geom_group", "geom_matid", "geom_rgba",
    "mat_rgba", "mat_texid", "mat_texrepeat", "mat_emission", "mat_specular", "mat_shininess",
    "light_active", "light_pos", "light_dir", "light_ambient", "light_diffuse", "light_specular",
    "cam_pos", "cam_quat", "cam_intrinsic", "body_pos", "body_quat",
)
# fmt: on
"""Fields of MjModel that change a picture."""
Shot = tuple[float, Image, Array]
"""Time of exposure [s], picture and pose of the optical frame."""


@dataclass(frozen=True)
class Worlds:
    """States of B worlds, as an engine has them."""

    qpos: Array
    """(B, nq)."""
    mocap_position: Array | None = None
    """Of moving scenery [m], (B, c, 3)."""
    mocap_quaternion: Array | None = None
    """w-x-y-z, (B, c, 4)."""
    fields: Mapping[str, Array] = field(default_factory=dict)
    """Model fields that differ between worlds, (B, ...): sizes, colours, lights, ``cam_pos``, ``cam_quat``, ..."""

    @classmethod
    def of(cls, batch: Any) -> Worlds:
        """The states now of a ``mujoco.batch.Batch``, with what differs between its worlds and can be seen.

        Textures' pixels are shared by all worlds; which material a geom wears is not (``geom_matid``).
        """
        own = {name: value for name in LOOKS if (value := batch.expanded(name)) is not None}
        if not batch.bind("mocap_pos").size:
            return cls(batch.bind("qpos"), fields=own)
        return cls(batch.bind("qpos"), batch.bind("mocap_pos"), batch.bind("mocap_quat"), own)


@dataclass(frozen=True)
class Frame:
    """The last frame of one camera that arrived, in B worlds; the arrays are overwritten by the next one."""

    stamp: Array
    """Time of exposure [s], (B,)."""
    color: Array
    """(B, h, w, 3) uint8."""
    depth: Array
    """[m], 0 where the camera found none, (B, h, w) float32."""
    geom: Array
    """Id of the geom behind each pixel, -1 for none, (B, h, w) int32.  The simulator knows it, no camera does: it
    stands in for a segmenter."""
    body: Array
    """Id of its body, likewise; 0 is the world, with the table."""
    pose: Array
    """Position [m] and quaternion w-x-y-z of the optical frame in the world, (B, 7), as calibration has it: if
    ``cam_pos`` or ``cam_quat`` are randomised, this is where the camera should be, not where it is."""


class Cameras:
    """The cameras of a rig in B worlds, drawn one after the other by one renderer.

    Args:
        model: Compiled from a scene with ``mount``; copied.
        cameras: Of a rig.
        batch: B.
        rng: Draws phases of frames and errors of depth.
        kind: ``rays``, ``gl``, or what makes a renderer of a model, see ``sim.render``.

    Raises:
        ConfigError: If the model lacks one of the cameras.
        RenderRefused: If there is no such renderer.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        cameras: Sequence[Camera],
        *,
        batch: int,
        rng: np.random.Generator,
        kind: str | Callable[[mujoco.MjModel], Renderer] = "rays",
    ) -> None:
        there = [model.camera(k).name for k in range(model.ncam)]
        missing = [c.name for c in cameras if c.name not in there]
        if missing:
            raise ConfigError(f"the model has no cameras {missing}; it has {there}: mount them before it is compiled")
        self.cameras, self.batch, self._rng = {c.name: c for c in cameras}, batch, rng
        self._nominal, self._model = model, model.__copy__()
        self._data = mujoco.MjData(self._model)
        self._renderer = renderer(kind, self._model)
        self._changed: set[str] = set()
        self._next = {c.name: np.zeros(batch) for c in cameras}
        self._pending: dict[str, list[deque[Shot]]] = {c.name: [deque() for _ in range(batch)] for c in cameras}
        self.frames = {c.name: _blank(c, batch) for c in cameras}
        """What arrived last, by camera."""

    def reset(self, ids: Array, t: Array, worlds: Worlds) -> None:
        """Deliver a first frame of worlds ``ids`` (k,) at times t (k,); phases of the frames are random."""
        self._check(worlds)
        for name, camera in self.cameras.items():
            self._next[name][ids] = t + self._rng.uniform(0, 1 / camera.device.rate, len(ids))
        for w, now in zip(ids, t, strict=True):
            self._set(worlds, int(w))
            for name in self.cameras:
                self._pending[name][w].clear()
                self._deliver(name, int(w), self._expose(name, float(now)))

    def update(self, t: Array, worlds: Worlds) -> None:
        """Expose and deliver what is due at times t (B,).

        A frame is exposed at the first call after its time and delivered at the first call at least ``latency``
        later; if control is slower than the camera, frames in between are not drawn.
        """
        self._check(worlds)
        due = {name: t >= self._next[name] for name in self.cameras}
        for w in np.flatnonzero(np.any(list(due.values()), axis=0)):
            self._set(worlds, int(w))
            for name in self.cameras:
                if due[name][w]:
                    self._pending[name][w].append(self._expose(name, float(t[w])))
        for name, camera in self.cameras.items():
            period, late = 1 / camera.device.rate, t[due[name]] - self._next[name][due[name]]
            self._next[name][due[name]] += period * np.ceil(late / period + 1e-9)
            for w, queue in enumerate(self._pending[name]):
                arrived = None
                while queue and queue[0][0] + camera.device.latency <= t[w] + 1e-9:
                    arrived = queue.popleft()
                if arrived is not None:
                    self._deliver(name, w, arrived)

    def look(self, worlds: Worlds, world: int, camera: str) -> Image:
        """What one camera would see in one world without errors, range and latency.

        Raises:
            RenderRefused: If there is no such camera or world, or the state is not finite.
        """
        if camera not in self.cameras:
            raise RenderRefused(f"no camera {camera!r}; there are {list(self.cameras)}")
        if not 0 <= world < self.batch:
            raise RenderRefused(f"no world {world}; there are {self.batch}")
        self._check(worlds)
        self._set(worlds, world)
        return self._renderer.draw(self._data, self._model.camera(camera).id)

    def pose(self, camera: str) -> Array:
        """Calibrated pose of the optical frame in the world drawn last, (7,)."""
        c = self.cameras[camera]
        body, quat = self._model.body(c.body).id, np.zeros(4)
        turn = self._data.xmat[body].reshape(3, 3)
        mujoco.mju_mat2Quat(quat, (turn @ c.turn).ravel())
        return np.concatenate([self._data.xpos[body] + turn @ c.eye, quat])

    def close(self) -> None:
        """Give the renderer back."""
        self._renderer.close()

    def _check(self, worlds: Worlds) -> None:
        """Refuse states that cannot be drawn, before anything is."""
        model, b = self._nominal, self.batch
        arrays: dict[str, tuple[Array, tuple[int, ...]]] = {"qpos": (worlds.qpos, (b, model.nq))}
        if worlds.mocap_position is not None or worlds.mocap_quaternion is not None:
            for key, size in (("mocap_position", 3), ("mocap_quaternion", 4)):
                arrays[key] = np.asarray(getattr(worlds, key)), (b, model.nmocap, size)
        for name, value in worlds.fields.items():
            if not isinstance(getattr(model, name, None), np.ndarray):
                raise RenderRefused(f"no model field {name!r}; accepted are arrays of MjModel, such as geom_rgba")
            arrays[name] = value, (b, *getattr(model, name).shape)
        for name, (value, shape) in arrays.items():
            if np.shape(value) != shape:
                raise RenderRefused(f"{name} has shape {np.shape(value)}, need {shape}")
            bad = np.argwhere(~np.isfinite(value))
            if len(bad):
                raise RenderRefused(f"{name} of world {bad[0, 0]} is not finite at {bad[0, 1:].tolist()}")

    def _set(self, worlds: Worlds, w: int) -> None:
        """Bring model and poses into the state of world w."""
        for name in self._changed - set(worlds.fields):
            getattr(self._model, name)[...] = getattr(self._nominal, name)
        self._changed = set(worlds.fields)
        for name, value in worlds.fields.items():
            getattr(self._model, name)[...] = value[w]
        self._data.qpos[:] = worlds.qpos[w]
        if worlds.mocap_position is not None and worlds.mocap_quaternion is not None:
            self._data.mocap_pos[:], self._data.mocap_quat[:] = worlds.mocap_position[w], worlds.mocap_quaternion[w]
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_comPos(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)

    def _expose(self, name: str, now: float) -> Shot:
        """Time, picture and pose of a frame of the world that is set."""
        camera = self.cameras[name]
        image = self._renderer.draw(self._data, self._model.camera(name).id)
        depth = camera.device.stereo.measure(image.depth, camera.intrinsics, self._rng)
        return now, Image(image.color, depth, image.geom), self.pose(name)

    def _deliver(self, name: str, w: int, shot: Shot) -> None:
        """Make a frame the one seen in world w."""
        frame, (stamp, image, pose) = self.frames[name], shot
        frame.stamp[w], frame.color[w], frame.depth[w], frame.pose[w] = stamp, image.color, image.depth, pose
        frame.geom[w] = image.geom
        frame.body[w] = np.where(image.geom >= 0, self._nominal.geom_bodyid[image.geom], -1)


def _blank(camera: Camera, batch: int) -> Frame:
    """A frame of nothing, before the first reset."""
    shape = (batch, camera.height, camera.width)
    nothing = [np.full(shape, -1, dtype=np.int32) for _ in range(2)]
    return Frame(
        np.full(batch, -np.inf), np.zeros((*shape, 3), np.uint8), np.zeros(shape, np.float32), *nothing,
        pose=np.zeros((batch, 7)),
    )  # fmt: skip
