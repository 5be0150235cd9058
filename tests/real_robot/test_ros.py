"""The bridge over real rclpy, with real processes at both ends."""

import signal
import time
from contextlib import ExitStack

import numpy as np
import pytest
import toy_robot as toy
from ros_rig import Rig, talker

from palmar.real_robot import ros_env
from palmar.real_robot.layout import STATES
from palmar.safety.types import State

pytestmark = [
    pytest.mark.ros,
    pytest.mark.skipif(bool(ros_env.missing()), reason=ros_env.missing() or "rclpy is here"),
]


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    with ExitStack() as stack:
        yield Rig(tmp_path_factory.mktemp("ros"), stack)


def test_joints_are_taken_by_name_and_the_robot_follows(rig):
    goal = toy.HOME + (0.1, -0.15)
    with talker(rig) as t:
        t.wait(
            lambda: np.allclose(rig.state()["q"], goal, atol=0.01),
            what="goal reached",
            every=lambda: t.send([goal[::-1]], names=("elbow", "shoulder")),
        )
    toy.until(lambda: rig.filter_state() == (State.HOLD, "chunk_stale"), 30.0, "hold without chunks")


def test_malformed_chunks_are_counted_and_leave_the_robot_unmoved(rig):
    toy.until(lambda: rig.filter_state()[0] is State.HOLD, 30.0, "hold")
    time.sleep(0.3)
    before, near = rig.state()["u"].copy(), rig.state()["u"]
    with talker(rig) as t:
        t.spin(0.5)  # the owner's lease passes to this publisher
        cases = {
            "names": [([near], ("shoulder", "knee"), None), ([near], ("shoulder", "shoulder"), None)],
            "shape": [
                ([], ("shoulder", "elbow"), None),
                ([[0.1]], ("shoulder", "elbow"), None),
                ([near] * 65,),
            ],
            "non-finite": [([[np.nan, 0.0]],), ([[np.inf, 0.0]],)],
            "time_from_start": [
                ([near, near], ("shoulder", "elbow"), (0.2, 0.1)),
                ([near], ("shoulder", "elbow"), (99.0,)),
            ],
        }
        for reason, bad in cases.items():
            goal = t.value("palmar_command_topic", reason) + len(bad)
            for arguments in bad:
                t.send(*arguments)
                t.spin(0.05)
            t.wait(lambda r=reason, n=goal: t.value("palmar_command_topic", r) >= n, what=reason)
    assert np.array_equal(rig.state()["u"], before)


def test_a_second_publisher_is_named_and_nobody_is_obeyed_until_it_is_gone(rig):
    with talker(rig) as t:
        here = rig.state()["q"].copy()
        t.wait(lambda: rig.filter_state()[0] is State.RUN, what="run", every=lambda: t.send([here]))
        with talker(rig, "intruder", "/evil") as evil:
            topic = "palmar_command_topic"
            t.wait(
                lambda: rig.filter_state()[0] is State.HOLD and rig.asked() == "second_publisher",
                what="hold",
                every=lambda: t.send([here]),
            )
            t.wait(lambda: t.diagnostics.get(topic) and t.diagnostics[topic].level == b"\x02", what="error")
            assert "/evil/intruder" in t.diagnostics[topic].message
            before = rig.state()["u"].copy()
            for _ in range(20):
                evil.send([here + 0.3])
                t.send([here + 0.1])
                t.spin(0.02)
            assert np.array_equal(rig.state()["u"], before)
            t.wait(lambda: t.value(topic, "second_publisher") > 10, what="refusals counted")
        t.wait(lambda: rig.filter_state()[0] is State.RUN, what="run again", every=lambda: t.send([here]))


def test_safety_parameters_do_not_change_while_active(rig):
    import rclpy
    from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
    from rcl_interfaces.srv import SetParameters

    with talker(rig, "operator_desk") as t:
        client = t.node.create_client(SetParameters, "/palmar_bridge/set_parameters")
        assert client.wait_for_service(timeout_sec=30)
        value = ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=1.0)
        future = client.call_async(SetParameters.Request(parameters=[Parameter(name="horizon", value=value)]))
        rclpy.spin_until_future_complete(t.node, future, executor=t.executor, timeout_sec=30)
        answer = future.result().results[0]
        assert not answer.successful and "immutable while active" in answer.reason


def test_the_operator_stops_and_resets_by_service(rig):
    import rclpy
    from std_srvs.srv import Trigger

    with talker(rig) as t:

        def call(name):
            client = t.node.create_client(Trigger, f"/palmar_bridge/{name}")
            assert client.wait_for_service(timeout_sec=30)
            future = client.call_async(Trigger.Request())
            rclpy.spin_until_future_complete(t.node, future, executor=t.executor, timeout_sec=30)
            assert future.result().success

        call("stop")
        t.wait(lambda: rig.filter_state() == (State.LATCHED, "operator_stop"), what="latched")
        call("reset")
        here = rig.state()["q"].copy()
        t.wait(lambda: rig.filter_state()[0] is State.RUN, what="run", every=lambda: t.send([here]))
        call("estop")
        t.wait(lambda: rig.filter_state() == (State.LATCHED, "operator_estop"), what="emergency stop")
        call("reset")
        t.spin(0.2)
        assert rig.filter_state()[0] is State.LATCHED
        call("release")
        t.spin(0.2)
        assert rig.filter_state()[0] is State.LATCHED
        call("reset")
        t.wait(lambda: rig.filter_state()[0] is State.RUN, what="run", every=lambda: t.send([here]))


def test_what_was_sent_in_place_of_a_chunk_is_told_and_only_then(rig):
    from diagnostic_msgs.msg import DiagnosticStatus
    from trajectory_msgs.msg import JointTrajectory

    from palmar.real_robot.nodes.bridge import LATCHED
    from palmar.real_robot.nodes.executed import parse
    from palmar.real_robot.nodes.topics import EXECUTED

    with talker(rig) as t:
        told, states = [], []
        t.node.create_subscription(JointTrajectory, EXECUTED, told.append, 1)
        t.node.create_subscription(DiagnosticStatus, "/palmar/state", states.append, LATCHED)
        t.wait(lambda: t.node.count_publishers(EXECUTED) > 0, what="publisher discovered")
        toy.until(lambda: rig.filter_state()[0] is State.HOLD, 30.0, "hold")
        t.wait(
            lambda: np.allclose(rig.state()["q"], toy.HOME, atol=0.02),
            what="home",
            every=lambda: t.send([toy.HOME]),
        )
        t.spin(0.5)
        told.clear()
        for _ in range(5):
            t.send([toy.HOME])
            t.spin(0.05)
        assert not told
        beyond = toy.HOME + (0.0, 1.3)  # the elbow's range ends at 2.0

        def ask_beyond():
            """Or, if this machine's delays made the filter hold, start again from where the robot is."""
            running = rig.filter_state()[0] is State.RUN
            t.send([beyond], after=(0.3,)) if running else t.send([rig.state()["q"]])

        t.wait(lambda: told and len(told[-1].points) > 2, what="executed", every=ask_beyond)
        sent = parse(told[-1], ("shoulder", "elbow"), age=0.0, now=0.0)
        assert np.all(np.diff(sent.t) > 0) and sent.q[:, 1].max() < 2.0

        def values():
            return [{v.key: v.value for v in s.values} for s in states]

        foreseen = lambda: any(v["foreseen"] == "joint_position" for v in values())  # noqa: E731
        edited = lambda: any(int(v["edited_chunk"]) == int(v["chunk"]) > 0 for v in values())  # noqa: E731
        t.wait(lambda: foreseen() and edited(), what="told why", every=ask_beyond)


def test_people_reach_the_control_process_and_what_is_no_person_is_counted(rig):
    from geometry_msgs.msg import Point
    from visualization_msgs.msg import Marker, MarkerArray

    with talker(rig, "tracker") as t:
        publisher = t.node.create_publisher(MarkerArray, "/palmar/people", 1)
        t.wait(lambda: publisher.get_subscription_count() > 0, what="bridge discovered")
        marker = Marker(type=Marker.LINE_LIST, action=Marker.ADD)
        marker.header.frame_id, marker.scale.x = "world", 0.5
        marker.points = [Point(x=1.5, y=0.2, z=0.0), Point(x=1.5, y=0.2, z=1.8)]
        publisher.publish(MarkerArray(markers=[marker]))
        people = rig.map.blocks["people"]
        t.wait(lambda: people.read() is not None, what="people")
        p = people.read()
        assert p["count"] == 1 and p["radius"][0] == 0.25 and p["ends"][0].tolist() == [[1.5, 0.2, 0], [1.5, 0.2, 1.8]]
        assert 0 <= time.monotonic() - p["received"] < 5
        before = people.version
        marker.header.frame_id = "camera"
        t.wait(
            lambda: t.value("palmar_command_topic", "people") > 0,
            what="refusal",
            every=lambda: publisher.publish(MarkerArray(markers=[marker])),
        )
        assert people.version == before


def kill_policy(rig):
    """Kill a policy node while the robot follows it: when that was seen, and the ticks around it."""
    with toy.process("nodes.policy", rig.run, rig.env) as policy:
        rig.lifecycle("palmar_policy", "configure", "activate")
        toy.until(lambda: rig.filter_state()[0] is State.RUN, 60.0, "run")
        time.sleep(0.5)
        rig.map.rings["ticks"].drain(10**6)
        before = float(rig.state()["lost_at"])
        policy.send_signal(signal.SIGKILL)
        policy.wait()
        toy.until(lambda: float(rig.state()["lost_at"]) > before, 30.0, "the policy's death seen")
    time.sleep(0.3)
    return float(rig.state()["lost_at"]), rig.map.rings["ticks"].drain(10**6)


@pytest.fixture
def doomed(tmp_path):
    """Processes of its own, for a test that kills them."""
    with ExitStack() as stack:
        yield Rig(tmp_path, stack)


def test_a_killed_policy_node_means_hold_within_two_ticks_and_a_killed_bridge_too(doomed):
    rig = doomed
    running = STATES.index(State.RUN)
    for _ in range(5):
        seen, ticks = kill_policy(rig)
        assert rig.filter_state()[0] is State.HOLD
        if ticks[ticks["t"] < seen]["state"][-1] == running:
            break  # else this machine's own delays made the filter hold just then
    assert rig.filter_state() == (State.HOLD, "policy_died")
    assert np.count_nonzero((ticks["t"] >= seen) & (ticks["state"] == running)) <= 2
    rig.bridge.send_signal(signal.SIGKILL)
    toy.until(lambda: float(rig.state()["lost_at"]) > seen, 30.0, "the bridge's death seen")
