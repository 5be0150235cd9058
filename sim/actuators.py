"""What stands between a command and the joints: a bus that is late, and motors that can do only so much.

Late commands are a function of commands before the engine, ``send``; its memory is a ``Line`` that is passed on.
Torque limits are per-world fields of the model, ``torque_limits``, so that they hold at every physics step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import mujoco
import numpy as np

from palmar.safety.robot import RobotModel
from palmar.safety.types import CommandRefused, ConfigError
from palmar.sim.randomize import Fields, Range, current

Array = np.ndarray


@dataclass(frozen=True)
class Motor:
    """A geared motor at its supply voltage, and the cap its driver sets on the current."""

    stall: float
    """Torque at standstill, all voltage on the winding [N m]."""
    stall_current: float
    """[A]."""
    no_load: float
    """Speed at which the back-EMF has used up the voltage [rad/s]."""
    cap: float
    """Current cap [A]; at or above the stall current it never acts."""

    @property
    def torque(self) -> float:
        """Largest torque at standstill [N m]."""
        return self.stall * min(1.0, self.cap / self.stall_current)


MOTORS = {
    "xc330_m288": Motor(stall=0.93, stall_current=1.80, no_load=81 * 2 * np.pi / 60, cap=0.55),
    "xl330_m288": Motor(stall=0.52, stall_current=1.47, no_load=103 * 2 * np.pi / 60, cap=0.35),
}
"""Motors of the LEAP hand, full and lite, at 5 V: emanual.robotis.com; caps: LEAP_Hand_API b0d00c8."""


@dataclass(frozen=True)
class ActuatorConfig:
    """How commands arrive and what becomes of them."""

    hand_motor: str | None = None
    """One of MOTORS; None keeps the model's force ranges."""
    strength: Range | None = None
    """Factor of each joint's torque limit, in (0, 1]: a sagging supply, a warm motor."""
    arm_delay: Range = (0.0, 0.0)
    """From sending a command to the servo's having it, drawn per episode [s]."""
    hand_delay: Range = (0.0, 0.0)
    jitter: float = 0.0
    """Most that a single command is later still [s]."""

    def __post_init__(self) -> None:
        if self.hand_motor is not None and self.hand_motor not in MOTORS:
            raise ConfigError(f"hand_motor is {self.hand_motor!r}, accepted {sorted(MOTORS)} or null")
        if self.strength is not None and not 0 < self.strength[0] <= self.strength[1] <= 1:
            raise ConfigError(f"strength must be an increasing pair in (0, 1], got {self.strength}")
        for name in ("arm_delay", "hand_delay"):
            low, high = getattr(self, name)
            if not 0 <= low <= high <= 0.5:
                raise ConfigError(f"{name} must be an increasing pair in [0, 0.5] s, got {(low, high)}")
        if not 0 <= self.jitter <= 0.5:
            raise ConfigError(f"jitter must be in [0, 0.5] s, got {self.jitter}")


def torque_limits(
    model: mujoco.MjModel,
    rng: np.random.Generator,
    k: int,
    *,
    robot: RobotModel,
    config: ActuatorConfig,
    given: Fields | None = None,
) -> Fields:
    """Force ranges, and the back-EMF of motors whose voltage limits them, as fields for k worlds.

    With torque limit F at standstill and stall torque S, a motor gives at most min(F, S (1 - w / w0)) at speed w.
    A servo clamped to F plus a joint damping b gives at most F - b w, and the servo's own damping less b leaves its
    motion unchanged until it is clamped.  b is the slope of the chord from w = 0 to the joint's speed limit v: the
    motor's line itself where the cap never acts (F = S), else inside both limits for 0 <= w <= v.  While braking
    the torque is at most F + b w, which the line allows and the cap does not: with the XC330 at 0.55 A,
    b = 0.007 N m s/rad.  ``actuator_force`` reads the torque before b is taken off.

    Raises:
        ConfigError: If an actuator has no force range, for then nothing limits it.
    """
    names = ("actuator_forcerange", "actuator_biasprm", "dof_damping")
    out = current(model, k, given, *names)
    act = np.array([model.actuator(j).id for j in robot.joints])
    dof = np.array([model.joint(j).dofadr[0] for j in robot.joints])
    free = [j for j, a in zip(robot.joints, act, strict=True) if not model.actuator_forcelimited[a]]
    if free:
        raise ConfigError(f"actuators {free} have no force range: nothing limits their torque")
    factor = rng.uniform(*config.strength, (k, robot.n)) if config.strength else np.ones((k, robot.n))
    limit, slope = out["actuator_forcerange"][:, act] * factor[..., None], np.zeros((k, robot.n))
    if config.hand_motor is not None:
        motor, hand = MOTORS[config.hand_motor], slice(robot.n_arm, robot.n)
        v = np.minimum(np.asarray(robot.limits.v_max)[hand], motor.no_load)
        top, line = motor.torque * factor[:, hand], motor.stall * factor[:, hand] * (1 - v / motor.no_load)
        top = np.minimum(top, limit[:, hand, 1])
        limit[:, hand] = np.stack([-top, top], axis=-1)
        slope[:, hand] = np.maximum(top - line, 0.0) / v
    out["actuator_forcerange"][:, act] = limit
    out["actuator_biasprm"][:, act, 2] += slope
    out["dof_damping"][:, dof] += slope
    return out


@dataclass(frozen=True)
class Line:
    """Commands under way to B robots."""

    delay: Array
    """Physics steps from sending to arrival, (B, n) int."""
    sent: Array
    """The last D commands [rad], oldest first, (D, B, n)."""
    lag: Array
    """How late each of them is [steps], (D, B, n) int, at most D."""


def start(delay: Array, q: Array, *, depth: int) -> Line:
    """A line on which only standing commands q (B, n) have been sent.

    Args:
        delay: [physics steps], (B, n) int.
        q: [rad], (B, n).
        depth: D, the largest delay plus the largest jitter there will be [steps].

    Raises:
        CommandRefused: If shapes differ or a delay is not in [0, depth].
    """
    delay = np.asarray(delay, dtype=int)
    if delay.shape != q.shape or np.any(delay < 0) or np.any(delay > depth):
        raise CommandRefused(f"delay must have shape {q.shape} and values in [0, {depth}], got {delay.tolist()}")
    sent = np.tile(q, (depth, 1, 1))
    return Line(delay, sent, np.zeros(sent.shape, dtype=int))


def restart(line: Line, ids: Array, delay: Array, q: Array) -> Line:
    """Fresh lines for robots ``ids`` (k,), as ``start`` with delay and q (k, n)."""
    fresh = start(delay, q, depth=len(line.sent))
    out = Line(line.delay.copy(), line.sent.copy(), line.lag.copy())
    out.delay[ids], out.sent[:, ids], out.lag[:, ids] = fresh.delay, fresh.sent, fresh.lag
    return out


def send(line: Line, u: Array, jitter: Array | None = None) -> tuple[Array, Line]:
    """What the servos follow while u is sent, both (S, B, n) [rad], and the line after it.

    Command i, sent at step i, arrives at step i + delay + jitter[i].  A servo follows the newest command that has
    arrived: one that overtakes another makes the other void, so commands never go back in time.

    Args:
        line: Commands under way.
        u: Commands of S physics steps.
        jitter: Further delay of each [steps], (S, B, n) int >= 0, or None.

    Raises:
        CommandRefused: If a command would be later than the line remembers.
    """
    depth, steps = len(line.sent), len(u)
    lag = np.broadcast_to(line.delay, u.shape) + (0 if jitter is None else jitter)
    if lag.max(initial=0) > depth or lag.min(initial=0) < 0:
        raise CommandRefused(f"commands are {lag.min()} to {lag.max()} steps late, the line holds 0 to {depth}")
    if depth == 0:
        return u, line
    sent, lags = np.concatenate([line.sent, u]), np.concatenate([line.lag, lag])
    out, missing = np.empty_like(u), np.ones(u.shape, dtype=bool)
    for age in range(depth + 1):  # newest first
        window = slice(depth - age, depth - age + steps)
        arrived = missing & (lags[window] <= age)
        out[arrived] = sent[window][arrived]
        missing &= ~arrived
    return out, replace(line, sent=sent[steps:], lag=lags[steps:])


def depth(config: ActuatorConfig, *, dt: float) -> int:
    """Physics steps a line must remember."""
    return _steps(max(config.arm_delay[1], config.hand_delay[1]), dt) + _steps(config.jitter, dt)


def draw_delay(config: ActuatorConfig, robot: RobotModel, rng: np.random.Generator, k: int, *, dt: float) -> Array:
    """Delays of k episodes [physics steps], (k, n) int: one for the arm's bus, one for the hand's."""
    out = np.empty((k, robot.n), dtype=int)
    out[:, : robot.n_arm] = np.rint(rng.uniform(*config.arm_delay, (k, 1)) / dt)
    out[:, robot.n_arm :] = np.rint(rng.uniform(*config.hand_delay, (k, 1)) / dt)
    return out


def draw_jitter(
    config: ActuatorConfig, robot: RobotModel, rng: np.random.Generator, shape: tuple[int, int], *, dt: float
) -> Array | None:
    """Further delays of the commands of an interval [physics steps], (S, B, n) int; None without jitter."""
    most = _steps(config.jitter, dt)
    if most == 0:
        return None
    bus = rng.integers(0, most + 1, (*shape, 2))
    return np.repeat(bus, [robot.n_arm, robot.n - robot.n_arm], axis=-1)


def _steps(seconds: float, dt: float) -> int:
    return int(np.rint(seconds / dt))
