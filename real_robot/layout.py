"""What the shared files hold: records of the control process and of the twin."""

from __future__ import annotations

import numpy as np

from palmar.real_robot.shared import Description, Layout
from palmar.safety.types import CONTACT_PAIRS, State

FRESH = 0.1
"""A control process whose newest state is older is not there [s]."""
MAX_CHUNK = 64
"""Targets a chunk may have."""
MAX_PEOPLE = 8
"""Capsules of tracked people."""
OPERATOR = ("estop", "stop", "release", "reset")
"""What an operator may ask for, most urgent first."""
NAME = "S48"
STATES = tuple(State)
"""``state`` of a record is an index into this."""
TICK_RING = 32768
PHYSICS_RING = 32768
"""Records, about 8 s at 1 kHz."""


def control_layout(d: Description) -> Layout:
    """The control process's file: chunk, request and people come in from the bridge, state and ticks go out.

    ``seen`` of a chunk is the monotonic time of the oldest picture that it was made from, NaN where it says none.
    ``operator`` counts what ``palmar monitor`` asks for, so that a stop needs neither bridge nor ROS.  ``objects``
    is what the bridge hears about tracked objects on real hardware; otherwise the twin's tracker says where they are.

    ``impedance`` is 1 where a record carries stiffness and damping, 0 where the robot is position controlled.
    """
    n, k = len(d.joints), len(d.constraints)
    chunk = [
        ("seq", "i8"),
        ("received", "f8"),
        ("sent", "f8"),
        ("seen", "f8"),
        ("lost", "i8"),
        ("count", "i8"),
        ("t", "f8", (MAX_CHUNK,)),
        ("q", "f8", (MAX_CHUNK, n)),
        ("impedance", "i8"),
        ("stiffness", "f8", (MAX_CHUNK, n)),
        ("damping", "f8", (MAX_CHUNK, n)),
    ]
    operator = [(what, "i8") for what in OPERATOR]
    request = [*operator, ("beat", "i8"), ("pid", "i8"), ("hold", "i8"), ("reason", NAME)]
    people = [
        ("count", "i8"),
        ("received", "f8"),
        ("ends", "f8", (MAX_PEOPLE, 2, 3)),
        ("radius", "f8", (MAX_PEOPLE,)),
        ("velocity", "f8", (MAX_PEOPLE, 3)),
    ]
    verdict = [
        ("index", "i8"), ("t", "f8"), ("state", "i8"), ("reason", NAME), ("changed", "i8"), ("edit", "f8"),
        ("active", "u8"), ("margins", "f8", (k,)), ("compute_s", "f8"), ("chunk", "i8"), ("chunk_age", "f8"),
        ("read_seq", "i8"), ("read_t", "f8"),
        ("q", "f8", (n,)), ("qd", "f8", (n,)), ("tau", "f8", (n,)), ("intended", "f8", (n,)),
        ("u", "f8", (n,)), ("ud", "f8", (n,)), ("udd", "f8", (n,)), ("uddd", "f8", (n,)),
        ("impedance", "i8"), ("stiffness", "f8", (n,)), ("damping", "f8", (n,)),
    ]  # fmt: skip
    counters = [
        ("beat", "i8"), ("realtime", "i8"), ("missed", "i8"), ("late_max", "f8"),
        ("chunks", "i8"), ("refused", "i8"), ("refusal", NAME), ("driver_errors", "i8"), ("dropped", "i8"),
        ("lost_at", "f8"), ("intervention_s", "f8"), ("worst", "f8", (k,)),
        ("foreseen_t", "f8"), ("foreseen", NAME), ("edited_from", "f8"), ("edited_seq", "i8"),
    ]  # fmt: skip
    return Layout(
        blocks={
            "chunk": np.dtype(chunk),
            "request": np.dtype(request),
            "operator": np.dtype(operator),
            "people": np.dtype(people),
            "objects": np.dtype(_tracked(len(d.objects))),
            "policy": np.dtype([("pid", "i8")]),
            "state": np.dtype(verdict + counters),
        },
        rings={"ticks": (np.dtype(verdict), TICK_RING)},
    )


def wire_layout(d: Description) -> Layout:
    """A device's file, owned by its process: the newest command in, the newest state out."""
    command, state = _wire(len(d.joints))
    return Layout(blocks={"command": np.dtype(command), "state": np.dtype(state)}, rings={})


def _wire(n: int) -> tuple[list[tuple], list[tuple]]:
    """Command and state of ``n`` joints, the same for the twin and for a device.

    ``active`` is 0 where the control process asks the hardware to rest by itself, ``reason`` says why.  ``recover``
    counts an operator's resets.  ``recovered`` is how many of them the hardware has heeded, ``missed`` its cycles
    since the last new command.
    """
    command = [
        ("seq", "i8"), ("stamp", "f8"), ("q", "f8", (n,)), ("active", "i8"), ("reason", NAME), ("recover", "i8"),
        ("impedance", "i8"), ("stiffness", "f8", (n,)), ("damping", "f8", (n,)),
    ]  # fmt: skip
    state = [
        ("seq", "i8"), ("t", "f8"), ("q", "f8", (n,)), ("qd", "f8", (n,)), ("tau", "f8", (n,)),
        ("fault", NAME), ("missed", "i8"), ("recovered", "i8"), ("command_seq", "i8"), ("slipped", "i8"),
    ]  # fmt: skip
    return command, state


def _tracked(m: int) -> list[tuple]:
    """Poses of ``m`` objects: how often each was seen, when last [s, monotonic], where, w-x-y-z."""
    return [("seq", "i8", (m,)), ("t", "f8", (m,)), ("position", "f8", (m, 3)), ("quaternion", "f8", (m, 4))]


def twin_layout(d: Description) -> Layout:
    """The simulated robot's file: its wire (command in, state out), tracker, truth and physics."""
    n, m = len(d.joints), len(d.objects)
    nq, nv, nstate = d.sizes
    command, state = _wire(n)
    objects = _tracked(m)
    truth = [
        ("step", "i8"),
        ("t", "f8"),
        ("position", "f8", (m, 3)),
        ("start", "f8", (m, 3)),
        ("speed", "f8"),
    ]
    physics = [
        ("step", "i8"), ("t", "f8"), ("command_seq", "i8"), ("ctrl", "f8", (n,)),
        ("impedance", "i8"), ("stiffness", "f8", (n,)), ("damping", "f8", (n,)),
        ("has_state", "i8"), ("qpos", "f8", (nq,)), ("qvel", "f8", (nv,)),
        ("has_contact", "i8"), ("contact", "f8", (len(CONTACT_PAIRS),)),
        ("tracked", "i8", (m,)), ("position", "f8", (m, 3)), ("quaternion", "f8", (m, 4)),
    ]  # fmt: skip
    return Layout(
        blocks={
            "command": np.dtype(command),
            "state": np.dtype(state),
            "objects": np.dtype(objects),
            "truth": np.dtype(truth),
            "start": np.dtype([("state", "f8", (nstate,))]),
        },
        rings={"physics": (np.dtype(physics), PHYSICS_RING)},
    )


LAYOUTS = {"control": control_layout, "twin": twin_layout, "device": wire_layout}
