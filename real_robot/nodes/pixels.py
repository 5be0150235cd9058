"""Pictures between arrays and messages: ``sensor_msgs/Image`` and ``CompressedImage``.

Colour is (h, w, 3) uint8, red first.  Depth is (h, w) float32 [m] along the optical axis, 0 where there is none; as a
message it is ``16UC1`` in millimetres (REP 118), or ``32FC1`` in metres with NaN and infinity for none.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image as Pillow
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from palmar.real_robot.nodes.stamps import SightRefused
from palmar.safety.types import Array

KINDS = ("color", "depth")
COLOR = {"rgb8": (0, 1, 2), "bgr8": (2, 1, 0)}
"""Accepted encodings of colour, and where red, green and blue are in a pixel."""
DEPTH = {"16UC1": ("u2", 1e-3), "32FC1": ("f4", 1.0)}
"""Accepted encodings of depth: type and unit [m]."""
FORMATS = {"color": ("JPEG", "PNG"), "depth": ("PNG",)}
"""Compressed formats; depth survives no lossy one."""
LARGEST = 64 * 2**20
"""No picture is larger [bytes]."""
QUALITY = 90
"""Of JPEG."""


def message(pixels: Array, at: Any, frame: str) -> Image:
    """An array as an Image, ``rgb8`` or ``16UC1``, stamped ``at``."""
    raw = pixels if pixels.ndim == 3 else millimetres(pixels)
    height, width = raw.shape[:2]
    out = Image(height=height, width=width, encoding="rgb8" if pixels.ndim == 3 else "16UC1")
    out.header.stamp, out.header.frame_id = at, frame
    out.step = raw[0].nbytes
    # rclpy checks every byte of a list, but takes an array of bytes as it is.
    out.data.frombytes(np.ascontiguousarray(raw).astype(raw.dtype.newbyteorder("<"), copy=False).tobytes())
    return out


def compressed(pixels: Array, at: Any, frame: str) -> CompressedImage:
    """An array as a CompressedImage: JPEG for colour, PNG of 16 bits for depth; image_transport's format strings."""
    buffer = io.BytesIO()
    if pixels.ndim == 3:
        Pillow.fromarray(pixels).save(buffer, "JPEG", quality=QUALITY)
        out = CompressedImage(format="rgb8; jpeg compressed bgr8")
    else:
        Pillow.fromarray(millimetres(pixels)).save(buffer, "PNG", compress_level=1)
        out = CompressedImage(format="16UC1; png compressed ")
    out.header.stamp, out.header.frame_id = at, frame
    out.data.frombytes(buffer.getvalue())
    return out


def info(k: Any, at: Any, frame: str) -> CameraInfo:
    """The pinhole ``k`` (width, height, fx, fy, cx, cy [px]) without distortion."""
    out = CameraInfo(width=k.width, height=k.height, distortion_model="plumb_bob", d=[0.0] * 5)
    out.header.stamp, out.header.frame_id = at, frame
    out.k = [k.fx, 0.0, k.cx, 0.0, k.fy, k.cy, 0.0, 0.0, 1.0]
    out.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    out.p = [k.fx, 0.0, k.cx, 0.0, 0.0, k.fy, k.cy, 0.0, 0.0, 0.0, 1.0, 0.0]
    return out


def millimetres(depth: Array) -> Array:
    """Depth [m] as uint16 [mm]; 0 where it is none, not a number, or beyond 65.5 m."""
    z = np.where(np.isfinite(depth), depth, 0.0) * 1e3
    return np.where((z < 0) | (z > 65535), 0, np.rint(z)).astype(np.uint16)


def pixels(message: Any, kind: str, *, width: int, height: int) -> Array:
    """The array in an Image or CompressedImage.

    Args:
        message: The message.
        kind: ``color`` or ``depth``.
        width: Wanted [px].
        height: Likewise.

    Raises:
        SightRefused: If its ``encoding`` is not accepted, its ``size`` not the wanted one, its data ``damaged``, or it
            has no ``depth`` anywhere.
    """
    raw = _packed(message, kind) if hasattr(message, "format") else _plain(message, kind)
    if raw.shape[:2] != (height, width):
        got = f"{raw.shape[1]} x {raw.shape[0]}"
        raise SightRefused(f"size: a {kind} picture of {got} px, accepted {width} x {height}")
    if kind == "color":
        return raw
    z = np.where(np.isfinite(raw) & (raw > 0), raw, 0.0).astype(np.float32)
    if not z.any():
        raise SightRefused(f"depth: no pixel of {z.size} has a depth")
    return z


def _plain(message: Any, kind: str) -> Array:
    """Colour (h, w, 3) uint8, or depth (h, w) [m], of an Image."""
    accepted: Any = COLOR if kind == "color" else DEPTH
    if message.encoding not in accepted:
        raise SightRefused(f"encoding: a {kind} picture in {message.encoding!r}, accepted {list(accepted)}")
    height, width, step = message.height, message.width, message.step
    one = 3 if kind == "color" else np.dtype(DEPTH[message.encoding][0]).itemsize
    if not (0 < height * step <= LARGEST and width * one <= step and len(message.data) == height * step):
        raise SightRefused(
            f"damaged: {len(message.data)} bytes for {width} x {height} px of {one} bytes in rows of {step}; "
            f"need height * step of them, at most {LARGEST}"
        )
    rows = np.frombuffer(bytes(message.data), np.uint8).reshape(height, step)[:, : width * one]
    if kind == "color":
        return rows.reshape(height, width, 3)[..., list(COLOR[message.encoding])]
    code, unit = DEPTH[message.encoding]
    order = ">" if message.is_bigendian else "<"
    return np.ascontiguousarray(rows).view(order + code).reshape(height, width) * np.float32(unit)


def _packed(message: Any, kind: str) -> Array:
    """The same of a CompressedImage; its size is looked at before it is unpacked."""
    data = bytes(message.data)
    if len(data) > LARGEST:
        raise SightRefused(f"damaged: {len(data)} bytes, accepted up to {LARGEST}")
    try:
        with Pillow.open(io.BytesIO(data), formats=FORMATS[kind]) as picture:
            if picture.width * picture.height * 4 > LARGEST:
                raise SightRefused(f"size: {picture.width} x {picture.height} px, accepted up to {LARGEST} bytes")
            if kind == "depth" and picture.mode not in ("I;16", "I;16B", "I"):
                raise SightRefused(f"encoding: depth as {picture.mode!r}, accepted 16 bit grey PNG")
            return np.asarray(picture.convert("RGB")) if kind == "color" else np.asarray(picture) * np.float32(1e-3)
    except SightRefused:
        raise
    except Exception as error:  # whatever a damaged file makes a decoder raise
        raise SightRefused(f"damaged: {message.format!r} does not open as {FORMATS[kind]}: {error}") from error
