"""``sim.env.VectorEnv`` on a device: engine ``mujoco_warp``, task and constraints as one recordable step.

Everything a step reads and writes lies in tensors that stay where they are; worlds are chosen by masks; nothing is
read by the host.  On a GPU the whole step is one CUDA graph; on a processor Warp's part of it is one recorded graph
and torch's runs between.  A world whose state is not finite is restarted, counted, and the state it broke from kept.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np
import torch
from torch import Tensor

from palmar.safety.constraints import ConstraintSet
from palmar.safety.robot import RobotModel
from palmar.safety.types import CommandRefused, ConfigError, Measurement
from palmar.sim.device.commands import Commands
from palmar.sim.device.constraints import constraints_on, limits_on
from palmar.sim.device.graph import Recorded
from palmar.sim.device.starts import Pool, with_constants
from palmar.sim.device.tracker import Tracker
from palmar.sim.engines.mujoco_warp import WarpEngine, device_of
from palmar.sim.engines.warp_config import WarpConfig
from palmar.sim.interface import Seen, Step, Task, View
from palmar.sim.robots import scene_of
from palmar.sim.starts import asked_of, drawn_fields

TWINS = {"lift": "Lift", "reach": "Reach"}
"""Tasks written for a device: module and class of ``sim.device``."""


class DeviceEnv:
    """B environments of one task on a device; the interface of ``VectorEnv``.

    Args:
        task: From ``sim.tasks``, one of TWINS.
        robot: The robot the policy commands.
        constraints: Give the cost channels, in this order; None switches costs off (K = 0).
        model: Compiled scene.
        num_envs: B.
        seed: Of every random draw.  The first episodes are those of ``VectorEnv`` with the same seed.
        config: Device and sizes.
        stagger: Start the first episodes at random ages, so that they do not all end together (training).
        numpy: Whether steps are numpy arrays; else tensors on the device.

    Raises:
        ConfigError: If the task is not written for a device.
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
        config: WarpConfig | None = None,
        stagger: bool = False,
        numpy: bool = True,
    ):
        config = config or WarpConfig()
        make_twin, self._pool_size = twin(task), config.pool or 2 * num_envs
        if self._pool_size < num_envs:
            raise ConfigError(f"pool must hold a start for each of {num_envs} worlds, got {self._pool_size}")
        self.task, self.robot, self.constraints, self.num_envs = task, robot, constraints, num_envs
        self.substeps = round(1 / (task.config.rate * model.opt.timestep))
        supply = frozenset(c.margin for c in constraints.constraints) if constraints is not None else frozenset()
        self.engine = engine = WarpEngine(
            model, robot, objects=task.objects, nworld=num_envs, substeps=self.substeps, config=config,
            clearance=constraints is not None, supply=supply, graph=device_of(config.device) == "cpu",
        )  # fmt: skip
        self.device, self.numpy = engine.device, numpy
        self.io = make_twin(task.config, robot, num_envs, self.device)
        self.obs_dim, self.action_dim, self.max_steps = self.io.obs_dim, self.io.action_dim, task.config.max_steps
        self.constraint_names = constraints.names if constraints is not None else ()
        self._held_to = constraints_on(constraints, self.device) if constraints is not None else None
        limits = limits_on(robot.limits, self.device)
        self._commands = Commands(limits, batch=num_envs, substeps=self.substeps, dt=engine.dt)
        self._period, self._stagger = self.substeps * engine.dt, stagger
        self._allocate()
        recorded = self.device != "cpu" and config.graph
        self._step = Recorded(self.control_step, self.device, self._generator) if recorded else self.control_step
        self.reset(seed)

    def _allocate(self) -> None:
        """Everything that a step carries to the next, (B, ...)."""
        b = self.num_envs

        def zeros(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=self.device)

        self.action = zeros(b, self.action_dim)
        """Of the step to come, float64."""
        self._t, self._held, self._peak = zeros(b), zeros(b), zeros(b, 5)
        self._age = zeros(b, dtype=torch.int64)
        self._success, self.everyone = zeros(b, dtype=torch.bool), zeros(b, dtype=torch.bool)
        self.everyone.fill_(True)
        self.broken = zeros(dtype=torch.int64)
        """Worlds that were restarted because their state was not finite, ()."""
        self._before = zeros(b, self.engine.qpos.shape[1] + self.engine.qvel.shape[1])
        self.wreck = torch.full_like(self._before, torch.nan)
        """Positions and velocities from which each world last broke, (B, nq + nv); NaN where it never did."""
        self._generator = torch.Generator(device=self.device)

    def reset(self, seed: int | None = None) -> Any:
        """Start every environment afresh; a seed also redraws friction and mass.  Returns obs (B, d)."""
        engine = self.engine
        if seed is not None:
            self._rng = np.random.default_rng(seed)
            self._generator.manual_seed(seed)
            drawn = drawn_fields(self.task, self.robot, engine.model, self._rng, self.num_envs)
            self._give(with_constants(engine.model, drawn), asked=drawn)
        drawing = {"rng": self._rng, "device": self.device}
        pool = Pool(self.task, self.robot, engine.model, size=self._pool_size, first=self.num_envs, **drawing)
        if not hasattr(self, "pool"):
            self.pool = pool
            for name in pool.fields:
                engine.field(name)
            tracked = {"batch": self.num_envs, "objects": len(self.task.objects), "generator": self._generator}
            self.tracker = Tracker(self.task.config.tracker, **tracked)
            self.goal = pool.like("goal", self.num_envs)
            """What the task's ``start`` drew, (B, ...)."""
            self._carry = self._fresh_carry()
        else:
            self.pool.assign(pool)
        with torch.no_grad():
            self._restart(self.everyone)
            if self._stagger:
                self._age.copy_(torch.as_tensor(self._rng.integers(0, self.max_steps, self.num_envs)))
            obs, _ = self._observe(None)
        return self._out(obs)

    def _give(self, fields: dict[str, Any], *, asked: dict[str, Any]) -> None:
        """Model fields of all worlds; constants that MuJoCo Warp does not keep are none of its business."""
        known = {name: value for name, value in fields.items() if name in asked or self.engine.holds(name)}
        tensors = {name: torch.as_tensor(value, device=self.device) for name, value in known.items()}
        self.engine.set_fields(self.everyone, tensors)

    @torch.no_grad()
    def step(self, action: Any) -> Step:
        """One control step with actions (B, a) in [-1, 1], numpy or torch.

        Raises:
            CommandRefused: If the shape is wrong, or a number of an array that lies on the host is not finite.  On a
                GPU nobody looks: a world with such an action breaks, is restarted and counted.
        """
        action = torch.as_tensor(action)
        if action.shape != self.action.shape:
            raise CommandRefused(f"action has shape {tuple(action.shape)}, need {tuple(self.action.shape)}")
        if not action.is_cuda and not np.isfinite(host := action.detach().numpy()).all():
            raise CommandRefused(f"action of environment {int(np.argwhere(~np.isfinite(host))[0, 0])} is not finite")
        self.action.copy_(action)
        out = self._step()
        info = {name.removeprefix("info/"): self._out(v) for name, v in out.items() if name.startswith("info/")}
        obs, reward, cost = (self._out(out[name]) for name in ("obs", "reward", "cost"))
        return Step(obs, reward, cost, self._out(out["terminated"]), self._out(out["truncated"]), info)

    def check(self) -> None:
        """Raise if contacts or constraints were dropped since the last call; see ``WarpEngine.check``."""
        self.engine.check()

    def renew(self) -> None:
        """Draw as many new episode starts as there are worlds, in place of the oldest; between rollouts."""
        self.pool.renew(self.num_envs)

    def _out(self, value: Tensor) -> Any:
        """What leaves the step: never the memory that the next one writes."""
        return value.cpu().numpy().copy() if self.numpy else value.clone()

    @torch.no_grad()
    def control_step(self) -> dict[str, Tensor]:
        """The step, what is recorded: reads ``action``, returns the parts of ``Step`` by name, ``info/...`` too."""
        engine = self.engine
        self._before.copy_(torch.cat([engine.qpos, engine.qvel], dim=1))
        u, ud, udd, uddd = self._commands.to(self.io.joint_target(self.action))
        samples = engine.advance(u, ud, udd, uddd)
        broken = engine.broken() | ~torch.isfinite(self.action).all(dim=1)
        self._t.add_(self._period)
        self._age.add_(1)
        cost, margin = self._costs(samples)
        position, quaternion = engine.objects()
        self.tracker.update(self._t, position, quaternion)
        wrench = None if samples.wrench is None else samples.wrench[-1]
        obs, hand = self._observe(wrench)
        view = View(
            t=self._t, q=engine.q, qd=engine.qd, hand=hand, tip_radius=self.io.kinematics.tip_radius,
            position=position, quaternion=quaternion, goal=self.goal, samples=samples,
        )  # fmt: skip
        reward = self.io.reward(view, self.action).float()
        held = torch.where(self.io.achieved(view), self._held + self._period, torch.zeros_like(self._held))
        self._held.copy_(held)
        self._success.copy_((self._success | (held >= self.task.config.hold - 1e-9)) & ~broken)
        self._peak.copy_(torch.maximum(self._peak, samples.contact_force.amax(dim=0)))
        terminated = self.io.failed(view) & ~broken
        truncated = ((self._age >= self.max_steps) | broken) & ~terminated
        self._count(broken)
        out = {"info/success": self._success.clone(), "info/peak_force": self._peak.clone()}
        done = terminated | truncated
        self._restart(done)
        fresh, _ = self._observe(None if wrench is None else wrench.masked_fill(done[:, None], 0.0))
        row = broken[:, None]
        return out | {
            "obs": torch.where(done[:, None], fresh, obs),
            "reward": reward.masked_fill(broken, 0.0),
            "cost": cost.masked_fill(row, 0.0),
            "terminated": terminated,
            "truncated": truncated,
            "info/terminal_obs": torch.where(row, fresh, obs),
            "info/margin": margin.masked_fill(row, 0.0),
            "info/broken": broken,
        }

    def _count(self, broken: Tensor) -> None:
        self.broken.add_(broken.sum())
        self.wreck.copy_(torch.where(broken[:, None], self._before, self.wreck))

    def _costs(self, samples: Measurement) -> tuple[Tensor, Tensor]:
        """Costs (B, K) of the interval and its smallest margins (B, K), float32."""
        if self._held_to is None:
            none = torch.zeros(self.num_envs, 0, device=self.device)
            return none, none
        result = self._held_to.over(samples, self._carry, dt=self.engine.dt)
        for name, value in result.carry.items():
            self._carry[name].copy_(value)
        return result.cost.float(), result.margin.float()

    def _observe(self, wrench: Tensor | None) -> tuple[Tensor, Any]:
        e, tracker = self.engine, self.tracker
        return self.io.observe(Seen(e.q, e.qd, tracker.position, tracker.quaternion, self.goal, wrench))

    def _restart(self, mask: Tensor) -> None:
        """Fresh episodes in the worlds of ``mask`` (B,)."""
        start, row = self.pool.take(mask), mask[:, None]
        fields = {name: start[f"field/{name}"] for name in self.pool.fields}
        self.engine.set_fields(mask, fields)
        self.engine.reset(mask, start["qpos"], torch.zeros_like(self.engine.qvel), start.get("mocap"))
        wide = mask.reshape(-1, *[1] * (self.goal.ndim - 1))
        self.goal.copy_(torch.where(wide, start["goal"], self.goal))
        for value in (self._age, self._held, self._t, self._success):
            value.masked_fill_(mask, 0)
        self._peak.masked_fill_(row, 0.0)
        self._commands.reset(mask, start["q"])
        self.io.reset(mask, start["q"])
        self.tracker.reset(mask, start["poses"][..., :3], start["poses"][..., 3:])
        for name, fresh in self._fresh_carry().items():
            old = self._carry[name]
            old.copy_(torch.where(mask.reshape(-1, *[1] * (old.ndim - 1)), fresh, old))

    def _fresh_carry(self) -> dict[str, Tensor]:
        if self._held_to is None:
            return {}
        position, quaternion = self.engine.objects()
        blank = torch.zeros_like(self._t)
        return self._held_to.start(Measurement(*[blank] * 12, object_position=position, object_quaternion=quaternion))


def twin(task: Task) -> Callable[..., Any]:
    """The task's class for a device.

    Raises:
        ConfigError: If there is none.
    """
    if task.name not in TWINS:
        raise ConfigError(f"task {task.name!r} is not written for a device; engine mujoco_warp knows {sorted(TWINS)}")
    return getattr(importlib.import_module(f"palmar.sim.device.{task.name}"), TWINS[task.name])


def make_device_env(
    task: Task,
    robot: RobotModel,
    constraints: ConstraintSet | None,
    *,
    num_envs: int,
    model: mujoco.MjModel | None = None,
    **options: Any,
) -> DeviceEnv:
    """``task`` on engine ``mujoco_warp``, as ``sim.env.make_env``; for the options see ``DeviceEnv``."""
    if model is None:
        model = scene_of(robot, task.furnish)
    return DeviceEnv(task, robot, asked_of(task, constraints), model=model, num_envs=num_envs, **options)
