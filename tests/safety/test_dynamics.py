"""Compiled dynamics against MuJoCo's, and against the laws of mechanics that need no reference."""

from dataclasses import replace

import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palmar.safety.dynamics import inertia_of, inverse_dynamics, mass_and_bias, mass_matrix
from palmar.safety.geometry import Kinematics
from palmar.safety.robot import Limits

SEEDS = st.integers(0, 2**32 - 1)


def motion(robot, seed):
    rng, limits = np.random.default_rng(seed), robot.limits
    q = rng.uniform(limits.q_min, limits.q_max)
    return q, rng.uniform(-1, 1, robot.n) * limits.v_max, rng.uniform(-1, 1, robot.n) * limits.a_max


def shuffled(robot):
    """The same robot with its joints in another hardware order, children before parents."""
    order = np.random.default_rng(3).permutation(robot.n)
    limits = Limits(**{name: value[order] for name, value in vars(robot.limits).items()})
    return replace(robot, joints=tuple(robot.joints[i] for i in order), limits=limits, home=robot.home[order])


@pytest.mark.parametrize("gravity", [(0.0, 0.0, 0.0), (0.3, -1.0, -9.81)])
@pytest.mark.parametrize("order", ["hardware order of the tree", "any hardware order"])
def test_mass_matrix_and_torques_equal_mujocos(robot, gravity, order):
    robot = shuffled(robot) if order == "any hardware order" else robot
    kin = Kinematics.from_model(robot)
    kin.model.dof_armature[:] = np.linspace(0.01, 0.2, robot.n)
    kin.model.opt.gravity[:] = gravity
    b, data, n = inertia_of(kin, gravity=gravity), mujoco.MjData(kin.model), robot.n
    matrix, torque, full, rne = np.zeros((n, n)), np.zeros(n), np.zeros((n, n)), np.zeros(n)
    cross = np.ix_(kin.dof, kin.dof)
    for seed in range(60):
        q, v, a = motion(robot, seed)
        data.qpos[kin.qpos], data.qvel[kin.dof], data.qacc[kin.dof] = q, v, a
        mujoco.mj_fwdPosition(kin.model, data)
        mujoco.mj_fwdVelocity(kin.model, data)
        mujoco.mj_fullM(kin.model, data, full)
        mujoco.mj_rne(kin.model, data, 1, rne)
        mass_matrix(b, q, matrix)
        inverse_dynamics(b, q, v, a, torque)
        np.testing.assert_allclose(matrix, full[cross], atol=1e-9)
        np.testing.assert_allclose(torque, rne[kin.dof] + kin.model.dof_armature[kin.dof] * a, atol=1e-9)


@settings(max_examples=100)
@given(seed=SEEDS)
def test_torques_are_the_mass_matrix_times_acceleration_plus_the_bias(robot, seed):
    b, n = inertia_of(Kinematics.from_model(robot)), robot.n
    q, v, a = motion(robot, seed)
    matrix, bias, torque = np.zeros((n, n)), np.zeros(n), np.zeros(n)
    mass_and_bias(b, q, v, np.zeros(n), matrix, bias)
    inverse_dynamics(b, q, v, a, torque)
    np.testing.assert_allclose(torque, matrix @ a + bias, atol=1e-9)
    assert np.array_equal(matrix, matrix.T) and np.linalg.eigvalsh(matrix)[0] > 0


@settings(max_examples=100)
@given(seed=SEEDS)
def test_the_power_of_the_torques_is_the_rate_of_the_kinetic_energy(robot, seed):
    b, n = inertia_of(Kinematics.from_model(robot)), robot.n
    q, v, a = motion(robot, seed)
    torque, matrix = np.zeros(n), np.zeros((n, n))
    inverse_dynamics(b, q, v, a, torque)

    def energy(t):
        mass_matrix(b, q + t * v + 0.5 * t * t * a, matrix)
        return 0.5 * (v + t * a) @ matrix @ (v + t * a)

    h = 1e-5
    np.testing.assert_allclose(torque @ v, (energy(h) - energy(-h)) / (2 * h), rtol=1e-5, atol=1e-4)
