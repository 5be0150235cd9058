"""palmar bench: measurements."""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palmar.safety.types import ConfigError


@dataclass(frozen=True)
class Bench:
    """A module of ``benchmarks`` whose ``run`` measures."""

    about: str
    quick: Mapping[str, Any]
    """What --quick gives ``run`` instead of its defaults."""
    needs: str = ""
    """What must be made first: ``all`` leaves such a bench out."""


BENCHES = {
    "sim": Bench(
        "environment steps per second against bare MuJoCo, and what costs cost",
        {"rounds": 3, "steps": 10, "num_envs": 32},
    ),
    "sim_warp": Bench(
        "the same on engine mujoco_warp, against bare recorded steps",
        {"rounds": 1, "steps": 2},
    ),
    "parity": Bench(
        "state, costs and success of one engine beside another, with tolerances set beforehand",
        {"worlds": 4, "episodes": 0},
    ),
    "isaaclab": Bench(
        "reach trained through engine isaaclab, judged on engine mujoco",
        {"iterations": 1, "episodes": 4},
        needs="make isaac",
    ),
    "isaaclab_parity": Bench("engine isaaclab beside engine mujoco", {"worlds": 2}, needs="make isaac"),
    "engines": Bench(
        "success and costs of the same policies on every engine",
        {"episodes": 4, "worlds": 4},
        needs="make isaac",
    ),
    "cameras": Bench("what a frame costs, per camera and renderer", {"frames": 10}),
    "urdf": Bench("URDF against MJCF through readers that share nothing with the writer", {"states": 20}),
    "filter": Bench(
        "time of a tick per layer and robot, missed periods beside a bare loop, a short attack",
        {"ticks": 2_000, "commands": 8_000, "seconds": 3.0},
    ),
    "attack": Bench(
        "adversarial commands by the million, counted by code that shares nothing with the filter",
        {"commands": 8_000},
    ),
    "trips": Bench("how often the filter gets in the way of recorded safe motion", {"hours": 0.02}),
    "faults": Bench(
        "named faults, and random pairs of them, that the filter does not survive",
        {"campaigns": 20, "smoke": True},
    ),
    "deploy": Bench(
        "from chunk to robot with all processes up, and standstill after each is killed",
        {"seconds": 5.0, "repeats": 1, "hardware": ("twin",)},
    ),
    "launch": Bench("the launch files", {"cases": ("twin",)}, needs="ros2 launch and ros_ws, built and sourced"),
    "lift": Bench("the shipped policies beside each other on unseen episodes", {"episodes": 10}),
    "lift_filter": Bench("the shipped policies without and with the filter, and doing nothing", {"episodes": 4}),
    "lift_randomized": Bench(
        "policies of lift under the reference hand's contact values and drawn realities",
        {"episodes": 10},
    ),
}
OPTIONS: dict[str, tuple[str, ...]] = {
    "campaigns": ("faults",),
    "commands": ("attack",),
    "hours": ("trips",),
    "hardware": ("deploy",),
    "seconds": ("filter", "deploy"),
    "checkpoint": ("attack", "trips", "faults"),
}
"""Which benches take which option."""
LISTED = "\n".join(
    f"  {name:<16}{bench.about}" + (f"; needs {bench.needs}" if bench.needs else "") for name, bench in BENCHES.items()
)

ABOUT = f"""
Measures one thing on this machine and prints its rows; --json writes them with the machine's
description.
{LISTED}
  all             every one that needs nothing more, each in a process of its own; --json holds
                  them by name, goes on where it was stopped, and a failure loses no other
Full runs take minutes to hours and want an idle machine.  --quick takes smaller numbers: a check
that it works, no result.
"""
EXAMPLES = """
palmar bench filter --json filter.json
palmar bench attack --checkpoint attack.jsonl --json attack.json
palmar bench all --quick --json all.json
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    names = [*BENCHES, "all"]
    parser.add_argument("name", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write an object with rows")
    parser.add_argument("--quick", action="store_true", help="smaller numbers")
    parser.add_argument("--campaigns", type=int, metavar="N", help="faults: random pairs (10,000)")
    parser.add_argument("--commands", type=int, metavar="N", help="attack: commands in all (10,000,000)")
    parser.add_argument("--hours", type=float, metavar="H", help="trips: hours of simulated motion (30)")
    parser.add_argument("--seconds", type=float, metavar="S", help="filter, deploy: length of the wall-clock loop")
    parser.add_argument("--hardware", action="append", metavar="NAME", help="deploy: twin, fake; both if not said")
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="attack, trips, faults: remembers what is done, to go on from"
    )


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    given = {option: value for option in OPTIONS if (value := getattr(args, option)) is not None}
    for option in given:
        if args.name not in OPTIONS[option]:
            raise ConfigError(f"--{option} belongs to bench {', '.join(OPTIONS[option])}, not to bench {args.name}")
    return _all(args.json, args.quick) if args.name == "all" else _one(args, given)


def _one(args: argparse.Namespace, given: Mapping[str, Any]) -> int:
    from rich.console import Console

    from palmar.cli import provenance

    smaller = dict(BENCHES[args.name].quick) if args.quick else {}
    with Console(stderr=True).status(args.name) as status:
        bench = importlib.import_module(f"palmar.benchmarks.{args.name}")
        told = bench.run(**{**smaller, **given}, progress=lambda *said: status.update(" ".join(map(str, said))))
    if args.json is not None:
        record = provenance.run_record({"bench": args.name, "quick": args.quick}, None)
        provenance.write(args.json, {**told, "quick": args.quick, "record": record})
    _print(told["rows"])
    return 0


def _all(path: Path | None, quick: bool) -> int:
    """Every bench that needs nothing more, those of ``path`` that were measured with this code left out."""
    from rich.console import Console
    from rich.table import Table

    from palmar.cli import provenance
    from palmar.rollouts.provenance import git_state

    console, code = Console(stderr=True), git_state()
    names = [name for name, bench in BENCHES.items() if not bench.needs]
    found = _earlier(path)
    table = Table(box=None, pad_edge=False)
    for head in ("bench", "seconds", "rows", ""):
        table.add_column(head, justify="right" if head in ("seconds", "rows") else "left")
    for k, name in enumerate(names, start=1):
        kept = _same(found.get(name), quick, code)
        if not kept:
            with console.status(f"{k} of {len(names)}: {name}"):
                found[name] = _apart(name, quick)
            if path is not None:
                provenance.write(path, found)
        told = found[name]
        outcome = f"failed: {told['failed']}" if "failed" in told else "measured before" if kept else "measured"
        console.print(f"{k} of {len(names)}: {name} {outcome}, {told['wall_s']:.0f} s", highlight=False, soft_wrap=True)
        table.add_row(name, f"{told['wall_s']:.0f}", str(len(told.get("rows", ()))), outcome)
    Console().print(table)
    return 1 if any("failed" in found[name] for name in names) else 0


def _earlier(path: Path | None) -> dict[str, Any]:
    """What an earlier call left at ``path``."""
    if path is None or not path.exists():
        return {}
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise ConfigError(f"{path} is no JSON to go on with: {error}") from error
    if not isinstance(found, dict) or set(found) - set(BENCHES):
        raise ConfigError(f"{path} is not of palmar bench all: it holds {sorted(found)[:5]}, accepted {list(BENCHES)}")
    return found


def _same(told: dict[str, Any] | None, quick: bool, code: Mapping[str, Any]) -> bool:
    """Whether a bench was measured as it would be now: with this commit, and as quickly."""
    return told is not None and "failed" not in told and told["quick"] == quick and told["record"]["git"] == code


def _apart(name: str, quick: bool) -> dict[str, Any]:
    """One bench in a process of its own: its object, or ``failed``, and ``wall_s``."""
    began, smaller = time.perf_counter(), ["--quick"] if quick else []
    with tempfile.TemporaryDirectory(prefix="palmar-bench-") as folder:
        out = Path(folder) / "bench.json"
        words = [sys.executable, "-m", "palmar.cli.main", "bench", name, "--json", str(out)]
        done = subprocess.run([*words, *smaller], capture_output=True, text=True)
        if done.returncode == 0 and out.exists():
            told = json.loads(out.read_text())
            told["record"]["command"] = ["palmar", "bench", name, *smaller]
        else:
            said = [line for line in done.stderr.splitlines() if line.strip()]
            told = {"failed": (said or [f"status {done.returncode}"])[-1].removeprefix("palmar: ")}
            if done.returncode == 3:  # a bug: the line before the last names it
                told["failed"] = said[-2]
    return {**told, "wall_s": round(time.perf_counter() - began, 1)}


def _print(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    for row in rows:
        table = Table(box=None, pad_edge=False, show_header=False)
        for key, value in row.items():
            table.add_row(key, f"{value:.4g}" if isinstance(value, float) else _text(value))
        Console().print(table)
        print()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
