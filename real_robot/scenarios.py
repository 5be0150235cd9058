"""What a rehearsal does to the running graph and what must come of it: an entry per thing that goes wrong."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from palmar.safety.types import ConfigError

DEATH = 0.1
"""The filter sees a death in its next tick; the rest is what the machine takes to end a process with torch [s]."""
ASKED = 0.02
"""From an operator's request to the tick that heeds it [s]."""


class Stage(Protocol):
    """What a scenario may touch: ``graph.Graph``."""

    def link(self, **changes: object) -> None: ...  # noqa: D102
    def ask(self, what: str) -> None: ...  # noqa: D102
    def signal(self, process: str, number: int) -> None: ...  # noqa: D102
    def restart(self, process: str) -> None: ...  # noqa: D102


@dataclass(frozen=True)
class Scenario:
    """One thing that goes wrong, and what the constraint file and the filter's states make of it."""

    name: str
    what: str
    """What is done, in words."""
    do: Callable[[Stage], None]
    undo: Callable[[Stage], None]
    lasts: float
    """How long it stays so [s]."""
    leaves_run: float | None = None
    """Within which the filter must have left RUN [s]; None: it need not."""
    reasons: tuple[str, ...] = ()
    """Of which the first must be one."""
    latches: bool = False
    """Whether only an operator's reset may lead back; otherwise it goes on by itself."""
    margin: str = ""
    """Name of a margin that the constraint file must have for this to make sense."""
    short: bool = False
    """Part of the short rehearsal."""
    last: bool = False
    """Whether nothing can come after it."""


def nothing(stage: Stage) -> None:
    """Leave it as it is."""


def _link(**changes: object) -> Callable[[Stage], None]:
    return lambda stage: stage.link(**changes)


def _signal(process: str, number: int) -> Callable[[Stage], None]:
    return lambda stage: stage.signal(process, number)


def _restart(process: str) -> Callable[[Stage], None]:
    return lambda stage: stage.restart(process)


def _ask(*what: str) -> Callable[[Stage], None]:
    def do(stage: Stage) -> None:
        for one in what:
            stage.ask(one)

    return do


def frozen_hardware(process: str) -> Scenario:
    """The process of a device stands still for 60 ms."""
    return Scenario(
        f"{process} freezes",
        f"the process of the {process} stands still for 60 ms",
        _signal(process, signal.SIGSTOP),
        _signal(process, signal.SIGCONT),
        lasts=0.06,
        leaves_run=0.05,
        reasons=("state_stale", "reading_gap", "driver_fault", "communication_constraints_violation"),
        latches=True,
    )


SCENARIOS = (
    Scenario("nominal", "nothing", nothing, nothing, lasts=3.0, short=True),
    Scenario("delay", "every chunk comes 60 ms late", _link(delay=0.06), _link(), lasts=2.0),
    Scenario("jitter", "chunks come up to 120 ms late, in any order", _link(jitter=0.12), _link(), lasts=2.0),
    Scenario("loss", "3 of 10 chunks are lost", _link(loss=0.3), _link(), lasts=2.0, short=True),
    Scenario(
        "network down", "no chunk arrives", _link(loss=1.0), _link(), lasts=0.6, leaves_run=0.30,
        reasons=("chunk_stale",), short=True,
    ),
    Scenario(
        "tracker blind", "the camera is dropped: no object pose arrives", _link(poses=False), _link(), lasts=1.6,
        leaves_run=1.0, reasons=("chunk_stale",),
    ),
    Scenario(
        "person walks in", "a person walks up to 0.75 m at 1.6 m/s", _link(people="walks"), _link(), lasts=2.5,
        margin="speed_separation", short=True,
    ),
    Scenario(
        "person tracker lost", "the person tracker says nothing", _link(people="silent"), _link(), lasts=0.6,
        leaves_run=0.4, reasons=("person_lost",), margin="speed_separation",
    ),
    # The link says nothing about people, either, while it makes the thief's publisher.
    Scenario(
        "second commander", "another node publishes on the command topic", _link(thief=True), _link(), lasts=1.0,
        leaves_run=0.6, reasons=("second_publisher", "chunk_stale", "person_lost"),
    ),
    Scenario(
        "operator stops", "palmar monitor --do stop", _ask("stop"), nothing, lasts=0.5, leaves_run=ASKED,
        reasons=("operator_stop",), latches=True, short=True,
    ),
    Scenario(
        "emergency stop", "palmar monitor --do estop", _ask("estop"), _ask("release"), lasts=0.5,
        leaves_run=ASKED, reasons=("operator_estop",), latches=True,
    ),
    Scenario(
        "policy hangs", "the policy's process stands still", _signal("policy", signal.SIGSTOP),
        _signal("policy", signal.SIGCONT), lasts=0.6, leaves_run=0.30, reasons=("chunk_stale",),
    ),
    Scenario(
        "policy crashes", "kill -9 of the policy", _signal("policy", signal.SIGKILL), _restart("policy"), lasts=0.5,
        leaves_run=DEATH, reasons=("policy_died",), short=True,
    ),
    Scenario(
        "bridge crashes", "kill -9 of the bridge", _signal("bridge", signal.SIGKILL), _restart("bridge"), lasts=0.5,
        leaves_run=DEATH, reasons=("bridge_died",),
    ),
)  # fmt: skip

LAST = Scenario(
    "control crashes", "kill -9 of the control process", _signal("control", signal.SIGKILL), nothing, lasts=1.0,
    short=True, last=True,
)  # fmt: skip
"""The hardware's own watchdog must stop the robot then; there is no filter left to say anything."""


def choose(
    *, short: bool, devices: tuple[str, ...], margins: tuple[str, ...], only: tuple[str, ...] = ()
) -> tuple[tuple[Scenario, ...], tuple[Scenario, ...]]:
    """Scenarios to play, in order, and those left out because the constraint file has no such margin.

    Raises:
        ConfigError: If ``only`` names an unknown one.
    """
    every = (*SCENARIOS, *(frozen_hardware(d) for d in devices), LAST)
    if strange := sorted(set(only) - {s.name for s in every}):
        raise ConfigError(f"unknown scenarios {strange}, accepted {[s.name for s in every]}")
    wanted = [s for s in every if (s.name in only if only else s.short or not short)]
    fits = [s for s in wanted if not s.margin or s.margin in margins]
    return tuple(fits), tuple(s for s in wanted if s not in fits)
