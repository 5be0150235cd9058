"""Two DDS vendors: a policy and a tracker in pure Cyclone DDS command the bridge, which is rclpy on Fast DDS."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import toy_robot as toy

from palmar.real_robot import ros_env

pytestmark = [
    pytest.mark.ros,
    pytest.mark.skipif(bool(ros_env.missing()), reason=ros_env.missing() or "rclpy is here"),
    pytest.mark.skipif(find_spec("cyclonedds") is None, reason="the cyclonedds wheel is not installed"),
]
OFFSET = 0.05


@pytest.fixture
def r(tmp_path):
    from ros_seat import ros

    with ros(tmp_path) as made:
        yield made


@pytest.fixture
def cyclone(r, tmp_path):
    """The foreign program on the same domain, and its log."""
    log = tmp_path / "cyclone.log"
    env = {k: v for k, v in os.environ.items() if not k.startswith("FAST")}
    call = [sys.executable, str(Path(__file__).with_name("cyclone_policy.py")), str(r.domain), str(OFFSET)]
    with log.open("wb") as out:
        child = subprocess.Popen(call, stdout=out, stderr=out, env=env)
    yield child, log
    child.kill()
    child.wait()


def test_joint_states_go_out_and_chunks_and_objects_come_in(r, tmp_path, cyclone):
    from ros_seat import seat

    from palmar.real_robot.config import DeviceConfig
    from palmar.real_robot.nodes.bridge import Bridge

    child, log = cyclone
    arm = DeviceConfig(name="arm", driver="fr3", joints=("shoulder", "elbow"), memory="/dev/shm/nowhere")
    with seat(r, tmp_path, objects=("red",), hardware="real", devices=(arm,)) as s:
        bridge = r.add(Bridge(s.run, context=r.context))
        bridge.trigger_configure()
        r.spin(0.05)
        bridge.trigger_activate()
        objects = s.map.blocks["objects"]
        try:
            r.until(lambda: s.chunk() is not None and objects.read() is not None, "chunk and object", timeout=40)
        finally:
            assert child.poll() is None, log.read_text()
        chunk, tracked = s.chunk(), objects.read()
        assert int(chunk["count"]) == 2
        # what came back was computed from what went out: by name, in hardware order again
        assert np.allclose(chunk["q"][:2], toy.HOME + OFFSET, atol=1e-12)
        assert np.allclose(np.diff(chunk["t"][:2]), 0.1)
        assert np.allclose(tracked["position"][0], (0.5, -0.1, 0.03))
        assert np.allclose(tracked["quaternion"][0], (0.8, 0, 0, 0.6))
        before = int(chunk["seq"])
        r.until(lambda: int(s.chunk()["seq"]) >= before + 5, "more chunks")
        assert not s.held()
        # one commander at a time holds across vendors
        from trajectory_msgs.msg import JointTrajectory

        thief = r.node("thief")
        publisher = thief.create_publisher(JointTrajectory, "palmar/chunk", 1)
        r.until(lambda: s.held() == "second_publisher", "the thief is seen")
        thief.destroy_publisher(publisher)
        r.until(lambda: not s.held(), "one commander again")
        r.drop(thief)
        child.kill()
        child.wait()
        last = int(s.chunk()["seq"])
        r.spin(0.3)
        assert int(s.chunk()["seq"]) <= last + 1
        bridge.trigger_shutdown()
        r.drop(bridge)
