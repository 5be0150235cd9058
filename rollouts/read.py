"""Read a rollout file back into arrays, or say by name and reason why not."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from mcap.records import Attachment, Channel, Footer, Message, Metadata, Schema
from mcap.stream_reader import StreamReader

from palmar.rollouts import decode, schema
from palmar.rollouts.header import RolloutHeader
from palmar.rollouts.rollout import Rollout
from palmar.safety.types import RolloutRefused


def read(path: str | Path, *, recover: bool = False) -> Rollout:
    """The rollout in the file at ``path``.

    Args:
        path: An MCAP file written by ``RolloutWriter``.
        recover: Accept a file that was cut off (a killed recorder): everything up to its last whole chunk.

    Raises:
        RolloutRefused: If the file is foreign, truncated or damaged, or newer than this Palmar; naming it.
    """
    try:
        raw = _records(Path(path))
        if raw.damage and not recover:
            raise RolloutRefused(f"{raw.damage}; read(path, recover=True) takes what is there")
        if schema.METADATA not in raw.metadata:
            raise RolloutRefused(f"no metadata record {schema.METADATA!r}: not a Palmar rollout")
        header = RolloutHeader.from_records(raw.metadata[schema.METADATA], raw.attachments)
        result = {k: json.loads(v) for k, v in raw.metadata.get(schema.RESULT, {}).items()}
        return Rollout(
            path=Path(path),
            header=header,
            complete=not raw.damage and schema.RESULT in raw.metadata,
            damage=raw.damage,
            result=result,
            other_topics=tuple(sorted(set(raw.messages) - _known(raw.messages))),
            **decode.columns(header, raw.messages),
        )
    except RolloutRefused as error:
        raise RolloutRefused(f"{path}: {error}") from error
    except OSError as error:
        raise RolloutRefused(f"{path}: cannot be read: {error}") from error


class _Records:
    """What a pass over the file found."""

    def __init__(self) -> None:
        self.metadata: dict[str, dict[str, str]] = {}
        self.attachments: dict[str, bytes] = {}
        self.messages: dict[str, list[tuple[int, int, bytes]]] = defaultdict(list)
        self.kinds: dict[int, str] = {}
        self.topics: dict[int, str] = {}
        self.damage = ""


def _records(path: Path) -> _Records:
    """One pass from the front, so that a file without its index reads the same way as one with."""
    found, whole = _Records(), False
    size = path.stat().st_size
    with path.open("rb") as stream:
        try:
            # The limit keeps a damaged length from allocating more than there is.
            for record in StreamReader(stream, validate_crcs=True, record_size_limit=size).records:
                _take(found, record)
                whole = whole or isinstance(record, Footer)
        except RolloutRefused:
            raise
        except Exception as error:  # mcap, zstd and struct raise many kinds on damaged bytes
            if not found.metadata and stream.tell() <= 64:
                raise RolloutRefused(f"not an MCAP file: {error!r}") from error
            found.damage = f"truncated or damaged after {_count(found)} messages: {type(error).__name__}"
    if not whole and not found.damage:
        found.damage = f"truncated after {_count(found)} messages: no footer"
    return found


def _count(found: _Records) -> int:
    return sum(map(len, found.messages.values()))


def _take(found: _Records, record: Any) -> None:
    if isinstance(record, Message):
        found.messages[found.topics[record.channel_id]].append((record.log_time, record.sequence, record.data))
    elif isinstance(record, Schema):
        found.kinds[record.id] = record.name
    elif isinstance(record, Channel):
        expected = schema.TYPES.get(record.topic)
        expected = schema.POSE_TYPE if schema.object_name(record.topic) else expected
        kind = found.kinds.get(record.schema_id)
        if expected is not None and kind != expected:
            raise RolloutRefused(f"topic {record.topic} has type {kind!r}, need {expected!r}")
        found.topics[record.id] = record.topic
    elif isinstance(record, Metadata):
        found.metadata[record.name] = record.metadata
    elif isinstance(record, Attachment):
        found.attachments[record.name] = record.data


def _known(messages: dict[str, Any]) -> set[str]:
    return {t for t in messages if t in schema.TYPES or schema.object_name(t)}
