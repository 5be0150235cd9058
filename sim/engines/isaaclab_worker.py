"""The process in Isaac Lab's environment that steps worlds for ``isaaclab_client``; ends when the client does.

python -m palmar.sim.engines.isaaclab_worker <file descriptor of a socket>
"""

from __future__ import annotations

import socket
import sys
from typing import Any

import numpy as np
import torch

from palmar.safety import config as loader
from palmar.safety import constraints as constraint_file
from palmar.safety.types import ConfigError, PalmarError
from palmar.sim.engines import isaaclab_wire as wire
from palmar.sim.engines.isaaclab import PalmarEnv
from palmar.sim.engines.isaaclab_cfg import PalmarEnvCfg, PhysicsCfg
from palmar.sim.robots import load_robot
from palmar.sim.tasks import find

Array = np.ndarray
INFO = ("terminal_obs", "success", "margin", "peak_force", "broken")


def made(asked: dict[str, Any]) -> PalmarEnv:
    """The environment that a client asks for.

    Raises:
        ConfigError: If a name is unknown or a value impossible.
    """
    known = [name for name in PhysicsCfg.__dataclass_fields__ if name != "default"]
    if asked["physics"] not in known:
        raise ConfigError(loader.unknown("physics", asked["physics"], known))
    found, robot = find.load(asked["task"]), load_robot(asked["robot"])
    task = found.task(loader.load(found.config, asked["values"], where="task"))
    held = None if asked["constraints"] is None else constraint_file.parse(asked["constraints"], robot.limits)
    cfg = PalmarEnvCfg(stagger=asked["stagger"], seed=asked["seed"])
    cfg.scene.num_envs, cfg.sim.device = asked["num_envs"], asked["device"]
    cfg.sim.physics = getattr(PhysicsCfg(), asked["physics"])
    return PalmarEnv(cfg, parts=(task, robot, held))


def answer(env: PalmarEnv, head: dict[str, Any], arrays: dict[str, Array]) -> tuple[dict[str, Any], dict[str, Array]]:
    """What a request gives.

    Raises:
        PalmarError: If it is refused.
    """
    if head["do"] == "reset":
        return {}, {"obs": plain(env.reset(head["seed"])[0]["policy"])}
    obs, reward, terminated, truncated, extras = env.step(torch.from_numpy(arrays["action"]))
    step = {
        "obs": obs["policy"], "reward": reward, "cost": extras["cost"], "terminated": terminated,
        "truncated": truncated, **{name: extras[name] for name in INFO},
    }  # fmt: skip
    return {"broken": env.broken}, {name: plain(x) for name, x in step.items()}


def plain(x: torch.Tensor) -> Array:
    """On the host."""
    return x.detach().cpu().numpy()


def serve(sock: socket.socket) -> None:
    """Answer until the client is gone."""
    env, head, arrays = None, *wire.receive(sock)
    torch.set_num_threads(1)
    while True:
        try:
            if env is None:
                env = made(head)
                done = {"obs_dim": env.io.obs_dim, "max_steps": env.max_steps, "names": list(env.constraint_names)}
                wire.send(sock, {**done, "action_dim": env.io.action_dim})
            else:
                wire.send(sock, *answer(env, head, arrays))
        except PalmarError as error:
            wire.send(sock, {"error": type(error).__name__, "message": str(error)})
        head, arrays = wire.receive(sock)


def main() -> None:
    """Serve the socket given on the command line."""
    with socket.socket(fileno=int(sys.argv[1])) as sock:
        try:
            serve(sock)
        except EOFError:
            pass
    sys.exit(0)


if __name__ == "__main__":
    main()
