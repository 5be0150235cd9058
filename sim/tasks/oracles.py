"""What scripted policies share: an observation's parts by name, when an episode begins, and doing nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray


def named(io: Any, obs: Array) -> dict[str, Array]:
    """Parts (B, size) of observations (B, d) by name, float64, as a ``TaskIO`` or its class lays them out.

    Observations may be longer than that, as those of tasks that show more than ``lift`` does.
    """
    edges = np.cumsum((0, *io.obs_sizes))
    parts = zip(io.obs_names, edges[:-1], edges[1:], strict=True)
    return {name: obs[:, first:last].astype(np.float64) for name, first, last in parts}


def fresh(see: dict[str, Array]) -> Array:
    """Which episodes have just begun, (B,) bool: those whose ``last_action`` is all zero."""
    return np.abs(see["last_action"]).sum(axis=1) == 0


def begun(action: Array, just: Array) -> Array:
    """Actions (B, a), none of a ``just`` begun episode (B,) all zero: it would look fresh for ever."""
    action[just & (np.abs(action).sum(axis=1) == 0), 0] = 1e-6
    return action


class DoNothing:
    """Keeps the robot where it is, by ``n`` zeros."""

    def __init__(self, n: int):
        self._n = n

    def start(self, batch: int) -> None:
        """No memory."""
        return None

    def act(self, obs: Array, carry: None) -> tuple[Array, None]:
        """Zero actions (B, n)."""
        return np.zeros((len(obs), self._n)), None
