"""A deployment: from what is asked for to a run, and the run from its start to what came of it.

``palmar_bringup``'s launch file resolves and starts the very same where ROS 2 is installed.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import numpy as np

from palmar.real_robot import realtime, ros_env, shared
from palmar.real_robot.alignment import GlideConfig
from palmar.real_robot.config import PARTS, RunConfig, TwinConfig, accept
from palmar.real_robot.hardware import devices
from palmar.real_robot.layout import STATES
from palmar.real_robot.processes import DeployError, Processes, Progress, bring_up
from palmar.real_robot.twin import DT
from palmar.real_robot.twin_scene import Success, lift_world
from palmar.safety.types import ConfigError, State
from palmar.sim.robots import load_robot

TASKS = ("lift",)
"""Tasks whose world the twin has, and whose words the policy node knows."""
CORES = {"twin": 2, "fake": 3, "real": 2}
"""Least number of cores at which the control process takes one for itself; with fakes 1.6 go to real-time processes."""


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
    cores: Literal["auto"] | tuple[int, ...] = "auto"
    """The control process's own; ``auto`` is the last one where there are enough, () none."""
    twin: TwinConfig = field(default_factory=TwinConfig)

    def __post_init__(self) -> None:
        accept(hardware=self.hardware, mode=self.mode, alignment=self.alignment)
        if self.task not in TASKS:
            raise ConfigError(f"task is {self.task!r}, accepted {list(TASKS)}: only these can be deployed so far")
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


def resolve(config: DeployConfig) -> tuple[RunConfig, int]:
    """The run's configuration, written to ``<out>/run.json``, and the index of the named object.

    Raises:
        PalmarError: If anything in it cannot be; nothing has been started then.
    """
    robot = load_robot(config.robot)
    world = lift_world(robot, config.instruction, seed=config.seed, dt=DT)
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
        control_cores=realtime.reserve(config.cores, least=CORES[config.hardware]),
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
    with Processes(run) as children:
        up = bring_up(children, record=config.record, cameras=config.cameras, say=say)
        outcome = _watch(target, children, up, timeout=config.timeout, say=say)
        say("stopping", 1.0)
        return _wind_down(run, target, children, outcome)


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
        truth, tracked = self._twin.blocks["truth"].latest(), self._twin.blocks["objects"].latest()
        if truth is None:
            return False
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
    control = maps["control"].blocks["state"]
    begin, truth, reason = time.monotonic(), _Truth(maps.get("twin"), target), "timeout"
    while reason == "timeout" and (used := time.monotonic() - begin) < timeout:
        children.check()
        now = control.latest()
        assert now is not None  # the start-up waited for it
        state, why = STATES[int(now["state"])], now["reason"].decode()
        if truth.done():
            reason = "success"
        elif state is State.LATCHED:
            reason = f"stopped: {why}"
        else:
            say(f"{state.value} {why}".strip(), used / timeout)
            time.sleep(0.02)
    # Read now: from here on the policy is taken away, which is no intervention of the filter.
    last = control.latest()
    assert last is not None
    success = reason == "success" if truth.known else None
    return _Outcome(success, reason, time.monotonic() - begin, truth.error(), float(last["intervention_s"]))


def _wind_down(run: RunConfig, target: int, children: Processes, outcome: _Outcome) -> DeployResult:
    """Stop policy, bridge, control, hardware, recorder in this order, and gather what they left."""
    folder = Path(run.run_dir)
    recorded = "recorder" in children.running
    children.wind_down()
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
    children.stop("recorder")
    return result
