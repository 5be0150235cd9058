"""``palmar bench sim_warp``: engine ``mujoco_warp`` against MuJoCo Warp alone, both recorded, interleaved.

The baseline is the same scene without sensors at the same decimation, sent the same commands; ``env_ratio`` is its time
over the environment's, costs on, ``cost_overhead`` what costs add.  Without an NVIDIA GPU the rows of a GPU say so, and
a small row of Warp's CPU device shows that the comparison runs, in CPU seconds; MuJoCo itself is faster there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch

from palmar.safety.constraints import load
from palmar.sim import scene
from palmar.sim.device.env import DeviceEnv, make_device_env
from palmar.sim.engines.mujoco_warp import device_of
from palmar.sim.engines.warp_bare import Bare
from palmar.sim.engines.warp_config import WarpConfig
from palmar.sim.robots import arm_and_hand, load_robot
from palmar.sim.tasks import find

WORLDS = (1024, 4096, 8192)
TASKS = ("reach", "lift")


def run(*, rounds: int = 7, steps: int = 20, progress: Callable[[str], None] | None = None) -> dict:
    """Rows of both tasks: on a GPU each number of WORLDS, else 64 on the processor."""
    tell, gpu = progress or (lambda told: None), device_of("auto") != "cpu"
    rows: list[dict[str, Any]] = []
    for task in TASKS:
        for worlds in WORLDS:
            if gpu:
                rows.append(_row(task, "cuda", worlds, rounds, steps, tell))
            else:
                rows.append(_named(task, "cuda", worlds) | {"not run": "no NVIDIA GPU here"})
        if not gpu:
            rows.append(_row(task, "cpu", 64, rounds, steps, tell))
    return {"name": "sim_warp", "rows": rows}


def _named(task: str, device: str, worlds: int) -> dict[str, Any]:
    return {"task": task, "engine": "mujoco_warp", "device": device, "worlds": worlds}


def _row(name: str, device: str, worlds: int, rounds: int, steps: int, tell: Callable[[str], None]) -> dict[str, Any]:
    robot, found = load_robot(), find.load(name)
    constraints = load(Path(str(files("palmar.configs"))) / "constraints" / "arm_hand.yaml", robot.limits)
    task, before = found.task(found.config()), _held(device)
    make = partial(make_device_env, task, robot, num_envs=worlds, config=WarpConfig(device=device), numpy=False)
    env = make(constraints)
    for _ in range(5):
        env.step(torch.zeros_like(env.action))
    megabytes = (_held(device) - before) / worlds
    plain = make(None)
    spec = scene.robot_spec(*arm_and_hand(robot.name))
    task.furnish(spec)
    for sensor in list(spec.sensors):
        spec.delete(sensor)
    bare = Bare(spec.compile(), env.engine)
    spent: dict[str, list[float]] = {"costs": [], "plain": [], "bare": []}
    for k in range(rounds + 1):
        tell(f"{name}, {worlds} worlds: round {k} of {rounds}")
        _round(env, plain, bare, steps, k, spent)
    env.check()
    t = {side: np.array(values[1:]) for side, values in spent.items()}
    return _named(name, device, worlds) | {
        "env_steps_per_s": round(worlds * steps / float(np.median(t["costs"])), 1),
        "env_ratio": round(float(np.median(t["bare"] / t["costs"])), 3),
        "cost_overhead": round(float(np.median(t["costs"] / t["plain"])) - 1, 3),
        "mb_per_world": round(megabytes, 3),
        "rounds": rounds,
        "clock": "wall" if device != "cpu" else "cpu",
    }


def _round(env: DeviceEnv, plain: DeviceEnv, bare: Bare, steps: int, seed: int, spent: dict[str, list[float]]) -> None:
    """The same actions on both environments, then their commands on the bare scene, from the same start."""
    generator = torch.Generator(device=env.device).manual_seed(seed)
    actions = [2 * torch.rand(env.action.shape, generator=generator, device=env.device) - 1 for _ in range(steps)]
    env.reset(seed)
    plain.reset(seed)
    bare.begin()
    sent: list[torch.Tensor] = []

    def act(side: DeviceEnv, keep: bool) -> None:
        for action in actions:
            side.step(action)
            if keep:
                sent.append(side.engine.told.clone())

    spent["costs"].append(_timed(partial(act, env, True), env.device))
    spent["plain"].append(_timed(partial(act, plain, False), env.device))
    spent["bare"].append(_timed(lambda: [bare.step(told) for told in sent], env.device))


def _timed(work: Callable[[], Any], device: str) -> float:
    clock = time.process_time if device == "cpu" else time.perf_counter
    if device != "cpu":
        torch.cuda.synchronize()
    began = clock()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return clock() - began


def _held(device: str) -> float:
    """Memory in use: of the GPU by anyone, or by this process [MB]."""
    if device == "cpu":
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6
    free, total = torch.cuda.mem_get_info()
    return (total - free) / 1e6
