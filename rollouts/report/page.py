"""One self-contained page about one or more rollouts: opens offline, in any browser, years later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from palmar.rollouts.audit import Audit
from palmar.rollouts.replay import Replay
from palmar.rollouts.report import parts, run
from palmar.rollouts.report.video import Video, VideoConfig, render
from palmar.rollouts.rollout import Rollout
from palmar.safety.types import ConfigError

# Nothing may be loaded from anywhere, whatever a rollout's texts contain.
POLICY = "; ".join(("default-src 'none'", "style-src 'unsafe-inline'", "script-src 'unsafe-inline'", "media-src data:"))
SCRIPT = """
document.addEventListener("click", (event) => {
  const button = event.target.closest("button.seek");
  if (!button) return;
  const video = document.getElementById(button.dataset.video);
  video.pause();
  video.currentTime = Math.max(0, Number(button.dataset.t));
  video.scrollIntoView({ behavior: "smooth", block: "center" });
});
"""


@dataclass(frozen=True)
class Summary:
    """What the page is about, beyond what the files say."""

    title: str = ""
    """'' takes the task of the first rollout."""
    text: str = ""
    """A paragraph by whoever made the runs."""
    latency: Mapping[str, float] = field(default_factory=dict)
    """Measured latencies by name [s], for example ``{"intent to robot, p99": 0.0021}``."""
    commands: Sequence[str] = ()
    """Commands that make these runs and this page again."""


def write_report(
    path_html: str | Path,
    rollouts: Sequence[Rollout],
    audits: Sequence[Audit],
    *,
    summary: Summary,
    comparisons: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    replays: Sequence[Replay | None] | None = None,
    video: VideoConfig | None = None,
    max_videos: int = 3,
) -> Path:
    """Write the page and return its path.

    Args:
        path_html: Where; replaced if it exists.
        rollouts: At least one, each with at least one audited sample.
        audits: ``audit`` of each rollout.
        summary: Title, text, latencies and commands.
        comparisons: Tables of side-by-side evaluations by title; a row is a mapping from column to value.
        replays: ``replay`` of each rollout, None where it was not replayed.
        video: How to render; the default is 704 x 396 at 20 frames per second.
        max_videos: Rollouts rendered, the first ones; rendering is what takes time.

    Raises:
        ConfigError: If the numbers of rollouts, audits and replays differ or are zero.
    """
    replays = [None] * len(rollouts) if replays is None else list(replays)
    if not rollouts or not len(rollouts) == len(audits) == len(replays):
        raise ConfigError(
            f"need as many audits and replays as rollouts and at least one, got {len(rollouts)} rollouts, "
            f"{len(audits)} audits, {len(replays)} replays"
        )
    config = video or VideoConfig()
    skipped = Video(None, reason=f"only the first {max_videos} rollouts of this page are rendered")
    films = [render(r, config) if i < max_videos else skipped for i, r in enumerate(rollouts)]
    sections = [
        _section(i, rollout, audit, replay, film, alone=len(rollouts) == 1)
        for i, (rollout, audit, replay, film) in enumerate(zip(rollouts, audits, replays, films, strict=True))
    ]
    body = [
        _header(rollouts, audits, summary),
        _overview(rollouts, audits) if len(rollouts) > 1 else "",
        *sections,
        _comparisons(comparisons or {}),
        _commands(summary),
    ]
    target = Path(path_html)
    target.write_text(_document(summary.title or rollouts[0].header.task, "".join(body)), encoding="utf-8")
    return target


def _document(title: str, body: str) -> str:
    style = files("palmar.rollouts.report").joinpath("style.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)} – Palmar rollout report</title><style>{style}</style></head>"
        f"<body><main>{body}<p class='note' style='margin-top:40px'>Palmar is not safety-rated. "
        "This page reports what was recorded, nothing more.</p></main>"
        f"<script>{SCRIPT}</script></body></html>\n"
    )


def _header(rollouts: Sequence[Rollout], audits: Sequence[Audit], summary: Summary) -> str:
    first = rollouts[0]
    head = first.header
    title = summary.title or head.task.replace("_", " ").capitalize()
    told = f"<p>{escape(summary.text)}</p>" if summary.text else ""
    asked = f"<p class='lead'>“{escape(head.instruction)}”</p>" if head.instruction else ""
    kicker = f"Palmar rollout report · task {head.task} · robot {head.robot.name} · scene {head.scene or '–'}"
    happened = f"<p>{escape(run.sentence(first, audits[0]))}</p>" if len(rollouts) == 1 else ""
    numbers = run.tiles(first, audits[0]) if len(rollouts) == 1 else []
    numbers += [parts.tile(name, parts.seconds(s)) for name, s in summary.latency.items()]
    return (
        f'<header><div class="kicker">{escape(kicker)}</div><h1>{escape(title)}</h1>{asked}{told}{happened}'
        f"</header>{parts.tiles(numbers)}"
    )


def _overview(rollouts: Sequence[Rollout], audits: Sequence[Audit]) -> str:
    heads = [("Rollout", ""), ("Outcome", ""), ("Duration", "num"), ("Filter intervened", "num")]
    heads += [("Constraints violated", ""), ("Over budget", "")]
    rows = []
    for i, (rollout, audit) in enumerate(zip(rollouts, audits, strict=True)):
        word, tone = run.SIGNS[rollout.success]
        over = ", ".join(r.name.replace("_", " ") for r in audit.rows if not r.within_budget)
        rows.append(
            [
                f'<a href="#run{i}">{escape(rollout.path.stem)}</a>',
                parts.pill(word, tone),
                parts.seconds(rollout.duration),
                parts.seconds(run.changed_s(rollout)),
                escape(", ".join(n.replace("_", " ") for n in audit.violated) or "none"),
                escape(over or "none"),
            ]
        )
    return f'<h2>Rollouts</h2><div class="card">{parts.table(heads, rows)}</div>'


def _comparisons(tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    if not tables:
        return ""
    cards = [
        f'<div class="card"><h3>{escape(title)}</h3>{parts.comparison(rows)}</div>' for title, rows in tables.items()
    ]
    return "<h2>Comparisons</h2>" + "".join(cards)


def _section(i: int, rollout: Rollout, audit: Audit, replay: Replay | None, film: Video, *, alone: bool) -> str:
    key = f"run{i}"
    intro = ""
    if not alone:
        intro = f'<h2 id="{key}">{escape(rollout.path.stem)}</h2><p>{escape(run.sentence(rollout, audit))}</p>'
        intro += parts.tiles(run.tiles(rollout, audit))
    size = "h2" if alone else "h3"
    return (
        intro
        + run.film(film, key)
        + f"<{size}>Constraints</{size}>"
        + run.constraints(audit, rollout, key, film.mp4 is not None)
        + run.figures(rollout, audit, key)
        + run.events(rollout)
        + f"<{size}>Provenance</{size}>"
        + run.provenance(rollout, replay)
    )


def _commands(summary: Summary) -> str:
    if not summary.commands:
        return ""
    lines = escape("\n".join(summary.commands))
    return f'<div class="card"><h3>Make it again</h3><pre>{lines}</pre></div>'
