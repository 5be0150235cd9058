"""The supervisor of a deployment: starts the processes of a run, watches them, stops them all.

No ROS in this process: lifecycle transitions are driven by a process of their own, states are read from
shared memory.  ``palmar_bringup``'s launch file starts the very same modules where ROS 2 is installed.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import Any
from uuid import uuid4

import numpy as np

from palmar.real_robot import ros_env, shared
from palmar.real_robot.alignment import MODES as ALIGNMENT
from palmar.real_robot.alignment import GlideConfig
from palmar.real_robot.config import HARDWARE, PARTS, RunConfig, TwinConfig
from palmar.real_robot.hardware import devices
from palmar.real_robot.layout import LAYOUTS, STATES
from palmar.real_robot.twin_scene import Success, lift_world
from palmar.safety.types import ConfigError, PalmarError
from palmar.sim.robots import load_robot

log = logging.getLogger("deploy")
Progress = Callable[[str, float], None]
"""Called with what is going on and the share of the time used."""

NODES, IMAGES = ("palmar_bridge", "palmar_policy"), "palmar_images"
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


@dataclass(frozen=True)
class DeployConfig:
    """One deployment."""

    out: str
    """Folder for logs, configuration and rollout; made if missing."""
    instruction: str = "lift the red block"
    bundle: str = ""
    """Folder or file of the policy bundle; '' sways every joint a little, to check the chain."""
    sway: float = 0.03
    """How far, without a bundle [rad]."""
    robot: str = "fr3_leap"
    hardware: str = "twin"
    """``twin``, ``fake`` (real drivers on fakes of their hardware, the twin's physics) or ``real``."""
    devices: str = ""
    """A name in ``configs/hardware`` or a path; '' is the robot's name."""
    arm: dict[str, Any] = field(default_factory=dict)
    """What differs from that file for the arm, for example its address."""
    hand: dict[str, Any] = field(default_factory=dict)
    alignment: str = "glide"
    """What happens when the policy's first command is far from where the robot stands: glide there, or refuse."""
    glide: GlideConfig = field(default_factory=GlideConfig)
    task: str = "lift"
    constraints: str = "arm_hand"
    """A name in ``configs/constraints`` or a path."""
    mode: str = "enforce"
    record: bool = True
    cameras: bool = False
    """Whether the twin's cameras, or a RealSense, are published; they cost nothing until somebody listens."""
    timeout: float = 20.0
    """Longest time the policy may try [s]."""
    seed: int = 0
    domain: int = 0
    """ROS domain; 0 draws one."""
    priority: int = 60
    twin: TwinConfig = field(default_factory=TwinConfig)

    def __post_init__(self) -> None:
        if self.task != "lift":
            raise ConfigError(f"task is {self.task!r}, accepted ['lift']")
        if self.hardware not in HARDWARE:
            raise ConfigError(f"hardware is {self.hardware!r}, accepted {list(HARDWARE)}")
        if self.alignment not in ALIGNMENT:
            raise ConfigError(f"alignment is {self.alignment!r}, accepted {list(ALIGNMENT)}")
        if self.hardware == "real" and self.mode == "shadow":
            raise ConfigError("mode shadow lets commands pass unfiltered: accepted with hardware twin or fake only")
        if self.hardware == "twin" and (self.arm or self.hand or self.devices):
            raise ConfigError("the twin has no devices: say hardware=fake or hardware=real")
        if not 0 <= self.sway <= 0.3:
            raise ConfigError(f"sway is {self.sway}, accepted 0 to 0.3 rad")
        if not 0 < self.timeout <= 3600 or not 0 <= self.domain <= 100:
            raise ConfigError(f"need 0 < timeout <= 3600 and 0 <= domain <= 100, got {self.timeout}, {self.domain}")


@dataclass(frozen=True)
class DeployResult:
    """What happened."""

    success: bool | None
    """None on hardware: nobody there knows."""
    reason: str
    """Why it ended: success, timeout, stopped, or which process died."""
    target: str
    seconds: float
    """From activation to the end [s]."""
    intervention_s: float
    """Time in which the filter changed the command or did not run, after the first chunk [s]."""
    worst_margin: dict[str, float]
    """Smallest margin per constraint that a robot can measure, of sent commands and measured states."""
    chunk_to_robot_p50_ms: float | None
    """From a chunk's publication to the first command that follows it; None without a chunk [ms]."""
    chunk_to_robot_p99_ms: float | None
    camera_to_command_p50_ms: float | None
    """From a camera's picture, or a tracker's, to the first command that follows from it; None without any [ms]."""
    camera_to_command_p99_ms: float | None
    ticks: int
    missed: int
    chunks: int
    refused: int
    lost: int
    """Chunks that were published but never reached the filter."""
    realtime: bool
    tracker_error_mm: float | None
    """Root mean square distance of tracked from true object positions; None where the truth is not known [mm]."""
    rollout: str
    run_dir: str


class Processes:
    """The children of a run, stopped in the reverse order of their start at the latest."""

    def __init__(self, folder: Path, config: Path, environment: dict[str, str]):
        self.folder, self.config, self.environment = folder, config, environment
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

    def stop(self, name: str, patience: float = STOP) -> None:
        """End one: SIGTERM, and SIGKILL after ``patience`` seconds."""
        child = self.running.pop(name, None)
        if child is None or child.poll() is not None:
            return
        child.terminate()
        try:
            child.wait(patience)
        except subprocess.TimeoutExpired:
            log.error("%s did not stop within %.0f s: killed", name, patience)
            child.kill()
            child.wait()

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in reversed(list(self.running)):
            self.stop(name)


def resolve(config: DeployConfig) -> tuple[RunConfig, int]:
    """The run's configuration, written to ``<out>/run.json``, and the index of the named object.

    Raises:
        PalmarError: If anything in it cannot be; nothing has been started then.
    """
    robot = load_robot(config.robot)
    world = lift_world(robot, config.instruction, seed=config.seed, dt=0.001)
    path = Path(config.constraints)
    if not path.is_file():
        path = Path(str(files("palmar.configs") / "constraints" / f"{config.constraints}.yaml"))
    if not path.is_file():
        raise ConfigError(f"no constraint file {config.constraints!r}")
    if config.bundle and not Path(config.bundle).exists():
        raise ConfigError(f"no bundle at {config.bundle!r}")
    out, tag = Path(config.out).resolve(), uuid4().hex[:12]
    wires = {part: str(shared.directory() / f"palmar-{tag}-{part}") for part in PARTS}
    changes = {"arm": config.arm, "hand": config.hand}
    parts = () if config.hardware == "twin" else devices(config.devices or config.robot, robot, wires, changes)
    out.mkdir(parents=True, exist_ok=True)
    if (out / "rollout.mcap").exists():
        raise ConfigError(f"{out} holds a rollout already; name another folder")
    run = RunConfig(
        run_dir=str(out),
        robot=robot.to_json(),
        constraints=path.read_text(),
        control_memory=str(shared.directory() / f"palmar-{tag}-control"),
        twin_memory=str(shared.directory() / f"palmar-{tag}-twin") if config.hardware != "real" else "",
        hardware=config.hardware,
        devices=parts,
        alignment=config.alignment,
        glide=config.glide,
        scene=world.xml,
        objects=world.objects,
        blocks=world.blocks,
        qpos=world.qpos,
        mode=config.mode,
        twin=config.twin,
        priority=config.priority,
        bundle=str(Path(config.bundle).resolve()) if config.bundle else "",
        sway=config.sway,
        instruction=config.instruction,
        task=config.task,
        domain=config.domain or ros_env.random_domain(),
        seed=config.seed,
        die_with_parent=True,
    )
    run.constraint_set(robot)
    run.write(out / "run.json")
    return run, world.target


def deploy(config: DeployConfig, *, progress: Progress | None = None) -> DeployResult:
    """Run one deployment on simulated hardware from start to end.

    Args:
        config: What to run.
        progress: Told what is going on.

    Raises:
        PalmarError: If the configuration is refused, ROS 2 is missing, or a process did not start or died.
    """
    if why := ros_env.missing():
        raise DeployError(why)
    say = progress or (lambda what, share: None)
    run, target = resolve(config)
    folder = Path(run.run_dir)
    environment = ros_env.isolated(run.domain, folder)
    try:
        with ExitStack() as stack:
            children = stack.enter_context(Processes(folder, folder / "run.json", environment))
            up = bring_up(run, children, record=config.record, cameras=config.cameras, say=say)
            outcome = _watch(target, children, up, timeout=config.timeout, say=say)
            say("stopping", 1.0)
            return _wind_down(run, target, children, outcome)
    finally:
        for path in run.memories:
            Path(path).unlink(missing_ok=True)  # only a process that was killed leaves its file


def bring_up(
    run: RunConfig, children: Processes, *, record: bool, say: Progress, cameras: bool = False
) -> dict[str, shared.SharedMap]:
    """Start everything in order and activate it; the shared files, attached.

    Raises:
        DeployError: If something did not start in time.
    """
    maps = start_hardware(run, children, say=say)
    if record:
        children.start("recorder", "recorder")
    if cameras:
        children.start("images", "nodes.images")
    children.start("bridge", "nodes.bridge")
    children.start("policy", "nodes.policy")
    children.start("control", "control")
    say("starting control, bridge and policy", 0.0)
    control = _attach(Path(run.control_memory), "control", children)
    _until(lambda: control.blocks["state"].read() is not None, READY, "control process", children)
    say("configuring and activating nodes", 0.0)
    activate(children, *((*NODES, IMAGES) if cameras else NODES))
    return maps | {"control": control}


def start_hardware(run: RunConfig, children: Processes, *, say: Progress) -> dict[str, shared.SharedMap]:
    """Start the twin, the fakes and the devices that ``run`` has; the twin's shared file, attached.

    Raises:
        DeployError: If one did not start in time, as when a device does not answer on its port.
    """
    maps = {}
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


def activate(children: Processes, *nodes: str) -> None:
    """Configure and activate lifecycle nodes.

    Raises:
        DeployError: If one refused, with the end of the nodes' logs.
    """
    steps = [sys.executable, "-m", "palmar.real_robot.nodes.lifecycle", "--config", str(children.config)]
    for node in nodes:
        steps += ["--node", node]
    steps += ["--do", "configure", "--do", "activate", "--timeout", "60"]
    done = subprocess.run(steps, env=children.environment, capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        logs = {name: children.tail(name) for name in ("bridge", "policy")}
        raise DeployError(f"{done.stderr.strip().splitlines()[-1:]}; {logs}")


def _attach(path: Path, kind: str, children: Processes) -> shared.SharedMap:
    _until(path.exists, READY, kind, children)
    return shared.attach(path, LAYOUTS, kind=kind)


def _until(condition: Callable[[], bool], timeout: float, what: str, children: Processes) -> None:
    end = time.monotonic() + timeout
    while not condition():
        children.check()
        if time.monotonic() > end:
            raise DeployError(f"{what} was not ready within {timeout} s: {children.tail(what)}")
        time.sleep(0.02)


@dataclass(frozen=True)
class _Outcome:
    success: bool | None
    reason: str
    seconds: float
    tracker_error: float | None
    intervention: float


class _Truth:
    """What only a simulated robot knows: whether the task is done, and how well its objects are tracked."""

    def __init__(self, twin: shared.SharedMap | None, target: int):
        self._twin, self._success = twin, Success(target)
        self._seen: bytes | None = None
        self._errors: list[float] = []

    @property
    def known(self) -> bool:
        """Whether there is any."""
        return self._twin is not None

    def done(self) -> bool:
        """Look; whether the task has succeeded."""
        if self._twin is None:
            return False
        truth, tracked = self._twin.blocks["truth"].read(), self._twin.blocks["objects"].read()
        assert truth is not None  # the control process, which is ready, needs a running twin
        if tracked is not None and self._seen != bytes(tracked["seq"]):
            self._seen = bytes(tracked["seq"])
            self._errors.append(np.sum((tracked["position"] - truth["position"]) ** 2, axis=-1).mean())
        return self._success.update(float(truth["t"]), truth["position"], truth["start"])

    def error(self) -> float | None:
        """Root mean square distance of tracked from true positions [m]."""
        return float(np.sqrt(np.mean(self._errors))) if self._errors else None


def _watch(
    target: int,
    children: Processes,
    maps: dict[str, shared.SharedMap],
    *,
    timeout: float,
    say: Progress,
) -> _Outcome:
    """Wait for success by the twin's truth, the end of the time, or a stop."""
    begin, truth, reason = time.monotonic(), _Truth(maps.get("twin"), target), "timeout"
    while reason == "timeout" and (used := time.monotonic() - begin) < timeout:
        children.check()
        state = maps["control"].blocks["state"].read()
        assert state is not None  # the start-up waited for it
        name, why = STATES[int(state["state"])].value, state["reason"].decode()
        if truth.done():
            reason = "success"
        elif name == "latched":
            reason = f"stopped: {why}"
        else:
            say(f"{name} {why}".strip(), used / timeout)
            time.sleep(0.02)
    # Read now: from here on the policy is taken away, which is no intervention of the filter.
    last = maps["control"].blocks["state"].read()
    assert last is not None
    success = reason == "success" if truth.known else None
    return _Outcome(success, reason, time.monotonic() - begin, truth.error(), float(last["intervention_s"]))


def _wind_down(run: RunConfig, target: int, children: Processes, outcome: _Outcome) -> DeployResult:
    """Stop policy, bridge, control, hardware, recorder in this order, and gather what they left."""
    folder = Path(run.run_dir)
    recorded = "recorder" in children.running
    for name in ("policy", "images", "bridge", "control", "hand", "arm", "fakes", "twin"):
        children.stop(name)
    control = json.loads((folder / "control.json").read_text())
    measured: dict[str, Any] = {k: control[k] for k in DeployResult.__dataclass_fields__ if k in control}
    measured["intervention_s"] = outcome.intervention
    result = DeployResult(
        success=outcome.success,
        reason=outcome.reason,
        target=run.objects[target] if run.objects else run.task,
        seconds=outcome.seconds,
        tracker_error_mm=None if outcome.tracker_error is None else 1e3 * outcome.tracker_error,
        rollout=str(folder / "rollout.mcap") if recorded else "",
        run_dir=run.run_dir,
        **measured,
    )
    (folder / "result.json").write_text(json.dumps(asdict(result), indent=1))
    children.stop("recorder", WRITE)
    return result
