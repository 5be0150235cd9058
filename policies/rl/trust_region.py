"""Steps within a trust region: how far a policy may move is a KL divergence, what is near its Fisher information.

An algorithm wants things: more reward and, maybe, that K overruns of budgets end.  One update:

1. ``Near.of``: how each of them changes with the n parameters, and the metric H of the KL divergence, ``x.H x / 2``.
2. The algorithm chooses a step along ``Near.basis``, the few directions that matter, where H is the identity.
3. ``search`` walks along it as far as the KL divergence, the reward and the costs of the rollout allow.
4. ``fit``: the critics.

Source:
    Schulman et al., "Trust Region Policy Optimization", ICML 2015, section 6 and appendix C.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from palmar.policies.networks import Actor, kl_divergence, log_prob
from palmar.policies.rl.config import count, number
from palmar.policies.rl.on_policy import Batch, OnPolicyLearner

Array = np.ndarray
Product = Callable[[Tensor], Tensor]
"""``v -> H v``, (n,)."""

PARALLEL = 1e-6
"""Directions whose Gram matrix has an eigenvalue below this share of the largest one are one direction."""


@dataclass(frozen=True)
class TrustConfig:
    """The trust region, and how its step is found."""

    kl_limit: float = number(0.01, 1e-12)
    """The papers' delta: largest mean KL(policy that acted || moved one) of an update."""
    damping: float = number(0.01, 0)
    """Added to the diagonal of the Fisher information: a rollout says nothing about some directions."""
    cg_steps: int = count(10)
    """Steps of conjugate gradients per direction, at most."""
    metric_samples: int = count(1024)
    """Samples of a rollout that the Fisher information is taken from, evenly spread, at most about this many."""
    shrink: float = number(0.8, 0.01, 0.99)
    """A step that is refused is tried again at this share of its length."""
    tries: int = count(15)
    """Lengths tried; then the policy stays where it is."""


@dataclass(frozen=True)
class Wanted:
    """What a step is for."""

    advantage: Tensor
    """Of the reward, in spreads, then what an action adds to each relative overrun; centred, (N, 1 + K)."""
    now: Tensor
    """Relative overruns of the policy that acted, (K,)."""

    @property
    def recovering(self) -> bool:
        """Whether a budget is overrun: then reward may be lost."""
        return bool((self.now > 0).any())

    def change(self, actor: Actor, batch: Batch) -> Tensor:
        """What a moved policy gains of the reward and adds to each overrun, (1 + K,), by the samples of ``batch``."""
        log = log_prob(batch.action, actor(batch.obs), actor.log_std)
        return ((log - batch.log_prob).exp() - 1) @ self.advantage / len(batch.obs)


@dataclass(frozen=True)
class Near:
    """The policy that acted, so near that all is linear but the KL divergence; of no use once it has moved."""

    slopes: Tensor
    """Derivative of ``Wanted.change`` by the parameters, (1 + K, n)."""
    metric: Product
    basis: Tensor
    """Orthonormal in the metric; spans, as far as conjugate gradients got, ``H^-1 slopes``, (m, n) with m <= 1 + K."""

    @staticmethod
    def of(learner: OnPolicyLearner, batch: Batch, wanted: Wanted, config: TrustConfig) -> Near:
        """Seen through a rollout."""
        actor = learner.actor
        slopes = torch.stack([_slope(v, actor) for v in wanted.change(actor, batch)])
        _leave_bounds(slopes, learner)
        every = -(-len(batch.obs) // config.metric_samples)
        metric = fisher(actor, batch.obs[::every], config.damping)
        return Near(slopes, metric, orthonormal(metric, slopes, config.cg_steps))

    def rows(self) -> Array:
        """``slopes`` along the basis, (1 + K, m)."""
        return (self.slopes.double() @ self.basis.double().T).numpy()

    def step(self, y: Array) -> Tensor:
        """The step of the parameters, (n,), that is y (m,) along the basis."""
        return (torch.as_tensor(y) @ self.basis.double()).to(self.slopes.dtype)


def parameters(actor: Actor) -> tuple[Tensor, ...]:
    """In the order of the n numbers: log spread, then the network."""
    return actor.log_std, *actor.net.parameters()


def _slope(value: Tensor, actor: Actor, *, again: bool = False) -> Tensor:
    """Derivative of ``value`` by the parameters, (n,); ``again``: to be derived once more."""
    parts = torch.autograd.grad(value, parameters(actor), retain_graph=True, create_graph=again)
    return torch.cat([part.reshape(-1) for part in parts])


def _leave_bounds(slopes: Tensor, learner: OnPolicyLearner) -> None:
    """Hold spreads that are at a bound which any of the wants pushes them across; in place.

    The metric does not couple them with the network.  Without this a step might plan to pay for costs by a smaller
    spread that it cannot have.
    """
    c, log_std = learner.config, learner.actor.log_std.detach()
    low, high = c.std_range[0], c.largest_std(learner.iteration)
    push = slopes[:, : len(log_std)] * torch.tensor([1.0] + [-1.0] * (len(slopes) - 1)).unsqueeze(-1)
    down = (log_std <= np.log(low) + 1e-6) & (push < 0).any(0)
    up = (log_std >= np.log(high) - 1e-6) & (push > 0).any(0)
    slopes[:, : len(log_std)].masked_fill_(down | up, 0.0)


def fisher(actor: Actor, obs: Tensor, damping: float) -> Product:
    """``v -> (F + damping) v`` for the Fisher information F, the second derivative of the mean KL divergence here."""
    mean, log_std = actor(obs), actor.log_std
    kl = kl_divergence(mean.detach(), log_std.detach(), mean, log_std).mean()
    slope = _slope(kl, actor, again=True)

    @torch.enable_grad()
    def product(v: Tensor) -> Tensor:
        return _slope(slope @ v, actor) + damping * v

    return product


def conjugate_gradients(product: Product, b: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """x, nearly ``H^-1 b``, and what is missing, ``b - H x``; (n,) each."""
    x, residual = torch.zeros_like(b), b.clone()
    direction, length = residual, residual @ residual
    enough = 1e-10 * length
    for _ in range(steps):
        if length <= enough:
            break
        bent = product(direction)
        far = length / (direction @ bent)
        x, residual = x + far * direction, residual - far * bent
        before, length = length, residual @ residual
        direction = residual + (length / before) * direction
    return x, residual


def orthonormal(product: Product, slopes: Tensor, cg_steps: int) -> Tensor:
    """Directions (m, n), orthonormal in H, that span ``H^-1 slopes`` as far as conjugate gradients get in ``cg_steps``.

    They are orthonormal however inexact that is: then a step along them is the best one of a smaller space.
    """
    some = slopes[slopes.any(dim=1)]
    if len(some) == 0:
        return some
    solved = [conjugate_gradients(product, b, cg_steps) for b in some]
    x, missing = (torch.stack(v).double() for v in zip(*solved, strict=True))
    hx = some.double() - missing
    length = (x * hx).sum(-1, keepdim=True).sqrt()
    gram = (x / length) @ (hx / length).T
    values, vectors = torch.linalg.eigh((gram + gram.T) / 2)
    keep = values > PARALLEL * values[-1]
    return ((vectors[:, keep] / values[keep].sqrt()).T @ (x / length)).to(slopes.dtype)


@torch.no_grad()
def search(
    learner: OnPolicyLearner, batch: Batch, wanted: Wanted, near: Near, step: Tensor, config: TrustConfig
) -> dict[str, float]:
    """Move the actor along ``step`` (n,) as far as it does what it was meant to; scalars for the log.

    A length is refused if the KL divergence exceeds ``kl_limit``, if reward is lost while no budget is overrun, or if
    an overrun is above zero and above both what it was and what the whole step was meant to make it.  If every length
    is refused the policy stays: the log says a ``step`` of 0 then, and how many lengths each rule refused.
    """
    c, actor = learner.config, learner.actor
    begin = torch.cat([p.flatten() for p in parameters(actor)])
    meant = wanted.now + near.slopes[1:] @ step
    allowed = torch.maximum(wanted.now, meant).clamp(min=0)
    curve = (step @ near.metric(step)).item()
    share = min(1.0, (2 * config.kl_limit / curve) ** 0.5) if curve > 0 else 0.0
    refused = dict.fromkeys(("kl", "reward", "cost"), 0)
    for share in [*(share * config.shrink**n for n in range(config.tries)), 0.0]:
        _move(actor, begin + share * step)
        actor.bound_std(c.std_range[0], c.largest_std(learner.iteration))
        change, kl = wanted.change(actor, batch), _kl(actor, batch)
        near_enough = kl <= config.kl_limit
        gains = wanted.recovering or bool(change[0] >= 0)
        keeps = bool((wanted.now + change[1:] <= allowed).all())
        if near_enough and gains and keeps:
            break
        if share > 0:
            refused["kl"] += not near_enough
            refused["reward"] += not gains
            refused["cost"] += not keeps
    scalars = {"kl": kl, "step": share, "gain": change[0].item(), "recovering": float(wanted.recovering)}
    return scalars | {f"refused/{why}": float(n) for why, n in refused.items()}


def _move(actor: Actor, where: Tensor) -> None:
    for p, part in zip(parameters(actor), where.split([p.numel() for p in parameters(actor)]), strict=True):
        p.copy_(part.view_as(p))


def _kl(actor: Actor, batch: Batch) -> float:
    return kl_divergence(batch.mean, batch.log_std, actor(batch.obs), actor.log_std).mean().item()


def fit(learner: OnPolicyLearner, batch: Batch) -> dict[str, float]:
    """``epochs`` passes of the critics over a rollout; scalars for the log."""
    c = learner.config
    losses = [
        learner.fit_critics(batch.obs[pick], batch.target[pick])
        for _ in range(c.epochs)
        for pick in torch.randperm(len(batch.obs), generator=learner.generator).split(c.minibatch)
    ]
    mean = torch.stack(losses).mean(0)
    std = learner.actor.log_std.detach().exp().mean().item()
    return {"loss/value": mean[0].item(), "loss/cost_value": mean[1:].sum().item(), "std": std}
