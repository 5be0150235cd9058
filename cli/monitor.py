"""palmar monitor: what the control process does, and the operator's four requests."""

from __future__ import annotations

import argparse
import json
import select
import sys
import termios
import time
import tty
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from palmar.safety.types import ConfigError, PalmarError

if TYPE_CHECKING:
    from rich.console import Group

    from palmar.real_robot.operator import Operator, Status

ABOUT = """
Attaches to the control process that runs on this machine and shows ten times a second: the filter's
state and reason, the active constraint, every margin now and at its worst, the age of what the policy
said, missed periods.  Keys: s stop, e emergency stop (both at once, without a question); l let go of the
emergency stop, r reset (both ask first); q leave.  --page serves the same as a page, on this machine's
loopback device only.  --do ACT asks for one thing and prints what came of it; --once prints one look,
--json the same as JSON.  One operator at a time; --watch only looks.  Neither ROS nor the bridge is
needed: a stop works while they hang.  It is a program, not an emergency stop: keep the real one in your
hand.  Palmar is not safety-rated.
"""
EXAMPLES = """
palmar monitor
palmar monitor --do stop
palmar monitor --page --port 8765
palmar monitor --watch --once --json
"""
KEYS = {"s": "stop", "e": "estop", "l": "release", "r": "reset"}
ASKED = ("release", "reset")
"""Requests that need a yes: they let the robot move again."""
PERIOD = 0.1


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("--memory", type=Path, metavar="FILE", help="shared file, where more than one process runs")
    parser.add_argument("--watch", action="store_true", help="only look; several may")
    parser.add_argument("--once", action="store_true", help="print one look and leave")
    parser.add_argument("--json", action="store_true", help="as JSON; implies --once")
    parser.add_argument("--do", choices=sorted(KEYS.values()), metavar="ACT", help=", ".join(KEYS.values()))
    parser.add_argument("--page", action="store_true", help="serve a page on 127.0.0.1")
    parser.add_argument("--port", type=int, default=0, metavar="P", help="of the page; 0 takes a free one")


def run(args: argparse.Namespace) -> int:
    """Show, or ask; exit code 1 if nobody controls the robot."""
    from palmar.real_robot.operator import Operator, running, the_one

    if args.watch and args.do:
        raise ConfigError("--watch only looks: it cannot --do anything")
    if not 0 <= args.port < 65536:
        raise ConfigError(f"--port is {args.port}, accepted 0 to 65535")
    once = args.once or args.json
    with ExitStack() as stack:
        path = args.memory or the_one(running())
        operator = stack.enter_context(Operator(path, ask=not args.watch and not (once and not args.do)))
        if args.do:
            operator.ask(args.do)
        if args.do or once:
            return _print(operator.look(), as_json=args.json)
        if args.page:
            from palmar.cli.monitor_page import serve

            return serve(operator, args.port, ask=not args.watch)
        return _live(operator, ask=not args.watch)


def _print(now: Status, *, as_json: bool) -> int:
    from rich.console import Console

    if as_json:
        print(json.dumps(asdict(now) | {"alive": now.alive}, indent=1))
    else:
        Console().print(page(now))
    return 0 if now.alive else 1


def _live(operator: Operator, *, ask: bool) -> int:
    from rich.console import Console
    from rich.live import Live

    console, said, asked = Console(), "", ""
    keys = "s stop  e emergency stop  l release  r reset  q leave" if ask else "q leave"
    with Keys() as pressed, Live(console=console, refresh_per_second=1 / PERIOD, screen=console.is_terminal) as live:
        while True:
            now = operator.look()
            live.update(page(now, said=said or keys))
            key = pressed.wait(PERIOD)
            if asked:
                said = _ask(operator, asked) if key == "y" else f"{asked}: not done" if key else said
                asked = "" if key else asked
            elif key in ("q", "\x03"):
                return 0 if now.alive else 1
            elif ask and (act := KEYS.get(key)):
                asked = act if act in ASKED else ""
                said = f"{act}: the robot may move again.  y for yes" if asked else _ask(operator, act)


def _ask(operator: Operator, what: str) -> str:
    try:
        now = operator.ask(what)
    except PalmarError as error:
        return str(error)
    return f"{what}: done, {now.state} {now.reason}".rstrip()


class Keys:
    """Single key presses, where the standard input is a terminal; none elsewhere."""

    def __enter__(self) -> Keys:
        self._terminal = sys.stdin.isatty()
        if self._terminal:
            self._before = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._terminal:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)

    def wait(self, seconds: float) -> str:
        """The key pressed within that time, '' for none."""
        if not self._terminal:
            time.sleep(seconds)
            return ""
        ready, _, _ = select.select([sys.stdin], [], [], seconds)
        return sys.stdin.read(1) if ready else ""


COLOURS = {"run": "green", "hold": "yellow", "stop": "red", "latched": "red"}


def page(now: Status, *, said: str = "") -> Group:
    """One look, as a page for a terminal."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from palmar.cli.tables import number

    if not now.alive:
        return Group(Text(f"nobody controls the robot: silent for {now.silent:.1f} s", style="bold red"), Text(said))
    head = Text(now.state.upper(), style=f"bold {COLOURS[now.state]}")
    head.append(f"  {now.reason}" if now.reason else "", style="default not bold")
    margins = Table(box=None, pad_edge=False)
    for name in ("constraint", "margin", "worst", ""):
        margins.add_column(name, justify="right" if name in ("margin", "worst") else "left")
    for name, value in now.margins.items():
        style = "red" if value < 0 else "yellow" if name in now.active else ""
        told = "active" if name in now.active else ""
        margins.add_row(name.replace("_", " "), number(value), number(now.worst.get(name)), told, style=style)
    rows = Table(box=None, pad_edge=False, show_header=False)
    for name, told in lines(now).items():
        rows.add_row(name, told)
    return Group(head, Text(""), margins, Text(""), rows, Text(""), Text(said, style="dim"))


def lines(now: Status) -> dict[str, str]:
    """What is said beside state and margins."""
    chunk = "none yet" if now.chunk_age is None else f"{1e3 * now.chunk_age:.0f} ms old"
    realtime = "" if now.realtime else ", without real-time priority"
    told = {
        "chunk": f"{chunk}; {now.chunks} followed, {now.refused} refused {now.refusal}".rstrip(),
        "reading": f"{1e3 * now.reading_age:.1f} ms old; {now.driver_errors} driver errors",
        "tick": f"{now.compute_ms:.2f} ms; {now.missed} of {now.ticks} periods missed, latest by "
        f"{now.late_max_ms:.1f} ms{realtime}",
        "filter": f"intervened {now.intervention_s:.1f} s",
    }
    if now.foreseen:
        ahead = f" in {now.foreseen_in:.2f} s" if now.foreseen_in is not None else ""
        told["foreseen"] = f"{now.foreseen}{ahead}"
    return told
