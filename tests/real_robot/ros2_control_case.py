"""Contract cases of ``ros2_control``: its other end is a controller node with the documented topics and semantics.

The node follows ros2_controllers' sources: ``joint_trajectory_controller`` (``validate_trajectory_msg``: what it
refuses it refuses silently; cubic splines; the last point is held) and ``forward_command_controller`` (a message of
another size is dropped; the last one is held for good), and ``joint_state_broadcaster`` (reliable, any order).
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from driver_cases import Case

from palmar.real_robot import ros_env
from palmar.real_robot.fakes.plant import ServoPlant

JOINTS = ("shoulder", "elbow")
ORDER = ("elbow", "shoulder")
"""The controller's own order."""
HZ = 200.0
"""Of the controller manager."""


class Controller:
    """A controller and a joint_state_broadcaster in a thread, on a context of their own."""

    def __init__(self, kind, domain, *, order=ORDER, interface="position"):
        import rclpy
        from rclpy.executors import SingleThreadedExecutor
        from sensor_msgs.msg import JointState

        self.kind, self.plant, self.received, self.rejected = kind, ServoPlant(np.zeros(2)), 0, []
        self.heard = []
        """Time since each message's publication [s], where its sender is on this machine."""
        self.is_cut, self.extra, self.hz, self.points = False, [], HZ, None
        self._goal, self._names = np.zeros(2), list(order)
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain)
        self.node = rclpy.create_node("the_controller", context=self._context)
        self.node.declare_parameter("joints", self._names)
        if kind == "forward":
            self.node.declare_parameter("interface_name", interface)
        self._states = self.node.create_publisher(JointState, "joint_states", 10)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._ending, self._subscription = threading.Event(), None
        self.listen()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def listen(self):
        """Create the subscription; SystemDefaultsQoS is reliable, volatile, depth 10."""
        from std_msgs.msg import Float64MultiArray
        from trajectory_msgs.msg import JointTrajectory

        kinds = {"trajectory": (JointTrajectory, "~/joint_trajectory"), "forward": (Float64MultiArray, "~/commands")}
        self._subscription = self.node.create_subscription(*kinds[self.kind], self._on_message, 10)

    def deaf(self):
        self.node.destroy_subscription(self._subscription)

    def close(self):
        import rclpy

        self._ending.set()
        self._thread.join()
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self._context)

    def _run(self):
        following = time.monotonic()
        while not self._ending.is_set():
            if self.is_cut:  # the cable: nothing in, nothing out; the hardware holds on
                time.sleep(0.002)
            else:
                self._executor.spin_once(timeout_sec=0.001)
            if time.monotonic() < following:
                continue
            following = max(following + 1 / self.hz, time.monotonic() - 0.05)
            self._follow(time.monotonic())
            if not self.is_cut:
                self._states.publish(self.state())

    def state(self):
        from sensor_msgs.msg import JointState

        q, qd, tau = self.plant.measure()
        m = JointState(name=["gripper", *reversed(JOINTS)], position=[0.04, *q[::-1]], velocity=[0.0, *qd[::-1]])
        m.effort = [0.0, *tau[::-1]]
        m.header.stamp = self.node.get_clock().now().to_msg()
        return m

    def _on_message(self, m):
        self.received += 1
        why = self._wrong(m) if self.kind == "trajectory" else ("" if len(m.data) == len(self._names) else "size")
        if why:
            self.rejected.append(why)
        elif self.kind == "forward":
            self._goal = np.array([m.data[self._names.index(j)] for j in JOINTS])
        else:
            self._begin(m)

    def _wrong(self, m):
        """Why joint_trajectory_controller would refuse, with its default parameters; '' if it would not."""
        times = [p.time_from_start.sec + 1e-9 * p.time_from_start.nanosec for p in m.points]
        if sorted(m.joint_names) != sorted(self._names) or not m.points:
            return "joints"
        if any(abs(v) > 1e-7 for v in m.points[-1].velocities):
            return "velocity at the end"
        if any(b <= a for a, b in zip(times, times[1:], strict=False)):
            return "times"
        if any(len(p.positions) != 2 or len(p.velocities) not in (0, 2) for p in m.points):
            return "sizes"
        return ""

    def _begin(self, m):
        """Splines from where it is now: (time, q, qd) per knot, in the order of JOINTS."""
        now, order = time.monotonic(), [list(m.joint_names).index(j) for j in JOINTS]
        q, qd = self._desired(now)
        self.points = [(now, q, qd)]
        for p in m.points:
            t = now + p.time_from_start.sec + 1e-9 * p.time_from_start.nanosec
            v = np.array(p.velocities)[order] if len(p.velocities) else np.zeros(2)
            self.points.append((t, np.array(p.positions)[order], v))

    def _desired(self, now):
        if self.points is None or now >= self.points[-1][0]:
            return (self._goal if self.points is None else self.points[-1][1]), np.zeros(2)
        k = next(k for k, p in enumerate(self.points) if now < p[0])
        (t0, q0, v0), (t1, q1, v1) = self.points[k - 1], self.points[k]
        h, s = t1 - t0, (now - t0) / (t1 - t0)
        q = (1 + 2 * s) * (1 - s) ** 2 * q0 + s * (1 - s) ** 2 * h * v0 + s * s * (3 - 2 * s) * q1
        q = q + s * s * (s - 1) * h * v1
        v = 6 * s * (1 - s) * (q1 - q0) / h + (1 - s) * (1 - 3 * s) * v0 + s * (3 * s - 2) * v1
        return q, v

    def _follow(self, now):
        self.plant.target(self._goal if self.kind == "forward" else self._desired(now)[0])


class Controls:
    def __init__(self, controller):
        self.controller = controller

    def cut(self):
        self.controller.is_cut = True

    def restore(self):
        self.controller.is_cut = False

    def raise_fault(self, name):
        assert name == "no_controller"
        self.controller.deaf()

    def reset(self):
        self.controller.listen()

    def position(self):
        return self.controller.plant.measure()[0]

    def holding(self):
        return self.controller.plant.servoed

    def received(self):
        return self.controller.received


@contextmanager
def pair(folder: Path, kind: str, *, settings=None, **changes):
    """A driver on the graph with a controller, on loopback alone."""
    import os

    from palmar.real_robot.drivers.ros2_control import Ros2ControlConfig, open_driver

    domain = ros_env.random_domain()
    env = ros_env.isolated(domain, folder)
    os.environ.update({k: v for k, v in env.items() if k.startswith(("ROS_", "FAST", "CYCLONE"))})
    controller = Controller(kind, domain, **changes)
    config = {"controller": "the_controller", "kind": kind, "domain": domain, "fresh": 0.1, **(settings or {})}
    try:
        driver = open_driver(Ros2ControlConfig(**config), JOINTS)
        try:
            yield driver, controller
        finally:
            driver.close()
    finally:
        controller.close()


def case(kind: str) -> Case:
    @contextmanager
    def make(folder):
        with pair(folder, kind) as (driver, controller):
            toy_until(driver)
            yield driver, Controls(controller)

    return Case(f"ros2_control-{kind}", make, rate=100.0, faults=("no_controller",), cut_within=0.2, watchdog=0.2)


def toy_until(driver):
    """Until the driver reads."""
    from palmar.real_robot.drivers.error import DriverError

    end = time.monotonic() + 5
    while True:
        try:
            return driver.read()
        except DriverError:
            assert time.monotonic() < end, "no state"
            time.sleep(0.005)


def cases() -> list[Case]:
    return [] if ros_env.missing() else [case("trajectory"), case("forward")]
