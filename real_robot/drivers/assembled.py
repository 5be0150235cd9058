"""One robot from several devices: an arm and its hand, each on a wire of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from palmar.real_robot.drivers.error import DriverError, checked
from palmar.safety.types import Command, ConfigError, PalmarError
from palmar.sim.interface import Robot, RobotState


class Assembled:
    """A ``Robot`` whose joints are those of its parts, one part after the other.

    A state is as old as its oldest part and exists only if every part has one.  It counts as a new one when the
    first part, the fastest, has a new one; a slower part repeats its last reading in between, but never for longer
    than its own wire allows.
    """

    def __init__(self, parts: Sequence[Robot], joints: Sequence[str]):
        """Join ``parts``, the fastest first, to the robot with ``joints``.

        Raises:
            ConfigError: If the parts' joints are not the robot's, in its order.
        """
        self.parts, self.joints = tuple(parts), tuple(joints)
        there = tuple(j for part in self.parts for j in part.joints)
        if there != self.joints:
            raise ConfigError(f"the devices move {list(there)}, the robot needs {list(self.joints)} in this order")
        ends = np.cumsum([len(part.joints) for part in self.parts]).tolist()
        self._slices = [slice(end - len(part.joints), end) for part, end in zip(self.parts, ends, strict=True)]

    @property
    def fault(self) -> str:
        """Names of the parts' faults, '' for none."""
        return ",".join(part.fault for part in self.parts if part.fault)

    def read(self) -> RobotState:
        """The parts' newest states as one.

        Raises:
            DriverError: If a part has none that is fresh.
        """
        states = [part.read() for part in self.parts]
        q, qd, tau = (np.concatenate([getattr(s, name) for s in states]) for name in ("q", "qd", "tau"))
        return RobotState(min(s.t for s in states), states[0].seq, q, qd, tau)

    def write(self, command: Command) -> None:
        """Send each part its joints.  A part in a fault rests already; the others get theirs all the same, for an
        arm comes to rest along the filter's stop better than by its own.

        Raises:
            CommandRefused: See ``Robot.write``; nothing was sent to any part then.
            DriverError: If a part is in a fault or does not follow.
        """
        q, stiffness, damping = checked(command, self.joints)
        shares = []
        for cut in self._slices:
            gains = (None, None) if stiffness is None or damping is None else (stiffness[cut], damping[cut])
            shares.append(Command(q[cut], command.seq, command.stamp, *gains))
        well = [k for k, part in enumerate(self.parts) if not part.fault]
        self._each(well, lambda k: self.parts[k].write(shares[k]))
        if self.fault:
            raise DriverError(self.fault)

    def stop(self, reason: str) -> None:
        """Every part rests by its own means, also if another one cannot."""
        self._each(range(len(self.parts)), lambda k: self.parts[k].stop(reason))

    def recover(self) -> None:
        """Recover the parts in a fault; the others stay as they are."""
        self._each([k for k, part in enumerate(self.parts) if part.fault], lambda k: self.parts[k].recover())

    def close(self) -> None:
        """Let go of every part."""
        self._each(range(len(self.parts)), lambda k: self.parts[k].close())

    def _each(self, indices: Iterable[int], act: Callable[[int], None]) -> None:
        """Do it to all of them, then raise the first error there was."""
        errors = []
        for k in indices:
            try:
                act(k)
            except PalmarError as error:
                errors.append(error)
        if errors:
            raise errors[0]
