"""What training says about every iteration, and its TensorBoard scalars."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from palmar.policies.evaluate import Evaluation


@dataclass(frozen=True)
class Report:
    """One iteration, for a progress bar, a stopping rule and the log."""

    iteration: int
    env_steps: int
    wall_s: float
    """Since the start of training, earlier sessions of a resumed run included [s]."""
    episodes: int
    """Whole episodes that ended in this iteration."""
    episode_return: float
    """Mean over those; NaN when there was none.  The same holds for the next two."""
    success: float
    """With exploration noise: far behind the deterministic one of ``evaluation``."""
    length: float
    """[control steps]"""
    costs: Mapping[str, float]
    """Mean cost of the newest ``cost_window`` episodes, exploration noise included; NaN before the first."""
    budgets: Mapping[str, float]
    """inf where there is none."""
    multipliers: Mapping[str, float]
    learner: Mapping[str, float]
    """kl, lr, std, clipped, epochs, losses."""
    seconds: Mapping[str, float]
    """env, inference, update and evaluate time of the iteration [s]."""
    fps: float
    """Environment steps per second of the iteration, evaluation excluded."""
    evaluation: Evaluation | None = None
    """Deterministic, where one was made in this iteration."""


class Progress(Protocol):
    """Told about every iteration; may draw, must not change anything."""

    def __call__(self, report: Report) -> None:
        """After an iteration."""
        ...


class Log:
    """TensorBoard scalars of a run."""

    def __init__(self, run_dir: Path):
        # Importing TensorBoard takes a second, and only training needs it.
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run_dir / "tensorboard"))

    def write(self, report: Report) -> None:
        """One iteration; x is the number of environment steps."""
        scalars = {"episode/return": report.episode_return, "episode/success": report.success}
        scalars |= {"episode/length": report.length, "time/fps": report.fps}
        scalars |= {f"learner/{k}": v for k, v in report.learner.items()}
        scalars |= {f"time/{k}_s": v for k, v in report.seconds.items()}
        for name, cost in report.costs.items():
            scalars |= {f"cost/{name}": cost, f"lambda/{name}": report.multipliers[name]}
            scalars |= {f"cost_to_budget/{name}": cost / report.budgets[name]} if report.budgets[name] > 0 else {}
        if report.evaluation is not None:
            scalars["evaluation/success"] = report.evaluation.success_rate
            means = report.evaluation.costs.mean(axis=0)
            scalars |= {f"evaluation/cost/{n}": m for n, m in zip(report.costs, means, strict=True)}
        for name, value in scalars.items():
            if np.isfinite(value):
                self._writer.add_scalar(name, value, report.env_steps)

    def close(self) -> None:
        """Flush."""
        self._writer.close()
