"""A Franka arm that franka_ros2 drives: its state by topics, commands to its ``joint_trajectory_controller``.

For those whose arm already runs under ros2_control.  franka_ros2 keeps the 1 kHz; here commands go out at 100 Hz, a
topic hop late.  Every message is a short trajectory that ends at rest, so an arm that hears nothing more stands
still by itself.  What the arm does physically:

- ``stop``: it brakes along its last velocity with ``brake`` [rad/s2] and holds under the controller's gains.
- this process killed: the last trajectory ends at rest; the same.
- reflex, user's stop: the robot's own stop; franka_ros2 deactivates its controllers.  Their reason is in franka_msgs,
  which no package index has, so here it shows as ``no_state`` or ``not_following``.
- ``recover`` takes up commands again once the arm answers; the robot's own error recovery is franka_ros2's action
  ``error_recovery``, called by the operator.

Source: frankarobotics/franka_ros2 2.x (topics, names, quality of service), ros2_controllers (trajectories).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.utilities import try_shutdown
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from palmar.real_robot.drivers.error import DriverError, check_near, checked
from palmar.real_robot.drivers.franka_ros import FrankaRosConfig
from palmar.real_robot.nodes import commanding
from palmar.real_robot.nodes.commanding import Watch
from palmar.real_robot.nodes.topics import NEWEST
from palmar.safety.types import Command, CommandRefused, ConfigError
from palmar.sim.interface import RobotState

Array = np.ndarray
NEWEST_STATE = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
"""franka_ros2 publishes its convenience topics best effort: a reliable subscriber would never match."""


class FrankaRos:
    """See the module.  One thread; the executor spins inside ``read``."""

    def __init__(self, config: FrankaRosConfig, joints: Sequence[str]):
        """Join the graph and wait for the arm's state and its controller.  Nothing moves.

        Raises:
            ConfigError: If there are not 7 joints.
            DriverError: If one of them does not show in time; it says which.
        """
        if len(joints) != 7:
            raise ConfigError(f"a Franka arm has 7 joints, got {len(joints)}: {list(joints)}")
        self.config, self.joints = config, tuple(joints)
        self.refused = 0
        """States that were refused: names, sizes, not finite, or no newer than the one before."""
        self._fault, self._why, self._seq = "", "", 0
        self._measured: tuple[float, Array, Array] | None = None
        self._effort: tuple[float, Array] | None = None
        self._stamps = {"measured": -1, "desired": -1}
        self._sent: tuple[float, Array] | None = None
        self._velocity, self._published = np.zeros(7), 0.0
        self._context = Context()
        rclpy.init(context=self._context, domain_id=config.domain or None)
        self._node = rclpy.create_node("palmar_arm", context=self._context, namespace=config.namespace or None)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        for topic, callback in (
            ("measured_joint_states", self._on_measured),
            ("desired_joint_states", self._on_desired),
        ):
            name = config.topic(config.broadcaster, topic)
            self._node.create_subscription(JointState, name, callback, NEWEST_STATE)
        self._topic = config.topic(config.controller, "joint_trajectory")
        self._publisher = self._node.create_publisher(JointTrajectory, self._topic, NEWEST)
        self._watch = Watch(self._node, self._topic, follow=config.follow, follow_time=config.follow_time)
        self._wait()

    @property
    def fault(self) -> str:
        """``not_following``, ``second_commander`` or ``no_controller``, until ``recover``; '' for none."""
        return self._fault

    def read(self) -> RobotState:
        """The newest state that arrived.

        ``tau`` is franka_ros2's desired effort, which has no gravity in it; the measured one has.

        Raises:
            DriverError: If none did for ``fresh`` seconds, or the last ones were refused.
        """
        self._spin()
        now, m, e = time.monotonic(), self._measured, self._effort
        if m is None or e is None or now - min(m[0], e[0]) > self.config.fresh:
            age = "none yet" if m is None or e is None else f"{1e3 * (now - min(m[0], e[0])):.0f} ms old"
            why = f" ({self._why})" if self._why else ""
            raise DriverError(f"no_state: the arm's newest is {age}, at most {1e3 * self.config.fresh:.0f} ms{why}")
        far = 0.0 if self._sent is None else float(np.abs(m[1] - self._sent[1]).max())
        self._fault = self._watch.fault(now, far) or self._fault
        return RobotState(t=m[0], seq=self._seq, q=m[1], qd=m[2], tau=e[1])

    def write(self, command: Command) -> None:
        """Publish a trajectory through the command that ends at rest, at most ``rate`` times a second.

        Stiffness and damping are the controller's gains: checked and not sent.

        Raises:
            CommandRefused: Shape, not finite, out of range, too far from where the arm is.
            DriverError: In a fault, or without a state to command from.
        """
        q, _, _ = checked(command, self.joints)
        for name, value, low, high in zip(self.joints, q, self.config.low, self.config.high, strict=True):
            if not low <= value <= high:
                raise CommandRefused(f"{name}: {value:.4f} rad is outside [{low}, {high}]")
        if self._fault:
            raise DriverError(self._fault)
        if self._measured is None:
            raise DriverError("no_state: read before the first command")
        check_near(q, self._measured[1], self.joints, most=self.config.jump, what="where the arm is")
        now = time.monotonic()
        if now - self._published < 0.9 / self.config.rate:
            return
        self._velocity = commanding.velocity(q, command.stamp, self._sent)
        self._sent = command.stamp, q
        self._publish(q, self._velocity, ahead=2.0 / self.config.rate)
        self._published = now

    def stop(self, reason: str) -> None:
        """Brake along the last velocity to rest, and hold; see the module."""
        if self._sent is None:
            return
        self._publish(self._sent[1], self._velocity, ahead=0.0)
        self._sent, self._velocity = None, np.zeros(7)
        self._node.get_logger().warning(f"stopped: {reason}")

    def recover(self) -> None:
        """Take up commands again.

        Raises:
            DriverError: If there is still no fresh state, no controller or a second commander.
        """
        self._fault, self._sent, self._velocity = "", None, np.zeros(7)
        self._watch.forgive()
        self._wait(0.2)
        self.read()
        if self._fault:
            raise DriverError(f"{self._fault} remains")

    def close(self) -> None:
        """Stop and leave the graph; the controller holds."""
        if not self._context.ok():
            return
        self.stop("close")
        self._spin()
        self._executor.shutdown()
        self._node.destroy_node()
        try_shutdown(context=self._context)

    # Inside ----------------------------------------------------------------------------------------------

    def _wait(self, seconds: float | None = None) -> None:
        end = time.monotonic() + (self.config.wait if seconds is None else seconds)
        while True:
            self._spin(0.01)
            there = self._publisher.get_subscription_count() > 0
            if there and self._measured is not None and self._effort is not None:
                return
            if time.monotonic() > end:
                what = "state of the arm" if there else f"controller listens on {self._topic}"
                why = f" ({self._why})" if self._why else ""
                if seconds is None:
                    self.close()
                raise DriverError(f"no {what} within {self.config.wait:.1f} s{why}")

    def _spin(self, timeout: float = 0.0) -> None:
        """Take in what has arrived: one callback per call, at most three are waiting."""
        for _ in range(3):
            self._executor.spin_once(timeout_sec=timeout)

    def _on_measured(self, message: JointState) -> None:
        q = self._take("measured", message, message.position)
        qd = None if q is None else self._in_order(message, message.velocity)
        if q is not None and qd is not None:
            self._measured, self._seq, self._why = (time.monotonic(), q, qd), self._seq + 1, ""

    def _on_desired(self, message: JointState) -> None:
        tau = self._take("desired", message, message.effort)
        if tau is not None:
            self._effort = time.monotonic(), tau

    def _take(self, kind: str, message: JointState, values: Any) -> Array | None:
        """Values by joint name; None where the message is refused: an old stamp is an old message."""
        stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        if stamp <= self._stamps[kind]:
            return self._refuse(f"{kind}_joint_states repeat the stamp {stamp}")
        self._stamps[kind] = stamp
        return self._in_order(message, values)

    def _in_order(self, message: JointState, values: Any) -> Array | None:
        names = list(message.name)
        lacking = [j for j in self.joints if j not in names]
        if lacking or len(values) != len(names):
            return self._refuse(f"a state of {names} with {len(values)} values lacks {lacking}")
        found = np.array([values[names.index(j)] for j in self.joints])
        return found if np.isfinite(found).all() else self._refuse(f"a state is not finite: {found.tolist()}")

    def _refuse(self, why: str) -> None:
        self.refused, self._why = self.refused + 1, why

    def _publish(self, q: Array, v: Array, *, ahead: float) -> None:
        """Through q with velocity v, then to rest; the trajectory begins when it arrives."""
        c, low, high = self.config, np.array(self.config.low), np.array(self.config.high)
        there = np.clip(q + ahead * v, low, high)
        rest = {"brake": c.brake, "least": 1.0 / c.rate, "low": low, "high": high}
        self._publisher.publish(commanding.to_rest(self.joints, there, v, ahead=ahead, **rest))
