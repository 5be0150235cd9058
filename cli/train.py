"""palmar train: a policy from a task, an algorithm and a constraint file."""

from __future__ import annotations

import argparse
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from palmar.cli.wiring import Setup
    from palmar.policies.train import TrainResult

ABOUT = """
Trains a policy on B simulated scenes at once.  Each constraint of the file is a cost with a budget;
ppo_lagrangian raises a multiplier on every cost that is over its budget.  Choose files of configs/
with task=, algo=, robot=, constraints= and change single values with algo.KEY=VALUE,
task.KEY=VALUE; a wrong name is answered with the accepted ones.  Writes into --out (default
runs/TASK-ALGO-TIME):
  bundle/       the policy, ready for palmar eval and palmar deploy
  record.json   resolved configuration, git state, versions, constraint hash, final evaluation
  checkpoints and TensorBoard scalars; --resume goes on from the newest checkpoint
"""
EXAMPLES = """
palmar train task=lift algo=ppo_lagrangian
palmar train task=lift algo=ppo algo.seed=3 algo.iterations=60 --out runs/unconstrained --time-limit 120
"""
UNSEEN = 1_000_000
"""Evaluations count their seeds from here, training from algo.seed: no episode is in both."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="task=, algo=, algo.KEY=, ...")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the run is written")
    parser.add_argument(
        "--time-limit", type=float, metavar="S", help="learn for so many seconds; evaluation comes on top"
    )
    parser.add_argument("--episodes", type=int, default=100, metavar="N", help="of the final evaluation (100)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")


def run(args: argparse.Namespace) -> int:
    """Train, evaluate on unseen episodes, store the bundle."""
    from rich.console import Console

    from palmar.cli import provenance, tables, wiring
    from palmar.cli.config import compose
    from palmar.policies.evaluate import evaluate
    from palmar.safety.types import ConfigError

    if args.time_limit is not None and not args.time_limit > 0:
        raise ConfigError(f"--time-limit is {args.time_limit}, need seconds > 0")
    if args.episodes < 1:
        raise ConfigError(f"--episodes is {args.episodes}, need at least 1")
    if args.resume and args.out is None:
        raise ConfigError("--resume needs --out DIR: the run to go on with")
    parts = wiring.setup(compose(args.overrides))
    out = args.out or Path("runs") / f"{_title(parts)}-{datetime.now():%Y%m%d-%H%M%S}"
    record = provenance.run_record(parts.resolved(), parts.constraints)
    result = learn(parts, out, time_limit_s=args.time_limit, resume=args.resume)
    unseen = wiring.environment(parts, num_envs=min(50, args.episodes), seed=UNSEEN)
    found = evaluate(unseen, result.policy, episodes=args.episodes, seed=UNSEEN + 1 + parts.algo.seed)
    bundle = store(parts, result, out / "bundle", evaluation=found.to_json())
    record |= {
        "result": found.to_json(),
        "stopped": result.stopped,
        "wall_s": result.wall_s,
        "bundle": str(bundle),
    }
    provenance.write(out / "record.json", record)
    console = Console(file=sys.stdout)
    console.print(tables.evaluation(found))
    console.print(
        f"\n{result.iterations} iterations, {result.env_steps:,} steps, {result.wall_s:.0f} s ({result.stopped})"
    )
    console.print(f"bundle: {bundle}\nnext:   palmar deploy --bundle {bundle}", highlight=False, soft_wrap=True)
    return 0


def learn(parts: Setup, out: Path, *, time_limit_s: float | None = None, resume: bool = False) -> TrainResult:
    """Train ``parts`` into ``out`` with a live display; evaluations use other seeds than training."""
    from palmar.cli import wiring
    from palmar.cli.live import Display
    from palmar.policies.evaluate import Evaluation, evaluate
    from palmar.policies.train import train

    env = wiring.environment(parts, num_envs=parts.algo.num_envs, seed=parts.algo.seed, stagger=True)
    other = wiring.environment(parts, num_envs=min(64, parts.algo.num_envs), seed=UNSEEN)

    def measured(policy: Any) -> Evaluation:
        return evaluate(other, policy, episodes=other.num_envs, seed=UNSEEN + parts.algo.seed)

    iterations = parts.algo.iterations
    with Display(_title(parts), iterations=iterations, time_limit_s=time_limit_s) as display:
        return train(
            env,
            parts.algo,
            run_dir=out,
            evaluate=measured,
            progress=display,
            time_limit_s=time_limit_s,
            resume=resume,
        )


def store(parts: Setup, result: TrainResult, path: Path, *, evaluation: dict[str, Any]) -> Path:
    """Write the bundle of a trained policy."""
    from palmar.policies.bundle import save_bundle
    from palmar.policies.contract import TaskContract
    from palmar.safety.config import plain

    task = TaskContract.of(parts.task.name, parts.task.io(parts.robot, 1), plain(parts.task.config))
    save_bundle(
        path,
        result.policy,
        task=task,
        robot=parts.robot,
        constraints_text=parts.composed.constraints_text(),
        training=result.fingerprint() | {"unseen": evaluation},
    )
    return path


def _title(parts: Setup) -> str:
    return f"{parts.composed.choices['task']}-{parts.composed.choices['algo']}"
