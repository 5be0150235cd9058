"""palmar replay: the same run again, from its file."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

ABOUT = """
Puts the simulator into the recorded start state, applies every recorded control, and compares every
recorded state bit by bit.  On the same MuJoCo version and kind of processor a run of the simulated
hardware is bit-equal; otherwise the first difference is named: step, time, joint, size.  Runs on
real hardware hold no physics and are refused. Changes no file.  Prints one line per file, or JSON
with --json; exit code 1 if any departs.
"""
EXAMPLES = """
palmar replay demo_out/rollout.mcap
palmar replay runs/*/rollout.mcap --json
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="rollouts (MCAP)")
    parser.add_argument("--recover", action="store_true", help="accept a file that was cut off")
    parser.add_argument("--json", action="store_true", help="print one JSON object with rows")


def run(args: argparse.Namespace) -> int:
    """Replay every file."""
    from palmar.rollouts.read import read
    from palmar.rollouts.replay import replay_mujoco
    from palmar.rollouts.report.run import replayed

    rows, equal = [], True
    for path in args.files:
        found = replay_mujoco(read(path, recover=args.recover))
        equal = equal and found.bit_equal
        rows.append({"file": str(path), "bit_equal": found.bit_equal, **asdict(found)})
        if not args.json:
            print(f"{path}: {replayed(found)}")
    if args.json:
        print(json.dumps({"rows": rows}, indent=1))
    return 0 if equal else 1
