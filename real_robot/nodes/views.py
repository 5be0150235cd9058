"""What a policy looks at: pictures matched to joint readings by their stamps.

A policy's contract names its views among its observations: ``view/<camera>/<color|depth>``, of unit
``<width>x<height>`` px.  Each is acted on only while it is fresh and a joint reading of the same moment is known:
the policy is given the joints at the time of exposure beside each picture, as a wrist camera needs.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from palmar.real_robot.nodes import pixels, stamps
from palmar.real_robot.nodes.stamps import SightRefused
from palmar.safety.types import Array, ConfigError

PREFIX = "view/"
SKEW, OLDEST = 0.02, 0.5
"""Defaults: largest distance in time of a picture and its joint reading, oldest picture that is acted on [s]."""
REMEMBERED = 256
"""Joint readings, 2.5 s at 100 Hz."""


@dataclass(frozen=True)
class Wanted:
    """A view that a policy was made for."""

    camera: str
    kind: str
    """``color`` or ``depth``."""
    width: int
    height: int

    def __post_init__(self) -> None:
        if self.kind not in pixels.KINDS or min(self.width, self.height) < 1 or not self.camera.isidentifier():
            raise ConfigError(
                f"view {self.camera!r}/{self.kind!r} of {self.width} x {self.height} px: need a plain name, "
                f"a kind in {list(pixels.KINDS)} and at least one pixel"
            )

    @property
    def frame(self) -> str:
        """Name of the optical frame it must be in; depth is aligned to colour."""
        return f"{self.camera}_color_optical_frame"

    @property
    def name(self) -> str:
        """As the contract calls it."""
        return f"{PREFIX}{self.camera}/{self.kind}"


@dataclass(frozen=True)
class View:
    """One picture to act on."""

    stamp: float
    """Time of exposure on ROS's clock [s]."""
    pixels: Array
    """(h, w, 3) uint8, or depth (h, w) float32 [m], 0 for none."""
    q: Array
    """Joint reading nearest to the exposure [rad], (n,)."""


def wanted(observation: Sequence[tuple[str, int, str]]) -> tuple[Wanted, ...]:
    """The views among the parts (name, size, unit) of an observation.

    Raises:
        ConfigError: If one's name, size or unit is not of the form that the module describes.
    """
    return tuple(_wanted(*part) for part in observation if part[0].startswith(PREFIX))


def _wanted(name: str, size: int, unit: str) -> Wanted:
    found, shape = re.fullmatch(r"view/(\w+)/(color|depth)", name), re.fullmatch(r"(\d+)x(\d+)", unit)
    if not found or not shape:
        raise ConfigError(f"view {name!r} of unit {unit!r}: need 'view/<camera>/<color|depth>' and '<width>x<height>'")
    view = Wanted(found[1], found[2], int(shape[1]), int(shape[2]))
    need = view.width * view.height * (3 if view.kind == "color" else 1)
    if size != need:
        raise ConfigError(f"view {name!r} of {unit} px has size {size}, need {need}")
    return view


class Views:
    """The newest picture of each wanted view, and the joint readings of the last moments."""

    def __init__(self, wants: Sequence[Wanted], *, skew: float = SKEW, oldest: float = OLDEST):
        """Nothing was seen yet; ``skew`` and ``oldest`` are in seconds."""
        self.wants, self.skew, self.oldest = tuple(wants), skew, oldest
        self._seen: list[tuple[float, Array] | None] = [None] * len(self.wants)
        self._readings: deque[tuple[float, Array]] = deque(maxlen=REMEMBERED)

    def joints(self, stamp: float, q: Array) -> None:
        """Remember a joint reading (n,) [rad] of time ``stamp`` [s]."""
        self._readings.append((stamp, q))

    def take(self, k: int, message: Any, now: float) -> None:
        """Take a picture of view k at time ``now`` on ROS's clock [s].

        Raises:
            SightRefused: If its ``frame``, ``encoding`` or ``size`` is wrong, its data ``damaged``, no pixel has a
                ``depth``, or it is ``old``, in the ``future`` or not in ``order``.
        """
        want, last = self.wants[k], self._seen[k]
        if message.header.frame_id != want.frame:
            raise SightRefused(f"frame: {want.name} comes in {message.header.frame_id!r}, accepted {want.frame!r}")
        at = stamps.seconds(message.header.stamp)
        stamps.age(want.name, at, now, oldest=self.oldest)
        stamps.after(want.name, at, last[0] if last else None)
        self._seen[k] = at, pixels.pixels(message, want.kind, width=want.width, height=want.height)

    def look(self, now: float) -> tuple[View, ...]:
        """Every wanted view to act on at time ``now`` on ROS's clock [s].

        Raises:
            SightRefused: If one was never seen (``unseen``), is ``old``, or has no joint reading near (``skew``).
        """
        return tuple(self._view(want, seen, now) for want, seen in zip(self.wants, self._seen, strict=True))

    def forget(self) -> None:
        """As if nothing had been seen: an episode begins."""
        self._seen = [None] * len(self.wants)
        self._readings.clear()

    def _view(self, want: Wanted, seen: tuple[float, Array] | None, now: float) -> View:
        if seen is None:
            raise SightRefused(f"unseen: no picture of {want.name} yet")
        at, picture = seen
        stamps.age(want.name, at, now, oldest=self.oldest)
        if not self._readings:
            raise SightRefused(f"skew: no joint reading to go with {want.name}")
        apart = np.abs(np.array([t for t, _ in self._readings]) - at)
        nearest = int(np.argmin(apart))
        if apart[nearest] > self.skew:
            raise SightRefused(
                f"skew: the joint reading nearest to {want.name} is {apart[nearest]:.3f} s away, "
                f"accepted up to {self.skew} s"
            )
        return View(at, picture, self._readings[nearest][1])
