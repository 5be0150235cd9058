"""A reality as drawn for B running worlds: what an environment asks of it at each step.

Holds what lasts from step to step (readings, commands under way) and a generator of its own, so that an environment
draws the same starts and goals whatever is randomised.  Order of an episode: ``fields`` before the engine's reset,
``restart`` after it; in each step ``applied`` before the engine advances and ``read`` after.
"""

from __future__ import annotations

from collections.abc import Mapping

import mujoco
import numpy as np

from palmar.safety.robot import RobotModel
from palmar.safety.types import Measurement
from palmar.sim import actuators, randomize, reality
from palmar.sim.randomize import Fields, Parts
from palmar.sim.reality import Reality
from palmar.sim.sensors import SensorConfig, Sensors

Array = np.ndarray


class Drawn:
    """B worlds that differ from the model, each in its own way and in each episode anew.

    Args:
        config: What may differ, and how much.
        model: The compiled scene.
        robot: Its joints.
        objects: Names of the free bodies.
        batch: B.
        seed: Of every draw.
    """

    def __init__(
        self,
        config: Reality,
        model: mujoco.MjModel,
        robot: RobotModel,
        *,
        objects: tuple[str, ...],
        batch: int,
        seed: int,
    ):
        self.config, self.robot, self._model, self._dt = config, robot, model, float(model.opt.timestep)
        self._parts = Parts.of(model, robot, objects)
        self._rng = np.random.default_rng([seed, 1])  # not the environment's own stream
        self.sensors = Sensors(config.sensors, robot, batch=batch, dt=self._dt, rng=self._rng)
        still = np.zeros((batch, robot.n))
        depth = actuators.depth(config.actuators, dt=self._dt)
        self._line = actuators.start(np.zeros(still.shape, dtype=int), still, depth=depth)
        self._servo = np.ones((2, batch, robot.n))

    @property
    def perfect(self) -> bool:
        """Whether readings are the truth; if not, a task's view of the hand needs kinematics of its own."""
        return self.config.sensors == SensorConfig()

    def fields(self, given: Mapping[str, Array], poses: Array) -> tuple[Fields, Array]:
        """Fields of k fresh episodes, and where their objects then stand.

        Args:
            given: What the task drew, (k, ...) each.
            poses: Its objects' start poses, (k, m, 7); with a size of their own they keep standing on the table.
        """
        k = len(poses)
        out = reality.draw(self._model, self.robot, self._parts, self.config, self._rng, k, given=given)
        return out, randomize.standing(poses, self._model, self._parts, before=given, after=out)

    def restart(self, ids: Array, fields: Fields, q: Array, wrench: Array | None = None) -> None:
        """Fresh episodes for worlds ``ids`` (k,) with what was drawn for them, at rest at q (k, n) at time 0.

        The wrist reads ``wrench`` (k, 6), zero if None.
        """
        self._servo[:, ids] = self._factors(fields)
        still = np.zeros_like(q)
        wrench = np.zeros((len(ids), 6)) if wrench is None else wrench
        self.sensors.reset(ids, np.zeros(len(ids)), q, still, still, wrench)
        delay = actuators.draw_delay(self.config.actuators, self.robot, self._rng, len(ids), dt=self._dt)
        self._line = actuators.restart(self._line, ids, delay, q)

    def impedance(self, stiffness: Array, damping: Array) -> tuple[Array, Array]:
        """What the servos make of stiffness [N m/rad] and damping [N m s/rad] asked for, (B, n) each."""
        return stiffness * self._servo[0], damping * self._servo[1]

    def applied(self, u: Array) -> Array:
        """What the servos follow while commands u (S, B, n) are sent [rad]."""
        jitter = actuators.draw_jitter(self.config.actuators, self.robot, self._rng, u.shape[:2], dt=self._dt)
        out, self._line = actuators.send(self._line, u, jitter)
        return out

    def read(self, samples: Measurement) -> None:
        """Let the sensors see the samples (S, B, ...) of a control step."""
        wrench = np.zeros((*samples.t.shape, 6)) if samples.wrench is None else samples.wrench
        self.sensors.update(samples.t, samples.q, samples.qd, samples.tau, wrench)

    def _factors(self, fields: Fields) -> Array:
        """Drawn over believed stiffness and damping of the servos, (2, k, n), or ones where nothing is drawn."""
        act, model = self._parts.actuators, self._model
        if "actuator_gainprm" not in fields:
            return np.ones((2, 1, self.robot.n))
        gain = fields["actuator_gainprm"][:, act, 0] / model.actuator_gainprm[act, 0]
        return np.stack([gain, fields["actuator_biasprm"][:, act, 2] / model.actuator_biasprm[act, 2]])
