"""Gymnasium's interfaces over a vector environment: one robot, or all of them.

Costs travel in ``info``: ``cost`` is their sum over constraints in budget units, ``costs[name]`` each.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from palmar.safety.types import ConfigError
from palmar.sim.interface import Env

Array = np.ndarray


def _spaces(env: Env) -> tuple[gymnasium.spaces.Box, gymnasium.spaces.Box]:
    observation = gymnasium.spaces.Box(-np.inf, np.inf, (env.obs_dim,), np.float32)
    action = gymnasium.spaces.Box(-1.0, 1.0, (env.action_dim,), np.float32)
    return observation, action


class SingleEnv(gymnasium.Env):
    """One robot with Gymnasium's five-tuple.  Wraps an environment of one world."""

    metadata = {"render_modes": []}

    def __init__(self, env: Env):
        if env.num_envs != 1:
            raise ConfigError(f"SingleEnv wraps 1 world, got {env.num_envs}")
        self.env = env
        self.observation_space, self.action_space = _spaces(env)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Start an episode; a seed makes it and all after it reproducible."""
        super().reset(seed=seed)
        return self.env.reset(seed)[0], {}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """One control step; after the last one the observation is the terminal one."""
        s = self.env.step(np.asarray(action)[None])
        info = {
            "costs": {n: float(c) for n, c in zip(self.env.constraint_names, s.cost[0], strict=True)},
            "cost": float(s.cost[0].sum()),
            "success": bool(s.info["success"][0]),
        }
        return (
            s.info["terminal_obs"][0],
            float(s.reward[0]),
            bool(s.terminated[0]),
            bool(s.truncated[0]),
            info,
        )


class BatchEnv(VectorEnv):
    """All worlds as Gymnasium's vector environment; an ended episode restarts within the same step."""

    def __init__(self, env: Env):
        self.env, self.num_envs = env, env.num_envs
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}
        self.single_observation_space, self.single_action_space = _spaces(env)
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)
        self.action_space = batch_space(self.single_action_space, env.num_envs)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Start every episode afresh."""
        return self.env.reset(seed), {}

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """One control step; ``final_obs`` holds the terminal observations where ``_final_obs`` is true."""
        s = self.env.step(actions)
        done = np.logical_or(s.terminated, s.truncated)
        info: dict[str, Any] = {
            "cost": s.cost.sum(axis=1),
            "costs": {n: s.cost[:, k] for k, n in enumerate(self.env.constraint_names)},
            "success": s.info["success"],
        }
        if done.any():
            info["final_obs"], info["_final_obs"] = s.info["terminal_obs"], done
        return s.obs, s.reward, s.terminated, s.truncated, info
