"""The processes of a run as children of this one: started in order, watched, stopped.

No ROS in this process: lifecycle transitions are driven by a process of their own, states are read from
shared memory.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from palmar.real_robot import ros_env, shared
from palmar.real_robot.config import RunConfig
from palmar.real_robot.layout import LAYOUTS
from palmar.safety.types import PalmarError

log = logging.getLogger("deploy")
Progress = Callable[[str, float], None]
"""Called with what is going on and the share of the time used."""
NODES = {"bridge": "palmar_bridge", "policy": "palmar_policy", "images": "palmar_images"}
"""Lifecycle nodes by process, in the order of their activation."""
ENDING = ("policy", "images", "link", "bridge", "control", "hand", "arm", "fakes", "twin")
"""Processes in the order in which they are ended: the control process still stops the robot.  The recorder is last."""
READY = 180.0
"""How long the control process may take to get ready; the first use on a machine compiles [s]."""
DEVICE = 30.0
"""How long fakes and devices may take to get ready [s]."""
STOP = 8.0
"""How long a process may take to stop before it is killed [s]."""
WRITE = 60.0
"""The same for the recorder, which may have something left to write [s]."""


class DeployError(PalmarError):
    """A process of the run did not start, or died."""


class Processes:
    """The children of a run, which none of them outlives.  Use as a context."""

    def __init__(self, run: RunConfig):
        """Of ``run``, whose configuration is in its folder already; nothing is started yet."""
        self.run, self.folder = run, Path(run.run_dir)
        self.config, self.environment = self.folder / "run.json", ros_env.isolated(run.domain, self.folder)
        self.running: dict[str, subprocess.Popen] = {}
        self.extra: dict[str, list[str]] = {}
        """Further arguments by name, such as topics that are remapped."""

    def start(self, name: str, module: str) -> subprocess.Popen:
        """Start ``palmar.real_robot.<module>``; its log is ``<name>.log``."""
        with (self.folder / f"{name}.log").open("ab") as out:
            self.running[name] = subprocess.Popen(
                [
                    *(sys.executable, "-m", f"palmar.real_robot.{module}", "--config", str(self.config)),
                    *self.extra.get(name, []),
                ],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=self.environment,
                start_new_session=True,
            )
        return self.running[name]

    def check(self) -> None:
        """Raise if one has died.

        Raises:
            DeployError: With its name, exit status and the end of its log.
        """
        for name, child in self.running.items():
            if child.poll() is not None:
                raise DeployError(f"{name} died with status {child.returncode}: {self.tail(name)}")

    def tail(self, name: str) -> str:
        """The last lines of a log."""
        path = self.folder / f"{name}.log"
        return " | ".join(path.read_text(errors="replace").splitlines()[-3:]) if path.exists() else ""

    def stop(self, name: str) -> None:
        """End one: SIGTERM, and SIGKILL where that does not help in time."""
        child, patience = self.running.pop(name, None), WRITE if name == "recorder" else STOP
        if child is None or child.poll() is not None:
            return
        child.terminate()
        try:
            child.wait(patience)
        except subprocess.TimeoutExpired:
            log.error("%s did not stop within %.0f s: killed", name, patience)
            child.kill()
            child.wait()

    def wind_down(self) -> None:
        """End all but the recorder, which may still be told how it went."""
        for name in ENDING:
            self.stop(name)

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *exception: object) -> None:
        self.wind_down()
        self.stop("recorder")
        for path in self.run.memories:
            Path(path).unlink(missing_ok=True)  # only a process that was killed leaves its file


def bring_up(children: Processes, *, record: bool, say: Progress, cameras: bool = False) -> dict[str, shared.SharedMap]:
    """Start everything in order and activate it; the shared files, attached.

    Raises:
        DeployError: If something did not start in time.
    """
    maps = start_hardware(children, say=say)
    if record:
        children.start("recorder", "recorder")
    nodes = [name for name in NODES if cameras or name != "images"]
    for name in nodes:
        children.start(name, f"nodes.{name}")
    children.start("control", "control")
    say("starting control, bridge and policy", 0.0)
    control = _attach(Path(children.run.control_memory), "control", children)
    _until(lambda: control.blocks["state"].latest() is not None, READY, "control", children)
    say("configuring and activating nodes", 0.0)
    activate(children, *nodes)
    return maps | {"control": control}


def start_hardware(children: Processes, *, say: Progress) -> dict[str, shared.SharedMap]:
    """Start the twin, the fakes and the devices that the run has; the twin's shared file, attached.

    Raises:
        DeployError: If one did not start in time, as when a device does not answer on its port.
    """
    run, maps = children.run, {}
    if run.hardware != "real":
        say("starting the twin", 0.0)
        children.start("twin", "twin")
        maps["twin"] = _attach(Path(run.twin_memory), "twin", children)
    if run.hardware == "fake":
        say("starting the fakes", 0.0)
        children.start("fakes", "fakes.serve")
        _until((children.folder / "fakes.json").exists, DEVICE, "fakes", children)
    for device in run.devices:
        say(f"opening the {device.name}", 0.0)
        children.extra[device.name] = ["--name", device.name]
        children.start(device.name, "device")
    for device in run.devices:
        _until(Path(device.memory).exists, DEVICE, device.name, children)
    return maps


def activate(children: Processes, *names: str) -> None:
    """Configure and activate the nodes of these processes.

    Raises:
        DeployError: If one refused, with the end of the nodes' logs.
    """
    steps = [sys.executable, "-m", "palmar.real_robot.nodes.lifecycle", "--config", str(children.config)]
    for name in names:
        steps += ["--node", NODES[name]]
    steps += ["--do", "configure", "--do", "activate", "--timeout", "60"]
    done = subprocess.run(steps, env=children.environment, capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        logs = {name: children.tail(name) for name in names}
        raise DeployError(f"{done.stderr.strip().splitlines()[-1:]}; {logs}")


def _attach(path: Path, kind: str, children: Processes) -> shared.SharedMap:
    _until(path.exists, READY, kind, children)
    return shared.attach(path, LAYOUTS, kind=kind)


def _until(condition: Callable[[], bool], timeout: float, what: str, children: Processes) -> None:
    end = time.monotonic() + timeout
    while not condition():
        children.check()
        if time.monotonic() > end:
            said = children.tail(what) or "nothing; it may still be compiling, which the first use on a machine does"
            raise DeployError(f"{what} was not ready within {timeout} s; its log says: {said}")
        time.sleep(0.02)
