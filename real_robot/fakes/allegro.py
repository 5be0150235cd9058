"""The fake of driver ``allegro``: a hand behind a serial-line CAN adapter."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from palmar.real_robot.drivers.allegro_config import JOINTS, LIMITS
from palmar.real_robot.fakes.allegro_can import AllegroHand, Slcan
from palmar.real_robot.fakes.plant import Plant, ServoPlant
from palmar.real_robot.fakes.twin_plant import TwinBody


def fake(stack: ExitStack, joints: Sequence[str], body: TwinBody) -> tuple[AllegroHand, dict[str, Any]]:
    """A fake hand; its reports have the hand's own order.  See ``fakes.serve``."""
    hand, settings = _behind_an_adapter(stack, body.part(JOINTS), None)
    return hand, {**settings, "stale": 0.1}


def alone(stack: ExitStack, link: Path | None) -> tuple[AllegroHand, dict[str, Any]]:
    """A fake hand whose joints move by themselves, half closed; its port is kept at ``link`` too."""
    start = np.array([0.5 * sum(LIMITS[j]) for j in JOINTS])
    return _behind_an_adapter(stack, ServoPlant(start, inertia=0.002, friction=0.3), link)


def _behind_an_adapter(stack: ExitStack, plant: Plant, link: Path | None) -> tuple[AllegroHand, dict[str, Any]]:
    line = Slcan(link)
    options = {"bitrate": 1_000_000, "sleep_after_open": 0.0}
    hand = stack.enter_context(AllegroHand(plant, line))
    return hand, {"interface": line.interface, "channel": line.channel, "options": options}
