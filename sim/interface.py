"""The protocols between Palmar's parts: Engine, Task, Policy, Robot, and the Step of an environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from palmar.safety.robot import RobotModel
from palmar.safety.types import Array, Chunk, Command, Measurement

Carry = Any
Obs = Any


@dataclass(frozen=True)
class Step:
    """Result of one control step of a batch of B environments."""

    obs: Array
    """Observation after the step; of a fresh episode where one ended, (B, d) float32."""
    reward: Array
    """(B,) float32."""
    cost: Array
    """Cost of the action just taken per constraint, in its unit (seconds or events), (B, K) float32."""
    terminated: Array
    """Episode ended by its task, (B,) bool."""
    truncated: Array
    """Episode ended by time, (B,) bool."""
    info: Mapping[str, Array] = field(default_factory=dict)
    """``terminal_obs`` (B, d) where an episode ended, ``success`` (B,), ``margin`` (B, K) smallest of the step."""


class Engine(Protocol):
    """What advances a batch of B identical scenes."""

    nworld: int
    dt: float
    """Physics step and sampling period of measurements [s]."""

    def reset(self, ids: Array, qpos: Array, qvel: Array) -> None:
        """Put worlds ``ids`` into a state; (k, nq), (k, nv)."""
        ...

    def measure(self) -> Measurement:
        """The measurement of the current state, (B, ...); command fields as last sent."""
        ...

    def advance(self, u: Array, ud: Array, udd: Array, uddd: Array) -> Measurement:
        """Send commands (S, B, n) at S physics steps; the S measurements, each of the state *after* its step."""
        ...


class Policy(Protocol):
    """Anything that chooses commands.  All memory is in the carry."""

    def start(self, batch: int) -> Carry:
        """Carry for freshly reset robots."""
        ...

    def act(self, obs: Obs, carry: Carry) -> tuple[Array, Carry]:
        """Actions or chunks for obs; equal inputs give equal outputs."""
        ...


@dataclass(frozen=True)
class RobotState:
    """One reading of a driver."""

    t: float
    """Monotonic time of the reading [s]."""
    seq: int
    """Counts readings; a repeated number is a repeated reading."""
    q: Array
    """[rad], (n,), hardware order."""
    qd: Array
    """[rad/s], (n,)."""
    tau: Array
    """[N m], (n,)."""


class Robot(Protocol):
    """A driver, of real or simulated hardware."""

    model: RobotModel

    def read(self) -> RobotState:
        """The newest state.

        Raises:
            DriverError: If none arrived; never the previous one instead.
        """
        ...

    def write(self, command: Command) -> None:
        """Send one tick of joint targets."""
        ...

    def stop(self, reason: str) -> None:
        """Bring the hardware to rest by its own means; see each driver for what that does physically."""
        ...


__all__ = [
    "Carry",
    "Chunk",
    "Command",
    "Engine",
    "Measurement",
    "Obs",
    "Policy",
    "Robot",
    "RobotState",
    "Step",
]
