"""palmar envs: the tasks."""

from __future__ import annotations

import argparse
import json

ABOUT = """
Lists every task with its status, what is said to the policy, the engines that know it and how many
costs it has; of one task also the robots it knows, its constraints with their budgets and its
configuration after overrides, which are refused as a training would.  Prints a table, or JSON with --json.
"""
EXAMPLES = """
palmar envs
palmar envs lift task.hold=0.5
palmar envs lift --json
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("task", nargs="?", help="only this one, with its configuration")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="task.KEY=, constraints=NAME, ...")
    parser.add_argument("--json", action="store_true", help="print one JSON object with rows instead of a table")


def run(args: argparse.Namespace) -> int:
    """Print the tasks."""
    from palmar.safety.config import unknown
    from palmar.safety.types import ConfigError
    from palmar.sim.tasks import find

    known = find.names()
    if args.task is not None and args.task not in known:
        raise ConfigError(unknown("task", args.task, known))
    rows = [_row(name, args.overrides) for name in known if args.task in (None, name)]
    if args.json:
        print(json.dumps({"rows": rows}, indent=1))
    else:
        _print(rows, full=args.task is not None)
    return 0


def _row(name: str, overrides: list[str]) -> dict[str, object]:
    """What there is to know about a task with ``task.KEY=`` changed."""
    import numpy as np

    from palmar.cli import wiring
    from palmar.cli.config import choices, compose
    from palmar.safety.config import plain

    parts = wiring.setup(compose([f"task={name}", *overrides]))
    episode = parts.task.start(np.random.default_rng(0), parts.robot, 1)
    names = parts.task.config.constraints or parts.constraints.names
    held = parts.constraints.select(tuple(names))
    return {
        "task": name,
        "status": parts.task.status,
        "about": (type(parts.task).__doc__ or "").splitlines()[0],
        "instruction": parts.task.instruction(episode.goal[0]),
        "constraints": {c.name: {"budget": c.budget, "unit": c.unit, "runtime": c.runtime} for c in held.constraints},
        "config": plain(parts.task.config),
        "robots": parts.task.robots or choices("robot"),
        "engines": wiring.engines(name),
    }


def _print(rows: list[dict], *, full: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not full:
        table = Table(box=None, pad_edge=False)
        for head in ("task", "status", "what is said", "engines", "costs"):
            table.add_column(head)
        for row in rows:
            said = f"“{row['instruction']}”" if row["instruction"] else "(no words: goals are poses)"
            table.add_row(row["task"], row["status"], said, ", ".join(row["engines"]), str(len(row["constraints"])))
        console.print(table)
        console.print("\npalmar envs TASK: its constraints with their budgets, and its configuration", highlight=False)
        return
    for row in rows:
        said = f"“{row['instruction']}”" if row["instruction"] else "(no words: goals are poses)"
        console.print(f"[bold]{row['task']}[/bold]  {row['status']}  {said}\n  {row['about']}", highlight=False)
        console.print(f"  robots {', '.join(row['robots'])}; engines {', '.join(row['engines'])}", highlight=False)
        table = Table(box=None, pad_edge=False)
        for head in ("  constraint", "budget per episode", "at runtime"):
            table.add_column(head)
        for name, c in row["constraints"].items():
            table.add_row(f"  {name}", f"{c['budget']:g} {c['unit']}", c["runtime"])
        console.print(table)
        for key, value in row["config"].items():
            every = "  (every one of the file)" if key == "constraints" and not value else ""
            console.print(f"  task.{key}={value}{every}", highlight=False, markup=False)
