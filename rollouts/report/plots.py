"""Plots of a rollout as inline SVG whose colours follow the page, light or dark."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from palmar.rollouts import schema
from palmar.rollouts.audit import Audit
from palmar.rollouts.rollout import Rollout
from palmar.safety.types import CONTACT_PAIRS, State

Array = np.ndarray

# Colours no theme uses; each is replaced by a CSS variable of the page, so one SVG serves light and dark.
INK, FAINT, GRID, CARD = "#010203", "#010204", "#010205", "#010206"
SERIES = ("#010211", "#010212", "#010213", "#010214", "#010215")
BAD, WARN, GOOD = "#010221", "#010222", "#010223"
VARIABLES = {INK: "ink", FAINT: "faint", GRID: "grid", CARD: "card", BAD: "bad", WARN: "warn", GOOD: "good"}
VARIABLES |= {color: f"s{i + 1}" for i, color in enumerate(SERIES)}
STYLE = {
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": FAINT,
    "axes.titlesize": 9.5,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "text.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}
WIDTH = 10.4
"""Of every figure [in]; with 9 pt this makes the text of a plot as large as that of a table."""
LEAST_HEIGHT = 0.04
"""Smallest range of the height axis [m]."""
UNITS = {
    "joint_position": "rad",
    "joint_velocity": "rad/s",
    "joint_acceleration": "rad/s²",
    "joint_jerk": "rad/s³",
    "joint_torque": "N m",
    "self_clearance": "m",
    "table_clearance": "m",
    "workspace": "m",
    "contact_force": "N",
    "dropped_object": "m",
}
"""Unit of each margin function; others are shown without one."""
STATE_COLORS = {State.RUN: GOOD, State.HOLD: WARN, State.STOP: BAD, State.LATCHED: INK}


def _svg(name: str, size: tuple[float, float], draw: Callable[[Figure], None]) -> str:
    """``draw`` on a fresh figure, as SVG without prolog, metadata or names that clash with another plot's."""
    style: dict[Any, Any] = {**STYLE, "svg.hashsalt": name}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'(\bid="|url\(#|href="#)', lambda m: m[1] + name + "-", text)
    for color, variable in VARIABLES.items():
        text = text.replace(color, f"var(--{variable})")
    text = re.sub(r"'DejaVu Sans'[^;\"]*", "var(--font)", text)
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', 'class="plot" role="img"', text, count=1)


def thin(t: Array, y: Array, n: int = 600) -> tuple[Array, Array]:
    """At most about 2 n points that keep every peak: smallest and largest of each of n buckets, in order."""
    if len(t) <= 2 * n:
        return t, y
    edges = np.linspace(0, len(t), n + 1).astype(int)
    keep = []
    for a, b in zip(edges[:-1], edges[1:], strict=True):
        part = np.nan_to_num(y[a:b], nan=np.inf)
        keep += sorted({a + int(part.argmin()), a + int(np.nan_to_num(y[a:b], nan=-np.inf).argmax())})
    return t[keep], y[keep]


def bars(t: Array, where: Array, n: int = 500) -> list[tuple[float, float]]:
    """Begin and width of each stretch where ``where`` holds, at least 1/n of the whole wide to be seen.

    Stretches closer than 1/n of the whole are one: no more than n bars, and none is left out.
    """
    if not where.any():
        return []
    edge = np.diff(np.concatenate([[0], where.astype(np.int8), [0]]))
    begin, end = t[np.flatnonzero(edge == 1)], np.append(t[1:], t[-1:])[np.flatnonzero(edge == -1) - 1]
    least = float(t[-1] - t[0]) / n
    apart = np.flatnonzero(begin[1:] - end[:-1] > least)
    begin, end = begin[np.append(0, apart + 1)], end[np.append(apart, len(end) - 1)]
    return [(float(a), max(float(b - a), least)) for a, b in zip(begin, end, strict=True)]


def edited_joints(rollout: Rollout, n: int = 3) -> list[tuple[int, float]]:
    """The joints whose sent position differs most from the intended one, and by how much [rad]."""
    wanted, sent = rollout.intended, rollout.command
    if not len(wanted.t) or not len(sent.t):
        return []
    row = np.clip(np.searchsorted(sent.t, wanted.t, side="right") - 1, 0, None)
    size = np.abs(sent.u[row] - wanted.q).max(axis=0)
    return [(int(j), float(size[j])) for j in np.argsort(-size)[:n]]


def joints(rollout: Rollout, name: str) -> str:
    """Intended against sent for the joints that were edited most."""
    chosen, t0 = edited_joints(rollout), rollout.begin

    def draw(figure: Figure) -> None:
        rows = figure.subplots(len(chosen), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (j, size) in zip(rows, chosen, strict=True):
            axes.plot(*thin(rollout.command.t - t0, rollout.command.u[:, j]), color=SERIES[0], label="sent")
            axes.plot(
                *thin(rollout.intended.t - t0, rollout.intended.q[:, j]),
                color=SERIES[1],
                label="intended",
                linestyle=(0, (4, 2)),
            )
            axes.set_title(f"{rollout.header.robot.joints[j]} – up to {size:.3g} rad apart")
            axes.set_ylabel("rad")
        rows[0].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.1)
        rows[-1].set_xlabel("time [s]")

    return _svg(name, (WIDTH, 0.6 + 1.6 * len(chosen)), draw) if chosen else ""


def margins(audit: Audit, rollout: Rollout, name: str) -> str:
    """Margin of each constraint over time; violations shaded, below the zero line."""
    t0, columns = rollout.begin, 3
    n_rows = -(-len(audit.rows) // columns)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(n_rows, columns, sharex=True, squeeze=False).ravel()
        for axes, row in zip(grid, audit.rows, strict=False):
            across = axes.get_xaxis_transform()
            shaded = bars(audit.t - t0, row.violated)
            axes.broken_barh(shaded, (0, 1), transform=across, color=BAD, alpha=0.25, linewidth=0)
            if row.unknown < len(audit.t):
                axes.plot(*thin(audit.t - t0, row.margin), color=SERIES[0], linewidth=1.1)
            else:
                axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", color=FAINT)
            axes.axhline(0, color=BAD, linewidth=1)
            unit = UNITS.get(row.constraint.margin, "")
            axes.set_title(row.name.replace("_", " ") + (f" [{unit}]" if unit else ""))
            axes.locator_params(axis="y", nbins=4)
        for axes in grid[len(audit.rows) :]:
            axes.set_visible(False)
        for axes in grid[max(0, len(audit.rows) - columns) : len(audit.rows)]:
            axes.tick_params(labelbottom=True)
            axes.set_xlabel("time [s]")

    return _svg(name, (WIDTH, 1.6 * n_rows + 0.3), draw)


def contact(rollout: Rollout, audit: Audit, name: str) -> str:
    """Force of each named contact pair with the limits of the constraint file."""
    force, t0 = rollout.contact.force, rollout.begin
    if not len(force):
        return ""
    limits = [
        (str(r.constraint.params["pair"]), float(r.constraint.params["limit"]))
        for r in audit.rows
        if r.constraint.margin == "contact_force"
    ]
    # A logarithmic axis once the peak would flatten everything below the lowest limit.
    lowest = min((limit for _, limit in limits), default=1.0)
    logarithmic = float(np.nanmax(force, initial=0.0)) > 20 * lowest

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for k, pair in enumerate(CONTACT_PAIRS):
            y = force[:, k]
            axes.plot(
                *thin(rollout.contact.t - t0, np.maximum(y, 1e-2) if logarithmic else y),
                color=SERIES[k % len(SERIES)],
                label=pair.replace("_", " "),
            )
        for pair, limit in limits:
            axes.axhline(limit, color=BAD, linewidth=1, linestyle=(0, (4, 2)))
            axes.annotate(
                f"limit {pair.replace('_', ' ')} {limit:g} N",
                (0.995, limit),
                xycoords=("axes fraction", "data"),
                ha="right",
                va="center",
                color=BAD,
                fontsize=8,
                bbox={"facecolor": CARD, "edgecolor": "none", "pad": 1.5},
            )
        axes.set_xlim(0, rollout.duration)
        if logarithmic:
            axes.set_yscale("log")
        axes.set_ylabel("force [N]" + (", logarithmic" if logarithmic else ""))
        axes.set_xlabel("time [s]")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=5, borderaxespad=0.1, columnspacing=1.2)

    return _svg(name, (WIDTH, 3.0), draw)


def timeline(rollout: Rollout, name: str) -> str:
    """The filter's state, the ticks it changed, and the events."""
    v, t0 = rollout.verdicts, rollout.begin
    if not len(v.t):
        return ""
    marks = [e for e in rollout.events if e.name != "filter"]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for code, state in enumerate(schema.STATE_CODES):
            found = bars(v.t - t0, v.state == code)
            if found:
                axes.broken_barh(found, (1.6, 0.8), color=STATE_COLORS[state], label=state.value)
        axes.broken_barh(bars(v.t - t0, v.changed), (0.6, 0.8), color=SERIES[1])
        axes.plot([e.t - t0 for e in marks], [0.0] * len(marks), "v", color=BAD, markersize=5)
        axes.set_yticks([2.0, 1.0, 0.0], ["state", "changed", "events"])
        axes.set_ylim(-0.5, 2.7)
        axes.set_xlabel("time [s]")
        axes.grid(False)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, borderaxespad=0.1)

    return _svg(name, (WIDTH, 1.9), draw)


def heights(rollout: Rollout, name: str) -> str:
    """Height of each object's centre above the table."""
    t0, known = rollout.begin, {k: p for k, p in rollout.objects.items() if len(p.t)}

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for i, (label, poses) in enumerate(known.items()):
            axes.plot(
                *thin(poses.t - t0, poses.position[:, 2]),
                color=SERIES[i % len(SERIES)],
                linestyle="-" if i < len(SERIES) else ":",
                label=label,
            )
        axes.set_xlim(0, rollout.duration)
        low, high = axes.get_ylim()
        # An object settling by a tenth of a millimetre must not look like a fall.
        spare = max(0.0, LEAST_HEIGHT - (high - low)) / 2
        axes.set_ylim(low - spare, high + spare)
        axes.set_ylabel("height [m]")
        axes.set_xlabel("time [s]")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=5, borderaxespad=0.1)

    return _svg(name, (WIDTH, 2.5), draw) if known else ""
