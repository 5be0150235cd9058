"""What is acted on of what is seen, without a graph: poses, pictures and their stamps, and what words mean there."""

from types import SimpleNamespace as Some

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS is not installed")
from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import Image

from palmar.real_robot.nodes import pixels, poses, views
from palmar.real_robot.nodes.chooser import ClutterWords, grounding
from palmar.real_robot.nodes.stamps import SightRefused
from palmar.real_robot.nodes.views import Views, Wanted
from palmar.safety.types import ConfigError
from palmar.sim.realsense import Intrinsics
from palmar.sim.words import UnknownInstruction

NOW = 100.0
RNG = np.random.default_rng(0)
COLOR = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
DEPTH = np.round(RNG.uniform(0.2, 3.0, (6, 8)), 3).astype(np.float32)
FRAME = "wrist_color_optical_frame"


def at(t):
    return Time(sec=int(t // 1), nanosec=round(t % 1 * 1e9))


def pose(t=NOW, *, frame="world", position=(0.5, 0.1, 0.02), quaternion=(1.0, 0.0, 0.0, 0.0)):
    m = PoseStamped()
    m.header.stamp, m.header.frame_id = at(t), frame
    m.pose.position.x, m.pose.position.y, m.pose.position.z = position
    m.pose.orientation.w, m.pose.orientation.x, m.pose.orientation.y, m.pose.orientation.z = quaternion
    return m


def tracked():
    return poses.Tracked(("red", "blue"), oldest=0.5)


def test_every_object_must_have_been_seen_lately():
    t = tracked()
    t.take(0, pose(), NOW)
    with pytest.raises(SightRefused, match="unseen: no pose of 'blue'"):
        t.look(NOW)
    half = np.sqrt(0.5)
    t.take(1, pose(NOW - 0.3, position=(0.4, 0, 0), quaternion=(half, half * 1.0005, 0, 0)), NOW)
    position, quaternion = t.look(NOW + 0.1)
    np.testing.assert_array_equal(position, [[0.5, 0.1, 0.02], [0.4, 0, 0]])
    np.testing.assert_allclose(np.linalg.norm(quaternion, axis=1), 1.0, rtol=1e-12)
    with pytest.raises(SightRefused, match=r"old: blue is 0.600 s old, accepted up to 0.5 s"):
        t.look(NOW + 0.3)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (pose(frame="camera"), "frame"),
        (pose(position=(np.nan, 0.0, 0.0)), "non-finite"),
        (pose(quaternion=(1.0, np.inf, 0.0, 0.0)), "non-finite"),
        (pose(position=(500.0, 0.0, 0.0)), "position"),
        (pose(quaternion=(0.9, 0.0, 0.0, 0.0)), "quaternion"),
        (pose(quaternion=(0.0, 0.0, 0.0, 0.0)), "quaternion"),
        (pose(NOW - 0.6), "old"),
        (pose(0.0), "old"),
        (pose(NOW + 0.2), "future"),
        (pose(NOW - 0.1), "order"),
    ],
)
def test_a_pose_that_cannot_be_trusted_is_refused_by_name_and_the_last_good_one_stays(bad, reason):
    t = tracked()
    good = t.take(0, pose(NOW - 0.1), NOW)
    with pytest.raises(SightRefused) as error:
        t.take(0, bad, NOW)
    assert error.value.reason == reason
    assert t.seen[0] is good


@pytest.mark.parametrize("kind", ["color", "depth"])
@pytest.mark.parametrize("make", [pixels.message, pixels.compressed])
def test_a_picture_survives_the_way_through_a_message(kind, make):
    if kind == "color":  # JPEG keeps smooth pictures
        x = np.linspace(40, 200, 64)
        array = np.stack([np.tile(x, (48, 1)), np.tile(x[:48, None], (1, 64)), np.full((48, 64), 90)], -1).astype("u1")
    else:
        array = np.round(RNG.uniform(0.2, 3.0, (48, 64)), 3).astype(np.float32)
        array[0, :5] = [0.0, np.nan, np.inf, -1.0, 70.0]
    back = pixels.pixels(make(array, at(NOW), FRAME), kind, width=64, height=48)
    assert back.dtype == array.dtype and back.shape == array.shape
    if kind == "depth":
        assert not back[0, :5].any()
        np.testing.assert_allclose(back[1:], array[1:], atol=1e-6)
    elif make is pixels.message:
        np.testing.assert_array_equal(back, array)
    else:
        assert np.abs(back.astype(int) - array).mean() < 2


def test_other_encodings_of_the_same_picture_are_the_same_picture():
    bgr = pixels.message(np.ascontiguousarray(COLOR[..., ::-1]), at(NOW), FRAME)
    bgr.encoding = "bgr8"
    np.testing.assert_array_equal(pixels.pixels(bgr, "color", width=8, height=6), COLOR)
    padded = Image(height=6, width=8, encoding="rgb8", step=32)
    padded.data.frombytes(np.pad(COLOR.reshape(6, 24), ((0, 0), (0, 8))).tobytes())
    np.testing.assert_array_equal(pixels.pixels(padded, "color", width=8, height=6), COLOR)
    with_none = DEPTH.copy()
    with_none[2, 3] = np.nan
    for code, big in (("<f4", 0), (">f4", 1)):
        metres = Image(height=6, width=8, encoding="32FC1", step=32, is_bigendian=big)
        metres.data.frombytes(with_none.astype(code).tobytes())
        back = pixels.pixels(metres, "depth", width=8, height=6)
        np.testing.assert_array_equal(back, np.nan_to_num(with_none))


def test_intrinsics_say_what_the_pinhole_is():
    k = Intrinsics(160, 90, 114.8, 114.5, 78.9, 44.6)
    message = pixels.info(k, at(NOW), FRAME)
    assert (message.width, message.height, message.header.frame_id) == (160, 90, FRAME)
    x = np.array([0.1, -0.05, 0.8])
    u = np.reshape(message.p, (3, 4)) @ [*x, 1.0]
    np.testing.assert_allclose(u[:2] / u[2], k.project(x), rtol=1e-12)
    np.testing.assert_array_equal(np.reshape(message.k, (3, 3)), np.reshape(message.p, (3, 4))[:, :3])


def color(t=NOW, *, frame=FRAME, array=COLOR):
    return pixels.message(array, at(t), frame)


def changed(message, **fields):
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def cut(message):
    del message.data[-10:]
    return message


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (color(frame="left_color_optical_frame"), "frame"),
        (changed(color(), encoding="yuv422"), "encoding"),
        (changed(color(), encoding="16UC1"), "encoding"),
        (color(array=COLOR[:4]), "size"),
        (color(array=COLOR.transpose(1, 0, 2)), "size"),
        (changed(color(), step=3), "damaged"),
        (changed(color(), height=2**31), "damaged"),
        (cut(color()), "damaged"),
        (cut(pixels.compressed(COLOR, at(NOW), FRAME)), "damaged"),
        (changed(pixels.compressed(COLOR, at(NOW), FRAME), data=b"GIF89a nothing"), "damaged"),
        (pixels.compressed(np.zeros((5000, 5000, 3), np.uint8), at(NOW), FRAME), "size"),
        (color(NOW - 0.4), "old"),
        (color(NOW + 1.0), "future"),
        (color(NOW - 0.2), "order"),
    ],
)
def test_a_picture_that_cannot_be_trusted_is_refused_by_name(bad, reason):
    v = Views([Wanted("wrist", "color", 8, 6)], oldest=0.3)
    v.joints(NOW - 0.1, np.zeros(2))
    v.take(0, color(NOW - 0.1), NOW)
    with pytest.raises(SightRefused) as error:
        v.take(0, bad, NOW)
    assert error.value.reason == reason
    assert v.look(NOW)[0].stamp == pytest.approx(NOW - 0.1)


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1"])
def test_depth_of_nothing_but_nan_is_no_view(encoding):
    nothing = Image(height=6, width=8, encoding=encoding, step=8 * (2 if encoding == "16UC1" else 4))
    empty = np.zeros((6, 8), np.uint16) if encoding == "16UC1" else np.full((6, 8), np.nan, np.float32)
    nothing.data.frombytes(empty.tobytes())
    nothing.header.stamp, nothing.header.frame_id = at(NOW), FRAME
    with pytest.raises(SightRefused, match="depth: no pixel of 48"):
        Views([Wanted("wrist", "depth", 8, 6)]).take(0, nothing, NOW)


def test_a_view_comes_with_the_joints_of_its_own_moment_or_not_at_all():
    v = Views([Wanted("wrist", "color", 8, 6)], skew=0.02, oldest=0.3)
    with pytest.raises(SightRefused, match="unseen"):
        v.look(NOW)
    for k in range(41):  # 100 Hz, up to now
        v.joints(NOW - 0.40 + 0.01 * k, np.array([0.01 * k, 0.0]))
    v.take(0, color(NOW - 0.103), NOW)
    view = v.look(NOW)[0]
    assert view.q[0] == pytest.approx(0.30) and np.array_equal(view.pixels, COLOR)
    with pytest.raises(SightRefused, match="old: view/wrist/color is 0.353 s old"):
        v.look(NOW + 0.25)
    v.take(0, color(NOW + 0.1), NOW + 0.15)  # the joint states stopped coming
    with pytest.raises(SightRefused, match=r"skew: the joint reading nearest to view/wrist/color is 0.100 s away"):
        v.look(NOW + 0.15)


def test_the_contract_names_its_views_among_its_observations():
    parts = [("q", 23, "rad"), ("view/wrist/depth", 48, "8x6"), ("view/left/color", 144, "8x6")]
    assert views.wanted(parts) == (Wanted("wrist", "depth", 8, 6), Wanted("left", "color", 8, 6))
    bad = [("view/wrist", 48, "8x6"), ("view/wrist/color", 48, "8x6"), ("view/wrist/depth", 48, "px")]
    for part in bad:
        with pytest.raises(ConfigError, match="view 'view/wrist"):
            views.wanted([part])


THINGS = (
    {"name": "a", "family": "box", "half": (0.02, 0.02, 0.02), "exponents": (0, 0), "colour": "red"},
    {"name": "b", "family": "cylinder", "half": (0.02, 0.02, 0.03), "exponents": (0, 0), "colour": "red"},
    {"name": "c", "family": "box", "half": (0.02, 0.02, 0.02), "exponents": (0, 0), "colour": "red"},
)
PLACES = np.array([[0.5, -0.1, 0.02], [0.9, 0.9, 0.9], [0.5, 0.0, 0.03], [0.5, 0.1, 0.02]])


def test_words_of_clutter_mean_what_is_seen_now():
    words = ClutterWords(("c", "unknown", "b", "a"), THINGS)
    for instruction, named in (("lift the cylinder", 1), ("lift the box left of the cylinder", 0)):
        words.check(instruction)
        goal = words.goal(instruction, PLACES)
        assert goal.shape == (1, 6, 12) and goal[0, :, 0].tolist() == [float(k == named) for k in range(6)]
        assert goal[0, :, 1].sum() == 3
    assert words.goal("lift the box left of the cylinder", PLACES[[3, 1, 2, 0]])[0, 2, 0] == 1
    with pytest.raises(UnknownInstruction, match="fits"):
        words.goal("lift the box", PLACES)
    with pytest.raises(UnknownInstruction, match="unknown words.*banana"):
        words.check("lift the banana")
    place, turn = words.arranged(PLACES, np.tile([1.0, 0, 0, 0], (4, 1)))
    np.testing.assert_array_equal(place[:3], PLACES[[3, 2, 0]])
    assert np.all(place[3:, 2] < 0) and turn.shape == (6, 4)


def test_the_goal_from_words_is_the_one_that_the_task_draws():
    from palmar.sim.robots import load_robot
    from palmar.sim.tasks import find
    from palmar.sim.tasks.clutter import COLOURS
    from palmar.sim.tasks.clutter_io import FAMILIES

    found = find.load("clutter")
    task = found.task(found.config())
    start = task.start(np.random.default_rng(3), load_robot("fr3_leap"), 4)
    for goal, place in zip(start.goal, start.poses[..., :3], strict=True):
        there = [k for k in range(6) if goal[k, 1] > 0.5]
        things = [
            {
                "name": task.objects[k], "family": FAMILIES[int(goal[k, 2])], "half": tuple(goal[k, 3:6]),
                "exponents": tuple(goal[k, 6:8]), "colour": COLOURS[int(goal[k, 8])],
            }
            for k in there
        ]  # fmt: skip
        made = ClutterWords(task.objects, things).goal(task.instruction(goal), place)[0]
        np.testing.assert_allclose(made[:, :11], goal[:, :11] * (goal[:, 1:2] > 0.5))


def test_things_and_tasks_that_words_cannot_reach_are_refused():
    with pytest.raises(ConfigError, match=r"things are \['a', 'b', 'c'\]"):
        ClutterWords(("a", "b"), THINGS)
    with pytest.raises(ConfigError, match="a family of"):
        ClutterWords(("a",), ({**THINGS[0], "family": "teapot"},))
    with pytest.raises(ConfigError, match=r"'reach' takes no instruction.*\['clutter', 'lift'\]"):
        grounding(Some(task="reach"))
