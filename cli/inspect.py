"""palmar inspect: look at recorded runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

ABOUT = """
Audits recorded runs against a constraint file (that of the run, or --constraints) and writes one
self-contained HTML page: video, what the filter did, commands, margins, forces, and a table of
every constraint with its budget.  The page needs no network.  Without EGL or OSMesa it comes
without video and says so (palmar doctor). Prints the audit, writes --out (default: the first file's
name with .html). --rerun opens the run in the Rerun viewer instead; --save FILE.rrd writes what it
would show.
"""
EXAMPLES = """
palmar inspect demo_out/rollout.mcap
palmar inspect runs/*/rollout.mcap --out compare.html --constraints my_limits.yaml
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="rollouts (MCAP)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page")
    parser.add_argument("--constraints", type=Path, metavar="FILE", help="audit against this file")
    parser.add_argument("--no-video", action="store_true", help="do not render")
    parser.add_argument("--no-replay", action="store_true", help="do not check that the run replays bit-equal")
    parser.add_argument("--recover", action="store_true", help="accept a file that was cut off")
    parser.add_argument("--rerun", action="store_true", help="open in Rerun (needs palmar[viewer])")
    parser.add_argument("--save", type=Path, metavar="FILE", help="with --rerun: write an .rrd file instead")


def run(args: argparse.Namespace) -> int:
    """Audit, print, and write the page or open the viewer."""
    from rich.console import Console

    from palmar.cli import tables
    from palmar.rollouts.read import read
    from palmar.rollouts.report.run import sentence
    from palmar.safety.types import ConfigError

    if args.save is not None and (not args.rerun or len(args.files) > 1):
        raise ConfigError("--save goes with --rerun and one file")
    found = [read(path, recover=args.recover) for path in args.files]
    audits = [_audit(rollout, args.constraints) for rollout in found]
    console = Console(file=sys.stdout)
    for rollout, audit in zip(found, audits, strict=True):
        console.print(f"[bold]{rollout.path}[/bold]\n{sentence(rollout, audit)}", highlight=False, soft_wrap=True)
        console.print(tables.audit(audit))
    if args.rerun:
        from palmar.rollouts.inspect import to_rerun

        for rollout, audit in zip(found, audits, strict=True):
            to_rerun(rollout, audit, save=args.save)
        return 0
    target = _page(args, found, audits)
    console.print(f"page: {target}", highlight=False, soft_wrap=True)
    return 0


def _audit(rollout: Any, constraint_file: Path | None) -> Any:
    from palmar.cli import wiring
    from palmar.rollouts.audit import audit
    from palmar.safety import constraints

    robot = rollout.header.robot
    held = rollout.header.constraint_set()
    if constraint_file is not None:
        held = constraints.load(constraint_file, robot.limits)
    return audit(rollout, held, wiring.clearance_of(robot))


def _page(args: argparse.Namespace, found: list[Any], audits: list[Any]) -> Path:
    from palmar.rollouts.report.page import Summary, write_report

    target = args.out or args.files[0].with_suffix(".html")
    target.parent.mkdir(parents=True, exist_ok=True)
    replays = [None if args.no_replay or r.header.state0 is None else _replay(r) for r in found]
    commands = [f"palmar inspect {' '.join(map(str, args.files))}", f"palmar replay {args.files[0]}"]
    return write_report(
        target,
        found,
        audits,
        summary=Summary(commands=commands),
        replays=replays,
        max_videos=0 if args.no_video else 3,
    )


def _replay(rollout: Any) -> Any:
    """The replay, or None with a word why: the page is worth having without it."""
    from palmar.rollouts.replay import replay_mujoco
    from palmar.safety.types import RolloutRefused

    try:
        return replay_mujoco(rollout)
    except RolloutRefused as why:
        print(f"cannot be replayed: {why}", file=sys.stderr)
        return None
