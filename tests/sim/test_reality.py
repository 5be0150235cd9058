"""A reality: what it draws, what it leaves alone, and which cannot be."""

from dataclasses import replace

import numpy as np
import pytest
from varied import NAMES, K, geoms_of, spec

from palmar.safety.types import ConfigError
from palmar.sim import actuators, reality
from palmar.sim.randomize import Parts
from palmar.sim.reality import Looks, Physics, Reality


@pytest.fixture(scope="module")
def model():
    return spec().compile()


@pytest.fixture(scope="module")
def parts(model, robot):
    return Parts.of(model, robot, NAMES)


def test_to_switch_one_quantity_off_changes_no_other(model, parts, robot):
    full = reality.named("train")
    less = replace(full, physics=replace(full.physics, grip_friction=None, armature=None))
    a, b = (reality.draw(model, robot, parts, r, np.random.default_rng(0), K) for r in (full, less))
    for f in set(a) - {"geom_friction", "dof_armature"}:
        np.testing.assert_array_equal(a[f], b[f])
    assert "dof_armature" not in b and np.any(a["geom_friction"] != b["geom_friction"])


def test_none_draws_nothing_and_keeps_what_the_task_drew(model, parts, robot):
    rng = np.random.default_rng(0)
    given = {"geom_size": np.tile(model.geom_size, (K, 1, 1))}
    out = reality.draw(model, robot, parts, reality.named("none"), rng, K, given=given)
    assert set(out) == {"geom_size"} and out["geom_size"] is given["geom_size"]
    assert rng.random() == np.random.default_rng(0).random()


def test_randomisation_starts_from_what_the_task_drew(model, parts, robot):
    """A task's own sizes, ten per cent larger, are what is scaled."""
    config = Reality(physics=Physics(object_size=(2.0, 2.0)))
    given = {"geom_size": np.tile(model.geom_size, (K, 1, 1)) * 1.1}
    out = reality.draw(model, robot, parts, config, np.random.default_rng(0), K, given=given)
    g = geoms_of(model, *NAMES)
    np.testing.assert_allclose(out["geom_size"][:, g], np.tile(2.2 * model.geom_size[g], (K, 1, 1)), rtol=1e-12)
    np.testing.assert_allclose(out["geom_rbound"][:, g], np.tile(2.2 * model.geom_rbound[g], (K, 1)), rtol=1e-12)


def test_training_meets_the_friction_of_the_reference_hand():
    """Menagerie's LEAP has 0.5 at the tips: inside what is trained on; the oracle's 0.3 is inside the wide one."""
    low, high = reality.named("train").physics.grip_friction
    assert low < 0.5 < low + 0.25 * (high - low)
    assert reality.named("wide").physics.grip_friction[0] <= 0.3


@pytest.mark.parametrize(
    "function, error",
    [
        (lambda: reality.named("trian"), "did you mean 'train'"),
        (lambda: Physics(link_mass=(0.0, 1.0)), "link_mass"),
        (lambda: Physics(grip_friction=(1.0, 0.5)), "grip_friction"),
        (lambda: Physics(gravity=-1.0), "gravity"),
        (lambda: Looks(camera_angle=-0.1), "camera_angle"),
        (lambda: actuators.ActuatorConfig(hand_motor="xc331"), "xc330_m288"),
    ],
)
def test_impossible_ranges_are_refused(function, error):
    with pytest.raises(ConfigError, match=error):
        function()
