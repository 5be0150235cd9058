"""What the control process says about itself: a record per tick, the newest for everybody, and numbers at the end."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from palmar.real_robot import realtime, records, shared
from palmar.safety.filter import Filter
from palmar.safety.types import Command, State, Verdict
from palmar.sim.interface import RobotState

MOST_MISSES = 10_000
"""Missed periods that are remembered one by one."""
MOST_LATENCIES = 200_000


class Tally:
    """Counts, times and worst margins of one run, published once per tick."""

    def __init__(self, memory: shared.SharedMap, filter_: Filter, period: float):
        self.names = memory.description.constraints
        self._block, self._ring = memory.blocks["state"], memory.rings["ticks"]
        self._tick = np.ndarray((), self._ring.dtype, buffer=self._block.record.data)
        """The part of the block that every record of the ring has too; it comes first there."""
        self._filter, self._period = filter_, period
        self.ticks = self.missed = self.chunks = self.refused = self.driver_errors = 0
        self.refusal = ""
        """Of the newest refused chunk."""
        self.lost_at = 0.0
        """Monotonic time at which policy or bridge was seen dead [s]."""
        self.intervention = 0.0
        """Time in which the filter changed the command or did not run, after the first chunk [s]."""
        self.misses: list[tuple[float, int]] = []
        self._late_max = 0.0
        self._lost = self._lost_before = self._last_seq = 0
        self._chunk: Any = None
        self._used = True
        self._to_robot: list[float] = []
        self._from_camera: list[float] = []
        self._worst = np.full(len(self.names), np.inf)

    def woke(self, now: float, skipped: int, late: float) -> None:
        """A tick begins at ``now``, ``late`` seconds late, after ``skipped`` periods that were missed."""
        self.missed += skipped
        if skipped and len(self.misses) < MOST_MISSES:
            self.misses.append((now, skipped))
        self._late_max = max(self._late_max, late)

    def heard(self, chunk: np.void) -> None:
        """A chunk came in; gaps in its numbers were lost on this machine, its own count before."""
        if self._last_seq:
            self._lost += max(0, int(chunk["seq"]) - self._last_seq - 1)
        self._last_seq, self._lost_before = int(chunk["seq"]), int(chunk["lost"])

    def refuse(self, why: str) -> None:
        """The chunk was refused."""
        self.refused, self.refusal = self.refused + 1, why[:48]

    def follow(self, chunk: np.void) -> None:
        """The chunk is followed from the next tick in RUN on."""
        self._chunk, self._used, self.chunks = chunk, False, self.chunks + 1

    def note(self, now: float, state: RobotState, command: Command, verdict: Verdict) -> None:
        """Append a tick's record to the ring and publish it with the counts; the command is on its way already."""
        if self.chunks and (verdict.changed or verdict.state is not State.RUN):
            self.intervention += self._period
        if not self._used and verdict.state is State.RUN and len(self._to_robot) < MOST_LATENCIES:
            self._time()
        self.ticks += 1
        self._fill(self._ring.record, now, state, command, verdict)
        self._ring.push()
        self._publish()

    def _time(self) -> None:
        """How long the newest chunk took to the first command that follows from it."""
        self._used, reached = True, time.monotonic()
        self._to_robot.append(reached - float(self._chunk["sent"]))
        if self._chunk["seen"] > 0:
            self._from_camera.append(reached - float(self._chunk["seen"]))

    def _fill(self, r: Any, now: float, state: RobotState, command: Command, verdict: Verdict) -> None:
        records.put_verdict(r, verdict, self.names)
        np.fmin(self._worst, r["margins"], out=self._worst)
        r["index"], r["t"], r["read_seq"], r["read_t"] = self.ticks, now, state.seq, state.t
        r["chunk"] = int(self._chunk["seq"]) if self._chunk is not None else -1
        r["chunk_age"] = now - float(self._chunk["received"]) if self._chunk is not None else np.inf
        r["q"], r["qd"], r["tau"] = state.q, state.qd, state.tau
        r["intended"], _ = self._filter.player.reference(now)
        sent = self._filter.measurement
        assert sent is not None
        r["u"], r["ud"], r["udd"], r["uddd"] = command.q, sent.ud, sent.udd, sent.uddd
        r["impedance"] = command.stiffness is not None
        if command.stiffness is not None:
            r["stiffness"], r["damping"] = command.stiffness, command.damping

    def _publish(self) -> None:
        self._tick[()] = self._ring.record
        block = self._block.record
        block["beat"], block["realtime"] = self.ticks, realtime.is_realtime()
        block["missed"], block["late_max"], block["chunks"] = self.missed, self._late_max, self.chunks
        block["refused"], block["refusal"], block["driver_errors"] = self.refused, self.refusal, self.driver_errors
        block["dropped"], block["lost_at"], block["intervention_s"] = (
            self._ring.dropped,
            self.lost_at,
            self.intervention,
        )
        block["worst"] = self._worst
        block["foreseen_t"], block["foreseen"] = self._filter.foreseen or (np.nan, "")
        block["edited_seq"], block["edited_from"] = self._filter.edited or (-1, np.nan)
        self._block.write()

    def summary(self) -> dict[str, Any]:
        """What happened, in numbers."""
        p50, p99 = _percentiles_ms(self._to_robot)
        seen50, seen99 = _percentiles_ms(self._from_camera)
        return {
            "ticks": self.ticks,
            "missed": self.missed,
            "late_max_ms": 1e3 * self._late_max,
            "chunks": self.chunks,
            "refused": self.refused,
            "lost": self._lost + self._lost_before,
            "misses": self.misses,
            "driver_errors": self.driver_errors,
            "intervention_s": self.intervention,
            "chunk_to_robot_p50_ms": p50,
            "chunk_to_robot_p99_ms": p99,
            "camera_to_command_p50_ms": seen50,
            "camera_to_command_p99_ms": seen99,
            "worst_margin": {n: float(w) for n, w in zip(self.names, self._worst, strict=True) if np.isfinite(w)},
            "realtime": realtime.is_realtime(),
            "dropped_records": self._ring.dropped,
        }


def _percentiles_ms(seconds: list[float]) -> tuple[float | None, float | None]:
    if not seconds:
        return None, None
    p50, p99 = 1e3 * np.percentile(seconds, (50, 99))
    return float(p50), float(p99)
