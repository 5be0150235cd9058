"""The policy node ``palmar_policy``: joint states, object poses and pictures in, chunks out, at the bundle's rate.

It acts only on what is fresh: what is stale, from the future, or not to be trusted is refused with a name, counted in
``/diagnostics``, and nothing is said while it is missing; the filter then holds.  Where the filter changed a chunk,
the policy is told what was sent instead; one without such a memory ignores it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from rcl_interfaces.msg import SetParametersResult
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from sensor_msgs.msg import CompressedImage, Image, JointState
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from palmar.real_robot import shared
from palmar.real_robot.config import RunConfig
from palmar.real_robot.layout import LAYOUTS
from palmar.real_robot.nodes import executed, outgoing, parameters, poses, spinning, stamps, topics, trajectory, views
from palmar.real_robot.nodes.chooser import Chooser, Sight, chooser
from palmar.real_robot.nodes.refusals import Refusals
from palmar.real_robot.nodes.stamps import SightRefused
from palmar.real_robot.nodes.topics import NEWEST, PICTURE, READING, SENSOR
from palmar.safety.robot import RobotModel
from palmar.safety.types import Array, CommandRefused, PalmarError

STALE = 0.2
"""Default of the oldest joint state that is acted on [s]; the filter takes a chunk no older."""
DIAGNOSTICS = 1.0
"""Period of ``/diagnostics`` [s]."""
Choose = Callable[[RunConfig, RobotModel], Chooser]


class PolicyNode(LifecycleNode):
    """See the module."""

    def __init__(self, run: RunConfig, *, choose: Choose = chooser, **options: Any):
        """The policy of ``run``, made by ``choose`` when configured; ``options`` are rclpy's, such as ``context``."""
        super().__init__("palmar_policy", namespace=run.namespace or None, **options)
        self.run, self.robot, self._choose = run, run.robot_model(), choose
        self.refusals = Refusals(self.get_logger())
        self._active, self._started, self._said = False, False, 0
        self._acted, self._aged = -np.inf, np.nan
        self._made: list[tuple[Any, Any]] = []
        self._joints: tuple[float, Array, Array] | None = None
        self._columns: tuple[tuple[str, ...], list[int]] = ((), [])
        self._chooser: Chooser | None = None
        parameters.text(self, "instruction", run.instruction, "what to do; changes while inactive")
        parameters.text(self, "transport", "raw", "how pictures come: raw or compressed", fixed=True)
        parameters.number(self, "joint_age", STALE, 0.01, 1.0, "oldest joint state that is acted on [s]")
        parameters.number(self, "object_age", poses.OLDEST, 0.02, 5.0, "oldest object pose that is acted on [s]")
        parameters.number(self, "view_age", views.OLDEST, 0.02, 5.0, "oldest picture that is acted on [s]")
        parameters.number(self, "view_skew", views.SKEW, 0.001, 0.5, "picture and joint state may be apart by [s]")
        self.add_on_set_parameters_callback(self._on_parameters)

    # Lifecycle -------------------------------------------------------------------------------------------

    @spinning.logged
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the policy; refuse what does not fit this robot, constraint file or instruction."""
        self._chooser = self._choose(self.run, self.robot)
        self._chooser.instruct(parameters.value(self, "instruction"))
        self._joint_age = float(parameters.value(self, "joint_age"))
        self._tracked = poses.Tracked(self.run.objects, oldest=float(parameters.value(self, "object_age")))
        skew, oldest = (float(parameters.value(self, name)) for name in ("view_skew", "view_age"))
        self._views = views.Views(self._chooser.views, skew=skew, oldest=oldest)
        self._announce()
        self._create(self._chooser.rate)
        return TransitionCallbackReturn.SUCCESS

    def _create(self, rate: float) -> None:
        self._chunks = self.create_lifecycle_publisher(JointTrajectory, topics.CHUNK, NEWEST)
        self._diagnostics = self.create_lifecycle_publisher(DiagnosticArray, topics.DIAGNOSTICS, 10)
        listen = self.create_subscription
        subscriptions = [
            listen(JointState, topics.JOINT_STATES, self._on_joints, READING),
            listen(JointTrajectory, topics.EXECUTED, self._on_executed, NEWEST),
        ]
        for k, name in enumerate(self.run.objects):
            subscriptions.append(listen(PoseStamped, topics.pose(name), self._on_pose(k), SENSOR))
        packed = parameters.value(self, "transport") == "compressed"
        for k, want in enumerate(self._views.wants):
            topic = topics.picture(want.camera, want.kind, compressed=packed)
            subscriptions.append(listen(CompressedImage if packed else Image, topic, self._on_view(k), PICTURE))
        timers = [self.create_timer(1 / rate, self._act), self.create_timer(DIAGNOSTICS, self._diagnose)]
        self._made += [(self.destroy_timer, t) for t in timers]
        self._made += [(self.destroy_subscription, s) for s in subscriptions]
        self._made += [(self.destroy_publisher, p) for p in (self._chunks, self._diagnostics)]

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
        """Begin an episode with the next joint state, poses and pictures; what was seen before does not count."""
        self._joints = None
        self._tracked.forget()
        self._views.forget()
        self._active, self._started = True, False
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Say nothing more; the filter holds."""
        self._active = False
        return super().on_deactivate(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Say nothing more."""
        self._active = False
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Say nothing more; the node can be configured anew."""
        return self.on_cleanup(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Forget the policy and stop listening."""
        self._active, self._chooser = False, None
        for destroy, thing in self._made:
            destroy(thing)
        self._made = []
        return TransitionCallbackReturn.SUCCESS

    def _on_parameters(self, changed: Sequence[Any]) -> SetParametersResult:
        """None changes while active; an instruction that means nothing is refused with the words known."""
        judged = parameters.judge(changed, active=self._active)
        said = [p.value for p in changed if p.name == "instruction"]
        if not judged.successful or not said or self._chooser is None:
            return judged
        try:
            self._chooser.instruct(said[-1])
        except PalmarError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return judged

    # In --------------------------------------------------------------------------------------------------

    def _now(self) -> float:
        """ROS's clock [s]."""
        return 1e-9 * self.get_clock().now().nanoseconds

    def _on_joints(self, message: JointState) -> None:
        if not self._active:
            return
        names, at = tuple(message.name), stamps.seconds(message.header.stamp)
        try:
            stamps.age("the joint state", at, self._now(), oldest=self._joint_age)
            stamps.after("the joint state", at, self._joints[0] if self._joints else None)
            if names != self._columns[0]:
                self._columns = (names, trajectory.columns(names, self.robot.joints))
            q, qd = (np.array(getattr(message, k))[self._columns[1]] for k in ("position", "velocity"))
        except (SightRefused, CommandRefused, IndexError) as error:
            return self.refusals.note(f"joints_{str(error).split(':')[0]}", f"joint state: {error}")
        if not np.isfinite([q, qd]).all():
            return self.refusals.note("joints_non-finite", "joint state: NaN or infinity, accepted finite numbers")
        self._joints = (at, q, qd)
        self._views.joints(at, q)

    def _on_executed(self, message: JointTrajectory) -> None:
        """Hand over what was sent; only while an episode runs, for a memory starts with the episode."""
        if not (self._active and self._started) or self._chooser is None:
            return
        age = self._now() - stamps.seconds(message.header.stamp)
        try:
            sent = executed.parse(message, self.robot.joints, age, time.monotonic())
        except CommandRefused as error:
            return self.refusals.note("executed", str(error))
        self._chooser.executed(sent)

    def _on_pose(self, k: int) -> Any:
        return self._heed("object", lambda message: self._tracked.take(k, message, self._now()))

    def _on_view(self, k: int) -> Any:
        return self._heed("view", lambda message: self._views.take(k, message, self._now()))

    def _heed(self, kind: str, take: Callable[[Any], Any]) -> Any:
        """A callback that counts what ``take`` refuses."""

        def handle(message: Any) -> None:
            if not self._active:
                return
            try:
                take(message)
            except SightRefused as error:
                self.refusals.note(f"{kind}_{error.reason}", str(error))

        return handle

    # Out -------------------------------------------------------------------------------------------------

    def _act(self) -> None:
        """One period: nothing is said without a fresh joint state, a pose of every object and every view."""
        if not self._active or self._chooser is None:
            return
        try:
            sight = self._look(self._now())
            if not self._started:
                self._chooser.start(sight)
                self._started = True
            targets = self._chooser.targets(sight)
        except SightRefused as error:
            return self.refusals.note(f"blind_{error.reason}", str(error))
        except PalmarError as error:  # words that name none of the objects seen; an observation refused by the policy
            return self.refusals.note(type(error).__name__, str(error))
        seen = min((*self._tracked.stamps(), *(view.stamp for view in sight.views)), default=0.0)
        self._chunks.publish(message(self.robot.joints, targets, 1 / self._chooser.rate, seen=seen))
        self._said, self._acted = self._said + 1, time.monotonic()
        if sight.views:
            self._aged = self._now() - min(view.stamp for view in sight.views)

    def _look(self, now: float) -> Sight:
        """What is seen now.

        Raises:
            SightRefused: If any of it is missing or stale.
        """
        _, q, qd = _named("joints", lambda: self._read(now))
        position, quaternion = _named("object", lambda: self._tracked.look(now))
        return Sight(q, qd, position, quaternion, _named("view", lambda: self._views.look(now)))

    def _read(self, now: float) -> tuple[float, Array, Array]:
        """The newest joint state."""
        if self._joints is None:
            raise SightRefused("unseen: no joint state yet")
        stamps.age("the joint state", self._joints[0], now, oldest=self._joint_age)
        return self._joints

    def _diagnose(self) -> None:
        if not self._active or self._chooser is None:
            return
        acting = time.monotonic() - self._acted < 2 / self._chooser.rate + DIAGNOSTICS
        values = {
            "chunks": self._said,
            "rate": self._chooser.rate,
            "instruction": parameters.value(self, "instruction"),
        }
        if np.isfinite(self._aged):
            values["view_to_chunk_ms"] = round(1e3 * self._aged, 1)
        out = DiagnosticArray()
        out.header.stamp = self.get_clock().now().to_msg()
        out.status = [
            outgoing.status(
                topics.named(self.get_namespace(), "palmar_policy"),
                DiagnosticStatus.OK if acting else DiagnosticStatus.WARN,
                "" if acting else f"silent: {self.refusals.last}",
                {**values, **self.refusals.counts},
                hardware=self.robot.name,
            )
        ]
        self._diagnostics.publish(out)


def _named(kind: str, look: Callable[[], Any]) -> Any:
    """What is seen; a refusal says of what kind it is."""
    try:
        return look()
    except SightRefused as error:
        raise SightRefused(f"{kind}_{error}") from error


def message(joints: Sequence[str], targets: Array, period: float, *, seen: float = 0.0) -> JointTrajectory:
    """Targets (H, n), one per period from now, as a message.

    Its stamp is when a camera saw the oldest of what the policy acted on, ``seen`` on ROS's clock [s]; 0 for nothing.
    """
    points = []
    for k, row in enumerate(targets):
        point = JointTrajectoryPoint(positions=row.tolist())
        nanoseconds = round((k + 1) * period * 1e9)
        point.time_from_start.sec, point.time_from_start.nanosec = divmod(nanoseconds, 10**9)
        points.append(point)
    out = JointTrajectory(joint_names=list(joints), points=points)
    out.header.stamp.sec, out.header.stamp.nanosec = divmod(round(seen * 1e9), 10**9)
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """Run the policy of ``--config FILE``."""
    return spinning.main("policy", PolicyNode, argv)


if __name__ == "__main__":
    raise SystemExit(main())
