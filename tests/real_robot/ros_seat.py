"""Nodes in this process over real rclpy, and the control process's shared file with this test in its seat.

The test writes what the control process would write and reads what reached it; nothing runs at 1 kHz, so this is
cheap.  The control process itself is in ``ros_rig``.
"""

import os
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import toy_robot as toy

from palmar.real_robot import ros_env, shared
from palmar.real_robot.layout import STATES, control_layout
from palmar.safety.types import State


class Ros:
    """One context, one executor."""

    def __init__(self, folder):
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        self.domain = ros_env.random_domain()
        env = ros_env.isolated(self.domain, folder)
        os.environ.update({k: v for k, v in env.items() if k.startswith(("ROS_", "FAST", "CYCLONE"))})
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=self.domain)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.env = env

    def node(self, name="test", namespace=None):
        import rclpy

        return self.add(rclpy.create_node(name, namespace=namespace, context=self.context))

    def add(self, node):
        self.executor.add_node(node)
        return node

    def drop(self, node):
        self.executor.remove_node(node)
        node.destroy_node()

    def spin(self, seconds=0.05):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.005)

    def change(self, name, *transitions):
        """Drive the lifecycle node ``name`` of another process."""
        from lifecycle_msgs.srv import ChangeState

        from palmar.real_robot.nodes.lifecycle import TRANSITIONS

        node = self.node("changer")
        client = node.create_client(ChangeState, f"{name}/change_state")
        self.until(client.service_is_ready, name, timeout=30.0)
        for transition in transitions:
            request = ChangeState.Request()
            request.transition.id = TRANSITIONS[transition]
            future = client.call_async(request)
            self.until(future.done, transition, timeout=30.0)
            assert future.result().success, f"{name} refused to {transition}"
        self.drop(node)

    def until(self, condition, what="condition", *, timeout=30.0, every=lambda: None):
        end = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < end, f"{what} did not come true within {timeout} s"
            every()
            self.spin(0.02)


@contextmanager
def ros(folder):
    import rclpy

    r = Ros(folder)
    try:
        yield r
    finally:
        r.executor.shutdown()
        for node in list(r.executor.get_nodes()):
            node.destroy_node()
        rclpy.try_shutdown(context=r.context)


class Seat:
    """The control process's end of its shared file."""

    def __init__(self, r, folder, **changes):
        self.run = toy.run_config(folder, domain=r.domain, **changes)
        robot = self.run.robot_model()
        names = self.run.constraint_set(robot).names
        d = shared.Description("control", robot.hash(), robot.joints, self.run.objects, names)
        self.map = shared.create(Path(self.run.control_memory), d, control_layout(d))
        self.index, self._over = 0, threading.Event()
        self._thread = threading.Thread(target=self._beats, daemon=True)
        self._thread.start()

    def _beats(self):
        while not self._over.wait(0.01):
            self.beat()

    def beat(self):
        """The control process's block ``state``, as of now."""
        self.index += 1
        block = self.map.blocks["state"]
        s = block.record
        s["index"] = s["beat"] = s["read_seq"] = self.index
        s["t"] = s["read_t"] = time.monotonic()
        s["q"], s["state"], s["chunk"], s["edited_seq"] = toy.HOME, STATES.index(State.RUN), -1, -1
        s["foreseen_t"] = s["edited_from"] = np.nan
        block.write()

    def chunk(self):
        return self.map.blocks["chunk"].read()

    def held(self):
        r = self.map.blocks["request"].read()
        return r["reason"].decode() if r["hold"] else ""

    def stop(self):
        """The control process falls silent."""
        self._over.set()
        self._thread.join()

    def close(self):
        self.stop()
        self.map.close()


@contextmanager
def seat(r, folder, **changes):
    s = Seat(r, folder, **changes)
    try:
        yield s
    finally:
        s.close()


def up(r, node):
    """Configured and active, spinning; a bridge needs a fresh state, which a busy machine may have late."""
    from rclpy.lifecycle import TransitionCallbackReturn

    r.add(node)
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    r.until(lambda: node.trigger_activate() == TransitionCallbackReturn.SUCCESS, "active")
    return node


def chunk(q, names=("shoulder", "elbow")):
    from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

    point = JointTrajectoryPoint(positions=[float(x) for x in q])
    point.time_from_start.nanosec = 100_000_000
    return JointTrajectory(joint_names=list(names), points=[point])


def values(status):
    return {v.key: v.value for v in status.values}


def parameter(name, value):
    from rclpy.parameter import Parameter

    return Parameter(name, value=value)
