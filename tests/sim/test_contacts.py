"""The reference hand's contact values decide every contact of hand and objects, and no other."""

import mujoco
import numpy as np
import pytest

from palmar.benchmarks.lift import reference_folder
from palmar.safety.types import ConfigError
from palmar.sim import scene
from palmar.sim.contacts import LEAP_MENAGERIE, Contact, impose
from palmar.sim.randomize import Parts
from palmar.sim.reality import named
from palmar.sim.tasks.lift import BLOCKS

NAMES = tuple(b.name for b in BLOCKS)
LEAP = LEAP_MENAGERIE
SOLREF, SOLIMP = np.array(LEAP.solref), np.array(LEAP.solimp)


@pytest.fixture(scope="module")
def model(robot):
    made = scene.compose(furnish=lambda spec: scene.add_blocks(spec, BLOCKS))[0]
    return impose(made, LEAP, parts=Parts.of(made, robot, NAMES), tips=robot.tip_geoms)


def touching(model, robot, geom, height=0.0):
    """The contacts of the first block when its centre is put on ``geom`` (or on the table), by partner."""
    data = mujoco.MjData(model)
    for joint, q in zip(robot.joints, robot.home, strict=True):
        data.joint(joint).qpos[0] = q
    mujoco.mj_kinematics(model, data)
    data.joint(f"{NAMES[0]}_free").qpos[:3] = data.geom_xpos[geom] + [0.0, 0.0, height]
    mujoco.mj_forward(model, data)
    own = model.geom(f"{NAMES[0]}_geom").id
    return {int(sum(c.geom) - own): c for c in data.contact if own in c.geom}


def test_a_tip_and_a_link_touch_a_block_as_the_reference_says(model, robot):
    tips = [model.geom(name).id for name in robot.tip_geoms]
    links = set(map(int, Parts.of(model, robot, NAMES).hand_geoms)) - set(tips)
    for geom, coefficient in [(t, LEAP.tip) for t in tips] + [(g, LEAP.link) for g in links]:
        found = touching(model, robot, geom)
        assert geom in found, model.geom(geom).name
        contact = found[geom]
        assert contact.friction[0] == coefficient
        np.testing.assert_array_equal(contact.solref, SOLREF)
        np.testing.assert_array_equal(contact.solimp, SOLIMP)


def test_the_table_goes_on_to_decide_on_the_table(model, robot):
    table = model.geom(scene.TABLE).id
    found = touching(model, robot, table, height=0.025 + BLOCKS[0].half_size[2] - 1e-3)
    assert found[table].friction[0] == model.geom_friction[table, 0] == scene.FRICTION[0]


def test_cones_and_solver_are_the_references(model):
    assert model.opt.cone == mujoco.mjtCone.mjCONE_ELLIPTIC and model.opt.impratio == LEAP.impratio == 100
    assert (model.opt.iterations, model.opt.ls_iterations) == LEAP.iterations


def test_what_is_none_stays_as_it_is(robot):
    made = scene.compose(furnish=lambda spec: scene.add_blocks(spec, BLOCKS))[0]
    before = scene.compose(furnish=lambda spec: scene.add_blocks(spec, BLOCKS))[0]
    impose(made, Contact(tip=0.5, link=0.2), parts=Parts.of(made, robot, NAMES), tips=robot.tip_geoms)
    np.testing.assert_array_equal(made.geom_solref, before.geom_solref)
    np.testing.assert_array_equal(made.geom_solimp, before.geom_solimp)
    assert (made.opt.cone, made.opt.impratio) == (before.opt.cone, before.opt.impratio)
    assert np.any(made.geom_friction != before.geom_friction)


def test_training_draws_the_friction_of_the_reference_hands_tips():
    """Not at the edge: a tenth of the draws lie below it."""
    drawn, wider = (named(level).physics.grip_friction for level in ("train", "wide"))
    assert drawn is not None and wider is not None
    assert drawn[0] < LEAP.tip - 0.05 and LEAP.tip < drawn[1]
    assert wider[0] < drawn[0]


def test_the_values_are_those_of_the_file():
    folder = reference_folder()
    if folder is None:
        pytest.skip("the reference models are not here")
    theirs = mujoco.MjModel.from_xml_path(str(folder / "leap_hand_lite" / "right_hand.xml"))
    hit = theirs.geom_contype != 0
    tips = [theirs.geom(name).id for name in ("if_tip", "mf_tip", "rf_tip", "th_tip")]
    assert set(theirs.geom_friction[tips, 0]) == {LEAP.tip}
    assert set(np.delete(theirs.geom_friction[:, 0], tips)[np.delete(hit, tips)]) == {LEAP.link}
    np.testing.assert_array_equal(theirs.geom_solref[hit], np.tile(SOLREF, (hit.sum(), 1)))
    np.testing.assert_array_equal(theirs.geom_solimp[hit], np.tile(SOLIMP, (hit.sum(), 1)))
    assert theirs.opt.cone == mujoco.mjtCone.mjCONE_ELLIPTIC and theirs.opt.impratio == LEAP.impratio
    assert (theirs.opt.iterations, theirs.opt.ls_iterations) == LEAP.iterations


@pytest.mark.parametrize(
    ("values", "match"),
    [({"tip": 0.2, "link": 0.5}, "link <= tip"), ({"tip": 0.5, "link": 0.2, "cone": "round"}, "elliptic")],
)
def test_impossible_values_are_refused(values, match):
    with pytest.raises(ConfigError, match=match):
        Contact(**values)
