"""Scripted adversaries: nothing, noise, a constant bias, a push, and the worst of several.  See ``sim.adversary``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from palmar.safety.types import ConfigError
from palmar.sim.adversary import Adversary, Attack, Moment, Surface

Array = np.ndarray
Harm = Callable[[Moment, Attack], Array]
"""How bad candidates would be, (N, B), larger is worse; their attacks have a leading axis N."""


@dataclass(frozen=True)
class Nothing:
    """Does nothing."""

    surface: Surface

    def start(self, batch: int) -> None:
        """No memory."""

    def act(self, moment: Moment, carry: None) -> tuple[Attack, None]:
        """Zeros."""
        return self.surface.nothing(len(moment.t)), None


@dataclass(frozen=True)
class Noise:
    """At every step an attack drawn anew, uniform in what the budget allows."""

    surface: Surface
    seed: int = 0

    def start(self, batch: int) -> np.random.Generator:
        """The generator."""
        return np.random.default_rng(self.seed)

    def act(self, moment: Moment, carry: np.random.Generator) -> tuple[Attack, np.random.Generator]:
        """Uniform per number; long pushes are shortened by the budget."""
        return self.surface.unpack(carry.uniform(-1.0, 1.0, (len(moment.t), self.surface.size))), carry


@dataclass(frozen=True)
class Constant:
    """One attack at the edge of the budget per episode, held: a leaning cable, a miscalibrated tracker."""

    surface: Surface
    seed: int = 0

    def start(self, batch: int) -> tuple[np.random.Generator, Array, Array]:
        """Generator, the last time of each world, its attack."""
        return np.random.default_rng(self.seed), np.full(batch, np.inf), np.zeros((batch, self.surface.size))

    def act(self, moment: Moment, carry: tuple) -> tuple[Attack, tuple]:
        """The episode's attack."""
        rng, last, held = carry
        drawn = rng.choice([-1.0, 1.0], held.shape)
        held = np.where((moment.t > last)[:, None], held, drawn)
        return self.surface.unpack(held), (rng, moment.t.copy(), held)


@dataclass(frozen=True)
class Push:
    """One push of one body, at one time of each episode.

    Raises:
        ConfigError: If the budget does not name the body, or lets nobody be pushed so hard.
    """

    surface: Surface
    body: int
    """Its id; one of ``surface.bodies``."""
    at: float
    """Start [s]."""
    duration: float
    """[s]; whole control steps that begin within it."""
    force: float
    """[N]."""
    direction: tuple[float, float, float] | None = None
    """World axes; None draws a level direction per episode."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.body not in self.surface.bodies:
            raise ConfigError(f"body {self.body} may not be pushed, the budget names {self.surface.bodies.tolist()}")
        if not 0 <= self.force <= self.surface.budget.force:
            raise ConfigError(f"force must be in [0, {self.surface.budget.force}] N, got {self.force}")
        if self.direction is not None and not np.linalg.norm(self.direction) > 0:
            raise ConfigError(f"direction must not be zero, got {self.direction}")

    def start(self, batch: int) -> tuple[np.random.Generator, Array, Array]:
        """Generator, the last time of each world, its direction."""
        return np.random.default_rng(self.seed), np.full(batch, np.inf), np.zeros((batch, 3))

    def act(self, moment: Moment, carry: tuple) -> tuple[Attack, tuple]:
        """The push while it lasts, nothing before and after."""
        rng, last, held = carry
        if self.direction is None:
            angle = rng.uniform(-np.pi, np.pi, len(held))
            drawn = np.stack([np.cos(angle), np.sin(angle), np.zeros_like(angle)], axis=1)
        else:
            drawn = np.tile(np.array(self.direction) / np.linalg.norm(self.direction), (len(held), 1))
        held = np.where((moment.t > last)[:, None], held, drawn)
        now = (moment.t >= self.at - 1e-9) & (moment.t < self.at + self.duration - 1e-9)
        out = self.surface.nothing(len(held))
        out.wrench[:, self.body, :3] = np.where(now[:, None], self.force * held, 0.0)
        return out, (rng, moment.t.copy(), held)


@dataclass(frozen=True)
class WorstOf:
    """Greedy: of several proposals and of doing nothing, per world the one that would be worst.

    Args:
        surface: For the attack that does nothing.
        proposals: Adversaries asked at every step; one with noise may stand here N times with N seeds.
        harm: Judges all candidates at once: ``Foresight``, or a cost critic on the attacked observation.
    """

    surface: Surface
    proposals: Sequence[Adversary]
    harm: Harm

    def start(self, batch: int) -> list:
        """The carries of the proposals."""
        return [p.start(batch) for p in self.proposals]

    def act(self, moment: Moment, carry: list) -> tuple[Attack, list]:
        """The worst candidate per world; nothing where none is worse than nothing."""
        answers = [p.act(moment, c) for p, c in zip(self.proposals, carry, strict=True)]
        each = [self.surface.nothing(len(moment.t)), *(attack for attack, _ in answers)]
        every = Attack(*(np.stack([getattr(a, f) for a in each]) for f in ("wrench", "torque", "delta")))
        worst, b = np.argmax(self.harm(moment, every), axis=0), np.arange(len(moment.t))
        chosen = Attack(every.wrench[worst, b], every.torque[worst, b], every.delta[worst, b])
        return chosen, [c for _, c in answers]


class Foresight:
    """Harm by simulation: every candidate is tried on a copy of its world, with the commands standing as they are.

    Args:
        model: The scene; or one per world, where fields differ.
        states: Gives the states now, mjSTATE_FULLPHYSICS rows (B, nstate), and the commands (B, nu).
        dofs: Degrees of freedom of the robot's joints, (n,).
        steps: Physics steps to look ahead.
        judge: From states (R, steps, nstate) and sensor values (R, steps, nsensordata) to harm (R,).
        nthread: Threads.
    """

    def __init__(
        self,
        model: mujoco.MjModel | Sequence[mujoco.MjModel],
        *,
        states: Callable[[], tuple[Array, Array]],
        dofs: Array,
        steps: int,
        judge: Callable[[Array, Array], Array],
        nthread: int = 1,
    ):
        self._states, self._dofs, self._judge = states, dofs, judge
        self._models = [model] if isinstance(model, mujoco.MjModel) else list(model)
        self._first: mujoco.MjModel = self._models[0]
        self._steps, self._data = steps, [mujoco.MjData(self._first) for _ in range(nthread)]

    def __call__(self, moment: Moment, attacks: Attack) -> Array:
        """Harm of attacks (N, B, ...), (N, B)."""
        from mujoco import rollout

        (count, batch), spec = attacks.torque.shape[:2], mujoco.mjtState
        state, ctrl = self._states()
        generalised = np.zeros((count * batch, self._first.nv))
        generalised[:, self._dofs] = attacks.torque.reshape(count * batch, -1)
        control = [np.tile(ctrl, (count, 1)), generalised, attacks.wrench.reshape(count * batch, -1)]
        models = self._models * (count if len(self._models) > 1 else count * batch)
        # the order of mjtState: ctrl, qfrc_applied, xfrc_applied
        out = rollout.rollout(
            models, self._data, np.tile(state, (count, 1)), np.concatenate(control, axis=1)[:, None],
            control_spec=int(spec.mjSTATE_CTRL | spec.mjSTATE_QFRC_APPLIED | spec.mjSTATE_XFRC_APPLIED),
            nstep=self._steps,
        )  # fmt: skip
        return self._judge(*out).reshape(count, batch)
