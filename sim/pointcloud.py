"""Point clouds of RGB-D frames in the world frame, through Open3D: crop, thin out, normals.

Open3D is an extra, ``pip install 'palmar[perception]'``, and is imported at the first call.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import mujoco
import numpy as np

from palmar.safety.types import ConfigError, PalmarError
from palmar.sim.realsense import Intrinsics

Array = np.ndarray


class CloudRefused(PalmarError):
    """A frame that cannot be made into points: its shape, or a number that is not finite."""


@dataclass(frozen=True)
class Cloud:
    """Points on surfaces that a camera has seen."""

    points: Array
    """World frame [m], (N, 3)."""
    color: Array
    """(N, 3) in [0, 1]; none, (0, 3), if the cloud was made without."""
    normal: Array
    """Unit vectors towards the camera, (N, 3); none, (0, 3), before ``with_normals``."""


def from_depth(
    depth: Array, intrinsics: Intrinsics, pose: Array, *, color: Array | None = None, keep: Array | None = None
) -> Cloud:
    """The points of one frame.

    Args:
        depth: Along the optical axis [m], (h, w); 0 has no point.
        intrinsics: Of the camera, at this resolution.
        pose: Position [m] and quaternion w-x-y-z of the optical frame (x right, y down) in the world, (7,).
        color: (h, w, 3) uint8.
        keep: Pixels to use, (h, w) bool: a segment.

    Raises:
        CloudRefused: If a shape does not fit or depth or pose are not finite.
        ConfigError: If Open3D cannot be loaded.
    """
    _check(depth, intrinsics, pose, color, keep)
    o3d, k = open3d(), intrinsics
    z = depth if keep is None else np.where(keep, depth, 0.0)
    pinhole = o3d.camera.PinholeCameraIntrinsic(k.width, k.height, k.fx, k.fy, k.cx, k.cy)
    image = o3d.geometry.Image(np.ascontiguousarray(z, dtype=np.float32))
    seen = _inverse(pose)
    if color is None:
        cloud = o3d.geometry.PointCloud.create_from_depth_image(
            image, pinhole, seen, depth_scale=1.0, depth_trunc=np.inf
        )
    else:
        both = o3d.geometry.RGBDImage.create_from_color_and_depth(
            o3d.geometry.Image(np.ascontiguousarray(color)), image,
            depth_scale=1.0, depth_trunc=np.inf, convert_rgb_to_intensity=False,
        )  # fmt: skip
        cloud = o3d.geometry.PointCloud.create_from_rgbd_image(both, pinhole, seen)
    return _of(cloud)


def joined(clouds: Sequence[Cloud]) -> Cloud:
    """The points of several cameras as one cloud; colours and normals only if all have them."""
    parts = [[getattr(c, key) for c in clouds] for key in ("points", "color", "normal")]
    whole = [all(len(p) == len(q) for p, q in zip(part, parts[0], strict=True)) for part in parts]
    return Cloud(*(np.concatenate(p) if w else np.zeros((0, 3)) for p, w in zip(parts, whole, strict=True)))


def cropped(cloud: Cloud, lower: Array, upper: Array) -> Cloud:
    """The points in an upright box between two corners (3,) [m].

    Raises:
        CloudRefused: If the box is empty or not finite.
    """
    lower, upper = np.asarray(lower, dtype=np.float64), np.asarray(upper, dtype=np.float64)
    if lower.shape != (3,) or upper.shape != (3,) or not np.all(lower < upper):
        raise CloudRefused(f"a box needs two corners (3,) with lower < upper, got {lower}, {upper}")
    box = open3d().geometry.AxisAlignedBoundingBox(lower, upper)
    return _of(_to(cloud).crop(box))


def thinned(cloud: Cloud, voxel: float) -> Cloud:
    """One point, the mean, per cube of side ``voxel`` [m]."""
    if not voxel > 0:
        raise CloudRefused(f"voxel must be > 0 m, got {voxel}")
    return _of(_to(cloud).voxel_down_sample(voxel))


def with_normals(cloud: Cloud, eye: Array, *, radius: float = 0.02, most: int = 30) -> Cloud:
    """The cloud with the normals of planes through each point's neighbours, turned towards ``eye`` (3,).

    Args:
        cloud: Any.
        eye: Where the camera is, world frame [m].
        radius: Of the neighbourhood [m].
        most: Neighbours that count.
    """
    eye = np.asarray(eye, dtype=np.float64)
    if eye.shape != (3,) or not np.isfinite(eye).all() or not radius > 0 or most < 3:
        raise CloudRefused(f"need eye (3,), radius > 0 and at least 3 neighbours, got {eye}, {radius}, {most}")
    o3d, out = open3d(), _to(cloud)
    if len(cloud.points):
        out.estimate_normals(o3d.geometry.KDTreeSearchParamHybrid(radius=radius, max_nn=most))
        out.orient_normals_towards_camera_location(eye)
    return _of(out)


@cache
def open3d() -> Any:
    """Open3D's module.

    Its library wants libusb (for cameras we do not open here); where the system has none, the one of the package
    ``libusb-package`` is loaded first.

    Raises:
        ConfigError: If it cannot be loaded, with what to install.
    """
    try:
        try:
            ctypes.CDLL("libusb-1.0.so.0", mode=ctypes.RTLD_GLOBAL)
        except OSError:
            import libusb_package

            ctypes.CDLL(str(libusb_package.get_library_path()), mode=ctypes.RTLD_GLOBAL)
        import open3d as module
    except (ImportError, OSError) as error:
        raise ConfigError(
            f"Open3D cannot be loaded ({error}): pip install 'palmar[perception]', and on Debian or Ubuntu "
            "apt install libgl1 libx11-6 libegl1 libusb-1.0-0"
        ) from error
    return module


def _check(depth: Array, k: Intrinsics, pose: Array, color: Array | None, keep: Array | None) -> None:
    """Refuse what does not fit together."""
    size = (k.height, k.width)
    for name, value, shape in (
        ("depth", depth, size), ("pose", pose, (7,)), ("color", color, (*size, 3)), ("keep", keep, size),
    ):  # fmt: skip
        if value is not None and np.shape(value) != shape:
            raise CloudRefused(f"{name} has shape {np.shape(value)}, need {shape}")
    if not (np.isfinite(depth).all() and np.min(depth) >= 0):
        raise CloudRefused("depth must be finite and >= 0 everywhere; 0 says that there is none")
    if not np.isfinite(pose).all() or abs(np.linalg.norm(pose[3:]) - 1) > 1e-6:
        raise CloudRefused(f"pose must be finite with a unit quaternion, got {np.asarray(pose).tolist()}")
    if color is not None and color.dtype != np.uint8:
        raise CloudRefused(f"color must be uint8, got {color.dtype}")


def _inverse(pose: Array) -> Array:
    """World to optical frame, (4, 4), of the pose of the optical frame in the world."""
    turn, out = np.zeros(9), np.eye(4)
    mujoco.mju_quat2Mat(turn, np.asarray(pose[3:], dtype=np.float64))
    out[:3, :3] = turn.reshape(3, 3).T
    out[:3, 3] = -out[:3, :3] @ pose[:3]
    return out


def _to(cloud: Cloud) -> Any:
    """Open3D's cloud of ours."""
    o3d = open3d()
    out = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(cloud.points))
    if len(cloud.color):
        out.colors = o3d.utility.Vector3dVector(cloud.color)
    if len(cloud.normal):
        out.normals = o3d.utility.Vector3dVector(cloud.normal)
    return out


def _of(cloud: Any) -> Cloud:
    """Ours of Open3D's, copied."""
    return Cloud(*(np.array(x).reshape(-1, 3) for x in (cloud.points, cloud.colors, cloud.normals)))
