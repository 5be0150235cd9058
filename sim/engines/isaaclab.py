"""Engine ``isaaclab``: Palmar's tasks as a ``DirectRLEnv`` of Isaac Lab 3, with the costs of the constraint file.

Same episodes as ``palmar.sim.env``, and drawn in the same order: equal seeds start equal worlds.  Commands, measurement
and costs are torch on the simulation's device; what the policy sees and what is rewarded are the task's own functions,
over numpy, once per control step.  ``extras["cost"]`` is (B, K) in the order of ``constraint_names``.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import numpy as np
import torch
import yaml
from isaaclab.envs import DirectRLEnv
from torch import Tensor

from palmar.safety import config as loader
from palmar.safety import constraints as constraint_file
from palmar.safety.constraints import ConstraintSet
from palmar.safety.robot import RobotModel
from palmar.safety.types import CommandRefused, ConfigError, Measurement
from palmar.sim.device.commands import Commands
from palmar.sim.device.constraints import limits_on
from palmar.sim.engines import isaaclab_model
from palmar.sim.engines.isaaclab_cfg import PalmarEnvCfg
from palmar.sim.engines.isaaclab_plant import DTYPE, Plant
from palmar.sim.engines.isaaclab_scene import scene_of
from palmar.sim.interface import Seen, Start, Task, View
from palmar.sim.robots import load_robot
from palmar.sim.starts import asked_of, drawn_contents
from palmar.sim.tasks import find
from palmar.sim.tracker import Tracker

Array = np.ndarray


def parts_of(cfg: PalmarEnvCfg) -> tuple[Task, RobotModel, ConstraintSet | None]:
    """Task, robot and constraints that a configuration names.

    Raises:
        ConfigError: If one is unknown or a value impossible.
    """
    found, configs = find.load(cfg.task), files("palmar.configs")
    values = yaml.safe_load((configs / "task" / f"{cfg.task}.yaml").read_text()) | dict(cfg.task_values)
    task, robot = found.task(loader.load(found.config, values, where="task")), load_robot(cfg.robot)
    if not cfg.constraints:
        return task, robot, None
    known = sorted(p.name.removesuffix(".yaml") for p in (configs / "constraints").iterdir())
    if cfg.constraints not in known:
        raise ConfigError(loader.unknown("constraints", cfg.constraints, known))
    held = constraint_file.parse((configs / "constraints" / f"{cfg.constraints}.yaml").read_text(), robot.limits)
    return task, robot, asked_of(task, held)


class PalmarEnv(DirectRLEnv):
    """B worlds of one task.

    Args:
        cfg: Names the parts, unless they are given.
        render_mode: Isaac Lab's.
        parts: Task, robot and constraints, instead of those ``cfg`` names.
    """

    cfg: PalmarEnvCfg

    def __init__(
        self,
        cfg: PalmarEnvCfg,
        render_mode: str | None = None,
        *,
        parts: tuple[Task, RobotModel, ConstraintSet | None] | None = None,
        **kwargs: Any,
    ):
        self.task, self.robot, self.constraints = parts or parts_of(cfg)
        self.constraint_names = self.constraints.names if self.constraints is not None else ()
        self.max_steps, b = int(self.task.config.max_steps), int(cfg.scene.num_envs)
        self.io = self.task.io(self.robot, b)
        missing = [word for word in ("wrench", "impedance") if word in self.io.obs_names or hasattr(self.io, word)]
        if missing:
            raise ConfigError(f"task {self.task.name} needs {missing}, which engine isaaclab does not have")
        newton = type(cfg.sim.physics).__name__ != "PhysxCfg"
        cfg.scene, self._parts = scene_of(
            self.task, self.robot, num_envs=b, variant="mujoco" if newton else "physx", spacing=cfg.scene.env_spacing
        )
        cfg.decimation = cfg.sim.render_interval = round(1 / (self.task.config.rate * cfg.sim.dt))
        cfg.episode_length_s = self.max_steps * cfg.decimation * cfg.sim.dt
        cfg.action_space, cfg.observation_space = self.io.action_dim, self.io.obs_dim
        self._newton = newton
        super().__init__(cfg, render_mode, **kwargs)
        self._physics_handles_decimation = False  # every physics step has its own command and is measured
        self.plant = Plant(
            self.scene, self.robot, self._parts, self.constraints, dt=self.physics_dt,
            solver=isaaclab_model.solver() if newton else None,
        )  # fmt: skip
        self.broken = 0
        """Worlds that were restarted because their state was not finite."""
        self._seeded: int | None = cfg.seed

    def _setup_scene(self) -> None:
        if self._newton:
            self._put_right = isaaclab_model.before_allocation(self.robot.joints, self.robot.tip_geoms)

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Tensor], dict]:
        """Start every environment afresh; a seed also redraws friction and mass.  {"policy": (B, d)}, extras."""
        self._seeded = seed if seed is not None else self._seeded
        b = self.num_envs
        if self._seeded is not None:
            self.rng, self._seeded = np.random.default_rng(self._seeded), None
            friction, mass = drawn_contents(self.task, self.rng, b)
            if mass is not None:
                self.plant.draw(friction, mass)
        limits = limits_on(self.robot.limits, str(self.device))
        self._commands = Commands(limits, batch=b, substeps=self.cfg.decimation, dt=self.physics_dt)
        self._t, self._held = np.zeros(b), np.zeros(b)
        self._success, self._peak = np.zeros(b, dtype=bool), torch.zeros(b, 5, dtype=DTYPE, device=self.device)
        self.goal: Array = np.zeros(b)
        """What the task's ``start`` drew for each world."""
        self.tracker = Tracker(self.task.config.tracker, batch=b, objects=len(self.task.objects), rng=self.rng)
        self._carry: dict[str, Tensor] = {}
        self._obs: Array | None = None
        out = super().reset(None, options)
        if self.cfg.stagger:
            self.episode_length_buf[:] = torch.as_tensor(self.rng.integers(0, self.max_steps, b), device=self.device)
        return out

    def _pre_physics_step(self, actions: Tensor) -> None:
        if actions.shape != (self.num_envs, self.io.action_dim):
            need = (self.num_envs, self.io.action_dim)
            raise CommandRefused(f"action has shape {tuple(actions.shape)}, need {need}")
        if not torch.isfinite(actions).all():
            world = int(torch.nonzero(~torch.isfinite(actions))[0, 0])
            raise CommandRefused(f"action of environment {world} is not finite")
        self._action = _numpy(actions)
        self._sent = self._commands.to(self._tensor(self.io.joint_target(self._action)))
        self._samples: list[dict[str, Tensor]] = []
        self._step = 0

    def _apply_action(self) -> None:
        if self._step:
            self._samples.append(self.plant.sample())
        self.plant.command(self._sent[0][self._step])
        self._step += 1

    def _get_dones(self) -> tuple[Tensor, Tensor]:
        self._samples.append(self.plant.sample())
        self.plant.check()
        broken, steps = _numpy(self.plant.broken()), self.cfg.decimation
        times = self._tensor(self._t + self.physics_dt * np.arange(1, steps + 1)[:, None])
        samples = self.plant.measurement(self._samples, times, self._sent)
        self._t = self._t + self.step_dt
        cost, margin = self._costs(samples)
        position, quaternion = (_numpy(x) for x in self.plant.objects())
        self.tracker.update(self._t, position, quaternion)
        obs = self._observe()
        view = self._view(samples, position, quaternion)
        reward = self.task.reward(view, self._action).astype(np.float32)
        self._held = np.where(self.task.achieved(view), self._held + self.step_dt, 0.0)
        self._success |= self._held >= self.task.config.hold - 1e-9
        self._peak = torch.maximum(self._peak, samples.contact_force.amax(dim=0))
        terminated = self.task.failed(view) & ~broken
        truncated = ((_numpy(self.episode_length_buf) >= self.max_steps) | broken) & ~terminated
        reward[broken], cost[broken], self._success[broken] = 0.0, 0.0, False
        obs[broken] = 0.0
        self.broken += int(broken.sum())
        self._obs, self._reward = obs, reward
        self._report(cost, margin, obs, broken, terminated | truncated)
        return self._flags(terminated), self._flags(truncated)

    def _report(self, cost: Tensor, margin: Tensor, obs: Array, broken: Array, done: Array) -> None:
        """What a learner of costs reads from ``extras``, and what Isaac Lab logs."""
        extras: dict[str, Any] = {
            "cost": cost, "margin": margin, "success": self._flags(self._success), "broken": self._flags(broken),
            "terminal_obs": torch.as_tensor(obs, device=self.device), "peak_force": self._peak.to(torch.float32),
        }  # fmt: skip
        log = {f"Cost/{name}": cost[:, k].mean() for k, name in enumerate(self.constraint_names)}
        if done.any():
            log["Episode/success"] = torch.tensor(float(self._success[done].mean()))
        self.extras = extras | {"log": log}

    def _costs(self, samples: Measurement) -> tuple[Tensor, Tensor]:
        """Costs (B, K) of the interval and its smallest margins (B, K), float32."""
        if self.constraints is None:
            none = torch.zeros(self.num_envs, 0, device=self.device)
            return none, none
        result = self.constraints.over(self._sensed(samples), self._carry, dt=self.physics_dt)
        self._carry = result.carry
        return result.cost.to(torch.float32), result.margin.to(torch.float32)

    def _sensed(self, samples: Measurement) -> Measurement:
        """With what only the task can fill; tasks work on numpy, so only fields they changed come back."""
        plain = _measurement(samples, _numpy)
        found = self.task.sense(plain, self.goal)
        if found is plain:
            return samples
        changed = {
            name: self._tensor(getattr(found, name))
            for name in Measurement.__dataclass_fields__
            if getattr(found, name) is not getattr(plain, name)
        }
        return samples.replace(**changed)

    def _view(self, samples: Measurement, position: Array, quaternion: Array) -> View:
        return View(
            t=self._t, q=_numpy(self.plant.q), qd=_numpy(self.plant.qd), hand=self.io.hand,
            tip_radius=self.io.kinematics.tip_radius, position=position, quaternion=quaternion, goal=self.goal,
            samples=_measurement(samples, _numpy),
        )  # fmt: skip

    def _get_rewards(self) -> Tensor:
        return torch.as_tensor(self._reward, device=self.device)

    def _get_observations(self) -> dict[str, Tensor]:
        if self._obs is None:
            self._obs = self._observe()
        return {"policy": torch.as_tensor(self._obs, device=self.device)}

    def _observe(self) -> Array:
        plant, tracker = self.plant, self.tracker
        return self.io.observe(Seen(_numpy(plant.q), _numpy(plant.qd), tracker.position, tracker.quaternion, self.goal))

    def _reset_idx(self, env_ids: Any) -> None:
        """Fresh episodes for worlds ``env_ids``."""
        super()._reset_idx(env_ids)
        rows = env_ids.long()
        ids = _numpy(rows)
        start = self.task.start(self.rng, self.robot, len(ids))
        _refuse(self.task, start)
        q, goal = self._tensor(start.q), start.goal
        self.plant.reset(rows, q, self._tensor(start.poses))
        if self.goal.shape[1:] != goal.shape[1:] or self.goal.dtype != goal.dtype:
            self.goal = np.zeros((self.num_envs, *goal.shape[1:]), goal.dtype)
        self.goal[ids], self._held[ids], self._t[ids], self._success[ids] = goal, 0.0, 0.0, False
        self._peak[rows] = 0.0
        fresh, still = torch.zeros(self.num_envs, dtype=torch.bool, device=self.device), torch.zeros_like(self.plant.q)
        fresh[rows], still[rows] = True, q
        self._commands.reset(fresh, still)
        self.io.reset(ids, start.q)
        self.tracker.reset(ids, self._t[ids], start.poses[..., :3], start.poses[..., 3:])
        self._restart_carry(rows, self._tensor(start.poses))
        if self._obs is not None:
            self._obs = self._obs.copy()
            self._obs[ids] = self._observe()[ids]

    def _restart_carry(self, rows: Tensor, poses: Tensor) -> None:
        if self.constraints is None:
            return
        position, quaternion = self.plant.objects()
        blank = torch.zeros(self.num_envs, dtype=DTYPE, device=self.device)
        m = Measurement(*[blank] * 12, object_position=position.clone(), object_quaternion=quaternion)
        m.object_position[rows] = poses[..., :3]
        for name, fresh in self.constraints.start(m).items():
            self._carry.setdefault(name, fresh.clone())[rows] = fresh[rows]

    def _tensor(self, x: Array) -> Tensor:
        return torch.as_tensor(np.asarray(x, dtype=np.float64), device=self.device)

    def _flags(self, x: Array) -> Tensor:
        return torch.as_tensor(x.copy(), device=self.device)


def _refuse(task: Task, start: Start) -> None:
    """Refuse starts that this engine cannot make."""
    if start.fields or start.mocap is not None:
        what = [*start.fields, *(["scripted bodies"] if start.mocap is not None else [])]
        raise ConfigError(f"task {task.name} draws {what} per episode; engine isaaclab spawns every world alike")


def _measurement(m: Measurement, convert: Any) -> Measurement:
    """``convert`` applied to every field that is filled."""
    fields: Mapping[str, Any] = {name: getattr(m, name) for name in Measurement.__dataclass_fields__}
    return Measurement(**{name: None if x is None else convert(x) for name, x in fields.items()})


def _numpy(x: Tensor) -> Array:
    """A copy on the host; floats as float64."""
    x = x.detach().to("cpu")
    return (x.to(torch.float64) if x.is_floating_point() else x).numpy().copy()
