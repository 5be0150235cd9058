"""Distances of a whole control step at once are those of the filter, pose by pose."""

import mujoco
import numpy as np
import pytest

from palmar.safety.geometry import FAR, Kinematics
from palmar.sim.clearance import clearance_routine, every_geom
from palmar.sim.poses import chain_of
from palmar.sim.robots import load_robot, robot_names

S, B = 10, 40
SPANS = (0.0, 0.02, 0.3, 3.0)
"""How far joints turn within an interval [rad]: from standing to nonsense."""


def motions(robot, span, seed=0):
    """Joint positions (S, B, n): from random places, half of them near a closed hand, some steps forth and back."""
    rng = np.random.default_rng(seed)
    start = rng.uniform(robot.limits.q_min, robot.limits.q_max, (B, robot.n))
    start[: B // 2] = robot.home + rng.uniform(-0.2, 0.2, (B // 2, robot.n))
    return start + span * rng.uniform(-0.5, 0.5, (S, B, robot.n))


@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize("name", robot_names())
def test_an_interval_has_the_filters_distances_at_every_sample(name, span):
    robot = load_robot(name)
    kinematics, q = Kinematics.from_model(robot), motions(robot, span)
    own, table, palm = clearance_routine(robot)(q)
    nearest = 0
    for s, w in np.ndindex(S, B):
        pair, height = kinematics.clearances(q[s, w])  # every pair, no bound
        assert own[s, w] == pytest.approx(min(pair.min(), FAR), abs=1e-9)
        assert table[s, w] == pytest.approx(height.min(), abs=1e-9)
        np.testing.assert_allclose(palm[s, w], kinematics.scratch[0][kinematics.tree.palm], atol=1e-9)
        nearest += pair.min() < FAR
    assert nearest > S * B // 4  # or self clearance was never looked at


def test_worlds_shared_out_over_threads_give_the_same_bits(robot):
    q = np.tile(motions(robot, 0.1), (1, 5, 1))
    routine = clearance_routine(robot)
    whole, part = routine(q), routine(np.ascontiguousarray(q[:, :3]))
    for a, b in zip(whole, part, strict=True):
        assert np.array_equal(a[:, :3], b)


def test_a_robot_of_other_shapes_is_measured_sample_by_sample_with_the_same_result(robot, monkeypatch):
    q = motions(robot, 0.05)[:3, :8]
    fast = clearance_routine(robot)(q)
    monkeypatch.setattr(Kinematics, "plain", False)
    for a, b in zip(fast, clearance_routine(robot)(q), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-9)


def test_geoms_are_where_mujoco_has_them(robot):
    kinematics = Kinematics.from_model(robot)
    q, model = motions(robot, 0.1)[:2, :6], kinematics.model
    data, chain = mujoco.MjData(model), chain_of(kinematics)
    centre = np.empty((2, 6, len(chain.link), 3))
    half = np.empty_like(centre)
    every_geom(chain, q, centre, half)
    for s, w in np.ndindex(2, 6):
        data.qpos[kinematics.qpos] = q[s, w]
        mujoco.mj_kinematics(model, data)
        for k, name in enumerate(kinematics.geoms):
            np.testing.assert_allclose(centre[s, w, k], data.geom(name).xpos, atol=1e-12)
            along = data.geom(name).xmat.reshape(3, 3)[:, 2]
            np.testing.assert_allclose(np.cross(half[s, w, k], along), 0, atol=1e-12)
