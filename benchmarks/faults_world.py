"""Faults of the world: rows 14 (contact), 16 (emergency stop), 17 (hand), 20 (commanders), 27 (load)."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import replace

import mujoco
import numpy as np

from palmar.benchmarks.faults_case import Case, Expect
from palmar.benchmarks.faults_readings import changed
from palmar.benchmarks.injector import BEGIN, Fault, Rig
from palmar.benchmarks.plant import Reading
from palmar.safety.types import Chunk, State
from palmar.safety.watchdog import Event

Array = np.ndarray

OBJECTS = ("red_cube", "blue_box", "green_cylinder")
HAND = slice(7, 23)


# Contact -------------------------------------------------------------------------------------------------------------


def closing(rig: Rig, t: Array) -> Array:
    """A policy whose hand closes and squeezes, while the arm sways a little."""
    q = np.tile(rig.robot.home, (len(t), 1))
    q[:, 0] += 0.1 * np.sin(3 * t)
    m = rig.robot.limits
    q[:, HAND] += np.clip(2 * t[:, None], 0, 1) * 0.6 * (m.q_max - rig.robot.home)[HAND]
    return q


def place(name: str) -> Callable[[Rig], None]:
    """Put an object among the fingers, weightless, where it touches nothing."""

    def act(rig: Rig) -> None:
        model, data = rig.plant.model, rig.plant.data
        body, joint = model.body(name).id, data.joint(f"{name}_free")
        data.xfrc_applied[body, 2] = -model.opt.gravity[2] * model.body_mass[body]
        tips = np.mean([data.geom(g).xpos for g in rig.robot.tip_geoms], axis=0)
        before = joint.qpos.copy()
        for _ in range(200):
            joint.qpos[:3], joint.qvel[:] = tips + rig.rng.uniform(-0.06, 0.06, 3), 0.0
            mujoco.mj_fwdPosition(model, data)
            if not np.any(model.geom_bodyid[data.contact.geom] == body):
                return
        joint.qpos[:] = before

    return act


def keeps_grip(rig: Rig) -> list[str]:
    """After a stop the hand's targets stay, squeeze included."""
    o = rig.outcome
    rest = [k for k, s in enumerate(o.states) if s is State.LATCHED]
    if not rest:
        return ["never latched"]
    moved = np.abs(np.array(o.sent[rest[0] + 1 :])[:, HAND] - o.sent[rest[0] + 1][HAND]).max()
    return [f"the hand's targets moved by {moved:.2e} rad after the stop"] if moved > 0 else []


def contact() -> Iterator[Case]:
    """Row 14: the hand meets objects, squeezes them, and is stopped while it does."""
    options = (("policy", closing), ("jump", 10.0))
    for name in OBJECTS:
        put = Fault("object", act=place(name), begin=60, end=61)
        for seed in (0, 1):
            stop = Fault("stop", act=lambda rig: rig.filter.stop(), begin=500, end=501)
            silent = Fault("silent", chunk=lambda rig, c: [], begin=300)
            jolt = Fault("jolt", act=_push(name), begin=400, end=420)
            for what, faults, expect in (
                ("closed-on", (put,), Expect(stop=False)),
                ("held-during-a-stop", (put, stop), Expect(stop=True, also=keeps_grip)),
                ("held-during-a-hold", (put, silent), Expect(stop=False)),
                ("pushed-while-held", (put, jolt), Expect()),
            ):
                smoke = (name, seed) == ("red_cube", 0) and "held" in what and "during" in what
                yield Case(14, f"{name}-{what}-{seed}", faults, expect, 900, smoke=smoke, options=options, seed=seed)


def _push(name: str) -> Callable[[Rig], None]:
    def act(rig: Rig) -> None:
        rig.plant.data.xfrc_applied[rig.plant.model.body(name).id, :2] = (5.0, -5.0) if rig.k < 419 else (0.0, 0.0)

    return act


# Emergency stop ------------------------------------------------------------------------------------------------------


def at(*acts: tuple[int, Callable[[Rig], object]]) -> tuple[Fault, ...]:
    """Things an operator does, each at a tick."""
    return tuple(Fault("act", act=lambda rig, a=a: a(rig), begin=k, end=k + 1) for k, a in acts)


def press(rig: Rig) -> None:
    """The button is pressed."""
    rig.filter.estop()


def release(rig: Rig) -> None:
    """It is released."""
    rig.filter.release()


def reset(rig: Rig) -> None:
    """An operator asks for a reset; whether it counts is the filter's to say."""
    rig.reset()


def resets_accepted(n: int) -> Callable[[Rig], list[str]]:
    """That so many resets counted."""
    return lambda rig: [] if len(rig.outcome.resets) == n else [f"{len(rig.outcome.resets)} resets, expected {n}"]


def estop() -> Iterator[Case]:
    """Row 16: the emergency stop in every state."""
    k, none, one = BEGIN, resets_accepted(0), resets_accepted(1)
    seen = Expect(within=1, reasons=("operator_estop",), stop=True, also=none)
    mute = Fault("mute", chunk=lambda rig, c: [], begin=k - 100)
    stopped = Expect(within=1, reasons=("operator_stop",), stop=True, also=none)
    stop: Callable[[Rig], None] = lambda rig: rig.filter.stop()  # noqa: E731
    recovered = replace(seen, stop=None, also=one)
    bounce = tuple((k + i, press if i % 2 == 0 else release) for i in range(20))
    stuck = tuple((k + i, press) for i in range(500))
    asks = tuple((k + i, reset) for i in range(250, 600, 25))
    run: list[tuple[str, tuple[Fault, ...], Expect]] = [
        ("in-run", at((k, press)), seen),
        ("in-hold", (mute, *at((k + 250, press))), Expect(stop=True, also=none)),
        ("in-stop", at((k, stop), (k + 5, press), *asks), stopped),
        ("in-latched", at((k, stop), (k + 300, press), (k + 320, reset)), stopped),
        ("bounces", at(*bounce, (k + 30, reset)), seen),
        ("stuck-and-resets-asked", at(*stuck, *asks), seen),
        ("cable-cut", at((k, lambda rig: rig.filter.estop("estop_cable"))), replace(seen, reasons=("estop_cable",))),
        ("released-but-not-reset", at((k, press), (k + 300, release)), seen),
        ("reset-but-not-released", at((k, press), *asks), seen),
        ("reset-before-release", at((k, press), (k + 300, reset), (k + 310, release)), seen),
        ("released-and-reset", at((k, press), (k + 300, release), (k + 400, reset)), recovered),
        ("during-recovery", at((k, stop), (k + 300, reset), (k + 301, press), *asks[4:]), replace(stopped, also=one)),
    ]  # fmt: skip
    for name, faults, expect in run:
        faults = tuple(replace(f, name=f"{name}-{i}") for i, f in enumerate(faults))
        yield Case(16, name, faults, expect, ticks=800, smoke=name in ("in-run", "reset-but-not-released"))


# Hand, commanders, load ----------------------------------------------------------------------------------------------


def hand() -> Iterator[Case]:
    """Row 17: what motors and bus of a hand do wrong; the joints of the twin stand for motors that Palmar lacks."""

    def limp(j: int | slice) -> Callable[[Rig, Array], Array]:
        def command(rig: Rig, q: Array) -> Array:
            q = q.copy()
            q[j] = rig.plant.q[j]
            return q

        return command

    def stuck(j: int) -> Callable[[Rig, Array], Array]:
        def command(rig: Rig, q: Array) -> Array:
            q = q.copy()
            q[j] = rig.memory.setdefault("stuck", q[j])
            return q

        return command

    def silent(rig: Rig, r: Reading) -> Reading:
        old: Reading = rig.memory.setdefault("hand", r)  # type: ignore[assignment]
        for what in ("q", "qd", "tau"):
            r = changed(r, what, HAND, getattr(old, what)[HAND])
        return r

    for j, name in ((7, "index"), (11, "middle"), (19, "thumb")):
        yield Case(17, f"motor-limp-{name}", (Fault("limp", command=limp(j)),), Expect())
        yield Case(17, f"motor-stuck-{name}", (Fault("stuck", command=stuck(j)),), Expect())
    yield Case(17, "whole-hand-limp", (Fault("limp", command=limp(HAND)),), Expect(), ticks=700)
    frozen = Expect(within=20, reasons=("state_frozen",))
    yield Case(17, "bus-silent-old-values", (Fault("bus", reading=silent),), frozen, smoke=True)
    nan = Fault("bus", reading=lambda rig, r: changed(r, "q", HAND, np.nan))
    yield Case(17, "bus-lost-nan", (nan,), Expect(within=3, reasons=("state_nonfinite",), stop=True, also=keeps_grip))
    swap = Fault("id", reading=lambda rig, r: changed(r, "q", HAND, np.roll(r.q[HAND], 4)))
    yield Case(17, "wrong-id-fingers-shifted", (swap,), Expect(stop=None))
    hot = Fault("hot", reading=lambda rig, r: changed(r, "tau", 9, 50.0))
    impossible = Expect(within=3, reasons=("state_implausible",), stop=True)
    yield Case(17, "current-of-50-times-its-limit", (hot,), impossible)
    for reason in ("hand_overload", "hand_overheating", "hand_voltage", "hand_encoder", "hand_bus_lost"):
        fault = Fault(
            reason, act=lambda rig, r=reason: rig.filter.watchdog.happen(Event.DRIVER_FAULT, r), end=BEGIN + 1
        )
        expect = Expect(within=1, reasons=(reason,), stop=True, also=keeps_grip)
        yield Case(17, f"driver-reports-{reason}", (fault,), expect, ticks=900, smoke=reason == "hand_overload")


def commanders() -> Iterator[Case]:
    """Row 20: somebody else's chunks on the wire.  Who may publish is the bridge's business, tested beside it."""

    def replayed(delay: int, seq: int) -> Callable[[Rig, Chunk], list[Chunk]]:
        def alter(rig: Rig, c: Chunk) -> list[Chunk]:
            rig.late.append((rig.k + delay, replace(c, seq=c.seq + seq)))
            return [c]

        return alter

    same = Expect(calm=True, refused=3)
    yield Case(20, "replayed-at-once", (Fault("replay", chunk=lambda rig, c: [c, c]),), same, smoke=True)
    yield Case(20, "replayed-after-60ms", (Fault("replay", chunk=replayed(60, 0)),), same)
    yield Case(
        20, "replayed-after-a-second", (Fault("replay", chunk=replayed(1000, 0)),), Expect(stop=False), ticks=1500
    )
    renumbered = Fault("replay", chunk=replayed(320, 1000))
    yield Case(20, "replayed-late-with-a-new-number", (renumbered,), Expect(stop=False, refused=1), ticks=900)
    latched = at((BEGIN, lambda rig: rig.filter.stop()))
    yield Case(20, "chunks-while-latched", latched, Expect(within=1, stop=True), ticks=900, smoke=True)
    asks = at(*((BEGIN + i, reset) for i in range(0, 400, 5)))
    yield Case(20, "resets-nobody-may-ask-for-while-running", asks, Expect(calm=True, refused=50))


def load() -> Iterator[Case]:
    """Row 27: ticks that come late, by the injected clock; and pauses of the real collector."""

    def stall(ms: int) -> Callable[[Rig], None]:
        def act(rig: Rig) -> None:
            for _ in range(ms):
                rig.plant.step(None)

        return act

    for ms in (1, 3, 10, 100):
        late = (
            Expect(calm=True) if ms == 1 else Expect(within=2, reasons=("missed_period", "reading_gap", "state_stale"))
        )
        yield Case(
            27, f"tick-late-by-{ms}ms", (Fault("late", act=stall(ms), end=BEGIN + 1),), late, smoke=ms in (3, 10)
        )
    often = Fault("late", act=lambda rig: stall(5)(rig) if rig.rng.random() < 0.05 else None)
    yield Case(27, "one-tick-in-twenty-late", (often,), Expect(stop=False))
    pause = Fault("collector", act=lambda rig: gc.collect(), end=BEGIN + 10)
    yield Case(27, "collector-runs-in-ten-ticks", (pause,), Expect(calm=True))


def cases() -> Iterator[Case]:
    """All of them."""
    yield from (*contact(), *estop(), *hand(), *commanders(), *load())
