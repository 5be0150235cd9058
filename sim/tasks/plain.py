"""What most tasks do about scripted bodies, special sensors and failure: nothing.  A mixin without state."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

from palmar.safety.types import Measurement
from palmar.sim import scene
from palmar.sim.interface import Goal, View
from palmar.sim.scene import Block

Array = np.ndarray


class Plain:
    """Blocks on the table, nothing scripted, nothing to sense besides, no early end."""

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
