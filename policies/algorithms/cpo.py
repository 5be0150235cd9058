"""CPO: the step of most reward that keeps every budget and stays within the trust region.

    max g.x   subject to   now_k + b_k.x <= 0 for every k   and   x.H x <= 2 delta

The paper solves this for one constraint; ours has K.  Along the directions ``H^-1 [g b_1 .. b_K]``, orthonormal in H
(``trust_region.Near``), it is a problem of at most K + 1 numbers: a plane cut by half spaces and by a ball.  Its dual
is ``x = H^-1 (t g - sum_k nu_k b_k)`` with nu >= 0: for given t that is the point of the half spaces nearest to
``t g``, and as its length never falls with t, one number is searched for.  For K = 1 it is the paper's closed form.

Where no x near enough keeps the budgets, the step only lowers costs.  The paper's ``-sqrt(2 delta / b.H^-1 b) H^-1 b``
becomes, for K of them, the x of the trust region with the least sum of squared overruns.

Source:
    Achiam et al., "Constrained Policy Optimization", ICML 2017, eq. 11 to 14.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.linalg import solve_triangular
from scipy.optimize import nnls, root_scalar

from palmar.policies.algorithms.ppo import reward_only
from palmar.policies.rl.forecast import forecast
from palmar.policies.rl.multipliers import TargetConfig
from palmar.policies.rl.on_policy import Batch, OnPolicyConfig, OnPolicyLearner
from palmar.policies.rl.trust_region import Near, TrustConfig, Wanted, fit, search

Array = np.ndarray

SOFT = 1e-11
"""Share of a row's squared length by which a half space gives way, so that rows may be parallel or contradict."""
KEPT = 1e-6
"""Relative overrun that counts as none."""
DOUBLINGS = 14
"""Of t.  A step that ends inside the ball even then gains all it can, but for 2^-15 of what the ball has room for."""


@dataclass(frozen=True)
class Config(TargetConfig, TrustConfig, OnPolicyConfig):
    """Constrained policy optimisation."""

    algorithm: Literal["cpo"] = "cpo"


class Learner(OnPolicyLearner[Config]):
    """Constrained policy optimisation."""

    constrained = True

    def learn(self) -> dict[str, float]:
        """The best step, or the one back to the budgets."""
        c, batch = self.config, self.batch()
        wanted = reward_and_budgets(self, batch, c)
        near = Near.of(self, batch, wanted, c)
        rows, now, radius = near.rows(), wanted.now.double().numpy(), float(np.sqrt(2 * c.kl_limit))
        best = best_step(rows[0], rows[1:], now, radius)
        y = recovery_step(rows[1:], now, radius) if best is None else best
        scalars = search(self, batch, wanted, near, near.step(y), c)
        return scalars | fit(self, batch) | {"infeasible": float(best is None)}


def reward_and_budgets(learner: OnPolicyLearner, batch: Batch, config: TargetConfig) -> Wanted:
    """More reward within all budgets; the reward alone during warm-up and before the first episode."""
    reward, expected = reward_only(batch).unsqueeze(-1), forecast(learner, batch, config)
    if expected is None:
        return Wanted(reward, now=torch.zeros(0))
    return Wanted(torch.cat([reward, expected.advantage], dim=-1), expected.now)


def best_step(gain: Array, rows: Array, now: Array, radius: float) -> Array | None:
    """The y (m,) of most ``gain . y`` with ``now + rows y <= 0`` and ``|y| <= radius``; None if there is none.

    Args:
        gain: Reward along orthonormal directions, (m,).
        rows: Overruns along them, (K, m).
        now: Overruns, (K,).
        radius: Of the trust region, ``sqrt(2 delta)``.
    """

    def at(t: float) -> Array:
        return nearest(t * gain, rows, now)

    def beyond(t: float) -> float:
        return float(np.linalg.norm(at(t))) - radius

    if beyond(0.0) > 0 or np.any(now + rows @ at(0.0) > KEPT):
        return None
    far = radius / max(float(np.linalg.norm(gain)), 1e-30)
    for _ in range(DOUBLINGS):
        if beyond(far) > 0:
            return at(root_scalar(beyond, bracket=(0.0, far), xtol=1e-12 * far).root)
        far *= 2
    return at(far)


def recovery_step(rows: Array, now: Array, radius: float) -> Array:
    """The y (m,) with ``|y| <= radius`` and the least ``sum_k max(0, now_k + rows_k . y)^2``.

    That is the point of half spaces that give way, by ``softness`` per unit of force, nearest to where we are; the
    softer they are the nearer it is.
    """

    def at(log_softness: float) -> Array:
        return nearest(np.zeros(rows.shape[1]), rows, now, softness=np.exp(log_softness))

    def beyond(log_softness: float) -> float:
        return float(np.linalg.norm(at(log_softness))) - radius

    size = float(np.square(rows).sum())
    if size == 0:
        return np.zeros(rows.shape[1])
    hard, soft = np.log(SOFT * size), np.log(np.sqrt(size) * np.linalg.norm(now) / radius + SOFT * size)
    return at(hard) if beyond(hard) <= 0 else at(root_scalar(beyond, bracket=(hard, soft), xtol=1e-12).root)


def nearest(center: Array, rows: Array, now: Array, softness: float = 0.0) -> Array:
    """The y (m,) nearest to ``center`` with ``now + rows y <= 0``, by its dual: non-negative least squares in nu, (K,).

    Half spaces that contradict each other are met as well as possible in the sense of least squares.
    """
    if len(rows) == 0:
        return center
    gram = rows @ rows.T
    gram = gram + np.diag(softness + SOFT * np.diag(gram) + 1e-30)
    lower = np.linalg.cholesky(gram)
    nu, _ = nnls(lower.T, solve_triangular(lower, rows @ center + now, lower=True), maxiter=100 * len(rows))
    return center - rows.T @ nu
