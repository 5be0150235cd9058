"""The same environment from other processes: our client, and ``isaaclab train``."""

import os
import subprocess
import sys

import numpy as np
import pytest

from palmar.safety.types import CommandRefused, ConfigError
from palmar.sim.engines import isaaclab_client
from palmar.sim.engines.isaaclab_client import IsaacVectorEnv, SimulatorGone


@pytest.fixture(autouse=True)
def this_environment(monkeypatch):
    monkeypatch.setenv(isaaclab_client.PYTHON, sys.executable)


def test_a_client_steps_an_environment_and_is_told_what_is_refused(parts):
    task, robot, held = parts
    with IsaacVectorEnv(task, robot, held, num_envs=2, seed=3, stagger=True) as env:
        assert env.constraint_names == held.names and env.max_steps == task.config.max_steps
        obs = env.reset(5)
        assert obs.shape == (2, env.obs_dim) and obs.dtype == np.float32
        assert np.array_equal(obs, env.reset(5)) and not np.array_equal(obs, env.reset(6))
        step = env.step(np.zeros((2, env.action_dim)))
        assert step.cost.shape == (2, len(held.names)) and step.terminated.dtype == bool
        assert {"terminal_obs", "success", "margin", "peak_force", "broken"} <= set(step.info)
        with pytest.raises(CommandRefused, match="not finite"):
            env.step(np.full((2, env.action_dim), np.nan))
        env.step(np.zeros((2, env.action_dim)))  # the simulator still answers
        env._process.kill()
        with pytest.raises(SimulatorGone):
            env.step(np.zeros((2, env.action_dim)))


def test_an_unknown_physics_is_refused_by_the_simulators_side(parts):
    with pytest.raises(ConfigError, match="newton_cpu"):
        IsaacVectorEnv(*parts, num_envs=1, physics="bullet")


@pytest.mark.parametrize("task", ["Palmar-Reach", "Palmar-Lift"])
def test_isaac_labs_own_trainer_finds_and_trains_our_tasks(tmp_path, task):
    command = [sys.executable, "-m", "isaaclab", "train", "--rl_library", "rsl_rl", "--task", task,
               "--num_envs", "4", "--max_iterations", "2", "--device", "cpu", "agent.device=cpu",
               "agent.num_steps_per_env=4"]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=os.environ, timeout=800)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "Learning iteration 1/2" in done.stdout and "Cost/self_clearance" in done.stdout, done.stdout[-3000:]
    assert list(tmp_path.rglob("model_*.pt"))
