"""Palmar's tasks for ``isaaclab train --task Palmar-Lift ...``: the module of the entry point ``isaaclab.tasks``.

Isaac Lab loads it to learn the names; nothing of Isaac Lab is imported here, so it costs nothing and works anywhere.
"""

from __future__ import annotations

import gymnasium

ENGINE = "palmar.sim.engines.isaaclab"
TASKS = {"Palmar-Reach": "ReachCfg", "Palmar-Lift": "LiftCfg"}
"""Name in Isaac Lab to configuration."""

for _name, _cfg in TASKS.items():
    gymnasium.register(
        id=_name,
        entry_point=f"{ENGINE}:PalmarEnv",
        disable_env_checker=True,
        kwargs={
            "env_cfg_entry_point": f"{ENGINE}_cfg:{_cfg}",
            "rsl_rl_cfg_entry_point": f"{ENGINE}_agents:{_cfg.replace('Cfg', 'RunnerCfg')}",
            "default_agent": "rsl_rl",
        },
    )
