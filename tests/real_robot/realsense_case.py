"""A RealSense without hardware: librealsense's own software device, fed by hand."""

import time

import numpy as np

WIDTH, HEIGHT, PERIOD = 64, 48, 1 / 30
"""Of the streams [px, px, s]; librealsense matches colour and depth only if they come at the rate they announce."""


class Camera:
    """Sensors, streams, matching and alignment are librealsense's; only the pixels are ours."""

    def __init__(self, *, coeffs=(0.0,) * 5, depth=True):
        import pyrealsense2 as rs

        self.rs, self.device, self.number = rs, rs.software_device(), 0
        self._color = self._sensor("RGB Camera", rs.stream.color, rs.format.rgb8, 3, coeffs)
        self._streams = [(*self._color, 3)]
        if depth:
            self._depth = self._sensor("Stereo Module", rs.stream.depth, rs.format.z16, 2, coeffs)
            self._depth[0].add_read_only_option(rs.option.depth_units, 0.0001)
            same = rs.extrinsics()
            same.rotation, same.translation = [1, 0, 0, 0, 1, 0, 0, 0, 1], [0, 0, 0]
            self._depth[1].register_extrinsics_to(self._color[1], same)
            self._color[1].register_extrinsics_to(self._depth[1], same)
            self._streams.append((*self._depth, 2))
        self.device.create_matcher(rs.matchers.dlr_c)

    def _sensor(self, name, kind, form, bpp, coeffs):
        rs = self.rs
        sensor, s, k = self.device.add_sensor(name), rs.video_stream(), rs.intrinsics()
        k.width, k.height, k.fx, k.fy, k.ppx, k.ppy = WIDTH, HEIGHT, 50.0, 51.0, 31.0, 23.5
        k.model, k.coeffs = rs.distortion.brown_conrady, list(coeffs)
        s.type, s.index, s.uid, s.fmt, s.bpp = kind, 0, bpp, form, bpp
        s.width, s.height, s.fps, s.intrinsics = WIDTH, HEIGHT, 30, k
        return sensor, sensor.add_video_stream(s)

    def expose(self, color, depth=None, *, age=0.0, domain=None, same_number=False):
        """Give one picture of each stream, ``age`` seconds old; colour (h, w, 3), depth in units of 0.1 mm (h, w)."""
        self.number += not same_number
        for (sensor, profile, bpp), pixels in zip(self._streams, (color, depth), strict=False):
            frame = self.rs.software_video_frame()
            frame.pixels, frame.bpp, frame.stride = np.ascontiguousarray(pixels), bpp, WIDTH * bpp
            frame.timestamp, frame.frame_number = 1e3 * (time.time() - age), self.number
            frame.domain = domain or self.rs.timestamp_domain.system_time
            frame.profile = profile.as_video_stream_profile()
            if bpp == 2:
                frame.depth_units = 0.0001
            sensor.on_video_frame(frame)


def wait(camera, source, count=1, *, timeout=3.0, every=None):
    """What ``source.read`` gives until it gave ``count`` shots."""
    out, end = [], time.monotonic() + timeout
    while len(out) < count:
        assert time.monotonic() < end, f"{len(out)} of {count} pictures within {timeout} s"
        if every is not None:
            every()
        time.sleep(PERIOD)
        out += source.read()
    return out
