"""``palmar bench deploy``: latency from chunk to robot and missed periods, with every process of a deployment up.

A bare loop at the control process's period and priority runs beside it: a period that both miss is the
machine's, one that only the control process misses is ours.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from palmar.real_robot import realtime
from palmar.real_robot.deploy import DeployConfig, deploy
from palmar.real_robot.process import Stopping

PRIORITY = 60
PERIOD = 0.001
NEAR = 0.002
"""Misses closer than this are one event of the machine [s]."""


def unshared(ours: Sequence[Sequence[float]], sentinel: Sequence[Sequence[float]], period: float) -> int:
    """Periods of ``ours`` missed while the sentinel missed none; both are (time of waking, periods missed)."""
    stalls = [(t - (k + 1) * period - NEAR, t + NEAR) for t, k in sentinel]
    count = 0
    for t, k in ours:
        begin = t - (k + 1) * period
        if not any(begin <= end and t >= start for start, end in stalls):
            count += int(k)
    return count


def sentinel(path: Path) -> None:
    """A bare loop until SIGTERM; its misses go to ``path``."""
    stopping, misses = Stopping(), []
    realtime.go_realtime(PRIORITY)
    realtime.freeze_collector()
    beat = realtime.Beat(PERIOD)
    beat.start()
    while not stopping:
        now, skipped = beat.wait()
        if skipped:
            misses.append((now, skipped))
    path.write_text(json.dumps(misses))


def run(
    seconds: float = 60.0, bundle: str = "", progress: Callable[[str, float], None] | None = None
) -> dict[str, Any]:
    """Deploy for ``seconds`` and measure.

    Args:
        seconds: Time with every node active [s].
        bundle: Policy bundle; '' publishes a slow sway at 20 Hz through the same topics.
        progress: Told what is going on.

    Returns:
        ``{"rows": [{"chunk_to_robot_p50_ms", "chunk_to_robot_p99_ms", "missed_unshared", "lost", ...}]}``.
    """
    with tempfile.TemporaryDirectory(prefix="palmar-bench-") as folder:
        path = Path(folder) / "sentinel.json"
        beside = subprocess.Popen([sys.executable, "-m", "palmar.benchmarks.deploy", str(path)])
        try:
            config = DeployConfig(out=f"{folder}/run", bundle=bundle, timeout=seconds, priority=PRIORITY)
            result = deploy(config, progress=progress)
            control = json.loads((Path(result.run_dir) / "control.json").read_text())
        finally:
            beside.terminate()
            beside.wait(10)
        stalls = json.loads(path.read_text())
    row = {
        "chunk_to_robot_p50_ms": result.chunk_to_robot_p50_ms,
        "chunk_to_robot_p99_ms": result.chunk_to_robot_p99_ms,
        "missed_unshared": unshared(control["misses"], stalls, PERIOD),
        "lost": result.lost,
        "missed": result.missed,
        "missed_sentinel": sum(k for _, k in stalls),
        "ticks": result.ticks,
        "chunks": result.chunks,
        "refused": result.refused,
        "realtime": result.realtime,
        "late_max_ms": control["late_max_ms"],
        "dropped_records": control["dropped_records"],
        "seconds": result.seconds,
        "policy": bundle or "sway",
    }
    return {"rows": [row]}


if __name__ == "__main__":
    sentinel(Path(sys.argv[1]))
