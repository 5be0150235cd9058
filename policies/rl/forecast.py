"""What a moved policy is expected to cost, for algorithms that hold it against the budgets themselves."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from palmar.policies.rl.minibatches import Moved
from palmar.policies.rl.multipliers import TargetConfig, relative_overrun
from palmar.policies.rl.on_policy import Batch, OnPolicyLearner


@dataclass(frozen=True)
class Forecast:
    """Relative overruns of K budgets, as first-order functions of the policy."""

    now: Tensor
    """Of the policy that acted, (K,)."""
    advantage: Tensor
    """What an action adds to an episode's overrun, (N, K)."""

    def overrun(self, moved: Moved, clip: float) -> Tensor:
        """Overrun of a moved policy, (K,); reductions beyond ``clip`` do not count.

        ``E[(ratio - 1) A]`` and not ``E[ratio A]``: of equal mean, and without noise where nothing has moved.
        """
        off, a = (moved.ratio - 1).unsqueeze(-1), self.advantage[moved.pick]
        return self.now + torch.maximum(off * a, off.clamp(-clip, clip) * a).mean(0)


def forecast(learner: OnPolicyLearner, batch: Batch, config: TargetConfig) -> Forecast | None:
    """The overrun ``(J - d) / max(d, floor)`` of a moved policy; None during warm-up and before the first episode.

    By the policy difference lemma a moved policy's cost of an episode is ``J + H E[ratio A]``, to first order in its
    distance: J the mean cost of the newest episodes, H their mean length [control steps] and A the advantage of the
    cost.  Papers write 1 / (1 - gamma) for H, which holds for discounted budgets; ours are sums over an episode.

    Source:
        Achiam et al., "Constrained Policy Optimization", ICML 2017, corollary 2.
    """
    if learner.iteration < config.warmup or len(learner.window.costs) == 0:
        return None
    floor = learner.config.budget_floor
    target = config.budget_share * learner.budgets
    now = relative_overrun(learner.window.mean(), target, floor)
    length = learner.lengths.mean()[0]
    cost = batch.advantage[:, 1:]
    scale = torch.as_tensor(length / target.clip(min=floor), dtype=torch.float32)
    return Forecast(torch.as_tensor(now, dtype=torch.float32), (cost - cost.mean(0)) * scale)
