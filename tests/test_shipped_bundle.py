"""What ships works: the bundle fits this robot and constraint file, and lifts blocks it has not seen."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from palmar.policies.bundle import BundlePolicy, load_bundle
from palmar.policies.contract import TaskContract
from palmar.policies.evaluate import evaluate
from palmar.safety.constraints import load
from palmar.sim.env import make_env
from palmar.sim.robots import load_robot
from palmar.sim.tasks.lift import LiftConfig, LiftIO, LiftTask

BUNDLES = Path(str(files("palmar.assets"))) / "bundles"
CONSTRAINTS = Path(str(files("palmar.configs"))) / "constraints" / "arm_hand.yaml"


def test_the_shipped_bundle_fits_what_is_here():
    robot = load_robot()
    bundle = load_bundle(BUNDLES / "lift")
    bundle.check(robot, load(CONSTRAINTS, robot.limits), TaskContract.of("lift", LiftIO(robot, 1)))


def test_it_lifts_and_the_unconstrained_twin_slams():
    """Unseen episodes; bounds well below what docs/results.md reports, so that only a broken policy fails."""
    robot = load_robot()
    constraints = load(CONSTRAINTS, robot.limits)
    found = {}
    for name in ("lift", "lift_unconstrained"):
        env = make_env(LiftTask(LiftConfig()), robot, constraints, num_envs=40, seed=77)
        found[name] = evaluate(env, BundlePolicy(load_bundle(BUNDLES / name)), episodes=40, seed=78)
    assert found["lift"].successes >= 34
    table = {name: float(np.median(e.peak_force[:, 0])) for name, e in found.items()}
    assert table["lift_unconstrained"] > 100 > table["lift"]
    k = constraints.names.index("table_force")
    assert found["lift"].costs[:, k].mean() < 0.3 * found["lift_unconstrained"].costs[:, k].mean()


@pytest.mark.parametrize("name", ["lift", "lift_unconstrained"])
def test_a_bundle_says_how_it_was_made(name):
    training = load_bundle(BUNDLES / name).training
    assert {"env_steps", "iterations", "unseen"} <= set(training), sorted(training)
