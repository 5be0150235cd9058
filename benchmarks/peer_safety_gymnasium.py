"""How much of a Safety-Gymnasium step is physics.  Run by hand, with a Python of its own: it needs 3.10.

    python3.10 -m venv /tmp/sg && /tmp/sg/bin/pip install safety-gymnasium==1.0.0
    /tmp/sg/bin/python benchmarks/peer_safety_gymnasium.py benchmarks/results/safety_gymnasium_step.json

Thread CPU time of ``env.step`` with random actions, and within it of ``mj_step`` (physics) and of ``mj_forward`` (which
Safety-Gymnasium calls besides, for sensors); one environment, as the package runs them; resets are not counted.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

TASKS = ("SafetyPointGoal1-v0", "SafetyCarGoal1-v0", "SafetyAntVelocity-v1")
PACKAGES = ("safety-gymnasium", "gymnasium", "mujoco", "numpy")
ROUNDS, STEPS = 5, 100


def main(out: Path) -> None:
    """Measure every task and write the rows."""
    rows = [measure(name) for name in TASKS]
    found = {
        "name": "safety_gymnasium_step",
        "rows": rows,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "rounds": ROUNDS,
        "steps": STEPS,
        "clock": "thread CPU time",
    }
    out.write_text(json.dumps(found, indent=1) + "\n")
    for row in rows:
        print(row)


def measure(name: str) -> dict[str, Any]:
    """Shares of a task's step, medians over ROUNDS rounds of STEPS steps, with the smallest and the largest."""
    import mujoco
    import safety_gymnasium

    spent = {"mj_step": 0.0, "mj_forward": 0.0}
    originals = {key: getattr(mujoco, key) for key in spent}
    for key, call in originals.items():
        setattr(mujoco, key, _counted(call, key, spent))
    try:
        env = safety_gymnasium.make(name)
        env.reset(seed=0)
        env.action_space.seed(0)
        rounds = [_round(env, spent) for _ in range(ROUNDS + 1)][1:]
    finally:
        for key, call in originals.items():
            setattr(mujoco, key, call)
    total = sorted(r["total"] for r in rounds)
    shares = {key: sorted(r[key] / r["total"] for r in rounds) for key in spent}
    return {
        "task": name,
        "env_steps_per_cpu_s": round(STEPS / total[len(total) // 2], 1),
        **{f"share_{key}": [round(s[k], 4) for k in (len(s) // 2, 0, -1)] for key, s in shares.items()},
    }


def _counted(call: Callable[..., Any], key: str, spent: dict[str, float]) -> Callable[..., Any]:
    def timed(*args: Any, **kwargs: Any) -> Any:
        begin = time.thread_time()
        try:
            return call(*args, **kwargs)
        finally:
            spent[key] += time.thread_time() - begin

    return timed


def _round(env: Any, spent: dict[str, float]) -> dict[str, float]:
    """CPU seconds of STEPS steps, resets left out."""
    total, counted = 0.0, dict.fromkeys(spent, 0.0)
    for _ in range(STEPS):
        action = env.action_space.sample()
        before, begin = dict(spent), time.thread_time()
        _, _, _, terminated, truncated, _ = env.step(action)
        total += time.thread_time() - begin
        for key in spent:
            counted[key] += spent[key] - before[key]
        if terminated or truncated:
            env.reset()
    return {"total": total, **counted}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
