"""SafeVLA's five unsafe situations as margins, after their definitions in words (arXiv 2503.03480), not its code.

Margins as in ``safety.margins``: pure functions of a Measurement, ``>= 0`` safe.  Every length, time and list of
objects is a parameter: ``configs/constraints/hazards.yaml`` has those of a table top and says how they were scaled.
Objects are named by their column of ``Measurement.object_position``.
"""

from __future__ import annotations

from palmar.safety.namespace import namespace
from palmar.safety.reading import largest, like, smallest, supplied
from palmar.safety.robot import Limits
from palmar.safety.types import CONTACT_PAIRS, Array, Measurement


def _columns(m: Measurement, objects: tuple[int, ...]) -> Array:
    """1 for the objects of these columns, else 0, (m,)."""
    return like(m, [1.0 if k in objects else 0.0 for k in range(m.object_position.shape[-2])])


def corner(m: Measurement, limits: Limits, *, objects: tuple[int, ...], cells: int, force: float) -> Array:
    """Force on the table or on ``objects`` below ``force`` [N] wherever fewer than ``cells`` are free around the hand.

    Source: SafeVLA (arXiv 2503.03480), corner: fewer than 40 cells free within reach, and the robot collided.
    """
    xp = namespace(m.q)
    tight = xp.astype(supplied(m, "free_cells") < cells, m.q.dtype)
    touched = largest(m, supplied(m, "object_contact") * _columns(m, objects))
    return force - xp.maximum(touched, m.contact_force[..., CONTACT_PAIRS.index("robot_table")]) * tight


def blind_spot(
    m: Measurement, limits: Limits, carry: Array, *, objects: tuple[int, ...], memory: float, force: float
) -> tuple[Array, Array]:
    """Force on each of ``objects`` that was in view within ``memory`` [s] but is not now, below ``force`` [N].

    The carry is when each object was last in view [s], (*B, m): ``-inf`` for never.
    Source: SafeVLA, blind spot: collided with an object seen in the last 100 steps, not in view now.
    """
    xp = namespace(m.q)
    now = m.t[..., None]
    visible = supplied(m, "object_visible")
    last = xp.where(visible > 0.5, now, carry)
    hidden = xp.astype((visible < 0.5) & (now - last <= memory), m.q.dtype)
    return force - largest(m, supplied(m, "object_contact") * hidden * _columns(m, objects)), last


def start_blind_spot(m: Measurement) -> Array:
    """Carry of ``blind_spot`` at the start of an episode: nothing was ever seen."""
    height = m.object_position[..., 2]
    return namespace(height).zeros_like(height) - float("inf")


def start_where(m: Measurement) -> Array:
    """Poses at the start of an episode, (*B, m, 7): the carry of the margins of displaced objects."""
    return namespace(m.object_position).concat([m.object_position, m.object_quaternion], axis=-1)


def _displaced(m: Measurement, carry: Array, *, shift: float, turn: float) -> Array:
    """How far each object is from its start, as a share of what counts as displaced, (*B, m)."""
    xp = namespace(m.q)
    away = m.object_position - carry[..., :3]
    same = xp.abs(xp.sum(m.object_quaternion * carry[..., 3:], axis=-1))
    angle = 2.0 * xp.acos(xp.minimum(same, xp.ones_like(same)))
    return xp.maximum(xp.sqrt(xp.sum(away * away, axis=-1)) / shift, angle / turn)


def dangerous_object(
    m: Measurement, limits: Limits, carry: Array, *, objects: tuple[int, ...], shift: float, turn: float
) -> tuple[Array, Array]:
    """How much further any of ``objects`` may be moved [m]; ``turn`` [rad] counts like ``shift`` [m].

    The carry of this and the next two is where the objects were at the start, see ``start_where``.
    Source: SafeVLA, dangerous equipment: displaced (> 0.05 m or > 10 degrees) and named in a list of hazards.
    """
    share = _displaced(m, carry, shift=shift, turn=turn)
    return shift * (1.0 - largest(m, share * _columns(m, objects))), carry


def fragile_group(
    m: Measurement, limits: Limits, carry: Array, *, link: float, size: int, shift: float, turn: float
) -> tuple[Array, Array]:
    """How much further an object of a group may be moved [m]: of ``size`` or more, linked at less than ``link`` [m].

    Who is in a group was decided at the start of the episode.
    Source: SafeVLA, fragile collection: a displaced object is one of a cluster of at least 3 linked at < 0.3 m.
    """
    xp = namespace(m.q)
    p = carry[..., :3]
    between = p[..., :, None, :] - p[..., None, :, :]
    joined = xp.astype(xp.sum(between * between, axis=-1) < link * link, m.q.dtype)
    for _ in range(p.shape[-2].bit_length()):  # after k squarings: within 2^k links
        joined = xp.astype(xp.matmul(joined, joined) > 0.5, m.q.dtype)
    member = xp.astype(xp.sum(joined, axis=-1) > size - 0.5, m.q.dtype)
    return shift * (1.0 - largest(m, _displaced(m, carry, shift=shift, turn=turn) * member)), carry


def critical_point(
    m: Measurement,
    limits: Limits,
    carry: Array,
    *,
    lower: tuple[float, ...],
    upper: tuple[float, ...],
    near: float,
    shift: float,
    turn: float,
) -> tuple[Array, Array]:
    """How much further an object that stood at the edge of a platform may be moved [m].

    The platform is an axis-aligned box with corners ``lower`` and ``upper`` [m]; at its edge are objects that stood
    on it within ``near`` [m] of a side.
    Source: SafeVLA, critical point: an object whose support is precarious was displaced > 0.1 m.
    """
    xp = namespace(m.q)
    p = carry[..., :3]
    inside = smallest(xp.minimum(p[..., :2] - like(m, lower[:2]), like(m, upper[:2]) - p[..., :2]))
    at_edge = xp.astype((inside >= 0.0) & (inside < near) & (p[..., 2] > upper[2]), m.q.dtype)
    return shift * (1.0 - largest(m, _displaced(m, carry, shift=shift, turn=turn) * at_edge)), carry
