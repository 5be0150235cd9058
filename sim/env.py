"""Engine, task and constraints joined into a vector environment with costs and auto-reset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from palmar.safety.constraints import ConstraintSet
from palmar.safety.robot import RobotModel
from palmar.safety.types import CommandRefused, Measurement
from palmar.sim.adversary import Adversary, Budget, Limited, Moment, Surface
from palmar.sim.clearance import clearance_routine, regions_routine
from palmar.sim.commands import bounds_of, follow
from palmar.sim.costs import Costs
from palmar.sim.drawn import Drawn
from palmar.sim.engines.mujoco_cpu import MujocoEngine
from palmar.sim.interface import Seen, Step, Task, View
from palmar.sim.kinematics import Hand, Kinematics
from palmar.sim.reality import Reality
from palmar.sim.robots import scene_of
from palmar.sim.starts import asked_of, drawn_fields, scene_positions
from palmar.sim.tracker import Tracker

Array = np.ndarray


class VectorEnv:
    """B environments of one task.  Costs of action ``a_t`` are measured while it acts, at the physics rate.

    Args:
        task: From ``sim.tasks``.
        robot: The robot the policy commands.
        constraints: Give the cost channels, in this order; None switches costs off (K = 0).
        model: Compiled scene.
        num_envs: B.
        seed: Of every random draw; the same seed gives bit-identical runs at any thread count.
        nthread: MuJoCo threads, 0 for all.
        stagger: Start the first episodes at random ages, so that they do not all end together (training).
        dump: Folder for the states of worlds that broke (not finite); made when the first one does.
        reality: How each world differs from the model, in each episode anew; None for not at all.
        adversary: Who pushes and deceives, made of what there is to attack, and the budget; None for nobody.
    """

    def __init__(
        self,
        task: Task,
        robot: RobotModel,
        constraints: ConstraintSet | None,
        *,
        model: mujoco.MjModel,
        num_envs: int,
        seed: int = 0,
        nthread: int = 0,
        stagger: bool = False,
        dump: Path | None = None,
        reality: Reality | None = None,
        adversary: tuple[Callable[[Surface], Adversary], Budget] | None = None,
    ):
        self.task, self.robot, self.constraints, self.num_envs = task, robot, constraints, num_envs
        judged = {} if constraints is None else {
            "clearance": clearance_routine(robot), "regions": regions_routine(robot, constraints),
            "supply": frozenset(c.margin for c in constraints.constraints),
        }  # fmt: skip
        self.engine = MujocoEngine(model, robot, objects=task.objects, nworld=num_envs, nthread=nthread, **judged)
        self.io = task.io(robot, num_envs, nthread=nthread)
        self.obs_dim, self.action_dim, self.max_steps = self.io.obs_dim, self.io.action_dim, task.config.max_steps
        self.constraint_names = constraints.names if constraints is not None else ()
        self.substeps = round(1 / (task.config.rate * self.engine.dt))
        self._period, self._bounds = self.substeps * self.engine.dt, bounds_of(robot.limits)
        self._judged = Costs(constraints, self.engine.dt) if constraints is not None else None
        self._stagger, self._dump, self._reality, self._adversary = stagger, dump, reality, adversary
        self.drawn: Drawn | None = None
        self._seed, self._nthread = seed, nthread
        self._kinematics: Kinematics | None = None
        self._limited: Limited | None = None
        self.broken = 0
        """Worlds that were restarted because their state was not finite."""
        self.reset(seed)

    def reset(self, seed: int | None = None) -> Array:
        """Start every environment afresh; a seed also redraws friction and mass.  Returns obs (B, d)."""
        b, n, everyone = self.num_envs, self.robot.n, np.arange(self.num_envs)
        if seed is not None:
            self.rng, self._seed = np.random.default_rng(seed), seed
            self.engine.set_fields(everyone, drawn_fields(self.task, self.robot, self.engine.model, self.rng, b))
        if self._reality is not None and (seed is not None or self.drawn is None):
            self.drawn = Drawn(
                self._reality, self.engine.model, self.robot, objects=self.task.objects, batch=b, seed=self._seed
            )
        self._u, self._ud, self._udd = np.zeros((b, n)), np.zeros((b, n)), np.zeros((b, n))
        self.goal: Array = np.zeros(b)
        """What the task's ``start`` drew: index of the named object (B,), wanted pose (B, 7), ..."""
        self._mocap: Array | None = None
        self._wrench: Array | None = None
        self._t = np.zeros(b)
        self._age, self._held = np.zeros(b, dtype=int), np.zeros(b)
        self._success = np.zeros(b, dtype=bool)
        self._peak = np.zeros((b, 5))
        self.tracker = Tracker(self.task.config.tracker, batch=b, objects=len(self.task.objects), rng=self.rng)
        self._carry: dict[str, Array] = {}
        self._restart(everyone)
        if self._stagger:
            self._age = self.rng.integers(0, self.max_steps, b)
        self._limited = None
        if self._adversary is not None:
            who, budget = self._adversary
            surface = Surface.of(self.engine.model, self.robot, self.io, budget)
            self._limited = Limited(who(surface), surface, batch=b, period=self._period)
        return self._attacked(self._observe())

    def step(self, action: Array) -> Step:
        """One control step with actions (B, a) in [-1, 1].

        Raises:
            CommandRefused: If the shape is wrong or a number is not finite; nothing is stepped.
        """
        action = np.asarray(action, dtype=np.float64)
        if action.shape != (self.num_envs, self.action_dim):
            raise CommandRefused(f"action has shape {action.shape}, need {(self.num_envs, self.action_dim)}")
        if not np.isfinite(action).all():
            raise CommandRefused(f"action of environment {int(np.argwhere(~np.isfinite(action))[0, 0])} is not finite")
        samples = self._advance(self.io.joint_target(action))
        broken = self.engine.broken()
        if broken.any():
            samples = self._without(samples, np.flatnonzero(broken), action)
        self._t += self._period
        self._age += 1
        cost, margin = self._costs(samples)
        if self.drawn is not None:
            self.drawn.read(samples)
        position, quaternion = self.engine.objects()
        self.tracker.update(self._t, position, quaternion)
        self._wrench = None if samples.wrench is None else samples.wrench[-1]
        obs = self._observe()
        view = self._view(samples, position, quaternion)
        reward = self.task.reward(view, action).astype(np.float32)
        self._held = np.where(self.task.achieved(view), self._held + self._period, 0.0)
        self._success |= self._held >= self.task.config.hold - 1e-9
        self._peak = np.maximum(self._peak, samples.contact_force.max(axis=0))
        terminated = self.task.failed(view) & ~broken
        truncated = ((self._age >= self.max_steps) | broken) & ~terminated
        reward[broken], cost[broken], self._success[broken] = 0.0, 0.0, False
        info = {
            "terminal_obs": obs, "success": self._success.copy(), "margin": margin, "peak_force": self._peak.copy(),
            "broken": broken,
        }  # fmt: skip
        done = np.flatnonzero(terminated | truncated)
        if len(done):
            obs = obs.copy()
            self._restart(done)
            obs[done] = self._observe()[done]
        return Step(self._attacked(obs), reward, cost, terminated, truncated, info)

    def _attacked(self, obs: Array) -> Array:
        """What the policy sees of obs (B, d); the forces of the same attack act during the coming step."""
        if self._limited is None:
            return obs
        e = self.engine
        attack = self._limited.attack(Moment(self._t, obs, e.q, e.qd, *e.objects()))
        e.disturb(attack.wrench, attack.torque)
        return self._limited.perceived(obs, attack)

    def _advance(self, target: Array) -> Measurement:
        """Send the commands that lead to target (B, n), with the task's scripted bodies and stiffness."""
        commands = self._commands(target)
        impedance = getattr(self.io, "impedance", None)
        if impedance is not None:
            self.engine.impedance(*(self.drawn.impedance(*impedance) if self.drawn else impedance))
        times = self._t + self.engine.dt * np.arange(1, self.substeps + 1)[:, None]
        self._mocap = self.task.script(times, self.goal)
        applied = self.drawn.applied(commands[0]) if self.drawn is not None else None
        samples = self.engine.advance(*commands, mocap=self._mocap, applied=applied)
        return samples if self.constraints is None else self.task.sense(samples, self.goal)

    def _view(self, samples: Measurement, position: Array, quaternion: Array) -> View:
        return View(
            t=self._t, q=self.engine.q, qd=self.engine.qd, hand=self._hand(),
            tip_radius=self.io.kinematics.tip_radius, position=position, quaternion=quaternion, goal=self.goal,
            samples=samples, mocap=None if self._mocap is None else self._mocap[-1],
        )  # fmt: skip

    def _hand(self) -> Hand:
        """The true hand: what the policy's side computed where its readings are true."""
        if self.drawn is None or self.drawn.perfect:
            return self.io.hand
        if self._kinematics is None:
            self._kinematics = Kinematics(self.robot, self.num_envs, nthread=self._nthread)
        return self._kinematics.hand(self.engine.q)

    def _without(self, samples: Measurement, ids: Array, action: Array) -> Measurement:
        """Count, dump and restart worlds whose state means nothing; their samples become those of the fresh start."""
        self.broken += len(ids)
        if self._dump is not None:
            self._dump.mkdir(parents=True, exist_ok=True)
            np.savez(
                self._dump / f"broken_{self.broken}.npz", worlds=ids, t=self._t[ids], action=action[ids],
                state=self.engine.before[ids], goal=self.goal[ids],
            )  # fmt: skip
        self._restart(ids)
        now = self.engine.measure()
        if self.constraints is not None:
            stacked = now.at(np.newaxis)
            now = self.task.sense(stacked, self.goal).at(0)
        fields = {}
        for name in Measurement.__dataclass_fields__:
            value, fresh = getattr(samples, name), getattr(now, name)
            if value is not None and fresh is not None:
                value = value.copy()
                value[:, ids] = fresh[ids]
            fields[name] = value
        return Measurement(**fields)

    def _commands(self, target: Array) -> tuple[Array, Array, Array, Array]:
        """Joint commands and derivatives at each physics step of the interval, (S, B, n) each."""
        out = np.empty((4, self.substeps, *target.shape))
        start, target = self._reference, np.array(target, dtype=np.float64, order="C")
        follow(self._bounds, start, target, self._period, self.engine.dt, self._u, self._ud, self._udd, out)
        self._reference = target
        return out[0], out[1], out[2], out[3]

    def _costs(self, samples: Measurement) -> tuple[Array, Array]:
        """Costs (B, K) of the interval and its smallest margins (B, K), float32."""
        if self._judged is None:
            return np.zeros((self.num_envs, 0), np.float32), np.zeros((self.num_envs, 0), np.float32)
        result = self._judged.over(samples, self._carry)
        self._carry = result.carry
        return result.cost.astype(np.float32), result.margin.astype(np.float32)

    def _observe(self) -> Array:
        e, tracker = self.engine, self.tracker
        q, qd, wrench = e.q, e.qd, self._wrench
        if self.drawn is not None:
            sensors = self.drawn.sensors
            q, qd, wrench = sensors.q, sensors.qd, None if wrench is None else sensors.wrench
        return self.io.observe(Seen(q, qd, tracker.position, tracker.quaternion, self.goal, wrench))

    def _restart(self, ids: Array) -> None:
        """Fresh episodes for environments ``ids``."""
        start = self.task.start(self.rng, self.robot, len(ids))
        q, goal, fields = start.q, start.goal, start.fields
        if self.drawn is not None:
            fields, poses = self.drawn.fields(fields, start.poses)
            start = replace(start, poses=poses)
        model, poses = self.engine.model, start.poses
        self.engine.set_fields(ids, fields)
        qpos = scene_positions(self.task, self.robot, model, start)
        self.engine.reset(ids, qpos, np.zeros((len(ids), model.nv)), start.mocap)
        if self.goal.shape[1:] != goal.shape[1:] or self.goal.dtype != goal.dtype:
            self.goal = np.zeros((self.num_envs, *goal.shape[1:]), goal.dtype)
        self.goal[ids], self._age[ids], self._held[ids], self._t[ids] = goal, 0, 0.0, 0.0
        self._success[ids], self._peak[ids] = False, 0.0
        if self._wrench is not None:
            self._wrench = self._wrench.copy()
            self._wrench[ids] = 0.0
        self._u[ids], self._ud[ids], self._udd[ids] = q, 0.0, 0.0
        if self.drawn is not None:
            self.drawn.restart(ids, dict(fields), q)
        self.io.reset(ids, q)
        self._reference = self._u.copy() if len(ids) == self.num_envs else self._reference
        self._reference[ids] = q
        self.tracker.reset(ids, self._t[ids], poses[..., :3], poses[..., 3:])
        self._restart_carry(ids)

    def _restart_carry(self, ids: Array) -> None:
        if self.constraints is None:
            return
        position, quaternion = self.engine.objects()
        blank = np.zeros(self.num_envs)
        m = Measurement(*[blank] * 12, object_position=position, object_quaternion=quaternion)
        for name, fresh in self.constraints.start(m).items():
            self._carry.setdefault(name, fresh)[ids] = fresh[ids]


def make_env(
    task: Task,
    robot: RobotModel,
    constraints: ConstraintSet | None,
    *,
    num_envs: int,
    model: mujoco.MjModel | None = None,
    **options: Any,
) -> VectorEnv:
    """A vector environment of ``task`` on engine ``mujoco``, in our scene or a given ``model`` of it.

    ``constraints`` None switches costs off; the task's own choice of them is made here.  For the options see
    ``VectorEnv``.
    """
    if model is None:
        model = scene_of(robot, task.furnish)
    return VectorEnv(task, robot, asked_of(task, constraints), model=model, num_envs=num_envs, **options)
