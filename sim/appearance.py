"""Randomisation of how a scene looks: lights, colours, textures, camera poses.  As ``sim.randomize``; physics stays.

Images need the drawn fields too: render a world with its own model, ``Batch.get_model(world)``.
"""

from __future__ import annotations

import mujoco
import numpy as np

from palmar.safety.types import ConfigError
from palmar.sim.randomize import Fields, Range, current

Array = np.ndarray


def lighting(
    model: mujoco.MjModel,
    rng: np.random.Generator,
    k: int,
    *,
    position: float,
    angle: float,
    strength: Range,
    given: Fields | None = None,
) -> Fields:
    """Each light moved by up to ``position`` per axis [m], turned by up to ``angle`` [rad], and dimmed by a factor."""
    names = ("light_pos", "light_dir", "light_ambient", "light_diffuse", "light_specular")
    out = current(model, k, given, *names)
    out["light_pos"] += rng.uniform(-position, position, out["light_pos"].shape)
    out["light_dir"] = _rotated(out["light_dir"], _turn(rng, angle, out["light_dir"].shape[:2]))
    factor = rng.uniform(*strength, (k, model.nlight, 1)).astype(np.float32)
    for name in names[2:]:
        out[name] = np.clip(out[name] * factor, 0.0, 1.0)
    return out


def colours(
    model: mujoco.MjModel,
    rng: np.random.Generator,
    k: int,
    *,
    field: str,
    ids: Array,
    brightness: Range,
    tint: float,
    given: Fields | None = None,
) -> Fields:
    """Colours ("geom_rgba" or "mat_rgba") of ``ids``: one brightness each, and up to ``tint`` added per channel.

    Where words name colours, keep ``tint`` small: at 0.1 the colours of ``lift`` keep their order of channels.

    Raises:
        ConfigError: If the field holds no colours.
    """
    if field not in ("geom_rgba", "mat_rgba"):
        raise ConfigError(f"colours are in geom_rgba and mat_rgba, got {field!r}")
    out = current(model, k, given, field)
    shade = rng.uniform(*brightness, (k, len(ids), 1))
    rgb = out[field][:, ids, :3] * shade + rng.uniform(-tint, tint, (k, len(ids), 3))
    out[field][:, ids, :3] = np.clip(rgb, 0.0, 1.0)
    return out


def textures(
    model: mujoco.MjModel,
    rng: np.random.Generator,
    k: int,
    *,
    geoms: Array,
    materials: Array,
    given: Fields | None = None,
) -> Fields:
    """Each of ``geoms`` wears one of ``materials``: pixels are shared by all worlds, who wears which is not.

    Raises:
        ConfigError: If there is no material to choose from; ``add_materials`` makes some.
    """
    if len(materials) == 0:
        raise ConfigError("textures need materials to choose from: call add_materials before the scene is compiled")
    out = current(model, k, given, "geom_matid")
    out["geom_matid"][:, geoms] = rng.choice(materials, (k, len(geoms)))
    return out


def cameras(
    model: mujoco.MjModel,
    rng: np.random.Generator,
    k: int,
    *,
    ids: Array,
    position: float,
    angle: float,
    given: Fields | None = None,
) -> Fields:
    """Each camera moved by up to ``position`` per axis [m] and turned by up to ``angle`` [rad]: calibration errors."""
    out = current(model, k, given, "cam_pos", "cam_quat")
    out["cam_pos"][:, ids] += rng.uniform(-position, position, (k, len(ids), 3))
    out["cam_quat"][:, ids] = _product(out["cam_quat"][:, ids], _turn(rng, angle, (k, len(ids))))
    return out


MATERIAL = "random_"
"""What names of materials to choose from begin with."""


def add_materials(spec: mujoco.MjSpec, *, n: int, seed: int) -> None:
    """Add ``n`` materials with drawn checkers, gradients and flat marks to a scene that is not yet compiled."""
    rng = np.random.default_rng(seed)
    built_in = mujoco.mjtBuiltin
    kinds = (built_in.mjBUILTIN_CHECKER, built_in.mjBUILTIN_GRADIENT, built_in.mjBUILTIN_FLAT)
    for i in range(n):
        name = f"{MATERIAL}{i}"
        texture = spec.add_texture(name=name, type=mujoco.mjtTexture.mjTEXTURE_2D, builtin=kinds[i % len(kinds)])
        texture.rgb1, texture.rgb2 = rng.uniform(0.15, 0.9, (2, 3))
        texture.mark, texture.markrgb = mujoco.mjtMark.mjMARK_RANDOM, rng.uniform(0.1, 0.9, 3)
        texture.random, texture.width, texture.height = float(rng.uniform(0.0, 0.05)), 128, 128
        material = spec.add_material(name=name, texrepeat=rng.uniform(1, 12, 2), texuniform=True)
        material.specular, material.shininess = rng.uniform(0.0, 0.6, 2)
        material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name


def materials(model: mujoco.MjModel) -> Array:
    """Ids of the materials that ``add_materials`` made."""
    return np.array([m for m in range(model.nmat) if model.mat(m).name.startswith(MATERIAL)], dtype=int)


def _turn(rng: np.random.Generator, angle: float, shape: tuple[int, ...]) -> Array:
    """Quaternions w-x-y-z (*shape, 4) of turns by up to ``angle`` about axes of any direction."""
    axis = rng.standard_normal((*shape, 3))
    axis /= np.linalg.norm(axis, axis=-1, keepdims=True)
    half = 0.5 * rng.uniform(0.0, angle, (*shape, 1))
    return np.concatenate([np.cos(half), np.sin(half) * axis], axis=-1)


def _product(a: Array, b: Array) -> Array:
    """Quaternion products (*, 4)."""
    w, v, x, u = a[..., :1], a[..., 1:], b[..., :1], b[..., 1:]
    real = w * x - np.sum(v * u, axis=-1, keepdims=True)
    return np.concatenate([real, w * u + x * v + np.cross(v, u)], axis=-1)


def _rotated(vectors: Array, q: Array) -> Array:
    """Vectors (*, 3) turned by quaternions (*, 4)."""
    w, v = q[..., :1], q[..., 1:]
    return vectors + 2 * np.cross(v, np.cross(v, vectors) + w * vectors)
