"""The policy and the bridge beside real hardware: a tracker's poses reach the filter, words must mean something."""

import time

import numpy as np
import pytest
import toy_robot as toy
from ros_seat import parameter, ros, seat, up

from palmar.real_robot import ros_env
from palmar.real_robot.config import DeviceConfig

pytestmark = [
    pytest.mark.ros,
    pytest.mark.skipif(bool(ros_env.missing()), reason=ros_env.missing() or "rclpy is here"),
]


@pytest.fixture
def r(tmp_path):
    with ros(tmp_path) as made:
        yield made


def pose(node, name="world", *, q=(1.0, 0.0, 0.0, 0.0), back=0.0):
    from geometry_msgs.msg import PoseStamped

    m = PoseStamped()
    now = node.get_clock().now().nanoseconds - int(back * 1e9)
    m.header.stamp.sec, m.header.stamp.nanosec = divmod(now, 10**9)
    m.header.frame_id = name
    m.pose.position.x, m.pose.position.z = 0.4, 0.05
    m.pose.orientation.w, m.pose.orientation.x, m.pose.orientation.y, m.pose.orientation.z = q
    return m


def test_a_tracker_of_real_hardware_reaches_the_filter_and_its_mistakes_do_not(r, tmp_path):
    from geometry_msgs.msg import PoseStamped

    from palmar.real_robot.nodes.bridge import Bridge

    arm = DeviceConfig(name="arm", driver="fr3", joints=("shoulder", "elbow"), memory=str(tmp_path / "wire"))
    with seat(r, tmp_path, hardware="real", namespace="real", devices=(arm,), scene="", qpos=()) as s:
        bridge = up(r, Bridge(s.run, context=r.context))
        node = r.node("tracker")
        publisher = node.create_publisher(PoseStamped, "/real/objects/red/pose", 1)
        r.until(lambda: publisher.get_subscription_count() > 0, "bridge discovered")
        read = s.map.blocks["objects"].read
        r.until(lambda: read() is not None, "a pose", every=lambda: publisher.publish(pose(node, back=0.1)))
        o = read()
        assert o["position"][0].tolist() == [0.4, 0.0, 0.05] and o["seq"][0] > 0
        assert 0.09 < time.monotonic() - o["t"][0] < 2.0
        bad = {
            "object_frame": lambda: pose(node, "camera"), "object_quaternion": lambda: pose(node, q=(0.5, 0, 0, 0)),
            "object_non-finite": lambda: pose(node, q=(np.nan, 0, 0, 0)), "object_old": lambda: pose(node, back=1.0),
            "object_future": lambda: pose(node, back=-1.0),
        }  # fmt: skip
        r.spin(0.5)
        before = s.map.blocks["objects"].version
        for reason, make in bad.items():
            said = lambda n=reason: bridge.refusals.counts.get(n, 0) > 0  # noqa: E731
            r.until(said, reason, every=lambda m=make: publisher.publish(m()))
        assert s.map.blocks["objects"].version == before
        r.drop(node)
        bridge.trigger_shutdown()
        r.drop(bridge)


def test_a_learned_policy_refuses_words_that_mean_nothing_with_those_it_knows(r, tmp_path):
    from importlib.resources import files

    from palmar.real_robot.nodes.policy import PolicyNode
    from palmar.sim.robots import load_robot
    from palmar.sim.tasks.lift import BLOCKS

    constraints = (files("palmar.configs") / "constraints" / "arm_hand.yaml").read_text()
    lift = toy.run_config(
        tmp_path, robot=load_robot("fr3_leap").to_json(), constraints=constraints, domain=r.domain, namespace="learned",
        objects=tuple(b.name for b in BLOCKS), bundle=str(files("palmar.assets") / "bundles" / "lift"),
        instruction="lift the red cube",
    )  # fmt: skip
    node = PolicyNode(lift, context=r.context)
    said = lambda text: node.set_parameters([parameter("instruction", text)])[0]  # noqa: E731
    try:
        node.trigger_configure()
        refused = said("lift the banana")
        assert not refused.successful and "banana" in refused.reason and "cylinder" in refused.reason
        assert said("raise the green can").successful
        place = np.array([[0.5, 0.0, 0.03], [0.45, 0.1, 0.03], [0.55, -0.1, 0.03]])
        sight = _sight(load_robot("fr3_leap").home, place)
        node._chooser.start(sight)
        assert node._chooser._goal.tolist() == [1]
        assert node._chooser.targets(sight).shape == (1, 23)
    finally:
        node.destroy_node()


def _sight(q, place):
    from palmar.real_robot.nodes.chooser import Sight

    return Sight(q, np.zeros_like(q), place, np.tile([1.0, 0, 0, 0], (len(place), 1)))
