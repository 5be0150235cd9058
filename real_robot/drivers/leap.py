"""LEAP hand: sixteen Dynamixel motors on one serial bus, in current-limited position mode.

What happens physically:

* ``stop``: torque stays on.  A finger that presses keeps its goal, so a held object stays held with the same force;
  every other joint holds where it is.
* ``close``: the same, and the bus watchdog is switched off, so that the hold lasts until the hand is unpowered.
* Nothing sent for ``watchdog`` seconds (this process dead, cable cut): each motor stops by itself, with torque on,
  and takes the present position as its goal.  The fingers stay where they are and resist being opened, but the
  force that a pinch came from is gone; see docs/hands.md.
* A motor in hardware error switches its own torque off.  The other fifteen hold on.

Stiffness and damping of a command are checked and ignored: the motors' gains are not in N m/rad.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from palmar.real_robot.drivers import leap_motors as motors
from palmar.real_robot.drivers.dynamixel import Bus, integers, rows_of
from palmar.real_robot.drivers.error import DriverError, checked
from palmar.real_robot.drivers.leap_config import LeapConfig
from palmar.real_robot.drivers.leap_motors import ADDRESS, COUNT, KINDS, LIMITS, OFFSET, SIDE, VELOCITY
from palmar.safety.types import Command, ConfigError
from palmar.sim.interface import RobotState

Array = np.ndarray
REST = 0.1
"""A joint slower than this is at rest [rad/s]."""
PRESSES = 0.03
"""A joint at rest that draws more current towards its goal than this presses on something [A]."""
HEALTH_EVERY = 25
"""Readings between two looks at torque, errors, watchdog, supply and temperature, one of them each time."""
TICK_SLACK, TICK_DRIFT = 0.003, 0.02
"""How much a motor's clock may differ from ours between two readings [s], and in parts of the time between."""
TICK_TURN = 32.768
"""Realtime Tick starts again after this time [s]."""
REBOOT = 2.0
"""A motor that restarts answers again within this time [s]."""


def open_driver(config: LeapConfig, joints: Sequence[str]) -> Leap:
    """The hand, checked, with torque on, holding where it is.

    Raises:
        ConfigError: If ``joints`` are not the hand's sixteen.
        DriverError: If the hand is not as configured or not fit to hold; nothing has moved then.
    """
    if sorted(joints) != sorted(ADDRESS):
        raise ConfigError(f"a LEAP hand has the joints {sorted(ADDRESS)}, got {list(joints)}")
    return Leap(config, tuple(joints))


class Leap:
    """The driver; see the module for what its methods do physically."""

    def __init__(self, config: LeapConfig, joints: tuple[str, ...]):
        self.config, self.joints = config, joints
        self._ids = [ADDRESS[j] for j in joints]
        self._low, self._high = np.array([LIMITS[j] for j in joints]).T
        self._constant = KINDS[config.motor].constant
        self._fault, self._seq, self._misses, self._looked = "", 0, 0, 0
        self._goal = np.zeros(len(joints), dtype=np.int64)
        self._clock: tuple[Array, float, float] | None = None
        self._bus: Bus | None = self._connect()
        try:
            self._start(self._bus)
        except BaseException:
            self._bus.close()
            raise

    @property
    def fault(self) -> str:
        """``<name>: <joints>`` as of the last ``read``, '' for none; latched until ``recover``."""
        return self._fault

    def read(self) -> RobotState:
        """Position, velocity and current of all motors by one fast sync read.

        ``tau`` is current times the motor's torque constant; the 330 motors measure the current of their supply, not
        of the winding, so it is rough and low at stall.

        Raises:
            DriverError: If one motor did not answer in time and whole, or its answer is an old one.
        """
        bus = self._opened()
        asked = time.monotonic()
        try:
            data, errors = bus.read(self._ids, 120, 16)
        except DriverError:
            self._misses += 1
            if self._misses == self.config.lost_after and not self._fault:
                self._fault = self._lost(bus)
            raise
        self._misses = 0
        answered = time.monotonic()
        if (errors & 0x80).any():
            self._look(bus, 70)
        self._check_clock(bus, integers(data[:, 0:2], signed=False), asked, answered)
        self._seq += 1
        if self._seq % HEALTH_EVERY == 0:
            self._look(bus, (64, 70, 98, 144)[self._looked % 4])
            self._looked += 1
        q, qd, current = self._decode(data)
        return RobotState(t=asked, seq=self._seq, q=q, qd=qd, tau=self._constant * current)

    def write(self, command: Command) -> None:
        """Goal positions of all motors by one sync write, clipped to the joints' ranges.

        Raises:
            CommandRefused: If it is not sixteen finite numbers; nothing was sent then.
            DriverError: If the hand is in a fault, or the port is gone.
        """
        q, _, _ = checked(command, self.joints)
        bus = self._opened()
        if self._fault:
            raise DriverError(f"the hand does not follow: {self._fault}")
        self._send(bus, _counts(np.clip(q, self._low, self._high)))

    def stop(self, reason: str) -> None:
        """Hold: joints that press keep their goal, the others stop where they are.  Torque stays on."""
        bus = self._opened()
        data, _ = bus.read(self._ids, 120, 16)
        self._send(bus, self._held(*self._decode(data)))

    def recover(self) -> None:
        """Open the port again where it was lost, restart motors in hardware error, and hold where the hand is.

        A motor that restarts is without torque for about half a second: support what the hand holds.

        Raises:
            DriverError: If a motor is still missing or its error does not go away.
        """
        if self._bus is not None:
            self._bus.close()
        self._bus = self._connect()
        errors = self._bus.read(self._ids, 70, 1)[0][:, 0]
        for ident in np.array(self._ids)[errors != 0]:
            self._bus.reboot(int(ident))
            self._await(self._bus, int(ident))
        self._start(self._bus)
        self._fault, self._misses, self._clock = "", 0, None

    def close(self) -> None:
        """Hold as ``stop`` does, for good: the bus watchdog is switched off and the torque stays on."""
        if self._bus is None:
            return
        try:
            self.stop("close")
            off = rows_of(np.zeros(len(self._ids)), 1)
            self._bus.write(self._ids, 98, off)
            self._verify(self._bus, {98: off})
        except DriverError:
            pass  # the bus is gone: the motors' own watchdog holds
        finally:
            self._bus.close()
            self._bus = None

    # opening

    def _connect(self) -> Bus:
        bus = Bus(self.config.port, self.config.baudrate, timeout=self.config.timeout)
        try:
            motors.find_all(bus, self._ids, kind=self.config.motor)
        except BaseException:
            bus.close()
            raise
        return bus

    def _start(self, bus: Bus) -> None:
        """Check, configure, hold, torque on, watchdog on; a hand that holds already is not let go."""
        c, ids = self.config, self._ids
        motors.check_health(bus, ids, voltage=c.voltage, temperature=c.temperature)
        q, qd, current = self._decode(bus.read(ids, 120, 16)[0])
        motors.check_pose(q, self.joints)
        motors.prepare(bus, ids)
        share = np.array([c.side_share if j in SIDE else 1.0 for j in self.joints])
        gains = np.round(np.outer(share, (c.d_gain, c.i_gain, c.p_gain))).astype(np.int64)
        on = bus.read(ids, 64, 1)[0][:, 0].astype(bool)
        self._goal = integers(bus.read(ids, 116, 4)[0])
        hold = np.where(on, self._held(q, qd, current), _counts(q))
        bus.write(ids, 98, rows_of(np.zeros(len(ids)), 1))  # goals are read-only after a trip of the watchdog
        bus.write(ids, 80, np.hstack([rows_of(gains[:, k], 2) for k in range(3)]))
        bus.write(ids, 102, rows_of(np.full(len(ids), round(1000 * c.cap)), 2))
        self._send(bus, hold)
        bus.write(ids, 64, rows_of(np.ones(len(ids)), 1))
        self._send(bus, hold)
        watchdog = rows_of(np.full(len(ids), round(c.watchdog / 0.02)), 1)
        bus.write(ids, 98, watchdog)
        cap = rows_of(np.full(len(ids), round(1000 * c.cap)), 2)
        on = rows_of(np.ones(len(ids)), 1)
        self._verify(bus, {64: on, 98: watchdog, 84: rows_of(gains[:, 2], 2), 102: cap, 116: rows_of(hold, 4)})

    def _verify(self, bus: Bus, wanted: dict[int, Array]) -> None:
        """Sync writes are not answered, so read back what matters."""
        for address, rows in wanted.items():
            found = bus.read(self._ids, address, rows.shape[1])[0]
            wrong = np.flatnonzero((found != rows).any(axis=1))
            if wrong.size:
                k = int(wrong[0])
                raise DriverError(
                    f"{self.joints[k]} (motor {self._ids[k]}) did not take register {address}: "
                    f"it has {bytes(found[k]).hex()}, wanted {bytes(rows[k]).hex()}"
                )

    def _await(self, bus: Bus, ident: int) -> None:
        end = time.monotonic() + REBOOT
        while bus.ping(ident) is None:
            if time.monotonic() > end:
                raise DriverError(f"motor {ident} does not answer {REBOOT} s after a restart")
            time.sleep(0.02)

    # running

    def _opened(self) -> Bus:
        if self._bus is None:
            raise DriverError("the hand is closed")
        return self._bus

    def _send(self, bus: Bus, goal: Array) -> None:
        bus.write(self._ids, 116, rows_of(goal, 4))
        self._goal = goal

    def _decode(self, data: Array) -> tuple[Array, Array, Array]:
        """Position [rad], velocity [rad/s] and current [A] of registers 120 to 135, (n, 16) bytes."""
        q = COUNT * integers(data[:, 12:16]) - OFFSET
        return q, VELOCITY * integers(data[:, 8:12]), 1e-3 * integers(data[:, 6:8])

    def _held(self, q: Array, qd: Array, current: Array) -> Array:
        """Goals [counts] that hold: what presses goes on pressing, the rest stays where it is."""
        here = _counts(q)
        towards = np.sign(self._goal - here) * current
        return np.where((np.abs(qd) < REST) & (towards > PRESSES), self._goal, here)

    def _check_clock(self, bus: Bus, tick: Array, asked: float, answered: float) -> None:
        """Refuse an answer that was given before it was asked for.

        The motors counted their ``tick`` [ms] between ``asked`` and ``answered``, and so at the reading before.

        Raises:
            DriverError: If a motor's milliseconds in between do not fit ours.
        """
        if self._clock is not None:
            before, asked_before, answered_before = self._clock
            passed = answered - asked_before
            slack = TICK_SLACK + TICK_DRIFT * passed
            early = asked - answered_before - slack
            excess = (1e-3 * (tick - before) - early) % TICK_TURN  # negative wraps to nearly a turn
            worst = int(excess.argmax())
            if excess[worst] > passed + slack - early:
                with suppress(DriverError):  # whoever restarted has its torque off
                    self._look(bus, 64)
                    self._look(bus, 98)
                bus.port.drain()
                raise DriverError(f"{self.joints[worst]}: an old answer, or its motor has restarted")
        self._clock = tick, asked, answered

    def _look(self, bus: Bus, address: int) -> None:
        """Look at torque (64), hardware errors (70), bus watchdog (98) or supply and heat (144) of all motors."""
        rows = bus.read(self._ids, address, 3 if address == 144 else 1)[0]
        value = rows[:, 2] if address == 144 else rows[:, 0]
        if address == 64:
            self._accuse("torque_off", value == 0)
        elif address == 98:
            self._accuse("bus_watchdog", value == 255)
        elif address == 144:
            self._accuse("overheating", value > self.config.temperature + 5.0)
        else:
            for errors in sorted(set(value.tolist()) - {0}):
                self._accuse(motors.names(errors), value == errors)

    def _accuse(self, name: str, guilty: Array) -> None:
        if guilty.any() and (not self._fault or self._fault.startswith("torque_off")):
            self._fault = f"{name}: " + ", ".join(np.array(self.joints)[guilty])

    def _lost(self, bus: Bus) -> str:
        """Who does not answer."""
        try:
            silent = [j for j, i in zip(self.joints, self._ids, strict=True) if bus.ping(i) is None]
        except DriverError:
            return "bus_lost: port gone"
        if not silent:
            return ""
        return "bus_lost: no motor answers" if len(silent) == len(self.joints) else "motor_lost: " + ", ".join(silent)


def _counts(q: Array) -> Array:
    """Motor counts of joint angles [rad]."""
    return np.rint((q + OFFSET) / COUNT).astype(np.int64)
