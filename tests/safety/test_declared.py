"""The true robot stays near its commands while its errors are at their declared bounds, and not far beyond them."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from imperfect import DT, Imperfect, drive

from palmar.benchmarks.filter import Adversary, make_filter
from palmar.safety.constraints import load
from palmar.safety.declared import Declared
from palmar.safety.geometry import Kinematics
from palmar.safety.types import ConfigError
from palmar.sim import scene
from palmar.sim.robots import arm_and_hand, load_robot

DECLARED = Declared()
CONSTRAINTS = Path(str(files("palmar.configs"))) / "constraints" / "arm_hand.yaml"


class Worst:
    """The largest tracking error per group, and the smallest clearances, true and commanded."""

    def __init__(self, name, seed, *, ticks=1200, **errors):
        robot, (arm, hand) = load_robot(name), arm_and_hand(name)
        rng = np.random.default_rng(seed)
        sim = Imperfect(robot, scene.compose(arm=arm, hand=hand)[0], declared=DECLARED, rng=rng, **errors)
        lag = np.where(np.arange(robot.n) < robot.n_arm, DECLARED.lag_arm, DECLARED.lag_hand)
        follow, lagged, error = 1 - np.exp(-DT / lag), sim.q.copy(), np.zeros(robot.n)
        kinematics = Kinematics.from_model(robot)
        true, sent, self.moved = np.full(2, np.inf), np.full(2, np.inf), 0.0
        filter_ = make_filter(robot, load(CONSTRAINTS, robot.limits))
        for k, (u, _) in enumerate(drive(filter_, sim, Adversary(robot, rng).chunk, ticks)):
            lagged += (u - lagged) * follow
            error = np.maximum(error, np.abs(sim.q - lagged))
            if k % 5 == 0:
                true, sent = (np.minimum(x, smallest(kinematics, q)) for x, q in ((true, sim.q), (sent, u)))
            self.moved = max(self.moved, float(np.abs(sim.q - u).max()))
        self.arm, self.hand = error[: robot.n_arm].max(), error[robot.n_arm :].max()
        self.closer, self.lower = sent - true


def smallest(kinematics, q):
    """Self and table clearance at q, as far as it is near [m], (2,)."""
    own, table = kinematics.clearances(q, near=DECLARED.near)
    return np.minimum([own.min(), table.min()], DECLARED.near)


@pytest.mark.parametrize(
    ("name", "payload", "delay"),
    [
        ("fr3_leap", DECLARED.payload, DECLARED.delay),
        ("fr3_leap", 0.0, 0),
        ("fr3_allegro", DECLARED.payload, DECLARED.delay),
        ("panda_leap", DECLARED.payload, DECLARED.delay),
    ],
)
def test_the_true_robot_stays_within_its_tolerance_of_the_command(name, payload, delay):
    worst = Worst(name, 0, mass=DECLARED.mass, payload=payload, delay=delay)
    assert worst.arm <= DECLARED.track_arm
    assert worst.hand <= DECLARED.track_hand
    assert worst.closer <= DECLARED.closer
    assert worst.lower <= DECLARED.lower


def test_the_tolerance_is_not_met_far_beyond_the_declared_delay():
    worst = Worst("fr3_leap", 1, ticks=2500, mass=DECLARED.mass, payload=DECLARED.payload, delay=60)
    assert worst.moved > 0.1
    assert worst.arm > DECLARED.track_arm
    assert worst.hand > DECLARED.track_hand


def test_negative_bounds_are_refused():
    with pytest.raises(ConfigError, match=r"declared\.payload"):
        Declared(payload=-1.0)
