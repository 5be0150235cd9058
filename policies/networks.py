"""Networks of the on-policy core and the deterministic policy made of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from palmar.policies.normalize import Normalizer
from palmar.safety.types import PalmarError

COST_CRITICS = ("heads", "separate")


class ObservationRefused(PalmarError):
    """An observation of the wrong shape, or with numbers that are not finite."""


def layers(sizes: tuple[int, ...]) -> nn.Sequential:
    """Linear layers of these widths with ELU between them; the weights mean nothing yet."""
    linear = [nn.Linear(a, b) for a, b in zip(sizes, sizes[1:], strict=False)]
    return nn.Sequential(*[module for layer in linear[:-1] for module in (layer, nn.ELU())], linear[-1])


def mlp(sizes: tuple[int, ...], *, gain: float, generator: torch.Generator) -> nn.Sequential:
    """ELU layers with orthogonal weights and zero biases; ``gain`` scales the output layer."""
    net = layers(sizes)
    linear = [module for module in net if isinstance(module, nn.Linear)]
    for layer in linear:
        last = layer is linear[-1]
        nn.init.orthogonal_(layer.weight, gain if last else math.sqrt(2), generator=generator)
        nn.init.zeros_(layer.bias)
    return net


class Actor(nn.Module):
    """Mean of a Gaussian over actions; its spread does not depend on the observation."""

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        hidden: tuple[int, ...],
        *,
        std: float,
        gain: float,
        generator: Any,
    ):
        super().__init__()
        self.net = mlp((obs_dim, *hidden, action_dim), gain=gain, generator=generator)
        self.log_std = nn.Parameter(torch.full((action_dim,), math.log(std)))

    def forward(self, obs: Tensor) -> Tensor:
        """Mean action (..., a) of normalised observations (..., d)."""
        return self.net(obs)

    @torch.no_grad()
    def bound_std(self, low: float, high: float) -> None:
        """Keep the spread in [low, high]: a collapsed one stops learning, a large one is all clipping."""
        self.log_std.clamp_(math.log(low), math.log(high))


class Critic(nn.Module):
    """Normalised value of the reward (column 0) and of K costs, (..., 1 + K).

    ``heads``: one network whose last layer has K outputs for the costs; ``separate``: a network per cost.
    The reward always has its own network: costs must not disturb what success is learned from.
    """

    def __init__(self, obs_dim: int, n_costs: int, hidden: tuple[int, ...], *, kind: str, generator: Any):
        super().__init__()
        outputs = {"heads": (n_costs,) if n_costs else (), "separate": (1,) * n_costs}[kind]
        self.reward = mlp((obs_dim, *hidden, 1), gain=1.0, generator=generator)
        self.costs = nn.ModuleList(mlp((obs_dim, *hidden, n), gain=1.0, generator=generator) for n in outputs)

    def forward(self, obs: Tensor) -> Tensor:
        """Values (..., 1 + K) of normalised observations (..., d)."""
        return torch.cat([self.reward(obs), *(net(obs) for net in self.costs)], dim=-1)


def log_prob(action: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log density (...,) of a diagonal Gaussian."""
    z = (action - mean) / log_std.exp()
    return -(0.5 * z**2 + log_std + 0.5 * math.log(2 * math.pi)).sum(-1)


def kl_divergence(mean: Tensor, log_std: Tensor, new_mean: Tensor, new_log_std: Tensor) -> Tensor:
    """KL(old || new) (...,) of diagonal Gaussians."""
    ratio = (2 * (log_std - new_log_std)).exp()
    shift = ((mean - new_mean) / new_log_std.exp()) ** 2
    return (new_log_std - log_std + 0.5 * (ratio + shift - 1)).sum(-1)


def checked(obs: Any, obs_dim: int) -> Tensor:
    """``obs`` as a float32 tensor (B, d).

    Raises:
        ObservationRefused: If the shape is not (B, d) or a number is not finite, naming the first one.
    """
    array = np.ascontiguousarray(obs, dtype=np.float32)
    if array.ndim != 2 or array.shape[1] != obs_dim:
        raise ObservationRefused(f"observation has shape {array.shape}, need (B, {obs_dim})")
    if not np.isfinite(array).all():
        row, column = np.argwhere(~np.isfinite(array))[0]
        raise ObservationRefused(f"observation {row} is {array[row, column]} in column {column}, need finite numbers")
    return torch.from_numpy(array)


class MeanPolicy:
    """The deterministic policy: mean action, clipped to [-1, 1].  numpy in and out, no carry."""

    def __init__(self, net: nn.Sequential, normalizer: Normalizer):
        self._net, self._normalizer = net, normalizer
        linear = [layer for layer in net if isinstance(layer, nn.Linear)]
        self.layers = (linear[0].in_features, *(layer.out_features for layer in linear))
        """Width of every layer, observation first and action last."""
        self.obs_dim, self.action_dim = self.layers[0], self.layers[-1]

    def tensors(self) -> dict[str, Tensor]:
        """Weights (float32) and normalisation (float64), as stored in a bundle."""
        out = {f"net.{k}": v for k, v in self._net.state_dict().items()}
        out |= {f"normalizer.{k}": v for k, v in self._normalizer.tensors().items()}
        return {k: v.detach().clone().contiguous() for k, v in out.items()}

    @staticmethod
    def shapes(sizes: tuple[int, ...]) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Shape and type of each of ``tensors`` for these layer widths."""
        out: dict[str, tuple[tuple[int, ...], torch.dtype]] = {}
        for k, (a, b) in enumerate(zip(sizes, sizes[1:], strict=False)):
            out[f"net.{2 * k}.weight"], out[f"net.{2 * k}.bias"] = (
                ((b, a), torch.float32),
                ((b,), torch.float32),
            )
        scale = {"mean": (sizes[0],), "var": (sizes[0],), "count": ()}
        return out | {f"normalizer.{k}": (shape, torch.float64) for k, shape in scale.items()}

    @staticmethod
    def from_tensors(tensors: dict[str, Tensor], sizes: tuple[int, ...]) -> MeanPolicy:
        """The inverse of ``tensors``; their shapes must be those of ``shapes``."""
        net = layers(sizes)
        net.load_state_dict({k[4:]: v for k, v in tensors.items() if k.startswith("net.")})
        return MeanPolicy(
            net, Normalizer.from_tensors({k: tensors[f"normalizer.{k}"] for k in ("mean", "var", "count")})
        )

    def start(self, batch: int) -> None:
        """There is no memory."""
        return None

    def act(self, obs: Any, carry: None = None) -> tuple[np.ndarray, None]:
        """Actions (B, a) float32 for observations (B, d).

        Raises:
            ObservationRefused: See ``checked``.
        """
        with torch.inference_mode():
            return self._net(self._normalizer(checked(obs, self.obs_dim))).clamp(-1, 1).numpy(), None
