"""What goes into a record of shared memory comes out of it the same."""

import numpy as np
import pytest

from palmar.real_robot import records
from palmar.real_robot.layout import control_layout
from palmar.real_robot.shared import Description
from palmar.safety.types import State, Verdict

NAMES = tuple(f"c{k}" for k in range(64))
"""As many as the bits of ``active``."""
LAYOUT = control_layout(Description(kind="control", robot="", joints=("a", "b"), constraints=NAMES))


@pytest.mark.parametrize("active", [(), ("c0",), ("c63",), ("c1", "c31", "c32")])
def test_a_verdict_comes_back(active):
    r = np.zeros((), LAYOUT.rings["ticks"][0])
    margins = {name: 0.1 * k for k, name in enumerate(NAMES)}
    told = Verdict(State.STOP, "state_stale", True, 0.25, active, margins, 3e-4)
    records.put_verdict(r, told, NAMES)
    assert records.verdict(r[()], NAMES) == told


def test_a_margin_that_nobody_knows_is_nan():
    r = np.zeros((), LAYOUT.rings["ticks"][0])
    records.put_verdict(r, Verdict(State.RUN, "", False, 0.0, (), {"c1": 0.5}, 0.0), NAMES)
    assert r["margins"][1] == 0.5 and np.isnan(np.delete(r["margins"], 1)).all()


@pytest.mark.parametrize("impedance", [0, 1])
def test_of_a_chunk_only_the_targets_that_it_has_are_taken(impedance):
    r = np.zeros((), LAYOUT.blocks["chunk"])
    r["seq"], r["received"], r["count"], r["impedance"] = 7, 12.5, 2, impedance
    r["t"][:3], r["q"][:3], r["stiffness"][:3], r["damping"][:3] = [1, 2, 3], [[1, 2]] * 3, 50.0, 5.0
    chunk = records.chunk(r[()])
    assert (chunk.seq, chunk.received, chunk.t.tolist(), chunk.q.tolist()) == (7, 12.5, [1, 2], [[1, 2]] * 2)
    assert (chunk.stiffness is None) is (chunk.damping is None) is not impedance
    assert not impedance or (chunk.stiffness.tolist() == [[50.0] * 2] * 2 and chunk.damping.shape == (2, 2))
