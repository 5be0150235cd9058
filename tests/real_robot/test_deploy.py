"""A whole deployment of the real model: every process, ROS 2 between them, and nothing left afterwards."""

import argparse
import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import toy_robot as toy

from palmar.benchmarks.deploy import unshared
from palmar.cli import deploy as cli_deploy
from palmar.real_robot import ros_env, shared
from palmar.real_robot.deploy import DeployConfig, deploy, resolve
from palmar.real_robot.layout import LAYOUTS, STATES
from palmar.real_robot.processes import DeployError, Processes, activate, bring_up, start_hardware
from palmar.real_robot.twin_scene import Success
from palmar.safety.types import ConfigError, PalmarError, State

fakes = pytest.mark.skipif(
    not (find_spec("pylibfranka") and find_spec("dynamixel_sdk")), reason="needs pylibfranka and dynamixel-sdk"
)
ros = pytest.mark.skipif(bool(ros_env.missing()), reason=ros_env.missing() or "rclpy is here")


def leftovers(folder):
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    processes = [line for line in listed.splitlines() if str(folder) in line]
    return processes, [p.name for p in shared.directory().glob("palmar-*") if p.name in mine(folder)]


def mine(folder):
    path = Path(folder) / "run.json"
    run = json.loads(path.read_text()) if path.exists() else {}
    paths = [run.get("control_memory", ""), run.get("twin_memory", ""), *(d["memory"] for d in run.get("devices", ()))]
    return {Path(p).name for p in paths if p}


@pytest.mark.ros
@ros
def test_a_deployment_runs_records_replays_and_leaves_nothing_behind(tmp_path):
    from palmar.rollouts.provenance import git_state
    from palmar.rollouts.read import read
    from palmar.rollouts.replay import replay_mujoco

    said = []
    config = DeployConfig(out=str(tmp_path), timeout=3.0, cameras=True)
    result = deploy(config, progress=lambda what, share: said.append(what))
    assert "palmar_images" in (tmp_path / "images.log").read_text()
    assert not result.success and result.reason == "timeout" and "run" in said
    assert result.chunks > 30 and result.refused == 0
    assert 0 < result.chunk_to_robot_p50_ms <= result.chunk_to_robot_p99_ms
    assert result.chunk_to_robot_p50_ms < result.camera_to_command_p50_ms < 1000 * 0.6, "the tracker alone takes 60 ms"
    assert result.camera_to_command_p50_ms > 60
    assert min(result.worst_margin.values()) >= 0, result.worst_margin
    assert 0 < result.tracker_error_mm < 20
    assert f"on core {max(os.sched_getaffinity(0))}" in (tmp_path / "control.log").read_text() or os.cpu_count() < 2
    assert leftovers(tmp_path) == ([], [])
    rollout = read(result.rollout)
    moved = np.ptp(rollout.command.u, axis=0)
    assert (moved > 0.005).any() and rollout.header.instruction == "lift the red block"
    assert rollout.header.git["commit"] == git_state()["commit"]
    replayed = replay_mujoco(rollout)
    assert replayed.bit_equal and replayed.compared > 200, replayed.first


BUSY = {"arm": {"silence": 0.3, "fresh": 0.1}, "hand": {"silence": 0.5, "fresh": 0.1, "rate": 100.0}}
"""What devices may miss on a machine that simulates their hardware, too, with two processors for ten processes."""
LATE = ("state_stale", "no_reading", "no_command")
"""Why a run ends in a stop, as it should, on a machine that was late all the same."""
ENDS = ("timeout", *(f"stopped: {why}" for why in LATE))


@fakes
def test_the_real_drivers_hold_the_twin_through_fakes_of_their_hardware(tmp_path):
    """Every process but ROS's: those starve beside these on two cores."""
    run, _ = resolve(DeployConfig(out=str(tmp_path), hardware="fake", **BUSY))
    with Processes(run) as children:
        twin = start_hardware(children, say=lambda what, share: None)["twin"]
        children.start("control", "control")
        control = shared.wait_attach(Path(run.control_memory), LAYOUTS, kind="control", robot=None, timeout=120)
        toy.until(lambda: control.blocks["state"].read() is not None, 120, "control ready")
        first = int(twin.blocks["state"].read()["seq"])
        toy.until(lambda: twin.blocks["state"].read()["seq"] > first + 1000, 60, "a second of the twin")
        s, held = control.blocks["state"].read(), twin.blocks["state"].read()
        children.check()
        late = s["reason"].decode() in LATE
        assert (STATES[int(s["state"])] is State.HOLD or late) and s["chunks"] == 0, s["reason"]
        assert np.abs(held["q"] - s["u"]).max() < 0.1  # against gravity, through both drivers
        children.wind_down()
    for name in ("arm", "hand"):
        said = (tmp_path / f"{name}.log").read_text()
        assert int(said.split("'commands': ")[1].split("}")[0]) > 100 and (late or "fault" not in said), said
    assert leftovers(tmp_path) == ([], [])


@pytest.mark.slow
@pytest.mark.ros
@ros
@fakes
def test_a_deployment_through_the_real_drivers_onto_fakes_moves_the_twin(tmp_path):
    from palmar.rollouts.read import read
    from palmar.rollouts.replay import replay_mujoco

    result = deploy(DeployConfig(out=str(tmp_path), hardware="fake", timeout=3.0, **BUSY))
    assert leftovers(tmp_path) == ([], [])
    assert not result.success and result.reason in ENDS
    assert min(result.worst_margin.values()) >= 0, result.worst_margin
    rollout = read(result.rollout)
    replayed = replay_mujoco(rollout)
    assert replayed.bit_equal and replayed.compared > 200, replayed.first
    # Commands went through both drivers and held the twin against gravity; with a processor left for ROS they move it.
    assert np.abs(rollout.joints.q[-1] - rollout.command.u[-1]).max() < 0.1
    assert result.chunks < 20 or (np.ptp(rollout.joints.q, axis=0) > 0.005).sum() > 10
    for name in ("arm", "hand"):
        said = (tmp_path / f"{name}.log").read_text()
        assert int(said.split("'commands': ")[1].split("}")[0]) > 100, said
        assert result.reason != "timeout" or "fault" not in said, said


def hasten(folder):
    """Real-time priority, where allowed, for every thread of a run that has none, and for fakes in this process.

    On two processors that do other work, too, ROS's threads would else starve below the devices and their fakes.
    """
    listed = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    pids = [int(line.split()[0]) for line in listed.splitlines() if str(folder) in line]
    tasks = [int(task.name) for pid in pids for task in Path(f"/proc/{pid}/task").glob("*")]
    fakes = [(t.native_id, 68) for t in threading.enumerate() if t.name == "DynamixelBus"]
    for task, priority in [*((task, 5) for task in tasks), *fakes]:
        with suppress(OSError):
            if os.sched_getscheduler(task) == os.SCHED_OTHER:
                os.sched_setscheduler(task, os.SCHED_RR, os.sched_param(priority))


def hastened(config):
    """Deploy with every process hastened."""

    def progress(what, share):
        if what.startswith("configuring"):
            hasten(config.out)

    return deploy(config, progress=progress)


TRACKER = """
import sys, time, rclpy
from geometry_msgs.msg import PoseStamped
rclpy.init()
node = rclpy.create_node("tracker")
publishers = [node.create_publisher(PoseStamped, f"/objects/{name}/pose", 10) for name in sys.argv[2:]]
while rclpy.ok():
    for k, publisher in enumerate(publishers):
        pose = PoseStamped()
        pose.header.stamp, pose.header.frame_id = node.get_clock().now().to_msg(), "world"
        pose.pose.position.x, pose.pose.position.y, pose.pose.position.z = 0.5, 0.15 * (k - 1), 0.03
        pose.pose.orientation.w = 1.0
        publisher.publish(pose)
    time.sleep(0.05)
"""


@contextmanager
def tracker(config):
    """Somebody's tracker, which publishes where the objects are."""
    from palmar.sim.tasks import find

    env = ros_env.isolated(config.domain, Path(config.out).parent)
    found = find.load(config.task)
    names = found.task(found.config()).objects
    child = subprocess.Popen([sys.executable, "-c", TRACKER, config.out, *names], env=env)
    try:
        yield
    finally:
        child.kill()
        child.wait()


@pytest.mark.ros
@ros
@fakes
def test_a_deployment_on_real_ports_needs_no_twin_and_does_not_claim_success(tmp_path):
    import leap_case
    from fr3_case import FciProcess, address

    from palmar.real_robot.drivers.leap_motors import ADDRESS
    from palmar.real_robot.fakes.dynamixel import DynamixelBus
    from palmar.rollouts.read import read
    from palmar.sim.robots import load_robot

    robot = load_robot("fr3_leap")
    hand, ids = leap_case.plant(robot.home[7:]), [ADDRESS[j] for j in robot.joints[7:]]
    with FciProcess(address(), patience=0.05, priority=68) as arm, DynamixelBus(hand, ids=ids) as bus:
        devices = {
            "arm": {**BUSY["arm"], "address": arm.address, "timeout": 0.1},
            "hand": {**BUSY["hand"], "port": bus.port, "timeout": 0.1, "lost_after": 10},
        }
        out, domain = tmp_path / "run", ros_env.random_domain()
        config = DeployConfig(out=str(out), hardware="real", timeout=4.0, domain=domain, **devices)
        with tracker(config):
            result = hastened(config)
        assert leftovers(out) == ([], [])
        assert (result.success, result.tracker_error_mm) == (None, None) and result.reason in ENDS
        assert bus.goals_written > 100 and arm.report()["received"] > 1000 and bus.holding().all()
        assert np.abs(np.array(arm.report()["dq_d"])).max() == 0.0
    rollout = read(result.rollout)
    assert result.chunks < 20 or (np.ptp(rollout.joints.q, axis=0) > 0.005).sum() > 10
    assert set(rollout.objects) == set(rollout.header.objects)  # heard from the tracker
    assert rollout.header.engine == "hardware" and rollout.header.model_xml is None


@pytest.mark.ros
@ros
def test_a_bundle_that_does_not_load_is_refused_with_its_reason(tmp_path):
    (tmp_path / "bundle").mkdir()
    run, _ = resolve(DeployConfig(out=str(tmp_path / "out"), bundle=str(tmp_path / "bundle")))
    with Processes(run) as children:  # the policy alone: what is refused is refused before the robot matters
        children.start("policy", "nodes.policy")
        with pytest.raises(DeployError, match="contract.json"):
            activate(children, "policy")
    assert leftovers(tmp_path / "out") == ([], [])


def test_a_process_that_dies_while_it_is_waited_for_ends_the_run_with_its_reason(tmp_path):
    run, _ = resolve(DeployConfig(out=str(tmp_path)))
    run = replace(run, qpos=(0.0,))
    run.write(tmp_path / "run.json")
    with pytest.raises(DeployError, match="twin died with status 2: .*start state has 1 numbers"):
        with Processes(run) as children:
            bring_up(children, record=True, say=lambda what, share: None)
    assert leftovers(tmp_path) == ([], [])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"instruction": "lift the purple block"}, "purple"),
        ({"constraints": "none_such"}, "none_such"),
        ({"bundle": "nowhere"}, "nowhere"),
        ({"robot": "panda"}, "panda"),
        ({"hardware": "real", "robot": "panda_leap"}, "fr3_leap"),
        ({"hardware": "real", "arm": {"adress": "1.2.3.4"}}, "address"),
        ({"cores": (999,)}, "accepted 'auto' or a list"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(tmp_path, changes, message):
    with pytest.raises(PalmarError, match=message):
        resolve(DeployConfig(out=str(tmp_path / "out"), **changes))
    assert not (tmp_path / "out" / "run.json").exists()


def test_however_a_run_ends_the_policy_goes_first_and_the_recorder_last(tmp_path, monkeypatch):
    run, ended = resolve(DeployConfig(out=str(tmp_path)))[0], []
    monkeypatch.setattr(Processes, "stop", lambda children, name: ended.append(name))
    with pytest.raises(KeyboardInterrupt):
        with Processes(run):
            raise KeyboardInterrupt
    assert ended == ["policy", "images", "link", "bridge", "control", "hand", "arm", "fakes", "twin", "recorder"]


def test_impossible_configurations_are_refused():
    for changes in (
        {"timeout": 0}, {"domain": 101}, {"task": "juggle"}, {"hardware": "robot"}, {"alignment": "jump"},
        {"hardware": "real", "mode": "shadow"}, {"arm": {"address": "1.2.3.4"}},
    ):  # fmt: skip
        with pytest.raises(ConfigError):
            DeployConfig(out="x", **changes)
    with pytest.raises(ConfigError, match=r"task is 'reach', accepted \['lift'\]"):
        DeployConfig(out="x", task="reach")


def arguments(*words):
    parser = argparse.ArgumentParser()
    cli_deploy.arguments(parser)
    return parser.parse_args(["--bundle", str(files("palmar.assets") / "bundles/lift"), *words])


def test_hardware_is_a_word_or_an_option_and_ports_are_words(tmp_path):
    out = ["--out", str(tmp_path)]
    assert cli_deploy.configuration(arguments(*out)).hardware == "twin"
    assert cli_deploy.configuration(arguments(*out, "--hardware", "fake")).twin.watchdog == 200  # the file of its name
    made = cli_deploy.configuration(arguments(*out, "hardware=real", "arm.address=10.0.0.1", "hand.port=/dev/x"))
    assert (made.hardware, made.arm["address"], made.hand["port"]) == ("real", "10.0.0.1", "/dev/x")
    for words in (["hardware=robot"], ["hardware=real", "--hardware", "twin"], ["hardware=real", "--mode", "shadow"]):
        with pytest.raises(ConfigError):
            cli_deploy.configuration(arguments(*out, *words))


def test_success_is_the_named_block_and_only_it_up_for_a_second():
    start = np.zeros((3, 3))
    up, both = start.copy(), start.copy()
    up[1, 2], both[:2, 2] = 0.12, 0.12
    success = Success(1)
    assert [success.update(t, up, start) for t in (0.0, 0.5, 0.99, 1.0)] == [False, False, False, True]
    success = Success(1)
    assert [success.update(t, p, start) for t, p in ((0, up), (0.9, both), (1.1, up), (2.0, up))] == [False] * 4
    assert not any(Success(0).update(t, up, start) for t in (0.0, 2.0))


def test_only_misses_that_the_sentinel_does_not_share_are_ours():
    assert unshared([], [], 0.001) == 0
    assert unshared([(1.0, 2)], [], 0.001) == 2
    assert unshared([(1.0, 2), (5.0, 3)], [(1.001, 1)], 0.001) == 3
    assert unshared([(1.0, 30)], [(0.98, 1)], 0.001) == 0


SOCKETS = """
import os, rclpy
rclpy.init()
node = rclpy.create_node("alone")
fds = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
inodes = {os.readlink(fd) for fd in fds if os.path.lexists(fd)}
rows = [line.split() for line in open("/proc/net/udp").readlines()[1:]]
print(*{r[1].split(":")[0] for r in rows if f"socket:[{r[9]}]" in inodes})
print(open("/proc/self/maps").read().count("/dev/shm/fastrtps"))
"""


@pytest.mark.ros
@ros
def test_ros_opens_sockets_on_the_loopback_device_only_and_no_shared_memory(tmp_path):
    env = ros_env.isolated(ros_env.random_domain(), tmp_path)
    done = subprocess.run([sys.executable, "-c", SOCKETS], env=env, capture_output=True, text=True, check=True)
    addresses, segments = done.stdout.splitlines()
    multicast = "0100FFEF"  # 239.255.0.1, joined on the loopback device
    assert addresses and set(addresses.split()) <= {"0100007F", multicast}
    assert segments == "0"


def test_the_environment_of_a_run_is_its_own(tmp_path):
    env = ros_env.isolated(7, tmp_path)
    assert env["ROS_DOMAIN_ID"] == "7"
    assert all(1 <= ros_env.random_domain() <= 100 for _ in range(50))
    assert os.environ.get("ROS_DOMAIN_ID") != "7"
