"""The control process as a process: with a twin, killed, without its hardware, told to stop."""

import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import toy_robot as toy
from control_rig import Rig

from palmar.real_robot.layout import STATES
from palmar.real_robot.twin import FAULT
from palmar.safety.types import State


@pytest.fixture
def rig(tmp_path):
    with ExitStack() as stack:
        yield Rig(tmp_path, stack)


def test_it_moves_the_twin_and_sigterm_stops_it_in_control_and_leaves_nothing_behind(rig):
    rig.run_until_at(toy.HOME + 0.1)
    rig.run_until_moving(toy.HOME + 0.5)
    rig.control.terminate()
    assert rig.control.wait(20) == 0
    assert not os.path.exists(rig.run.control_memory)
    last = rig.map.rings["ticks"].drain(10**6)[-1]
    assert STATES[int(last["state"])] is State.LATCHED and np.all(last["ud"] == 0)
    before = int(rig.wire.blocks["state"].read()["seq"])
    toy.until(
        lambda: rig.wire.blocks["state"].read()["seq"] > before + 2 * rig.run.twin.watchdog, 20, "steps of the twin"
    )
    assert rig.wire.blocks["state"].read()["fault"] == b""  # it said goodbye to the hardware
    summary = json.loads((Path(rig.run.run_dir) / "control.json").read_text())
    assert summary["camera_to_command_p50_ms"] is None, "nobody said when anything was seen"
    assert summary["chunks"] > 3 and 0 < summary["chunk_to_robot_p50_ms"] <= summary["chunk_to_robot_p99_ms"]


def test_a_killed_control_process_is_noticed_by_the_hardware_which_waits_for_an_operator(rig):
    rig.run_until_moving(toy.HOME + 0.3)
    rig.control.send_signal(signal.SIGKILL)
    rig.control.wait()
    wire = rig.wire.blocks["state"]
    toy.until(lambda: wire.read()["fault"].decode() == FAULT, 10.0, "watchdog")
    assert os.path.exists(rig.run.control_memory)
    with toy.process("control", rig.run) as refused:  # what a dead owner left is not taken over silently
        assert refused.wait(60) == 2
    assert "its owner runs, or died without removing it" in (Path(rig.run.run_dir) / "control.log").read_text()
    os.unlink(rig.run.control_memory)
    with toy.process("control", rig.run):
        rig.attach()
        toy.until(lambda: rig.filter_state() == (State.LATCHED, FAULT), 20.0, "latched")
        rig.ask(stop=0, estop=0, reset=1)
        rig.run_until_moving(wire.read()["q"])
        assert wire.read()["fault"] == b""


def test_the_hardware_dying_stops_the_filter(rig):
    rig.run_until_moving(toy.HOME + 0.2)
    rig.twin.kill()
    toy.until(lambda: rig.filter_state() == (State.LATCHED, "state_stale"), 10.0, "stop")


def test_without_hardware_it_says_so_in_one_line(tmp_path, monkeypatch):
    run = toy.run_config(tmp_path, twin_memory=str(tmp_path / "nothing"))
    code = "import sys; from palmar.real_robot import control; control.START_TIMEOUT = 0.1; sys.exit(control.main())"
    run.write(tmp_path / "run.json")
    command = [sys.executable, "-c", code, "--config", str(tmp_path / "run.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "did not appear within 0.1 s" in done.stderr and "Traceback" not in done.stderr


def test_ctrl_c_while_it_waits_for_the_hardware_ends_it_without_a_traceback(tmp_path):
    run = toy.run_config(tmp_path)
    with toy.process("twin", run) as twin:
        toy.until(lambda: os.path.exists(run.twin_memory), 30, "twin")
        twin.send_signal(signal.SIGSTOP)  # there, but it gives no state
        with toy.process("control", run) as control:
            toy.until(lambda: os.path.exists(run.control_memory), 60, "memory")
            control.send_signal(signal.SIGINT)
            assert control.wait(20) == 0
        twin.send_signal(signal.SIGCONT)
    assert "Traceback" not in (tmp_path / "control.log").read_text()
    assert not os.path.exists(run.control_memory)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_the_control_process_has_its_core_and_no_thread_of_the_others_runs_there(tmp_path):
    core = max(os.sched_getaffinity(0))
    with ExitStack() as stack:
        rig = Rig(tmp_path, stack, run=toy.run_config(tmp_path, control_cores=(core,)))
        assert cores(rig.control.pid) == {frozenset({core})}
        assert all(core not in allowed for allowed in cores(rig.twin.pid))


def cores(pid):
    """What the kernel lets each thread of a process use."""
    return {frozenset(os.sched_getaffinity(int(task.name))) for task in Path(f"/proc/{pid}/task").iterdir()}


def test_the_control_process_imports_neither_ros_nor_torch():
    code = "import sys, palmar.real_robot.control; print(*{m.split('.')[0] for m in sys.modules})"
    names = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "numpy" in names and not {"torch", "rclpy", "rcl_interfaces"} & set(names)
