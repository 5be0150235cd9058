"""One policy on every engine: success and every cost as distributions over the same unseen episodes.

The shipped ``lift`` bundle and a ``reach`` bundle (of ``palmar bench isaaclab``), each engine with the same seed,
split, constraint file and number of worlds, so that the first episodes begin alike; noise and later episodes are drawn
anew.

Said before the run: two engines differ in a channel where a two-sample Kolmogorov-Smirnov test, by permutation, is
below 0.05 after Holm's correction over the channels of a task and pair; in success where the 95 % interval of the
difference leaves out 0.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from palmar.policies.bundle import BundlePolicy, load_bundle
from palmar.policies.evaluate import Evaluation, evaluate
from palmar.safety.constraints import ConstraintSet, load
from palmar.safety.robot import RobotModel
from palmar.safety.types import ConfigError
from palmar.sim.robots import load_robot
from palmar.sim.tasks.lift import LiftConfig, LiftTask
from palmar.sim.tasks.reach import ReachConfig, ReachTask

Array = np.ndarray
SEED = 5_000_000
"""Of no training and no other evaluation."""
ENGINES = ("mujoco", "mujoco_warp", "isaaclab")
TASKS = {"lift": lambda: LiftTask(LiftConfig()), "reach": lambda: ReachTask(ReachConfig())}
LEVEL = 0.05
QUANTILES = (50, 90, 95, 100)


def bundles() -> dict[str, Path]:
    """Where the policy of each task lies."""
    return {"lift": Path(str(files("palmar.assets"))) / "bundles" / "lift", "reach": Path("runs/isaac_reach/bundle")}


def run(
    *,
    episodes: int = 300,
    worlds: int = 60,
    tasks: Sequence[str] = tuple(TASKS),
    engines: Sequence[str] = ENGINES,
    progress: Callable[..., None] | None = None,
) -> dict[str, Any]:
    """``episodes`` of every task on every engine, and each pair of engines compared."""
    for name, asked, known in (("task", tasks, TASKS), ("engine", engines, ENGINES)):
        if strange := set(asked) - set(known):
            raise ConfigError(f"unknown {name} {sorted(strange)}, accepted are {sorted(known)}")
    robot = load_robot()
    held = load(Path(str(files("palmar.configs"))) / "constraints" / "arm_hand.yaml", robot.limits)
    rows: list[dict[str, Any]] = []
    pairs: list[dict[str, Any]] = []
    for task in tasks:
        bundle, found = load_bundle(bundles()[task]), dict[str, Evaluation]()
        for engine in engines:
            if progress is not None:
                progress(task, engine)
            with Closing(_environment(engine, TASKS[task](), robot, held, min(worlds, episodes))) as env:
                found[engine] = evaluate(env, BundlePolicy(bundle), episodes=episodes, seed=SEED)
            rows.append(_row(task, engine, found[engine]))
        pairs += [_pair(task, (a, b), found) for a, b in combinations(found, 2)]
    return {"name": "engines", "seed": SEED, "worlds": worlds, "rows": rows, "pairs": pairs}


class Closing:
    """Closes an environment that can be closed."""

    def __init__(self, env: Any):
        self.env = env

    def __enter__(self) -> Any:
        """The environment."""
        return self.env

    def __exit__(self, *told: object) -> None:
        """Close it."""
        getattr(self.env, "check", lambda: None)()
        getattr(self.env, "close", lambda: None)()


def _environment(engine: str, task: Any, robot: RobotModel, held: ConstraintSet, worlds: int) -> Any:
    if engine == "mujoco":
        from palmar.sim.env import make_env

        return make_env(task, robot, held, num_envs=worlds, seed=SEED)
    if engine == "mujoco_warp":
        from palmar.sim.device.env import make_device_env
        from palmar.sim.engines.warp_config import WarpConfig

        return make_device_env(task, robot, held, num_envs=worlds, seed=SEED, config=WarpConfig(device="auto"))
    from palmar.sim.engines import isaaclab_client

    return isaaclab_client.make_env(task, robot, held, num_envs=worlds, seed=SEED)


def _row(task: str, engine: str, found: Evaluation) -> dict[str, Any]:
    """The summary of ``Evaluation``, quantiles of every cost, and the episodes themselves."""
    names = found.constraint_names
    quantiles = np.percentile(found.costs, QUANTILES, axis=0)
    return {
        "task": task, "engine": engine, **found.to_json(),
        "cost_quantiles": {n: dict(zip(map(str, QUANTILES), quantiles[:, k].round(4).tolist(), strict=True))
                           for k, n in enumerate(names)},
        "every": {"success": found.success.astype(int).tolist(), "return": found.returns.round(3).tolist(),
                  "cost": {n: found.costs[:, k].round(4).tolist() for k, n in enumerate(names)}},
    }  # fmt: skip


def _pair(task: str, names: tuple[str, str], found: Mapping[str, Evaluation]) -> dict[str, Any]:
    a, b = (found[name] for name in names)
    rng = np.random.default_rng(0)
    draws = [rng.choice(b.success, b.episodes).mean() - rng.choice(a.success, a.episodes).mean() for _ in range(4000)]
    tests = {"return": ks(a.returns, b.returns)}
    tests |= {name: ks(a.costs[:, k], b.costs[:, k]) for k, name in enumerate(a.constraint_names)}
    return {
        "task": task, "pair": " - ".join(names),
        "success": [b.success_rate - a.success_rate, *(float(p) for p in np.percentile(draws, (2.5, 97.5)))],
        "ks": {name: {"statistic": d, "p": p} for name, (d, p) in tests.items()},
        "differ": holm({name: p for name, (_, p) in tests.items()}),
    }  # fmt: skip


def ks(x: Array, y: Array, *, resamples: int = 4000, seed: int = 0) -> tuple[float, float]:
    """Largest distance between two empirical distributions, and its p-value by permutation (ties allowed)."""
    both, n = np.concatenate([x, y]), len(x)
    grid, place = np.unique(both, return_inverse=True)

    def distance(first: Array) -> float:
        one = np.bincount(place[first], minlength=len(grid)).cumsum() / n
        two = np.bincount(place[~first], minlength=len(grid)).cumsum() / (len(both) - n)
        return float(np.abs(one - two).max())

    rng, mark = np.random.default_rng(seed), np.arange(len(both)) < n
    found = distance(mark)
    beyond = sum(distance(rng.permutation(mark)) >= found - 1e-12 for _ in range(resamples))
    return found, (beyond + 1) / (resamples + 1)


def holm(p: Mapping[str, float], *, level: float = LEVEL) -> list[str]:
    """Names that are below ``level`` after Holm's correction."""
    out: list[str] = []
    for k, name in enumerate(sorted(p, key=lambda name: p[name])):
        if p[name] * (len(p) - k) >= level:
            break
        out.append(name)
    return out


def main() -> None:
    """From the command line: ``python -m palmar.benchmarks.engines FILE.json [episodes]``."""
    from palmar.cli import provenance

    out, episodes = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 300
    found = run(episodes=episodes, progress=lambda *words: print(*words, flush=True))
    provenance.write(out, {**found, "record": provenance.run_record({"bench": "engines", "episodes": episodes}, None)})
    for row in found["rows"]:
        print(row["task"], row["engine"], f"{row['successes']} of {row['episodes']}")
    for pair in found["pairs"]:
        print(pair["task"], pair["pair"], [round(x, 3) for x in pair["success"]], "differ:", pair["differ"])


if __name__ == "__main__":
    main()
