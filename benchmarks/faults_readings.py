"""Faults of what the filter is told: rows 1 (dropout), 2 (frozen), 3 (not numbers), 4 (wrong joints), 7 (clocks)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from palmar.benchmarks.faults_case import Case, Expect
from palmar.benchmarks.injector import BEGIN, Fault, Rig
from palmar.benchmarks.plant import Reading
from palmar.safety.types import Chunk

Array = np.ndarray
Spoil = Callable[[Rig, Reading], Reading | None]

GAP = ("reading_gap", "state_stale")
BAD = ("state_nonfinite", "state_implausible")
PARTS = {"whole": slice(0, 23), "arm": slice(0, 7), "hand": slice(7, 23)}
TARGETS = ("q-joint1", "q-joint4", "q-finger", "qd", "tau", "chunk-q", "chunk-t", "chunk-received")
NUMBERS = {"nan": np.nan, "inf": np.inf, "minus-inf": -np.inf, "denormal": 5e-324, "1e308": 1e308}


def changed(r: Reading, what: str, part: int | slice | list[int], value: object) -> Reading:
    """The reading with some numbers of one kind replaced."""
    x = getattr(r, what).copy()
    x[part] = value
    return replace(r, **{what: x})


def dropout() -> Iterator[Case]:
    """Row 1: no reading, or an incomplete one, for a while."""
    for part in ("message", "joint4", "arm", "hand"):
        for ms in (1, 5, 20, 100):
            if part == "message":
                spoil: Spoil = lambda rig, r: None  # noqa: E731
                expect = Expect(calm=True) if ms <= 5 else Expect(within=7, reasons=GAP, stop=ms > 20)
            else:
                keep = 22 if part == "joint4" else 23 - 7 if part == "arm" else 7
                spoil = lambda rig, r, keep=keep: replace(r, q=r.q[:keep])  # noqa: E731
                expect = Expect(calm=True) if ms == 1 else Expect(within=3, reasons=("state_nonfinite",), stop=True)
            yield Case(1, f"{part}-{ms}ms", (Fault("dropout", reading=spoil, end=BEGIN + ms),), expect, smoke=ms == 100)


def frozen() -> Iterator[Case]:
    """Row 2: old values under fresh stamps."""
    seen = Expect(within=20, reasons=("state_frozen",), stop=None)

    def old(rig: Rig, r: Reading) -> Reading:
        return rig.memory.setdefault("old", r)  # type: ignore[return-value]

    def held(part: int | slice) -> Spoil:
        def spoil(rig: Rig, r: Reading) -> Reading:
            for what in ("q", "qd", "tau"):
                r = changed(r, what, part, getattr(old(rig, r), what)[part])
            return r

        return spoil

    def noisy(rig: Rig, r: Reading) -> Reading:
        return changed(r, "q", slice(0, 7), old(rig, r).q[:7] + 2e-5 * rig.rng.standard_normal(7))

    for name, part in PARTS.items():
        yield Case(
            2, f"{name}-same-values-fresh-stamp", (Fault("frozen", reading=held(part)),), seen, smoke=name == "arm"
        )
    for j in (0, 3, 5):
        yield Case(2, f"joint{j + 1}-same-values-fresh-stamp", (Fault("frozen", reading=held(j)),), Expect(within=80))
    yield Case(
        2,
        "arm-noise-on-old-positions",
        (Fault("frozen", reading=noisy),),
        Expect(within=200, reasons=("state_implausible", "joint_mismatch", "tracking_error"), stop=True),
        smoke=True,
    )
    yield Case(
        2,
        "whole-thaws-after-100ms-and-goes-on",
        (Fault("frozen", reading=held(slice(0, 23)), end=BEGIN + 100),),
        Expect(within=20, reasons=("state_frozen",), stop=False, resumes=True),
    )


def numbers() -> Iterator[Case]:
    """Row 3: not numbers, and numbers that cannot be."""
    for kind, value in NUMBERS.items():
        for target in TARGETS:
            harmless = kind == "denormal"
            if target.startswith("chunk"):
                fault = Fault(kind, chunk=_spoilt(target.removeprefix("chunk-"), value))
                # A denormal time or receive time lies in the past; a denormal target is a target near 0.
                expect = (
                    Expect(stop=False)
                    if harmless
                    else Expect(within=220, reasons=("chunk_stale",), stop=False, refused=2)
                )
            else:
                what, part = {"q-joint1": ("q", 0), "q-joint4": ("q", 3), "q-finger": ("q", 9)}.get(target, (target, 2))
                fault = Fault(kind, reading=lambda rig, r, w=what, p=part, v=value: changed(r, w, p, v))
                expect = Expect() if harmless else Expect(within=3, reasons=BAD, stop=True)
            yield Case(
                3,
                f"{kind}-{target}",
                (fault,),
                expect,
                smoke=(kind, target) in (("nan", "q-joint4"), ("inf", "chunk-q")),
            )


def _spoilt(what: str, value: float) -> Callable[[Rig, Chunk], list[Chunk]]:
    def spoil(rig: Rig, c: Chunk) -> list[Chunk]:
        if what == "received":
            return [replace(c, received=value)]
        x = np.array(getattr(c, what))
        x.flat[-1] = value
        return [replace(c, **{what: x})]

    return spoil


def wrong_joints() -> Iterator[Case]:
    """Row 4: bias, drift, spikes, noise, reversed and swapped joints."""
    seen = Expect(within=450, reasons=("joint_mismatch", "state_implausible", "tracking_error"), stop=True)

    def add(f: Callable[[Rig], Array | float], part: int | slice) -> Spoil:
        return lambda rig, r: changed(r, "q", part, r.q[part] + f(rig))

    since: Callable[[Rig], int] = lambda rig: rig.k - BEGIN  # noqa: E731
    quiet, hit = Expect(stop=False), Expect(within=5, reasons=(*BAD, "tracking_error"), stop=True)
    shaken = Expect(within=100, stop=True)
    plain: list[tuple[str, Spoil, Expect]] = [
        ("bias-5mrad-joint2", add(lambda rig: 0.005, 1), quiet),
        ("bias-0.3rad-joint2", add(lambda rig: 0.3, 1), hit),
        ("bias-2rad-finger", add(lambda rig: 2.0, 9), hit),
        ("drift-1rad-per-s-joint1", add(lambda rig: 0.001 * since(rig), 0), seen),
        ("drift-slow-joint6", add(lambda rig: 2e-5 * since(rig), 5), quiet),
        ("spikes-joint4", add(lambda rig: 0.1 * (since(rig) % 20 == 7), 3), quiet),
        ("spikes-finger", add(lambda rig: 0.5 * (since(rig) % 20 == 7), 10), quiet),
        ("noise-x10", add(lambda rig: 2e-4 * rig.rng.standard_normal(23), slice(0, 23)), quiet),
        ("noise-10mrad-arm", add(lambda rig: 0.01 * rig.rng.standard_normal(7), slice(0, 7)), shaken),
    ]  # fmt: skip
    for name, spoil, expect in plain:
        yield Case(4, name, (Fault(name, reading=spoil),), expect, smoke=name == "bias-0.3rad-joint2")
    for j in range(7):
        yield Case(
            4, f"reversed-joint{j + 1}", (Fault("reversed", reading=_mirrored(j)),), seen, ticks=700, smoke=j == 3
        )
    for i, j in ((0, 1), (2, 4), (3, 5), (5, 6)):
        yield Case(
            4, f"swapped-joint{i + 1}-joint{j + 1}", (Fault("swapped", reading=_swapped(i, j)),), seen, ticks=700
        )
    for name, change in (
        ("start-joint4-sign", lambda q: np.where(np.arange(23) == 3, -q, q)),
        ("start-order-reversed", lambda q: q[::-1]),
        ("start-hand-before-arm", lambda q: np.roll(q, 16)),
        ("start-degrees", lambda q: np.degrees(q)),
    ):
        yield Case(4, name, (), Expect(), refuses=change)


def _mirrored(j: int) -> Spoil:
    def spoil(rig: Rig, r: Reading) -> Reading:
        first = rig.memory.setdefault("mirror", r.q[j])
        return changed(changed(r, "q", j, 2 * first - r.q[j]), "qd", j, -r.qd[j])  # type: ignore[operator]

    return spoil


def _swapped(i: int, j: int) -> Spoil:
    def spoil(rig: Rig, r: Reading) -> Reading:
        a, b = rig.memory.setdefault("swap", (r.q[i], r.q[j]))  # type: ignore[misc]
        r = changed(r, "q", [i, j], [a + r.q[j] - b, b + r.q[i] - a])
        return changed(r, "qd", [i, j], r.qd[[j, i]])

    return spoil


def clocks() -> Iterator[Case]:
    """Row 7: clocks that jump, and clocks that are mistaken for each other."""
    for jump in (0.1, 1.0, 3600.0, -0.1, -1.0, -3600.0):
        back = jump < 0
        yield Case(
            7,
            f"monotonic-{'minus' if back else 'plus'}-{abs(jump):g}s",
            (Fault("clock", clock=lambda rig, now, jump=jump: now + jump),),
            Expect(within=1, reasons=("clock_backwards",) if back else ("missed_period", "reading_gap", "state_stale")),
            smoke=jump in (1.0, -3600.0),
        )
    stamped = Fault("stamps", reading=lambda rig, r: replace(r, t=rig.k * 0.01))
    epoch = Fault("stamps", reading=lambda rig, r: replace(r, t=r.t + 1.7e9))
    yield Case(7, "reading-stamps-of-simulation-time", (stamped,), Expect(calm=True))
    yield Case(7, "reading-stamps-of-system-time", (epoch,), Expect(calm=True))
    wall = Fault("chunks", chunk=lambda rig, c: [replace(c, t=c.t + 1.7e9, received=c.received + 1.7e9)])
    yield Case(
        7, "chunks-stamped-by-system-time", (wall,), Expect(within=220, reasons=("chunk_stale",), stop=False, refused=2)
    )
    wrap = Fault("clock", clock=lambda rig, now: now - 2.0**32 / 1000)
    yield Case(7, "counter-of-milliseconds-wraps", (wrap,), Expect(within=1, reasons=("clock_backwards",)))


def cases() -> Iterator[Case]:
    """All of them."""
    yield from (*dropout(), *frozen(), *numbers(), *wrong_joints(), *clocks())
