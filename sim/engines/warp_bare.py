"""MuJoCo Warp and nothing else: what ``bench sim`` measures engine ``mujoco_warp`` against."""

from __future__ import annotations

import importlib
from typing import Any

import mujoco
import warp as wp
from torch import Tensor

from palmar.sim.engines import warp_kernels as kernels
from palmar.sim.engines.mujoco_warp import WarpEngine

mjw: Any = importlib.import_module("mujoco_warp")


class Bare:
    """The scene of an engine without sensors, stepped as often per control step, as one recorded graph."""

    def __init__(self, model: mujoco.MjModel, engine: WarpEngine):
        """``model`` has the engine's joints and actuators and no sensors."""
        self._engine, config = engine, engine.config
        with wp.ScopedDevice(engine.device):
            self._m = mjw.put_model(model)
            self._d = mjw.make_data(model, nworld=engine.nworld, njmax=config.njmax, nconmax=config.nconmax)
            self._commands = wp.zeros((engine.substeps, engine.nworld, engine.robot.n), dtype=float)
            self._actuator = wp.from_torch(engine.samples.act.int())
        self._m.opt.warn_overflow = 0
        for name in engine.per_world:  # the same friction and masses
            setattr(self._m, name, getattr(engine.m, name))
        self._told = wp.to_torch(self._commands)
        self._state = [(wp.to_torch(getattr(self._d, k)), wp.to_torch(getattr(engine.d, k))) for k in ("qpos", "qvel")]
        self._graph: Any = None

    def begin(self) -> None:
        """Stand where the engine stands."""
        for own, theirs in self._state:
            own.copy_(theirs)

    def step(self, told: Tensor) -> None:
        """One control step with commands (S, B, n) float32."""
        self._told.copy_(told)
        with self._engine.stream():
            if self._graph is None:
                with wp.ScopedCapture(device=self._engine.device) as capture:
                    self._physics()
                self._graph = capture.graph
            wp.capture_launch(self._graph)

    def _physics(self) -> None:
        shape = (self._engine.nworld, self._engine.robot.n)
        for s in range(self._engine.substeps):
            wp.launch(kernels.send, shape, inputs=[s, self._commands, self._actuator, self._d.ctrl])
            mjw.step(self._m, self._d)
