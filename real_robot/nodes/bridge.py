"""The bridge node ``palmar_bridge``: ROS 2 on one side, the control process's shared memory on the other.

Chunks, people and, from real hardware, tracked objects go in; states, objects of simulated hardware, diagnostics and
what was executed in place of a chunk come out.  It decides nothing about safety but who may command: a second
publisher on the command topic is named and, while it is there, nobody is obeyed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import SetParametersResult
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory
from visualization_msgs.msg import MarkerArray

from palmar.real_robot import shared
from palmar.real_robot.config import RunConfig
from palmar.real_robot.layout import FRESH, LAYOUTS, OPERATOR
from palmar.real_robot.nodes import executed, incoming, outgoing, parameters, poses, spinning, topics, trajectory
from palmar.real_robot.nodes.chunks import ChunksIn
from palmar.real_robot.nodes.incoming import Requests
from palmar.real_robot.nodes.objects import ObjectsIn, ObjectsOut
from palmar.real_robot.nodes.people import people
from palmar.real_robot.nodes.refusals import Refusals
from palmar.real_robot.nodes.topics import LATCHED, NEWEST
from palmar.safety.types import CommandRefused

STATE_HZ, GRAPH_HZ, DIAGNOSTICS_HZ = 100.0, 10.0, 1.0
CONTROL_WAIT = 60.0
"""How long ``configure`` waits for the control process to appear [s]."""


class Bridge(LifecycleNode):
    """See the module."""

    def __init__(self, run: RunConfig, **options: Any):
        """The bridge of ``run``; ``options`` are rclpy's, such as ``context``."""
        super().__init__("palmar_bridge", namespace=run.namespace or None, **options)
        self.run = run
        self.robot = run.robot_model()
        self.refusals = Refusals(self.get_logger())
        self._maps: list[shared.SharedMap] = []
        self._requests: Requests | None = None
        self._made: list[tuple[Any, Any]] = []
        self._active = False
        self._chunks: ChunksIn | None = None
        self._counts = {"received": 0, "lost": 0}
        self._last_state, self._read_t = None, 0.0
        self._sent = executed.Sent()
        parameters.text(self, "expected_publisher", "", "the only node that may command; '' for whoever comes first")
        parameters.number(self, "horizon", trajectory.HORIZON, 0.01, trajectory.HORIZON, "latest target of a chunk [s]")
        parameters.number(self, "object_age", poses.OLDEST, 0.02, 5.0, "oldest tracked pose that is passed on [s]")
        self.add_on_set_parameters_callback(self._on_parameters)

    # Lifecycle -------------------------------------------------------------------------------------------

    @spinning.logged
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Attach to the control process; check that it is the same robot."""
        self._let_go()  # of what a refused attempt took
        same, path = self.robot.hash(), Path(self.run.control_memory)
        control = shared.wait_attach(path, LAYOUTS, kind="control", robot=same, timeout=CONTROL_WAIT)
        self._maps = [control]
        twin = None
        if self.run.objects and self.run.hardware != "real":
            path = Path(self.run.twin_memory)
            twin = shared.wait_attach(path, LAYOUTS, kind="twin", robot=same, timeout=CONTROL_WAIT)
            self._maps.append(twin)
        self._people, self._control = control.blocks["people"], control.blocks["state"]
        self._requests = Requests(control.blocks["request"])
        self._requests.hold("bridge_inactive")
        self._create(control, twin, self._requests)
        return TransitionCallbackReturn.SUCCESS

    def _create(self, control: shared.SharedMap, twin: shared.SharedMap | None, requests: Requests) -> None:
        """Publishers, subscriptions, services and timers; all guarded by ``_active``."""
        publish, names = self.create_lifecycle_publisher, self.run.objects
        self._joint_states = publish(JointState, topics.JOINT_STATES, 10)
        self._diagnostics = publish(DiagnosticArray, topics.DIAGNOSTICS, 10)
        self._state = publish(DiagnosticStatus, topics.STATE, LATCHED)
        self._executed = publish(JointTrajectory, topics.EXECUTED, NEWEST)
        publishers = [self._joint_states, self._diagnostics, self._state, self._executed]
        self._objects = ObjectsOut(self, names, twin.blocks["objects"]) if twin else None
        publishers += self._objects.publishers if self._objects else []
        heeded = lambda: self._active  # noqa: E731
        self._chunks = ChunksIn(
            self, self.robot.joints, control.blocks["chunk"], requests,
            expected=str(parameters.value(self, "expected_publisher")),
            horizon=float(parameters.value(self, "horizon")),
            counts=self._counts, refusals=self.refusals, heeded=heeded, changed=self._diagnose,
        )  # fmt: skip
        listen = self.create_subscription
        subscriptions = [self._chunks.subscription, listen(MarkerArray, topics.PEOPLE, self._on_people, NEWEST)]
        if names and not twin:
            oldest, block = float(parameters.value(self, "object_age")), control.blocks["objects"]
            taken = ObjectsIn(self, names, block, oldest=oldest, refusals=self.refusals, heeded=heeded)
            subscriptions += taken.subscriptions
        services = [self.create_service(Trigger, f"~/{name}", self._operator(name)) for name in OPERATOR]
        beats = ((STATE_HZ, self._publish_state), (GRAPH_HZ, self._check_graph), (DIAGNOSTICS_HZ, self._diagnose))
        timers = [self.create_timer(1 / rate, act) for rate, act in beats]
        self._made = [(self.destroy_timer, t) for t in timers] + [(self.destroy_service, s) for s in services]
        self._made += [(self.destroy_subscription, s) for s in subscriptions]
        self._made += [(self.destroy_publisher, p) for p in publishers]

    @spinning.logged
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let chunks through, provided that the control process is alive."""
        s = self._read()
        if s is None or time.monotonic() - float(s["t"]) > FRESH:
            self.get_logger().error("cannot activate: the control process gives no fresh state")
            return TransitionCallbackReturn.FAILURE
        result = super().on_activate(state)
        self._active, self._last_state = True, None
        self._check_graph()
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Hold."""
        self._hold()
        return super().on_deactivate(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Hold, whatever state the node is in."""
        self._hold()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Hold; the node can be configured anew."""
        self._hold()
        self._let_go()
        return TransitionCallbackReturn.SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of everything that ``on_configure`` took."""
        self._let_go()
        return TransitionCallbackReturn.SUCCESS

    def _hold(self) -> None:
        self._active = False
        if self._requests is not None:
            self._requests.hold("bridge_inactive")

    def _let_go(self) -> None:
        for destroy, thing in self._made:
            destroy(thing)
        for mapped in self._maps:
            mapped.close()
        self._made, self._maps, self._requests, self._chunks = [], [], None, None

    def _on_parameters(self, changed: Sequence[Any]) -> SetParametersResult:
        """Every parameter of this node is about safety: none changes while it is active."""
        return parameters.judge(changed, active=self._active)

    # In --------------------------------------------------------------------------------------------------

    def _on_people(self, message: MarkerArray) -> None:
        """Pass capsules on with a monotonic time of receipt; what is refused is as if it had not come."""
        if not self._active:
            return
        try:
            found = people(list(message.markers), time.monotonic())
        except CommandRefused as error:
            return self.refusals.note("people", str(error))
        incoming.write_people(self._people, found)

    def _check_graph(self) -> None:
        if self._active and self._chunks is not None:
            self._chunks.look_around()

    def _operator(self, name: str) -> Any:
        def handle(request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            assert self._requests is not None
            self._requests.count(name)
            self.get_logger().warning(f"operator: {name}")
            response.success, response.message = True, f"{name} passed to the control process"
            return response

        return handle

    # Out -------------------------------------------------------------------------------------------------

    def _read(self) -> np.void | None:
        try:
            return self._control.read()
        except shared.TornRead:
            return None

    def _publish_state(self) -> None:
        s = self._read() if self._active else None
        if s is None or time.monotonic() - float(s["t"]) > FRESH:
            return  # no state is better than an old one with a fresh stamp
        joints, clock = self.robot.joints, self.get_clock()
        if float(s["read_t"]) != self._read_t:  # a reading is published once
            self._read_t = float(s["read_t"])
            self._joint_states.publish(outgoing.joint_state(joints, s, outgoing.stamp(clock, self._read_t)))
        if (sent := self._sent.take(s)) is not None:
            self._executed.publish(executed.message(joints, sent, outgoing.stamp(clock, float(sent.t[0]))))
        now = (int(s["state"]), bytes(s["reason"]), bytes(s["foreseen"]), int(s["edited_seq"]))
        if now != self._last_state:
            self._last_state = now
            self._state.publish(self._status(s))
        if self._objects is not None:
            self._objects.publish()

    def _status(self, s: Any) -> DiagnosticStatus:
        name = topics.named(self.get_namespace(), "palmar_filter")
        return outgoing.filter_status(s, name=name, robot=self.robot.name, mode=self.run.mode)

    def _diagnose(self) -> None:
        if not self._active or self._chunks is None:
            return
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        s = self._read()
        if s is None or time.monotonic() - float(s["t"]) > FRESH:
            name = topics.named(self.get_namespace(), "palmar_filter")
            first = DiagnosticStatus(level=DiagnosticStatus.STALE, name=name, message="control is silent")
        else:
            first = self._status(s)
        message.status = [first, self._chunks.status(self.robot.name)]
        self._diagnostics.publish(message)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the bridge of ``--config FILE``."""
    return spinning.main("bridge", Bridge, argv)


if __name__ == "__main__":
    raise SystemExit(main())
