"""Parameters of the nodes: each with its range and one sentence; none that is about safety changes while active."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult


def number(node: Any, name: str, default: float, low: float, high: float, says: str, *, fixed: bool = False) -> None:
    """Declare a real number in [low, high]; ``fixed`` is set at the start and never changes."""
    bounds = [FloatingPointRange(from_value=low, to_value=high)]
    about = ParameterDescriptor(description=says, floating_point_range=bounds, read_only=fixed)
    node.declare_parameter(name, float(default), about)


def whole(node: Any, name: str, default: int, low: int, high: int, says: str, *, fixed: bool = False) -> None:
    """Declare a whole number in [low, high]."""
    about = ParameterDescriptor(
        description=says, integer_range=[IntegerRange(from_value=low, to_value=high, step=1)], read_only=fixed
    )
    node.declare_parameter(name, int(default), about)


def text(node: Any, name: str, default: str | Sequence[str], says: str, *, fixed: bool = False) -> None:
    """Declare a text, or a list of texts."""
    value = default if isinstance(default, str) else list(default)
    node.declare_parameter(name, value, ParameterDescriptor(description=says, read_only=fixed))


def value(node: Any, name: str) -> Any:
    """What a declared parameter is now."""
    return node.get_parameter(name).value


def judge(changed: Sequence[Any], *, active: bool) -> SetParametersResult:
    """Whether parameters may change now; ranges and types were checked by rclpy, which lets NaN through."""
    if active:
        return SetParametersResult(successful=False, reason="immutable while active: deactivate first")
    for p in changed:
        if isinstance(p.value, float) and not math.isfinite(p.value):
            return SetParametersResult(successful=False, reason=f"{p.name} is {p.value}, accepted finite numbers")
    return SetParametersResult(successful=True)
