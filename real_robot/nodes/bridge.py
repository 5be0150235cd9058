"""The bridge node ``palmar_bridge``: ROS 2 on one side, the control process's shared memory on the other.

Chunks and people go in; states, objects, diagnostics and what was executed in place of a chunk come out.  It decides
nothing about safety but who may command: a second publisher on the command topic is named and, while it is there,
nobody is obeyed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import PoseStamped
from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory
from visualization_msgs.msg import MarkerArray

from palmar.real_robot import shared
from palmar.real_robot.config import RunConfig
from palmar.real_robot.layout import LAYOUTS, STATES
from palmar.real_robot.nodes import executed, spinning, trajectory
from palmar.real_robot.nodes.people import people
from palmar.safety.types import CommandRefused, State

COMMAND_TOPIC = "/palmar/chunk"
PEOPLE_TOPIC = "/palmar/people"
OPERATOR = ("stop", "reset", "estop", "release")
"""Services of the operator: counters of the request block."""
NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
FRESH = 0.1
"""A control process silent for longer is not there [s]."""
STATE_HZ, GRAPH_HZ, DIAGNOSTICS_HZ = 100.0, 10.0, 1.0
CONTROL_WAIT = 60.0
"""How long ``configure`` waits for the control process to appear [s]."""
LOG_EVERY = 1.0
"""At most one log line per this time about refused chunks [s]."""


class Bridge(LifecycleNode):
    """See the module."""

    def __init__(self, run: RunConfig):
        super().__init__("palmar_bridge", namespace=run.namespace or None)
        self.run = run
        self.robot = run.robot_model()
        self._maps: list[shared.SharedMap] = []
        self._active = False
        self._refused: dict[str, int] = {}
        self._received = self._seq = 0
        self._last_number, self._lost = -1, 0
        self._last_log = self._last_state = None
        self._sent = executed.Sent()
        self._seen_objects = np.zeros(len(run.objects), np.int64)
        self.declare_parameter("expected_publisher", "", ParameterDescriptor(description="only node to command"))
        self.declare_parameter("horizon", trajectory.HORIZON, ParameterDescriptor(description="latest target [s]"))
        self.add_on_set_parameters_callback(self._on_parameters)
        self._commanders = trajectory.Publishers()

    # Lifecycle -------------------------------------------------------------------------------------------

    @spinning.logged
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Attach to the control process; check that it is the same robot."""
        same = self.robot.hash()
        path = Path(self.run.control_memory)
        control = shared.wait_attach(path, LAYOUTS, kind="control", robot=same, timeout=CONTROL_WAIT)
        self._maps = [control]
        self._twin = None
        if self.run.objects:
            self._twin = shared.attach(Path(self.run.twin_memory), LAYOUTS, kind="twin", robot=same)
            self._maps.append(self._twin)
        self._chunk, self._request = control.blocks["chunk"], control.blocks["request"]
        self._people = control.blocks["people"]
        self._control = control.blocks["state"]
        old = self._request.read()
        if old is not None:
            self._request.record[()] = old
        previous = self._chunk.read()
        self._seq = int(previous["seq"]) if previous is not None else 0
        self._ask(hold=1, reason="bridge_inactive")
        self._commanders = trajectory.Publishers(str(self.get_parameter("expected_publisher").value))
        self._create()
        return TransitionCallbackReturn.SUCCESS

    def _create(self) -> None:
        """Publishers, subscription, services and timers; all guarded by ``_active``."""
        self._joint_states = self.create_lifecycle_publisher(JointState, "/joint_states", 10)
        self._diagnostics = self.create_lifecycle_publisher(DiagnosticArray, "/diagnostics", 10)
        self._state = self.create_lifecycle_publisher(DiagnosticStatus, "/palmar/state", LATCHED)
        self._executed = self.create_lifecycle_publisher(JointTrajectory, executed.EXECUTED_TOPIC, NEWEST)
        self._poses = [
            self.create_lifecycle_publisher(PoseStamped, f"/objects/{name}/pose", 10) for name in self.run.objects
        ]
        # rclpy passes the message's info to a callback of two arguments, though its annotation knows only one.
        on_chunk: Any = self._on_chunk
        self._subscriptions_ = [
            self.create_subscription(JointTrajectory, COMMAND_TOPIC, on_chunk, NEWEST),
            self.create_subscription(MarkerArray, PEOPLE_TOPIC, self._on_people, NEWEST),
        ]
        self._operator_services = [self.create_service(Trigger, f"~/{name}", self._operator(name)) for name in OPERATOR]
        self._timers_ = [
            self.create_timer(1 / STATE_HZ, self._publish_state),
            self.create_timer(1 / GRAPH_HZ, self._check_graph),
            self.create_timer(1 / DIAGNOSTICS_HZ, self._publish_diagnostics),
        ]

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
        self._active = False
        self._ask(hold=1, reason="bridge_inactive")
        return super().on_deactivate(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Hold, whatever state the node is in."""
        self._active = False
        if self._maps:
            self._ask(hold=1, reason="bridge_inactive")
        return TransitionCallbackReturn.SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of everything that ``on_configure`` took."""
        for timer in self._timers_:
            self.destroy_timer(timer)
        for service in self._operator_services:
            self.destroy_service(service)
        for subscription in self._subscriptions_:
            self.destroy_subscription(subscription)
        for publisher in (self._joint_states, self._diagnostics, self._state, self._executed, *self._poses):
            self.destroy_publisher(publisher)
        for mapped in self._maps:
            mapped.close()
        self._maps = []
        return TransitionCallbackReturn.SUCCESS

    def _on_parameters(self, parameters: Sequence[Any]) -> SetParametersResult:
        """Every parameter of this node is about safety: none changes while it is active."""
        if self._active:
            return SetParametersResult(successful=False, reason="immutable while active: deactivate first")
        for p in parameters:
            if p.name == "horizon" and not 0.01 <= p.value <= trajectory.HORIZON:
                reason = f"horizon is {p.value}, accepted 0.01 to {trajectory.HORIZON} s"
                return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)

    # In --------------------------------------------------------------------------------------------------

    def _on_chunk(self, message: JointTrajectory, info: Any) -> None:
        """Check who spoke and what; pass it on with a monotonic time of receipt."""
        received, transit = time.monotonic(), (time.time_ns() - info["source_timestamp"]) * 1e-9
        if not self._active:
            return
        self._received += 1
        self._check_graph()
        if not self._commanders.obeyed:
            return self._refuse("second_publisher", f"publishers besides the owner: {self._commanders.intruders}")
        number = info.get("publication_sequence_number") or info["source_timestamp"]
        if number <= self._last_number:
            return self._refuse("out_of_order", f"number {number} after {self._last_number}")
        if "publication_sequence_number" in info and info["publication_sequence_number"] and self._last_number > 0:
            self._lost += number - self._last_number - 1
        self._last_number = number
        try:
            points = list(message.points)[: trajectory.MAX_CHUNK + 1]
            accepted = trajectory.chunk(
                list(message.joint_names),
                [p.positions for p in points],
                [p.time_from_start.sec + 1e-9 * p.time_from_start.nanosec for p in points],
                joints=self.robot.joints,
                seq=self._seq + 1,
                received=received,
            )
        except CommandRefused as error:
            return self._refuse(str(error).split(":")[0], str(error))
        self._seq += 1
        r, h = self._chunk.record, len(accepted.t)
        r["seq"], r["received"], r["count"], r["sent"] = (
            accepted.seq,
            received,
            h,
            received - max(0.0, transit),
        )
        r["lost"] = self._lost
        r["t"][:h], r["q"][:h] = accepted.t, accepted.q
        r["impedance"] = accepted.stiffness is not None
        if accepted.stiffness is not None:
            r["stiffness"][:h], r["damping"][:h] = accepted.stiffness, accepted.damping
        self._chunk.write()

    def _on_people(self, message: MarkerArray) -> None:
        """Pass capsules on with a monotonic time of receipt; what is refused is as if it had not come."""
        if not self._active:
            return
        try:
            found = people(list(message.markers), time.monotonic())
        except CommandRefused as error:
            return self._refuse("people", str(error))
        r, h = self._people.record, len(found.radius)
        r["count"], r["received"] = h, found.received
        r["ends"][:h], r["radius"][:h], r["velocity"][:h] = found.ends, found.radius, found.velocity
        self._people.write()

    def _refuse(self, reason: str, detail: str) -> None:
        self._refused[reason] = self._refused.get(reason, 0) + 1
        now = time.monotonic()
        if self._last_log is None or now - self._last_log > LOG_EVERY:
            self._last_log = now
            self.get_logger().warning(f"refused ({sum(self._refused.values())} so far): {detail[:200]}")

    def _check_graph(self) -> None:
        """Hold while another publisher is on the command topic, and say which."""
        if not self._active:
            return
        infos = self.get_publishers_info_by_topic(COMMAND_TOPIC)
        ends = [(f"{i.node_namespace.rstrip('/')}/{i.node_name}", tuple(i.endpoint_gid)) for i in infos]
        before = self._commanders.intruders
        if self._commanders.update(ends):
            self._last_number = -1
        intruders = self._commanders.intruders
        if intruders != before:
            if intruders:  # rclpy refuses two severities from one line
                self.get_logger().error(f"may not command on {COMMAND_TOPIC}: {', '.join(intruders)}")
            else:
                self.get_logger().info(f"{COMMAND_TOPIC} has one publisher again")
            self._publish_diagnostics()
        self._ask(hold=int(bool(intruders)), reason="second_publisher" if intruders else "")

    def _operator(self, name: str) -> Any:
        def handle(request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            self._ask(**{name: int(self._request.record[name]) + 1})
            self.get_logger().warning(f"operator: {name}")
            response.success, response.message = True, f"{name} passed to the control process"
            return response

        return handle

    def _ask(self, **values: Any) -> None:
        r = self._request.record
        for name, value in values.items():
            r[name] = value
        r["beat"], r["pid"] = int(r["beat"]) + 1, os.getpid()
        self._request.write()

    # Out -------------------------------------------------------------------------------------------------

    def _read(self) -> np.void | None:
        try:
            return self._control.read()
        except shared.TornRead:
            return None

    def _stamp(self, t: float) -> Any:
        """Monotonic time ``t`` on ROS's clock."""
        age = int((time.monotonic() - t) * 1e9)
        wall = self.get_clock().now().nanoseconds - age
        stamp = JointState().header.stamp
        stamp.sec, stamp.nanosec = divmod(wall, 10**9)
        return stamp

    def _publish_state(self) -> None:
        s = self._read() if self._active else None
        if s is None or time.monotonic() - float(s["t"]) > FRESH:
            return  # no state is better than an old one with a fresh stamp
        message = JointState(name=list(self.robot.joints))
        message.header.stamp = self._stamp(float(s["read_t"]))
        message.position, message.velocity, message.effort = (s[k].tolist() for k in ("q", "qd", "tau"))
        self._joint_states.publish(message)
        if (sent := self._sent.take(s)) is not None:
            self._executed.publish(executed.message(self.robot.joints, sent, self._stamp(float(sent.t[0]))))
        now = (int(s["state"]), bytes(s["reason"]), bytes(s["foreseen"]), int(s["edited_seq"]))
        if now != self._last_state:
            self._last_state = now
            self._state.publish(self._status(s))
        self._publish_objects()

    def _publish_objects(self) -> None:
        if self._twin is None:
            return
        try:
            o = self._twin.blocks["objects"].read()
        except shared.TornRead:
            return
        if o is None:
            return
        for k in np.flatnonzero(o["seq"] != self._seen_objects):
            message = PoseStamped()
            message.header.stamp, message.header.frame_id = self._stamp(float(o["t"][k])), "world"
            p, q = message.pose.position, message.pose.orientation
            p.x, p.y, p.z = map(float, o["position"][k])
            q.w, q.x, q.y, q.z = map(float, o["quaternion"][k])
            self._poses[k].publish(message)
        self._seen_objects = o["seq"].copy()

    def _status(self, s: Any) -> DiagnosticStatus:
        """The filter's state as one status."""
        state, reason = STATES[int(s["state"])], s["reason"].decode()
        levels = {State.RUN: DiagnosticStatus.OK, State.HOLD: DiagnosticStatus.WARN}
        values = {k: int(s[k]) for k in ("missed", "chunks", "refused", "driver_errors", "dropped", "beat")}
        values |= {"refusal": s["refusal"].decode(), "mode": self.run.mode, "realtime": bool(s["realtime"])}
        values |= {"foreseen": s["foreseen"].decode(), "chunk": int(s["chunk"]), "edited_chunk": int(s["edited_seq"])}
        for name, key in (("foreseen_in_s", "foreseen_t"), ("edited_since_s", "edited_from")):
            if np.isfinite(s[key]):
                values[name] = round(abs(float(s[key]) - float(s["t"])), 4)
        return DiagnosticStatus(
            level=levels.get(state, DiagnosticStatus.ERROR),
            name="palmar_filter",
            message=f"{state.value} {reason}".strip(),
            hardware_id=self.robot.name,
            values=_pairs(values),
        )

    def _publish_diagnostics(self) -> None:
        if not self._active:
            return
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        s = self._read()
        if s is None or time.monotonic() - float(s["t"]) > FRESH:
            silent = DiagnosticStatus(level=DiagnosticStatus.STALE, name="palmar_filter", message="control is silent")
            message.status = [silent, self._topic_status()]
        else:
            message.status = [self._status(s), self._topic_status()]
        self._diagnostics.publish(message)

    def _topic_status(self) -> DiagnosticStatus:
        """Who commands and what was refused."""
        intruders = self._commanders.intruders
        return DiagnosticStatus(
            level=DiagnosticStatus.ERROR if intruders else DiagnosticStatus.OK,
            name="palmar_command_topic",
            message=f"refused: second publisher {', '.join(intruders)}" if intruders else "",
            hardware_id=self.robot.name,
            values=_pairs({"received": self._received, "passed": self._seq, "lost": self._lost, **self._refused}),
        )


def _pairs(values: dict[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=k, value=str(v)) for k, v in values.items()]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the bridge of ``--config FILE``."""
    return spinning.main("bridge", Bridge, argv)


if __name__ == "__main__":
    raise SystemExit(main())
