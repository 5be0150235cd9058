"""docs/mutation.md, from what ``benchmarks.mutants`` found and why a survivor may live."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "mutants.json"
EXPLAINED = ROOT / "benchmarks" / "mutants_explained.json"
REPORT = ROOT / "docs" / "mutation.md"

HEAD = """# Mutation report of safety/

Does a test notice when the safety filter's code is wrong?  {n} small changes were made to copies of the files of
`safety/`, one at a time:
{kinds}.
They were drawn by a seed that was committed before the first was judged, in each file in proportion to its lines.
Each was judged by the fast tests of its module (the map is in `benchmarks/mutants.py`), compiled kernels anew for each.

| | mutants |
| --- | --- |
| killed at the first judgement | {killed} |
| of these by running out of {cpu} s of CPU time | {timeout} |
| survived it, killed since by a new or another test | {later} |
| survive, and why that is no fault | {explained} |
| survive, not explained | {open} |

`make mutants` judges what is not judged yet and writes this page; a function that changed is judged anew.

"""


def write(drawn: list[str], cpu_s: int) -> None:
    """Write the page for the mutants of ``drawn`` that are judged."""
    results: dict[str, dict[str, Any]] = json.loads(RESULTS.read_text())
    explained: dict[str, str] = json.loads(EXPLAINED.read_text()) if EXPLAINED.exists() else {}
    found = {key: results[key] for key in drawn if key in results}
    alive = {key: m for key, m in found.items() if m["first"] == "survived"}
    later = {key: m for key, m in alive.items() if m["verdict"] != "survived"}
    left = {key: m for key, m in alive.items() if key not in later}
    kinds = Counter(m["kind"] for m in found.values())
    text = HEAD.format(
        n=len(found),
        kinds=", ".join(f"{kind} {count}" for kind, count in kinds.most_common()),
        killed=len(found) - len(alive),
        timeout=sum(m["first"] == "timeout" for m in found.values()),
        later=len(later),
        explained=sum(key in explained for key in left),
        open=sum(key not in explained for key in left),
        cpu=cpu_s,
    )
    text += _table(found)
    text += _listed("Survive, and why", left, lambda key, m: explained.get(key, "not explained yet"))
    text += _listed("Killed since", later, lambda key, m: f"by `{m['by'].split('::')[-1]}`")
    REPORT.write_text(text)


def _table(found: dict[str, dict[str, Any]]) -> str:
    rows = ["## By file", "", "| file | mutants | survived at first | survive |", "| --- | --- | --- | --- |"]
    for module in sorted({m["module"] for m in found.values()}):
        own = [m for m in found.values() if m["module"] == module]
        first, now = (sum(m[k] == "survived" for m in own) for k in ("first", "verdict"))
        rows.append(f"| {module}.py | {len(own)} | {first} | {now} |")
    return "\n".join(rows) + "\n"


def _listed(title: str, mutants: dict[str, dict[str, Any]], said: Any) -> str:
    lines = ["", f"## {title}", ""]
    for key, m in sorted(mutants.items(), key=lambda item: (item[1]["module"], item[1]["line"])):
        lines += [f"- `safety/{m['module']}.py:{m['line']}` ({m['kind']}): {said(key, m)}  "]
        lines += [f"  `{m['original']}`  ", f"  `{m['mutant']}`"]
    return "\n".join([*lines, ""])
