"""A batch of points that must get past a forbidden disc: the smallest environment where safety costs."""

from __future__ import annotations

import numpy as np

from palmar.sim.interface import Step


class PointMass:
    """Go from the left to (1, 0); a disc in the way is forbidden.  Costs: seconds inside it, and past walls.

    The disc's centre lies below the straight way, so that one side is the shorter one.
    """

    obs_dim, action_dim, max_steps, dt = 4, 2, 32, 0.05
    constraint_names = ("disc", "wall")
    centre, radius = (0.0, -0.15), 0.4

    def __init__(self, num_envs: int, *, spread: float = 0.3):
        self.num_envs, self.spread = num_envs, spread

    def reset(self, seed: int | None = None) -> np.ndarray:
        self.rng = np.random.default_rng(seed)
        self.p, self.age = np.zeros((self.num_envs, 2)), np.zeros(self.num_envs, dtype=int)
        self._start(np.arange(self.num_envs))
        return self._observe()

    def _start(self, ids: np.ndarray) -> None:
        self.p[ids, 0] = -1.0
        self.p[ids, 1] = self.spread * self.rng.uniform(-1, 1, len(ids))
        self.age[ids] = 0

    def _observe(self) -> np.ndarray:
        r = np.linalg.norm(self.p, axis=1, keepdims=True)
        return np.concatenate([self.p, r, (self.age / self.max_steps)[:, None]], axis=1).astype(np.float32)

    def step(self, action: np.ndarray) -> Step:
        self.p = self.p + 0.1 * np.clip(action, -1, 1)
        self.age += 1
        away = np.linalg.norm(self.p - [1.0, 0.0], axis=1)
        disc = np.linalg.norm(self.p - self.centre, axis=1) - self.radius
        margin = np.stack([disc, 1.5 - np.abs(self.p[:, 1])], axis=1)
        truncated = self.age >= self.max_steps
        final = self._observe()
        info = {"terminal_obs": final, "success": away < 0.15, "margin": margin}
        self._start(np.flatnonzero(truncated))
        return Step(
            obs=self._observe(),
            reward=(1 - np.tanh(away)).astype(np.float32),
            cost=(self.dt * (margin < 0)).astype(np.float32),
            terminated=np.zeros_like(truncated),
            truncated=truncated,
            info=info,
        )
