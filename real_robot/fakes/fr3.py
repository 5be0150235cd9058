"""The fake of driver ``fr3``: a Franka control interface on a loopback address."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from palmar.real_robot.fakes.fci import Fci
from palmar.real_robot.fakes.twin_plant import TwinBody

PATIENCE = 0.05
"""How long it waits for an answer before its packet counts as lost [s]; 0.001 on a robot."""


def fake(stack: ExitStack, joints: Sequence[str], body: TwinBody) -> tuple[Fci, dict[str, Any]]:
    """A fake arm on an address of its own: libfranka's port is always the same.  See ``fakes.serve``."""
    address = f"127.{1 + os.getpid() // 250 % 250}.{1 + os.getpid() % 250}.1"
    return stack.enter_context(Fci(body.part(joints), address, patience=PATIENCE)), {"address": address, "timeout": 0.1}
