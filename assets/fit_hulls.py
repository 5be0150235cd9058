"""Skins and hulls of a detailed model about our capsules, printed as YAML for ``configs/filter``.

Run by hand when a robot model changes.

    python assets/fit_hulls.py <ours.xml> <reference.xml> [skins | hulls]

A *skin* is how far the reference's collision surface sticks out of a capsule at most, where that capsule is the
nearest: capsules thicker by their skins enclose the reference.  A *hull* is the convex hull of a body's collision
geometry: exact corners of boxes, for all else the polytope of 26 directions about it.
Bodies are matched by their order along the chain; both models must have the same joints.
"""

import itertools
import sys
from collections.abc import Iterator

import mujoco
import numpy as np
from scipy.spatial import ConvexHull, HalfspaceIntersection

BOX, MESH = int(mujoco.mjtGeom.mjGEOM_BOX), int(mujoco.mjtGeom.mjGEOM_MESH)
CORNERS = np.array(list(itertools.product((-1.0, 1.0), repeat=3)))
DIRECTIONS = np.array([d for d in itertools.product((-1.0, 0.0, 1.0), repeat=3) if any(d)])
DIRECTIONS /= np.linalg.norm(DIRECTIONS, axis=1, keepdims=True)
SAMPLES = 80_000
SURE = 1e-4
"""Added to every skin for what lies between the samples and for rounding [m]."""


def pieces(model: mujoco.MjModel, rigid: int) -> Iterator[tuple[np.ndarray, bool]]:
    """Convex collision geoms of a rigid piece in its first body's frame: points [m], (N, 3), and whether no box."""
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    geoms = [
        g
        for g in range(model.ngeom)
        if model.body_weldid[model.geom_bodyid[g]] == rigid and model.geom_bodyid[g] and model.geom_contype[g]
    ]
    if not geoms:
        return
    root = int(model.geom_bodyid[geoms[0]])
    for g in geoms:
        points = _points(model, g) @ data.geom_xmat[g].reshape(3, 3).T + data.geom_xpos[g]
        yield (points - data.xpos[root]) @ data.xmat[root].reshape(3, 3), model.geom_type[g] != BOX


def _points(model: mujoco.MjModel, g: int) -> np.ndarray:
    """Corners of a box or mesh, points on a capsule or sphere in 26 directions, in the geom's frame [m]."""
    if model.geom_type[g] == BOX:
        return CORNERS * model.geom_size[g]
    if model.geom_type[g] == MESH:
        start = model.mesh_vertadr[model.geom_dataid[g]]
        return model.mesh_vert[start : start + model.mesh_vertnum[model.geom_dataid[g]]].astype(np.float64)
    r, half = model.geom_size[g, 0], model.geom_size[g, 1] if model.geom_type[g] == 3 else 0.0
    return np.concatenate([DIRECTIONS * r + [0, 0, end] for end in (-half, half)])


def polytope(points: np.ndarray) -> np.ndarray:
    """Corners of the polytope of 26 directions about points [m]."""
    far = (points @ DIRECTIONS.T).max(axis=0)
    found = HalfspaceIntersection(np.column_stack([DIRECTIONS, -far]), points.mean(axis=0)).intersections
    return found[np.isfinite(found).all(axis=1)]


def hull(parts: list[tuple[np.ndarray, bool]]) -> np.ndarray:
    """Corners of the convex hull of all pieces, rounded to 0.1 mm [m]."""
    points = np.concatenate([polytope(p) if many else p for p, many in parts])
    points = np.unique(np.round(points[ConvexHull(points).vertices], 4), axis=0)
    return points[ConvexHull(points).vertices]


def surface(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Points spread over the convex hull of points, its corners included [m]."""
    faces = points[ConvexHull(points).simplices]
    edges = faces[:, 1:] - faces[:, :1]
    area = np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=1)
    chosen = faces[rng.choice(len(faces), SAMPLES, p=area / area.sum())]
    return np.concatenate([points, np.einsum("nk,nkd->nd", rng.dirichlet(np.ones(3), SAMPLES), chosen)])


def capsules(model: mujoco.MjModel, body: int) -> dict[str, np.ndarray]:
    """Name to (centre, half axis, radius) of the collision capsules of a body [m], (7,)."""
    out = {}
    for g in range(model.ngeom):
        if model.geom_bodyid[g] == body and model.geom_group[g] == 3:
            axis = np.zeros(3)
            mujoco.mju_rotVecQuat(axis, np.array([0, 0, model.geom_size[g, 1]]), model.geom_quat[g])
            out[model.geom(g).name] = np.r_[model.geom_pos[g], axis, model.geom_size[g, 0]]
    return out


def outside(points: np.ndarray, capsule: np.ndarray) -> np.ndarray:
    """Distance of points to a capsule [m], (N,), negative inside."""
    centre, axis, radius = capsule[:3], capsule[3:6], capsule[6]
    along = np.clip((points - centre) @ axis / max(float(axis @ axis), 1e-12), -1.0, 1.0)
    return np.linalg.norm(points - centre - along[:, None] * axis, axis=1) - radius


def skins(own: mujoco.MjModel, body: int, parts: list[tuple[np.ndarray, bool]]) -> dict[str, float]:
    """Geom name to skin [m], rounded up to 0.1 mm."""
    rng, found = np.random.default_rng(0), capsules(own, body)
    points = np.concatenate([surface(p, rng) for p, _ in parts])
    distance = np.array([outside(points, c) for c in found.values()])
    nearest, worst = distance.argmin(axis=0), distance.min(axis=0)
    out = {}
    for k, name in enumerate(found):
        most = worst[nearest == k].max(initial=0.0)
        out[name] = float(np.ceil((max(most, 0.0) + SURE) * 1e4) / 1e4)
    return out


def main(ours: str, reference: str, what: str = "hulls") -> None:
    """Print the YAML of one arm or hand."""
    own, other = mujoco.MjModel.from_xml_path(ours), mujoco.MjModel.from_xml_path(reference)
    bodies = [b for b in range(1, own.nbody) if capsules(own, b)]
    rigid = sorted({int(other.body_weldid[b]) for b in range(1, other.nbody)})
    found = [(b, list(pieces(other, w))) for b, w in zip(bodies, rigid, strict=True)]
    print("skin:")
    for body, parts in found:
        for name, value in skins(own, body, parts).items():
            print(f"  {name}: {value:.4f}")
    if what == "hulls":
        print("hulls:")
        for body, parts in found:
            corners = ", ".join(f"[{x:.4f}, {y:.4f}, {z:.4f}]" for x, y, z in hull(parts))
            print(f"  {own.body(body).name}: [{corners}]")


if __name__ == "__main__":
    main(*sys.argv[1:])
