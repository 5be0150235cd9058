"""Faults of how commands arrive: rows 5, 6, 9 (late), 18 (network), 19 (malformed)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from palmar.benchmarks.faults_case import Case, Expect
from palmar.benchmarks.injector import BEGIN, EVERY, Fault, Rig, robot
from palmar.safety.types import Chunk

Array = np.ndarray
Alter = Callable[[Rig, Chunk], list[Chunk]]

STALE = ("chunk_stale",)


def silence(ms: int) -> Fault:
    """No chunk for so long."""
    return Fault("silence", chunk=lambda rig, c: [], end=BEGIN + ms)


def delayed(ticks: Callable[[Rig], int], name: str = "delay") -> Fault:
    """Chunks that arrive later; the receive time is that of arrival, the targets' times are not."""

    def alter(rig: Rig, c: Chunk) -> list[Chunk]:
        wait = ticks(rig)
        if wait <= 0:
            return [c]
        rig.late.append((rig.k + wait, replace(c, received=c.received + 0.001 * wait)))
        return []

    return Fault(name, chunk=alter)


def stale() -> Iterator[Case]:
    """Row 5: the policy is silent for some periods of 50 ms, or for ever."""
    for periods in (1.5, 3.0, 10.0, np.inf):
        for what in ("sway", "arm", "far-target-on-return"):
            ms = int(min(periods, 1000) * EVERY)
            options = (("policy", _reach(0, 0.4)),) if what == "arm" else ()
            faults = (silence(ms),)
            if what.startswith("far"):
                jump = Fault("far", chunk=lambda rig, c: [replace(c, q=c.q + 0.3)], begin=BEGIN + ms)
                faults = (*faults, jump)
            # The chunk before the silence came up to 50 ms before it, and lasts for 200 ms.
            holds = ms >= 250
            expect = Expect(within=210, reasons=STALE, stop=False) if holds else Expect(stop=False, resumes=True)
            if holds and ms < 1000 and not what.startswith("far"):
                expect = replace(expect, resumes=True)
            name = "for-ever" if periods == np.inf else f"{periods:g}-periods"
            yield Case(
                5,
                f"silent-{name}-{what}",
                faults,
                expect,
                ticks=900,
                options=options,
                smoke=ms >= 500 and what == "sway",
            )


def _reach(joint: int, by: float) -> Callable[[Rig, Array], Array]:
    """A policy that moves one joint and stays there."""

    def policy(rig: Rig, t: Array) -> Array:
        q = np.tile(rig.robot.home, (len(t), 1))
        q[:, joint] += by * np.clip(t, 0.0, 1.0)
        return q

    return policy


def disorder() -> Iterator[Case]:
    """Row 6: chunks late, twice, or out of order."""

    def shuffled(rig: Rig, c: Chunk) -> list[Chunk]:
        kept: list[Chunk] = rig.memory.setdefault("kept", [])  # type: ignore[assignment]
        kept.append(c)
        if len(kept) < 3:
            return []
        out = [kept[i] for i in rig.rng.permutation(3)]
        kept.clear()
        return out

    def swapped(rig: Rig, c: Chunk) -> list[Chunk]:
        held = rig.memory.pop("held", None)
        if held is None:
            rig.memory["held"] = c
            return []
        return [c, held]  # type: ignore[list-item]

    def back(rig: Rig, c: Chunk) -> list[Chunk]:
        return [c, replace(c, seq=c.seq + 10_000, t=c.t - 1.0)]

    alters: dict[str, tuple[Alter, Expect]] = {
        "each-twice": (lambda rig, c: [c, c], Expect(calm=True, refused=3)),
        "each-20-times": (lambda rig, c: [c] * 20, Expect(calm=True, refused=60)),
        "pairs-swapped": (swapped, Expect(stop=False, refused=2)),
        "shuffled-by-threes": (shuffled, Expect(stop=False)),
        "old-sequence-number": (lambda rig, c: [replace(c, seq=1)], Expect(within=220, reasons=STALE, refused=3)),
        "negative-sequence-number": (lambda rig, c: [replace(c, seq=-5)], Expect(within=220, reasons=STALE, refused=3)),
        "sequence-numbers-with-gaps": (lambda rig, c: [replace(c, seq=c.seq * 1000)], Expect(calm=True)),
        "times-in-the-past": (back, Expect(stop=False, refused=3)),
    }
    for name, (alter, expect) in alters.items():
        yield Case(6, name, (Fault(name, chunk=alter),), expect, smoke=name in ("each-twice", "pairs-swapped"))
    for ms in (30, 60, 120, 250):
        calm = Expect(stop=False) if ms <= 120 else Expect(within=220, reasons=STALE, stop=False)
        yield Case(6, f"late-by-{ms}ms", (delayed(lambda rig, ms=ms: ms),), calm, ticks=700)


def hangs() -> Iterator[Case]:
    """Row 9: a policy that hangs, stalls or thinks too slowly."""

    def every(n: int) -> Fault:
        return Fault("slow", chunk=lambda rig, c: [c] if (rig.k // EVERY) % n == 0 else [])

    hold = Expect(within=220, reasons=STALE, stop=False)
    yield Case(9, "hangs-for-ever", (silence(100_000),), hold, ticks=700, smoke=True)
    for ms in (100, 300, 1000):
        expect = Expect(stop=False, resumes=True) if ms < 1000 else hold
        yield Case(9, f"stalls-{ms}ms", (silence(ms),), expect, ticks=800)
    yield Case(9, "twice-as-slow", (every(2),), Expect(calm=True), ticks=700, smoke=True)
    yield Case(9, "ten-times-as-slow", (every(10),), hold, ticks=1200)
    throttle = delayed(lambda rig: (rig.k - BEGIN) // 3, "throttle")
    yield Case(9, "slower-and-slower", (throttle,), Expect(stop=False), ticks=900)
    yield Case(9, "hangs-during-a-hold", (silence(400), silence(100_000)), hold, ticks=900)
    flaky = Fault("flaky", chunk=lambda rig, c: [c] if rig.rng.random() < 0.3 else [])
    yield Case(9, "answers-three-times-in-ten", (flaky,), Expect(stop=False), ticks=900)
    stop = Fault("stop", act=lambda rig: rig.filter.stop(), begin=BEGIN + 50, end=BEGIN + 51)
    yield Case(9, "hangs-and-an-operator-stops", (silence(100_000), stop), Expect(stop=True), ticks=900)


def network() -> Iterator[Case]:
    """Row 18: what a network does to chunks: loss, jitter, order, partition."""
    for part in (0.01, 0.05, 0.1, 0.3):
        for seed in (0, 1):
            lossy = Fault("loss", chunk=lambda rig, c, p=part: [c] if rig.rng.random() >= p else [])
            yield Case(
                18, f"loss-{part:.0%}-{seed}".replace("%", "pc"), (lossy,), Expect(stop=False), ticks=700, seed=seed
            )
    for ms in (5, 20, 50, 100):
        jitter = delayed(lambda rig, ms=ms: int(rig.rng.integers(0, ms + 1)), "jitter")
        yield Case(18, f"jitter-{ms}ms", (jitter,), Expect(stop=False), ticks=700, smoke=ms == 100)
    for ms in (150, 400, 800):
        hold = Expect(stop=False, resumes=True)
        yield Case(18, f"partition-{ms}ms-then-back", (silence(ms),), hold, ticks=1300, smoke=ms == 400)
    yield Case(18, "partition-for-ever", (silence(100_000),), Expect(within=220, reasons=STALE, stop=False), ticks=700)

    def storm(rig: Rig, c: Chunk) -> list[Chunk]:
        held: list[Chunk] = rig.memory.setdefault("storm", [])  # type: ignore[assignment]
        held.append(c)
        if rig.k < BEGIN + 300:
            return []
        out = [*held]
        held.clear()
        return out

    yield Case(
        18, "backlog-delivered-at-once", (Fault("storm", chunk=storm),), Expect(stop=False, resumes=True), ticks=900
    )
    both = (
        delayed(lambda rig: int(rig.rng.integers(0, 60))),
        Fault("loss", chunk=lambda rig, c: [c] * (rig.rng.random() > 0.3)),
    )
    yield Case(18, "loss-and-jitter", both, Expect(stop=False), ticks=900)
    twice = (delayed(lambda rig: int(rig.rng.integers(0, 60))), Fault("twice", chunk=lambda rig, c: [c, c]))
    yield Case(18, "duplicates-and-jitter", twice, Expect(stop=False), ticks=900)
    flap = Fault("flap", chunk=lambda rig, c: [c] if (rig.k // 250) % 2 else [])
    yield Case(18, "link-goes-up-and-down", (flap,), Expect(stop=False), ticks=1200)


def malformed() -> Iterator[Case]:
    """Row 19: chunks that are not chunks.  Each replaces all chunks for a while: the robot holds and goes on after."""
    names, wide = robot().joints, np.zeros
    alters: dict[str, Callable[[Chunk], dict[str, object]]] = {
        "targets-of-22-joints": lambda c: {"q": c.q[:, :22]},
        "targets-of-24-joints": lambda c: {"q": np.hstack([c.q, c.q[:, :1]])},
        "targets-flat": lambda c: {"q": c.q[0]},
        "targets-cubic": lambda c: {"q": c.q[None]},
        "targets-empty": lambda c: {"q": c.q[:0], "t": c.t[:0]},
        "targets-257": lambda c: {"q": np.tile(c.q[0], (257, 1)), "t": c.received + 0.01 * np.arange(1, 258)},
        "targets-a-million": lambda c: {"q": np.broadcast_to(c.q[0], (10**6, 23)), "t": wide(10**6)},
        "targets-ten-billion": lambda c: {
            "q": np.broadcast_to(c.q[0], (10**10, 23)),
            "t": np.broadcast_to(0.0, 10**10),
        },
        "targets-text": lambda c: {"q": "home"},
        "targets-none": lambda c: {"q": None},
        "targets-ragged": lambda c: {"q": [[0.0], [0.0, 1.0]]},
        "targets-objects": lambda c: {"q": np.full(c.q.shape, object())},
        "targets-complex": lambda c: {"q": c.q + 1j},
        "targets-in-degrees": lambda c: {"q": np.degrees(c.q)},
        "times-too-few": lambda c: {"t": c.t[:-1]},
        "times-decreasing": lambda c: {"t": c.t[::-1].copy()},
        "times-equal": lambda c: {"t": np.full_like(c.t, c.t[0])},
        "times-text": lambda c: {"t": "now"},
        "times-in-milliseconds": lambda c: {"t": c.t * 1000},
        "joint-unknown": lambda c: {"joints": ("nobody", *names[1:])},
        "joint-missing": lambda c: {"joints": names[:-1]},
        "joint-twice": lambda c: {"joints": (names[0], *names[:-1])},
        "sequence-number-text": lambda c: {"seq": "7"},
        "sequence-number-true": lambda c: {"seq": True},
        "received-none": lambda c: {"received": None},
    }
    for name, alter in alters.items():
        fault = Fault(name, chunk=lambda rig, c, a=alter: [replace(c, **a(c))], end=BEGIN + 250)
        expect = Expect(within=220, reasons=STALE, stop=False, resumes=True, refused=4)
        yield Case(19, name, (fault,), expect, ticks=600, smoke=name in ("targets-of-22-joints", "joint-unknown"))


def cases() -> Iterator[Case]:
    """All of them."""
    yield from (*stale(), *disorder(), *hangs(), *network(), *malformed())
