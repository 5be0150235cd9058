"""The twin's physics in process and by an injected clock: one robot at its table, a millisecond per call.

Imperfect as ``real_robot.twin`` is: latency, noise and quantisation of its readings, and a drive that holds when
commands stay away.  No shared memory and no wall clock, so a second of motion takes a tenth of one.
"""

from __future__ import annotations

from collections import deque
from functools import cache

import mujoco
import numpy as np

from palmar.real_robot.config import TwinConfig
from palmar.real_robot.twin import DT
from palmar.real_robot.twin_scene import lift_world
from palmar.safety.robot import RobotModel
from palmar.safety.types import RobotState as Reading
from palmar.sim.robots import load_robot

Array = np.ndarray


@cache
def robot_and_world(seed: int) -> tuple[RobotModel, mujoco.MjModel, Array]:
    """The shipped robot, the world of its task and a start of it, compiled once per process."""
    robot = load_robot()
    world = lift_world(robot, "lift the red block", seed=seed, dt=DT)
    return robot, mujoco.MjModel.from_xml_string(world.xml), np.array(world.qpos)


class Plant:
    """A robot that follows commands as well as its servos can."""

    def __init__(self, *, seed: int, config: TwinConfig | None = None, start: Array | None = None) -> None:
        """At rest.

        Args:
            seed: Of the noise; the world is that of seed 0.
            config: Imperfections of the readings; None for the twin's.
            start: Joint positions [rad], (n,); None for the task's.
        """
        self.robot, self.model, qpos = robot_and_world(0)
        self.config = config or TwinConfig()
        self.data, self.rng = mujoco.MjData(self.model), np.random.default_rng(seed)
        joints = [self.model.joint(j) for j in self.robot.joints]
        self._q = np.array([j.qposadr[0] for j in joints])
        self._v = np.array([j.dofadr[0] for j in joints])
        self._u = np.array([self.model.actuator(j).id for j in self.robot.joints])
        self.data.qpos[:] = qpos
        if start is not None:
            self.data.qpos[self._q] = start
        self.data.ctrl[self._u] = self.data.qpos[self._q]
        self._late: deque[tuple[Array, Array, Array]] = deque(maxlen=self.config.latency + 1)
        self.seq = self._missed = 0
        self.halted = False
        self.now = 100.0
        """Monotonic time of the last step [s]."""
        for _ in range(self.config.latency + 1):
            self.step(self.data.qpos[self._q].copy())

    @property
    def q(self) -> Array:
        """True joint positions [rad], (n,)."""
        return self.data.qpos[self._q]

    def step(self, command: Array | None) -> None:
        """Advance a millisecond; no command for ``TwinConfig.watchdog`` of them halts the drives where they are."""
        self._missed = 0 if command is not None else self._missed + 1
        if command is not None and not self.halted:
            low, high = self.model.actuator_ctrlrange[self._u].T
            self.data.ctrl[self._u] = np.clip(command, low, high)
        elif self._missed == self.config.watchdog:
            self.halted = True
            self.data.ctrl[self._u] = self.q
        before = self.q.copy(), self.data.qvel[self._v].copy()
        mujoco.mj_step(self.model, self.data)
        self._late.append((*before, self.data.qfrc_actuator[self._v].copy()))
        self.seq += 1
        self.now += DT

    def read(self) -> Reading:
        """The newest delivered reading, with its noise."""
        c, (q, qd, tau) = self.config, self._late[0]
        q = q + c.q_noise * self.rng.standard_normal(len(q))
        qd = qd + c.qd_noise * self.rng.standard_normal(len(q))
        return Reading(self.now - DT, self.seq, np.round(q / c.q_step) * c.q_step, qd, tau)
