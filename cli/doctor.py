"""palmar doctor: is this machine ready?"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from palmar.cli import machine, probes
from palmar.cli.machine import FAIL, Check

ABOUT = """
Checks Python, package versions, rendering (EGL, then OSMesa, then none), torch and CUDA, ROS 2
(rclpy, torch and palmar in one interpreter, here and in the Python of each distribution found),
real-time permission, disk. OK works, WARN works less well or lacks an optional part, FAIL does not
work; each with its fix. Changes nothing.  Prints a table, or JSON with --json; exit code 1 if a row
says FAIL.
"""
EXAMPLES = """
palmar doctor
palmar doctor --json | python -m json.tool
"""
COLOURS = {"OK": "green", "WARN": "yellow", "FAIL": "red"}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("--json", action="store_true", help="print one JSON object with rows instead of a table")


def run(args: argparse.Namespace) -> int:
    """Check, print, and say by the exit code whether Palmar can work here."""
    rows = examine()
    failed = any(row.status == FAIL for row in rows)
    if args.json:
        print(json.dumps({"ready": not failed, "rows": [asdict(row) for row in rows]}, indent=1))
    else:
        _table(rows, failed)
    return 1 if failed else 0


def examine() -> list[Check]:
    """Every check, the slow ones side by side."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        slow = [pool.submit(f) for f in (probes.torch, probes.ros, probes.gl, probes.realtime, probes.distributions)]
        rows = [machine.python(), machine.system(), *machine.pins()]
        for future in slow:
            found = future.result()
            rows += found if isinstance(found, list) else [found]
    return [*rows, machine.ffmpeg(), machine.disk(Path.cwd())]


def _table(rows: list[Check], failed: bool) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for head in ("", "status", "found"):
        table.add_column(head)
    for row in rows:
        told = Text(row.found)
        if row.fix:
            told.append(f"\nfix: {row.fix}", style="cyan")
        table.add_row(row.name, Text(row.status, style=COLOURS[row.status]), told)
    console = Console()
    console.print(table)
    console.print("\nnot ready: fix what says FAIL" if failed else "\nready", style="red" if failed else "green")
