"""The resolved configuration of one run: one JSON file that every process reads."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from palmar.real_robot.alignment import MODES as ALIGN
from palmar.real_robot.alignment import GlideConfig
from palmar.safety import constraints
from palmar.safety.config import load
from palmar.safety.robot import RobotModel
from palmar.safety.types import ConfigError

FORMAT = 1
HARDWARE = ("twin", "fake", "real")
MODES = ("enforce", "shadow")
PARTS = ("arm", "hand")
"""Devices of a robot, the fastest first."""


@dataclass(frozen=True)
class TwinConfig:
    """How imperfect the simulated hardware is."""

    q_noise: float = 2e-5
    """Standard deviation of a joint position [rad]."""
    qd_noise: float = 2e-3
    """Standard deviation of a joint velocity [rad/s]."""
    q_step: float = 1e-6
    """Quantisation of a joint position [rad]."""
    latency: int = 1
    """Age of a delivered joint state [ticks of 1 ms]."""
    watchdog: int = 20
    """Ticks without a new command after which the hardware stops by itself (FR3: 20 lost packets)."""
    tracker_rate: float = 15.0
    """Frames of the object tracker per second [Hz]."""
    tracker_noise: float = 0.002
    """Standard deviation of a tracked coordinate [m]."""
    tracker_delay: float = 0.06
    """[s]"""
    tracker_dropout: float = 0.05
    """Probability that a frame is lost."""
    state_every: int = 10
    """The true state is recorded at every so many physics steps."""

    def __post_init__(self) -> None:
        if min(self.q_noise, self.qd_noise, self.tracker_noise, self.tracker_delay, self.latency) < 0:
            raise ConfigError(f"noise, delay and latency must be >= 0, got {self}")
        if self.q_step <= 0 or self.watchdog < 1 or self.state_every < 1 or self.tracker_rate <= 0:
            raise ConfigError(f"q_step, watchdog, state_every and tracker_rate must be positive, got {self}")


@dataclass(frozen=True)
class DeviceConfig:
    """One device: the joints that one driver moves, served by one process on one wire."""

    name: str
    """``arm`` or ``hand``."""
    driver: str
    """See ``palmar.real_robot.drivers.find``."""
    joints: tuple[str, ...]
    """Palmar's names, in the wire's order."""
    memory: str
    """Path of the wire's shared file."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the driver's own configuration: address, port, ..."""
    silence: float = 0.02
    """Time without a new command after which the device process rests the hardware [s]."""
    fresh: float = 0.02
    """Age from which its state counts as none [s]."""

    def __post_init__(self) -> None:
        if self.name not in PARTS or not self.joints:
            raise ConfigError(f"a device is one of {list(PARTS)} and has joints, got {self.name!r}, {self.joints}")
        if not (0.002 <= self.silence <= 1.0 and 0.002 <= self.fresh <= 0.1):
            raise ConfigError(
                f"{self.name}: need 0.002 <= silence <= 1 and 0.002 <= fresh <= 0.1, got {self.silence}, {self.fresh}"
            )


@dataclass(frozen=True)
class RunConfig:
    """Everything the processes of one run agree on."""

    run_dir: str
    robot: dict[str, Any]
    """``RobotModel.to_json``."""
    constraints: str
    """Text of the constraint file."""
    control_memory: str
    """Path of the control process's shared file."""
    hardware: str = "twin"
    """``twin``, ``fake`` (real drivers, their hardware's fakes, the twin's physics) or ``real``."""
    devices: tuple[DeviceConfig, ...] = ()
    """Arm and hand, in this order; none with ``twin``, which is one robot."""
    mode: str = "enforce"
    """What the filter does: enforce, or shadow (judge only; simulated hardware only)."""
    twin_memory: str = ""
    scene: str = ""
    """MJCF of the twin's world."""
    objects: tuple[str, ...] = ()
    qpos: tuple[float, ...] = ()
    """Start state of the twin, (nq,)."""
    twin: TwinConfig = field(default_factory=TwinConfig)
    alignment: str = "glide"
    """What happens when the policy's first command is far from where the robot stands: ``glide`` or ``refuse``."""
    glide: GlideConfig = field(default_factory=GlideConfig)
    priority: int = 60
    """Real-time priority of the control process, where allowed; devices' is 5 higher, fakes' 8, the twin's 10."""
    control_cores: tuple[int, ...] = ()
    """Cores of the control process, used by no other process of the run; () leaves all where the kernel puts them."""
    period: float = 0.001
    bundle: str = ""
    sway: float = 0.03
    """How far joints sway where there is no bundle [rad]."""
    instruction: str = ""
    task: str = "lift"
    blocks: tuple[dict[str, Any], ...] = ()
    """The blocks on the table, as the task describes them."""
    domain: int = 0
    """ROS domain."""
    namespace: str = ""
    seed: int = 0
    die_with_parent: bool = False
    """Ask the kernel for SIGTERM when the process that started this one dies."""
    format: int = FORMAT

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise ConfigError(f"run configuration of format {self.format!r}, this Palmar reads {FORMAT}")
        accept(hardware=self.hardware, mode=self.mode, alignment=self.alignment)
        if not 0 < self.priority < 90 or not 0.0005 <= self.period <= 0.1:
            raise ConfigError(f"need 0 < priority < 90 and 0.0005 <= period <= 0.1, got {self.priority}, {self.period}")
        if bool(self.devices) == (self.hardware == "twin"):
            raise ConfigError(f"hardware {self.hardware!r} with devices {[d.name for d in self.devices]}")

    def device(self, name: str) -> DeviceConfig:
        """The device called ``name``.

        Raises:
            ConfigError: If there is none.
        """
        for device in self.devices:
            if device.name == name:
                return device
        raise ConfigError(f"no device {name!r}, this run has {[d.name for d in self.devices]}")

    @property
    def memories(self) -> tuple[str, ...]:
        """Every shared file of the run."""
        return tuple(p for p in (self.control_memory, self.twin_memory, *(d.memory for d in self.devices)) if p)

    def robot_model(self) -> RobotModel:
        """The robot."""
        return RobotModel.from_json(self.robot)

    def constraint_set(self, robot: RobotModel) -> constraints.ConstraintSet:
        """The constraints, bound to the robot's limits."""
        return constraints.parse(self.constraints, robot.limits)

    def write(self, path: Path) -> None:
        """Store as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1))


def accept(*, hardware: str, mode: str, alignment: str) -> None:
    """Check what a deployment and its run both name.

    Raises:
        ConfigError: If one is unknown, or real hardware would get commands that nothing filters.
    """
    for name, got, accepted in (
        ("hardware", hardware, HARDWARE),
        ("mode", mode, MODES),
        ("alignment", alignment, ALIGN),
    ):
        if got not in accepted:
            raise ConfigError(f"{name} is {got!r}, accepted {list(accepted)}")
    if hardware == "real" and mode == "shadow":
        raise ConfigError("mode shadow lets commands pass unfiltered: accepted with hardware twin or fake only")


def read(path: Path) -> RunConfig:
    """The configuration stored at ``path``.

    Raises:
        ConfigError: If it cannot be read, or has unknown keys or impossible values.
    """
    try:
        raw = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read run configuration {path}: {error}") from error
    return load(RunConfig, raw, where=str(path))
