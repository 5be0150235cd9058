"""Memory that one more world takes: each number of worlds in a process of its own, and the growth between two.

``python -m palmar.benchmarks.sim_memory WORLDS WORD...`` is such a process; the words compose a configuration.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

STEPS = 3
"""Control steps before a process looks at itself: every buffer is made by then."""


def mb_per_world(words: list[str], worlds: tuple[int, int] = (256, 1024)) -> float:
    """Growth of the proportional set size of a process with an environment, costs on, per world [MB].

    Args:
        words: They compose the configuration.
        worlds: Two numbers of worlds, between which growth is measured.

    Raises:
        RuntimeError: If such a process fails; its last words are told.
    """
    small, large = (_process(n, words) for n in worlds)
    return round((large - small) / (worlds[1] - worlds[0]), 4)


def _process(worlds: int, words: list[str]) -> float:
    command = [sys.executable, "-m", __name__, str(worlds), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command[2:])} failed: {done.stderr.strip()[-300:]}")
    return float(done.stdout.split()[-1])


def proportional_mb() -> float:
    """This process's memory, what it shares with others by their number [MB]."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024 / 1e6


def main(worlds: int, words: list[str]) -> None:
    """Make the environment, step it and print this process's memory [MB]."""
    import numpy as np

    from palmar.cli.config import compose
    from palmar.cli.wiring import environment, setup

    env = environment(setup(compose(words)), num_envs=worlds, seed=0)
    for _ in range(STEPS):
        env.step(np.zeros((worlds, env.action_dim)))
    print(proportional_mb())


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
