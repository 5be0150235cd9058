"""Faults of people and of what sees them: row 15."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache

import mujoco
import numpy as np

from palmar.benchmarks.faults_case import Case, Expect
from palmar.benchmarks.injector import BEGIN, DT, Fault, Rig, robot
from palmar.safety.types import People

Array = np.ndarray


class Walker:
    """A person: an upright capsule that walks towards the hand and stands next to the robot."""

    def __init__(self, angle: float, speed: float, *, begin: float = 3.0, stand: float = 0.25) -> None:
        """From ``begin`` to ``stand`` [m] beside the hand, at ``angle`` from the x axis [rad], at ``speed`` [m/s]."""
        self.way, self.speed = np.array([np.cos(angle), np.sin(angle), 0.0]), speed
        self.begin, self.stand = begin, stand

    def at(self, rig: Rig) -> Array:
        """Where the person's axis is [m], (3,)."""
        walked = max(self.begin - self.speed * (rig.k - BEGIN) * DT, self.stand)
        return np.array([0.5, 0.0, 0.0]) + walked * self.way

    def __call__(self, rig: Rig) -> People | None:
        """The tracker's message, 30 a second."""
        if (rig.k - BEGIN) % 33:
            return None
        x, walking = self.at(rig), rig.k - BEGIN < (self.begin - self.stand) / self.speed / DT
        ends = np.array([[x + [0, 0, 0.2], x + [0, 0, 1.6]]])
        rig.memory["person"] = x
        velocity = -self.way * self.speed * walking
        return People(ends, np.array([0.25]), velocity[None], rig.now)


def stands(rig: Rig) -> list[str]:
    """At the end, with a person close by, no link approaches the person faster than the file calls standing."""
    model, data, links = _shadow()
    x = rig.memory.get("person")
    if x is None:
        return ["the person never came"]
    data.mocap_pos[0] = x + np.array([0.0, 0.0, 0.9])  # type: ignore[operator]
    gaps = []
    for q in rig.outcome.sent[-2:]:
        data.qpos[:] = q
        mujoco.mj_kinematics(model, data)
        person = model.geom("person").id
        gaps.append([mujoco.mj_geomDistance(model, data, person, g, 5.0, None) for g in links])
    near, approach = min(gaps[-1]), (np.array(gaps[0]) - gaps[1]).max() / DT
    if near > 0.14:  # of the file: 1.6 m/s * 0.06 s + 0.05 m; further away some speed is allowed
        return []
    return [f"approaches at {approach:.3f} m/s, {near:.2f} m from a person"] if approach > 0.025 else []


@cache
def _shadow() -> tuple[mujoco.MjModel, mujoco.MjData, list[int]]:
    """The robot beside a person who can be put anywhere, by MuJoCo alone."""
    spec = mujoco.MjSpec.from_string(robot().xml)
    body = spec.worldbody.add_body(name="person", mocap=True)
    body.add_geom(name="person", type=mujoco.mjtGeom.mjGEOM_CAPSULE, size=[0.25, 0.7, 0])
    model = spec.compile()
    return model, mujoco.MjData(model), [model.geom(g).id for g in robot().table_geoms]


def people() -> Iterator[Case]:
    """Row 15: people walk in, appear, or are lost from sight."""
    options = (("cell", "shared_cell"),)

    def case(
        name: str, seen: Callable[[Rig], People | None], expect: Expect, ticks: int = 700, smoke: bool = False
    ) -> Case:
        return Case(15, name, (Fault("people", people=seen),), expect, ticks, smoke=smoke, options=options)

    for speed in (0.5, 1.0, 1.6, 2.0, 2.5):
        for side, angle in (("front", 0.0), ("left", 1.57), ("right", -1.57), ("behind", 2.8)):
            walker = Walker(angle, speed, begin=0.5 + 0.9 * speed)
            yield case(
                f"walks-in-{side}-{speed}m-s", walker, Expect(also=stands), 1500, smoke=(side, speed) == ("left", 1.6)
            )
    for at in (0.3, 0.5, 0.8):
        yield case(f"appears-at-{at}m", Walker(0.8, 1e-6, begin=at, stand=at), Expect(also=stands), 900)
    lost = Expect(within=102, reasons=("person_lost",), stop=False)

    def silent(ms: float) -> Callable[[Rig], People | None]:
        return lambda rig: rig.people if rig.k - BEGIN < ms else replace(rig.people, received=rig.now)

    yield case("tracker-silent-for-50ms", silent(50), Expect(calm=True))
    yield case("tracker-silent-for-150ms", silent(150), replace(lost, resumes=True))
    yield case("tracker-silent-for-400ms", silent(400), replace(lost, resumes=True), 900)
    yield case("tracker-lost", silent(np.inf), lost, smoke=True)
    one, still = np.ones(1), np.zeros((1, 3))
    bad: dict[str, Callable[[People], People]] = {
        "positions-nan": lambda p: replace(p, ends=np.full((1, 2, 3), np.nan), radius=one, velocity=still),
        "radius-negative": lambda p: replace(p, ends=np.zeros((1, 2, 3)), radius=-one, velocity=still),
        "shape-wrong": lambda p: replace(p, ends=np.zeros((1, 3)), radius=np.ones(2), velocity=still),
    }  # fmt: skip
    for name, alter in bad.items():
        seen = lambda rig, alter=alter: replace(alter(rig.people), received=rig.now)  # noqa: E731
        yield case(f"tracker-{name}", seen, Expect(within=2, reasons=("person_lost",), stop=False))


def cases() -> Iterator[Case]:
    """All of them."""
    yield from people()
