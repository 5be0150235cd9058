"""What the control process does in each period, tick by tick on a clock of its own: no process, no waiting."""

import subprocess
import sys

import numpy as np
import pytest
import toy_robot as toy
from control_rig import Bench

from palmar.real_robot.layout import STATES
from palmar.safety.types import State


@pytest.fixture
def bench(tmp_path):
    made = Bench(tmp_path)
    yield made
    made.map.close()


def test_chunks_move_the_robot_and_without_them_it_holds(bench):
    assert bench.filter_state() == (State.HOLD, "no_chunk")
    goal = toy.HOME + 0.1
    assert bench.follow(goal, 0.5)[0] is State.RUN
    assert np.allclose(bench.state()["q"], goal, atol=1e-3)
    assert bench.tick(0.149)[0] is State.RUN  # the last chunk came 50 ms ago
    assert bench.tick(0.004) == (State.HOLD, "chunk_stale")
    assert bench.follow(toy.HOME)[0] is State.RUN


def test_a_stop_latches_until_the_operator_resets_it(bench):
    bench.follow(toy.HOME + 0.3, 0.3)
    bench.press("stop")
    assert bench.tick() == (State.STOP, "operator_stop")
    assert bench.tick(0.5) == (State.LATCHED, "operator_stop")
    assert bench.follow(toy.HOME, 0.3)[0] is State.LATCHED
    bench.press("reset")
    assert bench.follow(toy.HOME)[0] is State.RUN


def test_an_emergency_stop_needs_release_and_then_reset(bench):
    bench.follow(toy.HOME + 0.1, 0.3)
    bench.press("estop")
    assert bench.tick(0.5) == (State.LATCHED, "operator_estop")
    u = bench.state()["u"].copy()
    for request in ("reset", "release"):
        bench.press(request)
        assert bench.follow(toy.HOME, 0.2) == (State.LATCHED, "operator_estop")
    assert np.array_equal(bench.state()["u"], u)
    bench.press("reset")
    assert bench.follow(toy.HOME)[0] is State.RUN


def test_of_two_requests_at_once_the_most_urgent_comes_first(bench):
    bench.follow(toy.HOME + 0.3, 0.3)
    bench.ask(reset=1, stop=1, estop=1)
    assert bench.tick() == (State.STOP, "operator_estop")


def test_what_was_edited_and_what_is_foreseen_are_published(bench):
    s = bench.state()
    assert s["foreseen"] == b"" and np.isnan(s["foreseen_t"]) and np.isnan(s["edited_from"]) and s["edited_seq"] == -1
    bench.follow(toy.HOME, 0.3)
    goal = toy.HOME + (0.0, 1.2)  # the elbow's range ends at 2.0
    foreseen = False
    for _ in range(20):
        bench.send(goal, due=bench.now + 0.05)
        bench.tick(0.05)
        foreseen |= bench.state()["foreseen"] == b"joint_position"
    s = bench.state()
    assert s["edited_seq"] == bench.seq and s["t"] - 0.06 < s["edited_from"] <= s["t"] and foreseen


def test_stiffness_that_nobody_meters_is_refused_by_name(bench):
    b = bench.blocks["chunk"].record
    b["impedance"], b["stiffness"][0], b["damping"][0] = 1, 90.0, 7.0
    bench.send(toy.HOME)
    bench.tick()
    assert int(bench.state()["refused"]) == 1 and bench.state()["impedance"] == 0
    assert b"stiffness needs an energy tank" in bench.state()["refusal"]
    b["impedance"] = 0
    assert bench.follow(toy.HOME)[0] is State.RUN


@pytest.mark.parametrize(
    ("q", "changes"),
    [
        ([np.nan, 0.0], {}),
        ([0.0, np.inf], {}),
        (toy.HOME + 5.0, {}),
        (toy.HOME, {"due": -1.0}),
        (toy.HOME, {"due": 3600.0}),
        (toy.HOME, {"received": -5.0}),
        (toy.HOME, {"seq": -3}),
        (toy.HOME, {"count": 0}),
    ],
)
def test_what_cannot_be_followed_leaves_the_robot_unmoved(bench, q, changes):
    before = bench.state()["u"].copy()
    times = {name: bench.now + value for name, value in changes.items() if name in ("due", "received")}
    bench.send(q, **(changes | times))
    assert bench.tick(0.3)[0] is State.HOLD
    assert int(bench.state()["refused"]) == 1 and np.array_equal(bench.state()["u"], before)


@pytest.mark.parametrize("who", ["policy", "bridge"])
def test_a_dead_policy_or_bridge_is_a_hold_in_the_next_tick_and_its_last_chunk_is_not_followed(bench, who):
    victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        if who == "policy":
            bench.policy_is(victim.pid)
        else:
            bench.ask(pid=victim.pid)
            bench.blocks["request"].record["pid"] = victim.pid
            bench.blocks["request"].write()
        assert bench.follow(toy.HOME + 0.3, 0.3)[0] is State.RUN
        bench.send(toy.HOME + 0.3)  # on its way when it dies
    finally:
        victim.kill()
        victim.wait()
    assert bench.tick() == (State.HOLD, f"{who}_died")
    assert bench.tick(0.1) == (State.HOLD, f"{who}_died") and bench.state()["lost_at"] > bench.state()["t"] - 0.2
    assert bench.follow(toy.HOME)[0] is State.RUN  # somebody else's is


def test_a_policy_that_is_dead_when_it_is_announced_is_a_hold_too(bench):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    bench.follow(toy.HOME)
    bench.policy_is(gone.pid)
    assert bench.tick() == (State.HOLD, "policy_died")


def test_the_bridge_can_hold_but_chunks_do_not_talk_it_out_of_it(bench):
    bench.ask(hold=1, reason="second_publisher")
    assert bench.follow(toy.HOME + 0.2, 0.3)[0] is State.HOLD and int(bench.state()["chunks"]) == 0
    bench.ask(hold=0, reason="")
    assert bench.follow(toy.HOME + 0.2)[0] is State.RUN
    bench.ask(hold=1, reason="second_publisher")
    assert bench.tick() == (State.HOLD, "second_publisher")


def test_readings_that_stay_away_stop_it_and_come_back_only_by_a_reset(bench):
    bench.follow(toy.HOME + 0.1, 0.3)
    bench.driver.gone = True
    assert bench.tick(0.5) == (State.LATCHED, "state_stale")
    assert int(bench.state()["driver_errors"]) == 500
    bench.driver.gone = False
    assert bench.tick(0.1)[0] is State.LATCHED
    bench.press("reset")
    assert bench.tick(0.1)[0] is State.HOLD
    assert bench.follow(toy.HOME)[0] is State.RUN


def test_a_fault_of_the_hardware_is_the_reason_of_the_stop_and_is_recovered_by_the_reset_alone(bench):
    bench.follow(toy.HOME + 0.1, 0.3)
    bench.driver.fault = "user_stopped"
    assert bench.tick(0.5) == (State.LATCHED, "user_stopped") and bench.driver.said == []
    bench.driver.recover = lambda: bench.driver.said.append("in vain")
    bench.press("reset")
    bench.map.rings["ticks"].drain(10**6)
    assert bench.tick(0.1) == (State.LATCHED, "user_stopped") and bench.driver.said == ["in vain"]
    assert set(bench.map.rings["ticks"].drain(10**6)["state"]) == {STATES.index(State.LATCHED)}, "it never let go"
    bench.driver.recover = lambda: setattr(bench.driver, "fault", "")
    bench.press("reset")
    assert bench.tick(0.1)[0] is State.HOLD


def test_missed_periods_are_counted_and_hold(bench):
    bench.follow(toy.HOME + 0.1, 0.3)
    bench.now += 0.008
    bench.control.tick(bench.now, 8, 0.008)
    s = bench.state()
    assert int(s["missed"]) == 8 and s["late_max"] == 0.008 and bench.filter_state()[0] is State.HOLD
    assert bench.tally.summary()["misses"] == [(bench.now, 8)]


def test_the_first_move_of_a_policy_far_away_is_a_glide(bench):
    bench.follow(toy.HOME + [0.9, 0.0], 0.5)
    ticks = bench.map.rings["ticks"].drain(10**6)
    assert 0.2 < np.abs(ticks["ud"]).max() < 0.35


def test_what_happened_is_told_in_numbers(bench):
    assert bench.tally.summary()["chunk_to_robot_p50_ms"] is None
    for k in range(10):
        bench.send(toy.HOME, seq=2 * k + 1, seen=bench.now - 0.05 if k else np.nan, lost=3)
        bench.tick(0.05)
    told = bench.tally.summary()
    assert (told["ticks"], told["chunks"], told["refused"], told["lost"]) == (501, 10, 0, 9 + 3)
    assert told["worst_margin"]["joint_position"] == pytest.approx(1.0, abs=1e-3)
    assert told["intervention_s"] < 0.01 and told["dropped_records"] == 0


def test_the_newest_record_of_the_ring_is_what_everybody_sees(bench):
    bench.follow(toy.HOME + 0.1, 0.3)
    newest, seen = bench.map.rings["ticks"].drain(10**6)[-1], bench.state()
    assert newest["index"] == 301 and all(np.array_equal(newest[name], seen[name]) for name in newest.dtype.names)


def test_a_control_process_told_to_stop_before_the_hardware_is_there_just_ends(bench):
    bench.driver.gone = True
    assert not bench.control.start(lambda: True)
