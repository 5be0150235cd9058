"""Fit capsules to the collision geometry of a reference model and print them as MJCF geoms.

Run by hand when a robot model changes; the printed numbers are pasted into the model file.

    python assets/fit_capsules.py <reference.xml> [price=60] [<body>=<n_capsules> ...]

A capsule set is the smallest total volume whose surface leaves no reference point further out than a few
millimetres: volume plus a quadratic price on protrusion, minimised from several starts.  The result is a
local optimum, so the tests bound the protrusion that was measured rather than trusting the fit.
"""

import sys

import mujoco
import numpy as np
from scipy.optimize import minimize


def surface_points(model: mujoco.MjModel, geom: int) -> np.ndarray:
    """Points of one mesh or box geom in its body's frame [m], (N, 3)."""
    size = model.geom_size[geom]
    if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_MESH:
        mesh = model.geom_dataid[geom]
        start = model.mesh_vertadr[mesh]
        local = model.mesh_vert[start : start + model.mesh_vertnum[mesh]]
        faces = model.mesh_face[model.mesh_faceadr[mesh] :][: model.mesh_facenum[mesh]]
        local = np.concatenate([local, triangle_points(local[faces])])
    else:
        grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 3)] * 3), -1).reshape(-1, 3)
        local = grid[np.abs(grid).max(1) == 1] * size
    rotation = np.zeros(9)
    mujoco.mju_quat2Mat(rotation, model.geom_quat[geom])
    return local @ rotation.reshape(3, 3).T + model.geom_pos[geom]


def triangle_points(triangles: np.ndarray, *, n_points: int = 600) -> np.ndarray:
    """Points spread over triangles (F, 3, 3) [m] in proportion to area, (n_points, 3)."""
    rng = np.random.default_rng(0)
    edges = triangles[:, 1:] - triangles[:, :1]
    area = np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=1)
    chosen = triangles[rng.choice(len(triangles), n_points, p=area / area.sum())]
    return np.einsum("nk,nkd->nd", rng.dirichlet(np.ones(3), n_points), chosen)


def body_points(model: mujoco.MjModel, body: str, *, skip: tuple[str, ...] = ()) -> np.ndarray:
    """Points of all colliding geoms of a body, except those named in skip [m], (N, 3)."""
    body_id = model.body(body).id
    geoms = [g for g in range(model.ngeom) if model.geom_bodyid[g] == body_id and model.geom_contype[g]]
    return np.concatenate([surface_points(model, g) for g in geoms if model.geom(g).name not in skip])


def outside(points: np.ndarray, capsules: np.ndarray) -> np.ndarray:
    """Distance of each point to the nearest capsule (a, b, r) [m]; negative inside; (N,)."""
    a, b, r = capsules[:, None, :3], capsules[:, None, 3:6], capsules[:, 6:]
    ab = b - a
    along = ((points - a) * ab).sum(-1) / np.maximum((ab**2).sum(-1), 1e-12)
    nearest = a + np.clip(along, 0, 1)[..., None] * ab
    return (np.linalg.norm(points - nearest, axis=-1) - np.abs(r)).min(0)


def volume(capsules: np.ndarray) -> float:
    """Summed capsule volume [m3], overlaps counted twice."""
    length = np.linalg.norm(capsules[:, 3:6] - capsules[:, :3], axis=1)
    r = np.abs(capsules[:, 6])
    return float((np.pi * r**2 * (length + 4 / 3 * r)).sum())


def fit(points: np.ndarray, n_capsules: int, *, price: float = 60.0, starts: int = 8) -> np.ndarray:
    """Least capsules around points, as rows (a, b, r) [m], (n_capsules, 7).

    The price of protrusion is relative to volume, both in units of the link's own size.
    """
    rng = np.random.default_rng(0)
    if len(points) > 600:
        points = points[rng.choice(len(points), 600, replace=False)]
    scale = np.linalg.norm(np.ptp(points, axis=0))
    unit = points / scale

    def cost(x: np.ndarray) -> float:
        capsules = x.reshape(-1, 7)
        out = np.maximum(outside(unit, capsules), 0)
        return volume(capsules) + price * float(10 * (out**2).mean() + np.mean(out**8) ** 0.25)

    best, best_cost = np.zeros(0), np.inf
    for _ in range(starts):
        ends = unit[rng.choice(len(unit), 2 * n_capsules, replace=False)].reshape(-1, 6) * 0.8
        ends += 0.2 * np.tile(unit.mean(0), 2)
        start = np.concatenate([ends, np.full((n_capsules, 1), 0.15)], 1).ravel()
        for _ in range(2):
            found = minimize(cost, start, method="L-BFGS-B", options={"maxiter": 200, "maxfun": 20000})
            start = found.x
        if found.fun < best_cost:
            best, best_cost = found.x, found.fun
    capsules = best.reshape(-1, 7) * scale
    capsules[:, 6] = np.abs(capsules[:, 6])
    return capsules


def geom_line(name: str, capsule: np.ndarray) -> str:
    """One MJCF line for a capsule (a, b, r)."""
    ends = " ".join(f"{v:.4f}" for v in capsule[:6])
    return f'<geom name="{name}" class="collision" fromto="{ends}" size="{capsule[6]:.4f}"/>'


def main(path: str, *wanted: str) -> None:
    """Print fitted capsules of the wanted bodies (`body=n`), or one capsule for every body."""
    model = mujoco.MjModel.from_xml_path(path)
    counts = dict(w.split("=") for w in wanted)
    price = float(counts.pop("price", 60))
    tips = tuple(model.geom(g).name for g in range(model.ngeom) if model.geom(g).name.endswith("_tip"))
    for body in counts or [model.body(b).name for b in range(1, model.nbody) if model.body_geomnum[b]]:
        points = body_points(model, body, skip=tips)
        capsules = fit(points, int(counts.get(body, 1)), price=price)
        out = outside(points, capsules)
        print(f"<!-- {body}: max {1e3 * out.max():.1f} mm outside, {(out > 1e-3).mean():.0%} of points -->")
        for k, capsule in enumerate(capsules):
            print(geom_line(f"{body}_c{k}", capsule))


if __name__ == "__main__":
    main(*sys.argv[1:])
