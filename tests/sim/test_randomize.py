"""Laws of randomisation: each function changes what it names and nothing else, within its range, physically."""

from functools import partial

import mujoco
import numpy as np
import pytest
from mujoco.batch import MODEL_FIELDS, Batch
from varied import BLOCKS, NAMES, K, geoms_of, spec

from palmar.safety.types import ConfigError
from palmar.sim import actuators, appearance, randomize, reality
from palmar.sim.randomize import Parts
from palmar.sim.reality import Physics, Reality

DERIVED = {
    "actuator_acc0", "body_invweight0", "body_subtreemass", "bvh_aabb", "cam_mat0", "cam_pos0", "cam_poscom0", "dof_M0",
    "dof_invweight0", "dof_length", "geom_aabb", "geom_rbound", "light_dir0", "light_pos0", "light_poscom0",
}  # fmt: skip
"""What mj_setConst computes from other fields."""


@pytest.fixture(scope="module")
def model():
    return spec().compile()


@pytest.fixture(scope="module")
def parts(model, robot):
    return Parts.of(model, robot, NAMES)


# Each function bound to what it shall change: name -> (function, {field: entries that may change}, range of the ratio).
def functions(model, parts, robot):
    r, a = randomize, appearance
    two, cube = parts.objects[:2], int(parts.objects[0])
    thing = geoms_of(model, "cube", "ball")
    n = np.arange
    motors = actuators.ActuatorConfig(hand_motor="xc330_m288", strength=(0.5, 0.9))
    return {
        "mass": (partial(r.mass, bodies=two, scale=(0.5, 2.0)), {"body_mass": two, "body_inertia": two}, (0.5, 2.0)),
        "payload": (partial(r.payload, body=cube, added=(0.1, 0.1)), {"body_mass": [cube]}, (2.0, 2.0)),
        "friction": (
            partial(r.friction, geoms=thing, coefficient=(0.3, 0.6)),
            {"geom_friction": (thing, 0)},
            (0.3, 0.6),
        ),
        "damping": (partial(r.damping, dofs=n(5), scale=(0.5, 0.8)), {"dof_damping": n(5)}, (0.5, 0.8)),
        "armature": (partial(r.armature, dofs=n(5), scale=(0.5, 0.8)), {"dof_armature": n(5)}, (0.5, 0.8)),
        "frictionloss": (partial(r.frictionloss, dofs=n(5), scale=(0.5, 0.8)), {"dof_frictionloss": n(5)}, (0.5, 0.8)),
        "gains": (
            partial(r.gains, actuators=n(3), stiffness=(0.5, 0.8), damping=(0.5, 0.8)),
            {"actuator_gainprm": (n(3), 0), "actuator_biasprm": (n(3), slice(1, 3))},
            (0.5, 0.8),
        ),
        "size": (
            partial(r.size, bodies=two, scale=(0.9, 1.1)),
            {
                "geom_size": thing, "geom_pos": thing, "geom_rbound": thing, "geom_aabb": thing,
                "site_pos": [], "body_ipos": two, "body_mass": two, "body_inertia": two,
            },
            (0.9**5, 1.1**5),
        ),
        "gravity": (partial(r.gravity, offset=0.4), {"opt.gravity": n(3)}, (1 - 0.4 / 9.81, 1 + 0.4 / 9.81)),
        "torque_limits": (
            partial(actuators.torque_limits, robot=robot, config=motors),
            {"actuator_forcerange": parts.actuators, "actuator_biasprm": (parts.actuators, 2), "dof_damping": n(23)},
            None,
        ),
        "lighting": (
            partial(a.lighting, position=0.3, angle=0.3, strength=(0.5, 0.9)),
            {f"light_{f}": n(1) for f in ("pos", "dir", "ambient", "diffuse", "specular")},
            None,
        ),
        "colours": (
            partial(a.colours, field="geom_rgba", ids=thing, brightness=(0.8, 1.2), tint=0.05),
            {"geom_rgba": (thing, slice(3))},
            None,
        ),
        "materials": (
            partial(a.colours, field="mat_rgba", ids=n(2), brightness=(0.8, 1.2), tint=0.05),
            {"mat_rgba": (n(2), slice(3))},
            None,
        ),
        "textures": (
            partial(a.textures, geoms=parts.table, materials=a.materials(model)),
            {"geom_matid": parts.table},
            None,
        ),
        "cameras": (
            partial(a.cameras, ids=n(2), position=0.02, angle=0.05),
            {"cam_pos": n(2), "cam_quat": n(2)},
            None,
        ),
    }  # fmt: skip


CASES = (
    "mass", "payload", "friction", "damping", "armature", "frictionloss", "gains", "size", "gravity", "torque_limits",
    "lighting", "colours", "materials", "textures", "cameras",
)  # fmt: skip


def nominal(model, name):
    return np.asarray(getattr(model.opt, name[4:]) if name.startswith("opt.") else getattr(model, name))


def world_models(model, fields):
    """The models of K worlds after ``fields`` have been set, as an engine does it."""
    batch = Batch(model, nsim=K, nthread=1)
    for name, value in fields.items():
        batch.expand(name)[:] = value
    batch.set_const()
    return [batch.get_model(w) for w in range(K)]


def differing(a, b, rtol=0.0):
    """Names of the fields in which two models differ."""
    out = set()
    for name in MODEL_FIELDS:
        x, y = nominal(a, name), nominal(b, name)
        if x.dtype.kind not in "OSU" and not np.allclose(x, y, rtol=rtol, atol=rtol * 1e-3, equal_nan=True):
            out.add(name)
    return out


def test_every_case_is_tested(model, parts, robot):
    assert set(functions(model, parts, robot)) == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_a_function_changes_what_it_names_and_nothing_else(model, parts, robot, name):
    function, named, _ = functions(model, parts, robot)[name]
    fields = function(model, np.random.default_rng(0), K)
    assert set(fields) == set(named)
    changed = set()
    for f, where in named.items():
        base = np.tile(nominal(model, f), (K, *[1] * nominal(model, f).ndim))
        assert fields[f].shape == base.shape and fields[f].dtype == base.dtype
        if np.any(fields[f] != base):
            changed.add(f)
        mask = np.ones(base.shape, dtype=bool)
        mask[(slice(None), *where) if isinstance(where, tuple) else (slice(None), np.asarray(where, dtype=int))] = False
        np.testing.assert_array_equal(fields[f][mask], base[mask])
    assert changed  # or there is nothing to test
    compiled = world_models(model, fields)
    for world in compiled:
        found = differing(model, world)
        assert found <= set(named) | DERIVED, found
        if not changed & {*mujoco.MjModel._setconst_inputs}:
            assert found <= set(named), found
    assert differing(compiled[0], compiled[1]) or name == "payload"  # worlds differ from each other


@pytest.mark.parametrize("name", CASES)
def test_a_draw_is_that_of_its_seed(model, parts, robot, name):
    function = functions(model, parts, robot)[name][0]
    first, same, other = (function(model, np.random.default_rng(s), 8) for s in (1, 1, 2))
    for f in first:
        np.testing.assert_array_equal(first[f], same[f])
    assert name == "payload" or any(np.any(first[f] != other[f]) for f in first)


@pytest.mark.parametrize("name", CASES[:9])
def test_draws_stay_in_range_and_fill_it(model, parts, robot, name):
    function, named, (low, high) = functions(model, parts, robot)[name]
    fields = function(model, np.random.default_rng(0), 300)
    ratios = []
    for f in named:
        base = nominal(model, f)[None]
        ok = np.broadcast_to(base != 0, fields[f].shape) & (fields[f] != base)
        ratios.append((fields[f] / np.where(base == 0, 1, base))[ok])
    ratio = np.concatenate(ratios)
    assert ratio.min() >= low - 1e-12 and ratio.max() <= high + 1e-12
    assert ratio.max() - ratio.min() >= 0.9 * (high - low)


@pytest.mark.parametrize("level", ["train", "wide"])
def test_bodies_stay_physical(model, parts, robot, level):
    """Positive masses, inertias that obey the triangle inequality, servos without standing error, stable joints."""
    fields = reality.draw(model, robot, parts, reality.named(level), np.random.default_rng(0), 100)
    massive = model.body_mass > 0
    assert fields["body_mass"][:, massive].min() > 0
    inertia = np.sort(fields["body_inertia"][:, massive], axis=-1)
    assert inertia.min() > 0 and np.all(inertia[..., 2] <= inertia[..., :2].sum(-1) * (1 + 1e-9))
    gain, bias = fields["actuator_gainprm"], fields["actuator_biasprm"]
    np.testing.assert_array_equal(gain[..., 0], -bias[..., 1])
    assert np.all(fields["geom_friction"] >= 0) and np.all(fields["dof_damping"] >= 0)
    for f in ("geom_rgba", "mat_rgba", "light_diffuse"):
        assert fields[f].min() >= 0 and fields[f].max() <= 1
    np.testing.assert_allclose(np.linalg.norm(fields["cam_quat"], axis=-1), 1, atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(fields["light_dir"], axis=-1), 1, atol=1e-6)
    for world in world_models(model, {name: value[:K] for name, value in fields.items()}):
        data = mujoco.MjData(world)
        data.qpos[:] = model.qpos0
        mujoco.mj_step(world, data, 5)
        assert np.isfinite(data.qpos).all() and data.warning.number.sum() == 0


def test_a_larger_object_is_the_one_the_compiler_would_make(model, parts):
    """Size, mass, inertia, bounding volumes and constants agree with a scene compiled at that size."""
    fields = randomize.size(model, np.random.default_rng(3), K, bodies=parts.objects, scale=(0.8, 1.25))
    worlds = world_models(model, fields)
    for w in range(K):
        edited = spec()
        for name in NAMES:
            g = model.geom(f"{name}_geom").id
            s = fields["geom_size"][w, g, 0] / model.geom_size[g, 0]
            geom = edited.geom(f"{name}_geom")
            geom.size, geom.mass = np.array(geom.size) * s, geom.mass * s**3
        assert not differing(worlds[w], edited.compile(), rtol=1e-9)


def test_bounding_volumes_do_not_need_mj_set_const(model, parts):
    """Engines without it get the same: those drawn are those it computes."""
    fields = randomize.size(model, np.random.default_rng(3), K, bodies=parts.objects, scale=(0.8, 1.25))
    for w, world in enumerate(world_models(model, fields)):
        np.testing.assert_allclose(fields["geom_rbound"][w], world.geom_rbound, rtol=1e-12)
        np.testing.assert_allclose(fields["geom_aabb"][w], world.geom_aabb, rtol=1e-12)


def test_a_heavier_body_is_the_one_the_compiler_would_make(model, parts):
    fields = randomize.mass(model, np.random.default_rng(3), K, bodies=parts.objects, scale=(0.5, 2.0))
    worlds = world_models(model, fields)
    for w in range(K):
        edited = spec()
        for name, b in zip(NAMES, parts.objects, strict=True):
            edited.geom(f"{name}_geom").mass = fields["body_mass"][w, b]
        assert not differing(worlds[w], edited.compile(), rtol=1e-9)


def test_functions_compose_in_any_order(model, parts):
    size = partial(randomize.size, bodies=parts.objects, scale=(0.9, 1.1))
    mass = partial(randomize.mass, bodies=parts.objects, scale=(0.5, 1.5))
    rng = np.random.default_rng
    a = size(model, rng(1), K)
    a |= mass(model, rng(2), K, given=a)
    b = mass(model, rng(2), K)
    b |= size(model, rng(1), K, given=b)
    assert a.keys() == b.keys()
    for f in a:
        np.testing.assert_allclose(a[f], b[f], rtol=1e-12)


def test_gravity_compensation_believes_in_the_masses_of_the_model(model, parts, robot):
    """True masses change, what holds the arm up does not: the arm sags by the difference."""
    config = Reality(physics=Physics(link_mass=(0.7, 1.3), payload=(0.2, 0.2)))
    fields = reality.draw(model, robot, parts, config, np.random.default_rng(0), K)
    held = fields["body_mass"] * fields["body_gravcomp"]
    np.testing.assert_allclose(held, np.tile(model.body_mass * model.body_gravcomp, (K, 1)), rtol=1e-12)
    assert np.all(fields["body_mass"][:, parts.links] != model.body_mass[parts.links])


def test_objects_that_stood_on_the_table_stand_on_it(model, parts, robot):
    config = Reality(physics=Physics(object_size=(0.8, 1.2)))
    fields = reality.draw(model, robot, parts, config, np.random.default_rng(0), K)
    poses = np.zeros((K, len(NAMES), 7))
    poses[..., 2], poses[..., 3] = [b.half_size[2] + b.half_size[0] * (b.shape == "capsule") for b in BLOCKS], 1.0
    stood = randomize.standing(poses, model, parts, before={}, after=fields)
    for m, name in enumerate(NAMES):
        half = fields["geom_aabb"][:, model.geom(f"{name}_geom").id, 5]
        np.testing.assert_allclose(stood[:, m, 2], half, rtol=1e-12)
    assert np.ptp(stood[..., 2], axis=0).min() > 1e-3


def test_unknown_keys_and_objects_and_meshes_are_refused(model, robot, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("physics: {link_mas: [0.9, 1.1]}")
    with pytest.raises(ConfigError, match="link_mass"):
        reality.named(str(path))
    with pytest.raises(ConfigError, match="no body 'cub'"):
        Parts.of(model, robot, ("cub",))
    edited = spec()
    edited.add_mesh(name="wedge", uservert=[0, 0, 0, 0.1, 0, 0, 0, 0.1, 0, 0, 0, 0.1])
    edited.body("cube").add_geom(type=mujoco.mjtGeom.mjGEOM_MESH, meshname="wedge", mass=0.01)
    meshed = edited.compile()
    parts = Parts.of(meshed, robot, NAMES)
    assert set(parts.objects) - set(parts.scalable(meshed)) == {meshed.body("cube").id}
    with pytest.raises(ConfigError, match="'cube' has a mesh"):
        randomize.size(meshed, np.random.default_rng(0), 1, bodies=parts.objects, scale=(0.9, 1.1))
    with pytest.raises(ConfigError, match="position servos"):
        meshed.actuator_biasprm[0, 1] = 0.0
        randomize.gains(meshed, np.random.default_rng(0), 1, actuators=np.arange(2), stiffness=(1, 1), damping=(1, 1))
