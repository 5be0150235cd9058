"""RealSense devices: pinholes of the datasheet, errors that grow with the square of depth, holes where they must be."""

from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest
import yaml

from palmar.safety.types import ConfigError
from palmar.sim.realsense import Intrinsics, device_names, device_of, edge, load_device

FLAWLESS = {"subpixel": 0.0, "step": 1e-9, "unit": 1e-9, "edge_loss": 0.0}


@pytest.mark.parametrize("name", device_names())
def test_a_device_sees_as_wide_as_its_datasheet_says(name):
    device = load_device(name)
    for seen, key in zip(device.intrinsics.field_of_view, ("horizontal", "vertical"), strict=True):
        assert abs(seen - device.published[key]) <= device.published["tolerance"], (key, seen)


@pytest.mark.parametrize("name, distance, share", [("d435", 2.0, 0.02), ("d405", 0.5, 0.02)])
def test_depth_is_as_true_and_as_near_as_the_datasheet_says(name, distance, share):
    """2 % at 2 m and at 0.5 m; the nearest depth is not below what 126 pixels of disparity allow."""
    stereo = load_device(name).stereo
    assert stereo.error(np.float64(distance)) < share * distance
    assert stereo.near >= stereo.focal * stereo.baseline / 126


@pytest.mark.parametrize("name", device_names())
def test_a_ray_through_a_pixel_is_projected_onto_it_at_any_depth_and_resolution(name):
    k, rng = load_device(name).intrinsics, np.random.default_rng(0)
    for pinhole in (k.resized(k.width // 2, k.height // 2), k.resized(k.width // 8, k.height // 8)):
        z = rng.uniform(0.1, 3.0, (pinhole.height, pinhole.width, 1))
        v, u = np.mgrid[: pinhole.height, : pinhole.width]
        assert np.allclose(pinhole.project(z * pinhole.rays()), np.stack([u, v], axis=-1), atol=1e-9)
        assert pinhole.field_of_view == pytest.approx(k.field_of_view, abs=1e-9)
    assert np.isnan(k.project(np.array([0.1, 0.1, -1.0]))).all()


@pytest.mark.parametrize("name", device_names())
def test_the_error_of_depth_grows_with_the_square_of_distance(name):
    """Seen in many pixels of a wall, with the rounding of disparities and of counts as equal shares added."""
    device, rng = load_device(name), np.random.default_rng(0)
    stereo, k = device.stereo, device.intrinsics.resized(device.intrinsics.width // 2, device.intrinsics.height // 2)
    measured = {}
    for z in np.array([0.35, 0.7, 0.95]) * stereo.far:
        found = stereo.measure(np.full((k.height, k.width), z, np.float32), k, rng)
        found = found[found > 0].astype(float)
        slope = stereo.error(z) / stereo.subpixel
        expected = np.sqrt(slope**2 * (stereo.subpixel**2 + stereo.step**2 / 12) + stereo.unit**2 / 12)
        assert found.std() == pytest.approx(expected, rel=0.03)
        assert found.mean() == pytest.approx(z, abs=0.002 * z)
        measured[z] = found.std()
    (near, a), (far, b) = list(measured.items())[:2]
    assert b / a == pytest.approx((far / near) ** 2, rel=0.05)


@pytest.mark.parametrize("name", device_names())
def test_what_is_out_of_range_is_nothing_and_the_rest_is_counts(name):
    device, rng = load_device(name), np.random.default_rng(0)
    stereo, k = device.stereo, device.intrinsics.resized(device.intrinsics.width // 4, device.intrinsics.height // 4)
    wall = np.full((k.height, k.width), 0.0, np.float32)
    for z in (0.0, 0.5 * stereo.near, 1.2 * stereo.far, 50.0):
        assert not stereo.measure(wall + np.float32(z), k, rng).any()
    ramp = np.broadcast_to(np.linspace(0, 1.5 * stereo.far, k.height, dtype=np.float32)[:, None], wall.shape)
    found = stereo.measure(ramp, k, rng)
    assert found.dtype == np.float32 and np.all((found == 0) | ((found >= stereo.near) & (found <= stereo.far)))
    counts = found[found > 0].astype(float) / stereo.unit
    assert len(counts) > 0.3 * found.size and np.abs(counts - np.round(counts)).max() < 1e-2


def test_the_shadow_of_a_near_thing_lies_to_its_left_and_is_as_wide_as_the_disparities_differ():
    device = load_device("d435")
    k, stereo = device.intrinsics.resized(640, 360), replace(device.stereo, **FLAWLESS)
    wall, thing = 1.5, 0.6
    depth = np.full((360, 640), wall, np.float32)
    depth[100:200, 300:400] = thing
    found = stereo.measure(depth, k, np.random.default_rng(0))
    width = k.fx * stereo.baseline * (1 / thing - 1 / wall)
    row = np.flatnonzero(found[150] == 0)
    assert abs(len(row) - width) <= 1 and row.max() == 299 and np.all(np.diff(row) == 1)
    assert np.all(found[50] > 0)  # past the thing
    assert np.allclose(found[found > 0], depth[found > 0], atol=1e-6)


def test_hidden_pixels_are_those_another_surface_covers_in_the_second_image():
    """Against every pair of pixels of a row, for random depths."""
    device, rng = load_device("d405"), np.random.default_rng(0)
    k, stereo = device.intrinsics.resized(106, 60), device.stereo
    shift = k.fx * stereo.baseline / rng.uniform(0.1, 0.5, (20, 106))
    place = np.arange(106) - shift
    hidden = stereo.hidden(shift, k)
    for row, places in enumerate(place):
        for u in range(106):
            covered = bool(np.any(places[u + 1 :] < places[u])) or places[u] < 0
            assert hidden[row, u] == covered
    assert 0.1 < hidden.mean() < 0.95


def test_edges_lose_their_share_and_smooth_surfaces_none():
    device, rng = load_device("d405"), np.random.default_rng(0)
    k, stereo = device.intrinsics, replace(device.stereo, subpixel=0.0)
    slope = np.broadcast_to(np.linspace(0.2, 0.4, k.height, dtype=np.float32)[:, None], (k.height, k.width))
    inside = np.s_[:, 60:]  # the second imager does not see the left margin
    assert np.all(stereo.measure(slope, k, rng)[inside] > 0)
    step = np.array(slope)
    step[200:] = 0.15
    lost = stereo.measure(step, k, rng)[inside] == 0
    at = edge(stereo.baseline * k.fx / step)[inside]
    assert at.sum() == 2 * at.shape[1] and not lost[~at].any()
    assert lost[at].mean() == pytest.approx(stereo.edge_loss, abs=0.05)


def test_equal_seeds_measure_equal_depths():
    device = load_device("d405")
    k = device.intrinsics.resized(106, 60)
    wall = np.full((60, 106), 0.3, np.float32)
    a, b, c = (device.stereo.measure(wall, k, np.random.default_rng(s)) for s in (5, 5, 6))
    assert np.array_equal(a, b) and not np.array_equal(a, c)


@pytest.mark.parametrize(
    "change, named",
    [
        ({"fx": -1.0}, "fx"),
        ({"width": 848.0}, "width"),
        ({"cx": 900.0}, "principal"),
        ({"rate": 0.0}, "rate"),
        ({"zoom": 2}, "zoom"),
        ({"depth": {"near": 1.0}}, "baseline"),
    ],
)
def test_an_impossible_device_is_refused(change, named):
    raw = yaml.safe_load((files("palmar.configs") / "camera" / "devices" / "d405.yaml").read_text())
    device_of(dict(raw))
    with pytest.raises(ConfigError, match=named):
        device_of(raw | change)


def test_unknown_devices_and_ranges_are_refused_with_what_there_is():
    with pytest.raises(ConfigError, match="'d999'.*d405.*d435"):
        load_device("d999")
    with pytest.raises(ConfigError, match="near < far"):
        replace(load_device("d405").stereo, near=1.0)
    with pytest.raises(ConfigError, match="320 x 240"):
        load_device("d435").intrinsics.resized(320, 240)
    with pytest.raises(ConfigError, match="whole"):
        Intrinsics(0, 10, 1.0, 1.0, 1.0, 1.0)
