"""How long a topic hop takes here: ``python -m palmar.real_robot.nodes.hop``, the numbers of docs/ros2_control.md.

The driver ``ros2_control`` in this process, a listener with a controller's topics in another: commands are timed from
``publish`` to the listener's callback (by rclpy's source time), joint states from their stamp to the driver's ``read``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from palmar.real_robot import realtime, ros_env
from palmar.real_robot.drivers.error import DriverError
from palmar.real_robot.drivers.ros2_control import KINDS, Ros2ControlConfig
from palmar.safety.types import Command

NAME = "hop_controller"
STATES_HZ, PRIORITY = 200.0, 50


def listen(kind: str, joints: Sequence[str], seconds: float) -> list[float]:
    """Stand in for a controller at rest; the time each command took [s]."""
    import rclpy
    from sensor_msgs.msg import JointState
    from std_msgs.msg import Float64MultiArray
    from trajectory_msgs.msg import JointTrajectory

    rclpy.init()
    node, took = rclpy.create_node(NAME), []
    node.declare_parameter("joints", list(joints))
    publisher = node.create_publisher(JointState, "joint_states", 10)

    def heard(message: Any, info: Any) -> None:
        took.append(1e-9 * (time.time_ns() - info["source_timestamp"]))

    callback: Any = heard  # rclpy passes the info to a callback of two arguments
    if kind == "trajectory":
        node.create_subscription(JointTrajectory, "~/joint_trajectory", callback, 10)
    else:
        node.create_subscription(Float64MultiArray, "~/commands", callback, 10)

    def tell() -> None:
        still = [0.0] * len(joints)
        message = JointState(name=list(joints), position=still, velocity=still, effort=still)
        message.header.stamp = node.get_clock().now().to_msg()
        publisher.publish(message)

    node.create_timer(1 / STATES_HZ, tell)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        rclpy.spin_once(node, timeout_sec=0.1)
    return took


def drive(config: Ros2ControlConfig, joints: Sequence[str], seconds: float) -> dict[str, Any]:
    """Command standing still at the driver's rate; what the readings and this process took."""
    from palmar.real_robot.drivers.ros2_control import open_driver

    driver, ages, lates, failed, seen = open_driver(config, joints), [], [], 0, 0
    beat, cpu, begin = realtime.Beat(1 / config.rate), time.process_time(), time.monotonic()
    beat.start()
    while time.monotonic() - begin < seconds:
        try:
            driver.write(Command(np.zeros(len(joints)), 1, time.monotonic()))
            state = driver.read()
            if state.seq != seen:
                seen = state.seq
                ages.append(time.monotonic() - state.t)
        except DriverError:
            failed += 1
        beat.wait()
        lates.append(beat.late)
    used = (time.process_time() - cpu) / (time.monotonic() - begin)
    driver.close()
    late = {"late_wake_ups_ms": quantiles(lates)}  # of this loop alone, without a message: what is the machine's
    return {"state_hop_ms": quantiles(ages), **late, "failed_readings": failed, "cpu_share": round(used, 3)}


def quantiles(seconds: Sequence[float]) -> dict[str, Any]:
    """n, median, 99 % and the most [ms]."""
    if not len(seconds):
        return {"n": 0}
    p50, p99, most = (round(float(v), 3) for v in 1e3 * np.percentile(seconds, (50, 99, 100)))
    return {"n": len(seconds), "p50": p50, "p99": p99, "max": most}


def measure(kind: str, n: int, seconds: float, rate: float) -> dict[str, Any]:
    """One kind of controller with n joints."""
    joints = [f"joint{k}" for k in range(n)]
    with tempfile.TemporaryDirectory() as folder:
        domain = ros_env.random_domain()
        os.environ.update(ros_env.isolated(domain, Path(folder)))
        call = [sys.executable, "-m", "palmar.real_robot.nodes.hop", "--listen", kind]
        call += ["--joints", str(n), "--seconds", str(seconds + 6)]
        child = subprocess.Popen(call, stdout=subprocess.PIPE, text=True)
        config = Ros2ControlConfig(controller=NAME, kind=kind, domain=domain, commands=rate, wait=20.0, fresh=0.1)
        try:
            row = drive(config, joints, seconds)
            took = json.loads(child.communicate(timeout=30)[0])
        finally:
            child.kill()
            child.wait()
    return {"kind": kind, "joints": n, "commands_hz": rate, "command_hop_ms": quantiles(took), **row}


def main(argv: Sequence[str] | None = None) -> int:
    """Print a JSON line per kind of controller."""
    parser = argparse.ArgumentParser(prog="hop", description=__doc__)
    parser.add_argument("--joints", type=int, default=23)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=50.0, help="commands per second [Hz]")
    parser.add_argument("--listen", choices=KINDS, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    how = realtime.go_realtime(PRIORITY)  # as the device process and a controller manager do
    if args.listen:
        took = listen(args.listen, [f"joint{k}" for k in range(args.joints)], args.seconds)
        sys.stdout.write(json.dumps(took))
        return 0
    for kind in KINDS:
        row = measure(kind, args.joints, args.seconds, args.rate)
        sys.stdout.write(json.dumps({**row, "priority": how}) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
