"""Write one run into one self-describing MCAP file that survives a killed recorder."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from mcap.writer import Writer

from palmar.rollouts import schema
from palmar.rollouts.header import RolloutHeader
from palmar.rollouts.template import STAMP, Template, sentinel
from palmar.safety.types import CONTACT_PAIRS, Array, Chunk, RolloutRefused, Verdict

FLUSH_S = 0.5
"""Half of the second a killed recorder may lose [s]."""
LEVELS = {"ok": 0, "warn": 1, "error": 2}
"""Names of DiagnosticStatus levels."""


class RolloutWriter:
    """A rollout file being written; use as a context manager, from one thread.

    A thread of its own closes the current MCAP chunk and hands it to the operating system every ``FLUSH_S``
    seconds, also when nothing new arrives: SIGKILL loses at most the last second.  A power cut may lose more,
    nothing is synchronised to the disk.  Times are the run's own clock [s], the header's ``t0`` onwards.

    Raises:
        RolloutRefused: If the file exists already, or a value does not have the shape the header promises.
    """

    def __init__(self, path: str | Path, header: RolloutHeader) -> None:
        self.header = header
        self.path = Path(path)
        self._names = list(header.robot.joints)
        self._margins = header.constraint_set().names
        self._channels: dict[str, int] = {}
        self._schemas: dict[str, int] = {}
        self._last_reason: tuple[Any, str] | None = None
        self._strangers: set[str] = set()
        self._templates: dict[Any, Template] = {}
        self._result: dict[str, Any] = {"success": None, "error": None}
        self._types = schema.typestore().types
        metadata, attachments = header.to_metadata(), header.to_attachments()
        try:
            self._stream = self.path.open("xb")
        except FileExistsError as error:
            raise RolloutRefused(f"{self.path} exists already; a rollout is never overwritten") from error
        self._writer = Writer(self._stream, enable_data_crcs=True)
        self._writer.start(profile="ros2", library="palmar")
        self._writer.add_metadata(schema.METADATA, metadata)
        for name, data in attachments.items():
            self._writer.add_attachment(
                header.wall_start_ns, header.wall_start_ns, name, "application/octet-stream", data
            )
        self._writer.flush()
        self._lock, self._closing = threading.Lock(), threading.Event()
        self._flusher = threading.Thread(target=self._flush_forever, name="rollout-flush", daemon=True)
        self._flusher.start()

    def __enter__(self) -> RolloutWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._result["error"] = repr(error)
        self.close()

    def finish(self, *, success: bool | None, detail: Mapping[str, Any] | None = None) -> None:
        """Say how the run ended; written when the file is closed."""
        self._result |= {"success": success, **(detail or {})}

    def close(self) -> None:
        """Write result, index and footer.  Harmless when repeated."""
        if self._stream.closed:
            return
        self._closing.set()
        self._flusher.join()
        with self._lock:
            self._writer.flush()
            self._writer.add_metadata(schema.RESULT, {key: json.dumps(value) for key, value in self._result.items()})
            self._writer.finish()
            self._stream.close()

    # What is recorded ------------------------------------------------------------------------------------

    def joint_state(self, t: float, q: Array, qd: Array, tau: Array) -> None:
        """What was measured, (n,) each."""
        self._joints(schema.JOINT_STATES, t, q, qd, tau)

    def intended(self, t: float, q: Array) -> None:
        """The reference the policy asked for at this tick, (n,)."""
        self._joints(schema.INTENDED, t, q, (), ())

    def command(self, t: float, u: Array, ud: Array, udd: Array, uddd: Array) -> None:
        """What was sent, (n,) each."""
        n = len(self._names)
        rest = np.concatenate([self._row(udd, n, "udd"), self._row(uddd, n, "uddd")])
        self._joints(schema.COMMAND, t, u, ud, ())
        self._numbers(schema.DERIVATIVES, t, rest, (("acceleration", n), ("jerk", n)))

    def chunk(self, chunk: Chunk) -> None:
        """A chunk as it was received, accepted or not; times are kept to the nanosecond.

        Stiffness and damping, where it has both, are further columns named ``<joint>/stiffness``, ``<joint>/damping``.
        """
        start = float(chunk.t[0])
        names, rows = list(chunk.joints) or self._names, np.asarray(chunk.q, dtype=np.float64)
        if chunk.stiffness is not None and chunk.damping is not None:
            names = [like.format(j) for like in ("{}", schema.STIFFNESS, schema.DAMPING) for j in names]
            rows = np.concatenate([rows, chunk.stiffness, chunk.damping], axis=1)
        points: list[Any] = [
            self._types["trajectory_msgs/msg/JointTrajectoryPoint"](
                self._row(q, len(q), "chunk"), *([np.zeros(0)] * 3), self._duration(float(t) - start)
            )
            for q, t in zip(rows, chunk.t, strict=True)
        ]
        message = self._types[schema.TRAJECTORY_TYPE](self._head(start), names, points)
        self._put(schema.CHUNK, chunk.received, message, sequence=chunk.seq)

    def object_pose(self, t: float, name: str, position: Array, quaternion: Array) -> None:
        """Pose of an object in the world frame: (3,) [m] and (4,) w-x-y-z."""
        if name not in self.header.objects:
            raise RolloutRefused(f"object {name!r} is not in the header's {self.header.objects}")
        p, q = self._row(position, 3, "position"), self._row(quaternion, 4, "quaternion")
        pose = self._types["geometry_msgs/msg/Pose"](
            self._types["geometry_msgs/msg/Point"](*map(float, p)),
            self._types["geometry_msgs/msg/Quaternion"](*map(float, (q[1], q[2], q[3], q[0]))),
        )
        self._put(schema.object_topic(name), t, self._types[schema.POSE_TYPE](self._head(t, "world"), pose))

    def verdict(self, t: float, verdict: Verdict) -> None:
        """What the filter said; a change of state or reason becomes an event as well."""
        k = len(self._margins)
        row = np.full(schema.VERDICT_HEAD + 2 * k, np.nan)
        row[: schema.VERDICT_HEAD] = (
            schema.STATE_CODES.index(verdict.state),
            verdict.changed,
            verdict.edit,
            verdict.compute_s,
        )
        row[schema.VERDICT_HEAD : schema.VERDICT_HEAD + k] = [
            verdict.margins.get(name, np.nan) for name in self._margins
        ]
        row[schema.VERDICT_HEAD + k :] = [name in verdict.active for name in self._margins]
        self._numbers(schema.VERDICT, t, row, (("head", schema.VERDICT_HEAD), ("margin", k), ("active", k)))
        self._note(t, verdict)

    def physics(self, step: int, ctrl: Array) -> None:
        """Controls applied *during* physics step ``step`` (the first is 0), (nu,)."""
        ctrl = np.atleast_1d(np.asarray(ctrl, dtype=np.float64))
        row = np.concatenate([[float(step)], ctrl])
        self._numbers(schema.PHYSICS, self._at(step), row, (("step", 1), ("ctrl", len(ctrl))))

    def impedance(self, t: float, stiffness: Array, damping: Array) -> None:
        """Stiffness and damping sent with the command at t, (n,) each."""
        n = len(self._names)
        row = np.concatenate([self._row(stiffness, n, "stiffness"), self._row(damping, n, "damping")])
        self._numbers(schema.IMPEDANCE, t, row, (("stiffness", n), ("damping", n)))

    def servo(self, step: int, stiffness: Array, damping: Array) -> None:
        """Stiffness and damping of the joints' servos from physics step ``step`` on, (n,) each."""
        n = len(self._names)
        gains = self._row(stiffness, n, "stiffness"), self._row(damping, n, "damping")
        row = np.concatenate([[float(step)], *gains])
        self._numbers(schema.SERVO, self._at(step), row, (("step", 1), ("stiffness", n), ("damping", n)))

    def state(self, steps: int, qpos: Array, qvel: Array) -> None:
        """Physics state *after* ``steps`` steps, (nq,) and (nv,): what a replay is compared with."""
        row = np.concatenate([[float(steps)], qpos, qvel]).astype(np.float64)
        self._numbers(schema.STATE, self._at(steps), row, (("step", 1), ("qpos", len(qpos)), ("qvel", len(qvel))))

    def contact(self, t: float, forces: Array) -> None:
        """Force of each of CONTACT_PAIRS [N], (p,)."""
        row = self._row(forces, len(CONTACT_PAIRS), "forces")
        self._numbers(schema.CONTACT, t, row, tuple((name, 1) for name in CONTACT_PAIRS))

    def event(self, t: float, level: str, name: str, detail: str, **values: str) -> None:
        """Something worth reading later; level ``ok``, ``warn`` or ``error``."""
        if level not in LEVELS:
            raise RolloutRefused(f"event level {level!r}, accepted {list(LEVELS)}")
        pairs: list[Any] = [self._types["diagnostic_msgs/msg/KeyValue"](k, str(v)) for k, v in values.items()]
        status = self._types["diagnostic_msgs/msg/DiagnosticStatus"](
            LEVELS[level], name, detail, self.header.robot.name, pairs
        )
        self._put(schema.EVENTS, t, self._types[schema.EVENTS_TYPE](self._head(t), [status]))

    # How it is written -----------------------------------------------------------------------------------

    def _note(self, t: float, verdict: Verdict) -> None:
        """Events that keep what the numbers of a verdict cannot: its reason, and rows of no constraint."""
        if (verdict.state, verdict.reason) != self._last_reason:
            level = "ok" if verdict.state is schema.STATE_CODES[0] else "warn"
            self.event(t, level, "filter", verdict.reason, state=verdict.state.value)
            self._last_reason = (verdict.state, verdict.reason)
        for name in set(verdict.active) - set(self._margins) - self._strangers:
            self._strangers.add(name)
            self.event(t, "warn", "active row of no constraint", name)

    def _flush_forever(self) -> None:
        while not self._closing.wait(FLUSH_S):
            # A full disk must not end the thread: the next write of the caller raises the same error.
            with self._lock, suppress(OSError):
                self._writer.flush()

    def _at(self, step: int) -> float:
        if self.header.physics_dt is None:
            raise RolloutRefused("physics recorded but the header has no physics_dt")
        return self.header.t0 + step * self.header.physics_dt

    def _row(self, values: Any, size: int, what: str) -> np.ndarray:
        row = np.asarray(values, dtype=np.float64)
        if row.shape != (size,):
            raise RolloutRefused(f"{what} has shape {row.shape}, need ({size},)")
        return row

    def _ns(self, t: float) -> int:
        return self.header.wall_start_ns + round((float(t) - self.header.t0) * 1e9)

    def _head(self, t: float, frame: str = "") -> Any:
        seconds, rest = divmod(self._ns(t), 10**9)
        stamp = self._types["builtin_interfaces/msg/Time"](seconds, rest)
        return self._types["std_msgs/msg/Header"](stamp, frame)

    def _duration(self, seconds: float) -> Any:
        whole, rest = divmod(round(seconds * 1e9), 10**9)
        return self._types["builtin_interfaces/msg/Duration"](whole, rest)

    def _joints(self, topic: str, t: float, position: Any, velocity: Any, effort: Any) -> None:
        n = len(self._names)
        parts = (("position", position), ("velocity", velocity), ("effort", effort))
        rows = tuple(self._row(v, n if len(v) else 0, k) for k, v in parts)
        sizes = tuple(len(row) for row in rows)
        if topic not in self._templates:
            stamp = self._types["builtin_interfaces/msg/Time"](*STAMP)
            head = self._types["std_msgs/msg/Header"](stamp, "")
            empty = [sentinel(size, slot) for slot, size in enumerate(sizes)]
            message = self._types[schema.JOINT_STATE_TYPE](head, self._names, *empty)
            self._templates[topic] = Template(message, schema.JOINT_STATE_TYPE, sizes)
        self._send(topic, t, self._templates[topic].fill(self._ns(t), rows))

    def _numbers(self, topic: str, t: float, row: np.ndarray, parts: tuple[tuple[str, int], ...]) -> None:
        template = self._templates.get((topic, parts))
        if template is None:
            dimension = self._types["std_msgs/msg/MultiArrayDimension"]
            layout = self._types["std_msgs/msg/MultiArrayLayout"]([dimension(k, s, s) for k, s in parts], 0)
            message = self._types[schema.NUMBERS_TYPE](layout, sentinel(len(row), 0))
            template = Template(message, schema.NUMBERS_TYPE, (len(row),))
            self._templates[(topic, parts)] = template
        self._send(topic, t, template.fill(0, (row,)))

    def _put(self, topic: str, t: float, message: Any, sequence: int = 0) -> None:
        kind = schema.TYPES.get(topic, schema.POSE_TYPE)
        self._send(topic, t, bytes(schema.typestore().serialize_cdr(message, kind)), sequence)

    def _send(self, topic: str, t: float, data: bytes, sequence: int = 0) -> None:
        stamp = self._ns(t)
        with self._lock:
            if topic not in self._channels:
                self._channels[topic] = self._register(topic, schema.TYPES.get(topic, schema.POSE_TYPE))
            self._writer.add_message(self._channels[topic], stamp, data, stamp, sequence & 0xFFFFFFFF)

    def _register(self, topic: str, kind: str) -> int:
        if kind not in self._schemas:
            text, _ = schema.typestore().generate_msgdef(kind, ros_version=2)
            self._schemas[kind] = self._writer.register_schema(kind, "ros2msg", text.encode())
        meta = {
            "offered_qos_profiles": "",
            "topic_type_hash": schema.typestore().hash_rihs01(kind),
        }
        return self._writer.register_channel(topic, "cdr", self._schemas[kind], meta)
