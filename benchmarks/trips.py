"""How often the filter gets in the way of motion that was safe: false trips and interventions.

Lifts of the scripted oracle and of the shipped policy are recorded in simulation.  Episodes in which no enforced
constraint cost anything are safe motion; their recorded targets and readings go through a filter at 1 kHz, with the
sensors' noise and one tick of latency.  A *trip* is a tick after the first chunk in which the filter is not in RUN, or
sends the stop law's command instead of the QP's.  An *intervention* is a tick whose command it changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from palmar.benchmarks.checkpoint import run_jobs
from palmar.benchmarks.filter import DT, Reading
from palmar.benchmarks.provenance import meaning
from palmar.safety.constraints import load
from palmar.safety.filter import Filter, FilterConfig
from palmar.safety.hulls import shipped_detail
from palmar.safety.robot import RobotModel
from palmar.safety.types import Chunk, Measurement, State

Array = np.ndarray
EPISODES = 16
"""Episodes of a job; odd seeds are the policy's, even ones the oracle's."""
SEED = 3_000_000
Q_NOISE, QD_NOISE = 2e-5, 2e-3
"""Of the twin: ``real_robot.config.TwinConfig`` [rad], [rad/s]."""


def record(seed: int) -> tuple[RobotModel, Array, Array, Measurement, Array]:
    """Targets (T, B, n), start poses (B, n), samples (T, S, B, ...) and whether an episode was safe, (B,)."""
    from palmar.policies.bundle import BundlePolicy, load_bundle
    from palmar.sim.env import make_env
    from palmar.sim.robots import load_robot
    from palmar.sim.tasks.lift import LiftConfig, LiftTask
    from palmar.sim.tasks.lift_oracle import LiftOracle

    robot = load_robot()
    constraints = load(Path(str(files("palmar.configs"))) / "constraints" / "arm_hand.yaml", robot.limits)
    env = make_env(LiftTask(LiftConfig()), robot, constraints, num_envs=EPISODES, seed=seed, nthread=1)
    bundle = Path(str(files("palmar.assets"))) / "bundles" / "lift"
    policy: Any = BundlePolicy(load_bundle(bundle)) if seed % 2 else LiftOracle()
    targets, samples = [], []
    advance, to_joints = env.engine.advance, env.io.joint_target

    def advance_and_keep(*sent: Array, **given: Array | None) -> Measurement:
        samples.append(advance(*sent, **given))
        return samples[-1]

    def target_and_keep(action: Array) -> Array:
        targets.append(to_joints(action).copy())
        return targets[-1]

    env.engine.advance, env.io.joint_target = advance_and_keep, target_and_keep  # type: ignore[method-assign]
    obs, start = env.reset(seed), env.engine.q.copy()
    hard = np.array([c.runtime == "hard row" for c in constraints.constraints])
    cost, carry = np.zeros(EPISODES), policy.start(EPISODES)
    for _ in range(env.max_steps):
        action, carry = policy.act(obs, carry)
        step = env.step(action)
        obs, cost = step.obs, cost + step.cost[:, hard].sum(axis=1)
    keep = ("q", "qd", "tau")
    kept = {k: np.stack([getattr(s, k) for s in samples]) for k in keep}
    return robot, np.stack(targets), start, kept, cost == 0  # type: ignore[return-value]


def play(filter_: Filter, targets: Array, start: Array, kept: dict[str, Array], rng: np.random.Generator) -> Counter:
    """One recorded episode through a started filter: targets (T, n), samples (T, S, n); counts of ticks."""
    steps, substeps = kept["q"].shape[:2]
    fine = round(0.005 / DT)
    period, n = substeps * fine * DT, targets.shape[1]
    q = np.concatenate([start[None], kept["q"].reshape(-1, n)])
    qd = np.concatenate([np.zeros((1, n)), kept["qd"].reshape(-1, n)])
    tau = np.concatenate([np.zeros((1, n)), kept["tau"].reshape(-1, n)])
    told: Counter = Counter()
    filter_.start(Reading(0.0, 0, start, np.zeros(n), np.zeros(n)))
    for k in range(steps * substeps * fine):
        now = (k + 1) * DT
        if k % (substeps * fine) == 0:
            i = k // (substeps * fine)
            filter_.offer(Chunk(q=targets[i][None], t=np.array([k * DT + period]), seq=told["chunks"], received=k * DT))
            told["chunks"] += 1
        a, part = divmod(k, fine)  # one tick of latency: the state of the tick before
        part /= fine
        reading = Reading(
            now,
            k + 1,
            (1 - part) * q[a] + part * q[a + 1] + Q_NOISE * rng.standard_normal(n),
            (1 - part) * qd[a] + part * qd[a + 1] + QD_NOISE * rng.standard_normal(n),
            tau[a + 1],
        )
        _, verdict = filter_.tick(reading, now)
        told["ticks"] += 1
        stopped = verdict.reason.startswith(("unverified", "qp_", "reflex"))
        if verdict.state is not State.RUN or stopped:
            told["trips"] += 1
            told[f"trip:{verdict.reason}"] += 1
        elif verdict.changed:
            told["interventions"] += 1
            told[f"edit:{verdict.reason}"] += 1
    return told


def _filter(robot: RobotModel) -> Filter:
    """The filter as it is deployed."""
    path = Path(str(files("palmar.configs"))) / "constraints" / "arm_hand.yaml"
    return Filter(robot, load(path, robot.limits), FilterConfig(detail=shipped_detail(robot)))


def batch(seed: int) -> dict[str, int]:
    """Counts of the safe episodes of one seed."""
    robot, targets, start, kept, safe = record(seed)
    rng, told = np.random.default_rng(seed), Counter()
    for b in np.flatnonzero(safe):
        told += play(_filter(robot), targets[:, b], start[b], {k: v[:, :, b] for k, v in kept.items()}, rng)  # type: ignore[attr-defined]
    told["episodes"], told["unsafe"] = int(safe.sum()), int((~safe).sum())
    return dict(told)


def run(
    *,
    hours: float = 30.0,
    checkpoint: Path | None = None,
    progress: Callable[..., None] | None = None,
    workers: int | None = None,
) -> dict[str, Any]:
    """The benchmark: ``hours`` of simulated safe motion.

    Args:
        hours: How much motion [h].
        checkpoint: File to go on from and to append to.
        progress: Called with the name of the part and the share of it that is done.
        workers: Processes; None for one per core.
    """
    told: Counter = Counter()
    wanted = int(hours * 3600 / DT)
    seeds = range(SEED, SEED + 2 + int(2 * hours * 3600 / (EPISODES * 5)))
    for _, result in run_jobs(batch, list(seeds), checkpoint=checkpoint, meaning=meaning(), workers=workers):
        told += Counter(result)
        if progress:
            progress("safe motion", told["ticks"] / wanted)
        if told["ticks"] >= wanted:
            break
    row = {
        "hours": round(told["ticks"] * DT / 3600, 3),
        "episodes": told["episodes"],
        "unsafe_episodes_left_out": told["unsafe"],
        "trips": told["trips"],
        "intervention_share": round(told["interventions"] / max(1, told["ticks"]), 6),
        "reasons": {k: v for k, v in sorted(told.items()) if ":" in k},
    }
    return {"rows": [row], "seed": SEED}
