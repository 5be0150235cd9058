"""What is known of the LEAP hand's motors: names, addresses, limits, registers, and the checks before torque is on.

Facts: leap-hand/LEAP_Hand_API b0d00c8 (order, offset, gains, current caps, limits), emanual.robotis.com (registers
of XC330-M288 and XL330-M288, torque constants from stall torque and current at 5 V), MuJoCo Menagerie (limits).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from palmar.real_robot.drivers.dynamixel import BAUDS, Bus
from palmar.real_robot.drivers.error import DriverError
from palmar.safety.types import ConfigError

Array = np.ndarray

ADDRESS = {
    **{f"{f}_{joint}": 4 * k + i for k, f in enumerate(("if", "mf", "rf"))
       for i, joint in enumerate(("rot", "mcp", "pip", "dip"))},
    **{f"th_{joint}": 12 + i for i, joint in enumerate(("cmc", "axl", "mcp", "ipl"))},
}  # fmt: skip
"""Bus address of each joint.  The hand counts side, forward, PIP, DIP; Menagerie forward (mcp), side (rot), ..."""
LIMITS = {
    **{f"{f}_{joint}": limit for f in ("if", "mf", "rf") for joint, limit in (
        ("rot", (-1.047, 1.047)), ("mcp", (-0.314, 2.23)), ("pip", (-0.506, 1.885)), ("dip", (-0.366, 2.042)))},
    "th_cmc": (-0.349, 2.094), "th_axl": (-0.349, 2.094), "th_mcp": (-0.47, 1.9), "th_ipl": (-1.34, 1.88),
}  # fmt: skip
"""Range of each joint [rad]: the API's and Menagerie's, intersected by name."""
SIDE = ("if_rot", "mf_rot", "rf_rot", "th_cmc")
"""Joints with weaker gains (addresses 0, 4, 8 and 12 in the API)."""
OFFSET = math.pi
"""Motor angle of an open joint [rad]."""
COUNT = 2.0 * math.pi / 4096
"""[rad]."""
VELOCITY = 0.229 * 2.0 * math.pi / 60.0
"""Unit of the velocity registers [rad/s]."""
OFF_RANGE = 0.35
"""A joint that reads farther outside its range [rad] is not mounted as the API says, or is a turn off."""
FIRMWARE = 46
"""Oldest firmware of the 330 motors that knows the fast sync read."""
ERRORS = {0: "input_voltage", 2: "overheating", 3: "motor_encoder", 4: "electrical_shock", 5: "overload"}
"""Bits of Hardware Error Status."""


@dataclass(frozen=True)
class Kind:
    """A model of motor."""

    model: int
    constant: float
    """[N m/A]"""
    current: float
    """The LEAP API's current cap [A]."""


KINDS = {"XC330-M288": Kind(1240, 0.517, 0.55), "XL330-M288": Kind(1200, 0.354, 0.35)}


def names(errors: int) -> str:
    """Names of hardware error bits."""
    return "+".join(name for bit, name in ERRORS.items() if errors >> bit & 1) or f"hardware_error_{errors:#04x}"


def find_all(bus: Bus, idents: Sequence[int], *, kind: str) -> None:
    """Check that every motor answers, with the right model and firmware.

    Raises:
        DriverError: If one does not; it says what the bus says instead.
    """
    answers = {i: bus.ping(i) for i in idents}
    for _ in range(2):  # one lost packet is no lost motor
        if any(answers.values()):
            answers = {i: answer or bus.ping(i) for i, answer in answers.items()}
    missing = [i for i, answer in answers.items() if answer is None]
    if missing:
        raise DriverError(_missing(bus, missing, len(idents)))
    wanted = {k.model: name for name, k in KINDS.items()}
    for i, (model, firmware) in ((i, a) for i, a in answers.items() if a is not None):
        if model != KINDS[kind].model:
            raise DriverError(
                f"motor {i} is model {model} ({wanted.get(model, 'unknown')}), the configuration says {kind}"
            )
        if firmware < FIRMWARE:
            raise DriverError(f"motor {i} has firmware {firmware}; fast sync read needs {FIRMWARE} or newer")


def _missing(bus: Bus, missing: list[int], n: int) -> str:
    port = bus.port
    there = sorted(bus.find())
    if there:
        more = [i for i in there if not 0 <= i < n]
        return f"no answer from motors {missing}; on the bus are {there}" + (
            f", {more} of them unexpected" if more else ""
        )
    name, baud, timeout = port.port_name, port.baudrate, port.timeout
    bus.close()
    for other in BAUDS:
        if other != baud:
            probe = Bus(name, other, timeout=timeout)
            try:
                if any(probe.ping(i) for i in missing[:2]):
                    return f"no motor answers on {name} at {baud} baud, but they do at {other}: set `baudrate: {other}`"
            finally:
                probe.close()
    return f"no motor answers on {name} at {baud} baud or any other: check the hand's power and its cable"


def check_health(bus: Bus, idents: Sequence[int], *, voltage: tuple[float, float], temperature: float) -> None:
    """Check what decides whether the motors can hold.

    Raises:
        DriverError: If one has a hardware error, a wrong supply [V] or is hotter than ``temperature`` [deg C].
    """
    for i, row in zip(idents, bus.read(idents, 70, 1)[0], strict=True):
        if row[0]:
            raise DriverError(f"motor {i} reports {names(int(row[0]))}: find the cause, then power-cycle the hand")
    for i, row in zip(idents, bus.read(idents, 144, 3)[0], strict=True):
        volts, degrees = int.from_bytes(bytes(row[:2]), "little") / 10.0, int(row[2])
        if not voltage[0] <= volts <= voltage[1]:
            raise DriverError(f"motor {i} is supplied with {volts} V, accepted {voltage[0]} to {voltage[1]} V")
        if degrees > temperature:
            raise DriverError(f"motor {i} has {degrees} deg C, accepted up to {temperature}: let it cool down")


def check_pose(q: Array, joints: Sequence[str]) -> None:
    """Check that every joint reads inside its range, give or take ``OFF_RANGE``.

    Raises:
        DriverError: If one does not: a horn mounted wrongly, or a whole turn lost.
    """
    for joint, angle in zip(joints, q, strict=True):
        low, high = LIMITS[joint]
        if not low - OFF_RANGE <= angle <= high + OFF_RANGE:
            raise DriverError(
                f"{joint} (motor {ADDRESS[joint]}) reads {angle:.2f} rad, its range is {low} to {high}: "
                "power-cycle it, then check how its horn is mounted"
            )


def prepare(bus: Bus, idents: Sequence[int]) -> None:
    """Settings that survive a power cycle, written only where they differ and only while torque is off.

    Raises:
        ConfigError: If a motor has a homing offset: with one, a trip of the bus watchdog makes it run away
            (DynamixelSDK issue 584).
        DriverError: If a motor with its torque on would have to be let go for it.
    """
    on = bus.read(idents, 64, 1)[0][:, 0]
    offsets = bus.read(idents, 20, 4)[0]
    for i, row in zip(idents, offsets, strict=True):
        offset = int.from_bytes(bytes(row), "little", signed=True)
        if offset:
            raise ConfigError(f"motor {i} has homing offset {offset}, accepted 0: zeros are set in software")
    found = bus.read(idents, 9, 3)[0]  # return delay, drive mode, operating mode
    for i, torque, row in zip(idents, on, found, strict=True):
        for address, (is_now, wanted) in zip((9, 10, 11), zip(row, (0, 0, 5), strict=True), strict=True):
            if is_now != wanted and torque:
                raise DriverError(
                    f"motor {i} holds with torque on but has {is_now} in register {address} instead of {wanted}: "
                    "support what it holds and switch its torque off first"
                )
            if is_now != wanted:
                bus.write_one(i, address, wanted, 1)
