"""Margins: signed distances to a violation, in SI units.  ``>= 0`` is safe, zero included.

Each is a pure function of a frozen Measurement over an array namespace: no numpy or torch here, static
shapes, no branch on data.  A margin returns (*B,); one with a memory takes and returns its carry.
The same functions make the training cost, the filter's verdict, the audit of a rollout and the report.
"""

from __future__ import annotations

from palmar.safety.hazards import (
    blind_spot,
    corner,
    critical_point,
    dangerous_object,
    fragile_group,
    start_blind_spot,
    start_where,
)
from palmar.safety.namespace import namespace
from palmar.safety.reading import cast, like, smallest, supplied
from palmar.safety.robot import Limits
from palmar.safety.types import CONTACT_PAIRS, Array, Measurement

STOP_GIVE = 0.03
"""How far a loaded joint may lean into its mechanical stop, encoder error included [rad]."""


def joint_position(m: Measurement, limits: Limits, *, buffer: float) -> Array:
    """Distance of the joint nearest to an end of its range, less ``buffer`` [rad].

    Commanded positions must be inside the range; measured ones may lean STOP_GIVE into the stop.
    """
    xp = namespace(m.q)
    low, high = like(m, limits.q_min), like(m, limits.q_max)
    measured = xp.minimum(m.q - low, high - m.q) + STOP_GIVE
    commanded = xp.minimum(m.u - low, high - m.u)
    return smallest(xp.minimum(measured, commanded)) - buffer


def speed_limit(q: Array, limits: Limits) -> tuple[Array, Array]:
    """Published position-dependent speed limits (downwards, upwards) [rad/s], each >= 0, shape of q (*B, n).

    Source: libfranka ``joint_velocity_limits.cpp``; see ``Limits``.
    """
    xp = namespace(q)
    v_max, offset, two_a, up, low = (
        cast(getattr(limits, k), q) for k in ("v_max", "curve_offset", "curve_two_a", "curve_q_up", "curve_q_low")
    )
    zero = xp.zeros_like(q)
    upwards = xp.minimum(v_max, xp.maximum(zero, xp.sqrt(xp.maximum(zero, two_a * (up - q))) - offset))
    downwards = xp.minimum(v_max, xp.maximum(zero, xp.sqrt(xp.maximum(zero, two_a * (q - low))) - offset))
    return downwards, upwards


def joint_velocity(m: Measurement, limits: Limits) -> Array:
    """Commanded speed below the position-dependent limit [rad/s]."""
    xp = namespace(m.q)
    downwards, upwards = speed_limit(m.u, limits)
    return smallest(xp.minimum(upwards - m.ud, m.ud + downwards))


def joint_acceleration(m: Measurement, limits: Limits) -> Array:
    """Commanded acceleration below its limit [rad/s2]."""
    xp = namespace(m.q)
    return smallest(like(m, limits.a_max) - xp.abs(m.udd))


def joint_jerk(m: Measurement, limits: Limits) -> Array:
    """Commanded jerk below its limit [rad/s3]."""
    xp = namespace(m.q)
    return smallest(like(m, limits.j_max) - xp.abs(m.uddd))


def joint_torque(m: Measurement, limits: Limits) -> Array:
    """Joint torque below its limit [N m]."""
    xp = namespace(m.q)
    return smallest(like(m, limits.tau_max) - xp.abs(m.tau))


def self_clearance(m: Measurement, limits: Limits, *, limit: float) -> Array:
    """Distance between links beyond ``limit`` [m]."""
    return m.clearance_self - limit


def table_clearance(m: Measurement, limits: Limits, *, limit: float) -> Array:
    """Height of the lowest moving link above the table beyond ``limit`` [m]."""
    return m.clearance_table - limit


def workspace(m: Measurement, limits: Limits, *, lower: tuple[float, ...], upper: tuple[float, ...]) -> Array:
    """Palm origin inside an axis-aligned box given by two corners [m]."""
    xp = namespace(m.q)
    p = m.palm_position
    return smallest(xp.minimum(p - like(m, lower), like(m, upper) - p))


def contact_force(m: Measurement, limits: Limits, *, pair: str, limit: float) -> Array:
    """Contact force of the named pair below ``limit`` [N]; pair ``tips`` is the strongest fingertip."""
    force = m.contact_force[..., 1:] if pair == "tips" else m.contact_force[..., CONTACT_PAIRS.index(pair)][..., None]
    return limit - namespace(force).max(force, axis=-1)


def joint_torque_rate(m: Measurement, limits: Limits, *, limit: float) -> Array:
    """Rate of change of the joint torques below ``limit`` [N m/s]."""
    return limit - namespace(m.q).max(namespace(m.q).abs(supplied(m, "tau_rate")), axis=-1)


def keep_out(
    m: Measurement, limits: Limits, *, region: int, lower: tuple[float, ...], upper: tuple[float, ...], limit: float
) -> Array:
    """Distance of the moving links to a forbidden box beyond ``limit`` [m].

    The box is axis-aligned with corners ``lower`` and ``upper``; ``region`` counts the keep-out constraints of
    the file from 0 and is the column of ``Measurement.clearance_keep_out``.
    """
    return supplied(m, "clearance_keep_out")[..., region] - limit


def separation_speed(distance: Array, *, human: float, reaction: float, brake: float, intrusion: float) -> Array:
    """Speed towards a person that is still allowed at ``distance`` [m/s], (*B,), >= 0.

    It solves ``distance = human (reaction + v / brake) + v reaction + v^2 / (2 brake) + intrusion``, the protective
    distance of speed and separation monitoring: the person walks while the robot reacts and brakes, the robot
    moves on while it does.  Source: ISO 10218-2:2025 (TS 15066), after Marvel and Norcross (2017); not certified.
    """
    xp = namespace(distance)
    zero = xp.zeros_like(distance)
    room = xp.minimum(xp.maximum(zero, distance - intrusion - human * reaction), zero + 100.0)  # nobody: inf
    c = human + brake * reaction
    return 2.0 * brake * room / (xp.sqrt(c * c + 2.0 * brake * room) + c)


def speed_separation(
    m: Measurement, limits: Limits, *, human: float, reaction: float, brake: float, intrusion: float, creep: float
) -> Array:
    """Speed towards a person below what their distance allows [m/s]; up to ``creep`` counts as standing."""
    xp = namespace(m.q)
    allowed = separation_speed(
        supplied(m, "clearance_person"), human=human, reaction=reaction, brake=brake, intrusion=intrusion
    )
    return xp.maximum(allowed, xp.zeros_like(allowed) + creep) - supplied(m, "approach_person")


def impact_speed(*, force: float, mass: float, stiffness: float) -> float:
    """Speed at which an impact makes at most ``force`` [N]: ``v = F / sqrt(mu k)`` [m/s].

    ``mass`` is the reduced mass of both bodies [kg], ``stiffness`` that of the contact [N/m].
    Source: ISO/TS 15066, annex A.3.6; Haddadin et al. (2009).
    """
    return force / (mass * stiffness) ** 0.5


def contact_approach(m: Measurement, limits: Limits, *, force: float, mass: float, stiffness: float) -> Array:
    """Speed towards what may be touched below that of an impact of ``force`` [m/s]."""
    return impact_speed(force=force, mass=mass, stiffness=stiffness) - supplied(m, "approach_contact")


def energy_tank(m: Measurement, limits: Limits, *, floor: float) -> Array:
    """Energy left in the tank beyond ``floor`` [J]."""
    return supplied(m, "tank") - floor


def dropped_object(m: Measurement, limits: Limits, carry: Array, *, fall: float) -> tuple[Array, Array]:
    """How much further an object may come down from the highest point it has reached [m].

    The carry is that highest point [m], (*B, m): ``-inf`` at the start of an episode.  A task that puts
    things down on purpose must not use it.
    """
    xp = namespace(m.q)
    height = m.object_position[..., 2]
    peak = xp.maximum(carry, height)
    come_down = xp.concat([peak - height, xp.zeros_like(m.t)[..., None]], axis=-1)  # >= 0, and no object is fine
    return fall - xp.max(come_down, axis=-1), peak


def start_dropped_object(m: Measurement) -> Array:
    """Carry of ``dropped_object`` at the start of an episode."""
    height = m.object_position[..., 2]
    return namespace(height).zeros_like(height) - float("inf")


def wrench(m: Measurement, limits: Limits, *, force: float) -> Array:
    """Force of the hand on what it touches, at the wrist's sensor, below ``force`` [N]."""
    f = supplied(m, "wrench")[..., :3]
    return force - namespace(f).sqrt(namespace(f).sum(f * f, axis=-1))


MEMORYLESS = {
    f.__name__: f
    for f in (
        joint_position,
        joint_velocity,
        joint_acceleration,
        joint_jerk,
        joint_torque,
        self_clearance,
        table_clearance,
        workspace,
        contact_force,
        joint_torque_rate,
        keep_out,
        speed_separation,
        contact_approach,
        energy_tank,
        wrench,
        corner,
    )
}
REMEMBERING = {
    "dropped_object": (start_dropped_object, dropped_object),
    "blind_spot": (start_blind_spot, blind_spot),
    "dangerous_object": (start_where, dangerous_object),
    "fragile_group": (start_where, fragile_group),
    "critical_point": (start_where, critical_point),
}
STANDING = frozenset({"dangerous_object", "fragile_group", "critical_point"})
"""Of these, those whose carry never changes within an episode: all samples of an interval are judged at once."""
