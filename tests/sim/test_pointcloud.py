"""Point clouds: pixels become the points they were, boxes and voxels keep what they say, normals face the camera."""

import numpy as np
import pytest

from palmar.safety.types import ConfigError
from palmar.sim.pointcloud import Cloud, CloudRefused, cropped, from_depth, joined, open3d, thinned, with_normals
from palmar.sim.realsense import load_device

K = load_device("d435").intrinsics.resized(160, 90)
POSE = np.array([1.0, 0.55, 0.55, *np.array([-0.19, 0.33, 0.80, -0.46]) / np.linalg.norm([-0.19, 0.33, 0.80, -0.46])])


@pytest.fixture(scope="module", autouse=True)
def _open3d():
    try:
        open3d()
    except ConfigError as error:
        pytest.skip(str(error))


def turn(pose):
    w, x, y, z = pose[3:]
    return np.array(
        [[1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
         [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
         [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]]
    )  # fmt: skip


def table(pose=POSE):
    """Depth of the plane z = 0 in the picture, and where each pixel meets it; 0 above the horizon."""
    rays = K.rays() @ turn(pose).T
    with np.errstate(divide="ignore"):
        z = np.where(rays[..., 2] < -1e-3, -pose[2] / rays[..., 2], 0.0)
    z = np.where(z < 3.0, z, 0.0).astype(np.float32)
    return z, pose[:3] + z[..., None] * rays


def test_each_pixel_becomes_the_point_it_shows():
    z, points = table()
    color = np.random.default_rng(0).integers(0, 256, (90, 160, 3), dtype=np.uint8)
    seen = z > 0
    for cloud in (from_depth(z, K, POSE), from_depth(z, K, POSE, color=color)):
        assert cloud.points.shape == (seen.sum(), 3) and 0.3 < seen.mean() < 1
        assert np.allclose(cloud.points, points[seen], atol=1e-6)
    assert np.allclose(cloud.color, color[seen] / 255.0, atol=1e-6)
    keep = color[..., 0] > 128
    assert np.allclose(from_depth(z, K, POSE, keep=keep).points, points[seen & keep], atol=1e-6)
    assert len(from_depth(np.zeros_like(z), K, POSE).points) == 0


def test_the_points_of_a_plane_have_its_normal_towards_the_camera():
    z, _ = table()
    near = from_depth(z, K, POSE, keep=z < 1.2)  # farther away a pixel has too few neighbours within 6 cm
    cloud = with_normals(thinned(near, 0.02), POSE[:3], radius=0.06)
    assert len(cloud.normal) == len(cloud.points) > 300
    assert np.all(cloud.normal[:, 2] > 0.999)


def test_a_crop_keeps_what_is_inside_and_loses_nothing_of_it():
    z, points = table()
    lower, upper = np.array([0.2, -0.2, -0.1]), np.array([0.6, 0.1, 0.1])
    inside = np.all((points >= lower) & (points <= upper), axis=-1) & (z > 0)
    cloud = cropped(from_depth(z, K, POSE), lower, upper)
    assert len(cloud.points) == inside.sum() > 100
    assert np.allclose(cloud.points, points[inside], atol=1e-6)


def test_a_voxel_keeps_one_point_near_what_it_held():
    z, _ = table()
    cloud = from_depth(z, K, POSE, keep=z < 0.9)
    thin = thinned(cloud, 0.05)
    assert 20 < len(thin.points) < 0.5 * len(cloud.points)
    distance = np.linalg.norm(thin.points[:, None] - cloud.points[None], axis=-1)
    assert distance.min(axis=1).max() < 0.05 * np.sqrt(3) and distance.min(axis=0).max() < 0.05 * np.sqrt(3)
    corner = cloud.points.min(axis=0) - 0.025  # Open3D's grid starts half a voxel before the least point
    cells = np.floor((thin.points - corner) / 0.05)
    assert len(np.unique(cells, axis=0)) == len(thin.points)


def test_two_cameras_see_one_table():
    other = POSE * (1, -1, 1, 1, -1, 1, -1)  # mirrored in y = 0
    first, second = (from_depth(table(p)[0], K, p) for p in (POSE, other))
    both = joined([first, second])
    assert len(both.points) == len(first.points) + len(second.points) and len(both.color) == 0
    assert np.abs(both.points[:, 2]).max() < 1e-6
    color = np.full((90, 160, 3), 100, np.uint8)
    painted = from_depth(table()[0], K, POSE, color=color)
    assert len(joined([painted, painted]).color) == 2 * len(first.points)
    assert len(joined([painted, second]).color) == 0


def test_what_is_no_frame_is_refused():
    z, _ = table()
    for arguments, named in (
        ((z[:-1], K, POSE), r"\(89, 160\)"),
        ((np.full_like(z, np.nan), K, POSE), "depth"),
        ((z - 5, K, POSE), "depth"),
        ((z, K, POSE * np.nan), "pose"),
        ((z, K, 2 * POSE), "unit"),
    ):
        with pytest.raises(CloudRefused, match=named):
            from_depth(*arguments)
    with pytest.raises(CloudRefused, match="uint8"):
        from_depth(z, K, POSE, color=np.zeros((90, 160, 3)))
    cloud = Cloud(np.zeros((1, 3)), np.zeros((0, 3)), np.zeros((0, 3)))
    with pytest.raises(CloudRefused, match="lower < upper"):
        cropped(cloud, np.ones(3), np.zeros(3))
    with pytest.raises(CloudRefused, match="voxel"):
        thinned(cloud, 0.0)
    with pytest.raises(CloudRefused, match="eye"):
        with_normals(cloud, np.full(3, np.nan))
