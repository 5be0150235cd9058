"""Task ``wall``; what it shares with ``edge`` is in ``test_edge.py``."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from palmar.safety.types import ConfigError
from palmar.sim.env import make_env
from palmar.sim.tasks import wall_oracle
from palmar.sim.tasks.grasp_in_place import direct
from palmar.sim.tasks.wall import WALL, WallConfig, WallTask


def episodes(robot, script, n, *, steps, wall=True):
    """Success (n,) within ``steps`` control steps; without a wall it is sunk into the table."""
    env = make_env(WallTask(WallConfig(friction=(0.6, 1.2), split="test")), robot, None, num_envs=n, seed=1, nthread=2)
    if not wall:
        position = env.engine.batch.expand("body_pos")
        position[:, env.engine.model.body("wall").id, 2] -= 1.0
    obs, carry, good = env._observe(), script.start(n), np.zeros(n, bool)
    for _ in range(steps):
        action, carry = script.act(obs, carry)
        step = env.step(action)
        obs = step.obs
        good |= step.info["success"]
        if good.all():
            break
    return good


def test_oracle_tips_the_box_up_against_the_wall_and_lifts_it(robot):
    good = episodes(robot, wall_oracle.oracle(), 6, steps=290)
    assert good.sum() >= 5


def test_without_the_wall_the_box_does_not_tip(robot):
    good = episodes(robot, wall_oracle.oracle(), 2, steps=200, wall=False)
    assert not good.any()


def test_a_direct_grasp_does_not_lift_it(robot):
    good = episodes(robot, direct(), 3, steps=130)
    assert not good.any()


def test_a_box_that_stands_is_not_lifted_and_one_behind_the_wall_ends_the_episode():
    task = WallTask(WallConfig())
    goal = np.array([[0.125, 0.125, 0.024, 0.2, 0.1]] * 3)
    standing = np.array([np.sqrt(0.5), np.sqrt(0.5), 0, 0])
    position = np.array([[[0.5, 0.17, 0.125]], [[0.5, 0.17, 0.23]], [[0.5, 0.2 + 2 * WALL[1] + 0.03, 0.125]]])
    view: Any = SimpleNamespace(position=position, quaternion=np.tile(standing, (3, 1, 1)), goal=goal)
    assert task.achieved(view).tolist() == [False, True, False]
    assert task.failed(view).tolist() == [False, False, True]


@pytest.mark.parametrize("bad", [{"yaw": 0.8}, {"top": 0.03}, {"top": 0.2}, {"wall": (0.0, 0.1)}, {"gap": (0.0, 0.1)}])
def test_boxes_that_cannot_lie_against_the_wall_or_be_grasped_above_it_are_refused(bad):
    with pytest.raises(ConfigError, match=f"wall.{next(iter(bad))}"):
        WallConfig(**bad)
