"""Engine ``isaaclab`` for everything that knows ``sim.env.VectorEnv``: training, evaluation, comparison.

Isaac Lab pins other versions than Palmar and holds one simulation per process, so each environment is a process of its
own in Isaac Lab's environment (``make isaac``); this side imports nothing of it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from palmar.safety import types
from palmar.safety.config import plain
from palmar.safety.constraints import ConstraintSet
from palmar.safety.robot import RobotModel
from palmar.safety.types import CommandRefused, ConfigError, PalmarError
from palmar.sim.engines import isaaclab_wire as wire
from palmar.sim.interface import Step, Task
from palmar.sim.starts import asked_of

Array = np.ndarray
PYTHON = "PALMAR_ISAAC_PYTHON"
"""Environment variable: the interpreter of Isaac Lab's environment."""
WORKER = "palmar.sim.engines.isaaclab_worker"
START = 900.0
"""Longest start: the first one compiles the simulator's kernels [s]."""
STEP = 300.0
"""Longest control step or reset; the first ones compile too [s]."""


class SimulatorGone(PalmarError):
    """The simulator's process ended or does not answer."""


def interpreter() -> Path:
    """Python of Isaac Lab's environment.

    Raises:
        ConfigError: If there is none.
    """
    asked = os.environ.get(PYTHON)
    found = Path(asked) if asked else Path(__file__).resolve().parents[2] / ".venv-isaac" / "bin" / "python"
    if not found.is_file():
        raise ConfigError(f"engine isaaclab needs its own environment, none at {found}: make isaac, or set {PYTHON}")
    return found


class IsaacVectorEnv:
    """B environments of one task in Isaac Lab; the counterpart of ``sim.env.VectorEnv``.

    Args:
        task: From ``sim.tasks``.
        robot: One of ``configs/robot``.
        constraints: Give the cost channels, in this order; None switches costs off (K = 0).
        num_envs: B.
        seed: Of every random draw; equal seeds start worlds like those of engine ``mujoco``.
        device: ``cpu`` or ``cuda:0``.
        physics: A preset of ``isaaclab_cfg.PhysicsCfg``: ``newton_cpu``, ``newton_gpu``.
        stagger: Start the first episodes at random ages (training).

    Raises:
        ConfigError: If Isaac Lab's environment is missing or refuses the task.
        SimulatorGone: If its process ends; the message holds the end of its log.
    """

    def __init__(
        self,
        task: Task,
        robot: RobotModel,
        constraints: ConstraintSet | None,
        *,
        num_envs: int,
        seed: int = 0,
        device: str = "cpu",
        physics: str = "newton_cpu",
        stagger: bool = False,
    ):
        self.task, self.robot, self.constraints, self.num_envs = task, robot, constraints, num_envs
        self.broken = 0
        """Worlds that were restarted because their state was not finite."""
        self._log = tempfile.TemporaryFile()
        self._process, self._sock = _started(self._log)
        asked = {
            "task": task.name, "values": plain(task.config), "robot": robot.name, "num_envs": num_envs, "seed": seed,
            "constraints": None if constraints is None else text_of(constraints), "device": device,
            "physics": physics, "stagger": stagger,
        }  # fmt: skip
        try:
            head, _ = self._ask(asked, {}, START)
        except PalmarError:
            self.close()
            raise
        self.obs_dim, self.action_dim, self.max_steps = head["obs_dim"], head["action_dim"], head["max_steps"]
        self.constraint_names = tuple(head["names"])
        self.reset(seed)

    def reset(self, seed: int | None = None) -> Array:
        """Start every environment afresh; a seed also redraws friction and mass.  Returns obs (B, d)."""
        return self._ask({"do": "reset", "seed": seed}, {}, STEP)[1]["obs"]

    def step(self, action: Array) -> Step:
        """One control step with actions (B, a) in [-1, 1].

        Raises:
            CommandRefused: If the shape is wrong or a number is not finite; nothing is stepped.
            SimulatorGone: If the simulator's process ended.
        """
        action = np.asarray(action, dtype=np.float32)
        if action.shape != (self.num_envs, self.action_dim):
            raise CommandRefused(f"action has shape {action.shape}, need {(self.num_envs, self.action_dim)}")
        head, found = self._ask({"do": "step"}, {"action": action}, STEP)
        self.broken = int(head["broken"])
        step = {name: found.pop(name) for name in ("obs", "reward", "cost", "terminated", "truncated")}
        return Step(**step, info=found)

    def close(self) -> None:
        """End the simulator's process."""
        self._sock.close()
        try:
            self._process.wait(10.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def __enter__(self) -> IsaacVectorEnv:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(
        self, head: Mapping[str, Any], arrays: Mapping[str, Array], timeout: float
    ) -> tuple[dict[str, Any], dict[str, Array]]:
        """Send a request and wait for its answer; a refusal over there is raised here."""
        try:
            self._sock.settimeout(timeout)
            wire.send(self._sock, head, arrays)
            found, values = wire.receive(self._sock)
        except (EOFError, OSError) as error:
            raise SimulatorGone(f"engine isaaclab: {error!r}; its last words:\n{self._last_words()}") from error
        if "error" in found:
            kind = getattr(types, found["error"], PalmarError)
            raise kind(found["message"])
        return found, values

    def _last_words(self) -> str:
        """End of the simulator's log."""
        try:
            self._process.wait(2.0)
        except subprocess.TimeoutExpired:
            pass
        self._log.seek(0)
        return self._log.read()[-2000:].decode(errors="replace")


def make_env(
    task: Task, robot: RobotModel, constraints: ConstraintSet | None, *, num_envs: int, **options: Any
) -> IsaacVectorEnv:
    """A vector environment of ``task`` on engine ``isaaclab``, as ``sim.env.make_env``; see ``IsaacVectorEnv``."""
    return IsaacVectorEnv(task, robot, asked_of(task, constraints), num_envs=num_envs, **options)


def text_of(constraints: ConstraintSet) -> str:
    """A constraint file that ``constraints.parse`` makes the same set of."""
    rows = {c.name: {k: v for k, v in asdict(c).items() if k != "name"} for c in constraints.constraints}
    return yaml.safe_dump(
        {"name": constraints.name, "version": constraints.version, "constraints": plain(rows)}, sort_keys=False
    )


def _started(log: Any) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """A fresh worker and our end of its socket."""
    ours, theirs = socket.socketpair()
    command = [str(interpreter()), "-m", WORKER, str(theirs.fileno())]
    environment = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH")}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"}
    with theirs:
        process = subprocess.Popen(
            command, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
        )
    return process, ours
