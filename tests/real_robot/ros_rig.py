"""What the tests over real rclpy share: a toy robot with its bridge as processes, and a node that talks to it."""

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import toy_robot as toy
from control_rig import Bridge

from palmar.real_robot import ros_env, shared
from palmar.real_robot.layout import LAYOUTS


class Rig(Bridge):
    """A toy robot with its bridge as processes; what a bridge would see, seen from here."""

    def __init__(self, folder, stack, **changes):
        import rclpy

        self.run = toy.run_config(folder, **{"domain": ros_env.random_domain(), **changes})
        self.env = ros_env.isolated(self.run.domain, folder)
        os.environ.update({k: v for k, v in self.env.items() if k.startswith(("ROS_", "FAST", "CYCLONE"))})
        stack.enter_context(toy.process("twin", self.run))
        stack.enter_context(toy.process("control", self.run))
        self.bridge = stack.enter_context(toy.process("nodes.bridge", self.run, self.env))
        path = Path(self.run.control_memory)
        self.map = shared.wait_attach(path, LAYOUTS, kind="control", robot=None, timeout=120)
        self.blocks = self.map.blocks
        toy.until(lambda: self.state() is not None, 60, "control ready")
        self.lifecycle("palmar_bridge", "configure", "activate")
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=self.run.domain)
        stack.callback(rclpy.try_shutdown, context=self.context)

    def lifecycle(self, node, *transitions):
        path = Path(self.run.run_dir) / "run.json"
        steps = [
            sys.executable,
            "-m",
            "palmar.real_robot.nodes.lifecycle",
            "--config",
            str(path),
            "--node",
            node,
        ]
        for t in transitions:
            steps += ["--do", t]
        done = subprocess.run(steps, env=self.env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr

    def asked(self):
        """Why the bridge asks for a hold; the filter names the first reason, which on a busy machine is another."""
        r = self.map.blocks["request"].read()
        return r["reason"].decode() if r["hold"] else ""


@dataclass
class Talker:
    """A node that publishes chunks and listens to diagnostics."""

    node: object
    executor: object
    publisher: object
    diagnostics: dict

    def spin(self, seconds=0.05):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.01)

    def send(self, rows, names=("shoulder", "elbow"), after=None):
        from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

        message = JointTrajectory(joint_names=list(names))
        for k, row in enumerate(rows):
            point = JointTrajectoryPoint(positions=[float(x) for x in row])
            t = 0.1 * (k + 1) if after is None else after[k]
            point.time_from_start.sec, point.time_from_start.nanosec = int(t // 1), int(round(t % 1 * 1e9))
            message.points.append(point)
        self.publisher.publish(message)

    def wait(self, condition, timeout=20.0, what="condition", every=lambda: None):
        end = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < end, f"{what} did not come true within {timeout} s: {self.diagnostics}"
            every()
            self.spin()

    def value(self, name, key):
        status = self.diagnostics.get(name)
        return 0 if status is None else int({v.key: v.value for v in status.values}.get(key, 0))


@contextmanager
def talker(rig, name="palmar_policy", namespace=None, topic="/palmar/chunk"):
    import rclpy
    from diagnostic_msgs.msg import DiagnosticArray
    from rclpy.executors import SingleThreadedExecutor
    from trajectory_msgs.msg import JointTrajectory

    node = rclpy.create_node(name, namespace=namespace, context=rig.context)
    executor = SingleThreadedExecutor(context=rig.context)
    executor.add_node(node)
    seen = {}
    node.create_subscription(DiagnosticArray, "/diagnostics", lambda m: seen.update({s.name: s for s in m.status}), 10)
    publisher = node.create_publisher(JointTrajectory, topic, 1)
    t = Talker(node, executor, publisher, seen)
    try:
        t.wait(lambda: publisher.get_subscription_count() > 0, what="bridge discovered")
        yield t
    finally:
        executor.shutdown()
        node.destroy_node()
