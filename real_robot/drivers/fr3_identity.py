"""Which arm answers, before libfranka is let near it: version, name and joint limits from the robot's own URDF.

pylibfranka does not hand the URDF out, so a short session of our own asks for it: two commands of Franka's control
interface (``Connect``, ``GetRobotModel``), neither of which moves anything, then the connection closes.
Source: frankarobotics/libfranka-common, ``research_interface/robot/service_types.h``, version 10.
"""

from __future__ import annotations

import socket
import struct
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass

from palmar.real_robot.drivers.error import DriverError
from palmar.safety.types import ConfigError

PORT = 1337
VERSION = 10
"""Of the interface, spoken by libfranka 0.18 and later and system image 5.9 and later."""
_HEADER = struct.Struct("<3I")
_CONNECT, _MODEL = 0, 11
LARGEST = 4_000_000
"""A longer answer is no URDF of an arm [bytes]."""


@dataclass(frozen=True)
class ArmLimits:
    """As a robot's URDF says them; (7,) each, joint 1 first [rad], [rad/s]."""

    name: str
    low: tuple[float, ...]
    high: tuple[float, ...]
    v_max: tuple[float, ...]


def ask_urdf(address: str, *, timeout: float) -> str:
    """The robot's URDF, asked for in a session of its own.

    Raises:
        DriverError: If nobody answers in ``timeout`` seconds, the robot refuses, or speaks another version.
    """
    try:
        with (
            _connection(address, timeout) as tcp,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        ):
            tcp.settimeout(timeout)
            udp.bind(("", 0))  # the robot wants to know where to send its state; nobody reads it here
            status, body = _ask(tcp, _CONNECT, 0, struct.pack("<HH", VERSION, udp.getsockname()[1]))
            if status != 0:
                theirs = struct.unpack("<H", body)[0] if len(body) == 2 else "unknown"
                raise DriverError(
                    f"{address} speaks version {theirs} of the control interface, pylibfranka 0.21 speaks {VERSION}: "
                    "FR3 with system image 5.9 or later (docs/franka.md has the table)"
                )
            status, body = _ask(tcp, _MODEL, 1)
    except OSError as error:
        raise DriverError(f"no answer from a robot at {address}:{PORT}: {error}") from error
    if status != 0:
        raise DriverError(f"{address} refuses to hand out its URDF (status {status})")
    return body.decode(errors="replace")


def _connection(address: str, timeout: float) -> socket.socket:
    """A robot takes one client at a time, and a moment to see that the last one has gone."""
    end = time.monotonic() + timeout
    while True:
        try:
            return socket.create_connection((address, PORT), timeout)
        except ConnectionRefusedError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def _ask(tcp: socket.socket, command: int, number: int, body: bytes = b"") -> tuple[int, bytes]:
    """Status and payload of the response."""
    tcp.sendall(_HEADER.pack(command, number, _HEADER.size + len(body)) + body)
    theirs, their_number, size = _HEADER.unpack(_exactly(tcp, _HEADER.size))
    if (theirs, their_number) != (command, number) or not _HEADER.size < size < LARGEST:
        raise DriverError(f"not Franka's protocol: answer {theirs, their_number, size} to {command, number}")
    answer = _exactly(tcp, size - _HEADER.size)
    return answer[0], answer[1:]


def _exactly(tcp: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = tcp.recv(count - len(data))
        if not part:
            raise OSError("it closed the connection")
        data += part
    return data


def parse(urdf: str) -> ArmLimits:
    """Limits of the seven joints whose names end in ``joint1`` to ``joint7``.

    Raises:
        DriverError: If it is no URDF of an arm with those limits.
    """
    try:
        if "<!ENTITY" in urdf:
            raise DriverError("the robot's URDF declares entities; none is expected")
        root = ET.fromstring(urdf)
        limits = [_limit(root, f"joint{i}") for i in range(1, 8)]
    except (ET.ParseError, KeyError, ValueError) as error:
        if isinstance(error, DriverError):
            raise
        raise DriverError(f"the robot's URDF has no limits of joint1 ... joint7: {error}") from error
    low, high, v_max = zip(*limits, strict=True)
    return ArmLimits(root.get("name", ""), low, high, v_max)


def _limit(root: ET.Element, name: str) -> tuple[float, float, float]:
    found = [j for j in root.iter("joint") if j.get("name", "").endswith(name) and j.find("limit") is not None]
    if len(found) != 1:
        raise KeyError(f"{len(found)} joints named {name}")
    limit = found[0].find("limit")
    assert limit is not None
    return float(limit.attrib["lower"]), float(limit.attrib["upper"]), float(limit.attrib["velocity"])


def check(ours: ArmLimits, robot: ArmLimits) -> None:
    """Refuse an arm of another make, or limits of ours that are wider than the robot's own.

    Raises:
        ConfigError: It names the first difference.
    """
    if not robot.name.lower().startswith(ours.name):
        raise ConfigError(f"configured for {ours.name!r}, the robot's URDF says {robot.name!r}")
    slack = 1e-6
    for i in range(7):
        if ours.low[i] < robot.low[i] - slack or ours.high[i] > robot.high[i] + slack:
            raise ConfigError(
                f"joint {i + 1}: configured range [{ours.low[i]}, {ours.high[i]}] rad is wider than the robot's own "
                f"[{robot.low[i]}, {robot.high[i]}]: limits of another arm?"
            )
        if ours.v_max[i] > robot.v_max[i] + slack:
            raise ConfigError(
                f"joint {i + 1}: configured speed {ours.v_max[i]} rad/s is above the robot's own {robot.v_max[i]}"
            )
