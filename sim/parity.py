"""Parity of engines: the same worlds, states and commands, and how far apart what they make of them is.

A ``Drive`` is recorded once on engine ``mujoco``; each engine plays it from the same state (``play``) and leaves a
``Trace``; ``compare`` gives a row per quantity and number of control steps.  Engines in other environments of Python
exchange drives and traces as ``.npz`` files.  Tolerances are in ``configs/parity.yaml`` with their reasons.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from palmar.safety.constraints import ConstraintSet
from palmar.safety.geometry import FAR
from palmar.safety.robot import RobotModel
from palmar.safety.types import ConfigError, Measurement
from palmar.sim.interface import Policy, Task, View
from palmar.sim.kinematics import Kinematics

Array = np.ndarray
Trace = dict[str, Array]
"""Quantity to its values after each of the compared steps, (len(steps), B, ...)."""
Advance = Callable[[Array, Array, Array, Array], Measurement]
"""Commands (S, B, n) of a control step to its S measurements; of numpy or of what becomes numpy."""
STATE = ("q", "qd", "tau", "palm_position", "contact_force", "object_position", "object_quaternion")
PHYSICS = ("geom_friction", "body_mass", "body_inertia")
"""Model fields that worlds of a task may differ in."""


@dataclass(frozen=True)
class Drive:
    """What B worlds start from and are told for K control steps of S physics steps."""

    task: str
    """Its name and, after a slash, which part of an episode."""
    qpos: Array
    """(B, nq), representable in float32, so that every engine starts from the same numbers."""
    qvel: Array
    """(B, nv), likewise."""
    goal: Array
    """(B, ...)."""
    commands: Array
    """Joint commands and their derivatives, (K, 4, S, B, n)."""
    actions: Array
    """(K, B, a)."""
    fields: Mapping[str, Array]
    """Model fields that differ per world, (B, ...)."""

    def save(self, path: Path) -> None:
        """Write an ``.npz`` file."""
        rows: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "fields"}
        rows |= {f"field/{name}": value for name, value in self.fields.items()}
        np.savez(path, allow_pickle=False, **rows)

    @staticmethod
    def load(path: Path) -> Drive:
        """Read what ``save`` wrote."""
        with np.load(path, allow_pickle=False) as file:
            rows = dict(file)
        own = {name.removeprefix("field/"): rows.pop(name) for name in list(rows) if name.startswith("field/")}
        return Drive(**{**rows, "task": str(rows["task"])}, fields=own)


def record(env: Any, policy: Policy, *, name: str, seed: int, before: int, steps: int) -> Drive:
    """A drive of ``steps`` control steps, recorded on a ``VectorEnv`` after ``before`` others."""
    obs, carry = env.reset(seed), policy.start(env.num_envs)
    for _ in range(before):
        action, carry = policy.act(obs, carry)
        obs = env.step(action).obs
    engine, commands, actions = env.engine, [], []
    qpos, qvel = (x.astype(np.float32).astype(np.float64) for x in (engine.qpos, engine.qvel))
    goal = env.goal.copy()
    own = {f: value.copy() for f in PHYSICS if (value := engine.batch.expanded(f)) is not None}
    advance = engine.advance
    engine.advance = lambda *sent, **rest: commands.append(np.stack(sent)) or advance(*sent, **rest)
    try:
        for _ in range(steps):
            action, carry = policy.act(obs, carry)
            actions.append(action)
            obs = env.step(action).obs
    finally:
        engine.advance = advance
    return Drive(name, qpos, qvel, goal, np.stack(commands), np.stack(actions), own)


def play(
    advance: Advance, drive: Drive, *, task: Task, robot: RobotModel, constraints: ConstraintSet, dt: float,
    steps: Iterable[int],
) -> Trace:  # fmt: skip
    """What an engine that stands in the drive's state makes of its commands.

    Args:
        advance: The engine's.
        drive: What to do.
        task: For the reward, of the engine's own states.
        robot: For the hand in it.
        constraints: Give the cost channels.
        dt: Physics step [s].
        steps: After which control steps to look; costs are summed up to there.
    """
    wanted, b = sorted(steps), drive.qpos.shape[0]
    kinematics, rows = Kinematics(robot, b), {k: dict[str, Array]() for k in wanted}
    carry: dict[str, Array] = {}
    total = np.zeros((b, len(constraints.names)))
    for k, (sent, action) in enumerate(zip(drive.commands, drive.actions, strict=True), 1):
        samples = _as_numpy(advance(*sent))
        carry = carry or constraints.start(samples.at(0))
        result = constraints.over(samples, carry, dt=dt)
        carry, total = result.carry, total + result.cost
        if k in rows:
            rows[k] = _look(samples, total, constraints.names)
            rows[k]["reward"] = task.reward(_view(samples, drive.goal, kinematics), action)
        if k == wanted[-1]:
            break
    return {name: np.stack([rows[k][name] for k in wanted]) for name in rows[wanted[-1]]}


def compare(
    ours: Trace, theirs: Trace, *, drive: Drive, pair: str, tolerances: Mapping[str, Any],
    objects: tuple[str, ...] = (), touched: Array | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """A row per quantity and step: ``{task, pair, quantity, steps, worlds, error, tolerance, within, worst}``.

    ``error`` is the quantile of ``configs/parity.yaml`` over worlds of the largest difference in each, ``worst`` the
    largest over all.

    Args:
        ours: Of one engine.
        theirs: Of the other.
        drive: What both played.
        pair: Names of both.
        tolerances: From ``load_tolerances``.
        objects: Names; each has rows of its own.
        touched: Worlds in which the robot had touched something by then, (len(steps), B) bool: they are judged by the
            tolerances of ``<task>, touched``.  None judges all alike.
    """
    rows = []
    for name, ours_of, theirs_of in _split(ours, theirs, objects):
        kind = "cost" if name.startswith("cost/") else name.split("/")[0]
        distance = _angles if kind == "object_angle" else lambda a, b: np.abs(a - b)
        for i, k in enumerate(tolerances["steps"]):
            apart = distance(ours_of[i], theirs_of[i])
            worlds = apart.reshape(len(apart), -1).max(axis=1, initial=0.0)
            mark = np.zeros(len(worlds), dtype=bool) if touched is None else touched[i]
            for part, chosen in ((drive.task, ~mark), (f"{drive.task}, touched", mark)):
                if chosen.any():
                    found = _judged(worlds[chosen], part, kind, k, tolerances)
                    rows.append({"task": part, "pair": pair, "quantity": name, "steps": k, **found})
    return rows


def _judged(worlds: Array, part: str, kind: str, steps: int, tolerances: Mapping[str, Any]) -> dict[str, Any]:
    """Differences of worlds (B,) beside the tolerance of a part of a task."""
    most = tolerances["engines"][part][kind][steps]
    error = float(np.quantile(worlds, tolerances["quantile"][part]))
    return {
        "worlds": len(worlds), "error": error, "tolerance": most, "within": bool(error <= most),
        "worst": float(worlds.max()),
    }  # fmt: skip


def _split(ours: Trace, theirs: Trace, objects: tuple[str, ...]) -> Iterable[tuple[str, Array, Array]]:
    """Quantities of two traces, (len(steps), B, ...) each; those of objects one by one where they have names."""
    for name in ours:
        told = name.replace("quaternion", "angle")
        if name.startswith("object_") and objects:
            for m, one in enumerate(objects):
                yield f"{told}/{one}", ours[name][:, :, m : m + 1], theirs[name][:, :, m : m + 1]
        else:
            yield told, ours[name], theirs[name]


def load_tolerances() -> dict[str, Any]:
    """``configs/parity.yaml`` with a number per quantity and count of steps.

    Raises:
        ConfigError: If a quantity has not one number for each count.
    """
    raw = yaml.safe_load((files("palmar.configs") / "parity.yaml").read_text())
    steps = raw["steps"]

    def by_steps(where: str, values: Mapping[str, list[float]]) -> dict[str, dict[int, float]]:
        for name, numbers in values.items():
            if len(numbers) != len(steps) or not all(x >= 0 for x in numbers):
                raise ConfigError(f"parity.yaml: {where}.{name} needs {len(steps)} numbers >= 0, got {numbers}")
        return {name: dict(zip(steps, numbers, strict=True)) for name, numbers in values.items()}

    engines = {task: by_steps(task, values) for task, values in raw["engines"].items()}
    return {**raw, "engines": engines, "environment": by_steps("environment", raw["environment"])}


def _as_numpy(m: Measurement) -> Measurement:
    def plain(x: Any) -> Any:
        return x if x is None else np.asarray(x.cpu() if hasattr(x, "cpu") else x)

    return Measurement(**{f.name: plain(getattr(m, f.name)) for f in fields(m)})


def _look(samples: Measurement, total: Array, names: tuple[str, ...]) -> dict[str, Array]:
    """Quantities of the last sample, and the costs so far."""
    last = samples.at(-1)
    out = {name: getattr(last, name) for name in STATE}
    out |= {name: np.minimum(getattr(last, name), FAR) for name in ("clearance_self", "clearance_table")}
    return out | {f"cost/{name}": total[:, i].copy() for i, name in enumerate(names)}


def _view(samples: Measurement, goal: Array, kinematics: Kinematics) -> View:
    m = samples.at(-1)
    return View(
        t=m.t, q=m.q, qd=m.qd, hand=kinematics.hand(m.q), tip_radius=kinematics.tip_radius,
        position=m.object_position, quaternion=m.object_quaternion, goal=goal, samples=samples,
    )  # fmt: skip


def _angles(a: Array, b: Array) -> Array:
    """Angle between orientations w-x-y-z (..., 4) [rad], (...)."""
    chord = np.minimum(np.linalg.norm(a - b, axis=-1), np.linalg.norm(a + b, axis=-1))
    return 4 * np.arcsin(np.minimum(chord / 2, 1.0))  # well conditioned near zero, as arccos is not
