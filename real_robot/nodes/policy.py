"""The policy node ``palmar_policy``: joint states and object poses in, chunks out, at the bundle's rate.

Where the filter changed a chunk, the policy is told what was sent instead; one without such a memory ignores it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from palmar.real_robot import shared
from palmar.real_robot.config import RunConfig
from palmar.real_robot.layout import LAYOUTS
from palmar.real_robot.nodes import executed, spinning, topics, trajectory
from palmar.real_robot.nodes.bridge import COMMAND_TOPIC, NEWEST
from palmar.real_robot.nodes.executed import EXECUTED_TOPIC, Executed, Listener
from palmar.safety.robot import RobotModel
from palmar.safety.types import Array, CommandRefused
from palmar.sim.interface import Seen

STALE = 0.1
"""Joint states older than this are not acted on [s]."""


class Chooser(Protocol):
    """What chooses joint targets from what a robot can see."""

    rate: float
    """Chunks per second [Hz]."""

    def start(self, q: Array) -> None:
        """Begin at rest at q (n,)."""
        ...

    def targets(self, q: Array, qd: Array, position: Array, quaternion: Array) -> Array:
        """Targets (H, n) [rad], one per period from now, from readings (n,), (n,), (m, 3), (m, 4)."""
        ...

    def executed(self, sent: Executed) -> None:
        """Hear what was sent since the last chunk, where the filter changed it."""
        ...


class Sway:
    """Moves every joint slowly about where it started: checks the whole chain without a learned policy."""

    rate = 20.0
    ahead = 4
    """Targets per chunk."""

    def __init__(self, robot: RobotModel, *, amplitude: float = 0.03, period: float = 4.0):
        self.robot, self.amplitude, self.period = robot, amplitude, period
        self._k, self._q = 0, robot.home

    def start(self, q: Array) -> None:
        """Sway about q."""
        self._k, self._q = 0, q

    def targets(self, q: Array, qd: Array, position: Array, quaternion: Array) -> Array:
        """The next targets, kept inside the joint ranges."""
        self._k += 1
        phase = 2 * np.pi / self.period * (self._k + np.arange(self.ahead)) / self.rate
        limits = self.robot.limits
        wave = self._q + self.amplitude * (1 - np.cos(phase))[:, None]
        return np.clip(wave, limits.q_min + 0.02, limits.q_max - 0.02)

    def executed(self, sent: Executed) -> None:
        """It sways on."""


class Learned:
    """A bundle with its task's observation and action mapping."""

    def __init__(self, run: RunConfig, robot: RobotModel):
        from palmar.policies.bundle import BundlePolicy, load_bundle
        from palmar.policies.contract import TaskContract
        from palmar.sim.policy_io import policy_io
        from palmar.sim.tasks.lift import ground

        bundle = load_bundle(Path(run.bundle))
        self._io = policy_io(run.task, robot)
        bundle.check(robot, run.constraint_set(robot), TaskContract.of(run.task, self._io))
        self._policy = BundlePolicy(bundle)
        self.rate = float(self._io.rate)
        self._target = np.array([ground(run.instruction)])
        self._carry: Any = None

    def start(self, q: Array) -> None:
        """Begin an episode at rest at q."""
        self._io.reset(np.array([0]), q[None])
        self._carry = self._policy.start(1)

    def targets(self, q: Array, qd: Array, position: Array, quaternion: Array) -> Array:
        """One target, one period from now."""
        obs = self._io.observe(Seen(q[None], qd[None], position[None], quaternion[None], self._target))
        action, self._carry = self._policy.act(obs, self._carry)
        return np.asarray(self._io.joint_target(np.asarray(action, dtype=np.float64)))

    def executed(self, sent: Executed) -> None:
        """Into the policy's memory, if it has one for this."""
        self._carry = told(self._policy, self._carry, sent)


def told(policy: object, carry: Any, sent: Executed) -> Any:
    """The carry of a policy that was told what was sent; unchanged if the policy does not listen."""
    return policy.executed(carry, sent) if isinstance(policy, Listener) else carry


def chooser(run: RunConfig, robot: RobotModel) -> Chooser:
    """What ``run`` asks for: a bundle, or ``sway`` where none is named."""
    return Learned(run, robot) if run.bundle else Sway(robot)


class PolicyNode(LifecycleNode):
    """See the module."""

    def __init__(self, run: RunConfig):
        super().__init__("palmar_policy", namespace=run.namespace or None)
        self.run, self.robot = run, run.robot_model()
        self._active, self._started = False, False
        self._joints: tuple[float, Array, Array] | None = None
        m = len(run.objects)
        self._position, self._quaternion = np.full((m, 3), np.nan), np.tile([1.0, 0, 0, 0], (m, 1))
        self._columns: tuple[tuple[str, ...], list[int]] = ((), [])
        self._chooser: Chooser | None = None

    @spinning.logged
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the policy; refuse what does not fit this robot, constraint file or instruction."""
        self._chooser = chooser(self.run, self.robot)
        self._announce()
        self._chunks = self.create_lifecycle_publisher(JointTrajectory, COMMAND_TOPIC, NEWEST)
        self._subscriptions_ = [
            self.create_subscription(JointState, topics.JOINT_STATES, self._on_joints, qos_profile_sensor_data),
            self.create_subscription(JointTrajectory, EXECUTED_TOPIC, self._on_executed, NEWEST),
        ]
        for k, name in enumerate(self.run.objects):
            on_pose = self._on_pose(k)
            self._subscriptions_.append(
                self.create_subscription(PoseStamped, topics.pose(name), on_pose, qos_profile_sensor_data)
            )
        self._timer = self.create_timer(1 / self._chooser.rate, self._act)
        return TransitionCallbackReturn.SUCCESS

    def _announce(self) -> None:
        """Tell a control process on this machine whom to watch; elsewhere the age of chunks does."""
        path = Path(self.run.control_memory)
        if path.exists():
            memory = shared.attach(path, LAYOUTS, kind="control", robot=self.robot.hash())
            memory.blocks["policy"].record["pid"] = os.getpid()
            memory.blocks["policy"].write()
            memory.close()

    @spinning.logged
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Begin an episode with the next joint state."""
        self._active, self._started = True, False
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Say nothing more; the filter holds."""
        self._active = False
        return super().on_deactivate(state)

    def _on_joints(self, message: JointState) -> None:
        names = tuple(message.name)
        try:
            if names != self._columns[0]:
                self._columns = (names, trajectory.columns(names, self.robot.joints))
            q, qd = (np.array(getattr(message, k))[self._columns[1]] for k in ("position", "velocity"))
        except (CommandRefused, IndexError) as error:
            self.get_logger().error(f"joint state ignored: {error}", throttle_duration_sec=1.0)
            return
        if np.isfinite([q, qd]).all():
            self._joints = (time.monotonic(), q, qd)

    def _on_executed(self, message: JointTrajectory) -> None:
        """Hand over what was sent; only while an episode runs, for a memory starts with the episode."""
        if not (self._active and self._started) or self._chooser is None:
            return
        age = 1e-9 * self.get_clock().now().nanoseconds - _seconds(message.header.stamp)
        try:
            sent = executed.parse(message, self.robot.joints, age, time.monotonic())
        except CommandRefused as error:
            self.get_logger().error(f"executed commands ignored: {error}", throttle_duration_sec=1.0)
            return
        self._chooser.executed(sent)

    def _on_pose(self, k: int) -> Any:
        def handle(message: PoseStamped) -> None:
            p, q = message.pose.position, message.pose.orientation
            self._position[k], self._quaternion[k] = (p.x, p.y, p.z), (q.w, q.x, q.y, q.z)

        return handle

    def _act(self) -> None:
        """One period: nothing is said without a fresh joint state and a pose of every object."""
        if not self._active or self._chooser is None or self._joints is None:
            return
        t, q, qd = self._joints
        if time.monotonic() - t > STALE or not np.isfinite(self._position).all():
            return
        if not self._started:
            self._chooser.start(q)
            self._started = True
        targets = self._chooser.targets(q, qd, self._position.copy(), self._quaternion.copy())
        self._chunks.publish(message(self.robot.joints, targets, 1 / self._chooser.rate))


def _seconds(stamp: Any) -> float:
    return stamp.sec + 1e-9 * stamp.nanosec


def message(joints: Sequence[str], targets: Array, period: float) -> JointTrajectory:
    """Targets (H, n), one per period from now, as a message."""
    points = []
    for k, row in enumerate(targets):
        point = JointTrajectoryPoint(positions=row.tolist())
        nanoseconds = round((k + 1) * period * 1e9)
        point.time_from_start.sec, point.time_from_start.nanosec = divmod(nanoseconds, 10**9)
        points.append(point)
    return JointTrajectory(joint_names=list(joints), points=points)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the policy of ``--config FILE``."""
    return spinning.main("policy", PolicyNode, argv)


if __name__ == "__main__":
    raise SystemExit(main())
