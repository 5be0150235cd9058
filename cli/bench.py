"""palmar bench: measurements."""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path
from typing import Any

from palmar.safety.types import ConfigError

BENCHES: dict[str, str] = {
    "sim": "environment steps per second against bare MuJoCo, and what costs cost",
    "sim_warp": "the same on engine mujoco_warp, against bare recorded steps",
    "isaaclab": "reach trained through engine isaaclab, judged on engine mujoco; make isaac first",
    "isaaclab_parity": "engine isaaclab beside engine mujoco; make isaac first",
    "engines": "success and costs of the same policies on every engine; make isaac first",
    "parity": "state, costs and success of one engine beside another, with tolerances set beforehand",
    "filter": "time of a tick per layer and robot, missed periods beside a bare loop, a short attack",
    "attack": "adversarial commands by the million, counted by code that shares nothing with the filter",
    "trips": "how often the filter gets in the way of recorded safe motion",
    "lift_filter": "the shipped policies without and with the filter, and doing nothing",
    "cameras": "what a frame costs, per camera and renderer",
    "deploy": "from chunk to robot with all processes up, and standstill after each is killed",
    "launch": "the launch files, where ros2 launch and the built workspace are sourced",
    "urdf": "URDF against MJCF through readers that share nothing with the writer",
    "lift": "the shipped policies beside each other on unseen episodes",
    "lift_randomized": "policies of lift under the reference hand's contact values and drawn realities",
    "faults": "named faults, and random pairs of them, that the filter does not survive",
}
QUICK: dict[str, dict[str, Any]] = {
    "sim": {"rounds": 3, "steps": 10, "num_envs": 32},
    "sim_warp": {"rounds": 1, "steps": 2},
    "isaaclab": {"iterations": 1, "episodes": 4},
    "isaaclab_parity": {"worlds": 2},
    "engines": {"episodes": 4, "worlds": 4},
    "parity": {"worlds": 4, "episodes": 0},
    "filter": {"ticks": 2_000, "commands": 8_000, "seconds": 3.0},
    "attack": {"commands": 8_000},
    "trips": {"hours": 0.02},
    "lift_filter": {"episodes": 4},
    "cameras": {"frames": 10},
    "deploy": {"seconds": 5.0, "repeats": 1, "hardware": ("twin",)},
    "launch": {"cases": ("twin",)},
    "urdf": {"states": 20},
    "lift": {"episodes": 10},
    "lift_randomized": {"episodes": 10},
    "faults": {"campaigns": 20, "smoke": True},
}
"""What --quick changes."""
OPTIONS: dict[str, tuple[str, ...]] = {
    "campaigns": ("faults",),
    "commands": ("attack",),
    "hours": ("trips",),
    "hardware": ("deploy",),
    "seconds": ("filter", "deploy"),
    "checkpoint": ("attack", "trips", "faults"),
}
"""Which benches take which option."""

ABOUT = f"""
Measures one thing on this machine and prints its rows; --json writes them with the machine's
description.
{chr(10).join(f"  {name:<16}{told}" for name, told in BENCHES.items())}
Full runs take minutes and want an idle machine.  --quick takes smaller numbers: a check that it
works, no result.
"""
EXAMPLES = """
palmar bench filter --json filter.json
palmar bench attack --checkpoint attack.jsonl --json attack.json
palmar bench sim --quick
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("name", choices=list(BENCHES), metavar="NAME", help=", ".join(BENCHES))
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
    from rich.console import Console

    from palmar.cli import provenance

    console = Console(stderr=True)
    smaller = dict(QUICK[args.name]) if args.quick else {}
    for option, benches in OPTIONS.items():
        if (value := getattr(args, option)) is not None:
            if args.name not in benches:
                raise ConfigError(f"--{option} belongs to bench {', '.join(benches)}, not to bench {args.name}")
            smaller[option] = value
    with console.status(args.name) as status:
        bench = importlib.import_module(f"palmar.benchmarks.{args.name}")
        found = dict(bench.run(**smaller, progress=lambda *told: status.update(" ".join(map(str, told)))))
    record = provenance.run_record({"bench": args.name, "quick": args.quick}, None)
    if args.json is not None:
        provenance.write(args.json, {**found, "quick": args.quick, "record": record})
    _print(found["rows"])
    return 0


def _print(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    for row in rows:
        table = Table(box=None, pad_edge=False, show_header=False)
        for key, value in row.items():
            shown = (
                f"{value:.4g}"
                if isinstance(value, float)
                else json.dumps(value)
                if not isinstance(value, str)
                else value
            )
            table.add_row(key, shown)
        Console().print(table)
        print()
