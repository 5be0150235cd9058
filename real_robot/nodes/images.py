"""The camera node ``palmar_images``: pictures of the twin's cameras, or of RealSense ones, as ``sensor_msgs``.

A process of its own at low priority, so that drawing and packing never touch the 1 kHz.  Per camera and kind (colour,
depth): ``Image``, ``CompressedImage`` and ``CameraInfo`` of one stamp, the time of exposure.  Only what somebody
listens to is drawn and packed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import SetParametersResult
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from palmar.real_robot.config import RunConfig
from palmar.real_robot.drivers.cameras import CameraSource, Shot
from palmar.real_robot.drivers.error import DriverError
from palmar.real_robot.nodes import outgoing, parameters, pixels, spinning, topics
from palmar.real_robot.nodes.refusals import Refusals
from palmar.real_robot.nodes.topics import PICTURE
from palmar.safety.config import unknown
from palmar.safety.types import ConfigError

SOURCES = ("twin", "realsense")
POLL = (20.0, 60.0)
"""Fewest and most looks at the cameras per second [Hz]."""
DIAGNOSTICS = 1.0
"""Period of ``/diagnostics`` [s]."""
NICE = 10
"""Niceness of the process."""


class ImagesNode(LifecycleNode):
    """See the module."""

    def __init__(self, run: RunConfig, *, opened: Callable[[Any], CameraSource] | None = None, **options: Any):
        """The cameras of ``run``; ``opened`` gives others, from this node; ``options`` are rclpy's."""
        super().__init__("palmar_images", namespace=run.namespace or None, **options)
        self.run, self._open = run, opened or _open
        self.refusals = Refusals(self.get_logger())
        self._active = False
        self._source: CameraSource | None = None
        self._made: list[tuple[Any, Any]] = []
        self._sent = dict.fromkeys(("pictures", "packed"), 0)
        self._newest = 0.0
        parameters.text(self, "source", "realsense" if run.hardware == "real" else "twin", f"one of {SOURCES}")
        parameters.text(self, "rig", "tabletop", "cameras of the twin, a name in configs/camera or a path")
        parameters.text(self, "cameras", "", "names, with commas; '' for all of the rig; of realsense name=serial")
        parameters.text(self, "renderer", "rays", "of the twin's cameras: rays or gl")
        parameters.number(self, "rate", 5.0, 0.5, 90.0, "pictures of each camera per second [Hz]")
        parameters.whole(self, "width", 640, 16, 1920, "of a realsense [px]")
        parameters.whole(self, "height", 480, 16, 1080, "of a realsense [px]")
        self.add_on_set_parameters_callback(self._on_parameters)

    @spinning.logged
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Open the cameras; refuse what is not there."""
        self._source = self._open(self)
        rate = float(parameters.value(self, "rate"))
        self._topics = {name: self._advertise(name) for name in self._source.pinholes}
        self._diagnostics = self.create_lifecycle_publisher(DiagnosticArray, topics.DIAGNOSTICS, 10)
        beats = ((min(max(4 * rate, POLL[0]), POLL[1]), self._look), (1 / DIAGNOSTICS, self._diagnose))
        self._made += [(self.destroy_timer, self.create_timer(1 / hz, act)) for hz, act in beats]
        self._made.append((self.destroy_publisher, self._diagnostics))
        return TransitionCallbackReturn.SUCCESS

    def _advertise(self, camera: str) -> dict[str, tuple[Any, Any, Any]]:
        """Publishers of Image, CompressedImage and CameraInfo per kind."""
        out = {}
        for kind in pixels.KINDS:
            names = (topics.picture(camera, kind), topics.picture(camera, kind, compressed=True))
            made = [
                self.create_lifecycle_publisher(t, n, PICTURE)
                for t, n in zip((Image, CompressedImage), names, strict=True)
            ]
            made.append(self.create_lifecycle_publisher(CameraInfo, topics.info(camera, kind), PICTURE))
            self._made += [(self.destroy_publisher, p) for p in made]
            out[kind] = tuple(made)
        return out

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Publish from now on."""
        self._active = True
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Publish nothing more."""
        self._active = False
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Close the cameras."""
        self._active = False
        for destroy, thing in self._made:
            destroy(thing)
        self._made = []
        if self._source is not None:
            self._source.close()
            self._source = None
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Close the cameras; the node can be configured anew."""
        return self.on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Close the cameras."""
        return self.on_cleanup(state)

    def _on_parameters(self, changed: Sequence[Any]) -> SetParametersResult:
        """They are read when configured: none changes while the cameras are open."""
        return parameters.judge(changed, active=self._source is not None)

    def _look(self) -> None:
        """Publish what the cameras saw since the last look."""
        if not self._active or self._source is None or not any(self._heard(name) for name in self._topics):
            return
        try:
            shots = self._source.read()
        except DriverError as error:
            return self.refusals.note("camera_silent", str(error))
        for shot in shots:
            self._publish(shot)

    def _heard(self, camera: str) -> bool:
        return any(p.get_subscription_count() for three in self._topics[camera].values() for p in three)

    def _publish(self, shot: Shot) -> None:
        at, frame = outgoing.stamp(self.get_clock(), shot.t), f"{shot.camera}_color_optical_frame"
        pinhole = self._source.pinholes[shot.camera] if self._source else None
        for kind, array in zip(pixels.KINDS, (shot.color, shot.depth), strict=True):
            if array is None:
                continue
            plain, packed, info = self._topics[shot.camera][kind]
            if plain.get_subscription_count():
                plain.publish(pixels.message(array, at, frame))
                self._sent["pictures"] += 1
            if packed.get_subscription_count():
                packed.publish(pixels.compressed(array, at, frame))
                self._sent["packed"] += 1
            if info.get_subscription_count():
                info.publish(pixels.info(pinhole, at, frame))
        self._newest = shot.t

    def _diagnose(self) -> None:
        if not self._active:
            return
        age = time.monotonic() - self._newest
        silent = self._newest > 0 and age > 1.0 and any(self._heard(name) for name in self._topics)
        out = DiagnosticArray()
        out.header.stamp = self.get_clock().now().to_msg()
        values = {**self._sent, "cameras": ",".join(self._topics), **self.refusals.counts}
        name = topics.named(self.get_namespace(), "palmar_images")
        level = DiagnosticStatus.WARN if silent else DiagnosticStatus.OK
        said = f"no picture for {age:.1f} s: {self.refusals.last}" if silent else ""
        out.status = [outgoing.status(name, level, said, values)]
        self._diagnostics.publish(out)


def _open(node: ImagesNode) -> CameraSource:
    """The cameras that the parameters ask for."""
    source = parameters.value(node, "source")
    named = [n.strip() for n in parameters.value(node, "cameras").split(",") if n.strip()]
    if source == "twin":
        from palmar.real_robot.nodes.twin_cameras import TwinCameras, rig

        rate, which = float(parameters.value(node, "rate")), parameters.value(node, "rig")
        cameras = rig(which, node.run.robot["name"], only=named, rate=rate)
        return TwinCameras(node.run, cameras, kind=parameters.value(node, "renderer"))
    if source == "realsense":
        from palmar.real_robot.drivers.realsense import RealSenseConfig, open_cameras

        size = {k: parameters.value(node, k) for k in ("width", "height")}
        rate = int(parameters.value(node, "rate"))
        pairs = [n.partition("=")[::2] for n in named] or [("camera", "")]
        return open_cameras([RealSenseConfig(name=n, serial=s, rate=rate, **size) for n, s in pairs])
    raise ConfigError(unknown("source", source, SOURCES))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the cameras of ``--config FILE``."""
    return spinning.main("images", ImagesNode, argv, nice=NICE)


if __name__ == "__main__":
    raise SystemExit(main())
