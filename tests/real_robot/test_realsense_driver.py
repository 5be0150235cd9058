"""The RealSense driver on librealsense's software device: its sensors, matching and alignment are the real ones."""

import time

import numpy as np
import pytest
from realsense_case import HEIGHT, PERIOD, WIDTH, Camera, wait

from palmar.real_robot.drivers.error import DriverError
from palmar.real_robot.drivers.realsense import RealSense, RealSenseConfig, open_cameras
from palmar.safety.types import ConfigError

rs = pytest.importorskip("pyrealsense2", reason="pyrealsense2 is not installed")
RNG = np.random.default_rng(0)
COLOR = RNG.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
DEPTH = np.full((HEIGHT, WIDTH), 5000, np.uint16)
DEPTH[:, :20] = 0


def config(**changes):
    return RealSenseConfig(**{"name": "wrist", "width": WIDTH, "height": HEIGHT, "silent": 0.4, **changes})


@pytest.fixture
def pair():
    camera = Camera()
    driver = RealSense(config(), camera.device)
    yield camera, driver
    driver.close()


def test_colour_and_depth_of_one_exposure_arrive_with_its_time(pair):
    camera, driver = pair
    begin = time.monotonic()
    shots = wait(camera, driver, every=lambda: camera.expose(COLOR, DEPTH, age=0.08))
    shot = shots[0]
    assert shot.camera == "wrist" and shot.color.dtype == np.uint8
    np.testing.assert_array_equal(shot.color, COLOR)
    assert shot.depth[10, 40] == pytest.approx(0.5) and shot.depth[10, 5] == 0.0
    assert begin - 0.09 < shot.t < time.monotonic() - 0.07
    k = driver.pinholes["wrist"]
    assert (k.width, k.height, k.fx, k.fy, k.cx, k.cy) == (WIDTH, HEIGHT, 50.0, 51.0, 31.0, 23.5)


def test_a_clock_that_nobody_knows_is_replaced_by_the_arrival(pair):
    camera, driver = pair
    own = rs.timestamp_domain.hardware_clock
    shot = wait(camera, driver, every=lambda: camera.expose(COLOR, DEPTH, age=1e6, domain=own))[0]
    assert 0.03 <= time.monotonic() - shot.t < 1.0


def test_no_picture_is_given_twice_and_a_frozen_or_silent_camera_is_an_error(pair):
    camera, driver = pair
    wait(camera, driver, every=lambda: camera.expose(COLOR, DEPTH))
    driver.read()
    assert driver.read() == []
    end = time.monotonic() + 0.3
    while time.monotonic() < end:  # the cable is in, the sensor is stuck
        camera.expose(COLOR, DEPTH, same_number=True)
        assert driver.read() == []
        time.sleep(PERIOD)
    time.sleep(0.2)
    with pytest.raises(DriverError, match=r"wrist gave no new picture for 0\.\d+ s, accepted up to 0.4 s"):
        driver.read()
    assert wait(camera, driver, every=lambda: camera.expose(COLOR, DEPTH))


def test_of_several_waiting_pictures_the_newest_counts(pair):
    camera, driver = pair
    wait(camera, driver, every=lambda: camera.expose(COLOR, DEPTH))
    for value in (10, 20, 30):
        camera.expose(np.full_like(COLOR, value), DEPTH)
        time.sleep(PERIOD)
    shots = driver.read()
    assert len(shots) == 1 and shots[0].color[0, 0, 0] == 30


def test_streams_that_the_camera_lacks_and_distorted_ones_are_refused():
    with pytest.raises(ConfigError, match=r"no \['color', 'depth'\] of 640 x 480.*Color 64 x 48 at 30 Hz rgb8"):
        RealSense(config(width=640, height=480), Camera().device)
    with pytest.raises(ConfigError, match=r"no \['depth'\]"):
        RealSense(config(), Camera(depth=False).device)
    with pytest.raises(ConfigError, match="distorted"):
        RealSense(config(), Camera(coeffs=(0.1, 0, 0, 0, 0)).device)
    camera = Camera(depth=False)
    driver = RealSense(config(depth=False), camera.device)
    assert wait(camera, driver, every=lambda: camera.expose(COLOR))[0].depth is None
    driver.close()


def test_cameras_that_are_not_plugged_in_are_named():
    if len(rs.context().query_devices()):
        pytest.skip("a RealSense is plugged in")
    with pytest.raises(DriverError, match=r"camera wrist: no RealSense '123'; plugged in are \[\]"):
        open_cameras([config(serial="123")])
    with pytest.raises(ConfigError, match="different names"):
        open_cameras([config(), config()])


@pytest.mark.parametrize(
    "bad", [{"name": "a/b"}, {"width": 0}, {"rate": 31}, {"silent": 0.0}, {"transfer": float("nan")}]
)
def test_impossible_configurations_are_refused(bad):
    with pytest.raises(ConfigError, match="camera"):
        config(**bad)
