"""A foreign MJCF as the filter needs it: collision capsules and spheres with names, inertias written down, no files.

What a link weighs is taken from the original before anything is replaced.  A box, mesh, cylinder or ellipsoid is
replaced by one capsule that encloses it: safe, and as coarse as a capsule about it can be; give a link capsules of
its own (``assets/fit_capsules.py``) where that keeps too much room.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import mujoco
import numpy as np

from palmar.safety.types import ConfigError

Array = np.ndarray
CAPSULE, SPHERE, MESH = mujoco.mjtGeom.mjGEOM_CAPSULE, mujoco.mjtGeom.mjGEOM_SPHERE, mujoco.mjtGeom.mjGEOM_MESH
GROUP = 3
"""Group of collision geoms."""
CIRCLE = 32
"""Corners of the polygon about a cylinder."""


def refuse_strays(path: Path, within: Path) -> None:
    """Refuse an MJCF that names a mesh, texture, height field or further MJCF outside a folder, before any is opened.

    Raises:
        ConfigError: Naming the file and the folder, or why the MJCF cannot be read.
    """
    try:
        root = ET.parse(path).getroot()
    except (OSError, ET.ParseError) as error:
        raise ConfigError(f"{path}: {error}") from error
    folders = {key: value for c in root.iter("compiler") for key, value in c.attrib.items() if key.endswith("dir")}
    for element in root.iter():
        kind = {"mesh": "meshdir", "skin": "meshdir", "hfield": "meshdir", "texture": "texturedir"}.get(element.tag, "")
        base = path.parent / folders.get(kind, folders.get("assetdir", "") if kind else "")
        for key in (k for k in element.attrib if k.startswith("file")):
            named = (base / element.attrib[key]).resolve()
            if not named.is_relative_to(within.resolve()):
                raise ConfigError(
                    f"{path}: {element.tag} file {element.attrib[key]!r} lies outside {within.resolve().name}/"
                )
            if element.tag in ("include", "model"):
                refuse_strays(named, within)


def capsules_only(path: Path, within: Path | None = None) -> tuple[mujoco.MjSpec, Array | None]:
    """The robot of an MJCF file with capsules for collision geoms, and its keyframe ``home``, if any.

    Args:
        path: MJCF of arm and hand, attached, its base standing at the origin on the table top (z = 0).
        within: Folder that all its files must lie in; None for the MJCF's own.

    Raises:
        ConfigError: If it cannot be read or compiled, names a file elsewhere, or a joint is no hinge.
    """
    refuse_strays(path, within or path.parent)
    try:
        spec = mujoco.MjSpec.from_file(str(path))
        model = spec.compile()
    except (ValueError, FileNotFoundError) as error:
        raise ConfigError(f"{path}: {error}") from error
    if np.any(model.jnt_type != mujoco.mjtJoint.mjJNT_HINGE):
        raise ConfigError(f"{path}: every joint must be a hinge; close a parallel hand by one joint per finger")
    home = next((k.qpos.copy() for k in map(model.key, range(model.nkey)) if k.name == "home"), None)
    bodies = [(b, b.id, [(g, g.id) for g in b.geoms]) for b in spec.bodies[1:]]  # ids end with the first deletion
    for body, number, geoms in bodies:
        _weigh(body, model.body(number))
        _encase(spec, body, model, geoms)
    for geom in list(spec.worldbody.geoms):
        spec.delete(geom)
    for element in (*spec.sensors, *spec.keys, *spec.meshes, *spec.materials, *spec.textures):
        spec.delete(element)
    for actuator in spec.actuators:
        actuator.name = actuator.target
    return spec, home


def _weigh(body: mujoco.MjsBody, compiled) -> None:
    """Write down what the compiler made of the body's geoms."""
    body.explicitinertial = True
    body.mass, body.ipos, body.iquat = float(compiled.mass[0]), compiled.ipos, compiled.iquat
    body.inertia, body.fullinertia = compiled.inertia, [np.nan, 0, 0, 0, 0, 0]


def _encase(
    spec: mujoco.MjSpec, body: mujoco.MjsBody, model: mujoco.MjModel, geoms: list[tuple[mujoco.MjsGeom, int]]
) -> None:
    """Drop visual geoms, name collision geoms, and put a capsule about what is neither capsule nor sphere."""
    for k, (geom, g) in enumerate(geoms):
        if not (model.geom_contype[g] or model.geom_conaffinity[g]):
            spec.delete(geom)
            continue
        name = geom.name or f"{body.name}_c{k}"
        if model.geom_type[g] in (int(CAPSULE), int(SPHERE)):
            geom.name, geom.group, geom.material = name, GROUP, ""
            continue
        turn = np.zeros(9)
        mujoco.mju_quat2Mat(turn, model.geom_quat[g])
        points = _points(model, g) @ turn.reshape(3, 3).T + model.geom_pos[g]
        start, end, radius = enclosing_capsule(points)
        friction, bits = model.geom_friction[g].copy(), (int(model.geom_contype[g]), int(model.geom_conaffinity[g]))
        spec.delete(geom)
        new = body.add_geom(name=name, type=CAPSULE, size=[radius, 0, 0], fromto=[*start, *end], group=GROUP)
        new.friction, (new.contype, new.conaffinity) = friction, bits


def _points(model: mujoco.MjModel, g: int) -> Array:
    """Points whose convex hull contains a geom, in its frame [m], (N, 3)."""
    size, kind = model.geom_size[g], mujoco.mjtGeom(model.geom_type[g])
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=np.float64)
    if kind == MESH:
        start, count = model.mesh_vertadr[model.geom_dataid[g]], model.mesh_vertnum[model.geom_dataid[g]]
        return model.mesh_vert[start : start + count].astype(np.float64)
    if kind == mujoco.mjtGeom.mjGEOM_CYLINDER:
        angle = 2 * np.pi * np.arange(CIRCLE) / CIRCLE
        x, y = np.cos(angle) * size[0] / np.cos(np.pi / CIRCLE), np.sin(angle) * size[0] / np.cos(np.pi / CIRCLE)
        return np.concatenate([np.stack([x, y, np.full(CIRCLE, z)], axis=1) for z in (-size[1], size[1])])
    if kind in (mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_ELLIPSOID):
        return corners * size
    raise ConfigError(f"geom {model.geom(g).name!r} is a {kind.name}; accepted: capsule, sphere, box, cylinder, "
                      "ellipsoid, mesh")  # fmt: skip


def enclosing_capsule(points: Array) -> tuple[Array, Array, float]:
    """A capsule that contains points (N, 3): ends of its axis and radius [m]; the least of those along three axes."""
    centre = points.mean(axis=0)
    axes = np.linalg.svd(points - centre, full_matrices=False)[2]
    best, least = (centre, centre, 0.0), np.inf
    for k in range(3):
        along, across = axes[k], np.delete(axes, k, axis=0)
        side = (points - centre) @ across.T
        middle = 0.5 * (side.min(axis=0) + side.max(axis=0))
        off = np.linalg.norm(side - middle, axis=1)
        radius = off.max() * (1 + 1e-9)
        z, cap = (points - centre) @ along, np.sqrt(np.maximum(radius**2 - off**2, 0.0))
        low, high = (z + cap).min(), (z - cap).max()
        if high < low:
            low = high = 0.5 * (low + high)
        volume = radius**2 * (high - low + 4 / 3 * radius)
        if volume < least:
            origin = centre + middle @ across
            best, least = (origin + low * along, origin + high * along, float(radius)), volume
    return best
