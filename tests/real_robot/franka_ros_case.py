"""The arm under franka_ros2: a node with its names, quality of service and semantics, and the contract's case."""

import os
import threading
import time
from contextlib import contextmanager

import numpy as np
from driver_cases import Case

from palmar.real_robot import ros_env

JOINTS = tuple(f"fr3_joint{i}" for i in range(1, 8))
HOME = np.array([0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785])
SHUFFLED = [3, 0, 6, 1, 5, 2, 4]
"""franka_ros2 takes its joints from an unordered map."""
RATE = 200.0


class FakeFrankaRos2:
    """``franka_robot_state_broadcaster`` and ``fr3_arm_controller``: a cubic spline through the newest trajectory.

    As the real one it begins a new trajectory where its last one stands, refuses one that does not end at rest or
    names other joints, and holds the last point for ever.
    """

    def __init__(self, domain, namespace=""):
        import rclpy
        from rclpy.context import Context
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.qos import QoSProfile, ReliabilityPolicy
        from sensor_msgs.msg import JointState
        from trajectory_msgs.msg import JointTrajectory

        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = rclpy.create_node("fr3", context=self.context, namespace=namespace or None)
        convenience = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        names = [f"franka_robot_state_broadcaster/{k}_joint_states" for k in ("measured", "desired")]
        self.publishers = [self.node.create_publisher(JointState, name, convenience) for name in names]
        self.subscription, self.wanted = None, True
        self.listen = lambda: self.node.create_subscription(
            JointTrajectory, "fr3_arm_controller/joint_trajectory", self.on_trajectory, 10
        )
        self.subscription = self.listen()
        self.node.create_timer(1 / RATE, self.publish)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.q, self.v, self.knots, self.rejected, self.accepted = HOME.copy(), np.zeros(7), [], 0, 0
        self.silent = self.frozen = self.deaf = False
        self.spoil, self.log, self.message = None, [], None
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.spin, daemon=True)
        self.thread.start()

    def spin(self):
        while not self.stopping.is_set():
            self.executor.spin_once(timeout_sec=0.05)
            if self.wanted and self.subscription is None:
                self.subscription = self.listen()
            elif not self.wanted and self.subscription is not None:
                self.node.destroy_subscription(self.subscription)
                self.subscription = None

    def on_trajectory(self, m):
        points = [(p.time_from_start.sec + 1e-9 * p.time_from_start.nanosec, p) for p in m.points]
        if list(m.joint_names) != list(JOINTS) or not points or np.any(points[-1][1].velocities):
            self.rejected += 1
            return
        self.accepted, self.message = self.accepted + 1, m
        if self.deaf:
            return
        now = time.monotonic()
        self.knots = [(now, self.q.copy(), self.v.copy())]
        self.knots += [(now + t, np.array(p.positions), np.array(p.velocities)) for t, p in points]

    def advance(self, now):
        while len(self.knots) > 1 and self.knots[1][0] <= now:
            self.knots.pop(0)
        if len(self.knots) == 1:
            _, self.q, self.v = self.knots.pop()
        if len(self.knots) > 1:
            (t0, q0, v0), (t1, q1, v1) = self.knots[:2]
            h, s = t1 - t0, (now - t0) / (t1 - t0)
            self.q = (
                q0 * (1 + 2 * s) * (1 - s) ** 2
                + h * v0 * s * (1 - s) ** 2
                + q1 * s * s * (3 - 2 * s)
                + h * v1 * s * s * (s - 1)
            )
            d = 6 * s * (1 - s) * (q1 - q0) / h
            self.v = d + v0 * (1 - s) * (1 - 3 * s) + v1 * s * (3 * s - 2)

    def publish(self):
        from sensor_msgs.msg import JointState

        self.advance(time.monotonic())
        self.log.append((time.monotonic(), self.q.copy(), self.v.copy()))
        if self.silent:
            return
        stamp = self.node.get_clock().now().to_msg()
        for kind, publisher in enumerate(self.publishers):
            m = JointState(name=[JOINTS[i] for i in SHUFFLED])
            m.header.stamp = stamp if not self.frozen else self.frozen
            m.position, m.velocity = self.q[SHUFFLED].tolist(), self.v[SHUFFLED].tolist()
            m.effort = [float(i) + 100.0 * (1 - kind) for i in SHUFFLED]  # measured has gravity in it
            if self.spoil is not None:
                self.spoil(m)
            publisher.publish(m)

    def close(self):
        from rclpy.utilities import try_shutdown

        self.stopping.set()
        self.thread.join()
        self.executor.shutdown()
        self.node.destroy_node()
        try_shutdown(context=self.context)

    def go_deaf(self, deaf=True):
        """The controller leaves the graph, or comes back; by the executor's thread, whose subscription it is."""
        self.wanted = not deaf
        end = time.monotonic() + 5.0
        while (self.subscription is not None) != self.wanted and time.monotonic() < end:
            time.sleep(0.01)


class Controls:
    def __init__(self, fake):
        self.fake = fake

    def cut(self):
        self.fake.silent = self.fake.deaf = True

    def restore(self):
        self.fake.silent = self.fake.deaf = False

    def raise_fault(self, name):
        assert name == "no_controller"
        self.fake.go_deaf()

    def reset(self):
        self.fake.go_deaf(False)

    def position(self):
        return self.fake.q.copy()

    def holding(self):
        return not np.any(self.fake.v)

    def received(self):
        return self.fake.accepted


def on_loopback(folder):
    """A ROS domain that others are unlikely to use, on the loopback device."""
    domain = ros_env.random_domain()
    env = ros_env.isolated(domain, folder)
    os.environ.update({k: v for k, v in env.items() if k.startswith(("ROS_", "FAST", "CYCLONE"))})
    return domain


@contextmanager
def make(folder):
    from palmar.real_robot.drivers.franka_ros import FrankaRosConfig, open_driver

    domain = on_loopback(folder)
    fake = FakeFrankaRos2(domain)
    try:
        driver = open_driver(FrankaRosConfig(domain=domain, wait=20.0, fresh=0.3), JOINTS)
        try:
            driver.read()
            yield driver, Controls(fake)
        finally:
            driver.close()
    finally:
        fake.close()


def cases():
    if ros_env.missing():
        return []
    return [
        Case(
            name="franka_ros",
            make=make,
            rate=100.0,
            faults=("no_controller",),
            cut_within=0.35,
            watchdog=0.3,
        )
    ]
