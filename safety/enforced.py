"""What a constraint file asks of the filter: the numbers of its rows, read once.

The QP, the verifier and the tank know nothing of files; this is where a constraint named in the file becomes a
limit of theirs, tighter by what is kept back for errors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from palmar.safety.bounds import Bounds, Space, bounds_of
from palmar.safety.constraints import Constraint, ConstraintSet
from palmar.safety.distances import FAR
from palmar.safety.margins import impact_speed
from palmar.safety.types import ConfigError


@dataclass(frozen=True)
class KeepBack:
    """What is kept back from every clearance because the measured robot is not where it was commanded [m].

    Joints whose servos lag differently bring links nearer than commanded; the numbers are what a hostile policy
    provoked on the simulated arm, with mass, delay and sensors at their declared bounds (docs/filter.md).
    """

    rounding: float = 1e-5
    """Everywhere."""
    table: float = 0.004
    """Above the table, besides."""
    own: float = 0.001
    """Between links, besides."""
    keep_out: float = 0.004
    """At keep-out regions, besides."""

    def __post_init__(self) -> None:
        for name, value in self.__dict__.items():
            if not 0 <= value < 0.05:
                raise ConfigError(f"keep_back.{name} must be in [0, 0.05) m, got {value!r}")


@dataclass(frozen=True)
class Torque:
    """The soft rows of the arm's torque."""

    error: float = 0.0
    """Part of tau_max kept back for the error of the inverse dynamics [N m]."""
    rate: float = math.inf
    """Limit of the torque's rate of change, its error taken off [N m/s]."""

    def part(self, tau_max: np.ndarray) -> np.ndarray:
        """Torque limits of the arm (arm,) less what is kept back [N m].

        Raises:
            ConfigError: If nothing is left of one.
        """
        left = tau_max - self.error
        if np.any(left <= 0):
            raise ConfigError(f"torque error {self.error} leaves nothing of tau_max {tau_max.tolist()}")
        return left


@dataclass(frozen=True)
class Separation:
    """Speed and separation to people: the parameters of ``margins.speed_separation``."""

    human: float
    """[m/s]"""
    reaction: float
    """[s]"""
    brake: float
    """[m/s2]"""
    distance: float
    """Kept even from a person that stands: intrusion and the tracker's error [m]."""


@dataclass(frozen=True)
class Enforced:
    """The rows of a constraint file."""

    bounds: Bounds
    space: Space
    torque: Torque | None
    people: Separation | None
    impact: float
    """Approach speed at which the hand may touch something [m/s]; inf for any."""
    floor: float | None
    """Energy that stays in the tanks [J]; None where no tank is enforced."""
    names: dict[str, tuple[str, ...]]
    """Names of the constraints with a row, by margin, keep-out regions in their order."""


def enforced(constraints: ConstraintSet, keep: KeepBack) -> Enforced:
    """The rows that ``constraints`` asks for.

    Raises:
        ConfigError: If they leave the robot no room, or repeat a margin that may be asked for once.
    """
    rows = [c for c in constraints.constraints if c.runtime.endswith("row")]
    of = {margin: [c for c in rows if c.margin == margin] for margin in {c.margin for c in rows}}
    for margin in ("speed_separation", "contact_approach", "energy_tank", "joint_torque", "joint_torque_rate"):
        if len(of.get(margin, ())) > 1:
            raise ConfigError(f"constraints {[c.name for c in of[margin]]} all enforce {margin}, accepted is one")
    regions = sorted(of.get("keep_out", ()), key=lambda c: c.params["region"])
    names = {margin: tuple(c.name for c in held) for margin, held in of.items()}
    names["keep_out"] = tuple(c.name for c in regions)
    buffer = max([c.params["buffer"] + c.error for c in of.get("joint_position", ())], default=0.0)
    return Enforced(
        bounds=bounds_of(constraints.limits, buffer),
        space=_space(of, keep),
        torque=_torque(of),
        people=_separation(_one(of, "speed_separation")),
        impact=_impact(_one(of, "contact_approach")),
        floor=_floor(_one(of, "energy_tank")),
        names=names,
    )


def _one(of: dict[str, list[Constraint]], margin: str) -> Constraint | None:
    return of[margin][0] if of.get(margin) else None


def _space(of: dict[str, list[Constraint]], keep: KeepBack) -> Space:
    """Limits of the geometry, tighter by what is kept back [m]; infinite where there is none."""
    own = max(
        [c.params["limit"] + c.error + keep.rounding + keep.own for c in of.get("self_clearance", ())],
        default=-math.inf,
    )
    table = max(
        [c.params["limit"] + c.error + keep.rounding + keep.table for c in of.get("table_clearance", ())],
        default=-math.inf,
    )
    lower, upper = np.full(3, -np.inf), np.full(3, np.inf)
    for c in of.get("workspace", ()):
        lower = np.maximum(lower, np.array(c.params["lower"], dtype=np.float64) + keep.rounding + c.error)
        upper = np.minimum(upper, np.array(c.params["upper"], dtype=np.float64) - keep.rounding - c.error)
    if own > FAR or np.any(lower >= upper):
        raise ConfigError(f"self clearance limit {own} above {FAR} m, or empty workspace {lower} to {upper}")
    return Space(own, table, lower, upper)


def _torque(of: dict[str, list[Constraint]]) -> Torque | None:
    limit, rate = _one(of, "joint_torque"), _one(of, "joint_torque_rate")
    if limit is None and rate is None:
        return None
    most = rate.params["limit"] - rate.error if rate is not None else math.inf
    if most <= 0:
        raise ConfigError(f"torque rate limit {most + rate.error} is all error ({rate.error})")  # type: ignore[union-attr]
    return Torque(limit.error if limit is not None else 0.0, most)


def _separation(c: Constraint | None) -> Separation | None:
    if c is None:
        return None
    p = c.params
    if not (p["human"] > 0 and p["reaction"] >= 0 and p["brake"] > 0 and p["intrusion"] >= 0 and p["creep"] > 0):
        raise ConfigError(f"constraint {c.name}: human, brake and creep must be > 0, the rest >= 0, got {p}")
    return Separation(p["human"], p["reaction"], p["brake"], p["intrusion"] + c.error)


def _impact(c: Constraint | None) -> float:
    if c is None:
        return math.inf
    allowed = impact_speed(**c.params) - c.error
    if not allowed > 0:
        raise ConfigError(f"constraint {c.name}: its error {c.error} leaves nothing of {allowed + c.error} m/s")
    return allowed


def _floor(c: Constraint | None) -> float | None:
    return None if c is None else c.params["floor"] + c.error
