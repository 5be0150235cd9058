"""From names to things: the only place that knows every task and engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from palmar.cli.config import Composed
from palmar.safety import config
from palmar.safety.types import ConfigError

if TYPE_CHECKING:
    from palmar.policies.rl.config import TrainConfig
    from palmar.rollouts.rollout import Clearance
    from palmar.safety.constraints import ConstraintSet
    from palmar.safety.robot import RobotModel
    from palmar.sim.reality import Reality

ENGINES = ("mujoco", "mujoco_warp", "isaaclab")
EVERYWHERE = ("lift", "reach")
"""Tasks that every engine knows; the others are on engine ``mujoco``."""


@dataclass(frozen=True)
class CpuConfig:
    """How engine ``mujoco`` runs."""

    threads: int = 0
    """MuJoCo threads, 0: as many as there are cores."""

    def __post_init__(self) -> None:
        if not 0 <= self.threads <= 1024:
            raise ConfigError(f"threads must be in [0, 1024], got {self.threads}")


@dataclass(frozen=True)
class IsaacConfig:
    """How engine ``isaaclab`` runs."""

    device: str = "cpu"
    """``cpu`` or ``cuda:0``."""
    physics: str = "newton_cpu"
    """A preset of ``sim.engines.isaaclab_cfg``: ``newton_cpu``, ``newton_gpu``; ``physx`` is not run here."""


@dataclass(frozen=True)
class Setup:
    """A composed configuration, checked and made into things."""

    composed: Composed
    task: Any
    """Of ``palmar.sim.tasks``."""
    robot: RobotModel
    constraints: ConstraintSet
    engine: Any
    """CpuConfig, WarpConfig or IsaacConfig."""
    algo: TrainConfig
    """Of the algorithm it names."""
    reality: Reality
    """How worlds differ from the model."""

    def resolved(self) -> dict[str, Any]:
        """What was asked, with every default filled in."""
        return {
            "choices": self.composed.choices,
            "overrides": self.composed.overrides,
            "task": self.task.config,
            "engine": self.engine,
            "algo": self.algo,
            "randomize": self.reality,
            "constraints": self.composed.values["constraints"],
        }


def setup(composed: Composed) -> Setup:
    """Everything a training or an evaluation is made of.

    Raises:
        ConfigError: If a key is unknown or a value impossible, naming the accepted ones.
    """
    from palmar.policies.algorithms import find as algorithms
    from palmar.safety import constraints
    from palmar.sim.reality import Reality
    from palmar.sim.robots import load_robot
    from palmar.sim.tasks import find

    values = composed.values
    found = find.load(composed.choices["task"])
    engine = config.load(_engine_config(composed.choices["engine"]), values["engine"], where="engine")
    named = values["algo"].get("algorithm", composed.choices["algo"])
    algo = config.load(algorithms.load(named).config, {**values["algo"], "algorithm": named}, where="algo")
    reality = config.load(Reality, values["randomize"], where="randomize")
    asked = found.task(config.load(found.config, values["task"], where="task"))
    robot = load_robot(composed.choices["robot"])
    held = constraints.parse(composed.constraints_text(), robot.limits)
    for name, weights in (("budgets", algo.budgets), ("penalties", getattr(algo, "penalties", {}))):
        _only_known(f"algo.{name}", weights, held)
    return Setup(composed, asked, robot, held, engine, algo, reality)


def engines(task: str) -> list[str]:
    """Engines that know a task."""
    return list(ENGINES if task in EVERYWHERE else ENGINES[:1])


def _engine_config(engine: str) -> type:
    """The configuration's class."""
    if engine == "mujoco_warp":
        from palmar.sim.engines.warp_config import WarpConfig

        return WarpConfig
    return {"mujoco": CpuConfig, "isaaclab": IsaacConfig}[engine]


def environment(parts: Setup, *, num_envs: int, seed: int, stagger: bool = False) -> Any:
    """A vector environment of the task with the constraints' costs, on the engine that was chosen.

    Raises:
        ConfigError: If the engine does not know the task, or cannot randomise, or is not installed.
    """
    from palmar.sim.reality import Reality

    engine = parts.composed.choices["engine"]
    if engine == "mujoco":
        return _on_threads(parts, num_envs, seed, stagger)
    if parts.reality != Reality():
        raise ConfigError(f"engine {engine} has no randomize={parts.composed.choices['randomize']}, only none")
    asked: dict[str, Any] = {"num_envs": num_envs, "seed": seed, "stagger": stagger}
    if engine == "isaaclab":
        from palmar.sim.engines import isaaclab_client

        own = {"device": parts.engine.device, "physics": parts.engine.physics}
        return isaaclab_client.make_env(parts.task, parts.robot, parts.constraints, **asked, **own)
    try:
        from palmar.sim.device.env import make_device_env
    except ModuleNotFoundError as error:
        raise ConfigError(f"engine mujoco_warp needs the extra gpu ({error}): pip install 'palmar[gpu]'") from None
    return make_device_env(parts.task, parts.robot, parts.constraints, **asked, config=parts.engine)


def _on_threads(parts: Setup, num_envs: int, seed: int, stagger: bool) -> Any:
    """Engine ``mujoco``."""
    from palmar.sim.env import make_env
    from palmar.sim.reality import Reality

    return make_env(
        parts.task, parts.robot, parts.constraints, num_envs=num_envs, seed=seed, nthread=parts.engine.threads,
        stagger=stagger, reality=None if parts.reality == Reality() else parts.reality,
    )  # fmt: skip


def clearance_of(robot: RobotModel) -> Clearance:
    """Distances and palm position from recorded joint positions, by the filter's own routine."""
    import numpy as np

    from palmar.safety.geometry import FAR, Kinematics

    kinematics = Kinematics.from_model(robot)

    def routine(q: Any) -> tuple[Any, Any, Any]:
        rows = [kinematics.clearances(row, near=FAR) for row in q]
        own = np.array([min(pair.min(), FAR) for pair, _ in rows])
        return (
            own,
            np.array([table.min() for _, table in rows]),
            np.array([kinematics.palm(row) for row in q]),
        )

    return routine


def _only_known(where: str, given: Any, held: ConstraintSet) -> None:
    for name in given:
        if name not in held.names:
            raise ConfigError(f"{where}: {config.unknown('constraint', name, held.names)}")
