"""What an RGB-D camera of the RealSense D400 series measures: a pinhole for colour, a stereo pair for depth.

Frames: optical, x right, y down, z forward [m].  Pixels: column u, row v; the centre of the first one is (0, 0).
Numbers and their sources are in ``configs/camera/devices``.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from importlib.resources import files
from typing import Any

import numpy as np
import yaml

from palmar.safety.types import ConfigError

Array = np.ndarray
DEVICES = "camera/devices"


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole without distortion."""

    width: int
    height: int
    fx: float
    """[px]."""
    fy: float
    cx: float
    """Principal point [px]."""
    cy: float

    def __post_init__(self) -> None:
        whole = isinstance(self.width, int) and isinstance(self.height, int)
        if not (whole and min(self.width, self.height) > 0 and min(self.fx, self.fy) > 0):
            raise ConfigError(f"need whole width, height > 0 and fx, fy > 0, got {self}")
        if not (0 < self.cx < self.width and 0 < self.cy < self.height):
            raise ConfigError(f"the principal point must lie in the image, got {self}")

    def resized(self, width: int, height: int) -> Intrinsics:
        """The same view in another resolution.

        Raises:
            ConfigError: If the ratio of the sides differs: pixels would no longer be as wide as they are high.
        """
        if not (isinstance(width, int) and isinstance(height, int) and 0 < width and 0 < height):
            raise ConfigError(f"resolution must be two whole numbers > 0, got {width!r} x {height!r}")
        if width * self.height != height * self.width:
            raise ConfigError(
                f"resolution {width} x {height} is not {self.width} x {self.height} made smaller or larger"
            )
        s = width / self.width
        cx, cy = ((c + 0.5) * s - 0.5 for c in (self.cx, self.cy))
        return Intrinsics(width, height, self.fx * s, self.fy * s, cx, cy)

    @property
    def field_of_view(self) -> tuple[float, float]:
        """Horizontal and vertical, between the outer edges of the image [deg]."""
        across = np.arctan2(self.cx + 0.5, self.fx) + np.arctan2(self.width - self.cx - 0.5, self.fx)
        down = np.arctan2(self.cy + 0.5, self.fy) + np.arctan2(self.height - self.cy - 0.5, self.fy)
        return float(np.degrees(across)), float(np.degrees(down))

    def project(self, points: Array) -> Array:
        """Pixels (..., 2) of points (..., 3) in the optical frame; not a number behind the camera."""
        z = np.where(points[..., 2:] > 0, points[..., 2:], np.nan)
        return points[..., :2] / z * (self.fx, self.fy) + (self.cx, self.cy)

    def rays(self) -> Array:
        """Points of each pixel's centre at z = 1, (height, width, 3): times depth they are the surface."""
        u, v = np.meshgrid(np.arange(self.width), np.arange(self.height))
        return np.stack([(u - self.cx) / self.fx, (v - self.cy) / self.fy, np.ones_like(u, dtype=float)], axis=-1)


@dataclass(frozen=True)
class Stereo:
    """How a depth comes about: a disparity d = focal * baseline / z, found with an error and in steps.

    An error of ``subpixel`` makes one of z^2 * subpixel / (focal * baseline) in depth: quadratic in the distance
    (Intel, "Tuning depth cameras for best performance", RMS error).  Errors of neighbouring pixels are independent
    here; those of the real camera are smooth over a few pixels, which averaging does not remove.
    """

    focal: float
    """Of the imagers that are matched [px]; their resolution, not that of the image."""
    baseline: float
    """[m]."""
    field_of_view: float
    """Of the imagers, horizontal [deg]."""
    subpixel: float
    """Standard deviation of a disparity [px]."""
    step: float
    """Of disparities [px]."""
    unit: float
    """Of reported depths [m]."""
    near: float
    """Depths nearer or farther than these are reported as none [m]."""
    far: float
    edge_loss: float
    """Probability that a pixel next to a jump of depth finds no match."""

    def __post_init__(self) -> None:
        positive = (self.focal, self.baseline, self.step, self.unit, self.near)
        if not (min(positive) > 0 and self.near < self.far and self.subpixel >= 0 and 0 <= self.edge_loss <= 1):
            raise ConfigError(f"need lengths and steps > 0, near < far, edge_loss in [0, 1], got {self}")
        if not 0 < self.field_of_view < 180:
            raise ConfigError(f"field_of_view must be in (0, 180) deg, got {self.field_of_view}")

    def error(self, z: Array) -> Array:
        """Standard deviation of depth at distance z [m]."""
        return np.square(z) * self.subpixel / (self.focal * self.baseline)

    def measure(self, depth: Array, intrinsics: Intrinsics, rng: np.random.Generator) -> Array:
        """What the camera reports of true depths [m], (h, w) float32; 0 where it finds none, as the real one.

        Lost are depths out of range, what only one imager sees (to the left of nearer things, for the second
        imager is on the right), and some pixels at edges.  The pinhole of the image stands for the first imager.
        """
        with np.errstate(divide="ignore"):
            disparity = self.focal * self.baseline / np.where(depth > 0, depth, np.inf)
        shift = disparity * (intrinsics.fx / self.focal)  # px of this image
        lost = (depth < self.near) | (depth > self.far) | self.hidden(shift, intrinsics)
        lost |= edge(shift) & (rng.random(depth.shape, dtype=np.float32) < self.edge_loss)
        found = disparity + self.subpixel * rng.standard_normal(depth.shape, dtype=np.float32)
        found = np.round(found / self.step) * self.step
        z = self.focal * self.baseline / np.maximum(found, self.step)
        z = np.round(z / self.unit) * self.unit
        return np.where(lost | (z < self.near) | (z > self.far), 0.0, z).astype(np.float32)

    def hidden(self, shift: Array, intrinsics: Intrinsics) -> Array:
        """Where the second imager sees something else, or nothing, (h, w) bool.

        A pixel u appears at u - shift in the second image; whatever lies to its right in the first image and to the
        left of that place in the second covers it.
        """
        place = np.arange(intrinsics.width) - shift
        least = np.minimum.accumulate(place[:, ::-1], axis=1)[:, ::-1]
        covered = np.zeros(place.shape, dtype=bool)
        covered[:, :-1] = least[:, 1:] < place[:, :-1]
        beyond = intrinsics.fx * np.tan(np.radians(self.field_of_view) / 2) - intrinsics.cx - 0.5
        return covered | (place < -max(beyond, 0.0))


def edge(shift: Array) -> Array:
    """Pixels where the disparity changes by more than a pixel per pixel, (h, w) bool.

    No match is found across such a change: the disparity gradient limit (Burt and Julesz, Science 208, 1980).
    """
    out = np.zeros(shift.shape, dtype=bool)
    across, down = (np.abs(np.diff(shift, axis=a)) > 1.0 for a in (1, 0))
    out[:, 1:] |= across
    out[:, :-1] |= across
    out[1:] |= down
    out[:-1] |= down
    return out


@dataclass(frozen=True)
class Device:
    """A camera one can buy."""

    name: str
    intrinsics: Intrinsics
    """At its native resolution."""
    published: dict[str, float]
    """``horizontal``, ``vertical`` field of view and ``tolerance`` of the datasheet [deg]."""
    stereo: Stereo
    rate: float
    """Frames per second [Hz]."""
    latency: float
    """From exposure to use [s]."""

    def __post_init__(self) -> None:
        if not (self.rate > 0 and self.latency >= 0):
            raise ConfigError(f"device {self.name}: need rate > 0 and latency >= 0, got {self.rate}, {self.latency}")


def device_names() -> tuple[str, ...]:
    """Names that ``load_device`` accepts."""
    return tuple(sorted(p.name.removesuffix(".yaml") for p in (files("palmar.configs") / DEVICES).iterdir()))


def load_device(name: str) -> Device:
    """The device called ``name`` in ``configs/camera/devices``.

    Raises:
        ConfigError: If there is none, or a key is missing, unknown or impossible.
    """
    if name not in device_names():
        raise ConfigError(f"no camera device {name!r}; there are {list(device_names())}")
    return device_of(yaml.safe_load((files("palmar.configs") / DEVICES / f"{name}.yaml").read_text()))


def device_of(raw: dict[str, Any]) -> Device:
    """A device from the keys of its YAML."""
    pinhole, stereo = ([f.name for f in fields(kind)] for kind in (Intrinsics, Stereo))
    _keys("a camera device", raw, {"name", *pinhole, "field_of_view", "rate", "latency", "depth"})
    _keys(f"depth of {raw['name']}", raw["depth"], set(stereo))
    _keys(f"field_of_view of {raw['name']}", raw["field_of_view"], {"horizontal", "vertical", "tolerance"})
    intrinsics = Intrinsics(**{k: raw[k] for k in pinhole})
    return Device(
        raw["name"], intrinsics, raw["field_of_view"], Stereo(**raw["depth"]), raw["rate"], raw["latency"]
    )  # fmt: skip


def _keys(what: str, raw: Any, wanted: set[str]) -> None:
    """Refuse a mapping with other keys than those wanted."""
    if not isinstance(raw, dict) or set(raw) != wanted:
        got = sorted(raw) if isinstance(raw, dict) else raw
        raise ConfigError(f"{what} needs the keys {sorted(wanted)}, got {got}")
