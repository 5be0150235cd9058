"""Messages of a rollout file into columns; every check that a header's promise is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from palmar.rollouts import schema
from palmar.rollouts.header import RolloutHeader
from palmar.rollouts.rollout import (
    Commands,
    Contacts,
    Event,
    Impedances,
    Intended,
    Joints,
    Physics,
    Poses,
    Servos,
    States,
    Verdicts,
)
from palmar.safety.types import CONTACT_PAIRS, Chunk, RolloutRefused

Messages = Sequence[tuple[int, int, bytes]]
"""(log time [ns], sequence, CDR bytes) of one topic."""
_GAINS = (schema.STIFFNESS, schema.DAMPING)
LEVELS = ("ok", "warn", "error", "stale")


def columns(header: RolloutHeader, messages: Mapping[str, Messages]) -> dict[str, Any]:
    """Fields of a ``Rollout`` from the raw messages of its topics."""
    n, k = header.robot.n, len(header.constraint_set().names)
    events = _events(header, messages.get(schema.EVENTS, ()))
    joints, sent = _get(messages, schema.JOINT_STATES), _get(messages, schema.COMMAND)
    wanted = _get(messages, schema.INTENDED)
    rest = _table(messages, schema.DERIVATIVES, 2 * n)
    t_sent = _times(header, messages, schema.COMMAND)
    if len(rest) != len(t_sent):
        # The two messages of a tick are written one after the other: a kill may separate them.
        rest, sent = rest[: len(t_sent)], sent[: len(rest)]
        t_sent = t_sent[: len(rest)]
    return {
        "joints": Joints(
            _times(header, messages, schema.JOINT_STATES),
            _field(joints, "position", n),
            _field(joints, "velocity", n),
            _field(joints, "effort", n),
        ),
        "intended": Intended(_times(header, messages, schema.INTENDED), _field(wanted, "position", n)),
        "command": Commands(t_sent, _field(sent, "position", n), _field(sent, "velocity", n), rest[:, :n], rest[:, n:]),
        "chunks": _chunks(header, messages.get(schema.CHUNK, ())),
        "objects": {name: _poses(header, messages, name) for name in header.objects},
        "verdicts": _verdicts(header, messages, k, events),
        "events": events,
        "physics": _physics(_table(messages, schema.PHYSICS)),
        "states": _states(messages),
        "contact": Contacts(
            _times(header, messages, schema.CONTACT), _table(messages, schema.CONTACT, len(CONTACT_PAIRS))
        ),
        "impedance": _impedances(header, messages),
        "servos": _servos(header, _table(messages, schema.SERVO, 1 + 2 * n)),
    }


def _impedances(header: RolloutHeader, messages: Mapping[str, Messages]) -> Impedances:
    n = header.robot.n
    table = _table(messages, schema.IMPEDANCE, 2 * n)
    return Impedances(_times(header, messages, schema.IMPEDANCE), table[:, :n], table[:, n:])


def _servos(header: RolloutHeader, table: np.ndarray) -> Servos:
    n = header.robot.n
    step = table[:, 0].astype(np.int64)
    if np.any(np.diff(step) <= 0) or np.any(step < 0) or not np.isfinite(table).all() or np.any(table < 0):
        raise RolloutRefused(f"{schema.SERVO}: need increasing steps and finite gains >= 0")
    return Servos(step, table[:, 1 : 1 + n], table[:, 1 + n :])


def _decode(topic: str, data: bytes) -> Any:
    try:
        return schema.typestore().deserialize_cdr(data, schema.TYPES.get(topic, schema.POSE_TYPE))
    except Exception as error:  # the CDR reader asserts, unpacks and decodes: many kinds on damaged bytes
        raise RolloutRefused(f"topic {topic} holds a message that is no CDR of its type") from error


def _get(messages: Mapping[str, Messages], topic: str) -> list[Any]:
    return [_decode(topic, data) for _, _, data in messages.get(topic, ())]


def _seconds(header: RolloutHeader, ns: int) -> float:
    return header.t0 + (ns - header.wall_start_ns) * 1e-9


def _times(header: RolloutHeader, messages: Mapping[str, Messages], topic: str) -> np.ndarray:
    return np.array([_seconds(header, ns) for ns, _, _ in messages.get(topic, ())], dtype=np.float64)


def _stack(topic: str, rows: list[np.ndarray], width: int | None) -> np.ndarray:
    width = (len(rows[0]) if rows else 0) if width is None else width
    bad = next((i for i, row in enumerate(rows) if len(row) != width), None)
    if bad is not None:
        raise RolloutRefused(f"{topic}: message {bad} holds {len(rows[bad])} numbers, need {width}")
    return np.array(rows, dtype=np.float64).reshape(len(rows), width)


def _field(decoded: list[Any], name: str, width: int) -> np.ndarray:
    return _stack(name, [getattr(m, name) for m in decoded], width)


def _table(messages: Mapping[str, Messages], topic: str, width: int | None = None) -> np.ndarray:
    return _stack(topic, [m.data for m in _get(messages, topic)], width)


def _chunks(header: RolloutHeader, rows: Messages) -> tuple[Chunk, ...]:
    out = []
    for ns, sequence, data in rows:
        message = _decode(schema.CHUNK, data)
        stamp = message.header.stamp
        start = _seconds(header, stamp.sec * 10**9 + stamp.nanosec)
        after = [p.time_from_start.sec + p.time_from_start.nanosec * 1e-9 for p in message.points]
        names = tuple(message.joint_names)
        table = _stack(schema.CHUNK, [p.positions for p in message.points], len(names))
        n = len(names) // 3
        soft = n > 0 and names[n:] == tuple(like.format(j) for like in _GAINS for j in names[:n])
        out.append(
            Chunk(
                q=table[:, :n] if soft else table,
                t=start + np.array(after, dtype=np.float64),
                seq=sequence,
                received=_seconds(header, ns),
                joints=names[:n] if soft else names,
                stiffness=table[:, n : 2 * n] if soft else None,
                damping=table[:, 2 * n :] if soft else None,
            )
        )
    return tuple(out)


def _poses(header: RolloutHeader, messages: Mapping[str, Messages], name: str) -> Poses:
    topic = schema.object_topic(name)
    poses = [m.pose for m in _get(messages, topic)]
    position = [np.array([p.position.x, p.position.y, p.position.z]) for p in poses]
    quaternion = [np.array([p.orientation.w, p.orientation.x, p.orientation.y, p.orientation.z]) for p in poses]
    return Poses(_times(header, messages, topic), _stack(topic, position, 3), _stack(topic, quaternion, 4))


def _events(header: RolloutHeader, rows: Messages) -> tuple[Event, ...]:
    out = []
    for ns, _, data in rows:
        for status in _decode(schema.EVENTS, data).status:
            values = {pair.key: pair.value for pair in status.values}
            level = LEVELS[min(int(status.level), len(LEVELS) - 1)]
            out.append(Event(_seconds(header, ns), level, status.name, status.message, values))
    return tuple(out)


def _verdicts(header: RolloutHeader, messages: Mapping[str, Messages], k: int, events: tuple[Event, ...]) -> Verdicts:
    head = schema.VERDICT_HEAD
    table = _table(messages, schema.VERDICT, head + 2 * k)
    t = _times(header, messages, schema.VERDICT)
    codes = table[:, 0].astype(np.int64)
    if np.any((codes < 0) | (codes >= len(schema.STATE_CODES))):
        raise RolloutRefused(f"{schema.VERDICT}: state codes {sorted(set(codes.tolist()))} out of range")
    changes = [e for e in events if e.name == "filter"]
    # An event is written right after the verdict it explains, with the same stamp.
    which = np.searchsorted([e.t for e in changes], t, side="right") - 1
    return Verdicts(
        t=t,
        state=codes,
        changed=table[:, 1] > 0,
        edit=table[:, 2],
        compute_s=table[:, 3],
        margins=table[:, head : head + k],
        active=table[:, head + k :] > 0,
        reason=tuple(changes[i].detail if i >= 0 else "" for i in which),
    )


def _physics(table: np.ndarray) -> Physics:
    return Physics(table[:, 0].astype(np.int64) if len(table) else np.zeros(0, np.int64), table[:, 1:])


def _states(messages: Mapping[str, Messages]) -> States:
    decoded = _get(messages, schema.STATE)
    if not decoded:
        return States(np.zeros(0, np.int64), np.zeros((0, 0)), np.zeros((0, 0)))
    sizes = {d.label: d.size for d in decoded[0].layout.dim}
    if set(sizes) != {"step", "qpos", "qvel"}:
        raise RolloutRefused(f"{schema.STATE}: parts {sorted(sizes)}, need step, qpos, qvel")
    table = _stack(schema.STATE, [m.data for m in decoded], sum(sizes.values()))
    split = 1 + sizes["qpos"]
    return States(table[:, 0].astype(np.int64), table[:, 1:split], table[:, split:])
