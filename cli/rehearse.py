"""palmar rehearse: everything that may go wrong in a session, on the twin or the fakes, before it does on the robot."""

from __future__ import annotations

import argparse
import json
import logging
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from palmar.real_robot.rehearse import Rehearsal

ABOUT = """
Starts the whole graph of palmar deploy on simulated hardware (--hardware twin) or on the real drivers with
fakes behind them (--hardware fake), with a bad network between policy and bridge, and lets go wrong one after
another: delayed, shuffled and lost chunks, a blind tracker, a person who walks in, a lost person tracker, a second
commander, the operator's stops, hanging and killed processes, frozen and unattended hardware.  Prints a table of
what happened against the constraint file: how soon the filter left RUN and why, how soon the robot stood, the
smallest margin.  Writes --out (default runs/rehearse-TIME): rollout.mcap of the whole rehearsal,
rehearsal.json, a log per process.  Run it before every session.  Exit code 0: all as it must be.
"""
EXAMPLES = """
palmar rehearse
palmar rehearse --short --constraints arm_hand
palmar rehearse --bundle assets/bundles/lift --only "policy crashes" --only "operator stops"
"""
SECTION = "deploy"
WIDTH = 130
"""Of the table in a file."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="values of configs/deploy: seed=, twin.KEY=, ..."
    )
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="the policy; without one every joint sways a little")
    parser.add_argument("--instruction", metavar="TEXT", help="what to do, in words")
    parser.add_argument("--hardware", choices=["twin", "fake"], help="twin (default) or fake")
    parser.add_argument("--constraints", metavar="FILE", help="constraint file; shared_cell where no bundle says")
    parser.add_argument("--short", action="store_true", help="the most important ones, half a minute")
    parser.add_argument("--only", action="append", metavar="NAME", help="only this scenario; may be repeated")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where it is written")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")


def run(args: argparse.Namespace) -> int:
    """Rehearse and print; exit code 1 if something was not as it must be."""
    from rich.console import Console

    from palmar.cli import provenance
    from palmar.real_robot.rehearse import rehearse, summary

    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    config = configuration(args)
    console = Console(stderr=True)
    with console.status("starting") as status:
        found = rehearse(
            config,
            short=args.short,
            only=tuple(args.only or ()),
            progress=lambda what, share: status.update(f"{100 * share:3.0f} %  {what}"),
        )
    provenance.write(Path(found.run_dir) / "record.json", provenance.run_record(config, None))
    if args.json:
        print(json.dumps(summary(found), indent=1))
    else:
        show(found)
    return 0 if found.ok else 1


def configuration(args: argparse.Namespace) -> Any:
    """The deployment to rehearse.

    Raises:
        PalmarError: If a key is unknown, a value impossible, or the bundle is none.
    """
    from palmar.cli.config import values
    from palmar.cli.deploy import chosen_hardware
    from palmar.real_robot.deploy import DeployConfig
    from palmar.safety import config

    hardware, words = chosen_hardware(args.hardware, args.overrides)
    raw: dict[str, Any] = {"constraints": "shared_cell"}
    if args.bundle is not None:
        from palmar.policies.bundle import load_bundle

        bundle = load_bundle(args.bundle)
        raw = {"task": bundle.task.name, "robot": bundle.robot.name, "bundle": str(args.bundle)}
    raw |= values(SECTION, words, name=hardware) | {"hardware": hardware}
    raw["out"] = str(args.out or Path("runs") / f"rehearse-{datetime.now():%Y%m%d-%H%M%S}")
    asked = {"instruction": args.instruction, "constraints": args.constraints}
    raw |= {key: value for key, value in asked.items() if value is not None}
    return config.load(DeployConfig, raw, where=SECTION)


def show(found: Rehearsal) -> None:
    """Print the table and where to look."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    console.print(table(found))
    for row in found.rows:
        for problem in row.problems:
            console.print(f"[red]{row.scenario}[/red]: {problem}", highlight=False)
    if found.left_out:
        console.print(
            f"left out, {found.constraints} has no margin for it: {', '.join(found.left_out)}", highlight=False
        )
    passed = sum(row.ok for row in found.rows)
    console.print(
        f"{passed} of {len(found.rows)} as they must be; from the launch to the first motion "
        f"{found.launch_to_motion_s:.1f} s; declared time to rest {found.declared_rest_ms:.0f} ms\n"
        f"next:    palmar inspect {found.run_dir}/rollout.mcap",
        highlight=False,
        soft_wrap=True,
    )


def table(found: Rehearsal) -> Table:
    """What happened, a row per scenario."""
    from rich.table import Table

    from palmar.cli.tables import number

    table = Table(box=None, pad_edge=False, title=f"{found.hardware}, {found.constraints}", title_justify="left")
    for head in ("", "scenario", "left RUN", "because", "stood", "smallest margin", "", "went on"):
        right = head in ("left RUN", "stood", "smallest margin", "went on")
        table.add_column(head, justify="right" if right else "left", no_wrap=head != "because")
    for row in found.rows:
        table.add_row(
            "[green]ok[/green]" if row.ok else "[red]no[/red]",
            row.scenario,
            milliseconds(row.reaction_ms),
            row.reason.replace("_", " ") if row.reaction_ms is not None else "",
            milliseconds(row.standstill_ms),
            number(row.margin),
            row.worst.replace("_", " "),
            milliseconds(row.resumed_ms),
        )
    return table


def milliseconds(value: float | None) -> str:
    """``12 ms``; ``–`` for never."""
    return "–" if value is None else f"{value:.0f} ms"
