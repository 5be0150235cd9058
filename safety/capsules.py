"""Any collision geom of an MJCF as a capsule that contains it, so that distances are never too large.

Capsules and spheres stay what they are.  What a box, cylinder, ellipsoid or mesh loses by it is clearance, not safety;
a robot whose links matter in detail should have capsules fitted to them (``assets/fit_capsules.py``).
"""

from __future__ import annotations

import mujoco
import numpy as np

from palmar.safety.types import ConfigError

Array = np.ndarray

SLIM = 1e-9
"""Added to every radius that is computed from points, for rounding [m]."""
ACCEPTED = ("capsule", "sphere", "box", "cylinder", "ellipsoid", "mesh")


def contains(points: Array, axis: Array) -> tuple[Array, float]:
    """Ends (2, 3) and radius [m] of a capsule along ``axis`` (3,) that contains points (k, 3)."""
    centre = 0.5 * (points.min(axis=0) + points.max(axis=0))
    along = (points - centre) @ axis
    off = points - centre - np.outer(along, axis)
    radius = float(np.linalg.norm(off, axis=-1).max())
    cap = np.sqrt(np.maximum(0.0, radius**2 - (off**2).sum(axis=-1)))
    low, high = float((along + cap).min()), float((along - cap).max())
    if low > high:  # the caps alone reach everything
        low = high = 0.5 * (low + high)
    ends = centre + np.outer([low, high], axis)
    beyond = along - np.clip(along, low, high)
    return ends, float(np.sqrt((off**2).sum(axis=-1) + beyond**2).max()) + SLIM


def _corners(model: mujoco.MjModel, geom: int, kind: str) -> Array:
    """Points in the geom's frame whose convex hull contains a box or mesh [m], (k, 3)."""
    if kind == "mesh":
        mesh = int(model.geom_dataid[geom])
        first = int(model.mesh_vertadr[mesh])
        return np.array(model.mesh_vert[first : first + int(model.mesh_vertnum[mesh])], dtype=np.float64)
    return np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, 8).T * model.geom_size[geom]


def enclosing_capsule(model: mujoco.MjModel, geom: int) -> tuple[Array, float]:
    """Ends in the body's frame (2, 3) and radius [m] of a capsule that contains a geom.

    Raises:
        ConfigError: If the geom is a plane, height field or distance field.
    """
    kind = mujoco.mjtGeom(int(model.geom_type[geom])).name.removeprefix("mjGEOM_").lower()
    if kind not in ACCEPTED:
        raise ConfigError(f"geom {model.geom(geom).name} is a {kind.upper()}, accepted: {', '.join(ACCEPTED)}")
    size, z = model.geom_size[geom], np.array([0.0, 0.0, 1.0])
    if kind in ("box", "mesh"):
        points = _corners(model, geom, kind)
        spread = points - points.mean(axis=0)
        longest = np.eye(3)[size.argmax()] if kind == "box" else np.linalg.eigh(spread.T @ spread)[1][:, -1]
        ends, radius = contains(points, longest)
    elif kind == "ellipsoid":
        # Between the caps a circle of the middle semi-axis contains every section, beyond them the cap does.
        middle, largest = np.sort(size)[1:]
        ends, radius = np.outer([middle - largest, largest - middle], np.eye(3)[size.argmax()]), float(middle)
    else:
        half = 0.0 if kind == "sphere" else size[1]
        ends, radius = np.outer([-half, half], z), float(size[0])
    turn = np.empty(9)
    mujoco.mju_quat2Mat(turn, model.geom_quat[geom])
    return model.geom_pos[geom] + ends @ turn.reshape(3, 3).T, radius
