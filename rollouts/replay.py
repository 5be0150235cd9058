"""Re-simulate a rollout from its first state and its controls; find where it departs from the recording."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import mujoco
import numpy as np

from palmar.rollouts.model import compile_scene, fingerprint, integration_state
from palmar.rollouts.rollout import Rollout
from palmar.safety.types import RolloutRefused

Array = np.ndarray

__all__ = [
    "Divergence",
    "MujocoResimulator",
    "Replay",
    "Resimulator",
    "fingerprint",
    "integration_state",
    "replay",
    "replay_mujoco",
]


class Resimulator(Protocol):
    """An engine that can be put into a full state and stepped with controls."""

    version: str
    """Name and version, for example ``mujoco 4.0.0``."""
    model_hash: str
    """``fingerprint`` of its model, '' where it has none."""

    def restore(self, state: Array) -> None:
        """Take the full ``mjSTATE_INTEGRATION`` vector."""
        ...

    def step(self, ctrl: Array) -> None:
        """One physics step under these controls, (nu,)."""
        ...

    def servo(self, stiffness: Array, damping: Array) -> None:
        """Stiffness and damping of the robot's joints from the next step on, (n,); asked of no run without them."""
        ...

    def state(self) -> tuple[Array, Array]:
        """Qpos (nq,) and qvel (nv,) now."""
        ...

    def label(self, quantity: str, index: int) -> str:
        """Name of an entry of qpos or qvel, '' if it has none."""
        ...


@dataclass(frozen=True)
class Divergence:
    """Where a replay first differs from the recording."""

    step: int
    """Physics steps taken."""
    t: float
    """Time of that state [s]."""
    quantity: str
    """For example ``qvel[3] of fr3_joint4``: the entry that differs most at that step."""
    recorded: float
    replayed: float
    size: float
    """|replayed - recorded|, in the quantity's unit."""


@dataclass(frozen=True)
class Replay:
    """Outcome of a replay."""

    steps: int
    compared: int
    """Recorded states compared; between two of them a divergence is seen at the later."""
    first: Divergence | None
    """None means bit-equal at every compared state."""
    largest: float
    """Largest |replayed - recorded| over all compared states and entries."""
    engine_recorded: str
    engine_used: str
    model_differs: bool
    """Whether the model compiled now is known not to be the one that ran."""

    @property
    def bit_equal(self) -> bool:
        """Whether every compared state has the recorded bits."""
        return self.first is None


class MujocoResimulator:
    """MuJoCo on the CPU, one scene.

    Bit-equality holds for the same MuJoCo version on the same kind of processor, and as long as controls are
    all that acted on the scene: forces applied from outside after the start are not in a rollout.
    """

    def __init__(self, rollout: Rollout) -> None:
        self.model = compile_scene(rollout)
        self.data = mujoco.MjData(self.model)
        self.version = f"mujoco {mujoco.__version__}"
        self.model_hash = fingerprint(self.model)
        self._joints = rollout.header.robot.joints

    def restore(self, state: Array) -> None:
        """Take the full state."""
        full = mujoco.mjtState.mjSTATE_INTEGRATION
        size = mujoco.mj_stateSize(self.model, full)
        if state.shape != (size,):
            raise RolloutRefused(f"state0 has shape {state.shape}, this model needs ({size},)")
        mujoco.mj_setState(self.model, self.data, state, full)

    def step(self, ctrl: Array) -> None:
        """One ``mj_step``."""
        if ctrl.shape != (self.model.nu,):
            raise RolloutRefused(f"controls have shape {ctrl.shape}, this model needs ({self.model.nu},)")
        self.data.ctrl[:] = ctrl
        mujoco.mj_step(self.model, self.data)

    def servo(self, stiffness: Array, damping: Array) -> None:
        """Gains of the position servos that drive the joints."""
        drives = {self.model.joint(j).name: a for a, j in enumerate(self.model.actuator_trnid[:, 0])}
        missing = [name for name in self._joints if name not in drives]
        if missing:
            raise RolloutRefused(f"stiffness recorded, but nothing drives the joints {missing}")
        at = [drives[name] for name in self._joints]
        self.model.actuator_gainprm[at, 0] = stiffness
        self.model.actuator_biasprm[at, 1], self.model.actuator_biasprm[at, 2] = -stiffness, -damping

    def state(self) -> tuple[Array, Array]:
        """Copies of qpos and qvel."""
        return self.data.qpos.copy(), self.data.qvel.copy()

    def label(self, quantity: str, index: int) -> str:
        """The joint an entry belongs to."""
        first = self.model.jnt_qposadr if quantity == "qpos" else self.model.jnt_dofadr
        joint = int(np.searchsorted(first, index, side="right")) - 1
        return self.model.joint(joint).name


def replay_mujoco(rollout: Rollout) -> Replay:
    """``replay`` with MuJoCo on the CPU, from the file alone."""
    return replay(rollout, MujocoResimulator)


def replay(rollout: Rollout, make_engine: Callable[[Rollout], Resimulator]) -> Replay:
    """Re-simulate ``rollout`` and compare with its recorded states.

    Raises:
        RolloutRefused: If the file holds no state, controls or recorded states, or physics steps are missing.
    """
    header, at = rollout.header, rollout.path
    if header.state0 is None or header.physics_dt is None:
        raise RolloutRefused(f"{at}: no state at the start (a run on hardware?), it cannot be replayed")
    steps = rollout.physics.step
    if not len(steps) or not np.array_equal(steps, np.arange(len(steps))):
        wrong = steps[np.flatnonzero(steps != np.arange(len(steps)))[:1]].tolist()
        raise RolloutRefused(f"{at}: physics steps must be 0, 1, 2, ...; {len(steps)} of them, wrong at {wrong}")
    if not len(rollout.states.step):
        raise RolloutRefused(f"{at}: no recorded physics states to compare with")
    engine = make_engine(rollout)
    engine.restore(header.state0)
    compared, first, largest = _compare(rollout, engine)
    return Replay(
        steps=len(steps),
        compared=compared,
        first=first,
        largest=largest,
        engine_recorded=f"{header.engine} {header.versions.get(header.engine, '')}".strip(),
        engine_used=engine.version,
        model_differs=bool(header.model_hash and engine.model_hash) and header.model_hash != engine.model_hash,
    )


def _compare(rollout: Rollout, engine: Resimulator) -> tuple[int, Divergence | None, float]:
    recorded = {int(s): i for i, s in enumerate(rollout.states.step)}
    changes = {int(s): i for i, s in enumerate(rollout.servos.step)}
    compared, first, largest = 0, None, 0.0
    for taken in range(len(rollout.physics.step) + 1):
        if taken:
            if (change := changes.get(taken - 1)) is not None:
                engine.servo(rollout.servos.stiffness[change], rollout.servos.damping[change])
            engine.step(rollout.physics.ctrl[taken - 1])
        row = recorded.get(taken)
        if row is None:
            continue
        compared += 1
        found = _difference(rollout, engine, row)
        if found is not None:
            first = first or found
            largest = max(largest, found.size)
    return compared, first, largest


def _difference(rollout: Rollout, engine: Resimulator, row: int) -> Divergence | None:
    """The entry that differs most from recorded state ``row``; None where every bit is equal."""
    header, step = rollout.header, int(rollout.states.step[row])
    worst = None
    for name, replayed in zip(("qpos", "qvel"), engine.state(), strict=True):
        was = getattr(rollout.states, name)[row]
        if was.shape != replayed.shape:
            raise RolloutRefused(f"recorded {name} has shape {was.shape}, the engine's {replayed.shape}")
        differs = was.view(np.uint64) != np.ascontiguousarray(replayed).view(np.uint64)
        if not differs.any():
            continue
        size = np.where(differs, np.nan_to_num(np.abs(replayed - was), nan=np.inf), -1.0)
        i = int(size.argmax())
        if worst is None or size[i] > worst.size:
            label = engine.label(name, i)
            quantity = f"{name}[{i}]" + (f" of {label}" if label else "")
            t = header.t0 + step * (header.physics_dt or 0.0)
            worst = Divergence(step, t, quantity, float(was[i]), float(replayed[i]), float(size[i]))
    return worst
