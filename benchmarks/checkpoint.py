"""Results of many independent jobs, one JSON line each, so that a long run goes on where it was stopped."""

from __future__ import annotations

import json
import multiprocessing as mp
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any


def run_jobs(
    work: Callable[[Any], dict[str, Any]],
    jobs: Sequence[Any],
    *,
    checkpoint: Path | None,
    meaning: str,
    workers: int | None = None,
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Every job and its result, those of the checkpoint first, the others as they are done.

    Args:
        work: Importable function of one job; a job is a JSON value.
        jobs: What is to be done.
        checkpoint: File that results are appended to; None keeps nothing.
        meaning: What the results depend on besides the job (code, robot, constraints); lines of another meaning
            are left alone and not used.
        workers: Processes; None for one per core.
    """
    done: dict[str, dict[str, Any]] = {}
    if checkpoint is not None and checkpoint.exists():
        for line in checkpoint.read_text().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # the line that a kill cut off
            if entry.get("meaning") == meaning:
                done[json.dumps(entry["job"])] = entry["result"]
    left = [job for job in jobs if json.dumps(job) not in done]
    yield from ((job, done[json.dumps(job)]) for job in jobs if json.dumps(job) in done)
    if not left:
        return
    with mp.get_context("spawn").Pool(workers or os.cpu_count() or 1) as pool:
        for job, result in pool.imap_unordered(_Keyed(work), left):
            if checkpoint is not None:
                checkpoint.parent.mkdir(parents=True, exist_ok=True)
                with checkpoint.open("a") as file:
                    file.write(json.dumps({"meaning": meaning, "job": job, "result": result}) + "\n")
            yield job, result


class _Keyed:
    """``work`` that returns its job too; a class, so that it can be sent to another process."""

    def __init__(self, work: Callable[[Any], dict[str, Any]]) -> None:
        self.work = work

    def __call__(self, job: Any) -> tuple[Any, dict[str, Any]]:
        return job, self.work(job)
