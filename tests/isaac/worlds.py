"""Environments for the tests of this folder."""

from palmar.sim.engines.isaaclab import PalmarEnv
from palmar.sim.engines.isaaclab_cfg import PalmarEnvCfg, PhysicsCfg

WORLDS = 4


def made(parts, *, worlds=WORLDS, physics=None, seed=3):
    """An environment of the parts' task; close it before the next one is made."""
    cfg = PalmarEnvCfg(stagger=False, seed=seed)
    cfg.scene.num_envs, cfg.sim.device = worlds, "cpu"
    cfg.sim.physics = physics or PhysicsCfg().newton_cpu
    return PalmarEnv(cfg, parts=parts)
