"""A world whose objects are made by fields is the scene compiled with those objects."""

import mujoco
import numpy as np
import pytest
from mujoco.batch import Batch

from palmar.safety.types import ConfigError
from palmar.sim import forms, objects, scene
from palmar.sim.forms import FAMILIES, SPLITS
from palmar.sim.objects import Thing

NAMES = ("a", "b")
KINDS = [(s, f, large) for s in SPLITS for f in FAMILIES for large in (False, True)]
DERIVED = ("geom_rbound", "bvh_aabb", "body_invweight0", "dof_invweight0", "body_subtreemass")


def table(furnish):
    spec = mujoco.MjSpec()
    spec.option.timestep = 0.005
    geom = spec.worldbody.add_geom(name="table", type=mujoco.mjtGeom.mjGEOM_BOX, size=[2, 2, 0.1], pos=[0, 0, -0.1])
    geom.friction, geom.solref, geom.solimp, geom.condim = scene.FRICTION, scene.SOLREF, scene.SOLIMP, 4
    furnish(spec)
    return mujoco.MjModel.from_xml_string(_xml(spec))


def _xml(spec):
    spec.compile()
    return spec.to_xml()


def compiled(things, masses):
    """The same two bodies, with their shapes in the specification."""

    def furnish(spec):
        objects.add(spec, NAMES)
        for name, thing, mass in zip(NAMES, things, masses, strict=True):
            geom = spec.geom(f"{name}_geom")
            geom.mass = mass
            if thing.form >= 0:
                geom.meshname = forms.library()[thing.form].name
                continue
            x, y, z = thing.half
            geom.meshname, geom.type = "", getattr(mujoco.mjtGeom, f"mjGEOM_{thing.family.upper()}")
            geom.size = {"box": [x, y, z], "cylinder": [x, z, 0], "capsule": [x, y - x, 0]}[thing.family]
            geom.quat = objects.LYING if thing.family == "capsule" else objects.UPRIGHT

    return table(furnish)


@pytest.fixture(scope="module")
def plain():
    return table(lambda spec: objects.add(spec, NAMES))


@pytest.fixture(scope="module")
def drawn():
    rng = np.random.default_rng(3)
    return [objects.draw(rng, s, f, large=large) for s, f, large in KINDS]


@pytest.fixture(scope="module")
def worlds(plain, drawn):
    """One world per kind: the thing and a red herring, 0.5 m apart, standing on the table."""
    other = objects.draw(np.random.default_rng(0), "train", "polytope", large=False)
    batch = Batch(plain, nsim=len(drawn), nthread=1)
    made = objects.fields(
        plain, NAMES, objects.solids(plain, [[t, other] for t in drawn]), np.tile([0.12, 0.3], (len(drawn), 1))
    )
    for name, value in made.items():
        batch.expand(name)[:] = value
    batch.set_const()
    qpos = batch.bind("qpos")
    for k, t in enumerate(drawn):
        qpos[k] = [0, 0, t.half[2], 1, 0, 0, 0, 0.5, 0, other.half[2], 1, 0, 0, 0]
    batch.forward()
    return batch, other


@pytest.mark.parametrize("k", range(len(KINDS)), ids=[f"{s}-{f}-{'large' if x else 'small'}" for s, f, x in KINDS])
def test_a_world_made_by_fields_is_the_compiled_scene(worlds, drawn, k):
    batch, other = worlds
    got, want = batch.get_model(k), compiled([drawn[k], other], (0.12, 0.3))
    for name in ("geom_type", "geom_dataid", "geom_contype", "geom_condim"):
        assert np.array_equal(getattr(got, name), getattr(want, name)), name
    for name in ("geom_size", "geom_aabb", "geom_pos", "body_mass", "body_inertia", *DERIVED):
        a, b = getattr(got, name), getattr(want, name)
        if name == "bvh_aabb":  # of bodies only; those of meshes follow
            a, b = a[: got.nbody], b[: want.nbody]
        if name == "geom_rbound":  # of a mesh MuJoCo keeps the compiled one, which must be large enough
            mesh = want.geom_type == objects.MESH
            assert (a[mesh] >= b[mesh] - 1e-9).all()
            a, b = a[~mesh], b[~mesh]
        if name in ("body_invweight0", "dof_invweight0", "geom_aabb", "geom_rbound", "bvh_aabb", "geom_size"):
            assert a == pytest.approx(b, rel=2e-3, abs=1e-6), name
        else:
            assert a == pytest.approx(b, rel=2e-5, abs=1e-9), name
    for name in ("geom_quat",):
        turn = np.abs(np.sum(getattr(got, name) * getattr(want, name), axis=-1))
        assert turn == pytest.approx(np.ones(len(turn)), abs=1e-6)


def test_everything_rests_where_it_stands(worlds, drawn):
    """At rest for two seconds at half its height, whatever it is: contact is at the support height."""
    batch, _ = worlds
    start = batch.qpos.copy()
    batch.step(nstep=400)
    moved = batch.qpos - start
    sunk = np.abs(moved[:, 2])
    assert sunk.max() < 5e-4, dict(zip(KINDS, sunk, strict=True))
    assert np.linalg.norm(moved[:, :2], axis=1).max() < 5e-4
    assert np.abs(moved[:, 4:7]).max() < 0.01


def test_a_thing_falls_on_what_lies_below_it(plain, drawn):
    """Dropped on each other, things stop at the sum of their heights: mesh on primitive and primitive on mesh."""
    pairs = [(drawn[0], t) for t in drawn if t.family != "capsule"] + [(drawn[3], drawn[8]), (drawn[8], drawn[3])]
    batch = Batch(plain, nsim=len(pairs), nthread=1)
    made = objects.fields(plain, NAMES, objects.solids(plain, pairs), np.full((len(pairs), 2), 0.1))
    for name, value in made.items():
        batch.expand(name)[:] = value
    batch.set_const()
    for k, (top, low) in enumerate(pairs):
        batch.bind("qpos")[k] = [0, 0, 2 * low.half[2] + top.half[2] + 1e-3, 1, 0, 0, 0, 0, 0, low.half[2], 1, 0, 0, 0]
    batch.step(nstep=200)
    want = np.array([2 * low.half[2] + top.half[2] for top, low in pairs])
    assert batch.qpos[:, 2] == pytest.approx(want, abs=1e-3)


def test_moments_of_a_box_are_those_of_the_formula():
    x, y, z = 0.02, 0.03, 0.05
    spec = mujoco.MjSpec()
    mesh = spec.add_mesh(name="m")
    mesh.uservert = (np.array(np.meshgrid([-x, x], [-y, y], [-z, z])).reshape(3, 8).T).ravel()
    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_MESH, meshname="m")
    m = spec.compile()
    volume, inertia = objects.moments(m.mesh_vert[m.mesh_face].astype(float))
    assert volume == pytest.approx(8 * x * y * z, rel=1e-6)
    want = 8 * x * y * z / 3 * np.sort([y * y + z * z, x * x + z * z, x * x + y * y])
    assert np.sort(np.diag(inertia)) == pytest.approx(want, rel=1e-6)


def test_splits_share_no_shape():
    """Forms by name; primitives by the half width that sets them apart, which no draw of the other split reaches."""
    rng = np.random.default_rng(0)
    for family in ("box", "cylinder", "capsule"):
        for large in (False, True):
            width = {s: [objects.draw(rng, s, family, large=large).half[0] for _ in range(200)] for s in SPLITS}
            assert max(width["train"]) < min(width["test"]), family
    for family in forms.MESHED:
        sizes = [False, True] * 60
        drawn = {s: {objects.draw(rng, s, family, large=b).form for b in sizes} for s in SPLITS}
        assert not drawn["train"] & drawn["test"] and all(len(f) == 2 * forms.PER_KIND for f in drawn.values())
    exponents = {s: [e for f in forms.library() if f.split == s for e in f.exponents if e > 0] for s in SPLITS}
    assert max(exponents["train"]) < min(exponents["test"])
    corners = {s: [len(f.vertices) for f in forms.library() if (f.family, f.split) == ("polytope", s)] for s in SPLITS}
    assert max(corners["train"]) < min(corners["test"])


def test_every_thing_is_small_or_large_and_its_thinner_side_can_be_pinched():
    rng = np.random.default_rng(1)
    for split, family, large in KINDS * 30:
        t = objects.draw(rng, split, family, large=large)
        assert objects.PINCH[0] <= 2 * t.half[0] <= objects.PINCH[1] and t.half[0] <= t.half[1] + 1e-12
        longest = 2 * max(t.half)
        assert longest >= objects.LARGE if large else longest <= objects.SMALL


def test_the_library_is_the_same_every_time():
    again = forms.library.__wrapped__()
    assert all(np.array_equal(a.vertices, b.vertices) for a, b in zip(again, forms.library(), strict=True))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Thing("torus", (0.02, 0.02, 0.02)), "torus"),
        (lambda: Thing("box", (0.05, 0.05, 0.02)), "pinched"),
        (lambda: Thing("box", (0.02, 0.02, 0.01)), "pinched"),
        (lambda: Thing("polytope", (0.02, 0.02, 0.02)), "form -1"),
        (lambda: Thing("box", (0.02, 0.02, 0.02), form=3), "form 3"),
        (lambda: Thing("polytope", (0.02, 0.02, 0.02), form=99), "form 99"),
        (lambda: objects.draw(np.random.default_rng(0), "exam", "box", large=False), "exam"),
        (lambda: objects.draw(np.random.default_rng(0), "test", "torus", large=False), "torus"),
    ],
)
def test_impossible_things_are_refused(make, said):
    with pytest.raises(ConfigError, match=said):
        make()


def test_a_footprint_turns_with_its_thing():
    corners = objects.footprint(np.array([0.02, 0.04, 0.03]), np.array([np.sqrt(0.5), 0, 0, np.sqrt(0.5)]))
    assert np.abs(corners).max(0) == pytest.approx([0.04, 0.02])
