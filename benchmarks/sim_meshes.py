"""Our robot of primitives beside the reference models' meshes: the scene of ``lift``, equal commands, interleaved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from mujoco.batch import Batch

from palmar.sim import menagerie, scene
from palmar.sim.env import make_env
from palmar.sim.robots import load_robot
from palmar.sim.tasks.lift import BLOCKS, LiftConfig, LiftTask
from palmar.sim.tasks.lift_oracle import LiftOracle

Array = np.ndarray
STEPS, WORLDS = 60, 32
"""Control steps of a round, 3 s in which the oracle approaches, closes and lifts; worlds, unless fewer are asked."""


def row(
    folder: Path | None, timed: Callable[[Callable[[], Any]], float], rounds: int, worlds: int = WORLDS
) -> dict[str, Any]:
    """CPU time of the oracle's lift with reference meshes over that with ours: same starts, same commands.

    Args:
        folder: Of the reference models; None where they are not, then the row says so.
        timed: CPU seconds of a call.
        rounds: Interleaved rounds.
        worlds: How many.
    """
    named = {"compared": "lift with reference meshes / with our primitives, CPU seconds", "worlds": worlds}
    if folder is None:
        return named | {"not run": "reference models are not present"}
    start, sent = _lift(worlds)
    sides = [_Side(model, start) for model in (_reference(folder), _ours())]
    spent = np.array([[timed(lambda side=side: side.play(sent)) for side in sides] for _ in range(rounds + 1)])[1:]
    found: dict[str, Any] = {"ratio": round(float(np.median(spent[:, 0] / spent[:, 1])), 3), "rounds": rounds}
    for name, side, seconds in zip(("meshes", "primitives"), sides, spent.T, strict=True):
        found[name] = {
            "steps_per_cpu_s": round(worlds * sent[..., 0, 0].size / float(np.median(seconds))),
            "colliding_meshes": int(
                np.sum((side.model.geom_type == mujoco.mjtGeom.mjGEOM_MESH) & _collides(side.model))
            ),
            "colliding_geoms": int(np.sum(_collides(side.model))),
            "contacts_at_the_end": side.contacts(),
        }
    return named | found


def _collides(model: mujoco.MjModel) -> Array:
    return (model.geom_contype != 0) | (model.geom_conaffinity != 0)


def _lift(worlds: int) -> tuple[Array, Array]:
    """Starts of ``lift`` (B, nq), and what the oracle sends from there, (T, S, B, n)."""
    env, policy = make_env(LiftTask(LiftConfig()), load_robot(), None, num_envs=worlds), LiftOracle()
    obs, carry, start = env.reset(0), policy.start(worlds), env.engine.qpos.copy()
    sent, advance = [], env.engine.advance
    env.engine.advance = lambda *u, **how: sent.append(u[0].copy()) or advance(*u, **how)  # type: ignore[method-assign]
    for _ in range(STEPS):
        action, carry = policy.act(obs, carry)
        obs = env.step(action).obs
    return start, np.array(sent)


def _ours() -> mujoco.MjModel:
    return _without_sensors(scene.scene_spec(furnish=lambda spec: scene.add_blocks(spec, BLOCKS)))


def _reference(folder: Path) -> mujoco.MjModel:
    spec = menagerie.reference_robot_spec(folder)
    scene.add_blocks(spec, BLOCKS)
    return _without_sensors(spec)


def _without_sensors(spec: mujoco.MjSpec) -> mujoco.MjModel:
    for sensor in list(spec.sensors):
        spec.delete(sensor)
    return spec.compile()


class _Side:
    """One model in B worlds; ``start`` are positions of the scene of ``lift``, whose order of joints is ours."""

    def __init__(self, model: mujoco.MjModel, start: Array):
        self.model, robot, ours = model, load_robot(), _ours()
        self._batch, self._start = Batch(model, len(start), nthread=1), np.tile(model.qpos0, (len(start), 1))
        self._act = np.array([model.actuator(j).id for j in robot.joints])
        for name, width in [(j, 1) for j in robot.joints] + [(f"{b.name}_free", 7) for b in BLOCKS]:
            here, there = model.joint(name).qposadr[0], ours.joint(name).qposadr[0]
            self._start[:, here : here + width] = start[:, there : there + width]

    def play(self, sent: Array) -> None:
        """All commands (T, S, B, n), from the start."""
        self._batch.reset()
        self._batch.bind("qpos")[:] = self._start
        control = np.zeros((sent.shape[2], sent.shape[1], self.model.nu))
        for u in sent:
            control[:, :, self._act] = u.swapaxes(0, 1)
            self._batch.rollout(sent.shape[1], control=control, record=("qpos", "qvel"))

    def contacts(self) -> float:
        """Mean number of contacts per world now."""
        data = [self._batch.get_data(k) for k in range(self._batch.nsim)]
        for d in data:
            mujoco.mj_forward(self.model, d)
        return round(float(np.mean([d.ncon for d in data])), 1)
