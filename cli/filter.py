"""palmar filter: why the filter did what it did, and what it would do to a recorded run."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

ABOUT = """
--explain FILE@T takes one tick of a recorded run, T seconds after its start (or FILE@first, the first
tick that was changed, or FILE@worst, the largest change), and says what was intended, what was sent,
which constraint's row stood in between and how much room it had.  The rows are computed again from
the recording, which holds no people: it has none for people, the reflex and impedance.
--shadow sends the intentions of recorded runs through a filter that only watches: how often and by
how much it would step in, for which constraint, and how often without need (a false trip: nothing
of the intended motion violates a hard row until one second after).  Exit code 1 if there is one.
--constraints uses another constraint file than the run's.  Prints tables, or JSON with --json; changes no
file.
"""
EXAMPLES = """
palmar filter --explain demo_out/rollout.mcap@first
palmar filter --explain demo_out/rollout.mcap@2.25 --json
palmar filter --shadow runs/*/rollout.mcap --constraints my_limits.yaml
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--explain", metavar="FILE@T", help="explain one tick of a rollout (MCAP)")
    what.add_argument("--shadow", nargs="+", type=Path, metavar="FILE", help="rollouts (MCAP) to send through a filter")
    parser.add_argument("--constraints", type=Path, metavar="FILE", help="a constraint file instead of the run's")
    parser.add_argument("--recover", action="store_true", help="accept a file that was cut off")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Explain a tick, or watch runs."""
    return _explain(args) if args.explain else _shadow(args)


def _filter(rollout: Any, constraint_file: Path | None) -> Any:
    """A watching filter for the run's robot that follows any recorded reference."""
    from palmar.safety import constraints
    from palmar.safety.chunks import ChunkConfig
    from palmar.safety.filter import Filter, FilterConfig

    head = rollout.header
    held = head.constraint_set()
    if constraint_file is not None:
        held = constraints.load(constraint_file, head.robot.limits)
    config = FilterConfig(dt=head.control_dt, chunks=ChunkConfig(jump=1e3))
    return Filter(head.robot, held, config, mode="shadow")


def _explain(args: argparse.Namespace) -> int:
    from rich.console import Console

    from palmar.rollouts.explain import explain, find
    from palmar.rollouts.read import read
    from palmar.safety.types import ConfigError

    name, at, when = args.explain.rpartition("@")
    if not at or not name:
        raise ConfigError(f"--explain {args.explain!r}: need FILE@T, FILE@first or FILE@worst")
    rollout = read(Path(name), recover=args.recover)
    found = explain(rollout, find(rollout, when), _filter(rollout, args.constraints))
    if args.json:
        print(json.dumps(found.to_json(), indent=1))
    else:
        _print(Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 120), found)
    return 0


def _print(console: Any, e: Any) -> None:
    """An explanation for people."""
    chunk = "no chunk yet" if e.chunk is None else f"chunk {e.chunk}, {1e3 * e.chunk_age:.0f} ms old"
    console.print(f"t = {e.t:.3f} s   {e.state.upper()} since {e.since:.3f} s   {chunk}", soft_wrap=True)
    console.print(_sentence(e), soft_wrap=True)
    for row in e.rows:
        console.print("  " + _row(row), soft_wrap=True)
    if e.joints:
        console.print(_table("changed joints [rad, rad/s, rad/s2]", JOINT_HEAD, [_joint(j) for j in e.joints]))
    if e.margins:
        worst = list(e.margins.items())[:6]
        console.print(_table("tightest margins", ("constraint", "margin"), [(k, f"{m:.4g}") for k, m in worst]))
    if e.agrees is False:
        said = f" ({e.again})" if e.again else ""
        console.print(
            f"note: this tick, solved again, does not give what was sent{said}: rows may differ from the run's",
            soft_wrap=True,
        )


def _sentence(e: Any) -> str:
    """What happened, in one line."""
    if e.state != "run":
        return f"the stop law's command was sent: {e.reason or 'no reason recorded'}"
    if not e.changed:
        return "the intention was sent unchanged"
    if e.reason.startswith("unverified_"):
        return f"the stop law's command was sent: the stop after the QP's answer would violate {e.reason[11:]}"
    if e.reason.startswith("qp_"):
        return f"the stop law's command was sent: {e.reason}"
    return f"changed by up to {e.edit:.3g} rad/s2 for {', '.join(e.active) or e.reason}"


JOINT_HEAD = ("joint", "position", "velocity", "reference", "wanted", "sent", "allowed", "")


def _row(r: Any) -> str:
    """An active row, in one line."""
    where = f"{r.constraint}: {r.between}"
    if not math.isnan(r.distance):
        where += f" {1e3 * r.distance:.1f} mm apart, limit {1e3 * r.limit:.1f} mm"
    way = "closing" if r.rate < 0 else "opening"
    speed = f"{way} at {1e3 * abs(r.rate):.1f} mm/s"
    if not math.isnan(r.allowed):
        least = f"closing at {-1e3 * r.allowed:.1f}" if r.allowed <= 0 else f"opening at {1e3 * r.allowed:.1f}"
        speed += f", allowed {least} mm/s"
    return f"{where}; {speed}; needs {r.needed:.3g} m/s2, wanted {r.wanted:.3g}, sent {r.sent:.3g}"


def _joint(j: Any) -> tuple[str, ...]:
    numbers = (f"{x:.4g}" for x in (j.position, j.velocity, j.reference, j.wanted, j.sent))
    return (j.joint, *numbers, f"{j.low:.3g} to {j.high:.3g}", "at its bound" if j.at_bound else "")


def _shadow(args: argparse.Namespace) -> int:
    from rich.console import Console

    from palmar.rollouts.read import read
    from palmar.rollouts.shadow import shadow

    rows = []
    for path in args.shadow:
        rollout = read(path, recover=args.recover)
        rows.append({"file": str(path), **shadow(rollout, _filter(rollout, args.constraints)).to_json()})
    if args.json:
        print(json.dumps({"rows": rows}, indent=1))
    else:
        told = [
            (
                r["file"],
                f"{r['ticks']}",
                f"{r['interventions']} ({100 * r['changed'] / r['ticks']:.2f} % of ticks)",
                f"{r['edit_mean']:.3g} / {r['edit_max']:.3g}",
                ", ".join(f"{k} {n}" for k, n in r["by"].items()) or "–",
                ", ".join(f"{k} {n}" for k, n in r["violated"].items()) or "–",
                f"{r['false_trips']}",
            )
            for r in rows
        ]
        heads = (
            "file",
            "ticks",
            "interventions",
            "edit mean / max",
            "changed ticks by",
            "would violate",
            "false trips",
        )
        Console(file=sys.stdout, highlight=False, width=200).print(_table("", heads, told))
    return 1 if any(r["false_trips"] for r in rows) else 0


def _table(title: str, heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> Any:
    """A table on a terminal."""
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
