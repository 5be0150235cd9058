"""What training looks like while it runs: success, costs against budgets, multipliers, speed, time left."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from palmar.policies.evaluate import Evaluation
    from palmar.policies.log import Report

WIDTH = 24


class Display:
    """A live page on a terminal; a line per evaluation elsewhere.  Use as a context and as ``progress``."""

    def __init__(self, title: str, *, iterations: int, time_limit_s: float | None, console: Console | None = None):
        self._title, self._iterations, self._limit = title, iterations, time_limit_s
        self._console = console or Console(stderr=True)
        self._live = Live(console=self._console, refresh_per_second=4) if self._console.is_terminal else None
        self._evaluation: Evaluation | None = None
        self._first: tuple[int, float] | None = None

    def __enter__(self) -> Display:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, report: Report) -> None:
        """Show an iteration."""
        self._first = self._first or (report.iteration - 1, report.wall_s)
        self._evaluation = report.evaluation or self._evaluation
        if self._live is not None:
            self._live.update(self._page(report))
        elif report.evaluation is not None or report.iteration == 1:
            self._console.print(self._line(report), highlight=False, soft_wrap=True)

    def left(self, report: Report) -> float:
        """Time until training ends, at the speed so far [s]."""
        if self._first is None:
            return math.nan
        begun, clock = self._first
        done, spent = report.iteration - begun, report.wall_s - clock
        # The first report opens the clock, so it tells no speed yet.
        pace = spent / (done - 1) if done > 1 else math.nan
        whole = (self._iterations - report.iteration) * pace
        return whole if self._limit is None else min(whole, max(self._limit - report.wall_s, 0.0))

    def _head(self, report: Report) -> str:
        return (
            f"{self._title}  {report.iteration}/{self._iterations}  {report.env_steps:,} steps  "
            f"{report.fps:,.0f} steps/s  {clock(report.wall_s)} gone, {clock(self.left(report))} left"
        )

    def _success(self, report: Report) -> str:
        told = f"{_percent(report.success)} exploring"
        if self._evaluation is not None:
            told += f", {_percent(self._evaluation.success_rate)} evaluated"
        return told

    def _line(self, report: Report) -> str:
        over = [
            f"{name} {cost:.3g}/{report.budgets[name]:.3g}"
            for name, cost in report.costs.items()
            if cost > report.budgets[name]
        ]
        return f"{self._head(report)}  success {self._success(report)}  over budget: {', '.join(over) or 'none'}"

    def _page(self, report: Report) -> Group:
        success = self._evaluation.success_rate if self._evaluation is not None else report.success
        table = Table(box=None, pad_edge=False)
        for head in ("", "", "cost", "budget", "λ"):
            table.add_column(head, justify="right" if head in ("cost", "budget", "λ") else "left")
        table.add_row("success", bar(success, 1.0, good="green", bad="green"), self._success(report), "", "")
        for name, cost in report.costs.items():
            budget, multiplier = report.budgets[name], report.multipliers.get(name, 0.0)
            told = "–" if math.isnan(cost) else f"{cost:.3f}"
            limit = "–" if math.isinf(budget) else f"{budget:.3f}"
            row = bar(cost, budget, good="cyan", bad="red")
            table.add_row(name.replace("_", " "), row, told, limit, f"{multiplier:.2f}" if multiplier else "")
        return Group(Text(self._head(report), style="bold"), table)


def bar(value: float, full: float, *, good: str, bad: str) -> ProgressBar:
    """``value`` against ``full``; full and coloured ``bad`` beyond it."""
    known = not math.isnan(value) and math.isfinite(full)
    over = known and value > full
    share = 0.0 if not known else 1.0 if over else value / full if full > 0 else 0.0
    colour = bad if over else good
    return ProgressBar(total=1.0, completed=share, width=WIDTH, complete_style=colour, finished_style=colour)


def clock(seconds: float) -> str:
    """Minutes and seconds; ``–`` for what is not known."""
    if not math.isfinite(seconds):
        return "–"
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.0f} %"
