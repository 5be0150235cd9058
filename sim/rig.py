"""Where cameras stand: devices of ``sim.realsense`` on bodies of a scene.

A rig is a file, ``configs/camera/<rig>.yaml``; ``mount`` puts it into a scene before that is compiled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import yaml

from palmar.safety.types import ConfigError
from palmar.sim.realsense import Device, Intrinsics, load_device

Array = np.ndarray
PITCH = 1e-5
"""Width of a pixel of MuJoCo's sensor [m]; only ratios of lengths matter."""


@dataclass(frozen=True)
class Camera:
    """A device fixed to a body."""

    name: str
    device: Device
    width: int
    height: int
    body: str
    """Name in the scene; ``world`` stands still."""
    eye: tuple[float, float, float]
    """Optical centre in the frame of the body [m]."""
    target: tuple[float, float, float]
    """A point on the optical axis, likewise."""
    up: tuple[float, float, float]
    """A direction that points up in the picture, likewise."""

    def __post_init__(self) -> None:
        for key in ("eye", "target", "up"):
            value = np.asarray(getattr(self, key), dtype=np.float64)
            if value.shape != (3,) or not np.isfinite(value).all():
                raise ConfigError(f"camera {self.name}: {key} must be three finite numbers, got {getattr(self, key)}")
        forward, sideways = np.subtract(self.target, self.eye), np.cross(np.subtract(self.target, self.eye), self.up)
        if np.linalg.norm(sideways) < 1e-6 * max(np.linalg.norm(forward) * np.linalg.norm(self.up), 1e-6):
            raise ConfigError(f"camera {self.name}: target - eye {forward} and up {self.up} must span a plane")
        self.device.intrinsics.resized(self.width, self.height)

    @property
    def intrinsics(self) -> Intrinsics:
        """The pinhole at this camera's resolution."""
        return self.device.intrinsics.resized(self.width, self.height)

    @property
    def turn(self) -> Array:
        """Rotation of the optical frame in the body's, (3, 3); columns are right, down, forward."""
        forward = np.subtract(self.target, self.eye)
        right = np.cross(forward, self.up)
        axes = np.stack([right, np.cross(forward, right), forward], axis=1)
        return axes / np.linalg.norm(axes, axis=0)


def load_rig(name: str, robot: str) -> tuple[Camera, ...]:
    """The cameras of ``configs/camera/<name>.yaml`` on a robot; a name that ends in ``.yaml`` is a file of one's own.

    Raises:
        ConfigError: If there is no such rig, device or mount for the robot, or a key is missing, unknown or impossible.
    """
    path = Path(name) if name.endswith(".yaml") else files("palmar.configs") / "camera" / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(f"no camera rig {name!r}; there are {list(rig_names())}, or a path that ends in .yaml")
    raw = yaml.safe_load(path.read_text())
    if not isinstance(raw, dict) or not raw:
        raise ConfigError(f"{name}: a rig maps names to cameras, got {raw!r}")
    return tuple(_camera(key, entry, robot) for key, entry in raw.items())


def rig_names() -> tuple[str, ...]:
    """Names that ``load_rig`` accepts."""
    found = (p.name for p in (files("palmar.configs") / "camera").iterdir())
    return tuple(sorted(n.removesuffix(".yaml") for n in found if n.endswith(".yaml")))


def _camera(name: str, raw: Any, robot: str) -> Camera:
    """One entry of a rig."""
    one = {"device", "width", "height", "mount"}
    if not isinstance(raw, dict) or set(raw) not in (one, one - {"mount"} | {"mounts"}):
        raise ConfigError(f"camera {name} needs device, width, height and mount or mounts, got {raw!r}")
    if "mounts" in raw and robot not in raw["mounts"]:
        raise ConfigError(f"camera {name} has no mount for robot {robot!r}; there are {sorted(raw['mounts'])}")
    place = raw["mounts"][robot] if "mounts" in raw else raw["mount"]
    if not isinstance(place, dict) or set(place) != {"body", "eye", "target", "up"}:
        raise ConfigError(f"mount of camera {name} needs body, eye, target and up, got {place!r}")
    return Camera(name, load_device(raw["device"]), raw["width"], raw["height"], **place)


def mount(spec: mujoco.MjSpec, cameras: Sequence[Camera]) -> None:
    """Add each camera to a scene, with its pinhole as MuJoCo writes it.  Nothing is added that could be touched.

    Raises:
        ConfigError: If a body is unknown or a name is taken.
    """
    bodies = {b.name for b in spec.bodies}
    taken = {c.name for c in spec.cameras}
    for camera in cameras:
        if camera.body not in bodies:
            raise ConfigError(f"camera {camera.name}: no body {camera.body!r}; there are {sorted(bodies)}")
        if camera.name in taken:
            raise ConfigError(f"camera {camera.name!r} is there already; taken are {sorted(taken)}")
        taken.add(camera.name)
        k, quat = camera.intrinsics, np.zeros(4)
        mujoco.mju_mat2Quat(quat, (camera.turn * (1, -1, -1)).ravel())  # MuJoCo looks along -z, y up
        new = spec.body(camera.body).add_camera(name=camera.name, pos=camera.eye, quat=quat)
        new.resolution = [k.width, k.height]
        new.sensor_size = [PITCH * k.width, PITCH * k.height]
        new.focal_pixel = [k.fx, k.fy]
        # MuJoCo's principal point counts from the middle of the image, against the pixels' directions.
        new.principal_pixel = [k.width / 2 - k.cx - 0.5, k.height / 2 - k.cy - 0.5]
