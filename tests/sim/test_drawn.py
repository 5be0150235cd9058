"""Laws of a reality drawn for running worlds, on the engine itself, and of what cameras see of it."""

from dataclasses import replace

import mujoco
import numpy as np
import pytest

from palmar.sim import actuators, appearance, reality, scene
from palmar.sim.drawn import Drawn
from palmar.sim.engines.mujoco_cpu import MujocoEngine
from palmar.sim.randomize import Parts
from palmar.sim.reality import Looks, Physics, Reality
from palmar.sim.render import Gl, RenderRefused
from palmar.sim.tasks.lift import BLOCKS

B, STEPS = 3, 40
NAMES = tuple(b.name for b in BLOCKS)
POSES = np.zeros((B, len(BLOCKS), 7))
POSES[..., 0], POSES[..., 1], POSES[..., 3] = 0.5, [-0.12, 0.0, 0.12], 1.0
POSES[..., 2] = [b.half_size[2] for b in BLOCKS]


def spec():
    out = scene.scene_spec(BLOCKS)
    appearance.add_materials(out, n=6, seed=0)
    out.camera("report").resolution = [64, 48]
    return out


@pytest.fixture(scope="module")
def model():
    return spec().compile()


def run(model, robot, config, seed=0, first=0):
    """Samples of an interval in which every joint is sent 0.05 rad away, the hand after ``first`` steps, and more."""
    engine = MujocoEngine(model, robot, objects=NAMES, nworld=B, nthread=1)
    drawn = Drawn(config, model, robot, objects=NAMES, batch=B, seed=seed)
    fields, poses = drawn.fields({}, POSES)
    ids = np.arange(B)
    engine.set_fields(ids, fields)
    qpos = np.tile(model.qpos0, (B, 1))
    for j, q in zip(robot.joints, robot.home, strict=True):
        qpos[:, model.joint(j).qposadr[0]] = q
    for m, name in enumerate(NAMES):
        adr = model.joint(f"{name}_free").qposadr[0]
        qpos[:, adr : adr + 7] = poses[:, m]
    engine.reset(ids, qpos, np.zeros((B, model.nv)))
    home = np.tile(robot.home, (B, 1))
    drawn.restart(ids, fields, home)
    u = np.tile(home + 0.05, (STEPS, 1, 1))
    u[:first, :, robot.n_arm :] -= 0.05
    still = np.zeros_like(u)
    samples = engine.advance(drawn.applied(u), still, still, still)
    drawn.read(samples)
    assert not engine.broken().any()
    return samples, fields, drawn, engine


def test_none_is_the_model_with_perfect_sensors(model, robot):
    samples, fields, drawn, engine = run(model, robot, reality.named("none"))
    assert fields == {}
    np.testing.assert_array_equal(drawn.sensors.q, engine.q)
    np.testing.assert_array_equal(drawn.sensors.qd, engine.qd)
    np.testing.assert_array_equal(samples.q[:, 0], samples.q[:, 1])
    u = np.ones((2, B, robot.n))
    assert drawn.applied(u) is u


@pytest.mark.parametrize("level", ["train", "wide"])
def test_worlds_differ_run_and_repeat(model, robot, level):
    first, _, drawn, engine = run(model, robot, reality.named(level))
    again, _, twin, _ = run(model, robot, reality.named(level))
    other, _, _, _ = run(model, robot, reality.named(level), seed=1)
    np.testing.assert_array_equal(first.q, again.q)
    np.testing.assert_array_equal(drawn.sensors.q, twin.sensors.q)
    assert np.any(first.q != other.q)
    assert np.abs(first.q[-1, 0] - first.q[-1, 1]).max() > 1e-4
    assert 1e-4 < np.abs(drawn.sensors.q - engine.q).max() < 0.1
    rise = first.object_position[:, :, :, 2] - first.object_position[0, :, :, 2]
    assert np.abs(rise).max() < 1e-3  # objects of another size stood on the table, neither in it nor above it


def test_what_only_cameras_see_changes_no_physics(model, robot):
    looks = replace(reality.named("wide").looks, table_texture=True)
    plain, _, _, _ = run(model, robot, Reality())
    dressed, fields, _, _ = run(model, robot, Reality(looks=looks))
    assert {"light_pos", "geom_rgba", "mat_rgba", "geom_matid", "cam_pos"} <= set(fields)
    for name in ("q", "qd", "tau", "contact_force", "object_position", "object_quaternion"):
        assert getattr(plain, name).tobytes() == getattr(dressed, name).tobytes()


def test_a_late_command_is_one_sent_later(model, robot):
    """A hand five steps late moves, to the bit, as one that is told five steps later; the arm does not wait."""
    late = Reality(actuators=actuators.ActuatorConfig(hand_delay=(0.025, 0.025)))
    delayed, told_later, at_once = (
        run(model, robot, late)[0],
        run(model, robot, Reality(), first=5)[0],
        run(model, robot, Reality())[0],
    )
    np.testing.assert_array_equal(delayed.q, told_later.q)
    assert np.abs(delayed.q - at_once.q).max() > 1e-3


def test_stiffness_asked_for_is_what_weak_servos_make_of_it(model, robot):
    """To ask for the model's own stiffness and damping gives what was drawn; perfect servos give what is asked."""
    config = Reality(physics=Physics(stiffness=(0.5, 0.9), servo_damping=(0.5, 0.9)))
    _, fields, drawn, engine = run(model, robot, config)
    act = [model.actuator(j).id for j in robot.joints]
    asked = [np.tile(x, (B, 1)) for x in (model.actuator_gainprm[act, 0], -model.actuator_biasprm[act, 2])]
    engine.impedance(*drawn.impedance(*asked))
    for name in ("actuator_gainprm", "actuator_biasprm"):
        np.testing.assert_allclose(engine.batch.expanded(name), fields[name], rtol=1e-12)
    faithful = run(model, robot, Reality())[2].impedance(*asked)
    np.testing.assert_array_equal(faithful, asked)


LOOKS = {
    "light": Looks(light_position=0.5, light_angle=0.5, light_strength=(0.3, 1.5)),
    "objects": Looks(object_brightness=(0.3, 1.5), object_tint=0.1),
    "materials": Looks(material_brightness=(0.3, 1.5), material_tint=0.2),
    "texture": Looks(table_texture=True),
    "camera": Looks(camera_position=0.05, camera_angle=0.1),
}


def test_every_look_changes_the_picture(robot):
    model = spec().compile()
    try:
        gl = Gl(model)
    except RenderRefused as error:
        pytest.skip(str(error))
    data = mujoco.MjData(model)
    parts, rng = Parts.of(model, robot, NAMES), np.random.default_rng(0)

    def picture(fields):
        kept = {name: getattr(model, name).copy() for name in fields}
        for name, value in fields.items():
            getattr(model, name)[:] = value[0]
        mujoco.mj_forward(model, data)
        image = gl.draw(data, model.camera("report").id).color.astype(float)
        for name, value in kept.items():
            getattr(model, name)[:] = value
        return image

    plain = picture({})
    for name, looks in LOOKS.items():
        seen = picture(reality.draw(model, robot, parts, Reality(looks=looks), rng, 1))
        assert np.abs(seen - plain).max() > 8, name
    np.testing.assert_array_equal(picture({}), plain)
    gl.close()
