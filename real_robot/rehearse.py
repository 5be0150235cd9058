"""A rehearsal: the whole graph of a deployment, everything that may go wrong in a session, and what came of it.

The graph is that of ``palmar deploy`` with a bad network between policy and bridge.  Scenarios are played one after
another on it; what happened is read from the rollout that the recorder wrote, tick by tick, and judged by the run's
constraint file.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from palmar.real_robot import ros_env
from palmar.real_robot.deploy import DeployConfig, resolve
from palmar.real_robot.graph import up
from palmar.real_robot.judge import Row, judge, time_to_rest
from palmar.real_robot.processes import DeployError, Progress
from palmar.real_robot.scenarios import choose
from palmar.rollouts.read import read
from palmar.safety.types import ConfigError

DEVICES = {"twin": ("twin",), "fake": ("arm", "hand")}
"""Processes that stand between the control process and the hardware."""


@dataclass(frozen=True)
class Rehearsal:
    """All of them."""

    rows: tuple[Row, ...]
    left_out: tuple[str, ...]
    """Scenarios that the constraint file has no margin for."""
    hardware: str
    constraints: str
    """Name of the constraint file."""
    launch_to_motion_s: float
    """From the start of the first process to RUN, within 2 ms."""
    declared_rest_ms: float
    """The time to rest that the filter declares for this robot, from the last fresh chunk."""
    run_dir: str

    @property
    def ok(self) -> bool:
        """Whether every scenario passed."""
        return all(row.ok for row in self.rows)


def rehearse(
    config: DeployConfig, *, short: bool = False, only: tuple[str, ...] = (), progress: Progress | None = None
) -> Rehearsal:
    """Play the scenarios on simulated hardware, or on the drivers' fakes.

    Args:
        config: The deployment to rehearse; it is recorded, its timeout is not used.
        short: Only the scenarios of the short rehearsal.
        only: Only these, by name.
        progress: Told what is going on.

    Raises:
        PalmarError: If the configuration is refused or the graph does not start.
    """
    if why := ros_env.missing():
        raise DeployError(why)
    say = progress or (lambda what, share: None)
    run, _ = resolve(replace(config, record=True))
    if run.hardware == "real":
        raise ConfigError(
            "hardware is 'real', accepted for a rehearsal ['twin', 'fake']: it kills processes on purpose"
        )
    constraints = run.constraint_set(run.robot_model())
    margins = tuple(c.margin for c in constraints.constraints)
    devices = DEVICES[run.hardware]
    scenarios, left_out = choose(short=short, devices=devices, margins=margins, only=only)
    played = []
    with up(run, say) as graph:
        for k, scenario in enumerate(scenarios):
            say(f"{scenario.name}: {scenario.what}", k / len(scenarios))
            played.append(graph.play(scenario))
    folder = Path(run.run_dir)
    rollout = read(folder / "rollout.mcap")
    found = Rehearsal(
        rows=tuple(judge(p, rollout, run) for p in played),
        left_out=tuple(s.name for s in left_out),
        hardware=run.hardware,
        constraints=constraints.name,
        launch_to_motion_s=graph.moved - graph.launched,
        declared_rest_ms=1e3 * time_to_rest(run),
        run_dir=run.run_dir,
    )
    (folder / "rehearsal.json").write_text(json.dumps(asdict(found) | {"ok": found.ok}, indent=1))
    return found


def summary(found: Rehearsal) -> dict[str, Any]:
    """The rehearsal as one flat object."""
    return {**asdict(found), "ok": found.ok, "passed": sum(r.ok for r in found.rows)}
