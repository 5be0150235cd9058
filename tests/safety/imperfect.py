"""The simulated robot alone, at 1 kHz, with masses, payload, delay and sensors at given bounds.

The twin's physics without processes and clocks: what the laws about the *true* robot are counted on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import mujoco
import numpy as np

from palmar.safety.declared import Declared
from palmar.safety.filter import Filter
from palmar.safety.robot import RobotModel
from palmar.safety.types import Chunk, CommandRefused, RobotState, State, Verdict

Array = np.ndarray
DT = 0.001


class Imperfect:
    """A robot whose servos follow delayed commands and whose links weigh something else than the model says."""

    def __init__(
        self,
        robot: RobotModel,
        model: mujoco.MjModel,
        *,
        declared: Declared,
        rng: np.random.Generator,
        mass: float = 0.0,
        payload: float = 0.0,
        delay: int = 0,
    ) -> None:
        """A robot at home.

        Args:
            robot: The robot the filter believes in.
            model: Scene with its joints and actuators, from ``scene.compose``; changed in place.
            declared: Bounds; the noise of the sensors is taken from it.
            rng: Draws noise and, within ``mass``, each link's error.
            mass: Relative bound of the error of each link's mass and inertia.
            payload: Mass at the palm that gravity compensation knows nothing of [kg].
            delay: Age of the command the servos follow [ticks].
        """
        self.robot, self.model, self.rng, self.declared = robot, model, rng, declared
        model.opt.timestep = DT
        scale = 1.0 + mass * rng.choice([-1.0, 1.0], model.nbody)
        if payload:
            palm = model.body(robot.palm_body).id
            # Compensation lifts gravcomp * mass: the added mass must stay uncompensated.
            total = model.body_mass[palm] * scale[palm] + payload
            model.body_gravcomp[palm] *= model.body_mass[palm] * scale[palm] / total
            model.body_inertia[palm] += payload * 0.02**2
            scale[palm] = total / model.body_mass[palm]
        model.body_mass *= scale
        model.body_inertia *= scale[:, None]
        self.data = mujoco.MjData(model)
        mujoco.mj_setConst(model, self.data)
        self.qadr = np.array([model.joint(j).qposadr[0] for j in robot.joints])
        self.vadr = np.array([model.joint(j).dofadr[0] for j in robot.joints])
        self.act = np.array([model.actuator(j).id for j in robot.joints])
        self._late: deque[Array] = deque(maxlen=delay + 1)
        self.ticks = 0
        self.reset(np.asarray(robot.home))

    def reset(self, q: Array) -> None:
        """At rest at q (n,)."""
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[self.qadr], self.data.ctrl[self.act] = q, q
        mujoco.mj_forward(self.model, self.data)
        self._late.clear()
        self.ticks = 0

    @property
    def q(self) -> Array:
        """True joint positions [rad], (n,)."""
        return self.data.qpos[self.qadr]

    def read(self) -> RobotState:
        """What the sensors say."""
        d, n = self.declared, self.robot.n
        q = self.data.qpos[self.qadr] + d.q_noise * self.rng.standard_normal(n)
        qd = self.data.qvel[self.vadr] + d.qd_noise * self.rng.standard_normal(n)
        return RobotState(self.ticks * DT, self.ticks, q, qd, self.data.actuator_force[self.act].copy())

    def step(self, u: Array) -> None:
        """Send u (n,) and let a millisecond pass."""
        self._late.append(u.copy())
        self.data.ctrl[self.act] = self._late[0]
        mujoco.mj_step(self.model, self.data)
        self.ticks += 1


def drive(
    filter_: Filter, sim: Imperfect, chunk: Callable[[int, float, Array], Chunk | None], ticks: int
) -> Iterator[tuple[Array, Verdict]]:
    """Let a filter drive the robot for some ticks; what was sent (n,) and the verdict, after each.

    Args:
        filter_: New; it is started where the robot is.
        sim: The robot, at rest.
        chunk: What a policy publishes before tick k at time t, given the last command.
        ticks: How many.
    """
    filter_.start(sim.read())
    for k in range(ticks):
        now = (k + 1) * DT
        published = chunk(k, now, filter_.u)
        try:
            if published is not None:
                filter_.offer(published)
            if filter_.state is State.LATCHED:
                filter_.reset()
        except CommandRefused:
            pass
        command, verdict = filter_.tick(sim.read(), now)
        sim.step(command.q)
        yield command.q, verdict
