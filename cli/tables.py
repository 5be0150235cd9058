"""Results as tables on a terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from palmar.policies.evaluate import Evaluation
    from palmar.rollouts.audit import Audit


def evaluation(found: Evaluation) -> Table:
    """Cost of every constraint against its budget."""
    raw = found.to_json()
    low, high = raw["success_interval"]
    table = Table(
        title=f"{raw['successes']} of {raw['episodes']} succeeded: {100 * raw['success_rate']:.1f} % "
        f"[{100 * low:.1f}, {100 * high:.1f}]",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    for head in ("constraint", "mean cost", "95 %", "budget", "over budget", "worst margin"):
        table.add_column(head, justify="left" if head == "constraint" else "right", no_wrap=True)
    for name, row in raw["constraints"].items():
        within = row["budget"] is None or row["mean"] <= row["budget"]
        table.add_row(
            name.replace("_", " "),
            Text(f"{row['mean']:.4f}", style="green" if within else "red"),
            f"{row['interval'][0]:.4f} – {row['interval'][1]:.4f}",
            number(row["budget"]),
            f"{100 * row['over_budget']:.1f} %",
            number(row["worst_margin"]),
        )
    return table


def audit(found: Audit) -> Table:
    """What a run did to each constraint."""
    table = Table(box=None, pad_edge=False)
    for head in ("constraint", "worst margin", "cost", "budget", ""):
        table.add_column(head, justify="right" if head in ("worst margin", "cost", "budget") else "left")
    for row in found.rows:
        told = Text("within" if row.within_budget else "over", style="green" if row.within_budget else "red")
        if row.unknown == len(row.margin):
            told = Text("not recorded", style="yellow")
        if not row.enforced:
            told.append("  not enforced at runtime", style="dim")
        unit = row.constraint.unit
        table.add_row(
            row.constraint.name.replace("_", " "),
            number(row.worst),
            f"{row.cost:.4g} {unit}",
            f"{row.constraint.budget:.4g} {unit}",
            told,
        )
    return table


def number(value: Any) -> str:
    """Four digits; ``–`` for what is not known."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.4g}"
