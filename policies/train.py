"""The training loop around any learner: evaluations, checkpoints, logs, and when to stop.

What an algorithm does in an iteration is its own business: ``policies.algorithms``.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from palmar.policies.algorithms import find
from palmar.policies.evaluate import Evaluation
from palmar.policies.log import Log, Progress, Report
from palmar.policies.networks import MeanPolicy
from palmar.policies.rl import checkpoint
from palmar.policies.rl.config import TrainConfig
from palmar.policies.rl.episodes import Episodes, World
from palmar.policies.rl.learner import Learner, Space
from palmar.rollouts import provenance
from palmar.safety.config import plain
from palmar.safety.types import ConfigError


@dataclass(frozen=True)
class TrainResult:
    """What training leaves behind."""

    policy: MeanPolicy
    """The best policy evaluated in this session (see ``score``), or the last one without evaluations."""
    evaluation: Evaluation | None
    """Of that policy."""
    iterations: int
    env_steps: int
    wall_s: float
    stopped: str
    """'iterations', 'time limit' or 'stop_when'."""
    run: Mapping[str, Any] = field(default_factory=dict)
    """Contents of run.json."""

    def fingerprint(self) -> dict[str, Any]:
        """What a bundle stores about its training, plain JSON values."""
        done = {"iterations": self.iterations, "env_steps": self.env_steps, "wall_s": self.wall_s}
        numbers = self.evaluation.to_json() if self.evaluation is not None else None
        return {**self.run, **done, "stopped": self.stopped, "evaluation": numbers}


def train(
    env: Any,
    config: TrainConfig,
    *,
    run_dir: Path,
    evaluate: Callable[[MeanPolicy], Evaluation] | None = None,
    progress: Progress | None = None,
    stop_when: Callable[[Report], bool] | None = None,
    time_limit_s: float | None = None,
    resume: bool = False,
) -> TrainResult:
    """Train on ``env`` and leave checkpoints, TensorBoard scalars and ``run.json`` in ``run_dir``.

    Args:
        env: A vector environment of ``config.num_envs``; the budgets are those of ``env.constraints`` where
            it has one, replaced by ``config.budgets``.
        config: Everything about learning.
        run_dir: Made if needed.
        evaluate: Called with the deterministic policy every ``config.evaluate_every`` iterations and at the
            end; must use another environment than ``env``.
        progress: Called after every iteration.
        stop_when: Training ends when this is true of an iteration.
        time_limit_s: Wall time after which this session ends [s]; the last evaluation comes on top.
        resume: Go on from the newest checkpoint of ``run_dir`` where there is one.

    Raises:
        ConfigError: If environment, configuration or checkpoint do not fit, or ``run_dir`` holds another run.
    """
    if env.num_envs != config.num_envs:
        raise ConfigError(f"the environment has {env.num_envs} worlds, algo.num_envs is {config.num_envs}")
    torch.set_num_threads(config.threads)
    learner, done = _start(env, config, Path(run_dir), resume)
    run_json = _write_run(Path(run_dir), env, learner, done.env_seed)
    session = _Session(env, learner, done, evaluate, time_limit_s)
    log = Log(Path(run_dir))
    try:
        while not (stopped := session.finished()):
            report = session.iterate()
            log.write(report)
            if progress is not None:
                progress(report)
            if stop_when is not None and stop_when(report):
                stopped = "stop_when"
            if learner.iteration % config.checkpoint_every == 0 or stopped:
                checkpoint.save(Path(run_dir), learner, session.progressed())
            if stopped:
                break
        if _latest_differs(Path(run_dir), learner):
            checkpoint.save(Path(run_dir), learner, session.progressed())
    finally:
        log.close()
    policy, evaluation = session.best_policy()
    done = session.progressed()
    return TrainResult(policy, evaluation, learner.iteration, done.env_steps, done.wall_s, stopped, run_json)


def score(evaluation: Evaluation, budgets: np.ndarray, *, floor: float) -> float:
    """Success rate, less the relative overrun of each budget (at most 1 each); infinite ones never count."""
    finite = np.isfinite(budgets)
    over = (evaluation.costs.mean(axis=0) - budgets)[finite] / np.maximum(budgets[finite], floor)
    return evaluation.success_rate - float(np.clip(over, 0.0, 1.0).sum())


class _Session:
    """The moving parts of one session."""

    def __init__(
        self,
        env: Any,
        learner: Learner,
        done: checkpoint.Progressed,
        evaluate: Callable[[MeanPolicy], Evaluation] | None,
        time_limit_s: float | None,
    ):
        self.learner, self.before, self.evaluate = learner, done, evaluate
        self.limit, self.began = time_limit_s, time.perf_counter()
        self.world = World(env, done.env_seed)
        self.best: tuple[float, MeanPolicy, Evaluation] | None = None
        self._evaluated = -1

    def finished(self) -> str:
        """Why training is over, '' while it is not."""
        if self.learner.iteration >= self.learner.config.iterations:
            return "iterations"
        over = self.limit is not None and time.perf_counter() - self.began > self.limit
        return "time limit" if over else ""

    def iterate(self) -> Report:
        """Collect, update, and evaluate when it is time."""
        learner, world = self.learner, self.world
        steps, env_s, t0 = world.steps, world.env_s, time.perf_counter()
        learner.collect(world)
        episodes = world.pause()
        t1 = time.perf_counter()
        scalars = learner.update(episodes)
        t2 = time.perf_counter()
        evaluation = self._evaluate() if learner.iteration % learner.config.evaluate_every == 0 else None
        env_s = world.env_s - env_s
        seconds = {"env": env_s, "inference": t1 - t0 - env_s, "update": t2 - t1}
        seconds["evaluate"] = time.perf_counter() - t2
        return self._report(episodes, scalars, seconds, (world.steps - steps) / (t2 - t0), evaluation)

    def best_policy(self) -> tuple[MeanPolicy, Evaluation | None]:
        """The best evaluated policy, the last one evaluated too; without ``evaluate`` the last one."""
        if self.evaluate is not None and self._evaluated != self.learner.iteration:
            self._evaluate()
        return self.best[1:] if self.best is not None else (self.learner.policy(), None)

    def progressed(self) -> checkpoint.Progressed:
        """For the checkpoint."""
        wall = self.before.wall_s + time.perf_counter() - self.began
        return checkpoint.Progressed(self.before.env_steps + self.world.steps, wall, self.before.env_seed)

    def _evaluate(self) -> Evaluation | None:
        if self.evaluate is None:
            return None
        learner, policy = self.learner, self.learner.policy()
        evaluation, self._evaluated = self.evaluate(policy), learner.iteration
        if evaluation.constraint_names != learner.names:
            raise ConfigError(f"evaluated {evaluation.constraint_names}, trained with {learner.names}")
        # Where nothing aims at the budgets the best policy is the most successful one.
        limits = learner.budgets if learner.constrained else np.full_like(learner.budgets, np.inf)
        value = score(evaluation, limits, floor=learner.config.budget_floor)
        if self.best is None or value >= self.best[0]:
            self.best = (value, policy, evaluation)
        return evaluation

    def _report(
        self,
        episodes: Episodes,
        scalars: dict[str, float],
        seconds: dict[str, float],
        fps: float,
        evaluation: Evaluation | None,
    ) -> Report:
        learner, done = self.learner, self.progressed()

        def named(values: np.ndarray) -> dict[str, float]:
            return dict(zip(learner.names, map(float, values), strict=True))

        return Report(
            iteration=learner.iteration,
            env_steps=done.env_steps,
            wall_s=done.wall_s,
            episodes=len(episodes.returns),
            episode_return=_mean(episodes.returns),
            success=_mean(episodes.success),
            length=_mean(episodes.lengths),
            costs=named(learner.window.mean()),
            budgets=named(learner.budgets),
            multipliers=named(learner.weights()),
            learner=scalars,
            seconds=seconds,
            fps=fps,
            evaluation=evaluation,
        )


def _latest_differs(run_dir: Path, learner: Learner) -> bool:
    """Whether the newest checkpoint is not of the learner's iteration."""
    newest = checkpoint.latest(run_dir)
    return newest is None or int(newest.name) != learner.iteration


def _start(env: Any, config: TrainConfig, run_dir: Path, resume: bool) -> tuple[Learner, checkpoint.Progressed]:
    learner = find.load(config.algorithm).learner(config, Space.of(env, config.budgets))
    newest = checkpoint.latest(run_dir)
    if newest is not None and not resume:
        raise ConfigError(f"{run_dir} already holds a run; resume it or choose another directory")
    if newest is None:
        return learner, checkpoint.Progressed(0, 0.0, _env_seed(config.seed, 0))
    done = checkpoint.restore(newest, learner)
    seed = _env_seed(config.seed, learner.iteration)
    return learner, checkpoint.Progressed(done.env_steps, done.wall_s, seed)


def _env_seed(seed: int, iteration: int) -> int:
    """A seed per session: a resumed run must not see its first episodes again."""
    return int(np.random.SeedSequence([seed, iteration]).generate_state(1)[0])


def _write_run(run_dir: Path, env: Any, learner: Learner, env_seed: int) -> dict[str, Any]:
    """``run.json``: everything needed to make this run again."""
    constraints = getattr(env, "constraints", None)
    budgets = {n: float(b) if np.isfinite(b) else None for n, b in zip(learner.names, learner.budgets, strict=True)}
    raw = {
        "config": plain(learner.config),
        "budgets": budgets,
        "seed": learner.config.seed,
        "env_seed": env_seed,
        "constraint_hash": constraints.hash() if constraints is not None else None,
        "git": provenance.git_state(),
        "versions": provenance.versions(),
    }
    run_dir.mkdir(parents=True, exist_ok=True)
    part = run_dir / "run.json.part"
    part.write_text(json.dumps(raw, indent=1))
    os.replace(part, run_dir / "run.json")
    return raw


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
