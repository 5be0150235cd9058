"""palmar eval: what a policy does on episodes it never saw."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from palmar.cli.wiring import Setup

ABOUT = """
Runs a policy for N unseen episodes and prints success with its 95 % interval and, per constraint,
the mean cost of an episode against its budget, the share of episodes over it, and the worst margin.
POLICY is a bundle's folder, or the name of a scripted policy of the task: oracle, nothing.  A
bundle is evaluated under the constraints it was trained with; the difficulty of the task can be
changed with task.KEY=VALUE. Prints a table and, with --json, writes one JSON object with rows.
--require ends with exit code 1 below a rate.
"""
EXAMPLES = """
palmar eval runs/mine/bundle --episodes 300
palmar eval oracle task=lift task.friction=[0.4,0.5] --json oracle.json
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("policy", metavar="POLICY", help="folder of a bundle, or oracle, nothing")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="task.KEY=, engine.KEY=")
    parser.add_argument("--episodes", type=int, default=300, metavar="N", help="how many (300)")
    parser.add_argument("--seed", type=int, default=2_000_000, help="of the episodes; training counts from 0")
    parser.add_argument("--num-envs", type=int, default=50, metavar="B", help="scenes simulated at once (50)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers")
    parser.add_argument(
        "--require", type=float, metavar="RATE", help="exit code 1 below this success, or over a budget"
    )


def run(args: argparse.Namespace) -> int:
    """Evaluate and print."""
    from rich.console import Console

    from palmar.cli import provenance, tables, wiring
    from palmar.policies.evaluate import evaluate
    from palmar.safety.types import ConfigError

    for name in ("episodes", "num_envs"):
        if getattr(args, name) < 1:
            raise ConfigError(f"--{name.replace('_', '-')} is {getattr(args, name)}, need at least 1")
    if args.require is not None and not 0 <= args.require <= 1:
        raise ConfigError(f"--require is {args.require}, need a share in [0, 1]")
    parts, policy, name = chosen(args.policy, args.overrides)
    env = wiring.environment(parts, num_envs=min(args.num_envs, args.episodes), seed=args.seed)
    found = evaluate(env, policy, episodes=args.episodes, seed=args.seed)
    row = {"task": parts.task.name, "policy": name, **found.to_json()}
    Console().print(tables.evaluation(found))
    if args.json is not None:
        record = provenance.run_record(parts.resolved(), parts.constraints)
        provenance.write(args.json, {"rows": [row], "record": record})
    good = args.require is None or (found.success_rate >= args.require and found.within_budgets)
    return 0 if good else 1


def chosen(word: str, overrides: list[str]) -> tuple[Setup, Any, str]:
    """The setup and the policy that ``word`` names, and the name it has in reports.

    Raises:
        PalmarError: If there is no such bundle or script, or the bundle does not fit the task here.
    """
    from palmar.cli import wiring
    from palmar.cli.config import compose
    from palmar.safety.types import ConfigError
    from palmar.sim.tasks import find

    if Path(word).is_dir():
        return _bundled(Path(word), overrides)
    parts = wiring.setup(compose(overrides))
    known = find.load(parts.task.name).scripted()
    if word not in known:
        accepted = ", ".join(["a bundle's folder", *known])
        raise ConfigError(f"no folder and no script of {parts.task.name} is called {word!r}; accepted: {accepted}")
    return parts, known[word](), word


def _bundled(path: Path, overrides: list[str]) -> tuple[Setup, Any, str]:
    import yaml

    from palmar.cli import wiring
    from palmar.cli.config import compose
    from palmar.policies.bundle import BundlePolicy, load_bundle
    from palmar.policies.contract import TaskContract
    from palmar.safety.config import plain
    from palmar.safety.types import ConfigError

    bundle = load_bundle(path)
    for word in overrides:
        if word.split(".")[0].split("=")[0] in ("algo", "robot", "constraints") or word.startswith("task="):
            raise ConfigError(
                f"{word!r}: a bundle brings its own task, robot, constraints; only task.KEY=, engine.KEY="
            )
    composed = compose([f"task={bundle.task.name}", f"robot={bundle.robot.name}", *overrides])
    composed.values["constraints"] = yaml.safe_load(bundle.constraints_text)
    parts = wiring.setup(composed)
    task = TaskContract.of(parts.task.name, parts.task.io(parts.robot, 1), plain(parts.task.config))
    bundle.check(parts.robot, parts.constraints, task)
    return parts, BundlePolicy(bundle), f"{path.name} {bundle.sha256[:12]}"
