"""What most tasks do about scripted bodies, special sensors and failure: nothing.  What all refuse of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np

from palmar.safety.config import unknown
from palmar.safety.types import ConfigError, Measurement
from palmar.sim import scene
from palmar.sim.forms import SPLITS
from palmar.sim.interface import Goal, View
from palmar.sim.scene import Block

Array = np.ndarray


def check(task: str, config: Any, *, positive: Sequence[str] = (), pairs: Sequence[str] = ()) -> None:
    """Refuse numbers and splits that no episode can be made of.

    Args:
        task: Named in the message.
        config: Its configuration.
        positive: Numbers that must be positive, besides those of every task: max_steps, rate and hold.
        pairs: Ranges that must be increasing and positive, besides friction (where it is not None) and mass.

    Raises:
        ConfigError: If one is not, or ``split`` is none of SPLITS.
    """
    for name in ("max_steps", "rate", "hold", *positive):
        if not getattr(config, name) > 0:
            raise ConfigError(f"{task}.{name} must be positive, got {getattr(config, name)}")
    for name in ("friction", "mass", *pairs):
        pair = getattr(config, name)
        if pair is not None and not 0 < pair[0] <= pair[1]:
            raise ConfigError(f"{task}.{name} must be an increasing pair of positive numbers, got {pair}")
    if getattr(config, "split", SPLITS[0]) not in SPLITS:
        raise ConfigError(unknown(f"{task}.split", config.split, SPLITS))


class Plain:
    """Blocks on the table, nothing scripted, nothing to sense besides, no early end.  A mixin without state."""

    robots: tuple[str, ...] = ()
    """Robots whose postures it knows, by name; none where any will do."""
    blocks: tuple[Block, ...] = ()

    @property
    def objects(self) -> tuple[str, ...]:
        """Names of the free bodies."""
        return tuple(b.name for b in self.blocks)

    def furnish(self, spec: mujoco.MjSpec) -> None:
        """Add the blocks."""
        scene.add_blocks(spec, self.blocks)

    def instruction(self, goal: Goal) -> str:
        """No words: goals are numbers."""
        return ""

    def script(self, t: Array, goal: Goal) -> Array | None:
        """Nothing moves by itself."""
        return None

    def sense(self, samples: Measurement, goal: Goal) -> Measurement:
        """Nothing more is measured."""
        return samples

    def failed(self, view: View) -> Any:
        """Episodes end by time."""
        return np.zeros(len(view.t), dtype=bool)
