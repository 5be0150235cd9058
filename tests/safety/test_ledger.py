"""The springs that the tanks are metered by: what they are read from, and laws of what is charged for them."""

from dataclasses import replace

import mujoco
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palmar.safety.geometry import Kinematics
from palmar.safety.ledger import port, reserve, spring
from palmar.safety.tank import servo_of
from palmar.safety.types import ConfigError
from palmar.sim.robots import load_robot

ROBOT = load_robot("fr3_leap")
STIFFNESS, STRETCH, SPEED = st.floats(0.1, 1000.0), st.floats(-1.0, 1.0), st.floats(-3.0, 3.0) | st.just(0.0)
REST = {"a_max": 10.0, "j_max": 5000.0, "error": 1e-3, "push": 0.5, "skew": 1e-3, "force": 30.0, "dt": 1e-3}


def kinematics(change):
    """Of the robot, its compiled actuators changed."""
    kin = Kinematics.from_model(ROBOT)
    change(kin.model)
    return kin


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.actuator_gear.__setitem__((3, 0), 2.0),
        lambda m: m.actuator_biasprm.__setitem__((3, 1), -1.0),
        lambda m: (m.actuator_biasprm.__setitem__((3, 1), 0.0), m.actuator_gainprm.__setitem__((3, 0), 0.0)),
        lambda m: m.actuator_forcelimited.__setitem__(3, 0),
        lambda m: m.actuator_trntype.__setitem__(3, int(mujoco.mjtTrn.mjTRN_JOINTINPARENT)),
    ],
)
def test_an_actuator_that_is_no_spring_with_a_torque_limit_is_refused_by_name(change):
    kin = kinematics(change)
    with pytest.raises(ConfigError, match=kin.model.actuator(3).name):
        servo_of(kin)


def test_every_joint_has_one_spring_and_every_spring_a_joint():
    twice = kinematics(lambda m: m.actuator_trnid.__setitem__((3, 0), m.actuator_trnid[2, 0]))
    with pytest.raises(ConfigError, match="no position servo"):
        servo_of(twice)
    kin = Kinematics.from_model(ROBOT)
    with pytest.raises(ConfigError, match="no position servo"):
        servo_of(replace(kin, dof=kin.dof[:-1]))


@given(STIFFNESS, STRETCH, STRETCH, STIFFNESS)
def test_a_mirrored_spring_stores_and_takes_the_same(k, e, du, wanted):
    assert spring(k, e, 30.0) == spring(k, -e, 30.0)
    assert port(k, wanted, e, du, 1e-3, 30.0) == pytest.approx(port(k, wanted, -e, -du, 1e-3, 30.0), abs=1e-12)


@given(STIFFNESS, STRETCH, SPEED)
def test_a_mirrored_stop_needs_the_same_reserve_and_a_moving_one_more_where_it_stretches_the_spring(k, e, v):
    needed, end = reserve(k, e, v, **REST)
    assert reserve(k, -e, -v, **REST) == (needed, end)
    assert needed >= 0.0
    if e * v > 0.0:
        assert needed >= reserve(k, -e, v, **REST)[0]


@given(STIFFNESS, STRETCH)
def test_the_energy_of_a_spring_is_the_integral_of_its_torque(k, e):
    way = np.linspace(0.0, e, 20_001)
    assert spring(k, e, 30.0) == pytest.approx(np.trapezoid(np.clip(k * way, -30.0, 30.0), way), abs=1e-6, rel=1e-6)
