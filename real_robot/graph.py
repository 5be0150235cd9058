"""The graph of a deployment with a bad network in it, for scenarios to be played on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from palmar.real_robot import shared
from palmar.real_robot.config import RunConfig
from palmar.real_robot.operator import Operator, OperatorError
from palmar.real_robot.processes import Processes, Progress, activate, bring_up
from palmar.real_robot.scenarios import Scenario
from palmar.safety.types import State

BACK = 10.0
"""How long the robot may take to follow the policy again after a scenario [s]."""
LOOKS = 0.3
"""How long an operator looks before a reset [s]."""


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
    """A running deployment; the ``Stage`` of scenarios."""

    def __init__(self, children: Processes, maps: dict[str, shared.SharedMap], operator: Operator, launched: float):
        self.children, self.operator = children, operator
        self.launched = launched
        """Monotonic time at which the first process was started [s]."""
        self.moved = float("nan")
        """Monotonic time at which the filter was first seen to follow the policy [s]."""
        self._twin = maps["twin"]

    def link(self, **changes: object) -> None:
        """Change what the network and the people do; see ``nodes.link.Link``."""
        _write_link(self.children.folder, **changes)

    def ask(self, what: str) -> None:
        """An operator's request."""
        self.operator.ask(what)

    def signal(self, process: str, number: int) -> None:
        """Send a signal to a process of the run; one that is gone already is no error."""
        with suppress(ProcessLookupError):
            os.kill(self.children.running[process].pid, number)

    def restart(self, process: str) -> None:
        """Start a process again that was killed, and bring its node up."""
        self.children.running.pop(process).wait()
        self.children.start(process, f"nodes.{process}")
        activate(self.children, process)

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


@contextmanager
def up(run: RunConfig, say: Progress) -> Iterator[Graph]:
    """The graph of a deployment, recorded, with the link between policy and bridge; all of it ends with the context.

    Raises:
        DeployError: If something did not start in time.
    """
    with Processes(run) as children:
        children.extra["policy"] = _remaps(run)
        _write_link(children.folder)
        launched = time.monotonic()
        children.start("link", "nodes.link")
        maps = bring_up(children, record=True, say=say)
        with Operator(Path(run.control_memory)) as operator:
            yield Graph(children, maps, operator, launched)
        children.wind_down()
        (children.folder / "result.json").write_text(json.dumps({"success": None, "reason": "rehearsal"}))


def _remaps(run: RunConfig) -> list[str]:
    """Asked of the link in a process of its own: this one has no ROS."""
    code = f"from palmar.real_robot.nodes import link; print('\\n'.join(link.remaps({list(run.objects)!r})))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


def _write_link(folder: Path, **changes: object) -> None:
    part = folder / "link.json.part"
    part.write_text(json.dumps(changes))
    part.replace(folder / "link.json")
