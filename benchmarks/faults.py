"""What faults the filter survives: the named cases that run in process, and random pairs of faults.

Every run is seeded, and counted by ``benchmarks.count``, which shares no code with the filter.  A run that was
interrupted goes on where it was, by its checkpoint file.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from palmar.benchmarks import faults_commands, faults_people, faults_readings, faults_targets, faults_world
from palmar.benchmarks.checkpoint import run_jobs
from palmar.benchmarks.faults_case import Case, Expect, broken
from palmar.benchmarks.injector import Fault, Rig
from palmar.benchmarks.provenance import meaning

Progress = Callable[[str, float], None]

TICKS = 300
"""Length of a campaign."""
EARLIEST, LATEST = 60, 200
"""When a campaign's faults begin, in ticks."""


def cases() -> Iterator[Case]:
    """Every named case that runs in process."""
    for part in (faults_readings, faults_commands, faults_targets, faults_people, faults_world):
        yield from part.cases()


@cache
def _cases() -> dict[str, Case]:
    return {case.id: case for case in cases()}


@cache
def _pool() -> list[Case]:
    """What campaigns draw from: cases that are faults on the wires, of the plain cell."""
    return [c for c in _cases().values() if c.faults and dict(c.options).keys() <= {"jump"} and c.row != 12]


def campaign(seed: int) -> tuple[str, list[str]]:
    """One random pair of faults: its name, and what is broken.

    Of the two cases all faults are taken, moved to begin at random moments; only the invariants must hold.
    """
    rng, pool = np.random.default_rng(seed), _pool()
    rows = sorted({c.row for c in pool})
    chosen = [_of_row(pool, int(row), rng) for row in rng.choice(rows, 2, replace=False)]
    faults = tuple(f for case in chosen for f in _moved(case.faults, int(rng.integers(EARLIEST, LATEST))))
    name = f"campaign-{seed}-{chosen[0].id}+{chosen[1].id}"
    try:
        return name, broken(Rig(seed=seed, faults=faults, jump=10.0).run(TICKS), Expect())
    except Exception:  # noqa: BLE001  (any exception out of the filter is a finding)
        return name, [traceback.format_exc(limit=-4)]


def _of_row(pool: list[Case], row: int, rng: np.random.Generator) -> Case:
    of = [c for c in pool if c.row == row]
    return of[rng.integers(len(of))]


def _moved(faults: tuple[Fault, ...], begin: int) -> Iterator[Fault]:
    """The faults of a case, the first of which begins at ``begin``."""
    by = begin - min(f.begin for f in faults)
    for f in faults:
        reading, chunk = f.reading, f.chunk
        yield replace(
            f.moved(by),
            reading=reading and (lambda rig, r, spoil=reading: _or_as_it_is(spoil, rig, r, r)),
            chunk=chunk and (lambda rig, c, alter=chunk: _or_as_it_is(alter, rig, c, [c])),
        )


def _or_as_it_is(spoil: Callable[[Rig, Any], Any], rig: Rig, message: Any, whole: Any) -> Any:
    """A message that the other fault has already spoilt may have nothing left to spoil, or be too large to copy."""
    try:
        return spoil(rig, message)
    except (IndexError, TypeError, ValueError, AttributeError, MemoryError):
        return whole


def named(ident: str) -> list[str]:
    """What is broken in a named case."""
    try:
        return _cases()[ident].run()
    except Exception:  # noqa: BLE001
        return [traceback.format_exc(limit=-4)]


def judge(job: str | int) -> dict[str, Any]:
    """A named case by its id, or a campaign by its seed, for ``run_jobs``."""
    name, found = campaign(job) if isinstance(job, int) else (job, named(job))
    return {"name": name, "broken": found}


def run(
    *,
    campaigns: int = 10_000,
    smoke: bool = False,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
    workers: int | None = None,
) -> dict[str, Any]:
    """The benchmark.

    Args:
        campaigns: Random pairs of faults.
        smoke: Only the named cases of every test run.
        checkpoint: File that remembers what is done, to go on from; None for none.
        progress: Called with the name of the part and the share of it that is done.
        workers: Processes; None for one per core.

    Returns:
        ``rows``: ``{row, cases, broken}`` per row, then ``{campaigns, broken}``; ``findings`` by name beside it.
    """
    wanted = [c.id for c in _cases().values() if c.smoke or not smoke]
    rows = {_cases()[i].row: {"row": _cases()[i].row, "cases": 0, "broken": 0} for i in wanted}
    total, findings = {"campaigns": 0, "broken": 0}, {}
    jobs = [*wanted, *range(campaigns)]
    results = run_jobs(judge, jobs, checkpoint=checkpoint, meaning=meaning(), workers=workers)
    for done, (job, result) in enumerate(results, start=1):
        row = total if isinstance(job, int) else rows[_cases()[job].row]
        row["campaigns" if isinstance(job, int) else "cases"] += 1
        if result["broken"]:
            row["broken"] += 1
            findings[result["name"]] = result["broken"]
        if progress:
            progress("cases and campaigns", done / len(jobs))
    return {"rows": [*(rows[k] for k in sorted(rows)), total], "findings": findings}
