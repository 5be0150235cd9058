"""Procedural objects the hand can pinch: boxes, cylinders, capsules, superquadrics and convex polytopes.

A ``Thing`` is drawn for every world and episode.  Boxes, cylinders and capsules have continuous sizes.  Superquadrics
and polytopes are chosen from a library of meshes that ``add`` compiles into the scene; all worlds share it.  ``fields``
turns things into per-world fields of the model, so one compiled scene holds any mixture.

Frame of a thing: the centre of its bounding box, x along its thinner horizontal side, z up as it stands on the table.
So it rests at z = half[2], and x is where a pinch fits.  Sizes are half extents of that box [m].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from palmar.safety.config import unknown
from palmar.safety.types import ConfigError
from palmar.sim import scene
from palmar.sim.forms import FAMILIES, MESHED, SPLITS, Form, library
from palmar.sim.kinematics import matrix
from palmar.sim.scene import Block

Array = np.ndarray
PINCH = (0.038, 0.058)
"""Width along x that the hand can pinch [m]: LEAP holds 4 to 6 cm."""
SMALL, LARGE = 0.062, 0.074
"""A small thing's longest side is at most the one, a large one's at least the other [m]."""
LOWEST = 0.038
"""Least height of a thing [m]: fingertips of a pinch stay 2 mm clear of the table."""
MESH = int(mujoco.mjtGeom.mjGEOM_MESH)
UPRIGHT, LYING = (1.0, 0.0, 0.0, 0.0), (np.sqrt(0.5), np.sqrt(0.5), 0.0, 0.0)
"""Orientations of a geom in its thing: as it is, and its z along y."""

Interval = tuple[float, float]
_SIDE: dict[tuple[str, bool], Interval] = {
    ("train", False): (0.0200, 0.0235), ("test", False): (0.0240, 0.0270),
    ("train", True): (0.0210, 0.0240), ("test", True): (0.0245, 0.0280),
}  # fmt: skip
"""Half the pinched width [m] by split and size, of primitives: that is what keeps the splits' shapes apart."""
_ROUND: dict[str, Interval] = {"train": (0.0262, 0.0275), "test": (0.0277, 0.0290)}
"""Radius of capsules [m]: thinner ones slip out below fingertips that must stay clear of the table."""
_LONG = (0.0375, 0.0460)
"""Half the longest side of large things [m]."""


@dataclass(frozen=True)
class Thing:
    """Shape of one object."""

    family: str
    half: tuple[float, float, float]
    """Half extents of the bounding box [m]."""
    exponents: tuple[float, float] = (0.0, 0.0)
    """Of a superquadric: vertical, horizontal."""
    form: int = -1
    """Which mesh of ``library``, -1 for a primitive."""

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ConfigError(unknown("family of objects", self.family, FAMILIES))
        if not PINCH[0] <= 2 * self.half[0] <= PINCH[1] or 2 * self.half[2] < LOWEST:
            raise ConfigError(
                f"a {self.family} of half extents {self.half} m cannot be pinched: "
                f"need a width in {PINCH} m and a height of at least {LOWEST} m"
            )
        if (self.family in MESHED) != (0 <= self.form < len(library()) if self.form >= 0 else False):
            raise ConfigError(
                f"a {self.family} has form {self.form}; meshed are {MESHED}, forms 0..{len(library()) - 1}"
            )

    @property
    def large(self) -> bool:
        """Whether it is called large; there is nothing between small and large."""
        return 2 * max(self.half) >= LARGE


@dataclass(frozen=True)
class Solid:
    """What MuJoCo keeps of a thing's geom."""

    kind: int
    mesh: int
    size: Array
    pos: Array
    quat: Array
    aabb: Array
    """Centre and half extents in the geom's frame [m], (6,)."""
    radius: float
    """Of a sphere about the geom's origin that holds it [m]."""
    volume: float
    """[m3]."""
    inertia: Array
    """Principal, about the geom's frame, of unit density [m5], (3,)."""


def draw(rng: np.random.Generator, split: str, family: str, *, large: bool) -> Thing:
    """A random thing of a split.

    Raises:
        ConfigError: If the family or the split is unknown.
    """
    if split not in SPLITS:
        raise ConfigError(unknown("split", split, SPLITS))
    if family in MESHED:
        fits = [k for k, f in enumerate(library()) if (f.family, f.split, f.large) == (family, split, large)]
        k = int(rng.choice(fits))
        return Thing(family, library()[k].half, library()[k].exponents, k)
    x = float(rng.uniform(*_SIDE[split, large]))
    length = float(rng.uniform(*_LONG)) if large else float(rng.uniform(1.0, 1.1)) * x
    z = float(rng.uniform(0.021, 0.030))
    half = {"box": (x, length, z), "cylinder": (x, x, min(length, 0.042) if large else z), "capsule": (x, length, x)}
    if family not in half:
        raise ConfigError(unknown("family of objects", family, FAMILIES))
    if family == "capsule":
        x = float(rng.uniform(*_ROUND[split]))
        return Thing(family, (x, length if large else float(rng.uniform(0.0302, 0.0310)), x))
    return Thing(family, half[family])


def add(spec: mujoco.MjSpec, names: Sequence[str]) -> None:
    """Add the library and free bodies ``names`` with a geom ``<name>_geom`` each, to be shaped by ``fields``.

    The geoms are compiled as meshes that share their frame with the body's inertia, as every solid here does.
    """
    for form in library():
        mesh = spec.add_mesh(name=form.name)
        mesh.uservert, mesh.inertia = form.vertices.ravel(), mujoco.mjtMeshInertia.mjMESH_INERTIA_CONVEX
    scene.add_blocks(spec, [Block(name) for name in names])
    for name in names:
        geom = spec.geom(f"{name}_geom")
        geom.type, geom.meshname = mujoco.mjtGeom.mjGEOM_MESH, _bulkiest().name
        spec.body(name).simple = False  # or MuJoCo would skip what an inertia off the body's frame needs


def _bulkiest() -> Form:
    """The form with the largest bounding sphere: a sphere that is too large only costs time, one too small contacts."""
    return max(library(), key=lambda form: float(np.linalg.norm(form.vertices, axis=1).max()))


def fields(
    model: mujoco.MjModel, names: Sequence[str], made_of: Sequence[Sequence[Solid]], mass: Array
) -> dict[str, Array]:
    """Fields of the model by which bodies ``names`` are ``made_of`` solids (k, m) with masses (k, m) [kg] in k worlds.

    Bounding volumes of bodies and weights of constraints follow from these in ``mj_setConst``, which the engine calls.
    That also puts ``geom_rbound`` of meshes back to the compiled one (measured, MuJoCo 4.0), hence ``_bulkiest``.
    """
    body = [model.body(n).id for n in names]
    geom = [model.geom(f"{n}_geom").id for n in names]

    def whole(field: str, ids: list[int], values: Array) -> Array:
        out = np.tile(getattr(model, field), (len(made_of), *[1] * getattr(model, field).ndim))
        out[:, ids] = values
        return out

    def each(name: str) -> Array:
        return np.array([[getattr(s, name) for s in row] for row in made_of])

    density = mass / each("volume")
    return {
        "geom_type": whole("geom_type", geom, each("kind")),
        "geom_dataid": whole("geom_dataid", geom, each("mesh")),
        "geom_size": whole("geom_size", geom, each("size")),
        "geom_aabb": whole("geom_aabb", geom, each("aabb")),
        "geom_rbound": whole("geom_rbound", geom, each("radius")),
        "geom_pos": whole("geom_pos", geom, each("pos")),
        "geom_quat": whole("geom_quat", geom, each("quat")),
        "body_ipos": whole("body_ipos", body, each("pos")),
        "body_iquat": whole("body_iquat", body, each("quat")),
        "body_mass": whole("body_mass", body, mass),
        "body_inertia": whole("body_inertia", body, each("inertia") * density[..., None]),
    }


def solids(model: mujoco.MjModel, things: Sequence[Sequence[Thing]]) -> list[list[Solid]]:
    """MuJoCo's numbers of things (k, m); of a mesh, those its compiler found (centre of mass, principal axes)."""
    forms = {t.form for row in things for t in row if t.family in MESHED}
    meshes = {form: _meshed(model, model.mesh(library()[form].name).id) for form in forms}
    return [[meshes[t.form] if t.family in MESHED else _solid(t) for t in row] for row in things]


def _solid(thing: Thing) -> Solid:
    x, y, z = thing.half
    if thing.family == "box":
        inertia = 8 * x * y * z / 3 * np.array([y * y + z * z, x * x + z * z, x * x + y * y])
        return _primitive("BOX", (x, y, z), thing.half, UPRIGHT, 8 * x * y * z, inertia)
    if thing.family == "cylinder":
        volume = 2 * np.pi * x * x * z
        across = volume * (x * x / 4 + z * z / 3)
        return _primitive(
            "CYLINDER", (x, z, 0), (x, x, z), UPRIGHT, volume, np.array([across, across, volume * x * x / 2])
        )
    h = y - x
    tube, ball = 2 * np.pi * x * x * h, 4 / 3 * np.pi * x**3
    across = tube * (x * x / 4 + h * h / 3) + ball * (0.4 * x * x + h * h + 0.75 * x * h)
    along = tube * x * x / 2 + ball * 0.4 * x * x
    return _primitive("CAPSULE", (x, h, 0), (x, x, y), LYING, tube + ball, np.array([across, across, along]))


def _primitive(
    kind: str, size: Sequence[float], half: Sequence[float], quat: Sequence[float], volume: float, inertia: Array
) -> Solid:
    number = int(getattr(mujoco.mjtGeom, f"mjGEOM_{kind}"))
    aabb = np.array([0.0, 0.0, 0.0, *half])
    radius = size[0] + size[1] if kind == "CAPSULE" else float(np.linalg.norm(size))
    return Solid(number, -1, np.array(size, dtype=float), np.zeros(3), np.array(quat), aabb, radius, volume, inertia)


def _meshed(model: mujoco.MjModel, mesh: int) -> Solid:
    v = model.mesh_vert[model.mesh_vertadr[mesh] :][: model.mesh_vertnum[mesh]].astype(float)
    f = model.mesh_face[model.mesh_faceadr[mesh] :][: model.mesh_facenum[mesh]]
    low, high = v.min(0), v.max(0)
    volume, inertia = moments(v[f])
    size = np.maximum(-low, high)  # as the compiler: from the mesh's own origin, its centre of mass
    aabb = np.concatenate([(low + high) / 2, (high - low) / 2])
    pos, quat = model.mesh_pos[mesh].copy(), model.mesh_quat[mesh].copy()
    return Solid(MESH, mesh, size, pos, quat, aabb, float(np.linalg.norm(size)), volume, np.diag(inertia))


def moments(triangles: Array) -> tuple[float, Array]:
    """Volume [m3] and inertia tensor about the origin of unit density [m5], (3, 3), of a closed surface (f, 3, 3).

    A sum over tetrahedra with their tips at the origin; corners counter-clockwise from outside.
    """
    v = np.linalg.det(triangles) / 6
    s = triangles.sum(axis=1)
    second = np.einsum("f,fci,fcj->ij", v, triangles, triangles) + np.einsum("f,fi,fj->ij", v, s, s)
    second /= 20
    return float(v.sum()), np.trace(second) * np.eye(3) - second


def footprint(half: Array, quaternion: Array) -> Array:
    """Corners (..., 4, 2) of boxes seen from above, about their centres [m], of half (..., 3) and w-x-y-z (..., 4)."""
    corner = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]], dtype=float)
    axes = matrix(quaternion)[..., :2, :2]
    return (corner * half[..., None, :2]) @ np.swapaxes(axes, -1, -2)
