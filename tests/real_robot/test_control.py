import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import toy_robot as toy

from palmar.real_robot import shared
from palmar.real_robot.layout import LAYOUTS, STATES
from palmar.real_robot.twin import FAULT
from palmar.safety.types import State


class Rig:
    """Twin and control as processes, and the bridge's end of the memory in this one."""

    def __init__(self, folder, stack, **changes):
        self.run = toy.run_config(folder, **changes)
        self.twin = stack.enter_context(toy.process("twin", self.run))
        self.control = stack.enter_context(toy.process("control", self.run))
        self.attach()
        self.wire = shared.attach(Path(self.run.twin_memory), LAYOUTS, kind="twin")
        self.seq = 0

    def attach(self):
        path = Path(self.run.control_memory)
        self.map = shared.wait_attach(path, LAYOUTS, kind="control", robot=None, timeout=120)
        self.blocks = self.map.blocks
        toy.until(lambda: self.blocks["state"].read() is not None, 60, "control ready")

    def send(self, q, due=None, **changes):
        now = time.monotonic()
        self.seq += 1
        c = self.blocks["chunk"].record
        values = {"seq": self.seq, "received": now, "sent": now, "count": 1, **changes}
        for name, value in values.items():
            c[name] = value
        c["t"][0], c["q"][0] = now + 0.1 if due is None else due, q
        self.blocks["chunk"].write()

    def ask(self, **values):
        r = self.blocks["request"].record
        r["pid"] = os.getpid()
        for name, value in values.items():
            r[name] = value
        self.blocks["request"].write()

    def state(self):
        return self.blocks["state"].read()

    def filter_state(self):
        s = self.state()
        return STATES[int(s["state"])], s["reason"].decode()

    def keep_running(self, seconds, q):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.send(q)
            time.sleep(0.05)

    def run_until_moving(self, q):
        def moving():
            self.send(q)
            time.sleep(0.03)
            return self.filter_state()[0] is State.RUN

        toy.until(moving, what="RUN")


@pytest.fixture
def rig(tmp_path):
    with ExitStack() as stack:
        yield Rig(tmp_path, stack)


def sleeper():
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])


def test_chunks_move_the_robot_and_without_them_it_holds(rig):
    assert rig.filter_state()[0] is State.HOLD
    goal = toy.HOME + 0.1
    rig.keep_running(1.0, goal)
    assert rig.filter_state()[0] is State.RUN
    assert np.allclose(rig.state()["q"], goal, atol=0.02)
    toy.until(lambda: rig.filter_state() == (State.HOLD, "chunk_stale"), 2.0, "hold")
    rig.ask(stop=1)
    toy.until(lambda: rig.filter_state() == (State.LATCHED, "operator_stop"), 2.0, "latched")
    rig.keep_running(0.3, toy.HOME)
    assert rig.filter_state()[0] is State.LATCHED
    rig.ask(reset=1)
    rig.run_until_moving(toy.HOME)


def test_an_emergency_stop_needs_release_and_then_reset(rig):
    rig.keep_running(0.3, toy.HOME + 0.1)
    rig.ask(estop=1)
    toy.until(lambda: rig.filter_state() == (State.LATCHED, "operator_estop"), 2.0, "latched")
    u = rig.state()["u"].copy()
    for request in ({"reset": 1}, {"release": 1}):
        rig.ask(**request)
        rig.keep_running(0.2, toy.HOME)
        assert rig.filter_state() == (State.LATCHED, "operator_estop")
    assert np.array_equal(rig.state()["u"], u)
    rig.ask(reset=2)
    rig.run_until_moving(toy.HOME)


def test_what_was_edited_and_what_is_foreseen_are_published(rig):
    s = rig.state()
    assert s["foreseen"] == b"" and np.isnan(s["foreseen_t"]) and np.isnan(s["edited_from"]) and s["edited_seq"] == -1
    rig.keep_running(0.3, toy.HOME)
    goal = toy.HOME + (0.0, 1.2)  # the elbow's range ends at 2.0

    def edited():
        rig.send(goal, due=time.monotonic() + 0.05)
        time.sleep(0.05)
        s = rig.state()
        return s if s["edited_seq"] == rig.seq else None

    s = toy.until(edited, 4.0, "an edit")
    assert s["t"] - 0.2 < s["edited_from"] <= s["t"]
    toy.until(lambda: edited()["foreseen"] == b"joint_position", 2.0, "the end of the range foreseen")


def test_stiffness_that_nobody_meters_is_refused_by_name(rig):
    b = rig.blocks["chunk"].record
    b["impedance"], b["stiffness"][0], b["damping"][0] = 1, 90.0, 7.0
    rig.send(toy.HOME)
    toy.until(lambda: int(rig.state()["refused"]) == 1, 3.0, "refusal")
    assert b"stiffness needs an energy tank" in rig.state()["refusal"]
    assert rig.state()["impedance"] == 0
    b["impedance"] = 0
    rig.run_until_moving(toy.HOME)


def test_what_cannot_be_followed_leaves_the_robot_unmoved(rig):
    before = rig.state()["u"].copy()
    now = time.monotonic()
    for q, changes in (
        ([np.nan, 0.0], {}),
        ([0.0, np.inf], {}),
        (toy.HOME + 5.0, {}),
        (toy.HOME, {"due": now - 1.0}),
        (toy.HOME, {"due": now + 3600.0}),
        (toy.HOME, {"received": now - 5.0}),
        (toy.HOME, {"seq": -3}),
        (toy.HOME, {"count": 0}),
    ):
        refused = int(rig.state()["refused"])
        rig.send(q, **changes)
        toy.until(lambda refused=refused: int(rig.state()["refused"]) == refused + 1, 2.0, f"refusal of {changes}")
    assert np.array_equal(rig.state()["u"], before) and rig.filter_state()[0] is State.HOLD


@pytest.mark.parametrize("who", ["policy", "bridge"])
def test_a_killed_policy_or_bridge_means_hold_within_two_ticks(rig, who):
    victim = sleeper()
    try:
        if who == "policy":
            rig.blocks["policy"].record["pid"] = victim.pid
            rig.blocks["policy"].write()
        else:
            rig.ask(pid=victim.pid)
        rig.keep_running(0.5, toy.HOME + 0.3)
        rig.run_until_moving(toy.HOME + 0.3)
        rig.map.rings["ticks"].drain(10**6)
        rig.send(toy.HOME + 0.3)
        time.sleep(0.02)
        killed = time.monotonic()
        victim.send_signal(signal.SIGKILL)
        toy.until(lambda: rig.filter_state() == (State.HOLD, f"{who}_died"), 2.0, "hold")
    finally:
        victim.kill()
        victim.wait()
    ticks = rig.map.rings["ticks"].drain(10**6)
    after = ticks[ticks["t"] > killed]
    run = [STATES[int(s)] is State.RUN for s in after["state"]]
    # the kernel needs a moment to end the process; ticks are counted from the one that could see it
    assert sum(run) <= 2 + int(0.02 / rig.run.period) and not any(run[sum(run) :])
    seen = float(rig.state()["lost_at"])
    late = ticks[(ticks["t"] > seen) & (ticks["state"] == STATES.index(State.RUN))]
    assert len(late) == 0


def test_a_killed_control_process_is_noticed_by_the_hardware_which_waits_for_an_operator(rig, tmp_path):
    rig.keep_running(0.5, toy.HOME + 0.3)
    rig.control.send_signal(signal.SIGKILL)
    rig.control.wait()
    died = time.monotonic()
    wire = rig.wire.blocks["state"]
    toy.until(lambda: wire.read()["fault"].decode() == FAULT, 2.0, "watchdog")
    assert time.monotonic() - died < 0.2
    assert os.path.exists(rig.run.control_memory)
    with toy.process("control", rig.run) as refused:  # what a dead owner left is not taken over silently
        assert refused.wait(60) != 0
    os.unlink(rig.run.control_memory)
    with toy.process("control", rig.run):
        rig.attach()
        toy.until(lambda: rig.filter_state() == (State.LATCHED, FAULT), 5.0, "latched")
        rig.ask(stop=0, estop=0, reset=1)
        rig.run_until_moving(wire.read()["q"])
        assert wire.read()["fault"] == b""


def test_sigterm_stops_in_control_and_leaves_nothing_behind(rig):
    rig.keep_running(0.4, toy.HOME + 0.5)
    rig.control.terminate()
    assert rig.control.wait(5) == 0
    assert not os.path.exists(rig.run.control_memory)
    last = rig.map.rings["ticks"].drain(10**6)[-1]
    assert STATES[int(last["state"])] is State.LATCHED and np.all(last["ud"] == 0)
    time.sleep(0.1)
    assert rig.wire.blocks["state"].read()["fault"] == b""  # it said goodbye to the hardware
    summary = json.loads((Path(rig.run.run_dir) / "control.json").read_text())
    assert summary["camera_to_command_p50_ms"] is None, "nobody said when anything was seen"
    assert summary["chunks"] > 3 and 0 < summary["chunk_to_robot_p50_ms"] < 50


def test_the_hardware_dying_stops_the_filter(rig):
    rig.keep_running(0.3, toy.HOME + 0.2)
    rig.twin.kill()
    toy.until(lambda: rig.filter_state() == (State.LATCHED, "state_stale"), 2.0, "stop")


def test_the_bridge_can_hold_but_chunks_do_not_talk_it_out_of_it(rig):
    rig.ask(hold=1, reason="second_publisher")
    rig.keep_running(0.3, toy.HOME + 0.2)
    assert rig.filter_state()[0] is State.HOLD and int(rig.state()["chunks"]) == 0
    rig.ask(hold=0, reason="")
    rig.run_until_moving(toy.HOME + 0.2)
    rig.ask(hold=1, reason="second_publisher")
    toy.until(lambda: rig.filter_state() == (State.HOLD, "second_publisher"), 1.0, "hold")


def test_the_control_process_imports_neither_ros_nor_torch():
    code = "import sys, palmar.real_robot.control; print(*{m.split('.')[0] for m in sys.modules})"
    names = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "numpy" in names and not {"torch", "rclpy", "rcl_interfaces"} & set(names)
