"""``palmar bench isaaclab``: train ``reach`` through engine ``isaaclab``, then judge the bundle on engine ``mujoco``.

The bar, set before any run: at least 90 % of 300 unseen episodes of engine ``mujoco``.  The
policy never met that engine.  A run can be stopped and continued: it goes on from the newest checkpoint of ``folder``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from palmar.cli import wiring
from palmar.cli.config import compose
from palmar.cli.train import store
from palmar.policies.bundle import BundlePolicy, load_bundle
from palmar.policies.evaluate import Evaluation, evaluate
from palmar.policies.log import Report
from palmar.policies.train import TrainResult, train
from palmar.sim.engines.isaaclab_client import make_env

ASKED = (
    "task=reach", "algo=ppo", "algo.num_envs=64", "algo.steps=24", "algo.gamma=0.95", "algo.lr=7.0e-4",
    "algo.hidden=[128,128]", "algo.minibatch=512", "algo.checkpoint_every=5",
)  # fmt: skip
"""64 worlds, and the numbers that suit ``reach``."""
THRESHOLD = 0.9
UNSEEN = 3_000_000
"""Seeds of the judging episodes; training counts from 0."""


def run(
    *,
    folder: Path = Path("runs/isaac_reach"),
    iterations: int = 100,
    episodes: int = 300,
    seconds: float | None = None,
    device: str = "cpu",
    physics: str = "newton_cpu",
    progress: Callable[..., None] | None = None,
) -> dict[str, Any]:
    """Train at most so many iterations (and seconds), store the bundle in ``folder``, judge it on ``mujoco``."""
    parts = wiring.setup(compose([*ASKED, f"algo.iterations={iterations}"]))
    learnt = folder / "curve.jsonl"

    def told(report: Report) -> None:
        with learnt.open("a") as file:
            file.write(json.dumps(_point(report)) + "\n")
        if progress is not None:
            progress("iteration", report.iteration, f"success {report.success:.2f}", f"{report.fps:.0f} steps/s")

    with make_env(
        parts.task, parts.robot, parts.constraints, num_envs=parts.algo.num_envs, seed=parts.algo.seed,
        device=device, physics=physics, stagger=True,
    ) as env:  # fmt: skip
        result = train(env, parts.algo, run_dir=folder, progress=told, time_limit_s=seconds, resume=True)
        broken = env.broken
    store(parts, result, folder / "bundle", evaluation={})
    policy = BundlePolicy(load_bundle(folder / "bundle"))
    there = wiring.environment(parts, num_envs=min(50, episodes), seed=UNSEEN)
    judged = evaluate(there, policy, episodes=episodes, seed=UNSEEN + 1)
    return {
        "name": "isaaclab",
        "asked": list(ASKED),
        "threshold": THRESHOLD,
        "curve": [json.loads(line) for line in learnt.read_text().splitlines()],
        "rows": [_row("mujoco", judged, result, broken)],
    }


def _row(engine: str, found: Evaluation, result: TrainResult, broken: int) -> dict[str, Any]:
    told = found.to_json()
    return {
        "trained_on": "isaaclab",
        "judged_on": engine,
        "episodes": found.episodes,
        "successes": found.successes,
        "success_rate": round(found.success_rate, 4),
        "success_interval": [round(x, 4) for x in told["success_interval"]],
        "passed": found.success_rate >= THRESHOLD,
        "costs": {name: round(c["mean"], 4) for name, c in told["constraints"].items()},
        "iterations": result.iterations,
        "env_steps": result.env_steps,
        "wall_s": round(result.wall_s, 1),
        "broken_worlds": broken,
        "stopped": result.stopped,
    }


def _point(report: Report) -> dict[str, float]:
    return {
        "iteration": report.iteration,
        "env_steps": report.env_steps,
        "success_with_noise": round(report.success, 3),
        "return": round(report.episode_return, 2),
        "steps_per_s": round(report.fps, 1),
    }


def main() -> None:
    """Train and judge from the command line: ``python -m palmar.benchmarks.isaaclab FILE.json [seconds]``."""
    import sys

    from palmar.cli import provenance

    out, limit = Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else None
    found = run(seconds=limit, progress=lambda *words: print(*words, flush=True))
    provenance.write(out, {**found, "record": provenance.run_record({"bench": "isaaclab"}, None)})
    for row in found["rows"]:
        print(row)


if __name__ == "__main__":
    main()
