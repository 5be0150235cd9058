"""What ``palmar doctor`` learns by trying, each try in a process of its own: GL, torch, ROS 2, real time.

A library that is broken may end the process that loads it, and an interpreter can be poisoned by the order of
its imports; a fresh one per question gives the answer a user's program would get.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from palmar.cli.machine import FAIL, OK, WARN, Check

LIMIT = 90.0
"""A try takes no longer [s]; importing torch from a cold disk is the slowest."""
DISTRIBUTIONS = Path("/opt/ros")
GL_PACKAGES = {"egl": "libegl1 libegl-mesa0 libgl1-mesa-dri", "osmesa": "libosmesa6"}
"""System packages (Debian, Ubuntu) per backend, best first."""

DRAW = """
import mujoco
model = mujoco.MjModel.from_xml_string('<mujoco><worldbody><geom size=".3"/></worldbody></mujoco>')
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
renderer = mujoco.Renderer(model, 32, 32)
renderer.update_scene(data)
assert renderer.render().any(), "the picture is black"
"""
TORCH = """
import json, torch
gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else ""
print(json.dumps({"version": torch.__version__, "built": torch.version.cuda or "", "gpu": gpu,
                  "threads": torch.get_num_threads()}))
"""
TOGETHER = """
import json, sys, rclpy, torch, mujoco, trajectory_msgs.msg
import palmar.safety.constraints
rclpy.init()
rclpy.shutdown()
print(json.dumps({"rclpy": rclpy.__file__, "python": "%d.%d" % sys.version_info[:2]}))
"""
REALTIME = """
import json
from palmar.real_robot import realtime
said = realtime.go_realtime(60)
cores = realtime.reserve("auto")
own = f"core {cores[0]} for the control process alone" if cores else "no core for the control process alone"
print(json.dumps({"realtime": realtime.is_realtime(), "said": f"{said}; {own}"}))
"""
LIMITS = """add to /etc/security/limits.d/99-realtime.conf, then log in again:
  @realtime - rtprio 98
  @realtime - memlock unlimited
and: sudo groupadd -f realtime && sudo usermod -aG realtime $USER"""
VENV = """a venv of its Python that sees rclpy:
  source {setup}
  {python} -m venv --system-site-packages .ros-venv
  .ros-venv/bin/pip install -e .
  .ros-venv/bin/palmar doctor"""


def tried(command: Sequence[str], **environment: str) -> tuple[bool, str]:
    """Run ``command``; whether it succeeded, and its last line of output (or of complaint)."""
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=LIMIT,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return False, f"{type(error).__name__}: {error}"
    if done.returncode == 0:
        return True, _last(done.stdout)
    return False, _last(done.stderr) or f"ended with status {done.returncode}"


def gl() -> Check:
    """The first backend that draws: EGL, then OSMesa, then none (reports without video)."""
    failures = []
    for backend in GL_PACKAGES:
        good, said = tried([sys.executable, "-c", DRAW], MUJOCO_GL=backend)
        if good:
            slower = "; in software, no EGL" if failures else ""
            return Check("rendering", OK, f"{backend}{slower}")
        failures.append(f"{backend}: {said}")
    fix = " or ".join(f"apt install {packages}" for packages in GL_PACKAGES.values())
    return Check("rendering", WARN, f"none; reports come without video ({'; '.join(failures)})", fix)


def torch() -> list[Check]:
    """Whether torch imports, its threads, and whether it sees a GPU."""
    good, said = tried([sys.executable, "-c", TORCH])
    if not good:
        return [Check("torch", FAIL, said, "make setup, or pip install 'torch>=2.4'")]
    found = json.loads(said)
    rows = [Check("torch", OK, f"{found['version']}, {found['threads']} threads")]
    device = Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi") is not None
    if found["gpu"]:
        rows.append(Check("CUDA", OK, f"{found['gpu']}, built for {found['built']}"))
    elif device:
        fix = "install an NVIDIA driver that fits, and torch with CUDA: make GPU=1 in a fresh .venv"
        rows.append(Check("CUDA", WARN, f"a GPU, but torch (CUDA {found['built'] or 'none'}) cannot use it", fix))
    else:
        rows.append(Check("CUDA", OK, "no NVIDIA GPU; everything runs on the processor"))
    return rows


def ros() -> Check:
    """Whether rclpy, torch, MuJoCo and palmar work in this one interpreter."""
    sourced = os.environ.get("ROS_DISTRO", "")
    good, said = tried([sys.executable, "-c", TOGETHER])
    if good:
        found = json.loads(said)
        origin = (
            f"distribution {sourced}" if sourced and str(DISTRIBUTIONS) in found["rclpy"] else "wheels of palmar[ros]"
        )
        return Check("ROS 2", OK, f"rclpy, torch and palmar in one Python {found['python']}; {origin}")
    if sourced:
        fix = VENV.format(setup=f"{DISTRIBUTIONS}/{sourced}/setup.bash", python="/usr/bin/python3")
    else:
        fix = "pip install 'palmar[ros]' (Linux x86_64), or a venv of a distribution's Python: README"
    return Check("ROS 2", WARN, f"{said}; palmar deploy needs it", fix)


def distributions(root: Path = DISTRIBUTIONS) -> list[Check]:
    """Per distribution under ``root``: whether *its* Python imports rclpy, torch and palmar together."""
    rows = []
    for setup in sorted(root.glob("*/setup.bash")):
        name = setup.parent.name
        script = 'source "$0" && exec python3 -c "$1"'
        command = ["env", "-i", f"HOME={Path.home()}", "PATH=/usr/local/bin:/usr/bin:/bin"]
        good, said = tried([*command, "bash", "-c", script, str(setup), TOGETHER])
        if good:
            rows.append(Check(f"ROS 2 {name}", OK, "its Python imports rclpy, torch and palmar"))
        else:
            fix = VENV.format(setup=setup, python="/usr/bin/python3")
            rows.append(Check(f"ROS 2 {name}", WARN, f"its own Python: {said}", fix))
    return rows


def realtime() -> Check:
    """Whether a process may take real-time priority and lock its memory, and which core the control process gets."""
    good, said = tried([sys.executable, "-c", REALTIME])
    found: Mapping[str, object] = json.loads(said) if good else {"realtime": False, "said": said}
    if found["realtime"]:
        return Check("real time", OK, str(found["said"]))
    return Check("real time", WARN, f"{found['said']}; the twin works, expect missed periods", LIMITS)


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
