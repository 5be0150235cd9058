"""Engine, task and constraints joined into a vector environment with costs and auto-reset."""

from __future__ import annotations

import os
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from palmar.safety import tracking
from palmar.safety.constraints import ConstraintSet
from palmar.safety.geometry import FAR, Kinematics, PoseGeometry
from palmar.safety.obstacles import keep_outs
from palmar.safety.robot import RobotModel
from palmar.safety.sight import joint_regions, pose_regions
from palmar.safety.types import CommandRefused, Measurement
from palmar.sim import scene
from palmar.sim.engines.mujoco_cpu import Clearance, MujocoEngine, Regions
from palmar.sim.interface import Seen, Step, Task, View
from palmar.sim.latency import Tracker
from palmar.sim.robots import arm_and_hand

Array = np.ndarray
THREADS = min(4, os.cpu_count() or 1)
"""Threads that share out clearances."""


class VectorEnv:
    """B environments of one task.  Costs of action ``a_t`` are measured while it acts, at the physics rate.

    Args:
        task: From ``sim.tasks``.
        robot: The robot the policy commands.
        constraints: Give the cost channels, in this order; None switches costs off (K = 0).
        model: Compiled scene.
        num_envs: B.
        seed: Of every random draw; the same seed gives bit-identical runs at any thread count.
        clearance: Distance routine, see ``MujocoEngine``.
        nthread: MuJoCo threads, 0 for all.
        stagger: Start the first episodes at random ages, so that they do not all end together (training).
        dump: Folder for the states of worlds that broke (not finite); made when the first one does.
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
        clearance: Clearance | None = None,
        nthread: int = 0,
        stagger: bool = False,
        dump: Path | None = None,
    ):
        self.task, self.robot, self.constraints, self.num_envs = task, robot, constraints, num_envs
        self.engine = MujocoEngine(
            model, robot, objects=task.objects, nworld=num_envs, nthread=nthread,
            clearance=clearance if constraints is not None else None,
            regions=regions_routine(robot, model, constraints) if constraints is not None else None,
            supply=frozenset(c.margin for c in constraints.constraints) if constraints is not None else frozenset(),
        )  # fmt: skip
        self.io = task.io(robot, num_envs, nthread=nthread)
        self.obs_dim, self.action_dim, self.max_steps = (
            self.io.obs_dim,
            self.io.action_dim,
            task.config.max_steps,
        )
        self.constraint_names = constraints.names if constraints is not None else ()
        self.substeps = round(1 / (task.config.rate * self.engine.dt))
        self._period = self.substeps * self.engine.dt
        self._stagger, self._dump = stagger, dump
        self.broken = 0
        """Worlds that were restarted because their state was not finite."""
        self.reset(seed)

    def reset(self, seed: int | None = None) -> Array:
        """Start every environment afresh; a seed also redraws friction and mass.  Returns obs (B, d)."""
        b, n = self.num_envs, self.robot.n
        if seed is not None:
            self.rng = np.random.default_rng(seed)
            self._draw_physics()
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
        self._restart(np.arange(b))
        if self._stagger:
            self._age = self.rng.integers(0, self.max_steps, b)
        return self._observe()

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
        return Step(obs, reward, cost, terminated, truncated, info)

    def _advance(self, target: Array) -> Measurement:
        """Send the commands that lead to target (B, n), with the task's scripted bodies and stiffness."""
        commands = self._commands(target)
        impedance = getattr(self.io, "impedance", None)
        if impedance is not None:
            self.engine.impedance(*impedance)
        times = self._t + self.engine.dt * np.arange(1, self.substeps + 1)[:, None]
        self._mocap = self.task.script(times, self.goal)
        samples = self.engine.advance(*commands, mocap=self._mocap)
        return samples if self.constraints is None else self.task.sense(samples, self.goal)

    def _view(self, samples: Measurement, position: Array, quaternion: Array) -> View:
        return View(
            t=self._t, q=self.engine.q, qd=self.engine.qd, hand=self.io.hand,
            tip_radius=self.io.kinematics.tip_radius, position=position, quaternion=quaternion, goal=self.goal,
            samples=samples, mocap=None if self._mocap is None else self._mocap[-1],
        )  # fmt: skip

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
        start = self._reference
        dt, limits = self.engine.dt, self.robot.limits
        out = np.empty((4, self.substeps, *target.shape))
        for s in range(self.substeps):
            r, rd = tracking.interpolate(start, target, phase=(s + 1) / (self.substeps + 1e-9), period=self._period)
            x = tracking.toward(self._u, self._ud, r, rd)
            x = tracking.box_limited(x, self._udd, self._u, self._ud, limits=limits, dt=dt)
            out[3, s] = (x - self._udd) / dt
            self._u, self._ud = tracking.integrate(self._u, self._ud, x, dt=dt)
            self._udd = x
            out[0, s], out[1, s], out[2, s] = self._u, self._ud, x
        self._reference = target.copy()
        return out[0], out[1], out[2], out[3]

    def _costs(self, samples: Measurement) -> tuple[Array, Array]:
        """Costs (B, K) of the interval and its smallest margins (B, K), float32."""
        if self.constraints is None:
            return np.zeros((self.num_envs, 0), np.float32), np.zeros((self.num_envs, 0), np.float32)
        result = self.constraints.over(samples, self._carry, dt=self.engine.dt)
        self._carry = result.carry
        return result.cost.astype(np.float32), result.margin.astype(np.float32)

    def _observe(self) -> Array:
        e, tracker = self.engine, self.tracker
        return self.io.observe(Seen(e.q, e.qd, tracker.position, tracker.quaternion, self.goal, self._wrench))

    def _restart(self, ids: Array) -> None:
        """Fresh episodes for environments ``ids``."""
        start = self.task.start(self.rng, self.robot, len(ids))
        q, poses, goal, model = start.q, start.poses, start.goal, self.engine.model
        self.engine.set_fields(ids, start.fields)
        qpos = np.tile(model.qpos0, (len(ids), 1))
        for k, joint in enumerate(self.robot.joints):
            qpos[:, model.joint(joint).qposadr[0]] = q[:, k]
        for m, name in enumerate(self.task.objects):
            adr = model.joint(f"{name}_free").qposadr[0]
            qpos[:, adr : adr + 7] = poses[:, m]
        self.engine.reset(ids, qpos, np.zeros((len(ids), model.nv)), start.mocap)
        if self.goal.shape[1:] != goal.shape[1:] or self.goal.dtype != goal.dtype:
            self.goal = np.zeros((self.num_envs, *goal.shape[1:]), goal.dtype)
        self.goal[ids], self._age[ids], self._held[ids], self._t[ids] = goal, 0, 0.0, 0.0
        self._success[ids], self._peak[ids] = False, 0.0
        if self._wrench is not None:
            self._wrench = self._wrench.copy()
            self._wrench[ids] = 0.0
        self._u[ids], self._ud[ids], self._udd[ids] = q, 0.0, 0.0
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

    def _draw_physics(self) -> None:
        """Friction of tips and blocks and mass of blocks, one draw per world."""
        c, b, model, batch = self.task.config, self.num_envs, self.engine.model, self.engine.batch
        if not self.task.objects:
            return
        if c.friction is not None:
            friction, mu = batch.expand("geom_friction"), self.rng.uniform(c.friction[0], c.friction[1], b)
            for name in self.robot.tip_geoms:
                friction[:, model.geom(name).id, 0] = mu
            for name in self.task.objects:
                first = model.body(name).geomadr[0]
                friction[:, first : first + model.body(name).geomnum[0], 0] = mu[:, None]
        mass = self.rng.uniform(c.mass[0], c.mass[1], (b, len(self.task.objects)))
        body_mass, inertia = batch.expand("body_mass"), batch.expand("body_inertia")
        for m, name in enumerate(self.task.objects):
            body = model.body(name).id
            body_mass[:, body] = mass[:, m]
            inertia[:, body] = model.body_inertia[body] * (mass[:, m] / model.body_mass[body])[:, None]
        batch.set_const()


def clearance_routine(robot: RobotModel, model: mujoco.MjModel) -> Clearance:
    """The filter's distance routine over a scene's recorded poses, or over joints where its geoms differ."""
    kinematics = Kinematics.from_model(robot)
    columns = [model.geom(g).name for g in range(model.ngeom)]
    if kinematics.plain and all(g in columns for g in kinematics.geoms):
        return partial(_from_poses, kinematics.batch(columns), ThreadPoolExecutor(THREADS))

    def from_joints(q: Array, xpos: Array, xmat: Array) -> tuple[Array, Array]:
        rows = [kinematics.clearances(row, near=FAR) for row in q.reshape(-1, q.shape[-1])]
        own, table = (np.array([r[k].min() for r in rows]).reshape(q.shape[:-1]) for k in (0, 1))
        return np.minimum(own, FAR), table

    return from_joints


def regions_routine(robot: RobotModel, model: mujoco.MjModel, constraints: ConstraintSet) -> Regions | None:
    """The filter's distances to the keep-out regions of a constraint file; None where it has none."""
    rows = tuple(c.name for c in constraints.constraints if c.margin == "keep_out")
    if not rows:
        return None
    obstacles = keep_outs(constraints.select(rows), 0.0)
    kinematics = Kinematics.from_model(robot)
    columns = [model.geom(g).name for g in range(model.ngeom)]
    if not (kinematics.plain and all(g in columns for g in kinematics.geoms)):
        return lambda q, xpos, xmat: joint_regions(kinematics, obstacles, q)
    geometry = kinematics.batch(columns)
    return lambda q, xpos, xmat: pose_regions(geometry, obstacles, xpos, xmat.reshape(*xmat.shape[:-2], -1, 9))


def _from_poses(geometry: PoseGeometry, pool: Executor, q: Array, xpos: Array, xmat: Array) -> tuple[Array, Array]:
    """Clearances of recorded poses; many are shared out over threads (the kernel holds no lock)."""
    xmat = xmat.reshape(*xmat.shape[:-2], -1, 9)
    if xpos.ndim < 3 or len(xpos) < 2 * THREADS:
        return geometry.clearances(xpos, xmat)
    parts = pool.map(geometry.clearances, np.array_split(xpos, THREADS), np.array_split(xmat, THREADS))
    own, table = zip(*parts, strict=True)
    return np.concatenate(own), np.concatenate(table)


def make_env(
    task: Any,
    robot: RobotModel,
    constraints: ConstraintSet | None,
    *,
    num_envs: int,
    seed: int = 0,
    nthread: int = 0,
    stagger: bool = False,
    dump: Path | None = None,
    model: mujoco.MjModel | None = None,
) -> VectorEnv:
    """A vector environment of ``task`` on engine ``mujoco``, in our scene or a given ``model`` of it.

    ``constraints`` None switches costs off.  See ``VectorEnv``.
    """
    if model is None:
        arm, hand = arm_and_hand(robot.name)
        model = scene.compose(arm=arm, hand=hand, furnish=task.furnish)[0]
    names = tuple(task.config.constraints)
    return VectorEnv(
        task,
        robot,
        constraints.select(names) if constraints is not None and names else constraints,
        model=model,
        num_envs=num_envs,
        seed=seed,
        nthread=nthread,
        stagger=stagger,
        dump=dump,
        clearance=clearance_routine(robot, model) if constraints is not None else None,
    )
