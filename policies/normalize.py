"""Running mean and spread of a vector, as plain tensors: updated in training, frozen at deployment."""

from __future__ import annotations

import torch
from torch import Tensor


class Normalizer:
    """Mean and variance over everything seen, per component (Chan et al. 1979: merging batches is exact).

    Args:
        size: Length of the last axis.
        floor: Smallest spread divided by, in the unit of the data; keeps constant components finite.
        clip: Normalised values are clipped to +- this many spreads.
    """

    def __init__(self, size: int, *, floor: float = 1e-3, clip: float = 10.0):
        self.floor, self.clip = floor, clip
        self.mean = torch.zeros(size, dtype=torch.float64)
        self.var = torch.ones(size, dtype=torch.float64)
        self.count = torch.zeros((), dtype=torch.float64)

    @property
    def std(self) -> Tensor:
        """Spread, at least ``floor``, (size,) float64."""
        return self.var.sqrt().clamp(min=self.floor)

    def update(self, x: Tensor) -> None:
        """Take in data (..., size)."""
        x = x.reshape(-1, x.shape[-1]).double()
        n, total = len(x), self.count + len(x)
        delta = x.mean(0) - self.mean
        scatter = self.var * self.count + x.var(0, correction=0) * n + delta**2 * self.count * n / total
        self.mean, self.var, self.count = self.mean + delta * n / total, scatter / total, total

    def __call__(self, x: Tensor) -> Tensor:
        """Normalised and clipped, float32, shape of x."""
        return ((x - self.mean.float()) / self.std.float()).clamp(-self.clip, self.clip)

    def invert(self, x: Tensor) -> Tensor:
        """From normalised to the data's unit, float32."""
        return x * self.std.float() + self.mean.float()

    def frozen(self) -> Normalizer:
        """An independent copy."""
        return Normalizer.from_tensors(
            {k: v.clone() for k, v in self.tensors().items()}, floor=self.floor, clip=self.clip
        )

    def tensors(self) -> dict[str, Tensor]:
        """State: mean, var, count (float64)."""
        return {"mean": self.mean, "var": self.var, "count": self.count}

    def restore(self, state: dict[str, Tensor]) -> None:
        """The inverse of ``tensors``."""
        self.mean, self.var, self.count = state["mean"], state["var"], state["count"]

    @staticmethod
    def from_tensors(state: dict[str, Tensor], *, floor: float = 1e-3, clip: float = 10.0) -> Normalizer:
        """A normaliser with this state."""
        out = Normalizer(len(state["mean"]), floor=floor, clip=clip)
        out.restore(state)
        return out
