"""PCPO: the step of most reward within the trust region, then the way back to the budgets.

    x' = sqrt(2 delta / g.H^-1 g) H^-1 g,   then the x nearest to x' with   now_k + b_k.x <= 0   for every k

Near is meant by the KL divergence (L = H) or by the parameters themselves (L = I).  The paper's closed form is that of
one constraint; for K of them the projection is a quadratic programme of K numbers, the same for K = 1.  Nothing bounds
the way back, so far from the budgets it is long: the search takes as much of it as the trust region holds.

Source:
    Yang et al., "Projection-Based Constrained Policy Optimization", ICLR 2020, eq. 5 to 11.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from palmar.policies.algorithms.cpo import nearest, reward_and_budgets
from palmar.policies.rl.config import choice
from palmar.policies.rl.multipliers import TargetConfig
from palmar.policies.rl.on_policy import OnPolicyConfig, OnPolicyLearner
from palmar.policies.rl.trust_region import Near, TrustConfig, fit, orthonormal, search

Array = np.ndarray


@dataclass(frozen=True)
class Config(TargetConfig, TrustConfig, OnPolicyConfig):
    """Projection-based constrained policy optimisation."""

    algorithm: Literal["pcpo"] = "pcpo"
    projection: str = choice("kl", ("kl", "l2"))
    """What is near: by the KL divergence, or by the parameters."""


class Learner(OnPolicyLearner[Config]):
    """Projection-based constrained policy optimisation."""

    constrained = True

    def learn(self) -> dict[str, float]:
        """One step: up the reward and back to the budgets."""
        c, batch = self.config, self.batch()
        wanted = reward_and_budgets(self, batch, c)
        near = Near.of(self, batch, wanted, c)
        step = PROJECTED[c.projection](near, wanted.now.double().numpy(), np.sqrt(2 * c.kl_limit))
        return search(self, batch, wanted, near, step, c) | fit(self, batch)


def projected_by_kl(near: Near, now: Array, radius: float) -> Tensor:
    """The step (n,) for overruns ``now`` (K,), projected in the metric of the KL divergence (L = H)."""
    rows = near.rows()
    up = radius * rows[0] / max(np.linalg.norm(rows[0]), 1e-30)
    return near.step(nearest(up, rows[1:], now))


def projected_by_parameters(near: Near, now: Array, radius: float) -> Tensor:
    """The step (n,) for overruns ``now`` (K,), projected in the parameters themselves (L = I)."""
    gain = near.rows()[0]
    up = near.step(radius * gain / max(np.linalg.norm(gain), 1e-30))
    slopes = near.slopes[1:]
    basis = orthonormal(lambda v: v, slopes, cg_steps=1).double()
    rows, there = (slopes.double() @ basis.T).numpy(), now + (slopes @ up).double().numpy()
    back = nearest(np.zeros(len(basis)), rows, there)
    return up + (torch.as_tensor(back) @ basis).to(up.dtype)


PROJECTED = {"kl": projected_by_kl, "l2": projected_by_parameters}
