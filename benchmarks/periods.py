"""Whether a 1 kHz wall-clock loop of the filter misses periods, beside a bare loop of equal priority and core."""

from __future__ import annotations

import gc
import multiprocessing as mp
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from palmar.benchmarks.filter import DT, Adversary, Reading, load_shipped, make_filter, start

SHARED = 0.0005
"""A missed period is shared if the sentinel woke this late [s] ..."""
AROUND = 0.003
"""... within this time of it [s]."""


def _realtime() -> str:
    """Ask for real-time priority on the last core; which scheduler it became."""
    try:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(70))
        return "SCHED_FIFO"
    except (OSError, AttributeError):
        return "SCHED_OTHER"


def _loop(seconds: float, work: bool, pipe: Any) -> None:
    """A 1 kHz loop; sends (scheduled, woke, finished) of every period [s], (N, 3), and the scheduler."""
    tick: Callable[[int], None] | None = None
    if work:
        robot, constraints = load_shipped()
        filter_, adversary = make_filter(robot, constraints), Adversary(robot, np.random.default_rng(1))
        start(filter_, robot, np.random.default_rng(1))
        zero = np.zeros(robot.n)
        offset = time.monotonic()

        def filter_tick(k: int) -> None:
            now = time.monotonic() - offset
            chunk = adversary.chunk(k, now, filter_.u)
            if chunk is not None:
                filter_.offer(chunk)
            filter_.tick(Reading(now, k + 1, filter_.u, filter_.ud, zero), now)

        tick = filter_tick

    pipe.send("ready")
    begin = pipe.recv()
    rows, period, total = np.zeros((int(seconds / DT) + 1, 3)), 0, 0
    gc.collect()
    gc.freeze()
    gc.disable()
    scheduler = _realtime()
    while period < len(rows):
        due = begin + period * DT
        wait = due - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        woke = time.monotonic()
        if tick is not None:
            tick(period)
        end = time.monotonic()
        rows[total] = due, woke, end
        total += 1
        period = max(period + 1, int((end - begin) / DT) + (end > begin + (period + 1) * DT))
    pipe.send((rows[:total], scheduler))


def missed(seconds: float) -> dict[str, Any]:
    """Missed periods of a 1 kHz wall-clock loop of the filter beside a bare one of equal priority and core.

    A period is missed when its tick ends after the next one is due.  The sentinel's periods lie half a period
    later, so the two do not wait for each other as a rule.
    """
    context = mp.get_context("spawn")
    links, processes = [], []
    for work in (True, False):
        here, there = context.Pipe()
        processes.append(context.Process(target=_loop, args=(seconds, work, there), daemon=True))
        links.append(here)
        processes[-1].start()
    for link in links:
        link.recv()
    begin = time.monotonic() + 0.05
    links[0].send(begin)
    links[1].send(begin + 0.5 * DT)
    (rows, scheduler), (bare, _) = (link.recv() for link in links)
    for process in processes:
        process.join()
    missed = rows[rows[:, 2] > rows[:, 0] + DT]
    late = bare[bare[:, 1] > bare[:, 0] + SHARED]
    unshared = sum(not np.any((late[:, 1] > row[0] - AROUND) & (late[:, 0] < row[2] + AROUND)) for row in missed)
    return {
        "missed_periods": len(missed),
        "missed_unshared": int(unshared),
        "periods": len(rows),
        "scheduler": scheduler,
        "sentinel_missed": int((bare[:, 1] > bare[:, 0] + DT).sum()),
    }
