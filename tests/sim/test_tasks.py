"""What holds for every task there is: a new one is tested by being a file (``-k NAME`` for one of them)."""

import importlib.util
import re
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import yaml

from palmar.safety import config
from palmar.safety.constraints import load
from palmar.safety.types import ConfigError
from palmar.sim.env import make_env
from palmar.sim.forms import SPLITS
from palmar.sim.robots import load_robot, robot_names
from palmar.sim.tasks import find

B, STEPS = 2, 20
CONFIGS = Path(str(files("palmar.configs")))
every_task = pytest.mark.parametrize("name", find.names())


def made(name, **changes):
    """The task with the values of its file."""
    found = find.load(name)
    values = yaml.safe_load((CONFIGS / "task" / f"{name}.yaml").read_text()) or {}
    return found.task(config.load(found.config, {**values, **changes}, where="task"))


def environment(name, robot):
    """Held to the constraints of the task's own name, where there are any."""
    own = CONFIGS / "constraints" / f"{name}.yaml"
    held = load(own if own.exists() else CONFIGS / "constraints" / "arm_hand.yaml", robot.limits)
    return make_env(made(name), robot, held, num_envs=B, seed=3, nthread=1)


@every_task
def test_names_units_and_sizes_of_what_is_seen_and_done_agree(robot, name):
    io = find.load(name).io(robot, B)
    assert len(set(io.obs_names)) == len(io.obs_names) == len(io.obs_sizes) == len(io.obs_units)
    assert len(set(io.action_names)) == len(io.action_names) == len(io.action_units) == io.action_dim
    assert len(io.action_scales) == io.action_dim and io.obs_dim == sum(io.obs_sizes)
    assert {"last_action"} <= set(io.obs_names) and io.rate == made(name).config.rate
    assert made(name).name == name and made(name).status in ("solved", "unsolved")


@every_task
def test_starts_have_their_shapes_and_repeat(robot, name):
    task = made(name)
    one, two = (task.start(np.random.default_rng(5), robot, 3) for _ in range(2))
    assert one.q.shape == (3, robot.n) and one.poses.shape == (3, len(task.objects), 7) and len(one.goal) == 3
    assert (one.q >= robot.limits.q_min).all() and (one.q <= robot.limits.q_max).all()
    np.testing.assert_allclose(np.linalg.norm(one.poses[..., 3:], axis=-1), 1.0)
    assert all(np.array_equal(a, b) for a, b in ((one.q, two.q), (one.poses, two.poses), (one.goal, two.goal)))
    assert all(len(v) == 3 and np.array_equal(v, two.fields[n]) for n, v in one.fields.items())
    assert isinstance(task.instruction(one.goal[0]), str)
    if one.mocap is not None:
        scripted = task.script(np.zeros((1, 3)), one.goal)[0]
        np.testing.assert_array_equal(scripted, one.mocap)


@every_task
def test_the_same_seed_gives_the_same_episodes_with_their_costs_and_scripts_act_in_them(robot, name):
    runs = []
    for _ in range(2):
        env = environment(name, robot)
        rng, seen = np.random.default_rng(0), [env.reset(3)]
        for _ in range(STEPS):
            step = env.step(rng.uniform(-1, 1, (B, env.action_dim)))
            seen += [step.obs, step.reward[:, None], step.cost]
        runs.append(np.concatenate(seen, axis=1))
        assert step.obs.shape == (B, env.obs_dim) and step.obs.dtype == np.float32
        assert step.cost.shape == (B, len(env.constraint_names)) and (step.cost >= 0).all() and not env.broken
    assert np.isfinite(runs[0]).all() and np.array_equal(*runs)
    scripts = find.load(name).scripted()
    assert not scripts or "nothing" in scripts
    for script in scripts.values():
        policy, obs = script(), env.reset(1)
        carry = policy.start(B)
        for _ in range(4):
            action, carry = policy.act(obs, carry)
            assert action.shape == (B, env.action_dim) and (np.abs(action) <= 1).all()
            obs = env.step(action).obs


@every_task
def test_what_no_episode_can_be_made_of_is_refused_by_name(name):
    fields = find.load(name).config.__dataclass_fields__
    bad = {"max_steps": 0, "rate": -1.0, "hold": 0.0, "mass": (0.2, 0.1), "friction": (0.0, 1.0), "split": "exam"}
    for key, value in bad.items():
        if key in fields:
            with pytest.raises(ConfigError, match=rf"{name}\.{key}"):
                made(name, **{key: value})
    for split in SPLITS if "split" in fields else ():
        assert made(name, split=split).config.split == split


@every_task
def test_a_robot_whose_postures_are_unknown_is_refused_before_anything_moves(name):
    task = made(name)
    for other in set(robot_names()) - set(task.robots or robot_names()):
        with pytest.raises(ConfigError, match=f"fr3_leap.*{other}"):
            make_env(task, load_robot(other), None, num_envs=1, nthread=1)


def test_the_task_with_an_object_of_the_how_to_is_solved_by_its_script(robot, tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "add_a_task.md").read_text()
    path = tmp_path / "sweep.py"
    path.write_text(next(text for text in re.findall(r"```python\n(.*?)```", page, re.S) if "sweep.py" in text))
    spec = importlib.util.spec_from_file_location("palmar_sweep_example", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    env, won = make_env(module.Task(module.Config()), robot, None, num_envs=4, seed=1, nthread=1), np.zeros(4, bool)
    policy, obs = module.scripted()["oracle"](), env.reset(1)
    carry = policy.start(4)
    for _ in range(110):
        action, carry = policy.act(obs, carry)
        step = env.step(action)
        obs, won = step.obs, won | step.info["success"]
    assert won.sum() >= 3, won
