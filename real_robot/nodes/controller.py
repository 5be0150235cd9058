"""Any arm or hand under ros2_control as a device: filtered commands to its controller, joint states back.

For those whose hardware already runs under ros2_control; docs/ros2_control.md says when that is right.  Two kinds of
controller take commands, both silently, both without a timeout:

- ``trajectory``, a ``joint_trajectory_controller``, topic ``~/joint_trajectory``: every message is a short trajectory
  through the newest command that ends at rest, so hardware that hears nothing more stands still by itself;
- ``forward``, a ``forward_command_controller``, topic ``~/commands``: numbers without names in the order of its
  parameter ``joints``, which is asked for before anything moves; the last ones are held for good.

What the hardware does physically: ``stop`` brakes along the last velocity with ``brake`` [rad/s2] and holds, servos
on.  If this process is killed, ``trajectory`` comes to rest by itself and ``forward`` holds the last command, at most
one period of ``commands`` ahead.  ``recover`` takes up commands again; clearing the hardware's own fault is its
owner's.  A controller that refuses what it is sent says so only in its own log: here it shows as ``not_following``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import rclpy
from rcl_interfaces.srv import GetParameters
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.utilities import try_shutdown
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from palmar.real_robot.drivers.error import DriverError, check_near, checked
from palmar.real_robot.drivers.ros2_control import Ros2ControlConfig
from palmar.real_robot.nodes import commanding, stamps
from palmar.real_robot.nodes.commanding import Watch
from palmar.real_robot.nodes.topics import NEWEST, SENSOR
from palmar.safety.types import Array, Command, ConfigError
from palmar.sim.interface import RobotState


class Ros2Control:
    """See the module.  One thread; the executor spins inside ``read``."""

    def __init__(self, config: Ros2ControlConfig, joints: Sequence[str]):
        """Join the graph; wait for joint states and the controller, and ask which joints it has.  Nothing moves.

        Raises:
            ConfigError: If names do not fit, or the controller has other joints or another interface.
            DriverError: If one of them does not show in time; it says which.
        """
        for given in (config.names, config.low):
            if given and len(given) != len(joints):
                raise ConfigError(f"ros2_control: {given} for {len(joints)} joints {list(joints)}")
        self.config, self.joints = config, tuple(joints)
        self._names, self._order = config.names or self.joints, np.arange(len(joints))
        self.refused = 0
        """Joint states that were refused: names, sizes, not finite, old, or from the future."""
        self._fault, self._why, self._seq = "", "", 0
        self._state: tuple[float, float, Array, Array, Array] | None = None
        self._sent: tuple[float, Array] | None = None
        self._velocity, self._published, self._braking = np.zeros(len(joints)), 0.0, None
        self._ends = (np.array(config.low), np.array(config.high)) if config.low else (-np.inf, np.inf)
        self._context = Context()
        rclpy.init(context=self._context, domain_id=config.domain or None)
        self._node = rclpy.create_node("palmar_device", context=self._context, namespace=config.namespace or None)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._node.create_subscription(JointState, "joint_states", self._on_state, SENSOR)
        trajectory = config.kind == "trajectory"
        self._topic = f"{config.controller}/{'joint_trajectory' if trajectory else 'commands'}"
        message = JointTrajectory if trajectory else Float64MultiArray
        self._publisher = self._node.create_publisher(message, self._topic, NEWEST)
        self._watch = Watch(self._node, self._topic, follow=config.follow, follow_time=config.follow_time)
        try:
            self._wait(config.wait)
            self._order = self._ask_joints()
        except BaseException:
            self.close()
            raise

    @property
    def fault(self) -> str:
        """``not_following``, ``second_commander`` or ``no_controller``, until ``recover``; '' for none."""
        return self._fault

    def read(self) -> RobotState:
        """The newest joint state, by names, at the time of its stamp.

        Raises:
            DriverError: If none is younger than ``fresh``.
        """
        self._spin()
        now, s = time.monotonic(), self._state
        if self._braking is not None:
            self._brake(now)
        if s is None or now - s[1] > self.config.fresh:
            age = "none yet" if s is None else f"{1e3 * (now - s[1]):.0f} ms old"
            why = f" ({self._why})" if self._why else ""
            raise DriverError(f"no_state: the newest joint state is {age}, at most {1e3 * self.config.fresh:.0f}{why}")
        far = 0.0 if self._sent is None else float(np.abs(s[2] - self._sent[1]).max())
        self._fault = self._watch.fault(now, far) or self._fault
        return RobotState(t=s[1], seq=self._seq, q=s[2], qd=s[3], tau=s[4])

    def write(self, command: Command) -> None:
        """Send the command, at most ``commands`` times per second.

        Stiffness and damping are the controller's own: checked and not sent.

        Raises:
            CommandRefused: If it is not finite, of another shape, or too far from where the joints are.
            DriverError: In a fault, or without a state to command from.
        """
        q, _, _ = checked(command, self.joints)
        if self._fault:
            raise DriverError(self._fault)
        if self._state is None:
            raise DriverError("no_state: read before the first command")
        check_near(q, self._state[2], self.joints, most=self.config.jump, what="where it is")
        now = time.monotonic()
        if now - self._published < 0.9 / self.config.commands:
            return
        self._braking = None
        self._velocity = commanding.velocity(q, command.stamp, self._sent)
        self._sent = command.stamp, q
        self._publish(q, self._velocity, ahead=1.0 / self.config.commands)
        self._published = now

    def stop(self, reason: str) -> None:
        """Brake along the last velocity to rest, and hold; see the module."""
        if self._sent is None:
            return
        q, v = self._sent[1], self._velocity
        if self.config.kind == "trajectory":
            self._publish(q, v, ahead=0.0)
        else:
            self._braking = time.monotonic(), q, v
            self._brake(self._braking[0])
        self._sent, self._velocity = None, np.zeros(len(self.joints))
        self._node.get_logger().warning(f"stopped: {reason}")

    def recover(self) -> None:
        """Take up commands again.

        Raises:
            DriverError: If there is still no fresh state, no controller or a second commander.
        """
        self._fault, self._sent, self._velocity = "", None, np.zeros(len(self.joints))
        self._braking = None
        self._watch.forgive()
        self._wait(0.3)
        self._until(lambda: self._state is not None and time.monotonic() - self._state[1] < self.config.fresh, 0.3)
        self.read()
        if self._fault:
            raise DriverError(f"{self._fault} remains")

    def close(self) -> None:
        """Stop, in full, and leave the graph; the controller holds."""
        if not self._context.ok():
            return
        self.stop("close")
        while self._braking is not None:
            self._brake(time.monotonic())
            time.sleep(0.5 / self.config.commands)
        self._executor.shutdown()
        self._node.destroy_node()
        try_shutdown(context=self._context)

    # Inside ----------------------------------------------------------------------------------------------

    def _until(self, condition: Callable[[], bool], seconds: float) -> bool:
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                return False
            self._spin(0.01)
        return True

    def _wait(self, seconds: float) -> None:
        """For a controller that listens and joint states that come."""
        listens = lambda: self._publisher.get_subscription_count() > 0  # noqa: E731
        if not self._until(lambda: listens() and self._state is not None, seconds):
            what = "joint state with all of these joints" if listens() else f"controller listens on {self._topic}"
            raise DriverError(f"no {what} within {seconds:.1f} s{f' ({self._why})' if self._why else ''}")

    def _ask_joints(self) -> Array:
        """Where each of the controller's joints is among ours; numbers without names need this."""
        there = list(self._ask("joints") or ())
        if sorted(there) != sorted(self._names):
            raise ConfigError(f"{self.config.controller} moves {there}, the device has {sorted(self._names)}")
        interfaces = self._ask("interface_name") or self._ask("command_interfaces") or "position"
        if interfaces not in ("position", ["position"]):
            raise ConfigError(f"{self.config.controller} takes {interfaces}, accepted 'position' alone")
        return np.array([self._names.index(name) for name in there])

    def _ask(self, name: str) -> Any:
        """A parameter of the controller; None where it has none of this name."""
        client = self._node.create_client(GetParameters, f"{self.config.controller}/get_parameters")
        try:
            if not self._until(client.service_is_ready, self.config.wait):
                raise DriverError(f"{self.config.controller} does not say its joints within {self.config.wait} s")
            future = client.call_async(GetParameters.Request(names=[name]))
            if not self._until(future.done, self.config.wait):
                raise DriverError(f"{self.config.controller} does not say its joints within {self.config.wait} s")
            answer = future.result()
            values = list(answer.values) if answer is not None else []
            return (list(values[0].string_array_value) or values[0].string_value) if values else None
        finally:
            self._node.destroy_client(client)

    def _spin(self, timeout: float = 0.0) -> None:
        """Take in what has arrived: one callback per call."""
        for _ in range(4):
            self._executor.spin_once(timeout_sec=timeout)

    def _on_state(self, message: JointState) -> None:
        names, at = list(message.name), stamps.seconds(message.header.stamp)
        if not set(self._names) & set(names):
            return  # another device's broadcaster on the same topic
        now = 1e-9 * self._node.get_clock().now().nanoseconds
        try:
            age = stamps.age("a joint state", at, now, oldest=self.config.fresh)
            stamps.after("a joint state", at, self._state[0] if self._state else None)
            rows = [self._column(names, message, k) for k in ("position", "velocity", "effort")]
        except stamps.SightRefused as error:
            self.refused, self._why = self.refused + 1, str(error)
            return
        self._state, self._seq, self._why = (at, time.monotonic() - age, *rows), self._seq + 1, ""

    def _column(self, names: list[str], message: JointState, kind: str) -> Array:
        values = getattr(message, kind)
        if kind == "effort" and not self.config.effort:
            return np.zeros(len(self._names))
        lacking = sorted(set(self._names) - set(names))
        if lacking or len(values) != len(names):
            raise stamps.SightRefused(f"names: {len(values)} {kind}s of {names}, lacking {lacking}")
        found = np.array([values[names.index(name)] for name in self._names])
        if not np.isfinite(found).all():
            raise stamps.SightRefused(f"non-finite: {kind} {found.tolist()}")
        return found

    def _publish(self, q: Array, v: Array, *, ahead: float) -> None:
        """Through q with velocity v after ``ahead`` [s], then to rest; or q alone, to a forwarder."""
        if self.config.kind == "forward":
            self._publisher.publish(Float64MultiArray(data=q[self._order].tolist()))
            return
        c, (low, high) = self.config, self._ends
        rest = {"brake": c.brake, "least": 1.0 / c.commands, "low": low, "high": high}
        self._publisher.publish(commanding.to_rest(self._names, q, v, ahead=ahead, **rest))

    def _brake(self, now: float) -> None:
        """One step of the way to rest, for a forwarder, which has none of its own."""
        if self._braking is None or now - self._published < 0.9 / self.config.commands:
            return
        begin, q, v = self._braking
        rest = max(float(np.abs(v).max()) / self.config.brake, 1e-3)
        t = min(now - begin, rest)
        self._publish(np.clip(q + v * (t - 0.5 * t * t / rest), *self._ends), v, ahead=0.0)
        self._published = now
        if t >= rest:
            self._braking = None
