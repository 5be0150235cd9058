"""Show a rollout in the Rerun viewer: an option, needs the extra ``viewer``."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from palmar.rollouts.audit import Audit
from palmar.rollouts.rollout import Rollout
from palmar.safety.types import CONTACT_PAIRS, PalmarError


class ViewerMissing(PalmarError):
    """The extra that holds the viewer is not installed."""


def _rerun() -> ModuleType:
    try:
        import rerun
    except ImportError as error:
        raise ViewerMissing("the Rerun viewer is not installed; it is the extra 'viewer'") from error
    return rerun


def to_rerun(rollout: Rollout, audit: Audit | None = None, *, save: Path | None = None) -> None:
    """Send joints, commands, margins, forces, objects and events to Rerun.

    Args:
        rollout: What to show.
        audit: Margins to show; without one those the filter recorded.
        save: Write an ``.rrd`` file here; None opens the viewer.

    Raises:
        ViewerMissing: If rerun-sdk is not installed.
    """
    rr = _rerun()
    stream = rr.RecordingStream(f"palmar/{rollout.header.task}")
    if save is None:
        stream.spawn()
    else:
        stream.save(str(save))
    names = rollout.header.robot.joints
    t0 = rollout.header.t0
    _columns(rr, stream, "joints/measured", rollout.joints.t - t0, rollout.joints.q, names)
    _columns(rr, stream, "joints/intended", rollout.intended.t - t0, rollout.intended.q, names)
    _columns(rr, stream, "joints/sent", rollout.command.t - t0, rollout.command.u, names)
    _columns(rr, stream, "contact", rollout.contact.t - t0, rollout.contact.force, CONTACT_PAIRS)
    if audit is not None:
        for row in audit.rows:
            _columns(rr, stream, "margin", audit.t - t0, row.margin[:, None], (row.name,))
    else:
        found = rollout.verdicts
        _columns(rr, stream, "margin", found.t - t0, found.margins, rollout.header.constraint_set().names)
    for name, poses in rollout.objects.items():
        if len(poses.t):
            stream.send_columns(
                f"objects/{name}",
                indexes=[rr.TimeColumn("run", duration=poses.t - t0)],
                columns=rr.Points3D.columns(positions=poses.position),
            )
    for event in rollout.events:
        stream.set_time("run", duration=event.t - t0)
        state = event.values.get("state", "")
        stream.log("events", rr.TextLog(f"{event.name} {state} {event.detail}".strip(), level=_level(event.level)))
    stream.flush()


def _level(level: str) -> str:
    return {"ok": "INFO", "warn": "WARN", "error": "ERROR"}.get(level, "DEBUG")


def _columns(rr: ModuleType, stream, path: str, t, values, names) -> None:
    """One scalar series per column."""
    if not len(t):
        return
    for k, name in enumerate(names):
        stream.send_columns(
            f"{path}/{name}",
            indexes=[rr.TimeColumn("run", duration=t)],
            columns=rr.Scalars.columns(scalars=values[:, k]),
        )
