"""Rows 8, 20 and 27 with real processes: the policy's dies, others command, the machine is busy.

Control and twin are Palmar's own processes with the small arm of ``toy_robot``.  In row 8 the policy's process is a
Python interpreter that the bridge's end announces as the policy: how it dies is real, what it computes is not.  Row 20
without SROS2, which Palmar does not have yet: the rule that decides who may publish is tested by itself.
"""

import signal
import subprocess
import sys
import time
from contextlib import ExitStack

import numpy as np
import pytest
import toy_robot as toy
from control_rig import Rig
from matrix import named

from palmar.real_robot.layout import STATES
from palmar.real_robot.nodes.trajectory import Publishers
from palmar.safety.types import State

DEATHS = {
    "exception": "raise RuntimeError('policy')",
    "exit-0": "sys.exit(0)",
    "exit-1": "sys.exit(1)",
    "sigkill": signal.SIGKILL,
    "sigterm": signal.SIGTERM,
    "sigsegv": "import ctypes; ctypes.string_at(0)",
    "sigabrt": "import os; os.abort()",
    "out-of-memory": "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**28, 2**28)); x = bytes(2**33)",
}


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    with ExitStack() as stack:
        yield Rig(tmp_path_factory.mktemp("rig"), stack)


def run_again(rig, goal):
    """RUN, also after a busy machine made the hardware's readings so late that an operator has to reset."""

    def running():
        state, _ = rig.filter_state()
        if state is State.LATCHED:
            rig.resets = getattr(rig, "resets", 0) + 1
            rig.ask(reset=rig.resets)
        rig.send(goal)
        time.sleep(0.03)
        return state is State.RUN

    toy.until(running, 30.0, "RUN")


def policy(code: str):
    """A process that lives until a line comes in, and then does what is told."""
    return subprocess.Popen([sys.executable, "-c", f"import sys; sys.stdin.readline(); {code}"], stdin=subprocess.PIPE)


@pytest.mark.parametrize("death", named(8, DEATHS, ("sigkill", "exception")))
def test_however_the_policy_dies_the_robot_holds_within_two_ticks(rig, death):
    victim = policy(death if isinstance(death, str) else "input()")
    assert victim.stdin is not None
    try:
        rig.blocks["policy"].record["pid"] = victim.pid
        rig.blocks["policy"].write()
        goal = toy.HOME + 0.2 * np.random.default_rng(8).uniform(-1, 1, 2)
        run_again(rig, goal)
        rig.map.rings["ticks"].drain(10**6)
        before = float(rig.state()["lost_at"])
        if isinstance(death, str):
            victim.stdin.write(b"\n")
            victim.stdin.flush()
        else:
            victim.send_signal(death)
        # A busy machine may have made it hold already, for a period missed: the death is seen all the same.
        toy.until(lambda: before < float(rig.state()["lost_at"]) < float(rig.state()["t"]) - 0.01, 30.0, "death seen")
    finally:
        victim.kill()
        victim.wait()
    ticks = rig.map.rings["ticks"].drain(10**6)
    seen = float(rig.state()["lost_at"])
    late = ticks[(ticks["t"] > seen + 2 * rig.run.period) & (ticks["state"] == STATES.index(State.RUN))]
    assert len(late) == 0 and victim.returncode is not None
    assert {r.decode() for r in ticks["reason"]} <= {"", "policy_died", "joint_position", "missed_period", "limits",
                                                     "chunk_stale", "reading_gap", "state_stale"}  # fmt: skip


ONE, TWO = ("/policy", (1,)), ("/thief", (2,))


def second(p):
    p.update([ONE])
    p.update([ONE, TWO])
    return not p.obeyed and p.intruders == ("/thief",)


def thief_stays(p):
    second(p)
    p.update([TWO])
    return p.expected == "" or not p.obeyed


def goes_again(p):
    second(p)
    p.update([ONE])
    return p.obeyed


def both_at_once(p):
    p.update([TWO, ONE])
    return not p.obeyed and len(p.intruders) == 2


def same_name(p):
    p.update([ONE])
    p.update([ONE, ("/policy", (3,))])
    return not p.obeyed


def unexpected(p):
    p = Publishers("/policy")
    p.update([TWO])
    return not p.obeyed


COMMANDERS = {
    "second-publisher": second,
    "second-publisher-gone": goes_again,
    "two-at-the-start": both_at_once,
    "same-name-twice": same_name,
    "name-that-may-not": unexpected,
    "first-gone-second-stays-with-an-expected-name": lambda p: thief_stays(Publishers("/policy")),
}


@pytest.mark.parametrize("rule", named(20, COMMANDERS, ("second-publisher", "two-at-the-start")))
def test_only_one_may_command(rule):
    assert rule(Publishers())


HOG = "import time; t = time.monotonic()\nwhile time.monotonic() < t + 6: sum(range(1000))"
FAULTING = (
    "import time, mmap; t = time.monotonic()\n"
    "while time.monotonic() < t + 6:\n m = mmap.mmap(-1, 2**26)\n for k in range(0, 2**26, 4096): m[k] = 1\n m.close()"
)


@pytest.mark.parametrize("code", named(27, {"processors-busy": HOG, "page-faults": FAULTING}, ("processors-busy",)))
def test_a_busy_machine_makes_the_robot_hold_not_jump(rig, code):
    """Two processes hog the machine: whatever periods are missed, what is sent stays within the limits."""
    hogs = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    try:
        run_again(rig, toy.HOME)
        rig.map.rings["ticks"].drain(10**6)
        rig.keep_running(3.0, toy.HOME + 0.2)
        ticks = rig.map.rings["ticks"].drain(10**6)
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
    m = toy.robot().limits
    assert len(ticks) > 100
    assert np.all(np.abs(ticks["ud"]) <= m.v_max + 1e-9) and np.all(np.abs(ticks["udd"]) <= m.a_max + 1e-9)
    step = np.abs(np.diff(ticks["u"], axis=0))
    assert step.max() <= m.v_max.max() * rig.run.period * 1.01
    late = np.flatnonzero(np.diff(ticks["t"]) > 2.5 * rig.run.period) + 1
    assert all(STATES[int(ticks["state"][k])] is not State.RUN for k in late)
    print(f"{len(late)} late ticks of {len(ticks)}, worst {np.diff(ticks['t']).max() * 1e3:.1f} ms")
    time.sleep(0.2)
