"""The world of a deployment's twin: the task's blocks on the table, and what counts as success there."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import mujoco
import numpy as np

from palmar.safety.robot import RobotModel
from palmar.sim import scene
from palmar.sim.robots import arm_and_hand
from palmar.sim.tasks.lift import LiftConfig, LiftTask, ground

Array = np.ndarray


@dataclass(frozen=True)
class World:
    """Where a run starts."""

    xml: str
    """MJCF with the twin's step."""
    objects: tuple[str, ...]
    blocks: tuple[dict[str, Any], ...]
    qpos: tuple[float, ...]
    target: int
    """Index of the block that the instruction names."""


def lift_world(robot: RobotModel, instruction: str, *, seed: int, dt: float) -> World:
    """A random start of the task ``lift``.

    Raises:
        PalmarError: If the instruction names no block, or more than one, or there is no scene of this robot.
    """
    task, target = LiftTask(LiftConfig()), ground(instruction)
    arm, hand = arm_and_hand(robot.name)
    spec = scene.scene_spec(arm=arm, hand=hand, furnish=task.furnish)
    spec.option.timestep = dt
    model = spec.compile()
    episode = task.start(np.random.default_rng(seed), robot, 1)
    data = mujoco.MjData(model)
    for k, name in enumerate(robot.joints):
        data.joint(name).qpos[0] = episode.q[0, k]
    for k, block in enumerate(task.blocks):
        data.joint(f"{block.name}_free").qpos[:] = episode.poses[0, k]
    return World(spec.to_xml(), task.objects, tuple(asdict(b) for b in task.blocks), tuple(data.qpos.tolist()), target)


class Success:
    """Whether the named block, and only that one, has been up for long enough."""

    OTHERS = 0.03
    """How far the other blocks may rise [m]."""

    def __init__(self, target: int):
        self._config, self._target = LiftConfig(), target
        self._since: float | None = None

    def update(self, t: float, position: Array, start: Array) -> bool:
        """Take the true positions (m, 3) now, at time t [s], and where they were at the start."""
        rise = position[:, 2] - start[:, 2]
        others = np.delete(rise, self._target)
        if rise[self._target] < self._config.height or np.any(others >= self.OTHERS):
            self._since = None
            return False
        self._since = t if self._since is None else self._since
        return t - self._since >= self._config.hold
