"""A rehearsal: the whole graph of a deployment, everything that may go wrong in a session, and what came of it.

The graph is that of ``palmar deploy`` with a bad network between policy and bridge.  Scenarios are played one after
another on it; what happened is read from the rollout that the recorder wrote, tick by tick, and judged by the run's
constraint file.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from palmar.real_robot import ros_env, shared
from palmar.real_robot.config import RunConfig
from palmar.real_robot.deploy import DeployConfig, DeployError, Processes, Progress, activate, bring_up, resolve
from palmar.real_robot.operator import Operator, OperatorError
from palmar.real_robot.scenarios import Scenario, choose, kill
from palmar.rollouts.read import read
from palmar.rollouts.rollout import Rollout
from palmar.rollouts.schema import STATE_CODES
from palmar.safety.types import ConfigError, State
from palmar.safety.watchdog import rest_within

BACK = 10.0
"""How long the robot may take to follow the policy again after a scenario [s]."""
LOOKS = 0.3
"""How long an operator looks before a reset [s]."""
STILL = 0.03
"""A measured joint slower than this stands, noise of the reading included [rad/s]."""
TRUE_STILL = 0.01
"""The same for the twin's true joint speeds [rad/s]."""
DEVICES = {"twin": ("twin",), "fake": ("arm", "hand")}
"""Processes that stand between the control process and the hardware."""
BUSY = ("missed_period", "reading_gap")
"""A machine that is late makes the filter hold before anything else can; that is no fault of the graph."""
NODES = {"policy": "palmar_policy", "bridge": "palmar_bridge"}
CHUNK_TIMEOUT = 0.2
"""The filter's; see ``safety.chunks``."""


@dataclass(frozen=True)
class Row:
    """What came of one scenario."""

    scenario: str
    what: str
    reaction_ms: float | None
    """From the deed to the first tick outside RUN; None where it never left."""
    state: str
    reason: str
    """Of that tick; of the last tick of the scenario where it never left RUN."""
    standstill_ms: float | None
    """From the deed until commands and joints stand for the rest of the scenario; None where they do not."""
    worst: str
    """The hard row with the smallest margin during the scenario."""
    margin: float
    violated: tuple[str, ...]
    """Hard rows whose margin fell below zero, or below their declared error where they are estimated."""
    resumed_ms: float | None
    """From the end of the deed, or the operator's reset, to RUN; None where nothing can resume."""
    problems: tuple[str, ...]
    """What was not as it must be; empty: passed."""

    @property
    def ok(self) -> bool:
        """Whether it passed."""
        return not self.problems


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


@dataclass(frozen=True)
class Played:
    """When a scenario was played, in monotonic time [s]."""

    scenario: Scenario
    begin: float
    undone: float
    end: float
    resumed: float | None
    speeds: np.ndarray
    """The twin's true speed while it lasted, (k, 2): time and largest joint speed."""
    blocked: str = ""
    """State and reason of a robot that did not follow the policy, so that it was not played; '' where it was."""


class Graph:
    """A running deployment that scenarios are played on; their ``Stage``."""

    def __init__(
        self,
        run: RunConfig,
        children: Processes,
        maps: dict[str, shared.SharedMap],
        operator: Operator,
        launched: float,
    ):
        self.run, self.children, self.operator = run, children, operator
        self.launched = launched
        """Monotonic time at which the first process was started [s]."""
        self.moved = float("nan")
        """Monotonic time at which the filter was first seen to follow the policy [s]."""
        self._control, self._twin = maps["control"], maps["twin"]

    def link(self, **changes: object) -> None:
        """See ``scenarios.Stage``."""
        _write_link(self.children.folder, **changes)

    def ask(self, what: str) -> None:
        """See ``scenarios.Stage``."""
        self.operator.ask(what)

    def signal(self, process: str, number: int) -> None:
        """See ``scenarios.Stage``."""
        kill(self.children.running[process].pid, number)

    def restart(self, process: str) -> None:
        """See ``scenarios.Stage``."""
        self.children.running.pop(process).wait()
        self.children.start(process, f"nodes.{process}")
        activate(self.children, NODES[process])

    def play(self, scenario: Scenario, *, moving: float = 0.0) -> Played:
        """Do it, wait, undo it, and let the robot follow the policy again.

        Args:
            scenario: What to play.
            moving: Wait until a joint of the twin is faster than this first [rad/s].

        Where the robot does not follow the policy, or not so fast, even after a reset, it is not done at all.
        """
        if not self._ready() or (moving and not self._moves(moving)):
            now = time.monotonic()
            return Played(scenario, now, now, now, None, np.zeros((0, 2)), blocked=self._now())
        begin = time.monotonic()
        scenario.do(self)
        speeds = self._watch(begin + scenario.lasts)
        undone = time.monotonic()
        scenario.undo(self)
        if scenario.last:
            return Played(scenario, begin, undone, time.monotonic(), None, speeds)
        if scenario.latches:
            undone = self._reset()
        resumed = time.monotonic() if self._until_run() else None
        return Played(scenario, begin, undone, time.monotonic(), resumed, speeds)

    def _watch(self, end: float) -> np.ndarray:
        """True speeds until then, about every millisecond."""
        rows = []
        while time.monotonic() < end:
            try:
                truth = self._twin.blocks["truth"].read()
            except shared.TornRead:
                truth = None
            if truth is not None:
                rows.append((float(truth["t"]), float(truth["speed"])))
            time.sleep(0.002)
        return np.array(rows).reshape(-1, 2)

    def _reset(self) -> float:
        """As an operator does: looks first, then asks until the robot is at rest; the time of it [s]."""
        time.sleep(LOOKS)
        end = time.monotonic() + BACK
        while True:
            at = time.monotonic()
            try:
                self.operator.ask("reset")
                return at
            except OperatorError:
                if at > end:
                    raise
                time.sleep(0.05)

    def _moves(self, speed: float) -> bool:
        end = time.monotonic() + BACK
        while time.monotonic() < end:
            if len(seen := self._watch(time.monotonic() + 0.004)) and seen[-1, 1] > speed:
                return True
        return False

    def _ready(self) -> bool:
        """Whether the robot follows the policy; what stopped it before the scenario is reset, as an operator would."""
        if self._until_run():
            return True
        if self.operator.look().state != State.LATCHED.value:
            return False
        self._reset()
        return self._until_run()

    def _until_run(self) -> bool:
        end = time.monotonic() + BACK
        while time.monotonic() < end:
            now = self.operator.look()
            if now.alive and now.state == State.RUN.value:
                self.moved = time.monotonic() if np.isnan(self.moved) else self.moved
                return True
            if now.alive and now.state == State.LATCHED.value:
                return False
            time.sleep(0.002)
        return False

    def _now(self) -> str:
        now = self.operator.look()
        return f"{now.state} {now.reason}"


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
    with up(run, say) as graph:
        played = [_say_and_play(graph, s, k / len(scenarios), say) for k, s in enumerate(scenarios)]
    folder = Path(run.run_dir)
    rollout = read(folder / "rollout.mcap")
    found = Rehearsal(
        rows=tuple(_judge(p, rollout, run) for p in played),
        left_out=tuple(s.name for s in left_out),
        hardware=run.hardware,
        constraints=constraints.name,
        launch_to_motion_s=graph.moved - graph.launched,
        declared_rest_ms=1e3 * rest_within(run.robot_model().limits, CHUNK_TIMEOUT, run.period),
        run_dir=run.run_dir,
    )
    (folder / "rehearsal.json").write_text(json.dumps(asdict(found) | {"ok": found.ok}, indent=1))
    return found


@contextmanager
def up(run: RunConfig, say: Progress) -> Iterator[Graph]:
    """The graph of a deployment, recorded, with the link between policy and bridge; all of it ends with the context.

    Raises:
        DeployError: If something did not start in time.
    """
    folder = Path(run.run_dir)
    try:
        with Processes(folder, folder / "run.json", ros_env.isolated(run.domain, folder)) as children:
            children.extra["policy"] = _remaps(run)
            _write_link(folder)
            launched = time.monotonic()
            children.start("link", "nodes.link")
            maps = bring_up(run, children, record=True, say=say)
            with Operator(Path(run.control_memory)) as operator:
                yield Graph(run, children, maps, operator, launched)
            _wind_down(children)
    finally:
        for path in run.memories:
            Path(path).unlink(missing_ok=True)  # only a process that was killed leaves its file


def _remaps(run: RunConfig) -> list[str]:
    """Asked of the link in a process of its own: this one has no ROS."""
    code = f"from palmar.real_robot.nodes import link; print('\\n'.join(link.remaps({list(run.objects)!r})))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


def _write_link(folder: Path, **changes: object) -> None:
    part = folder / "link.json.part"
    part.write_text(json.dumps(changes))
    part.replace(folder / "link.json")


def _say_and_play(graph: Graph, scenario: Scenario, share: float, say: Progress) -> Played:
    say(f"{scenario.name}: {scenario.what}", share)
    return graph.play(scenario)


def _wind_down(children: Processes) -> None:
    for name in ("policy", "link", "bridge", "control", "hand", "arm", "fakes", "twin"):
        children.stop(name)
    (children.folder / "result.json").write_text(json.dumps({"success": None, "reason": "rehearsal"}))
    children.stop("recorder")


# What came of it ---------------------------------------------------------------------------------------------


def _judge(played: Played, rollout: Rollout, run: RunConfig) -> Row:
    """One scenario's row, from the ticks between its begin and its end."""
    s, v = played.scenario, rollout.verdicts
    if played.blocked:
        why = f"not played: the robot does not follow the policy: {played.blocked}"
        state, _, reason = played.blocked.partition(" ")
        return Row(s.name, s.what, None, state, reason, None, "", float("nan"), (), None, (why,))
    inside = np.flatnonzero((v.t >= played.begin) & (v.t <= played.undone))
    off = inside[v.state[inside] != STATE_CODES.index(State.RUN)]
    named = [k for k in off if v.reason[k] in s.reasons]
    off = np.array(named, dtype=int) if named else off
    at = int(off[0]) if len(off) else int(inside[-1]) if len(inside) else -1
    reaction = 1e3 * (float(v.t[off[0]]) - played.begin) if len(off) else None
    rest = _true_rest(played) if s.last else _rest(rollout, played) if len(off) else None
    worst, margin, violated = _margins(rollout, run, (v.t >= played.begin) & (v.t <= played.end))
    row = Row(
        scenario=s.name,
        what=s.what,
        reaction_ms=reaction,
        state=STATE_CODES[int(v.state[at])].value,
        reason=v.reason[at],
        standstill_ms=rest,
        worst=worst,
        margin=margin,
        violated=violated,
        resumed_ms=1e3 * (played.resumed - played.undone) if played.resumed is not None else None,
        problems=(),
    )
    declared = 1e3 * rest_within(run.robot_model().limits, CHUNK_TIMEOUT, run.period)
    return replace(row, problems=tuple(_problems(row, s, declared)))


def _rest(rollout: Rollout, played: Played) -> float | None:
    """Time until neither commands nor joints move any more before the deed ends [ms]."""
    c, j = rollout.command, rollout.joints
    sent = (c.t >= played.begin) & (c.t <= played.undone)
    felt = (j.t >= played.begin) & (j.t <= played.undone)
    ends = [
        _last(c.t[sent], np.abs(c.ud[sent]).max(axis=1, initial=0.0) > 0.0),
        _last(j.t[felt], np.abs(j.qd[felt]).max(axis=1, initial=0.0) > STILL),
    ]
    last = max((e for e in ends if e is not None), default=played.begin)
    return 1e3 * (last - played.begin) if last < played.undone - 0.002 else None


def _true_rest(played: Played) -> float | None:
    """The same by the twin's truth, for when nobody records any more [ms]."""
    t, speed = played.speeds.T
    last = _last(t, speed > TRUE_STILL)
    if last is None:
        return 0.0
    return 1e3 * max(0.0, last - played.begin) if last < t[-1] else None


def _last(t: np.ndarray, moving: np.ndarray) -> float | None:
    return float(t[np.flatnonzero(moving)[-1]]) if moving.any() else None


def _margins(rollout: Rollout, run: RunConfig, inside: np.ndarray) -> tuple[str, float, tuple[str, ...]]:
    """Of the hard rows while it lasted: the smallest margin with its name, and those below zero."""
    constraints = run.constraint_set(run.robot_model()).constraints
    lost = np.array([reason == "person_lost" for reason in rollout.verdicts.reason])
    smallest: dict[str, float] = {}
    for k, c in enumerate(constraints):
        # Without a tracker a person is presumed everywhere, so that the margin says nothing about one.
        judged = inside & ~lost if c.margin == "speed_separation" else inside
        seen = rollout.verdicts.margins[judged, k]
        seen = seen[np.isfinite(seen)]
        if c.runtime == "hard row" and len(seen):
            smallest[c.name] = float(seen.min())
    if not smallest:
        return "", float("nan"), ()
    error = {c.name: c.error for c in constraints}
    worst = min(smallest, key=lambda name: smallest[name] + error[name])
    return worst, smallest[worst], tuple(name for name, value in smallest.items() if value < -error[name])


def _problems(row: Row, s: Scenario, declared: float) -> list[str]:
    """What was not as it must be."""
    found = [f"{name} was violated" for name in row.violated]
    if s.last:
        return found + ([] if row.standstill_ms is not None else ["the hardware did not stop by itself"])
    if s.leaves_run is not None:
        if row.reaction_ms is None or row.reaction_ms > 1e3 * s.leaves_run:
            found.append(f"left RUN after {_ms(row.reaction_ms)}, need <= {_ms(1e3 * s.leaves_run)}")
        elif row.reason not in (*s.reasons, *BUSY):
            found.append(f"the reason is {row.reason!r}, expected one of {list(s.reasons)}")
        if row.standstill_ms is None or row.standstill_ms > 1e3 * s.leaves_run + declared:
            found.append(f"stood after {_ms(row.standstill_ms)}, need <= {_ms(1e3 * s.leaves_run + declared)}")
    if row.resumed_ms is None:
        found.append(f"did not follow the policy again within {BACK:.0f} s")
    if s.latches is False and row.state in (State.STOP.value, State.LATCHED.value):
        found.append(f"stopped for {row.reason!r}, which needs an operator")
    return found


def _ms(value: float | None) -> str:
    return "never" if value is None else f"{value:.0f} ms"


def summary(found: Rehearsal) -> dict[str, Any]:
    """The rehearsal as one flat object."""
    return {**asdict(found), "ok": found.ok, "passed": sum(r.ok for r in found.rows)}
