"""Configuration of Palmar's environments in Isaac Lab: which task, robot and constraint file, and which physics.

Choose the physics with ``physics=<name>``: ``newton_cpu`` (default), ``newton_gpu``, ``physx`` (Isaac Sim; not run).
The scene, the spaces and the length of an episode follow from the task and are filled in by the environment.
"""

from __future__ import annotations

from isaaclab.envs import DirectRLEnvCfg
from isaaclab.sim import SimulationCfg
from isaaclab.utils import configclass
from isaaclab_newton.physics import MJWarpSolverCfg, NewtonCfg
from isaaclab_physx.physics import PhysxCfg
from isaaclab_tasks.utils import PresetCfg

from palmar.sim.engines.isaaclab_scene import PalmarSceneCfg

TIMESTEP = 0.005
"""Physics step, as in our MJCF [s]."""


CCD_TOLERANCE = 1e-5
"""Of convex collisions [m], as in engine ``mujoco_warp``."""


@configclass
class SolverCfg(MJWarpSolverCfg):
    """Isaac Lab hands on what Newton's solver knows; its own configuration leaves this out."""

    ccd_tolerance: float = CCD_TOLERANCE


def newton(*, cone: str, nconmax: int, njmax: int) -> NewtonCfg:
    """MuJoCo Warp with room for so many contacts and constraint rows per world; integrator and steps of our MJCF."""
    solver = SolverCfg(
        integrator="implicitfast", cone=cone, impratio=1.0, iterations=20, ls_iterations=30, tolerance=1e-6,
        nconmax=nconmax, njmax=njmax,
    )  # fmt: skip
    return NewtonCfg(solver_cfg=solver)


@configclass
class PhysicsCfg(PresetCfg):
    """Names that ``physics=`` accepts.

    The cone is pyramidal as in our MJCF; an elliptic one is ten times slower on a CPU.
    """

    newton_cpu: NewtonCfg = newton(cone="pyramidal", nconmax=32, njmax=240)
    newton_gpu: NewtonCfg = newton(cone="pyramidal", nconmax=64, njmax=400)
    physx: PhysxCfg = PhysxCfg()
    default: NewtonCfg = newton_cpu


@configclass
class PalmarEnvCfg(DirectRLEnvCfg):
    """Any task of ``palmar.sim.tasks`` on any robot with a USD."""

    task: str = "reach"
    """Of ``configs/task``; its values are those of the YAML file, less what ``task_values`` says."""
    task_values: dict = {}  # noqa: RUF012  (configclass copies it)
    """Values of the task's configuration that replace the file's."""
    robot: str = "fr3_leap"
    """Of ``configs/robot``."""
    constraints: str = "arm_hand"
    """Of ``configs/constraints``; an empty name switches costs off."""
    stagger: bool = True
    """Start the first episodes at random ages, so that they do not all end together."""
    decimation: int = 10
    episode_length_s: float = 3.0
    action_space: int = 1
    observation_space: int = 1
    state_space: int = 0
    seed: int = 0
    sim: SimulationCfg = SimulationCfg(dt=TIMESTEP, render_interval=10, physics=PhysicsCfg())
    scene: PalmarSceneCfg = PalmarSceneCfg(num_envs=64, env_spacing=3.0)


@configclass
class ReachCfg(PalmarEnvCfg):
    """Task ``reach``."""

    task: str = "reach"


@configclass
class LiftCfg(PalmarEnvCfg):
    """Task ``lift``."""

    task: str = "lift"
