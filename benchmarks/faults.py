"""What faults the filter survives: the named cases that run in process, and random pairs of faults.

Every run is seeded, and counted by ``benchmarks.count``, which shares no code with the filter.  Campaigns are
remembered in a checkpoint file, so a run that was interrupted goes on where it was.
"""

from __future__ import annotations

import json
import multiprocessing as mp
import os
import traceback
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from palmar.benchmarks import faults_commands, faults_readings, faults_world
from palmar.benchmarks.injector import Case, Expect, Fault, Rig, broken

Progress = Callable[[str, float], None]

TICKS = 300
"""Length of a campaign."""
EARLIEST, LATEST = 60, 200
"""When a campaign's faults begin, in ticks."""


def cases() -> Iterator[Case]:
    """Every named case that runs in process."""
    for part in (faults_readings, faults_commands, faults_world):
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
        yield f.moved(by)


def _named(ident: str) -> tuple[str, list[str]]:
    """A named case, run."""
    try:
        return ident, _cases()[ident].run()
    except Exception:  # noqa: BLE001
        return ident, [traceback.format_exc(limit=-4)]


def _map(job: Any, items: list[Any], workers: int) -> Iterator[tuple[str, list[str]]]:
    if workers == 1:
        yield from map(job, items)
        return
    with mp.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap_unordered(job, items, chunksize=8)


def named(
    *, workers: int, progress: Progress | None, smoke: bool = False
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A row per row of the matrix, and what is broken by case."""
    wanted = [c for c in _cases().values() if c.smoke or not smoke]
    rows = {c.row: {"row": c.row, "cases": 0, "broken": 0} for c in wanted}
    findings: dict[str, Any] = {}
    for done, (ident, found) in enumerate(_map(_named, [c.id for c in wanted], workers), start=1):
        row = rows[_cases()[ident].row]
        row["cases"], row["broken"] = row["cases"] + 1, row["broken"] + bool(found)
        findings |= {ident: found} if found else {}
        if progress:
            progress("cases", done / len(wanted))
    return [rows[k] for k in sorted(rows)], findings


def campaigns(
    total: int, *, workers: int, checkpoint: Path | None, progress: Progress | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """``{campaigns, broken}`` of seeds 0 to ``total``, and what is broken by campaign."""
    done, findings = _resume(checkpoint)
    seeds = [s for s in range(total) if s not in done]
    for name, found in _map(campaign, seeds, workers):
        seed = int(name.split("-")[1])
        done.add(seed)
        findings |= {name: found} if found else {}
        if checkpoint is not None and (len(done) % 50 == 0 or found or len(done) == total):
            _store(checkpoint, done, findings)
        if progress:
            progress("campaigns", len(done) / total)
    return {"campaigns": len(done), "broken": len(findings)}, findings


def _resume(checkpoint: Path | None) -> tuple[set[int], dict[str, Any]]:
    if checkpoint is None or not checkpoint.exists():
        return set(), {}
    raw = json.loads(checkpoint.read_text())
    return set(raw["done"]), dict(raw["findings"])


def _store(checkpoint: Path, done: set[int], findings: dict[str, Any]) -> None:
    part = checkpoint.with_name(checkpoint.name + ".part")
    part.write_text(json.dumps({"done": sorted(done), "findings": findings}))
    part.replace(checkpoint)


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
        checkpoint: File that remembers the campaigns done, to go on from; None for none.
        progress: Called with the name of the part and the share of it that is done.
        workers: Processes; None for one per core.

    Returns:
        ``rows``: ``{row, cases, broken}`` per row, then ``{campaigns, broken}``; ``findings`` by name beside it.
    """
    workers = workers or os.cpu_count() or 1
    rows, findings = named(workers=workers, progress=progress, smoke=smoke)
    total, more = _campaigns(campaigns, workers=workers, checkpoint=checkpoint, progress=progress)
    return {"rows": [*rows, total], "findings": {**findings, **more}}


_campaigns = campaigns
