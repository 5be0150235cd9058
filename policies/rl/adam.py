"""Adam as every learner uses it: a clipped step, and its state as flat tensors."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.optim import Adam


class Saved(Protocol):
    """Anything whose state is a few named tensors."""

    def tensors(self) -> dict[str, Tensor]:
        """State."""
        ...

    def restore(self, state: dict[str, Tensor]) -> None:
        """The inverse of ``tensors``."""
        ...


def step(optimizer: Adam, loss: Tensor, grad_norm: float) -> None:
    """One step down ``loss``, the gradient of all parameters together at most ``grad_norm`` long."""
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], grad_norm)
    optimizer.step()


def tensors(optimizer: Adam) -> dict[str, Tensor]:
    """Step size, and moments by parameter number."""
    out = {f"{n}.{k}": v for n, state in optimizer.state_dict()["state"].items() for k, v in state.items()}
    return {"lr": torch.tensor(optimizer.param_groups[0]["lr"], dtype=torch.float64), **out}


def restore(optimizer: Adam, saved: dict[str, Tensor]) -> None:
    """The inverse of ``tensors``."""
    groups = optimizer.state_dict()["param_groups"]
    groups[0]["lr"] = float(saved["lr"])
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in saved.items():
        number, _, name = key.partition(".")
        if name:
            state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": groups})
