"""A Franka arm's control interface as a fake: TCP 1337 and a state over UDP every millisecond, byte for byte.

The real libfranka (``pip install pylibfranka``) connects to it and cannot tell it from a robot by what it does here:
modes, commands rejected in the wrong mode, motions refused by name, 20 lost packets, reflexes, the user's stop.
What it does not have: dynamics of its own (a ``Plant`` moves), torque or Cartesian interfaces, a model of contact.

Its clock is its own, as a robot's is.  ``patience`` is how long it waits for the answer to a state before the packet
counts as lost: 1 ms on a robot.  A longer one stretches its milliseconds while it waits, so that a busy machine
does not look like a bad network; ``slipped`` counts what that cost.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np

from palmar.real_robot.fakes import fci_wire as wire
from palmar.real_robot.fakes.fci_commands import Desk
from palmar.real_robot.fakes.fci_motion import DT, FR3, START_TOLERANCE, Limits, SetPoint
from palmar.real_robot.fakes.fci_network import Network, SuccessRate
from palmar.real_robot.fakes.plant import Plant
from palmar.real_robot.fakes.served import Served

Array = np.ndarray
MOST_LOST = 20
"""Packets lost in a row that stop the robot."""


class Fci(Served):
    """The robot.

    libfranka holds Python's interpreter lock while it waits, so its client must be another process.
    """

    orders = ("cut", "restore", "drop", "hide", "corrupt", "freeze", "raise_fault", "reset", "report")

    def __init__(
        self,
        plant: Plant,
        address: str,
        *,
        limits: Limits = FR3,
        patience: float = DT,
        version: int = wire.VERSION,
        seed: int = 0,
    ):
        self.plant, self.address, self.limits, self.patience = plant, address, limits, patience
        self.setpoint = SetPoint(plant.measure()[0], limits)
        self.desk = Desk(limits.urdf(), version)
        self.mode, self.errors, self.last_errors = wire.IDLE, "", ""
        self.tick = self.lost = self.lost_in_row = self.slipped = 0
        self.braking_ticks = 0
        """Milliseconds that the last stop of its own took, by its clock."""
        self.braking_since: float | None = None
        self.stood_at: float | None = None
        self.network = Network(address, np.random.default_rng(seed))
        self._state = np.zeros((), wire.STATE)
        self._fields = {name: self._state[name] for name in wire.STATE.names or ()}
        for name in ("O_T_EE", "O_T_EE_d", "F_T_EE", "EE_T_K", "F_T_NE", "NE_T_EE", "O_T_EE_c"):
            self._fields[name][...] = np.eye(4).ravel()
        self._shown: tuple[int, bool, str, str] | None = None
        self._success = SuccessRate()
        self._moving = self._first = self._stopping = False
        self._after = wire.IDLE
        self._frozen = self._pressed = False
        self._fault_due, self._seen = "", self.plant.measure()
        self._lock = threading.RLock()

    # What hurts it ---------------------------------------------------------------------------------------

    def cut(self) -> None:
        """The cable is out: nothing passes in either direction."""
        self.network.is_cut = True

    def restore(self) -> None:
        """It is in again."""
        self.network.is_cut = False

    def drop(self, packets: int = 0, *, share: float = 0.0) -> None:
        """Lose the next ``packets`` answers, and from now on ``share`` of all."""
        self.network.drop, self.network.share = packets, share

    def hide(self, states: int) -> None:
        """Do not send the next states."""
        self.network.hide = states

    def corrupt(self, states: int) -> None:
        """Send the next states truncated."""
        self.network.corrupt = states

    def freeze(self, frozen: bool = True) -> None:
        """States go on with new numbers and old readings."""
        self._frozen = frozen

    def raise_fault(self, name: str) -> None:
        """Stop by itself for one of ``ERRORS``, or ``user_stopped``."""
        if name != "user_stopped" and name not in wire.ERRORS:
            raise ValueError(f"no error of the robot: {name!r}; it knows {('user_stopped', *wire.ERRORS)}")
        self._fault_due = name

    def reset(self) -> None:
        """The operator takes the cause away: the user's stop is pulled out again."""
        with self._lock:
            self._pressed = False
            if self.mode == wire.USER_STOPPED:
                self.mode = wire.IDLE

    def report(self) -> dict[str, Any]:
        """What it knows of itself; ``braking_s`` is how long its last own stop took, null while it lasts."""
        q, qd, _ = self.plant.measure()
        began, stood = self.braking_since, self.stood_at
        return {
            "q": q.tolist(), "qd": qd.tolist(), "q_d": self.setpoint.q.tolist(), "dq_d": self.setpoint.v.tolist(),
            "mode": self.mode, "errors": self.errors, "settings": self.desk.settings,
            "tick": self.tick, "slipped": self.slipped,
            "received": self.network.received, "lost": self.lost, "late": self.network.late,
            "braking_ticks": self.braking_ticks, "braking_s": stood - began if began and stood else None,
        }  # fmt: skip

    # Running ---------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        due = time.monotonic()
        while self.running:
            self._cycle()
            due += DT
            now = time.monotonic()
            if now > due + DT:
                self.slipped += int((now - due) / DT)
                due = now
            self._idle_until(due)

    def _unplug(self) -> None:
        self.network.close()

    # A millisecond ---------------------------------------------------------------------------------------

    def _cycle(self) -> None:
        with self._lock:
            self.tick += 1
            self._heed_fault()
            self._send_state()
        command = self._await_answer() if self._moving else None
        with self._lock:
            if self._moving:
                self._follow(command)
            elif self._stopping:
                self._slow_down()
            self.plant.target(self.setpoint.q)

    def _slow_down(self) -> None:
        self.braking_ticks += 1
        if self.setpoint.brake():
            self._stopping, self.mode = False, wire.USER_STOPPED if self._pressed else self._after
            self.stood_at = time.monotonic()
            self.desk.stopped(self.network.tcp)

    def _follow(self, command: Any) -> None:
        """Take the answer to this millisecond's state, or go on without it."""
        lost = command is None
        if self._first and lost:
            return  # the motion begins with its first packet
        self._success.note(not lost)
        if lost:
            self.lost, self.lost_in_row = self.lost + 1, self.lost_in_row + 1
            self.setpoint.extrapolate()
            if self.lost_in_row >= MOST_LOST:
                self._abort("communication_constraints_violation")
            return
        self.lost_in_row = 0
        q = command["q_c"]
        if self._first and np.any(np.abs(q - self.setpoint.q) > START_TOLERANCE):
            return self._abort("joint_position_motion_generator_start_pose_invalid")
        self._first = False
        if refusal := self.setpoint.refusal(q):
            return self._abort(refusal)
        self.setpoint.take(q)
        if command["motion_generation_finished"]:
            self._finish()

    def _finish(self) -> None:
        if not self.setpoint.still:
            return self._abort("joint_motion_generator_velocity_discontinuity")
        self.setpoint.stand()
        self._moving, self.mode = False, wire.IDLE
        self.desk.moved(self.network.tcp, wire.SUCCESS)

    def _heed_fault(self) -> None:
        if name := self._fault_due:
            self._fault_due = ""
            self._pressed = self._pressed or name == "user_stopped"
            self._abort(name)

    def _abort(self, name: str) -> None:
        """A stop of the robot's own: it brakes, then stands until recovered."""
        emergency = name == "user_stopped"
        self.errors = self.last_errors = "" if emergency else name
        self.mode = wire.USER_STOPPED if emergency else wire.REFLEX
        if self._moving:
            self.desk.moved(self.network.tcp, wire.MOVE_EMERGENCY if emergency else wire.MOVE_REFLEX)
        self._brake(self.mode)

    def _brake(self, after: int) -> None:
        self._moving, self._stopping, self._after = False, True, after
        self.braking_since, self.stood_at, self.braking_ticks = time.monotonic(), None, 0
        self.lost_in_row = 0

    # Commands --------------------------------------------------------------------------------------------

    def begin_motion(self) -> bool:
        """A Move command came; whether it may begin."""
        if self.mode != wire.IDLE or self._stopping:
            return False
        self.setpoint.stand()
        self.mode, self.last_errors = wire.MOVING, ""
        self._moving = self._first = True
        self.lost_in_row = 0
        self._success = SuccessRate()
        return True

    def stop_motion(self) -> bool:
        """A StopMove command came; whether there was something to stop."""
        if self._moving:
            self._brake(wire.IDLE)
            return True
        return False

    def recover(self) -> int:
        """AutomaticErrorRecovery came; its status."""
        if self._pressed:
            return wire.RECOVER_EMERGENCY
        if self._stopping or self._moving:
            return wire.RECOVER_NOT_POSSIBLE
        self.errors, self.mode = "", wire.IDLE
        return wire.SUCCESS

    # The network -----------------------------------------------------------------------------------------

    def _send_state(self) -> None:
        if self.desk.peer is None:
            return
        if not self._frozen:
            self._seen = self.plant.measure()
        f, (q, qd, tau) = self._fields, self._seen
        f["message_id"][...], f["tau_J"][...] = self.tick, tau
        f["q"][...] = f["theta"][...] = q
        f["dq"][...] = f["dtheta"][...] = qd
        f["q_d"][...], f["dq_d"][...], f["ddq_d"][...] = self.setpoint.q, self.setpoint.v, self.setpoint.a
        if (shown := (self.mode, self._moving, self.errors, self.last_errors)) != self._shown:
            self._show(shown)
        f["control_command_success_rate"][...] = self._success.share if self._moving else 0.0
        self.network.send(self._state.tobytes(), self.desk.peer)

    def _show(self, shown: tuple[int, bool, str, str]) -> None:
        """Modes and errors, which seldom change."""
        f, (mode, moving, errors, last) = self._fields, shown
        f["robot_mode"][...], self._shown = mode, shown
        f["motion_generator_mode"][...] = wire.GENERATOR_JOINT_POSITION if moving else wire.GENERATOR_IDLE
        f["controller_mode"][...] = self.desk.controller if moving else wire.CONTROLLER_OTHER
        f["errors"][...], f["reflex_reason"][...] = _flags(errors), _flags(last)

    def _await_answer(self) -> Any:
        """The command that answers this millisecond's state; None where it did not come in time."""
        patient = self.network.tcp is not None and not self.network.is_cut
        end = time.monotonic() + (self.patience if patient else DT)
        while self._moving and (left := end - time.monotonic()) > 0.0:
            arrived, asked = self.network.wait(left, answers=True)
            if asked:
                self._attend()
            if arrived and (answer := self.network.answer(self.tick)) is not None:
                return None if answer is False else answer
        return None

    def _idle_until(self, due: float) -> None:
        while (left := due - time.monotonic()) > 0.0:
            if self.network.wait(left, answers=False)[1]:
                self._attend()

    def _attend(self) -> None:
        with self._lock:
            assert self.network.tcp is not None
            if not self.desk.serve(self.network.tcp, self):
                self.network.hang_up()


def _flags(name: str) -> Array:
    flags = np.zeros(len(wire.ERRORS), np.uint8)
    if name:
        flags[wire.ERRORS.index(name)] = 1
    return flags
