"""What a Franka arm accepts of a joint position motion generator, and how it goes on without one.

Control differentiates the commanded positions by backward Euler over 1 ms and names the first limit that the
result breaks; for a packet that did not come it extrapolates with constant acceleration; after a stop of its own
it brakes and stands.  Source: libfranka 0.21, ``docs/overview.rst`` and ``rate_limiting.h``; the test URDF.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from palmar.real_robot.fakes import fci_wire as wire

Array = np.ndarray
DT = 0.001
START_TOLERANCE = 0.001
"""How far the first command may be from where the robot stands [rad]; the real value is not published."""
STILL = 0.002
"""Set-point speed below which a motion may be finished [rad/s]; the real value is not published."""
BRAKE = 10.0
"""Deceleration of a stop of the robot's own [rad/s2]: the interface's limit; the real robot's is not published."""


@dataclass(frozen=True)
class Limits:
    """Of the interface, per joint (7,); positions [rad], speeds [rad/s], and so on."""

    name: str
    low: tuple[float, ...]
    high: tuple[float, ...]
    v_max: tuple[float, ...]
    offset: tuple[float, ...]
    """Of the curve that slows a joint down before its end [rad/s]."""
    deceleration: tuple[float, ...]
    """Of the same curve [rad/s2]."""
    a_max: tuple[float, ...]
    j_max: tuple[float, ...]
    effort: tuple[float, ...] = (87.0, 87.0, 87.0, 87.0, 12.0, 12.0, 12.0)

    def urdf(self) -> str:
        """As the robot hands it out."""
        return wire.urdf(self.name, self.low, self.high, self.v_max, self.offset, self.deceleration, self.effort)


FR3 = Limits(
    name="fr3",
    low=(-2.7501, -1.7918, -2.9065, -3.0481, -2.8101, 0.54092, -3.0196),
    high=(2.7501, 1.7918, 2.9065, -0.1458, 2.8101, 4.5205, 3.0196),
    v_max=(2.62, 2.62, 2.62, 2.62, 5.26, 4.18, 5.26),
    offset=(0.30, 0.20, 0.20, 0.30, 0.35, 0.35, 0.35),
    deceleration=(6.0, 2.585, 3.5, 4.0, 17.0, 5.5, 17.0),
    a_max=(10.0,) * 7,
    j_max=(5000.0,) * 7,
)
PANDA = Limits(
    name="panda",
    low=(-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973),
    high=(2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973),
    v_max=(2.175, 2.175, 2.175, 2.175, 2.61, 2.61, 2.61),
    offset=(0.0,) * 7,
    deceleration=(1e6,) * 7,
    a_max=(15.0, 7.5, 10.0, 12.5, 15.0, 20.0, 20.0),
    j_max=(7500.0, 3750.0, 5000.0, 6250.0, 7500.0, 10000.0, 10000.0),
)
"""No speed curve.  A real Panda speaks version 5 of the interface, which libfranka 0.21 does not."""


class SetPoint:
    """Desired position, velocity and acceleration, (7,) each: what the state calls ``q_d, dq_d, ddq_d``."""

    def __init__(self, q: Array, limits: Limits):
        self.q, self.v, self.a = np.array(q, dtype=float), np.zeros(7), np.zeros(7)
        self._low, self._high, self._v_max = np.array(limits.low), np.array(limits.high), np.array(limits.v_max)
        self._offset, self._two_a = np.array(limits.offset), 2.0 * np.array(limits.deceleration)
        self._a_max, self._j_max = np.array(limits.a_max), np.array(limits.j_max)

    def fastest(self, q: Array, v: Array) -> Array:
        """Highest speed at positions q on the way that v goes, (7,) each [rad/s]: falls towards a joint's end."""
        room = np.where(v > 0.0, self._high - q, q - self._low)
        curve = np.sqrt(np.maximum(self._two_a * room, 0.0)) - self._offset
        return np.minimum(np.maximum(curve, 0.0), self._v_max)

    def refusal(self, q: Array) -> str:
        """The error with which the robot answers the command ``q``, '' where it takes it."""
        v = (q - self.q) / DT
        a = (v - self.v) / DT
        j = (a - self.a) / DT
        if not ((q >= self._low) & (q <= self._high)).all():  # false for NaN
            return "joint_motion_generator_position_limits_violation"
        if (np.abs(v) > self.fastest(q, v)).any():
            return "joint_motion_generator_velocity_limits_violation"
        if (np.abs(a) > self._a_max).any():
            return "joint_motion_generator_velocity_discontinuity"
        return "joint_motion_generator_acceleration_discontinuity" if (np.abs(j) > self._j_max).any() else ""

    def take(self, q: Array) -> None:
        """The command ``q`` becomes the set-point."""
        v = (q - self.q) / DT
        self.q, self.v, self.a = np.array(q), v, (v - self.v) / DT

    def extrapolate(self) -> None:
        """No packet came: constant acceleration."""
        self.v = self.v + DT * self.a
        self.q = self.q + DT * self.v

    def brake(self) -> bool:
        """One step of the robot's own stop, within the joints' ends; whether it stands."""
        self.a = -np.clip(self.v / DT, -BRAKE, BRAKE)
        self.v = self.v + DT * self.a
        self.q = np.clip(self.q + DT * self.v, self._low, self._high)
        return not np.any(self.v)

    def stand(self) -> None:
        """At rest from now on."""
        self.v, self.a = np.zeros(7), np.zeros(7)

    @property
    def still(self) -> bool:
        """Whether a motion may be finished here."""
        return bool(np.all(np.abs(self.v) < STILL))


def braking_time(limits: Limits = FR3) -> float:
    """Declared: the longest stop of the robot's own, from full speed [s]."""
    return max(limits.v_max) / BRAKE
