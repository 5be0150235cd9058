"""How episodes begin on a device: starts drawn ahead by the task, taken in turn by the worlds that need one.

A task draws its starts on the host, with as many tries as it takes; a recorded step cannot wait for that.  So a pool
of them lies on the device, and a world that begins takes the next.  ``Pool.renew`` replaces some from outside the step.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import mujoco
import numpy as np
import torch
from torch import Tensor

from palmar.safety.robot import RobotModel
from palmar.sim.interface import Start, Task
from palmar.sim.starts import scene_positions

Array = np.ndarray


class Pool:
    """P starts on a device, in the order the task drew them."""

    def __init__(
        self,
        task: Task,
        robot: RobotModel,
        model: mujoco.MjModel,
        *,
        size: int,
        first: int,
        rng: np.random.Generator,
        device: str,
    ):
        """Draw ``size`` starts, the ``first`` of them at once, as ``VectorEnv`` does for that many worlds."""
        self._task, self._robot, self._model, self._rng = task, robot, model, rng
        self.size, self._oldest = size, 0
        drawn = [_laid_out(task, robot, model, task.start(rng, robot, k)) for k in (first, size - first) if k]
        rows = {name: np.concatenate([part[name] for part in drawn]) for name in drawn[0]}
        self._rows = {name: torch.as_tensor(value, device=device) for name, value in rows.items()}
        self._next = torch.zeros((), dtype=torch.int64, device=device)

    def like(self, name: str, count: int) -> Tensor:
        """Zeros for ``count`` worlds of what ``take`` gives as ``name``."""
        return torch.zeros_like(self._rows[name][:1].expand(count, *self._rows[name].shape[1:]).contiguous())

    def assign(self, other: Pool) -> None:
        """Take over the starts of a pool of the same size, in place."""
        for name, value in self._rows.items():
            value.copy_(other._rows[name])
        self._next.zero_()
        self._oldest, self._rng = 0, other._rng

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the model fields that differ per episode."""
        return tuple(name.removeprefix("field/") for name in self._rows if name.startswith("field/"))

    def take(self, mask: Tensor) -> dict[str, Tensor]:
        """The next start for each world of ``mask`` (B,), in order; rows of the others mean nothing.  (B, ...) each."""
        count = mask.to(torch.int64).cumsum(0)
        index = (self._next + count - 1).remainder(self.size)
        self._next.copy_((self._next + count[-1]).remainder(self.size))
        return {name: value.index_select(0, index) for name, value in self._rows.items()}

    def renew(self, count: int) -> None:
        """Replace the ``count`` starts that were drawn first.  Draws on the host: not for inside a step."""
        drawn = _laid_out(self._task, self._robot, self._model, self._task.start(self._rng, self._robot, count))
        at = torch.as_tensor((self._oldest + np.arange(count)) % self.size)
        for name, value in self._rows.items():
            value.index_copy_(0, at.to(value.device), torch.as_tensor(drawn[name], device=value.device))
        self._oldest = (self._oldest + count) % self.size


def _laid_out(task: Task, robot: RobotModel, model: mujoco.MjModel, start: Start) -> dict[str, Array]:
    """A start as arrays: ``q``, ``qpos`` of the whole scene, ``poses``, ``goal``, ``mocap`` and ``field/<name>``."""
    qpos = scene_positions(task, robot, model, start)
    rows = {"q": start.q, "qpos": qpos, "poses": start.poses, "goal": np.asarray(start.goal)}
    if start.mocap is not None:
        rows["mocap"] = start.mocap
    fields = with_constants(model, start.fields)
    return rows | {f"field/{name}": value for name, value in fields.items()}


def with_constants(model: mujoco.MjModel, fields: Mapping[str, Array]) -> dict[str, Array]:
    """Fields (k, ...) of k models, with the constants that MuJoCo derives from them (inertia at rest, bounds)."""
    inputs, outputs = (set(getattr(mujoco.MjModel, f"_setconst_{side}")) for side in ("inputs", "outputs"))
    if not fields or not fields.keys() & inputs:
        return dict(fields)
    one, data = copy.copy(model), mujoco.MjData(model)
    derived: dict[str, list[Array]] = {name: [] for name in sorted(outputs) if _is_array(model, name)}
    for k in range(len(next(iter(fields.values())))):
        for name, value in fields.items():
            getattr(one, name)[:] = value[k]
        mujoco.mj_setConst(one, data)
        for name, rows in derived.items():
            rows.append(getattr(one, name).copy())
    changed = {
        name: np.array(rows)
        for name, rows in derived.items()
        if not np.array_equal(rows, [getattr(model, name)] * len(rows))
    }
    return dict(fields) | changed


def _is_array(model: mujoco.MjModel, name: str) -> bool:
    value = getattr(model, name, None)
    return isinstance(value, np.ndarray) and value.size > 0 and value.dtype.kind == "f"
