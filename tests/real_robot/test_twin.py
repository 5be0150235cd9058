import logging
import os
import time
from pathlib import Path

import mujoco
import numpy as np
import pytest
import toy_robot as toy

from palmar.real_robot import shared
from palmar.real_robot.config import TwinConfig
from palmar.real_robot.drivers.error import DriverError
from palmar.real_robot.drivers.twin import twin_robot
from palmar.real_robot.layout import LAYOUTS
from palmar.real_robot.recorder import Recorder
from palmar.real_robot.twin import DT, FAULT, Twin, open_memory
from palmar.rollouts.read import read
from palmar.rollouts.replay import replay_mujoco
from palmar.safety.types import Command, ConfigError


@pytest.fixture
def world(tmp_path):
    run = toy.run_config(tmp_path)
    model = mujoco.MjModel.from_xml_string(run.scene)
    memory = open_memory(Path(run.twin_memory), run, model)
    twin = Twin(run, model, memory, rng=np.random.default_rng(0))
    driver = twin_robot(toy.robot(), Path(run.twin_memory))
    yield run, model, memory, twin, driver
    memory.close()


def send(driver, k, q):
    driver.write(Command(q=q, seq=k, stamp=time.monotonic()))


def test_the_ring_repeats_the_physics_bit_by_bit(world):
    _, model, memory, twin, driver = world
    for k in range(400):
        if k % 7:
            send(driver, k, toy.HOME + 0.2 * np.sin(k / 50))
        twin.step(time.monotonic())
    records = memory.rings["physics"].drain()
    assert list(records["step"]) == list(range(400)) and memory.rings["physics"].dropped == 0
    data, spec = mujoco.MjData(model), mujoco.mjtState.mjSTATE_INTEGRATION
    mujoco.mj_setState(model, data, memory.blocks["start"].read()["state"], spec)
    compared = 0
    for r in records:
        data.ctrl[:] = r["ctrl"]
        mujoco.mj_step(model, data)
        if r["has_state"]:
            assert np.array_equal(data.qpos, r["qpos"]) and np.array_equal(data.qvel, r["qvel"])
            compared += 1
    assert compared == 40
    assert np.abs(data.qpos[:2] - toy.HOME).max() > 0.02


def test_stiffness_and_damping_act_and_are_recorded_so_that_the_physics_repeats_bit_by_bit(world):
    _, model, memory, twin, driver = world
    soft, rng = np.zeros(400, bool), np.random.default_rng(1)
    for k in range(400):
        soft[k] = 50 <= k < 330
        gains = twin.servo * rng.uniform(0.1, 1.0, (2, 1)) if soft[k] else (None, None)
        q = toy.HOME + 0.3 * np.sin(k / 50)
        driver.write(Command(q, k, time.monotonic(), stiffness=gains[0], damping=gains[1]))
        twin.step(time.monotonic())
    records = memory.rings["physics"].drain()
    assert np.array_equal(records["impedance"] != 0, soft)
    assert np.array_equal(records["stiffness"][~soft], np.tile(twin.servo[0], (120, 1)))
    fresh = mujoco.MjModel.from_xml_string(toy.SCENE)  # the twin has changed its own
    ends = []
    for gains in (True, False):
        data, spec = mujoco.MjData(fresh), mujoco.mjtState.mjSTATE_INTEGRATION
        mujoco.mj_setState(fresh, data, memory.blocks["start"].read()["state"], spec)
        for r in records:
            if gains:
                fresh.actuator_gainprm[:2, 0], fresh.actuator_biasprm[:2, 1] = r["stiffness"], -r["stiffness"]
                fresh.actuator_biasprm[:2, 2] = -r["damping"]
            data.ctrl[:] = r["ctrl"]
            mujoco.mj_step(fresh, data)
            if gains and r["has_state"]:
                assert np.array_equal(data.qpos, r["qpos"]) and np.array_equal(data.qvel, r["qvel"])
        ends.append(data.qpos[:2].copy())
    assert np.abs(ends[0] - ends[1]).max() > 1e-3


def test_a_recorded_run_with_changing_stiffness_replays_bit_by_bit(world, tmp_path):
    run, _, memory, twin, driver = world
    recorder, rng, changes, gains = None, np.random.default_rng(2), [], (None, None)
    for k in range(300):
        if 40 <= k < 200 and k % 20 == 0:
            gains = twin.servo * rng.uniform(0.2, 1.0, (2, 1))
            changes.append(k)
        gains = (None, None) if k == 200 else gains
        driver.write(Command(toy.HOME + 0.2, k, 0.0, stiffness=gains[0], damping=gains[1]))
        twin.step(time.monotonic())
        if k % 100 == 50:
            recorder = recorder or Recorder(run, memory, tmp_path / "soft.mcap", logging.getLogger("test"))
            recorder.drain()
    assert recorder is not None
    recorder.finish()
    found = read(tmp_path / "soft.mcap")
    assert found.servos.step.tolist() == [*changes, 200]
    assert np.array_equal(found.servos.stiffness[-1], twin.servo[0])
    result = replay_mujoco(found)
    assert result.bit_equal and result.compared >= 29


@pytest.mark.parametrize("gains", [([np.nan, 1.0], [1.0, 1.0]), ([-1.0, 1.0], [1.0, 1.0]), ([1.0, 1.0], [99.0, 1.0])])
def test_a_command_whose_gains_the_servos_do_not_have_is_not_followed(world, gains):
    _, _, _, twin, driver = world
    for k, (stiffness, damping) in enumerate((gains, ([100.0, 150.0], [5.0, 15.0]))):
        record = driver._command.record  # past the driver's own check
        record["impedance"], record["stiffness"], record["damping"] = 1, stiffness, damping
        driver._send(toy.HOME + 0.1, 0.0, active=1)
        twin.step(time.monotonic())
        assert np.array_equal(twin.ctrl, toy.HOME + 0.1 * k)
        assert np.array_equal(twin.gains, [stiffness, damping] if k else twin.servo)


def test_a_stop_keeps_the_stiffness_and_a_plain_command_ends_it(world):
    _, _, _, twin, driver = world
    soft = np.array([100.0, 150.0]), np.array([5.0, 15.0])
    driver.write(Command(toy.HOME, 1, 0.0, stiffness=soft[0], damping=soft[1]))
    twin.step(time.monotonic())
    driver.stop("test")
    twin.step(time.monotonic())
    assert np.array_equal(twin.gains, soft)
    send(driver, 2, toy.HOME)
    twin.step(time.monotonic())
    assert np.array_equal(twin.gains, twin.servo)


def test_the_watchdog_holds_after_twenty_missed_commands_until_recovered(world):
    run, _, memory, twin, driver = world
    with pytest.raises(DriverError, match="no state"):
        driver.read()
    for _ in range(30):
        twin.step(time.monotonic())
    driver.read()
    assert driver.fault == ""  # it waits for its first command without complaint
    send(driver, 1, toy.HOME + 0.5)
    for _ in range(run.twin.watchdog):
        twin.step(time.monotonic())
        assert twin.fault == ""
    twin.step(time.monotonic())
    assert twin.fault == FAULT
    held = twin.ctrl.copy()
    driver.read()
    with pytest.raises(DriverError, match=FAULT):
        send(driver, 2, toy.HOME)
    driver._send(toy.HOME, time.monotonic(), active=1)  # a controller that ignores the fault
    for _ in range(500):
        twin.step(time.monotonic())
    assert np.array_equal(twin.ctrl, held) and np.abs(twin.data.qvel[:2]).max() < 0.02
    driver.recover()
    twin.step(time.monotonic())
    driver.read()
    assert driver.fault == ""
    send(driver, 3, toy.HOME)
    twin.step(time.monotonic())
    assert np.array_equal(twin.ctrl, toy.HOME)


def test_non_finite_commands_do_not_reach_the_servos_and_far_ones_are_cut_to_their_range(world):
    _, _, _, twin, driver = world
    for k, q in enumerate(([np.nan, 0.0], [np.inf, 0.0], [9.0, -9.0])):
        driver._send(np.array(q), 0.0, active=1)
        twin.step(time.monotonic())
        assert np.array_equal(twin.ctrl, toy.HOME if k < 2 else [2.0, -2.0])


def test_a_delivered_state_is_one_tick_old_noisy_and_goes_stale(world):
    run, _, memory, twin, driver = world
    driver._send(toy.HOME + 0.3, 0.0, active=1)
    stamps, truth, errors = [], [], []
    for k in range(300):
        stamps.append(time.monotonic())
        truth.append(twin.data.qpos[:2].copy())
        twin.step(stamps[-1])
        s, of = driver.read(), max(0, k - run.twin.latency)
        assert s.seq == k + 1 and s.t == stamps[of]
        errors.append(s.q - truth[of])
    assert np.ptp(truth, axis=0).max() > 100 * run.twin.q_noise
    assert 0.5 * run.twin.q_noise < np.std(errors) < 2 * run.twin.q_noise
    time.sleep(0.03)
    with pytest.raises(DriverError, match="ms old"):
        driver.read()


def test_the_tracker_reports_at_its_rate_and_not_the_truth(world):
    run, _, memory, twin, _ = world
    seen, errors = set(), []
    for _ in range(2000):
        twin.step(time.monotonic())
        block = memory.blocks["objects"].read()
        if block is not None and int(block["seq"][0]) not in seen:
            seen.add(int(block["seq"][0]))
            errors.append(block["position"][0] - memory.blocks["truth"].read()["position"][0])
    assert 20 <= len(seen) <= 32
    assert 0.0005 < np.std(errors) < 0.004


def test_a_world_that_does_not_fit_is_refused(tmp_path):
    for changes, message in (({"qpos": (0.0,)}, "start state"), ({"objects": ("green",)}, "lacks")):
        run = toy.run_config(tmp_path, **changes)
        model = mujoco.MjModel.from_xml_string(run.scene)
        memory = open_memory(Path(run.twin_memory), run, model)
        with pytest.raises(ConfigError, match=message):
            Twin(run, model, memory, rng=np.random.default_rng(0))
        memory.close()
    with pytest.raises(ConfigError, match="watchdog"):
        TwinConfig(watchdog=0)


def test_the_process_keeps_time_and_leaves_nothing_behind(tmp_path):
    run = toy.run_config(tmp_path)
    with toy.process("twin", run) as child:
        robot = twin_robot(toy.robot(), Path(run.twin_memory), timeout=10)
        first = toy.until(lambda: robot._state.read(), what="first state")
        time.sleep(1.0)
        last = robot._state.read()
        steps = int(last["seq"] - first["seq"]) + int(last["slipped"] - first["slipped"])
        assert abs(steps * DT - float(last["t"] - first["t"])) < 0.05
        child.terminate()
        assert child.wait(5) == 0
    assert not os.path.exists(run.twin_memory)
    with pytest.raises(shared.SharedMemoryError):
        shared.attach(Path(run.twin_memory), LAYOUTS, kind="twin")
