"""Two robots on one ROS domain, each in its namespace: nobody obeys the other's commander, each has its own lease."""

import numpy as np
import pytest
import toy_robot as toy
from ros_seat import chunk, ros, seat, up, values

from palmar.real_robot import ros_env

pytestmark = [
    pytest.mark.ros,
    pytest.mark.skipif(bool(ros_env.missing()), reason=ros_env.missing() or "rclpy is here"),
]
SIDES = ("left", "right")


@pytest.fixture(scope="module")
def r(tmp_path_factory):
    with ros(tmp_path_factory.mktemp("ros")) as made:
        yield made


@pytest.fixture
def pair(r, tmp_path):
    """Two seats with an active bridge each, in namespaces of the run."""
    from palmar.real_robot.nodes.bridge import Bridge

    with seat(r, tmp_path, namespace="/left", objects=()) as a, seat(r, tmp_path, namespace="right", objects=()) as b:
        bridges = [up(r, Bridge(s.run, context=r.context)) for s in (a, b)]
        yield a, b
        for bridge in bridges:
            bridge.trigger_shutdown()
            r.drop(bridge)


@pytest.fixture
def speakers(r, pair):
    """A commander in each namespace, known to its bridge."""
    from trajectory_msgs.msg import JointTrajectory

    nodes = [r.node("palmar_policy", namespace=side) for side in SIDES]
    made = [n.create_publisher(JointTrajectory, "palmar/chunk", 1) for n in nodes]
    r.until(lambda: all(p.get_subscription_count() == 1 for p in made), "bridges discovered")
    yield made
    for n in nodes:
        r.drop(n)


@pytest.fixture
def diagnostics(r):
    from diagnostic_msgs.msg import DiagnosticArray

    seen, node = {}, r.node("desk")
    node.create_subscription(DiagnosticArray, "/diagnostics", lambda m: seen.update({s.name: s for s in m.status}), 10)
    yield seen
    r.drop(node)


def test_a_chunk_reaches_the_robot_of_its_namespace_and_no_other(r, pair, speakers, diagnostics):
    left, right = pair
    goal = toy.HOME + (0.15, -0.1)
    r.until(lambda: left.chunk() is not None, "left commanded", every=lambda: speakers[0].publish(chunk(goal)))
    r.spin(0.3)
    assert np.array_equal(left.chunk()["q"][0], goal) and right.chunk() is None
    both = [f"{side}/palmar_command_topic" for side in SIDES]
    r.until(lambda: all(name in diagnostics for name in both), "both report")
    assert int(values(diagnostics[both[0]])["passed"]) > 0 and values(diagnostics[both[1]])["received"] == "0"


def test_every_topic_and_service_is_under_the_namespace_except_diagnostics(r, pair, speakers):
    node = r.node("graph")
    topics = {name for name, _ in node.get_topic_names_and_types()}
    services = {name for name, _ in node.get_service_names_and_types()}
    r.drop(node)
    own = {f"/{side}/{name}" for side in SIDES for name in ("joint_states", "palmar/chunk", "palmar/state")}
    assert own <= topics and {f"/{side}/palmar_bridge/stop" for side in SIDES} <= services
    outside = {t for t in topics if not t.startswith(("/left/", "/right/"))}
    assert outside <= {"/diagnostics", "/rosout", "/parameter_events"}


def test_an_intruder_on_one_robot_stops_that_one_only(r, pair, speakers, diagnostics):
    from trajectory_msgs.msg import JointTrajectory

    left, right = pair

    def speak():
        for p in speakers:
            p.publish(chunk(toy.HOME))

    r.until(lambda: left.chunk() is not None and right.chunk() is not None, "both commanded", every=speak)
    stranger = r.node("stranger", namespace="left")
    stranger.create_publisher(JointTrajectory, "/right/palmar/chunk", 1)
    r.until(lambda: right.held() == "second_publisher", "right holds", every=speak)
    before = int(right.chunk()["seq"]), int(left.chunk()["seq"])
    name = "right/palmar_command_topic"
    r.until(lambda: name in diagnostics and "/left/stranger" in diagnostics[name].message, "named", every=speak)
    r.until(lambda: int(left.chunk()["seq"]) > before[1] + 3, "left goes on", every=speak)
    assert int(right.chunk()["seq"]) == before[0] and left.held() == ""
    r.drop(stranger)
    r.until(lambda: right.held() == "", "right free again", every=speak)
    r.until(lambda: int(right.chunk()["seq"]) > before[0], "right obeys again", every=speak)


def test_a_bridge_that_could_not_be_configured_can_be_later_and_holds_from_then_on(r, tmp_path):
    from rclpy.lifecycle import TransitionCallbackReturn

    from palmar.real_robot.nodes.bridge import Bridge
    from palmar.safety.robot import RobotModel

    with seat(r, tmp_path, objects=()) as s:
        bridge = r.add(Bridge(s.run, context=r.context))
        other = bridge.robot
        bridge.robot = RobotModel.from_json({**s.run.robot, "name": "another"})
        assert bridge.trigger_configure() == TransitionCallbackReturn.FAILURE
        bridge.robot = other
        assert bridge.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert s.held() == "bridge_inactive"
        r.until(lambda: bridge.trigger_activate() == TransitionCallbackReturn.SUCCESS, "active")
        r.until(lambda: s.held() == "", "no hold")
        bridge.trigger_deactivate()
        assert s.held() == "bridge_inactive"
        bridge.trigger_cleanup()
        bridge.trigger_shutdown()
        r.drop(bridge)


def test_nothing_is_activated_on_a_control_process_that_is_silent(r, tmp_path):
    from rclpy.lifecycle import TransitionCallbackReturn

    from palmar.real_robot.nodes.bridge import Bridge

    with seat(r, tmp_path, objects=()) as s:
        bridge = r.add(Bridge(s.run, context=r.context))
        bridge.trigger_configure()
        s.stop()
        r.spin(0.3)
        assert bridge.trigger_activate() == TransitionCallbackReturn.FAILURE
        assert s.held() == "bridge_inactive"
        bridge.trigger_shutdown()
        r.drop(bridge)
