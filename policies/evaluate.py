"""What a policy does on unseen episodes: success, cost against budget, forces, each with an interval."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from palmar.safety.types import ConfigError
from palmar.sim.interface import Policy

Array = np.ndarray


def wilson(k: int, n: int, *, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson score interval of a proportion: k of n, at 95 % by default.

    Raises:
        ConfigError: If not 0 <= k <= n and n >= 1.

    Source:
        Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927.
    """
    if not 0 <= k <= n or n < 1:
        raise ConfigError(f"need 0 <= k <= n and n >= 1, got k = {k}, n = {n}")
    p, z2 = k / n, z * z
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = z / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    # At the ends the bound is exactly 0 or 1; rounding must not cross it.
    return (0.0 if k == 0 else centre - half), (1.0 if k == n else centre + half)


def mean_interval(values: Array, *, seed: int = 0, resamples: int = 2000) -> Array:
    """Bootstrap 95 % interval of the mean of (N, K), percentile method, (K, 2).

    Where all N values are equal it has width zero: that is what the sample says, not certainty.
    """
    n = len(values)
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    return np.percentile(counts @ values / n, (2.5, 97.5), axis=0).T.reshape(-1, 2)


@dataclass(frozen=True)
class Evaluation:
    """Results over N episodes; the raw rows stay in, so that twins can be compared episode by episode."""

    constraint_names: tuple[str, ...]
    budgets: Array
    """Per episode, in each constraint's unit, (K,); inf where none was given."""
    success: Array
    """(N,) bool."""
    returns: Array
    """(N,)."""
    lengths: Array
    """[control steps], (N,)."""
    costs: Array
    """Per episode, in each constraint's unit, (N, K)."""
    margins: Array
    """Smallest margin of the episode, SI units, (N, K); NaN where the environment gives none."""
    peak_force: Array
    """Largest force of the episode per named contact pair [N], (N, P); P = 0 where not given."""
    seed: int

    @property
    def episodes(self) -> int:
        """N."""
        return len(self.success)

    @property
    def successes(self) -> int:
        """How many episodes succeeded."""
        return int(self.success.sum())

    @property
    def success_rate(self) -> float:
        """Share of episodes that succeeded."""
        return self.successes / self.episodes

    @property
    def over_budget(self) -> Array:
        """Share of episodes whose own cost exceeds the budget, (K,)."""
        return (self.costs > self.budgets).mean(axis=0)

    @property
    def within_budgets(self) -> bool:
        """Whether the mean cost of every constraint is within its budget."""
        return bool(np.all(self.costs.mean(axis=0) <= self.budgets))

    def to_json(self) -> dict[str, Any]:
        """Summary as plain JSON values; infinite budgets and missing margins become None."""
        interval = mean_interval(self.costs, seed=self.seed)
        constraints = {
            name: {
                "budget": _plain(self.budgets[k]),
                "mean": float(self.costs[:, k].mean()),
                "interval": interval[k].tolist(),
                "max": float(self.costs[:, k].max()),
                "over_budget": float(self.over_budget[k]),
                "worst_margin": _plain(self.margins[:, k].min()),
            }
            for k, name in enumerate(self.constraint_names)
        }
        unsafe = self.success & (self.costs > self.budgets).any(axis=1)
        force = np.percentile(self.peak_force, (50, 95, 100), axis=0).T if self.peak_force.size else []
        return {
            "episodes": self.episodes,
            "successes": self.successes,
            "success_rate": self.success_rate,
            "success_interval": list(wilson(self.successes, self.episodes)),
            "succeeded_over_budget": int(unsafe.sum()),
            "within_budgets": self.within_budgets,
            "return": float(self.returns.mean()),
            "length": float(self.lengths.mean()),
            "constraints": constraints,
            "peak_force_p50_p95_max": np.asarray(force).tolist(),
            "seed": self.seed,
        }


def evaluate(
    env: Any,
    policy: Policy,
    *,
    episodes: int,
    seed: int,
    budgets: Mapping[str, float] | None = None,
) -> Evaluation:
    """Run exactly ``episodes`` episodes, chosen before the first step.

    Counting the first N to *finish* over a batch would favour short episodes.  So environment j runs its
    episodes in order and the first ``episodes // B`` of each count (one more for the first few where B does
    not divide), however long they take.

    Args:
        env: A vector environment that starts whole episodes (no random first age).
        policy: Of the protocol of ``sim.interface``; its carry must not depend on episodes.
        episodes: N >= 1.
        seed: Of the environment.
        budgets: Per constraint name; default those of ``env.constraints`` where it has one.

    Raises:
        ConfigError: If ``episodes`` < 1 or the environment cut an episode short.
    """
    if episodes < 1:
        raise ConfigError(f"episodes must be >= 1, got {episodes}")
    b, k = env.num_envs, len(env.constraint_names)
    quota = episodes // b + (np.arange(b) < episodes % b)
    done = np.zeros(b, dtype=int)
    total, age, margin = np.zeros((b, 1 + k)), np.zeros(b, dtype=int), np.full((b, k), np.inf)
    rows: list[tuple[int, int, dict[str, Any]]] = []
    obs, carry = env.reset(seed), policy.start(b)
    while np.any(done < quota):
        action, carry = policy.act(obs, carry)
        step = env.step(action)
        obs, age = step.obs, age + 1
        total += np.concatenate([step.reward[:, None], step.cost], axis=1)
        margin = np.minimum(margin, step.info.get("margin", np.full((b, k), np.nan)))
        for j in map(int, np.flatnonzero(step.terminated | step.truncated)):
            if not step.terminated[j] and age[j] < env.max_steps:
                raise ConfigError(f"episode of {age[j]} steps cut short, need whole ones of {env.max_steps}")
            if done[j] < quota[j]:
                rows.append((int(done[j]), int(j), _row(step, j, total[j], age[j], margin[j])))
            done[j] += 1
            total[j], age[j], margin[j] = 0.0, 0, np.inf
    check_simulation(env)
    rows.sort(key=lambda row: row[:2])
    columns = {key: np.array([row[2][key] for row in rows]) for key in rows[0][2]}
    return Evaluation(tuple(env.constraint_names), _budgets(env, budgets), **columns, seed=seed)


def check_simulation(env: Any) -> None:
    """Ask an environment that steps without looking, as on a device, whether what it simulated means anything.

    Raises:
        PalmarError: If contacts or constraints did not fit its buffers.
    """
    check = getattr(env, "check", None)
    if check is not None:
        check()


def _row(step: Any, j: int, total: Array, age: int, margin: Array) -> dict[str, Any]:
    force = step.info.get("peak_force")
    return {
        "success": bool(step.info["success"][j]),
        "returns": total[0],
        "lengths": int(age),
        "costs": total[1:].copy(),
        "margins": margin.copy(),
        "peak_force": np.zeros(0) if force is None else np.array(force[j]),
    }


def _budgets(env: Any, given: Mapping[str, float] | None) -> Array:
    if given is None:
        constraints = getattr(env, "constraints", None)
        given = {c.name: c.budget for c in constraints.constraints} if constraints is not None else {}
    return np.array([given.get(name, np.inf) for name in env.constraint_names])


def _plain(x: float) -> float | None:
    return float(x) if np.isfinite(x) else None
