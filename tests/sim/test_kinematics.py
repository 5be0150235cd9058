"""Kinematics without ``mujoco.batch``, as Isaac Lab's environment runs it."""

import numpy as np
import pytest

from palmar.sim.kinematics import Kinematics, Placed
from palmar.sim.robots import load_robot, robot_names


@pytest.mark.parametrize("name", robot_names())
def test_both_kinematics_place_palm_tips_and_jacobian_alike(name):
    robot, rng = load_robot(name), np.random.default_rng(0)
    q = rng.uniform(robot.limits.q_min, robot.limits.q_max, (16, robot.n))
    ours, mujocos = Placed(robot).hand(q), Kinematics(robot, 16).hand(q)
    for field in ("palm", "rotation", "tips", "jacobian"):
        np.testing.assert_allclose(getattr(ours, field), getattr(mujocos, field), atol=1e-12, err_msg=field)
