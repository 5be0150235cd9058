"""A control step as one CUDA graph: torch's and Warp's launches in one recording."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import warp as wp
from torch import Tensor

WARM = 3
"""Calls that are not recorded: kernels are loaded and workspaces made."""


class Recorded:
    """``step`` at first as it is, then recorded, then replayed; what it returns is overwritten by the next call.

    Args:
        step: Launches only: reads and writes tensors that stay where they are.
        device: A GPU.
        generator: Source of the step's random numbers.
    """

    def __init__(self, step: Callable[[], dict[str, Tensor]], device: str, generator: torch.Generator):
        self._step, self._device, self._calls = step, device, 0
        self._graph: Any = torch.cuda.CUDAGraph()
        self._graph.register_generator_state(generator)
        self._kept: dict[str, Tensor] = {}

    def __call__(self) -> dict[str, Tensor]:
        """One step."""
        self._calls += 1
        if self._calls <= WARM:
            return self._step()
        if not self._kept:
            self._record()
        self._graph.replay()
        return self._kept

    def _record(self) -> None:
        stream = torch.cuda.Stream(self._device)
        with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):  # Warp's mode
            shared = wp.stream_from_torch(stream)
            with wp.ScopedStream(shared):
                wp.capture_begin(stream=shared, external=True)
                self._kept = self._step()
                wp.capture_end(stream=shared)
