"""The fake of driver ``leap``: a Dynamixel bus on a pseudo-terminal."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from palmar.real_robot.drivers.leap_motors import ADDRESS, LIMITS
from palmar.real_robot.fakes.dynamixel import DynamixelBus
from palmar.real_robot.fakes.plant import ServoPlant
from palmar.real_robot.fakes.twin_plant import TwinBody


def fake(stack: ExitStack, joints: Sequence[str], body: TwinBody) -> tuple[DynamixelBus, dict[str, Any]]:
    """A fake hand as stiff as the twin's.  See ``fakes.serve``."""
    stiffness = float(body.servo[0, body.wire.joints.index(joints[0])])
    bus = DynamixelBus(body.part(joints), ids=[ADDRESS[j] for j in joints], stiffness=stiffness)
    return stack.enter_context(bus), {"port": bus.port, "timeout": 0.1, "lost_after": 10}


def alone(stack: ExitStack, link: Path | None) -> tuple[DynamixelBus, dict[str, Any]]:
    """A fake hand whose joints move by themselves, a little closed; its port is kept at ``link`` too."""
    start = np.array([max(0.2, LIMITS[j][0]) for j in ADDRESS])
    plant = ServoPlant(start, inertia=0.002, friction=0.02, stiffness=0.0, damping=0.0, tau_max=0.28)
    bus = stack.enter_context(DynamixelBus(plant, ids=list(ADDRESS.values()), link=link))
    return bus, {"port": bus.port}
