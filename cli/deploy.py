"""palmar deploy: a policy on the robot or its twin, behind the filter."""

from __future__ import annotations

import argparse
import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from palmar.real_robot.deploy import DeployConfig, DeployResult

ABOUT = """
Starts the processes of a deployment, each its own program: the robot, the control process with the
filter at 1 kHz, the ROS 2 bridge, the policy node, the recorder; waits for success, the end of
--timeout, or a stop; ends them all.  hardware=twin is a simulated robot in real time, hardware=fake
the real drivers on fakes of their hardware, which move that robot, hardware=real the robot: a process
per device opens the ports of configs/hardware (arm.address=, hand.port= change them).  A bundle that
does not fit the robot, the constraint file or the task is refused before anything moves.  Values of
configs/deploy can be changed with KEY=VALUE. --mode shadow lets the filter judge without changing
commands; not on real hardware. Writes into --out (default runs/deploy-TIME): rollout.mcap,
result.json, run.json, record.json, a log per process. Palmar is not safety-rated: on hardware keep
the emergency stop in your hand.
"""
EXAMPLES = """
palmar deploy --bundle runs/mine/bundle --instruction "lift the red cube"
palmar deploy --bundle runs/mine/bundle hardware=real arm.address=172.16.0.2 hand.port=/dev/ttyUSB0
palmar deploy --bundle runs/mine/bundle --mode shadow --record out.mcap twin.tracker_dropout=0.3
"""
SECTION = "deploy"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="timeout=, seed=, twin.KEY=, ...")
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR", help="folder of the policy")
    parser.add_argument("--instruction", metavar="TEXT", help="what to do, in words")
    parser.add_argument("--hardware", choices=["twin", "fake", "real"], help="twin (default)")
    parser.add_argument("--mode", choices=["enforce", "shadow"], help="enforce (default) or shadow")
    parser.add_argument("--timeout", type=float, metavar="S", help="longest time the policy may try")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the run is written")
    parser.add_argument("--record", type=Path, metavar="FILE", help="put the rollout here as well")
    parser.add_argument("--no-record", action="store_true", help="do not record")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Deploy, print what happened; exit code 1 if the task did not succeed, or on hardware if the robot stopped."""
    from rich.console import Console

    from palmar.cli import provenance
    from palmar.real_robot.deploy import deploy

    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    config = configuration(args)
    console = Console(stderr=True)
    with console.status("starting") as status:
        result = deploy(config, progress=lambda what, share: status.update(f"{what}  {100 * share:.0f} %"))
    provenance.write(Path(result.run_dir) / "record.json", provenance.run_record(config, None))
    if args.record is not None:
        args.record.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(result.rollout, args.record)
    if args.json:
        print(json.dumps(asdict(result), indent=1))
    else:
        show(result)
    return 0 if result.success or (result.success is None and result.reason == "timeout") else 1


def configuration(args: argparse.Namespace) -> DeployConfig:
    """The deployment that the arguments ask for.

    Raises:
        PalmarError: If a key is unknown, a value impossible, or the bundle is none.
    """
    from palmar.cli.config import values
    from palmar.policies.bundle import load_bundle
    from palmar.real_robot.deploy import DeployConfig
    from palmar.safety import config
    from palmar.safety.types import ConfigError

    if args.record is not None and args.no_record:
        raise ConfigError("--record and --no-record contradict each other")
    for word in args.overrides:
        if word.partition("=")[0] in ("bundle", "out", "record"):
            raise ConfigError(f"{word!r}: say --{word.partition('=')[0]}")
    bundle = load_bundle(args.bundle)
    raw: dict[str, Any] = {"task": bundle.task.name, "robot": bundle.robot.name}
    hardware, words = chosen_hardware(args.hardware, args.overrides)
    raw |= values(SECTION, words, name=hardware) | {"hardware": hardware}
    raw |= {"bundle": str(args.bundle)} | ({"record": False} if args.no_record else {})
    raw["out"] = str(args.out or Path("runs") / f"deploy-{datetime.now():%Y%m%d-%H%M%S}")
    asked = {"instruction": args.instruction, "mode": args.mode, "timeout": args.timeout}
    raw |= {key: value for key, value in asked.items() if value is not None}
    return config.load(DeployConfig, raw, where=SECTION)


def chosen_hardware(option: str | None, words: Sequence[str]) -> tuple[str, list[str]]:
    """Which hardware ``--hardware`` or a word ``hardware=`` asks for, and the other words.

    Raises:
        ConfigError: If they contradict each other, or name none that there is.
    """
    from palmar.real_robot.config import HARDWARE
    from palmar.safety.types import ConfigError

    asked = [word.partition("=")[2] for word in words if word.partition("=")[0] == "hardware"]
    asked += [option] if option else []
    if len(set(asked)) > 1 or not set(asked) <= set(HARDWARE):
        raise ConfigError(f"hardware is {asked}, accepted one of {list(HARDWARE)}")
    return (asked or ["twin"])[0], [word for word in words if word.partition("=")[0] != "hardware"]


def show(result: DeployResult) -> None:
    """Print what happened and where to look."""
    from rich.console import Console
    from rich.table import Table

    from palmar.cli.tables import number

    console = Console()
    done = "succeeded" if result.success else f"did not succeed ({result.reason})"
    if result.success is None:
        done = f"ended ({result.reason}); whether it succeeded is for you to say"
    console.print(f"[bold]{result.target}: {done}[/bold] after {result.seconds:.1f} s", highlight=False)
    table = Table(box=None, pad_edge=False, show_header=False)
    latency = f"{number(result.chunk_to_robot_p50_ms)} / {number(result.chunk_to_robot_p99_ms)} ms"
    table.add_row("filter intervened", f"{result.intervention_s:.2f} s")
    table.add_row("chunk to robot, p50 / p99", latency)
    seen = f"{number(result.camera_to_command_p50_ms)} / {number(result.camera_to_command_p99_ms)} ms"
    table.add_row("camera to command, p50 / p99", seen)
    permission = "" if result.realtime else " (without real-time priority)"
    table.add_row("ticks, missed", f"{result.ticks}, {result.missed}{permission}")
    table.add_row("chunks, refused", f"{result.chunks}, {result.refused}")
    for name, margin in result.worst_margin.items():
        table.add_row(f"worst margin of {name.replace('_', ' ')}", number(margin))
    console.print(table)
    if result.rollout:
        console.print(f"rollout: {result.rollout}\nnext:    palmar inspect {result.rollout}", soft_wrap=True)
