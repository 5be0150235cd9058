"""How far along their trajectories scripted policies of ``track`` carry the object: the share called completion.

``palmar eval`` counts successes; Obj-Dex reports completion, so that a number beside theirs needs this:
``python -m palmar.sim.tasks.track_score oracle --episodes 300 --json benchmarks/results/track_completion.json``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from palmar.sim.env import make_env
from palmar.sim.interface import View
from palmar.sim.robots import load_robot
from palmar.sim.tasks.track import GRASPING, TrackConfig, TrackTask, scripted

Array = np.ndarray


def completions(policy: Any, *, split: str, episodes: int, seed: int, batch: int = 50) -> Array:
    """Completion of each episode, (episodes,); whole batches are run, all episodes have one length."""
    batch = min(batch, episodes)
    task = Counting(TrackConfig(split=split))
    env = make_env(task, load_robot(), None, num_envs=batch, seed=seed)
    obs, carry, out = env.reset(seed), policy.start(batch), []
    for _ in range(-(-episodes // batch)):
        task.inside = np.zeros(batch)
        for _ in range(env.max_steps):
            action, carry = policy.act(obs, carry)
            obs = env.step(action).obs
        out.append(task.inside / (env.max_steps - GRASPING * task.config.rate))
        carry = policy.start(batch)
    return np.concatenate(out)[:episodes]


class Counting(TrackTask):
    """The task of one environment, which counts."""

    inside: Array = np.zeros(0)
    """Control steps within the tolerances, (B,)."""

    def achieved(self, view: View) -> Array:
        """(B,) bool; see ``TrackTask.achieved``."""
        now = super().achieved(view)
        self.inside = self.inside + now
        return now


def summary(share: Array, *, seed: int = 0) -> dict[str, Any]:
    """Mean with its bootstrap 95 % interval, and quartiles."""
    draws = np.random.default_rng(seed).choice(share, (2000, len(share))).mean(axis=1)
    return {
        "episodes": len(share),
        "completion": float(share.mean()),
        "completion_interval": np.percentile(draws, (2.5, 97.5)).tolist(),
        "completion_p25_p50_p75": np.percentile(share, (25, 50, 75)).tolist(),
    }


def main() -> None:
    """Print, and with --json store, one row per policy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("policy", nargs="+", choices=sorted(scripted()))
    parser.add_argument("--episodes", type=int, default=300)
    parser.add_argument("--seed", type=int, default=2_000_000)
    parser.add_argument("--split", default="test")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = []
    for name in args.policy:
        share = completions(scripted()[name](), split=args.split, episodes=args.episodes, seed=args.seed)
        rows.append({"task": "track", "split": args.split, "policy": name, "seed": args.seed, **summary(share)})
        print(json.dumps(rows[-1]), flush=True)
    if args.json is not None:
        args.json.write_text(json.dumps({"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
