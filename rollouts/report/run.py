"""The part of a report about one rollout."""

from __future__ import annotations

import base64
import json
from html import escape

import numpy as np

from palmar.rollouts import schema
from palmar.rollouts.audit import Audit, ConstraintAudit, disagreement
from palmar.rollouts.replay import Replay
from palmar.rollouts.report import parts, plots
from palmar.rollouts.report.video import Video
from palmar.rollouts.rollout import Event, Rollout
from palmar.safety.types import CONTACT_PAIRS, State

MOST_EVENTS = 200
SIGNS = {True: ("succeeded", "good"), False: ("did not succeed", "bad"), None: ("not judged", "")}


def changed_s(rollout: Rollout) -> float:
    """Time during which the filter changed the command [s]."""
    return float(rollout.verdicts.changed.sum()) * rollout.header.control_dt


def stopped_s(rollout: Rollout) -> float:
    """Time during which the filter was not in RUN [s]."""
    run = schema.STATE_CODES.index(State.RUN)
    return float((rollout.verdicts.state != run).sum()) * rollout.header.control_dt


def sentence(rollout: Rollout, audit: Audit) -> str:
    """What happened, in plain words."""
    total = rollout.duration
    said = [f"The run {SIGNS[rollout.success][0]} after {parts.seconds(total)}."]
    if len(rollout.verdicts.t):
        share = 100 * rollout.verdicts.changed.mean()
        said.append(
            f"The filter changed the command for {parts.seconds(changed_s(rollout))} ({share:.1f} % of the "
            f"ticks) and was not following the policy for {parts.seconds(stopped_s(rollout))}."
        )
    else:
        said.append("No filter was recorded.")
    over = [row.name.replace("_", " ") for row in audit.rows if not row.within_budget]
    count = len(audit.violated)
    if not count:
        said.append("No recorded sample violates a constraint.")
    else:
        what = "constraint is" if count == 1 else "constraints are"
        said.append(f"{count} of {len(audit.rows)} {what} violated at some time; ")
        said[-1] += f"over budget: {', '.join(over)}." if over else "all of them within budget."
    blind = [row.name.replace("_", " ") for row in audit.rows if row.unknown == len(audit.t)]
    if blind:
        said.append(f"Nothing is known about {', '.join(blind)}: not recorded.")
    if not rollout.complete:
        said.append(f"The file was cut off and recovered ({rollout.damage or 'no result written'}).")
    return " ".join(said)


def tiles(rollout: Rollout, audit: Audit) -> list[str]:
    """Headline numbers."""
    out = [parts.tile("Outcome", *_outcome(rollout))]
    if len(rollout.verdicts.t):
        share = f"{100 * rollout.verdicts.changed.mean():.1f} % of ticks, largest edit "
        share += f"{parts.number(float(np.nanmax(rollout.verdicts.edit)))} rad/s²"
        out.append(parts.tile("Filter intervened", parts.seconds(changed_s(rollout)), share))
    if rollout.verdicts.compute_s.any():
        p50, p99 = np.quantile(rollout.verdicts.compute_s, [0.5, 0.99])
        most = parts.seconds(float(rollout.verdicts.compute_s.max()))
        out.append(parts.tile("Filter tick, p99", parts.seconds(p99), f"median {parts.seconds(p50)}, largest {most}"))
    count = len(audit.violated)
    names = ", ".join(n.replace("_", " ") for n in audit.violated)
    value = f"{count} of {len(audit.rows)}"
    out.append(parts.tile("Constraints violated", value, names, "bad" if count else "good"))
    force = rollout.contact.force
    if len(force):
        pair = int(np.nanmax(force, axis=0).argmax())
        name = CONTACT_PAIRS[pair].replace("_", " ")
        peak = float(np.nanmax(force))
        out.append(parts.tile("Peak contact force", f"{parts.number(peak)} N", name if peak > 0 else "no contact"))
    return out


def _outcome(rollout: Rollout) -> tuple[str, str, str]:
    word, tone = {True: ("Success", "good"), False: ("Failure", "bad"), None: ("Not judged", "warn")}[rollout.success]
    return word, f"{parts.seconds(rollout.duration)} recorded", tone


def film(video: Video, key: str) -> str:
    """The video, or why there is none."""
    if video.mp4 is None:
        return (
            '<div class="card"><h3>Video</h3><div class="absent"><strong>No video in this report.</strong> '
            f"{escape(video.reason)}. Everything else on this page is complete.</div></div>"
        )
    data = base64.b64encode(video.mp4).decode()
    return (
        f'<div class="card"><video id="{key}-video" controls muted loop playsinline preload="auto" '
        f'src="data:video/mp4;base64,{data}"></video><p class="note" style="margin:8px 0 0">Rendered after '
        f"the run from its recorded physics states ({escape(video.backend.upper())}).</p></div>"
    )


def constraints(audit: Audit, rollout: Rollout, key: str, has_video: bool) -> str:
    """The table of constraints."""
    heads = [("Constraint", ""), ("Signal", ""), ("Source", ""), ("At runtime", ""), ("Worst margin", "num")]
    heads += [("Cost", "num"), ("Budget", "num"), ("", "")]
    t0 = rollout.begin
    rows = [_constraint(row, len(audit.t), t0, key if has_video else "") for row in audit.rows]
    return f'<div class="card">{parts.table(heads, rows)}{_table_note(audit, rollout)}</div>'


def _constraint(row: ConstraintAudit, total: int, t0: float, key: str) -> list[str]:
    c, unknown = row.constraint, row.unknown == total
    unit = plots.UNITS.get(c.margin, "")
    worst = "–" if unknown else f"{parts.number(row.worst)} {unit}"
    if not unknown:
        at = row.worst_t - t0
        when = f"at {at:.2f} s"
        worst += f"<small>{_seek(key, at, when)}</small>"
    marks = []
    if unknown:
        marks.append(parts.pill("not recorded", "warn"))
    elif not row.within_budget:
        marks.append(parts.pill("over budget", "bad"))
    elif row.violated.any():
        marks.append(parts.pill("violated, within budget", "warn"))
    else:
        marks.append(parts.pill("never violated", "good"))
    if 0 < row.unknown < total:
        marks.append(parts.pill(f"{row.unknown} samples not recorded", "warn"))
    if not row.enforced:
        marks.append(parts.pill("not enforced at runtime"))
    params = ", ".join(f"{k} {v}" for k, v in c.params.items())
    return [
        f"<strong>{escape(c.name.replace('_', ' '))}</strong><small>{escape(params)}</small>",
        escape(c.signal),
        escape(c.source) + (f"<small>± {c.error:g} {unit}</small>" if c.error else ""),
        escape(c.runtime),
        worst,
        "–" if unknown else f"{row.cost:.3g} {c.unit}",
        f"{c.budget:g} {c.unit}",
        "".join(marks),
    ]


def _seek(key: str, at: float, text: str) -> str:
    if not key:
        return escape(text)
    return f'<button class="seek" data-video="{key}-video" data-t="{at:.3f}">{escape(text)}</button>'


def _table_note(audit: Audit, rollout: Rollout) -> str:
    said = [
        "A margin is the distance to a violation; below zero is violated. The filter makes a claim only for "
        "hard rows from a measured source; every other constraint is marked as not enforced at runtime.",
        f"Samples stand for {parts.seconds(audit.dt)} each; the longest gap between two is "
        f"{parts.seconds(audit.longest_gap)}, and what happened inside it was not seen.",
    ]
    wrong = {k: n for k, n in disagreement(audit, rollout).items() if n}
    if not audit.same_constraints:
        said.append("This is not the constraint file that was in force during the run.")
    elif len(rollout.verdicts.t) and wrong:
        listed = ", ".join(f"{k.replace('_', ' ')} ({n} ticks)" for k, n in wrong.items())
        said.append(f"The filter's own margins name other violations than this audit for: {listed}.")
    elif not np.isnan(rollout.verdicts.margins).all():
        said.append("The filter's own margins, where recorded, name the same violated samples as this audit.")
    return f'<p class="note" style="margin-top:12px">{escape(" ".join(said))}</p>'


def figures(rollout: Rollout, audit: Audit, key: str) -> str:
    """All plots."""
    return "".join(
        (
            parts.figure(
                plots.timeline(rollout, f"{key}-timeline"),
                "What the filter did",
                "Its state, the ticks at which the sent command differs from the intended one, and events.",
            ),
            parts.figure(
                plots.joints(rollout, f"{key}-joints"),
                "Intended and sent",
                "Commanded position of the joints that were edited most.",
            ),
            parts.figure(
                plots.margins(audit, rollout, f"{key}-margins"),
                "Margins",
                "Distance to a violation over time; red is violated. Thinning keeps every peak.",
            ),
            parts.figure(
                plots.contact(rollout, audit, f"{key}-contact"),
                "Contact forces",
                "Of the named pairs, with the limits of the constraint file.",
            ),
            parts.figure(plots.heights(rollout, f"{key}-heights"), "Objects", "Height of each object's centre."),
        )
    )


def events(rollout: Rollout) -> str:
    """The log, folded."""
    found = rollout.events
    if not found:
        return ""
    t0 = rollout.begin
    tones = {"error": "bad", "warn": "warn", "ok": "good"}
    rows = [
        [f"{e.t - t0:.3f}", parts.pill(e.level, tones.get(e.level, "")), escape(e.name), _detail(e)]
        for e in found[:MOST_EVENTS]
    ]
    heads = [("Time [s]", "num"), ("Level", ""), ("Name", ""), ("Detail", "")]
    more = f"<p class='note'>The first {MOST_EVENTS} of them.</p>" if len(found) > MOST_EVENTS else ""
    title = f"{len(found)} event{'s' if len(found) != 1 else ''}"
    return f'<details class="card"><summary>{title}</summary>{parts.table(heads, rows)}{more}</details>'


def _detail(event: Event) -> str:
    values = ", ".join(f"{k} {v}" for k, v in event.values.items())
    return escape(event.detail) + (f"<small>{escape(values)}</small>" if values else "")


def provenance(rollout: Rollout, replay: Replay | None) -> str:
    """Where the numbers come from and how to get them again."""
    head = rollout.header
    git = f"{head.git.get('commit') or 'not known'}" + (" with local changes" if head.git.get("dirty") else "")
    code = {
        "File": rollout.path.name,
        "Robot": f"{head.robot.name}, {head.robot.hash()}",
        "Constraints": f"{head.constraint_set().name}, {head.constraint_set().hash()}",
        "Model": head.model_hash or "not taken",
        "Commit": git,
        "Engine": " ".join((head.engine, head.versions.get(head.engine, ""))).strip() or "not known",
        "Versions": ", ".join(f"{k} {v}" for k, v in head.versions.items()) or "not known",
        "Seeds": ", ".join(f"{k} {v}" for k, v in {"run": head.seed, **head.noise_seeds}.items()),
        "Physics step": "none" if head.physics_dt is None else parts.seconds(head.physics_dt),
        "Command": head.command or "not recorded",
    }
    items = {k: f"<code>{escape(str(v))}</code>" for k, v in code.items()}
    if replay is not None:
        items["Replay"] = escape(replayed(replay))
    config = escape(json.dumps(head.config, indent=2, sort_keys=True))
    folded = f"<details style='margin-top:12px'><summary>Configuration</summary><pre>{config}</pre></details>"
    return f'<div class="card">{parts.pairs(items)}{folded if head.config else ""}</div>'


def replayed(replay: Replay) -> str:
    """Outcome of a replay in words."""
    if replay.first is None:
        return f"bit-equal: {replay.compared} states over {replay.steps} steps, with {replay.engine_used}"
    first = replay.first
    why = "; the model compiled now is not the one that ran" if replay.model_differs else ""
    return (
        f"departs at step {first.step} ({first.t:.3f} s) in {first.quantity} by {first.size:.3g}, at most "
        f"{replay.largest:.3g} later; recorded with {replay.engine_recorded}, replayed with "
        f"{replay.engine_used}{why}"
    )
