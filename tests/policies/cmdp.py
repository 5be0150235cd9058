"""Two constrained problems whose optimum is known: one by hand, one by a linear programme."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linprog
from scipy.stats import norm

from palmar.sim.interface import Step


class Quadratic:
    """One step: reward ``-|a - 1|^2 / 2``, costs ``a_i^2 / 2``.

    With budgets d and the spread s of a Gaussian policy, the mean of action i is at best
    ``sqrt(2 d_i - s^2)``, and the multiplier that makes it so is ``1 / mean - 1``.
    """

    obs_dim, action_dim, max_steps, dt = 1, 2, 1, 1.0
    constraint_names = ("left", "right")

    def __init__(self, num_envs: int):
        self.num_envs = num_envs

    def reset(self, seed: int | None = None) -> np.ndarray:
        return np.ones((self.num_envs, 1), dtype=np.float32)

    def step(self, action: np.ndarray) -> Step:
        done = np.ones(self.num_envs, dtype=bool)
        obs = self.reset()
        return Step(
            obs=obs,
            reward=-0.5 * ((action - 1.0) ** 2).sum(axis=1).astype(np.float32),
            cost=(0.5 * action**2).astype(np.float32),
            terminated=done,
            truncated=~done,
            info={"terminal_obs": obs, "success": done},
        )

    @staticmethod
    def best(budgets: np.ndarray, spread: float) -> tuple[np.ndarray, np.ndarray]:
        """Means and multipliers of the optimum, (2,) each; budgets must bind."""
        mean = np.sqrt(2 * np.asarray(budgets) - spread**2)
        return mean, 1 / mean - 1


@dataclass(frozen=True)
class Optimum:
    """Of a finite problem."""

    reward: float
    cost: float


class Chain:
    """Eight steps along states 0 to 3, right where the first action is positive, else left; a move fails once in ten.

    State 3 earns 1 per step, and so does a safe job at state 0, but 0.3 only; being in state 2 costs 1 per step, so the
    way to the better job has to be paid for.  An episode ends after eight steps, for good; nothing is discounted.
    """

    states, max_steps, slip, dt = 4, 8, 0.1, 1.0
    obs_dim, action_dim = 4 + 8, 1
    constraint_names = ("hot",)
    earns = np.array([0.3, 0.0, 0.0, 1.0])
    costs = np.array([0.0, 0.0, 1.0, 0.2])

    def __init__(self, num_envs: int):
        self.num_envs = num_envs

    def reset(self, seed: int | None = None) -> np.ndarray:
        self.rng = np.random.default_rng(seed)
        self.state, self.age = np.ones(self.num_envs, dtype=int), 0
        return self._observe()

    def _observe(self) -> np.ndarray:
        return self.observation(self.state, np.full(self.num_envs, self.age))

    @classmethod
    def observation(cls, state: np.ndarray, age: np.ndarray) -> np.ndarray:
        """One-hot state and age, (B, 12)."""
        return np.concatenate([np.eye(cls.states)[state], np.eye(cls.max_steps)[age]], axis=1).astype(np.float32)

    def step(self, action: np.ndarray) -> Step:
        right = (action[:, 0] > 0) ^ (self.rng.random(self.num_envs) < self.slip)
        self.state = np.clip(self.state + np.where(right, 1, -1), 0, self.states - 1)
        reward, cost = self.earns[self.state], self.costs[self.state][:, None]
        self.age += 1
        over = np.full(self.num_envs, self.age == self.max_steps)
        final = self.observation(self.state, np.full(self.num_envs, min(self.age, self.max_steps - 1)))
        if over[0]:
            self.state, self.age = np.ones(self.num_envs, dtype=int), 0
        info = {"terminal_obs": final, "success": over}
        return Step(self._observe(), reward.astype(np.float32), cost.astype(np.float32), over, ~over & False, info)

    @classmethod
    def move(cls) -> np.ndarray:
        """Transition probabilities, (2, s, s'): left, right."""
        out = np.zeros((2, cls.states, cls.states))
        for s in range(cls.states):
            left, right = max(s - 1, 0), min(s + 1, cls.states - 1)
            for a, (meant, other) in enumerate(((left, right), (right, left))):
                out[a, s, meant] += 1 - cls.slip
                out[a, s, other] += cls.slip
        return out

    @classmethod
    def value(cls, right: np.ndarray) -> Optimum:
        """Expected reward and cost of an episode under the probability of going right, (8, 4), exactly."""
        p, move, reward, cost = np.eye(cls.states)[1], cls.move(), 0.0, 0.0
        for t in range(cls.max_steps):
            p = (p * (1 - right[t])) @ move[0] + (p * right[t]) @ move[1]
            reward, cost = reward + p @ cls.earns, cost + p @ cls.costs
        return Optimum(float(reward), float(cost))

    @classmethod
    def chance(cls, mean: np.ndarray, spread: float) -> np.ndarray:
        """Probability that a Gaussian action is positive."""
        return norm.cdf(np.asarray(mean) / spread)

    @classmethod
    def best(cls, budget: float) -> Optimum:
        """The constrained optimum, by a linear programme over how often (t, s, a) happens."""
        move, n = cls.move(), cls.max_steps * cls.states * 2

        def index(t: int, s: int, a: int) -> int:
            return (t * cls.states + s) * 2 + a

        equal, right_side = np.zeros((cls.max_steps * cls.states, n)), np.zeros(cls.max_steps * cls.states)
        reward, cost = np.zeros(n), np.zeros(n)
        for t in range(cls.max_steps):
            for s in range(cls.states):
                row = t * cls.states + s
                right_side[row] = float(t == 0 and s == 1)
                for a in range(2):
                    equal[row, index(t, s, a)] = 1.0
                    reward[index(t, s, a)], cost[index(t, s, a)] = move[a, s] @ cls.earns, move[a, s] @ cls.costs
                    for before in range(cls.states) if t else ():
                        equal[row, index(t - 1, before, a)] -= move[a, before, s]
        found = linprog(-reward, A_ub=cost[None], b_ub=[budget], A_eq=equal, b_eq=right_side)
        return Optimum(float(reward @ found.x), float(cost @ found.x))
