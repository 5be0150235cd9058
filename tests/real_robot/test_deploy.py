"""A whole deployment of the real model: every process, ROS 2 between them, and nothing left afterwards."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from palmar.benchmarks.deploy import unshared
from palmar.real_robot import ros_env, shared
from palmar.real_robot.deploy import DeployConfig, DeployError, deploy, resolve
from palmar.real_robot.twin_scene import Success
from palmar.safety.types import ConfigError, PalmarError

ros = pytest.mark.skipif(bool(ros_env.missing()), reason=ros_env.missing() or "rclpy is here")


def leftovers(folder):
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    processes = [line for line in listed.splitlines() if str(folder) in line]
    return processes, [p.name for p in shared.directory().glob("palmar-*") if p.name in mine(folder)]


def mine(folder):
    path = Path(folder) / "run.json"
    run = json.loads(path.read_text()) if path.exists() else {}
    return {Path(run[k]).name for k in ("control_memory", "twin_memory") if k in run}


@pytest.mark.ros
@ros
def test_a_deployment_runs_records_replays_and_leaves_nothing_behind(tmp_path):
    from palmar.rollouts.read import read
    from palmar.rollouts.replay import replay_mujoco

    said = []
    result = deploy(DeployConfig(out=str(tmp_path), timeout=3.0), progress=lambda what, share: said.append(what))
    assert not result.success and result.reason == "timeout" and "run" in said
    assert result.chunks > 30 and result.refused == 0
    assert 0 < result.chunk_to_robot_p50_ms <= result.chunk_to_robot_p99_ms
    assert min(result.worst_margin.values()) >= 0, result.worst_margin
    assert 0 < result.tracker_error_mm < 20
    assert leftovers(tmp_path) == ([], [])
    rollout = read(result.rollout)
    moved = np.ptp(rollout.command.u, axis=0)
    assert (moved > 0.005).any() and rollout.header.instruction == "lift the red block"
    replayed = replay_mujoco(rollout)
    assert replayed.bit_equal and replayed.compared > 200, replayed.first


@pytest.mark.ros
@ros
def test_a_bundle_that_does_not_load_stops_everything_with_its_reason(tmp_path):
    (tmp_path / "bundle").mkdir()
    with pytest.raises(DeployError, match="contract.json"):
        deploy(DeployConfig(out=str(tmp_path / "out"), bundle=str(tmp_path / "bundle")))
    assert leftovers(tmp_path / "out") == ([], [])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"instruction": "lift the purple block"}, "purple"),
        ({"constraints": "none_such"}, "none_such"),
        ({"bundle": "nowhere"}, "nowhere"),
        ({"robot": "panda"}, "panda"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(tmp_path, changes, message):
    with pytest.raises(PalmarError, match=message):
        resolve(DeployConfig(out=str(tmp_path / "out"), **changes))
    assert not (tmp_path / "out" / "run.json").exists()


def test_impossible_configurations_are_refused():
    for changes in ({"timeout": 0}, {"domain": 101}, {"task": "juggle"}):
        with pytest.raises(ConfigError):
            DeployConfig(out="x", **changes)


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
