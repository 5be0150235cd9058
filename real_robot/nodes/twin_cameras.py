"""Cameras of the simulated robot: a rig drawn from the twin's shared file, in a process of its own.

Joints are those on the wire and positions those of the objects in truth; which way an object is turned comes from the
tracker, so a turning object is drawn as late as it is tracked.  Rates, latency and errors are those of ``sim.cameras``.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import mujoco
import numpy as np

from palmar.real_robot import shared
from palmar.real_robot.config import RunConfig
from palmar.real_robot.drivers.cameras import Pinhole, Shot
from palmar.real_robot.drivers.error import DriverError
from palmar.real_robot.layout import LAYOUTS
from palmar.safety.config import unknown
from palmar.safety.types import ConfigError
from palmar.sim.cameras import Cameras, Worlds
from palmar.sim.rig import Camera, load_rig, mount

GONE = 0.5
"""Without a new state for this long the twin counts as gone [s]."""
WAIT = 60.0
"""How long to wait for the twin to appear [s]."""


def rig(name: str, robot: str, *, only: Sequence[str], rate: float) -> list[Camera]:
    """Cameras of a rig at ``rate`` [Hz]; ``only`` those named, all if none is.

    Raises:
        ConfigError: If there is no such rig or camera.
    """
    cameras = {c.name: c for c in load_rig(name, robot)}
    for camera in only:
        if camera not in cameras:
            raise ConfigError(unknown("camera", camera, cameras))
    chosen = [cameras[n] for n in only] or list(cameras.values())
    return [replace(c, device=replace(c.device, rate=rate)) for c in chosen]


class TwinCameras:
    """A ``CameraSource`` over the twin's shared file."""

    def __init__(self, run: RunConfig, cameras: Sequence[Camera], *, kind: str = "rays"):
        """Attach to the twin of ``run`` and mount ``cameras``; ``kind`` of renderer as in ``sim.render``.

        Raises:
            SharedMemoryError: If the twin did not appear.
            PalmarError: If the cameras do not fit the scene, or nothing can be drawn here.
        """
        robot = run.robot_model()
        spec = mujoco.MjSpec.from_string(run.scene)
        mount(spec, cameras)
        model = spec.compile()
        self._joints = [int(model.joint(j).qposadr[0]) for j in robot.joints]
        self._objects = [int(model.jnt_qposadr[model.body(o).jntadr[0]]) for o in run.objects]
        self._qpos = np.array(run.qpos) if run.qpos else model.qpos0.copy()
        self._cameras = Cameras(model, cameras, batch=1, rng=np.random.default_rng(run.seed), kind=kind)
        pinholes = {c.name: c.intrinsics for c in cameras}
        self.pinholes = {n: Pinhole(k.width, k.height, k.fx, k.fy, k.cx, k.cy) for n, k in pinholes.items()}
        path = Path(run.twin_memory)
        self._twin = shared.wait_attach(path, LAYOUTS, kind="twin", robot=robot.hash(), timeout=WAIT)
        self._seen: dict[str, float] = {}
        self._last, self._changed = -np.inf, time.monotonic()

    def read(self) -> list[Shot]:
        """What was exposed and delivered since the last call.

        Raises:
            DriverError: If the twin's state stands still.
        """
        if not self._update():
            if time.monotonic() - self._changed > GONE:
                raise DriverError(f"the twin gave no new state for {GONE} s: its cameras see nothing")
            return []
        worlds, now = Worlds(self._qpos[None]), np.array([self._last])
        if not self._seen:
            self._cameras.reset(np.array([0]), now, worlds)
        else:
            self._cameras.update(now, worlds)
        shots = []
        for name, frame in self._cameras.frames.items():
            if self._seen.get(name) != frame.stamp[0]:
                self._seen[name] = float(frame.stamp[0])
                shots.append(Shot(name, self._seen[name], frame.color[0].copy(), frame.depth[0].copy()))
        return shots

    def _update(self) -> bool:
        """Take the newest state; whether there is one."""
        try:
            state, truth, tracked = (self._twin.blocks[k].read() for k in ("state", "truth", "objects"))
        except shared.TornRead:
            return False
        if state is None or truth is None or float(truth["t"]) <= self._last:
            return False
        self._qpos[self._joints] = state["q"]
        for k, at in enumerate(self._objects):
            self._qpos[at : at + 3] = truth["position"][k]
            if tracked is not None and tracked["seq"][k] > 0:
                self._qpos[at + 3 : at + 7] = tracked["quaternion"][k]
        self._last, self._changed = float(truth["t"]), time.monotonic()
        return True

    def close(self) -> None:
        """Give the renderer back and let go of the twin."""
        self._cameras.close()
        self._twin.close()
