"""Which arm answers, and which configuration of one is accepted."""

import numpy as np
import pytest
from fr3_case import address

from palmar.real_robot.drivers import fr3_identity
from palmar.real_robot.drivers.error import DriverError
from palmar.real_robot.drivers.fr3_config import STIFFEST, Fr3Config
from palmar.real_robot.fakes.fci import Fci
from palmar.real_robot.fakes.fci_motion import FR3, PANDA
from palmar.real_robot.fakes.fci_process import servo_plant
from palmar.safety.types import ConfigError


def parsed(limits):
    return fr3_identity.parse(limits.urdf())


def ours():
    c = Fr3Config(address="x")
    return fr3_identity.ArmLimits("fr3", c.low, c.high, c.v_max)


def test_the_drivers_defaults_are_the_limits_of_our_own_arm():
    """What the filter keeps is what the driver lets pass, and the robot's own are wider."""
    from palmar.sim.robots import load_robot

    robot, config = load_robot("fr3_leap"), Fr3Config(address="x")
    np.testing.assert_allclose(robot.limits.q_min[:7], config.low)
    np.testing.assert_allclose(robot.limits.q_max[:7], config.high)
    fr3_identity.check(fr3_identity.ArmLimits("fr3", config.low, config.high, config.v_max), parsed(FR3))


def test_limits_of_a_panda_are_refused_by_an_fr3_and_the_other_way_round():
    panda = parsed(PANDA)
    with pytest.raises(ConfigError, match="wider than the robot's own"):
        fr3_identity.check(fr3_identity.ArmLimits("fr3", panda.low, panda.high, panda.v_max), parsed(FR3))
    with pytest.raises(ConfigError, match="'fr3', the robot's URDF says 'panda'"):
        fr3_identity.check(ours(), panda)


def test_a_robot_of_another_version_is_named_with_both():
    with Fci(servo_plant(), address(), version=5) as fake:
        with pytest.raises(DriverError, match="version 5 .* speaks 10"):
            fr3_identity.ask_urdf(fake.address, timeout=5.0)


def test_nobody_there_is_said_with_the_address():
    with pytest.raises(DriverError, match="127.0.0.1:1337"):
        fr3_identity.ask_urdf("127.0.0.1", timeout=1.0)


@pytest.mark.parametrize("text", ["", "<robot/>", "<!DOCTYPE a [<!ENTITY b 'c'>]><robot/>", "<robot"])
def test_an_urdf_without_the_limits_is_refused(text):
    with pytest.raises(DriverError):
        fr3_identity.parse(text)


@pytest.mark.parametrize(
    "wrong",
    [
        {"address": ""},
        {"stiffness": (1.0,) * 6},
        {"stiffness": (STIFFEST + 1,) * 7},
        {"collision_torque": (0.0,) * 7},
        {"load_mass": -1.0},
        {"load_mass": float("nan")},
        {"low": (3.0,) * 7},
        {"jump": 1.0},
        {"a_max": 11.0},
        {"timeout": 0.0},
    ],
)
def test_an_impossible_configuration_is_refused(wrong):
    with pytest.raises(ConfigError, match="fr3: "):
        Fr3Config(**{"address": "x", **wrong})
