"""Policies of ``lift`` where the world is not the model: the reference hand's contact values, then drawn realities.

Menagerie's LEAP hand says 0.5 at the fingertips and 0.2 elsewhere, elliptic cones with impratio 100, and contacts
ten times as stiff.  MuJoCo takes the larger coefficient of a pair, so a block keeps the hand's values only with a
coefficient of its own that is not above them: blocks have 0.2 here, not their usual 0.6 to 1.2.

``python -m palmar.benchmarks.lift_randomized NAME ... --json FILE``: NAME is a bundle's folder or ``oracle``.
Every policy meets the same starts and goals in every case, so rows can be compared episode by episode.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import mujoco

from palmar.benchmarks.lift import reference_folder
from palmar.policies.bundle import BundlePolicy, load_bundle
from palmar.policies.evaluate import Evaluation, evaluate
from palmar.safety.constraints import load
from palmar.safety.robot import RobotModel
from palmar.sim import menagerie, scene
from palmar.sim.contacts import LEAP_MENAGERIE, Contact, impose
from palmar.sim.env import make_env
from palmar.sim.randomize import Parts
from palmar.sim.reality import Physics, Reality, named
from palmar.sim.robots import load_robot
from palmar.sim.tasks.lift import BLOCKS, LiftConfig, LiftTask
from palmar.sim.tasks.lift_oracle import LiftOracle

SEED = 2_100_000
"""Not a seed of training (from 0), of its evaluations (from 1,000,000) or of ``bench lift`` (2,000,000)."""
WORLDS = 50


@dataclass(frozen=True)
class Case:
    """One world to be good in."""

    name: str
    scene: Callable[[RobotModel], mujoco.MjModel] | None = None
    """None for the task's own."""
    reality: Reality | None = None
    cone: str = "pyramidal"


def cases() -> list[Case]:
    """As trained, the reference hand's values step by step, then what is drawn."""
    whole = LEAP_MENAGERIE
    slip = Contact(tip=whole.tip, link=whole.link)
    cones = replace(whole, solref=None, solimp=None)
    grip = Reality(physics=Physics(grip_friction=(whole.tip, whole.tip)))
    out = [
        Case("as trained"),
        Case("as trained, elliptic", cone="elliptic"),
        Case("friction 0.5 everywhere", reality=grip),
        Case("reference friction", _ours(slip)),
        Case("reference friction, elliptic", _ours(replace(slip, cone="elliptic"))),
        Case("reference friction and cones", _ours(cones)),
        Case("reference friction and cones, solver of this scene", _ours(replace(cones, iterations=None))),
        Case("reference contacts", _ours(whole)),
    ]
    if reference_folder() is not None:
        out += [
            Case("reference models, their friction", _theirs(slip)),
            Case("reference models, their friction, elliptic", _theirs(replace(slip, cone="elliptic"))),
            Case("reference models, their contacts", _theirs(whole)),
        ]
    for level in ("train", "wide"):
        out += [Case(level, reality=named(level)), Case(f"{level}, elliptic", reality=named(level), cone="elliptic")]
    return out


def factors() -> list[Case]:
    """``train`` and ``wide``, one quantity at a time."""
    out = [Case("none")]
    for level in ("train", "wide"):
        all_of = named(level)
        for name in all_of.physics.__dataclass_fields__:
            value = getattr(all_of.physics, name)
            if value:
                out.append(Case(f"{level}: {name}", reality=Reality(physics=Physics(**{name: value}))))
        motors = all_of.actuators
        still = replace(motors, arm_delay=(0.0, 0.0), hand_delay=(0.0, 0.0), jitter=0.0)
        late = replace(motors, hand_motor=None, strength=None)
        out += [
            Case(f"{level}: torque", reality=Reality(actuators=still)),
            Case(f"{level}: delays", reality=Reality(actuators=late)),
            Case(f"{level}: sensors", reality=Reality(sensors=all_of.sensors)),
            Case(level, reality=all_of),
        ]
    return out


def run(
    policies: Iterable[str] = ("oracle", "lift"),
    *,
    episodes: int = 300,
    among: Iterable[Case] | None = None,
    progress: Callable[[str], None] | None = None,
    done: Callable[[dict], None] | None = None,
) -> dict:
    """A row per policy and case; ``done`` gets what there is after each."""
    robot = load_robot()
    path = Path(str(files("palmar.configs"))) / "constraints" / "arm_hand.yaml"
    constraints = load(path, robot.limits)
    rows = []
    for case in list(among if among is not None else cases()):
        model = case.scene(robot) if case.scene else None
        config = LiftConfig(friction=None if case.scene else (0.6, 1.2), cone=case.cone)
        env = make_env(
            LiftTask(config), robot, constraints, num_envs=min(WORLDS, episodes), seed=SEED, model=model,
            reality=case.reality,
        )  # fmt: skip
        for name in policies:
            if progress:
                progress(f"{case.name}: {name}")
            found = evaluate(env, policy_of(name), episodes=episodes, seed=SEED)
            rows.append(_row(case.name, name, found))
            if done:
                done(_told(rows, episodes))
    return _told(rows, episodes)


def _told(rows: list[dict], episodes: int) -> dict:
    return {"name": "lift_randomized", "episodes": episodes, "seed": SEED, "worlds": WORLDS, "rows": rows}


def policy_of(name: str) -> Any:
    """``oracle``, a shipped bundle's name, or the folder of a bundle."""
    if name == "oracle":
        return LiftOracle()
    shipped = Path(str(files("palmar.assets"))) / "bundles" / name
    return BundlePolicy(load_bundle(shipped if shipped.is_dir() else Path(name)))


def _ours(contact: Contact) -> Callable[[RobotModel], mujoco.MjModel]:
    """The task's scene with these contact values."""
    return lambda robot: _with(scene.compose(furnish=LiftTask(LiftConfig()).furnish)[0], robot, contact)


def _theirs(contact: Contact) -> Callable[[RobotModel], mujoco.MjModel]:
    """The scene from Menagerie's models, their meshes and boxes, with these contact values."""

    def build(robot: RobotModel) -> mujoco.MjModel:
        folder = reference_folder()
        assert folder is not None
        spec = menagerie.reference_robot_spec(folder)
        scene.add_blocks(spec, BLOCKS)
        scene.add_contact_sensors(spec)
        return _with(spec.compile(), robot, contact)

    return build


def _with(model: mujoco.MjModel, robot: RobotModel, contact: Contact) -> mujoco.MjModel:
    """``model`` with these contact values at hand and blocks."""
    return impose(model, contact, parts=Parts.of(model, robot, tuple(b.name for b in BLOCKS)), tips=robot.tip_geoms)


def _row(case: str, policy: str, found: Evaluation) -> dict[str, Any]:
    told = found.to_json()
    over = {n: c for n, c in told["constraints"].items() if c["mean"] > (c["budget"] or 0.0)}
    return {
        "case": case,
        "policy": policy,
        "episodes": found.episodes,
        "lifted": found.successes,
        "success_interval": [round(x, 4) for x in told["success_interval"]],
        "within_budgets": found.within_budgets,
        "over": [f"{n} {c['mean']:.3f} of {c['budget']}" for n, c in over.items()],
        "costs": {n: _short(c) for n, c in told["constraints"].items()},
        "force_p50_p95_max_N": _short(told["peak_force_p50_p95_max"]),
        "succeeded": "".join("01"[int(s)] for s in found.success),
    }


def _short(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _short(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_short(v) for v in value]
    return round(value, 4) if isinstance(value, float) else value


def main() -> None:
    """From the command line."""
    from palmar.cli import provenance

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("policies", nargs="+", metavar="NAME")
    parser.add_argument("--episodes", type=int, default=300)
    parser.add_argument("--factors", action="store_true", help="one quantity of train and wide at a time")
    parser.add_argument("--cases", nargs="*", help="only these")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    chosen = [c for c in (factors() if args.factors else cases()) if not args.cases or c.name in args.cases]
    record = provenance.run_record({"bench": "lift_randomized"}, None)

    def keep(found: dict) -> None:
        row = found["rows"][-1]
        print(row["case"], "|", row["policy"], row["lifted"], "of", row["episodes"], row["over"], flush=True)
        if args.json is not None:
            provenance.write(args.json, {**found, "record": record})

    run(args.policies, episodes=args.episodes, among=chosen, done=keep)


if __name__ == "__main__":
    main()
