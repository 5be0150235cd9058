"""palmar demo: the whole way, once."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from palmar.policies.evaluate import Evaluation
    from palmar.real_robot.deploy import DeployResult

ABOUT = """
The main job from one end to the other, in about five minutes: trains a constrained lift policy live
(success rises, each cost falls into its budget), deploys it - or the shipped one where the live one
is not good enough yet, and says which - on a simulated FR3 + LEAP as separate processes joined by
ROS 2, behind the filter at 1 kHz; records, replays bit by bit, and writes a report with video and
plots.  Leaves in --out (default demo_out): rollout.mcap (first scene; rollout_2.mcap, ...),
report.html, summary.json, train/ and deploy_K/ with logs.
"""
EXAMPLES = """
palmar demo --out demo_out
palmar demo --train-seconds 0 --scenes 1     # shipped policy only: half a minute
"""
GOOD_ENOUGH = 0.9
"""Share of unseen episodes a live policy must lift, within every budget, to be deployed."""
QUICK = ("algo.iterations=5000", "algo.warmup=40", "algo.std_anneal=[40,90]")
"""The shipped policy's settings, with the constraints acting early enough to be seen in two minutes."""
INSTRUCTIONS = ("lift the red block", "pick up the green cylinder", "lift the blue box")
CHECKED = 50
"""Unseen episodes that decide whether the live policy is deployed."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("--out", type=Path, default=Path("demo_out"), metavar="DIR", help="where everything goes")
    parser.add_argument("--train-seconds", type=float, default=110.0, metavar="S", help="live training (110; 0: none)")
    parser.add_argument("--scenes", type=int, default=3, choices=(1, 2, 3), help="scenes to lift in (3)")
    parser.add_argument("--seed", type=int, default=0, help="of training and of the scenes")


@dataclass(frozen=True)
class Chosen:
    """The policy that is deployed, and why."""

    bundle: Path
    why: str
    live: Evaluation | None


def run(args: argparse.Namespace) -> int:
    """Train, deploy, replay, report, sum up."""
    from rich.console import Console

    from palmar.safety.types import ConfigError

    began = time.perf_counter()
    if not 0 <= args.train_seconds <= 86_400:
        raise ConfigError(f"--train-seconds is {args.train_seconds}, need 0 to 86400")
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    args.out.mkdir(parents=True, exist_ok=True)
    stamp = f"{datetime.now():%Y%m%d-%H%M%S}"
    chosen = _train(args, stamp, console)
    console.rule("deploy: twin, control process with the filter, ROS 2 bridge, policy, recorder")
    results = [_deploy(args, k, stamp, chosen.bundle, console) for k in range(args.scenes)]
    console.rule("replay and report")
    replays = _report(args, chosen, results, console)
    summary = _summary(chosen, results, replays, time.perf_counter() - began)
    (args.out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    _tell(console, args.out, summary, results)
    return 0


def _train(args: argparse.Namespace, stamp: str, console: Any) -> Chosen:
    from palmar.cli import tables, wiring
    from palmar.cli.config import compose
    from palmar.cli.train import UNSEEN, learn, store
    from palmar.policies.evaluate import evaluate

    shipped = shipped_bundle()
    if args.train_seconds == 0:
        return Chosen(shipped, "the shipped policy (no live training asked for)", None)
    console.rule(f"train: constrained lift, {args.train_seconds:.0f} s")
    parts = wiring.setup(compose(["task=lift", "algo=ppo_lagrangian", f"algo.seed={args.seed}", *QUICK]))
    folder = args.out / "train" / stamp
    result = learn(parts, folder, time_limit_s=args.train_seconds)
    console.print(f"checking the live policy on {CHECKED} unseen episodes")
    env = wiring.environment(parts, num_envs=CHECKED, seed=UNSEEN)
    live = evaluate(env, result.policy, episodes=CHECKED, seed=UNSEEN + 77)
    console.print(tables.evaluation(live))
    bundle = store(parts, result, folder / "bundle", evaluation=live.to_json())
    costs = "costs in budget" if live.within_budgets else "costs over budget"
    told = f"the live policy lifts {live.successes} of {live.episodes}, {costs}"
    if live.success_rate >= GOOD_ENOUGH and live.within_budgets:
        return Chosen(bundle, f"{told}: it is deployed", live)
    late = f"not good enough yet after {args.train_seconds:.0f} s"
    return Chosen(shipped, f"{told}: {late}, the shipped policy is deployed", live)


def shipped_bundle() -> Path:
    """The constrained ``lift`` policy that comes with Palmar."""
    from importlib.resources import files

    return Path(str(files("palmar.assets"))) / "bundles" / "lift"


def _deploy(args: argparse.Namespace, k: int, stamp: str, bundle: Path, console: Any) -> DeployResult:
    from palmar.real_robot.deploy import DeployConfig, deploy

    instruction = INSTRUCTIONS[k]
    config = DeployConfig(
        out=str(args.out / f"deploy_{k + 1}" / stamp), instruction=instruction, bundle=str(bundle), seed=args.seed + k
    )
    with console.status("starting") as status:
        result = deploy(config, progress=lambda what, share: status.update(f"{instruction}: {what}"))
    done = "lifted" if result.success else f"not lifted ({result.reason})"
    console.print(f"scene {k + 1}, “{instruction}”: [bold]{done}[/bold] after {result.seconds:.1f} s")
    return result


def _report(args: argparse.Namespace, chosen: Chosen, results: list[DeployResult], console: Any) -> list[Any]:
    import shutil

    from palmar.cli import wiring
    from palmar.rollouts.audit import audit
    from palmar.rollouts.read import read
    from palmar.rollouts.replay import replay_mujoco
    from palmar.rollouts.report.page import Summary, write_report
    from palmar.rollouts.report.run import replayed
    from palmar.rollouts.report.video import VideoConfig
    from palmar.safety.types import RolloutRefused

    for k, result in enumerate(results):
        shutil.copyfile(result.rollout, _rollout(args.out, k))
    rollouts = [read(_rollout(args.out, k)) for k in range(len(results))]
    audits = [audit(r, r.header.constraint_set(), wiring.clearance_of(r.header.robot)) for r in rollouts]
    replays: list[Any] = []
    for r in rollouts:
        try:
            replays.append(replay_mujoco(r))
            console.print(f"{r.path}: {replayed(replays[-1])}")
        except RolloutRefused as why:  # records were lost on a machine too busy to keep up
            replays.append(None)
            console.print(f"{r.path}: cannot be replayed: {why}")
    latency = {
        f"chunk to robot, p99, scene {k + 1}": (r.chunk_to_robot_p99_ms or float("nan")) / 1000
        for k, r in enumerate(results)
    }
    with console.status("rendering"):
        write_report(
            args.out / "report.html",
            rollouts,
            audits,
            summary=Summary(
                title="Palmar demo",
                text=f"{chosen.why[0].upper()}{chosen.why[1:]}.",
                latency=latency,
                commands=("palmar demo",),
            ),
            comparisons=comparisons(),
            replays=replays,
            video=VideoConfig(width=480, height=272, fps=15),
            max_videos=len(rollouts),
        )
    return replays


def _rollout(out: Path, k: int) -> Path:
    return out / ("rollout.mcap" if k == 0 else f"rollout_{k + 1}.mcap")


def comparisons() -> dict[str, list[dict[str, Any]]]:
    """The shipped policies side by side, as ``palmar bench lift`` measured them."""
    from importlib.resources import files

    path = files("palmar.assets") / "bundles" / "lift_comparison.json"
    if not path.is_file():
        return {}
    rows = json.loads(path.read_text())["rows"]
    return {
        "What constraints change: policies on 300 unseen episodes each (palmar bench lift)": [
            _compared(r) for r in rows
        ]
    }


def _compared(row: dict[str, Any]) -> dict[str, Any]:
    if "not run" in row:
        return {"policy": row["policy"], "lifted": f"not run: {row['not run']}"}
    low, high = row["success_interval"]
    table, tips = row["table_force_p50_p95_max_N"], row["tip_force_p50_p95_max_N"]
    return {
        "policy": row["policy"],
        "lifted": f"{row['lifted']}/{row['episodes']} ({100 * low:.0f}–{100 * high:.0f} %)",
        "costs": "in budget" if row["within_budgets"] else "over budget",
        "table force, median / p95 [N]": f"{table[0]:.0f} / {table[1]:.0f}",
        "tip force, median / p95 [N]": f"{tips[0]:.0f} / {tips[1]:.0f}",
    }


def _summary(chosen: Chosen, results: list[DeployResult], replays: list[Any], wall: float) -> dict[str, Any]:
    worst: dict[str, float] = {}
    for result in results:
        for name, margin in result.worst_margin.items():
            worst[name] = min(margin, worst.get(name, float("inf")))
    return {
        "lifted": sum(bool(r.success) for r in results),
        "scenes": len(results),
        "policy": chosen.why,
        "live": None if chosen.live is None else chosen.live.to_json(),
        "intervention_s": sum(r.intervention_s for r in results),
        "worst_margin": worst,
        "chunk_to_robot_p50_ms": [r.chunk_to_robot_p50_ms for r in results],
        "chunk_to_robot_p99_ms": [r.chunk_to_robot_p99_ms for r in results],
        "missed_periods": sum(r.missed for r in results),
        "ticks": sum(r.ticks for r in results),
        "replay_bit_equal": [r is not None and r.bit_equal for r in replays],
        "wall_s": round(wall, 1),
    }


def _tell(console: Any, out: Path, summary: dict[str, Any], results: list[DeployResult]) -> None:
    from rich.table import Table

    from palmar.cli.tables import number

    console.rule("what happened")
    console.print(f"[bold]{summary['lifted']} of {summary['scenes']} lifted[/bold]; policy: {summary['policy']}")
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_row("filter intervened", f"{summary['intervention_s']:.2f} s of {sum(r.seconds for r in results):.1f} s")
    for k, (p50, p99) in enumerate(
        zip(summary["chunk_to_robot_p50_ms"], summary["chunk_to_robot_p99_ms"], strict=True)
    ):
        table.add_row(f"chunk to robot, scene {k + 1}, p50 / p99", f"{number(p50)} / {number(p99)} ms")
    table.add_row("control periods, missed", f"{summary['ticks']}, {summary['missed_periods']}")
    table.add_row("replays bit-equal", f"{sum(summary['replay_bit_equal'])} of {len(results)}")
    for name, margin in summary["worst_margin"].items():
        table.add_row(f"worst margin of {name.replace('_', ' ')}", number(margin))
    table.add_row("wall time", f"{summary['wall_s']:.0f} s")
    console.print(table)
    console.print(f"look at: {out / 'report.html'}\nreplay:  palmar replay {out / 'rollout.mcap'}")
