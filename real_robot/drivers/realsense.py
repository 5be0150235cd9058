"""Intel RealSense cameras of the D400 series through pyrealsense2 (``pip install 'palmar[realsense]'``).

Colour and depth of the same exposure, depth aligned to colour by librealsense.  A picture is stamped by the camera's
clock where librealsense knows how that runs (its ``global_time`` and ``system_time``), else by its arrival less
``transfer``.  Nothing is ever given twice: a camera whose frame numbers stand still counts as silent.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from palmar.real_robot.drivers.cameras import Pinhole, Shot
from palmar.real_robot.drivers.error import DriverError
from palmar.safety.types import ConfigError

RATES = (5, 6, 15, 30, 60, 90)
"""Frames per second that the series has [Hz]."""


@dataclass(frozen=True)
class RealSenseConfig:
    """One camera."""

    name: str
    """Of the camera in Palmar, such as ``wrist``."""
    serial: str = ""
    """Serial number; '' for the only one there is."""
    width: int = 640
    height: int = 480
    rate: int = 30
    """[Hz]."""
    depth: bool = True
    silent: float = 0.5
    """Without a new picture for this long it counts as gone [s]."""
    transfer: float = 0.03
    """From exposure to arrival, where the camera's clock is not known to librealsense [s]."""

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ConfigError(f"camera name {self.name!r}: need letters, digits and underscores")
        if min(self.width, self.height) < 1 or self.rate not in RATES:
            raise ConfigError(f"camera {self.name}: {self.width} x {self.height} px at {self.rate} Hz; rates {RATES}")
        if not (0 < self.silent <= 10 and 0 <= self.transfer <= 1):
            raise ConfigError(f"camera {self.name}: need 0 < silent <= 10, 0 <= transfer <= 1 s, got {self}")


class RealSense:
    """One open camera; a ``CameraSource``."""

    def __init__(self, config: RealSenseConfig, device: Any):
        """Start the streams of ``device``, a ``pyrealsense2.device``.

        Raises:
            ConfigError: If pyrealsense2 is missing, it has no such stream, or its pictures are distorted.
            DriverError: If it does not start.
        """
        rs = self._rs = _library()
        self.config, self._device = config, device
        profiles = self._profiles(device)
        self.pinholes = {config.name: self._pinhole(profiles["color"][1])}
        self._sync, self._align = rs.syncer(), rs.align(rs.stream.color)
        self._sensors: list[Any] = []
        try:
            for sensor, profile in profiles.values():
                sensor.open(profile)
                sensor.start(self._sync)
                self._sensors.append(sensor)
        except RuntimeError as error:
            self.close()
            raise DriverError(f"camera {config.name} does not start: {error}") from error
        self._number, self._last = -1, time.monotonic()

    def read(self) -> list[Shot]:
        """The newest exposure since the last call, or nothing.

        Raises:
            DriverError: If there was none for ``config.silent`` seconds.
        """
        found = None
        while True:  # the newest only: older ones are worth nothing
            frames = self._sync.poll_for_frames()
            if not frames or frames.size() == 0:
                break
            shot = self._shot(frames)
            found = shot or found
        now = time.monotonic()
        if found is not None:
            self._last = now
            return [found]
        if now - self._last > self.config.silent:
            raise DriverError(
                f"camera {self.config.name} gave no new picture for {now - self._last:.2f} s, "
                f"accepted up to {self.config.silent} s"
            )
        return []

    def close(self) -> None:
        """Stop the streams."""
        for sensor in self._sensors:
            for end in (sensor.stop, sensor.close):
                try:
                    end()
                except RuntimeError:  # it is gone already
                    pass
        self._sensors = []

    def _shot(self, frames: Any) -> Shot | None:
        """A whole and new set of frames; None for half of one, or one that was seen before."""
        color = frames.get_color_frame()
        if not color or (self.config.depth and not frames.get_depth_frame()):
            return None
        number = color.get_frame_number()
        if number <= self._number:
            return None
        at, depth = self._exposed(color), None
        if self.config.depth:
            z = self._align.process(frames).get_depth_frame()
            depth = np.asarray(z.get_data()).astype(np.float32) * np.float32(z.get_units())
        self._number = number
        return Shot(self.config.name, at, np.array(color.get_data(), dtype=np.uint8), depth)

    def _exposed(self, frame: Any) -> float:
        """Monotonic time of an exposure [s]."""
        now = time.monotonic()
        if frame.get_frame_timestamp_domain() == self._rs.timestamp_domain.hardware_clock:
            return now - self.config.transfer
        return now - (time.time() - 1e-3 * frame.get_timestamp())

    def _profiles(self, device: Any) -> dict[str, tuple[Any, Any]]:
        """Sensor and profile of each stream wanted."""
        rs, c = self._rs, self.config
        need = {"color": (rs.stream.color, rs.format.rgb8)}
        if c.depth:
            need["depth"] = (rs.stream.depth, rs.format.z16)
        out, there = {}, []
        for sensor in device.query_sensors():
            for profile in sensor.get_stream_profiles():
                if not profile.is_video_stream_profile():
                    continue
                p = profile.as_video_stream_profile()
                there.append(f"{p.stream_name()} {p.width()} x {p.height()} at {p.fps()} Hz {p.format().name}")
                for name, (stream, form) in need.items():
                    same = (p.stream_type(), p.format(), p.width(), p.height(), p.fps())
                    if same == (stream, form, c.width, c.height, c.rate):
                        out.setdefault(name, (sensor, p))
        if missing := sorted(set(need) - set(out)):
            raise ConfigError(
                f"camera {c.name} has no {missing} of {c.width} x {c.height} px at {c.rate} Hz; it has {there[:40]}"
            )
        return out

    def _pinhole(self, profile: Any) -> Pinhole:
        k = profile.get_intrinsics()
        if any(abs(x) > 1e-9 for x in k.coeffs):
            raise ConfigError(f"camera {self.config.name} has distorted pictures ({k.model.name} {list(k.coeffs)})")
        return Pinhole(k.width, k.height, k.fx, k.fy, k.ppx, k.ppy)


class Cameras:
    """Several cameras as one source."""

    def __init__(self, cameras: Sequence[RealSense]):
        self._cameras = tuple(cameras)
        self.pinholes = {name: k for c in self._cameras for name, k in c.pinholes.items()}

    def read(self) -> list[Shot]:
        """What was exposed since the last call.

        Raises:
            DriverError: If a camera is silent; what the others gave is lost with it, they will give more.
        """
        return [shot for c in self._cameras for shot in c.read()]

    def close(self) -> None:
        """Stop them all."""
        for c in self._cameras:
            c.close()


def _library() -> Any:
    """pyrealsense2, whose types are not written down."""
    try:
        return import_module("pyrealsense2")
    except ImportError as error:
        raise ConfigError(f"{error}: pip install 'palmar[realsense]'") from error


def open_cameras(configs: Sequence[RealSenseConfig]) -> Cameras:
    """Open the cameras that are plugged in.

    Raises:
        ConfigError: If pyrealsense2 is missing, or two configurations name one camera.
        DriverError: If one is not there.
    """
    rs = _library()
    if len({c.name for c in configs}) != len(configs) or len({c.serial for c in configs}) != len(configs):
        raise ConfigError(f"cameras need different names and serial numbers, got {list(configs)}")
    there = {d.get_info(rs.camera_info.serial_number): d for d in rs.context().query_devices()}
    opened: list[RealSense] = []
    try:
        for c in configs:
            serial = c.serial or (next(iter(there)) if len(there) == 1 else "")
            if serial not in there:
                raise DriverError(f"camera {c.name}: no RealSense {c.serial!r}; plugged in are {sorted(there)}")
            opened.append(RealSense(c, there[serial]))
    except BaseException:
        Cameras(opened).close()
        raise
    return Cameras(opened)
