"""What chooses joint targets from what a robot can see: a learned bundle, or a slow sway to check the chain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from palmar.real_robot.config import RunConfig
from palmar.real_robot.nodes import views
from palmar.real_robot.nodes.executed import Executed, Listener
from palmar.real_robot.nodes.views import View, Wanted
from palmar.safety.robot import RobotModel
from palmar.safety.types import Array, ConfigError
from palmar.sim.interface import Seen


@dataclass(frozen=True)
class Sight:
    """What a robot sees at one moment; nothing in it is older than its node's parameters allow."""

    q: Array
    """Joint readings [rad], (n,), hardware order."""
    qd: Array
    """[rad/s], (n,)."""
    position: Array
    """Tracked objects [m], world frame, (m, 3)."""
    quaternion: Array
    """w-x-y-z, (m, 4)."""
    views: tuple[View, ...] = ()
    """Pictures, in the order of the chooser's ``views``."""


class Chooser(Protocol):
    """What chooses joint targets from what a robot can see."""

    rate: float
    """Chunks per second [Hz]."""
    views: tuple[Wanted, ...]
    """Pictures it acts on; without each of them, fresh, it is not asked."""

    def instruct(self, instruction: str) -> None:
        """Take what to do from the next episode on.

        Raises:
            PalmarError: If the words mean nothing here; what was said before stays.
        """
        ...

    def start(self, sight: Sight) -> None:
        """Begin an episode at rest.

        Raises:
            PalmarError: If the words do not name one of the objects seen.
        """
        ...

    def targets(self, sight: Sight) -> Array:
        """Targets (H, n) [rad], one per period from now."""
        ...

    def executed(self, sent: Executed) -> None:
        """Hear what was sent since the last chunk, where the filter changed it."""
        ...


class Sway:
    """Moves every joint slowly about where it started: checks the whole chain without a learned policy."""

    rate = 20.0
    ahead = 4
    """Targets per chunk."""
    views: tuple[Wanted, ...] = ()

    def __init__(self, robot: RobotModel, *, amplitude: float = 0.03, period: float = 4.0):
        self.robot, self.amplitude, self.period = robot, amplitude, period
        self._k, self._q = 0, robot.home

    def instruct(self, instruction: str) -> None:
        """It sways whatever is said."""

    def start(self, sight: Sight) -> None:
        """Sway about where the joints are."""
        self._k, self._q = 0, sight.q

    def targets(self, sight: Sight) -> Array:
        """The next targets, kept inside the joint ranges."""
        self._k += 1
        phase = 2 * np.pi / self.period * (self._k + np.arange(self.ahead)) / self.rate
        limits = self.robot.limits
        wave = self._q + self.amplitude * (1 - np.cos(phase))[:, None]
        return np.clip(wave, limits.q_min + 0.02, limits.q_max - 0.02)

    def executed(self, sent: Executed) -> None:
        """It sways on."""


class Learned:
    """A bundle with its task's observation and action mapping."""

    def __init__(self, run: RunConfig, robot: RobotModel):
        """Load the bundle of ``run``.

        Raises:
            PalmarError: If it does not fit this robot, constraint file, task or instruction.
        """
        from palmar.policies.bundle import BundlePolicy, load_bundle
        from palmar.policies.contract import TaskContract
        from palmar.sim.tasks import find

        bundle = load_bundle(Path(run.bundle))
        self._io = find.load(run.task).io(robot, 1)
        bundle.check(robot, run.constraint_set(robot), TaskContract.of(run.task, self._io))
        self._policy, self.views = BundlePolicy(bundle), views.wanted(bundle.task.observation)
        self.rate = float(self._io.rate)
        self._words = grounding(run)
        self._instruction, self._goal = run.instruction, np.zeros(0)
        self.instruct(run.instruction)
        self._carry: Any = None

    def instruct(self, instruction: str) -> None:
        """Refuse words that name none of the objects, as far as can be told without seeing them."""
        self._words.check(instruction)
        self._instruction = instruction

    def start(self, sight: Sight) -> None:
        """Begin an episode at rest; what the words mean is settled by where things are now."""
        self._goal = self._words.goal(self._instruction, sight.position)
        self._io.reset(np.array([0]), sight.q[None])
        self._carry = self._policy.start(1)

    def targets(self, sight: Sight) -> Array:
        """One target, one period from now."""
        place, turn = self._words.arranged(sight.position, sight.quaternion)
        obs = self._io.observe(Seen(sight.q[None], sight.qd[None], place[None], turn[None], self._goal))
        action, self._carry = self._policy.act(obs, self._carry)
        return np.asarray(self._io.joint_target(np.asarray(action, dtype=np.float64)))

    def executed(self, sent: Executed) -> None:
        """Into the policy's memory, if it has one for this."""
        self._carry = told(self._policy, self._carry, sent)


def told(policy: object, carry: Any, sent: Executed) -> Any:
    """The carry of a policy that was told what was sent; unchanged if the policy does not listen."""
    return policy.executed(carry, sent) if isinstance(policy, Listener) else carry


def chooser(run: RunConfig, robot: RobotModel) -> Chooser:
    """What ``run`` asks for: a bundle, or ``sway`` where none is named."""
    return Learned(run, robot) if run.bundle else Sway(robot, amplitude=run.sway)


class LiftWords:
    """The three blocks of ``lift``, told apart by colour and shape alone."""

    def check(self, instruction: str) -> None:
        """Refuse words that name no block, or more than one."""
        self.goal(instruction, np.zeros((3, 3)))

    def goal(self, instruction: str, position: Array) -> Array:
        """Index of the block that is meant, (1,)."""
        from palmar.sim.tasks.lift import ground

        return np.array([ground(instruction)])

    def arranged(self, position: Array, quaternion: Array) -> tuple[Array, Array]:
        """Poses (m, 3), (m, 4) as the task wants them."""
        return position, quaternion


class ClutterWords:
    """Any objects that a tracker knows the shape and colour of; relations are settled by where they are."""

    def __init__(self, objects: Sequence[str], things: Sequence[dict[str, Any]]):
        """Things are dicts of ``name, family, half, exponents, colour``; words as in ``sim.objects`` and ``sim.words``.

        Raises:
            ConfigError: If one is not tracked, is described twice, or lacks one of these.
        """
        from palmar.sim.forms import FAMILIES
        from palmar.sim.tasks.clutter import COLOURS
        from palmar.sim.tasks.clutter_io import MOST

        need = {"name", "family", "half", "exponents", "colour"}
        names = [t.get("name") for t in things]
        if len(set(names)) != len(names) or not set(names) <= set(objects) or not 1 <= len(things) <= MOST:
            raise ConfigError(f"things are {names}, accepted 1 to {MOST} different ones of {list(objects)}")
        for t in things:
            if set(t) != need or t["family"] not in FAMILIES or t["colour"] not in COLOURS:
                raise ConfigError(f"thing {t}: need {sorted(need)}, a family of {FAMILIES} and a colour of {COLOURS}")
        self._rows = [list(objects).index(t["name"]) for t in things]
        self._things, self._most = tuple(things), MOST

    def check(self, instruction: str) -> None:
        """Refuse unknown words; which object is meant depends on where they are.

        Raises:
            UnknownInstruction: With the words that are known.
        """
        from palmar.sim import words

        try:
            words.ground(instruction, self._described(np.zeros((len(self._things), 3))))
        except words.UnknownInstruction as error:
            if "unknown words" in str(error) or "more than one relation" in str(error):
                raise

    def goal(self, instruction: str, position: Array) -> Array:
        """The task's goal (1, MOST, 12) for objects at positions (m, 3) [m].

        Raises:
            UnknownInstruction: If the words fit no object, or more than one.
        """
        from palmar.sim import words
        from palmar.sim.forms import FAMILIES
        from palmar.sim.tasks.clutter import COLOURS
        from palmar.sim.tasks.clutter_io import GOAL

        place = np.asarray(position)[self._rows]
        named = words.ground(instruction, self._described(place))
        goal = np.zeros((1, self._most, len(GOAL)))
        for k, (t, p) in enumerate(zip(self._things, place, strict=True)):
            colour, family = COLOURS.index(t["colour"]), FAMILIES.index(t["family"])
            goal[0, k] = (k == named, 1, family, *t["half"], *t["exponents"], colour, *p[:2], 0)
        return goal

    def arranged(self, position: Array, quaternion: Array) -> tuple[Array, Array]:
        """Poses (MOST, 3), (MOST, 4) as the task wants them: what is not there is parked below the table."""
        from palmar.sim.tasks.clutter import PARKED

        place, turn = np.zeros((self._most, 3)), np.tile([1.0, 0, 0, 0], (self._most, 1))
        place[:, 0], place[:, 2] = 0.3 * np.arange(self._most), PARKED
        m = len(self._rows)
        place[:m], turn[:m] = position[self._rows], quaternion[self._rows]
        return place, turn

    def _described(self, place: Array) -> list[Any]:
        from palmar.sim import objects, words

        return [
            words.Described(t["colour"], t["family"], 2 * max(t["half"]) >= objects.LARGE, (float(p[0]), float(p[1])))
            for t, p in zip(self._things, place, strict=True)
        ]


WORDS: dict[str, Callable[[RunConfig], Any]] = {
    "lift": lambda run: LiftWords(),
    "clutter": lambda run: ClutterWords(run.objects, run.blocks),
}
"""What words mean in each task that is told what to do."""


def grounding(run: RunConfig) -> Any:
    """What the words of the task of ``run`` mean.

    Raises:
        ConfigError: If the task takes no words.
    """
    if run.task not in WORDS:
        raise ConfigError(f"task {run.task!r} takes no instruction on a robot; accepted {sorted(WORDS)}")
    return WORDS[run.task](run)
