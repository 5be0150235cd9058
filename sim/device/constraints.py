"""The constraint file on a device: the same margins, with limits and parameters as tensors made once.

Nothing is computed here.  A margin that met numpy's limits in a recorded step would copy them from the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from palmar.safety.constraints import Constraint, ConstraintSet
from palmar.safety.robot import Limits


@dataclass(frozen=True)
class TensorLimits:
    """``safety.robot.Limits`` in torch, (n,) each; the same fields."""

    q_min: Tensor
    q_max: Tensor
    v_max: Tensor
    a_max: Tensor
    j_max: Tensor
    tau_max: Tensor
    curve_offset: Tensor
    curve_two_a: Tensor
    curve_q_up: Tensor
    curve_q_low: Tensor


def limits_on(limits: Limits, device: str) -> Limits:
    """Limits whose arrays are float64 tensors; for margins and ``tracking``, which take any array namespace."""
    values = {name: torch.tensor(value, device=device) for name, value in limits.__dict__.items()}
    return cast(Limits, TensorLimits(**values))


def constraints_on(constraints: ConstraintSet, device: str) -> ConstraintSet:
    """The same constraints over tensors."""
    rows = tuple(_on(c, device) for c in constraints.constraints)
    return replace(constraints, constraints=rows, limits=limits_on(constraints.limits, device))


def _on(constraint: Constraint, device: str) -> Constraint:
    def one(value: Any) -> Any:
        if isinstance(value, Sequence) and not isinstance(value, str):
            return torch.tensor(value, dtype=torch.float64, device=device)
        return value

    return replace(constraint, params={name: one(value) for name, value in constraint.params.items()})
