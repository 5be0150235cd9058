"""``palmar bench deploy``: latencies and missed periods with every process up, standstill after each is killed.

A bare loop at the control process's period runs beside the long run, on the same cores and one priority higher: a
period that both miss is the machine's, one that only the control process misses is ours.  Killed is with SIGKILL,
while every joint sways; when the robot stands is read from the twin's true joint speeds, so that it can be said
without the control process too.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from palmar.real_robot import realtime
from palmar.real_robot.config import RunConfig, read
from palmar.real_robot.deploy import DeployConfig, resolve
from palmar.real_robot.graph import Graph, up
from palmar.real_robot.judge import TRUE_STILL, time_to_rest
from palmar.real_robot.process import Stopping
from palmar.real_robot.processes import DeployError
from palmar.real_robot.scenarios import Scenario, nothing
from palmar.safety.types import ConfigError

NEAR = 0.002
"""Misses closer than this are one event of the machine [s]."""
SWAY = 0.1
"""How far every joint sways while processes are killed [rad]."""
MOVING = 0.1
"""Speed of the fastest joint from which on a process is killed [rad/s]."""
LASTS = 1.5
"""How long a killed process stays away [s]."""
GOES_ON = ("recorder",)
"""Processes without which the robot goes on: the time to standstill is not asked for."""
COMES_BACK = ("policy", "bridge")
"""Processes that are started again, so that one graph serves for all repeats."""
SETTINGS: dict[str, dict[str, Any]] = {
    "twin": {},
    "fake": {"arm": {"silence": 0.3, "fresh": 0.1}, "hand": {"silence": 0.5, "fresh": 0.1, "rate": 100.0}},
}
"""The fakes, the real drivers and the twin share what processors there are; on two of them devices need patience."""
PROCESSES = {
    "twin": ("policy", "bridge", "recorder", "control"),
    "fake": ("policy", "bridge", "recorder", "control", "arm", "hand"),
}
"""What is killed, per hardware.  The twin and the fakes' process are the hardware: without them nothing can move."""

Progress = Callable[[str, float], None]


def unshared(ours: Sequence[Sequence[float]], sentinel: Sequence[Sequence[float]], period: float) -> int:
    """Periods of ``ours`` missed while the sentinel missed none; both are (time of waking, periods missed)."""
    stalls = [(t - (k + 1) * period - NEAR, t + NEAR) for t, k in sentinel]
    count = 0
    for t, k in ours:
        begin = t - (k + 1) * period
        if not any(begin <= end and t >= start for start, end in stalls):
            count += int(k)
    return count


def sentinel(run: RunConfig) -> None:
    """A bare loop beside the control process until SIGTERM; its misses go to ``sentinel.json`` in the run's folder."""
    stopping, misses = Stopping(), []
    realtime.keep(run.control_cores, inside=True)
    realtime.go_realtime(run.priority + 1)
    realtime.freeze_collector()
    beat = realtime.Beat(run.period)
    beat.start()
    while not stopping:
        now, skipped = beat.wait()
        if skipped:
            misses.append((now, skipped))
    (Path(run.run_dir) / "sentinel.json").write_text(json.dumps(misses))


def run(
    seconds: float = 600.0,
    bundle: str = "",
    hardware: Sequence[str] = ("twin", "fake"),
    repeats: int = 3,
    cores: str | Sequence[int] = "auto",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure a long run, and a kill of each process.

    Args:
        seconds: Time with every node active on the first hardware; a fifth of it on the others [s].
        bundle: Policy bundle of the long runs; '' publishes a slow sway at 20 Hz through the same topics.
        hardware: ``twin``, ``fake``.
        repeats: Kills of each process.
        cores: The control process's in the long runs; ``auto`` or a list, none of them too.
        progress: Told what is going on.

    Returns:
        ``{"rows": [{"hardware", "kill", "camera_to_command_p99_ms", "chunk_to_robot_p99_ms", "missed_unshared",
        "standstill_ms_max", "launch_to_motion_s", ...}]}``; per hardware a row without a kill and one per process.

    Raises:
        ConfigError: If there is no such hardware to measure.
    """
    if strange := sorted(set(hardware) - set(PROCESSES)):
        raise ConfigError(f"unknown hardware {strange}, accepted {sorted(PROCESSES)}")
    say = progress or (lambda what, share: None)
    rows = []
    for k, kind in enumerate(hardware):
        rows.append(nominal(kind, seconds if k == 0 else seconds / 5, bundle, cores, say))
        for process in PROCESSES[kind]:
            rows.append(killed(kind, process, repeats, say))
    return {"rows": rows}


def nominal(hardware: str, seconds: float, bundle: str, cores: str | Sequence[int], say: Progress) -> dict[str, Any]:
    """One run with every process up and nothing killed."""
    with tempfile.TemporaryDirectory(prefix="palmar-bench-") as folder:
        settings = SETTINGS[hardware] | {"bundle": bundle, "cores": cores}
        run, _ = resolve(DeployConfig(out=f"{folder}/run", hardware=hardware, **settings))
        out = Path(run.run_dir)
        beside = subprocess.Popen([sys.executable, "-m", "palmar.benchmarks.deploy", str(out / "run.json")])
        try:
            with up(run, say) as graph:
                waits = Scenario("nominal", f"{hardware} for {seconds:.0f} s", nothing, nothing, lasts=seconds)
                say(waits.what, 0.5)
                graph.play(waits)
        finally:
            beside.terminate()
            beside.wait(10)
        control, stalls = (json.loads((out / f"{name}.json").read_text()) for name in ("control", "sentinel"))
    return {
        "hardware": hardware,
        "kill": None,
        "camera_to_command_p50_ms": control["camera_to_command_p50_ms"],
        "camera_to_command_p99_ms": control["camera_to_command_p99_ms"],
        "chunk_to_robot_p50_ms": control["chunk_to_robot_p50_ms"],
        "chunk_to_robot_p99_ms": control["chunk_to_robot_p99_ms"],
        "missed_unshared": unshared(control["misses"], stalls, run.period),
        "missed": control["missed"],
        "missed_sentinel": sum(k for _, k in stalls),
        "standstill_ms_max": None,
        "launch_to_motion_s": graph.moved - graph.launched,
        "seconds": seconds,
        "ticks": control["ticks"],
        "chunks": control["chunks"],
        "refused": control["refused"],
        "lost": control["lost"],
        "driver_errors": control["driver_errors"],
        "realtime": control["realtime"],
        "late_max_ms": control["late_max_ms"],
        "dropped_records": control["dropped_records"],
        "policy": bundle or "sway",
        "control_cores": list(run.control_cores),
    }


def killed(hardware: str, process: str, repeats: int, say: Progress) -> dict[str, Any]:
    """Kill one process again and again while the robot moves; when it stood each time."""
    stood: list[float | None] = []
    speeds: list[float] = []
    declared = 0.0
    while len(stood) < repeats:
        with tempfile.TemporaryDirectory(prefix="palmar-bench-") as folder:
            run, _ = resolve(DeployConfig(out=f"{folder}/run", hardware=hardware, sway=SWAY, **SETTINGS[hardware]))
            declared = 1e3 * time_to_rest(run)
            with up(run, say) as graph:
                for _ in range(repeats - len(stood) if process in COMES_BACK else 1):
                    say(f"{hardware}: kill -9 of {process}, {len(stood) + 1} of {repeats}", len(stood) / repeats)
                    speed, rest = _kill(graph, process)
                    speeds.append(speed)
                    stood.append(rest)
    moved = [s for s in stood if s is not None]
    return {
        "hardware": hardware,
        "kill": process,
        "camera_to_command_p99_ms": None,
        "chunk_to_robot_p99_ms": None,
        "missed_unshared": None,
        "standstill_ms_max": max(moved) if len(moved) == len(stood) and process not in GOES_ON else None,
        "standstill_ms": stood,
        "goes_on": process in GOES_ON,
        "declared_ms": declared,
        "launch_to_motion_s": None,
        "repeats": len(stood),
        "speed_rad_s": [round(s, 4) for s in speeds],
    }


def _kill(graph: Graph, process: str) -> tuple[float, float | None]:
    """Speed of the fastest joint at the kill [rad/s], and the time until all stand for good, None for never [ms]."""
    kill = Scenario(
        f"kill {process}",
        f"kill -9 of {process}",
        lambda stage: stage.signal(process, signal.SIGKILL),
        (lambda stage: stage.restart(process)) if process in COMES_BACK else nothing,
        lasts=LASTS,
        last=process not in COMES_BACK,
    )
    played = graph.play(kill, moving=MOVING)
    if played.blocked:
        raise DeployError(f"before {process} is killed the robot does not follow the policy: {played.blocked}")
    t, speed = played.speeds.T
    moving = np.flatnonzero(speed > TRUE_STILL)
    if not len(moving):
        return 0.0, 0.0
    rest = 1e3 * max(0.0, float(t[moving[-1]]) - played.begin)
    return float(speed[0]), rest if moving[-1] < len(t) - 1 else None


if __name__ == "__main__":
    sentinel(read(Path(sys.argv[1])))
