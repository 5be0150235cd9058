"""An FR3 through libfranka (``pip install palmar[franka]``): joint positions over its internal joint impedance, 1 kHz.

The robot's packets are its clock: ``read`` returns when the next state is there and ``write`` answers that state, so
whoever calls them in turn needs no clock of their own.  A state that nobody answered is answered by ``read`` along
the last command, see ``fr3_follow``.  What the arm does physically:

- ``stop``: the set-point brakes at the interface's limits (10 rad/s2, at most 0.6 s), the motion finishes at rest and
  the arm holds there under its own controller, brakes open.  It returns when that is so.
- process killed, cable cut, 20 packets lost: the robot's own stop, then mode Reflex: it stands until ``recover``
  (Franka does not publish how fast it stops, nor whether brakes or its controller hold it then).
- reflex (collision thresholds, limits, discontinuities) and user's stop: the same, named in ``fault``.
- ``recover`` clears a reflex, after an operator asked for it; never by itself.  It does not move.
- ``close``: ``stop``, then the connection closes; the arm holds.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from palmar.real_robot.drivers import fr3_identity
from palmar.real_robot.drivers.error import DriverError, check_near, checked
from palmar.real_robot.drivers.fr3_config import Fr3Config
from palmar.real_robot.drivers.fr3_follow import Follower
from palmar.real_robot.drivers.fr3_link import CONNECT_TIME, Link, fault, libfranka
from palmar.safety.types import Command, CommandRefused, ConfigError
from palmar.sim.interface import RobotState

Array = np.ndarray
STOP_TIME, RECOVERY_TIME = 1.5, 2.0
"""After it, a stop that did not come to rest becomes the robot's own; how long recoveries may be refused [s]."""
EQUAL = 2e-6
"""Between a set-point sent and the one the robot says it has, which is of single precision [rad]."""
STALLED = 0.005
"""After a longer pause between reads the first packet may be old: the next one counts [s]."""


def open_driver(config: Fr3Config, joints: Sequence[str]) -> Fr3:
    """Check which arm answers, connect, set it up.  Nothing moves.

    Raises:
        ConfigError: If libfranka is not installed, or it is another arm than configured.
        DriverError: If the robot does not answer, speaks another version or rejects a setting.
    """
    return Fr3(config, joints)


class Fr3:
    """See the module.  Used by one thread; libfranka keeps Python's interpreter lock while it waits."""

    paced = True
    """``read`` waits for the robot's next packet: a loop around it needs, and may have, no clock of its own."""

    def __init__(self, config: Fr3Config, joints: Sequence[str]):
        if len(joints) != 7:
            raise ConfigError(f"an FR3 has 7 joints, got {len(joints)}: {list(joints)}")
        self._lib = libfranka()
        self.config, self.joints = config, tuple(joints)
        self.success_rate = 0.0
        """Share of the last 100 packets that reached the robot in time, as it counts them."""
        self._errors = (RuntimeError, ValueError, self._lib.FrankaException)
        self.resumed = 0
        """How often the robot went on by itself, because packets were lost."""
        self._link: Link | None = None
        self._motion: Any = None
        self._follower: Follower | None = None
        self._answered, self._ready, self._read_at, self._fault, self._reason = True, False, 0.0, "", ""
        self._state: Any = None
        self._sent = (np.zeros(7), np.zeros(7))
        self._stiffness = np.array(config.stiffness)
        self._open()

    @property
    def fault(self) -> str:
        """Errors by libfranka's names, ``user_stopped``, ``guiding``, ``other`` (brakes closed); until ``recover``."""
        return self._fault

    def read(self) -> RobotState:
        """Wait for the robot's next packet, at most ``timeout``.

        ``tau`` is the measured joint torque without the robot's own gravity compensation.

        Raises:
            DriverError: If none came, or it was damaged.
        """
        state = self._next()
        if time.monotonic() - self._read_at > STALLED:
            state = self._next()
        self._read_at = time.monotonic()
        tau = np.array(state.tau_J) - np.array(self._connected().model.gravity(state))
        q, qd = np.array(state.q), np.array(state.dq)
        if not np.isfinite(q + qd + tau).all():
            raise DriverError(f"the robot's reading is not finite: q {q.tolist()}, dq {qd.tolist()}")
        return RobotState(t=self._read_at, seq=round(1000.0 * state.time.to_sec()), q=q, qd=qd, tau=tau)

    def write(self, command: Command) -> None:
        """Answer the state last read with a set-point at, or on the way to, the command; the first begins a motion.

        Stiffness becomes the internal controller's before that; while moving libfranka changes none, so another one is
        refused.  Damping follows from stiffness inside the robot: it is checked and not sent.

        Raises:
            CommandRefused: Shape, not finite, out of range, too far from the set-point, stiffness.
            DriverError: In a fault, or the robot ended the motion.
        """
        q, stiffness, _ = checked(command, self.joints)
        self.config.check(q, stiffness, self.joints)
        if stiffness is not None and self._motion is not None and not np.array_equal(stiffness, self._stiffness):
            raise CommandRefused("an FR3's joint stiffness cannot change while it moves; stop first")
        if self._fault:
            raise DriverError(self._fault)
        if self._follower is None:
            self._begin(q, stiffness)
        assert self._follower is not None
        self._near(q, self._follower.q)
        self._follower.put(q, command.seq)
        if not self._answered:
            self._answer()

    def stop(self, reason: str) -> None:
        """Brake along the set-point, finish the motion at rest, hold; see the module."""
        if self._follower is None:
            return
        self._follower.stop()
        try:
            if self._braked(self._follower):
                last = self._lib.JointPositions(self._follower.q.tolist())
                last.motion_finished = True
                self._motion.writeOnce(last)
                self._drop_motion()
            elif self._motion is not None:
                self._connected().await_packet(self.config.timeout)  # a robot that is silent would not answer either
                self._connected().robot.stop()
                self._drop_motion()
        except DriverError:
            pass  # nothing passes: the robot stops by itself after 20 packets, as it does without a connection
        except self._errors:
            self._abandon()

    def _braked(self, follower: Follower) -> bool:
        """Answer packets until the set-point stands; False where the robot ended the motion, or that takes too long."""
        end = time.monotonic() + STOP_TIME
        while self._motion is not None and not follower.at_rest and time.monotonic() < end:
            try:
                self._next()
            except DriverError:
                self._connected()  # a packet that is late is no reason to give up
        return self._motion is not None and follower.at_rest

    def recover(self) -> None:
        """Connect again if the connection was lost, then ``automaticErrorRecovery``; holds where it stands.

        Raises:
            DriverError: If the robot does not answer or a fault remains, as while the user's stop is pressed.
        """
        try:
            self._next()
        except DriverError:
            self._abandon()
            self._open()
        end, why = time.monotonic() + RECOVERY_TIME, ""
        while self._reason and time.monotonic() < end:
            try:
                self._connected().robot.automatic_error_recovery()
            except self._errors as error:
                why = str(error)  # it may still be braking
            for _ in range(50):  # packets until the next attempt
                self._next()
                if not self._reason:
                    break
        if self._reason:
            raise DriverError(f"{self._reason} remains after an error recovery: {why}")
        try:
            if not self._ready:
                self._set_up()
            self._fault = ""
        except self._errors as error:
            raise DriverError(f"the robot refuses its settings: {error}") from error

    def close(self) -> None:
        """See the module."""
        self.stop("close")
        if self._motion is not None:
            self._abandon()
        self._link = self._state = None

    # Connection ------------------------------------------------------------------------------------------

    def _open(self) -> None:
        c = self.config
        ours = fr3_identity.ArmLimits("fr3", c.low, c.high, c.v_max)
        fr3_identity.check(ours, fr3_identity.parse(fr3_identity.ask_urdf(c.address, timeout=CONNECT_TIME)))
        try:
            self._link, self._ready = Link(self._lib, c), False
            self._next()
            if not self._fault:
                self._set_up()
        except self._errors as error:
            self._abandon()
            raise DriverError(f"FR3 at {c.address}: {error}") from error

    def _set_up(self) -> None:
        c, robot = self.config, self._connected().robot
        torque, force = list(c.collision_torque), list(c.collision_force)
        robot.set_collision_behavior(torque, torque, force, force)
        robot.set_joint_impedance(self._stiffness.tolist())
        robot.set_load(c.load_mass, list(c.load_center), list(c.load_inertia))
        self._ready = True

    def _connected(self) -> Link:
        if self._link is None:
            raise DriverError("not connected to the robot: recover first")
        return self._link

    def _abandon(self) -> None:
        """Let go of a robot that does not answer."""
        if self._link is not None:
            self._link.abandon(self._motion)
        self._link = None
        self._drop_motion()

    # Cycle -----------------------------------------------------------------------------------------------

    def _next(self) -> Any:
        """The robot's next state, after the last one was answered."""
        robot = self._connected().robot
        if not self._answered:
            self._answer()
        self._connected().await_packet(self.config.timeout)
        try:
            self._state = self._motion.readOnce()[0] if self._motion is not None else robot.read_once()
            self._answered = self._motion is None
        except self._lib.ControlException:
            self._drop_motion()  # the robot ended it; the next state says why
            self._connected().await_packet(self.config.timeout)
            self._state = robot.read_once()
        except self._lib.NetworkException as error:
            self._abandon()
            raise DriverError(f"connection to the robot lost: {error}") from error
        except self._errors as error:
            raise DriverError(f"damaged packet: {error}") from error
        self._reason, self.success_rate = fault(self._state), self._state.control_command_success_rate
        self._fault = self._reason or self._fault  # stays when its cause goes away: only recover clears it
        if self._follower is not None:
            self._compare(self._follower)
        return self._state

    def _compare(self, follower: Follower) -> None:
        """Where the robot's set-point is none of the last two sent, it lost packets and went on by itself."""
        q = np.array(self._state.q_d)
        if (np.abs(q - self._sent[1]) > EQUAL).any() and (np.abs(q - self._sent[0]) > EQUAL).any():
            self.resumed += 1
            follower.resume(q, np.array(self._state.dq_d), np.array(self._state.ddq_d))

    def _answer(self) -> None:
        """Send the set-point of this tick."""
        assert self._follower is not None
        q = self._follower.step()
        try:
            self._motion.writeOnce(self._lib.JointPositions(q.tolist()))
            self._answered, self._sent = True, (self._sent[1], q)
        except self._lib.ControlException:
            self._drop_motion()
        except self._errors as error:
            self._abandon()
            raise DriverError(f"connection to the robot lost: {error}") from error

    def _begin(self, q: Array, stiffness: Array | None) -> None:
        """Start a motion where the robot's own set-point stands."""
        self._next()
        if self._fault:
            raise DriverError(self._fault)
        start = np.array(self._state.q_d)
        self._near(q, start)
        c, robot = self.config, self._connected().robot
        try:
            if stiffness is not None and not np.array_equal(stiffness, self._stiffness):
                robot.set_joint_impedance(stiffness.tolist())
                self._stiffness = stiffness
            self._motion = robot.start_joint_position_control(self._lib.ControllerMode.JointImpedance)
        except self._errors as error:
            raise DriverError(f"the robot refuses to move: {error}") from error
        limits = {"v_max": np.array(c.v_max) - 1e-3, "a_max": np.full(7, c.a_max), "j_max": np.full(7, c.j_max)}
        self._follower, self._answered, self._sent = Follower(start, **limits), False, (start, start)
        self._follower.resume(start, np.zeros(7), np.zeros(7))

    def _drop_motion(self) -> None:
        """Forget a motion that is over; libfranka's destructor confirms it with the robot."""
        self._motion, self._follower, self._answered = None, None, True

    def _near(self, q: Array, setpoint: Array) -> None:
        check_near(q, setpoint, self.joints, most=self.config.jump, what="the set-point")
