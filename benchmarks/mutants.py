"""Which changes of ``safety/`` no test notices: a mutation run, and its report docs/mutation.md.

    python -m palmar.benchmarks.mutants [--modules tank qp] [--again | --rest]

A script of our own, for mutmut passes decorated functions by, which here are all compiled kernels, and cosmic-ray
runs one command for every mutant: a fresh process each time, on numba's cache, which after a change of a callee
in another file goes on with the old machine code.  Here a process with all libraries imported is forked for each
mutant of a copy of the tree, and every kernel that a change may reach is taken out of a copy of the cache.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from palmar.benchmarks.mutants_places import Place, places
from palmar.benchmarks.mutants_report import EXPLAINED, RESULTS, write

SEED, COUNT, LEAST = 6, 240, 2
"""Of the drawing: how many in all, spread by lines of code, and the fewest of a file."""
CPU_S = 150
"""CPU time of a mutant's tests after which it counts as killed, by the clock [s]: over three times the slowest file."""
MARKS = "not slow and not gpu and not fault"
ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("assets", "benchmarks", "cli", "configs", "policies", "real_robot", "rollouts", "safety", "sim")

TESTS = {
    "barrier": "rows qp batched_parts stop filter_stops", "batched": "batched",
    "batched_obstacles": "batched_parts batched", "batched_rows": "batched_parts batched",
    "batched_stop": "batched_parts batched", "batched_tree": "batched_parts batched",
    "bounds": "stop watchdog qp filter_stops filter", "boxes": "obstacles obstacle_stops",
    "capsules": "geometry hulls", "check": "check", "chunks": "chunks lookahead", "config": "config",
    "constraints": "constraints hazard_margins config", "declared": "declared", "distances": "geometry hulls stop",
    "dynamics": "dynamics torque", "enforced": "config constraints qp ledger tank filter", "evidence": "check",
    "filter": "filter_cell filter_stops filter tank", "geometry": "geometry hulls stop qp", "hazards": "hazard_margins",
    "hulls": "hulls geometry", "intention": "filter_stops filter", "interior_point": "batched_parts batched",
    "judge": "filter", "ledger": "ledger tank", "live": "stop obstacle_stops", "lookahead": "lookahead",
    "margins": "constraints hazard_margins", "mjcf": "geometry dynamics hulls tank", "namespace": "constraints",
    "obstacles": "obstacles obstacle_stops", "qp": "qp naive filter_stops filter",
    "reading": "constraints hazard_margins", "reflex": "filter", "robot": "constraints dynamics config filter",
    "roll": "lookahead", "rows": "rows qp dynamics naive stop filter_stops batched",
    "sight": "obstacles obstacle_stops", "solids": "obstacles obstacle_stops",
    "stop": "stop watchdog torque filter_stops", "tank": "ledger tank", "torque": "torque stop",
    "tracking": "filter batched", "tree": "geometry hulls dynamics qp", "types": "constraints chunks filter",
    "verify": "stop obstacle_stops filter_stops", "watchdog": "watchdog",
}  # fmt: skip
"""Files of tests/safety that judge a module first; the others do with ``--rest``."""


def draw(modules: Iterable[str], folder: Path, counts: dict[str, int]) -> dict[str, tuple[str, Place]]:
    """The mutants of each module by their id: kinds in turn, places of a kind by chance."""
    drawn: dict[str, tuple[str, Place]] = {}
    for module in modules:
        source = (folder / "safety" / f"{module}.py").read_bytes()
        rng = random.Random(f"{SEED} {module}")
        kinds: dict[str, list[Place]] = {}
        for place in places(source):
            kinds.setdefault(place.kind, []).append(place)
        for kind in kinds.values():
            rng.shuffle(kind)
        order = sorted(kinds)
        rng.shuffle(order)
        most = max(map(len, kinds.values()), default=0)
        turns = [kinds[k][i] for i in range(most) for k in order if i < len(kinds[k])]
        for place in turns[: counts[module]]:
            drawn[f"{module} {place.block}"] = (module, place)
    return drawn


def shares(folder: Path) -> dict[str, int]:
    """How many mutants each module of ``safety`` gets."""
    lines = {p.stem: len(p.read_text().splitlines()) for p in sorted((folder / "safety").glob("*.py"))}
    lines = {module: n for module, n in lines.items() if n}
    return {module: max(LEAST, round(COUNT * n / sum(lines.values()))) for module, n in lines.items()}


def uses(folder: Path) -> dict[str, set[str]]:
    """Of each kernel and each value of a module, the names of others that it is made of."""
    found: dict[str, set[str]] = {}
    for path in (*(folder / "safety").glob("*.py"), *(folder / "sim").rglob("*.py"), *(folder / "tests").rglob("*.py")):
        for node in ast.parse(path.read_bytes()).body:
            if isinstance(node, ast.Assign | ast.AnnAssign):
                defined = [n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
            elif isinstance(node, ast.FunctionDef) and any("njit" in ast.unparse(d) for d in node.decorator_list):
                defined = [node.name]
            else:
                continue
            names = [n for n in ast.walk(node) if isinstance(n, ast.Name)]
            own = {a.arg for n in ast.walk(node) if isinstance(n, ast.arguments) for a in n.args}
            own |= {n.id for n in names if isinstance(n.ctx, ast.Store)}
            for name in defined:
                found.setdefault(name, set()).update({n.id for n in names} - own)
    return found


def reached(name: str, words: dict[str, set[str]]) -> set[str]:
    """Names whose meaning may change with ``name``, those of two modules not told apart: so rather too many."""
    found = {name}
    while more := {user for user, used in words.items() if used & found} - found:
        found |= more
    return found


class Copy:
    """A copy of the committed tree in a folder of its own, where mutants live and die."""

    def __init__(self, folder: Path, commit: str) -> None:
        self.at = at = folder / "tree"
        shutil.rmtree(at, ignore_errors=True)
        at.mkdir(parents=True)
        archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True).stdout
        subprocess.run(["tar", "x", "-C", str(at)], input=archive, check=True)
        (at / "tests/conftest.py").write_text("")  # what other processes leave behind is no mutant's
        (at / "names/palmar").mkdir(parents=True)
        for name in FOLDERS:
            (at / "names/palmar" / name).symlink_to(at / name)
        self.uses = uses(at)
        texts = [p.read_bytes() for name in ("safety", "sim") for p in sorted((at / name).rglob("*.py"))]
        digest = hashlib.sha256(b"".join(text for text in texts if b"numba" in text)).hexdigest()[:16]
        self.warm, self.cache = folder / "kernels" / digest, folder / "cache"
        self.seconds: dict[str, float] = {}
        """What each test took on the code as it is: the quick ones judge first."""

    def judge(self, module: str, place: Place | None, tests: list[str]) -> dict[str, Any]:
        """What the tests say of a mutant of ``module``, or of the code as it is."""
        path, warm, cache = self.at / "safety" / f"{module}.py", self.warm, self.cache
        source = path.read_bytes()
        if place is not None:
            shutil.rmtree(cache, ignore_errors=True)
            shutil.copytree(warm, cache, copy_function=os.link)  # numba replaces files, never writes into one
            names = reached(place.name, self.uses)
            for file in cache.rglob("*.nb?"):
                if set(re.split(r"[.<>-]", file.name)) & names:
                    file.unlink()
            path.write_bytes(place.apply(source))
        began, out = time.monotonic(), self.at / "verdict.json"
        out.unlink(missing_ok=True)
        try:
            pid = os.fork()
            if pid == 0:
                _child(self, warm if place is None else cache, tests, out)
            _, status, used = os.wait4(pid, 0)
        finally:
            path.write_bytes(source)
        said: dict[str, Any] = (
            json.loads(out.read_text()) if out.exists() else {"verdict": "crashed", "by": f"status {status}"}
        )
        self.seconds.update(said.pop("seconds", {}))
        if os.WIFSIGNALED(status) and used.ru_utime + used.ru_stime > CPU_S - 1:
            said = {"verdict": "timeout", "by": f"{CPU_S} s of CPU time"}
        return {**said, "cpu_s": round(used.ru_utime + used.ru_stime, 1), "wall_s": round(time.monotonic() - began, 1)}


class _Recorder:
    """A plugin of pytest that begins with the quickest tests and remembers the first failure."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.known, self.by, self.seconds = seconds, "", {}

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items.sort(key=lambda item: self.known.get(item.nodeid, 0.0))

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
        if report.failed and not self.by:
            self.by = report.nodeid

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed and not self.by:
            self.by = f"import by {report.nodeid}"


def _child(copy: Copy, cache: Path, tests: list[str], out: Path) -> None:
    """Run ``tests`` in the copy, write what was found, end the process."""
    import pytest
    from numba.core import config

    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S + 5))
    os.chdir(copy.at)
    with open(copy.at / "log.txt", "w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    config.CACHE_DIR = str(cache)  # type: ignore[attr-defined]
    for name in [n for n in sys.modules if n.split(".")[0] == "palmar"]:
        del sys.modules[name]
    sys.path.insert(0, str(copy.at / "names"))
    sys.dont_write_bytecode = True
    recorder, files = _Recorder(copy.seconds), [f"tests/safety/test_{name}.py" for name in tests]
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:random_order", "-m", MARKS]
    code = pytest.main([*options, *files], plugins=[recorder])
    verdict = {0: "survived", 1: "killed", 2: "killed", 3: "killed"}.get(int(code), f"pytest said {code}")
    out.write_text(json.dumps({"verdict": verdict, "by": recorder.by, "seconds": recorder.seconds}))
    os._exit(0)


def _libraries() -> None:
    """Import what every test imports, once."""
    import daqp  # noqa: F401
    import hypothesis  # noqa: F401
    import mujoco  # noqa: F401
    import pytest  # noqa: F401
    import scipy.optimize  # noqa: F401
    import torch
    import yaml  # noqa: F401
    from numba import njit
    from numba.core import caching

    torch.set_num_threads(1)
    # The cache is pruned by meaning, so a file's time says nothing.
    caching._SourceFileBackedLocatorMixin.get_source_stamp = lambda self: 0  # type: ignore[attr-defined]
    njit(lambda x: x + 1)(1)


def judge_all(copy: Copy, drawn: dict[str, tuple[str, Place]], *, again: bool, rest: bool) -> None:
    """Judge what is not judged yet, and survivors that are not explained where that is asked for."""
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    everything = {p.stem.removeprefix("test_") for p in (copy.at / "tests/safety").glob("test_*.py")}
    why: dict[str, str] = json.loads(EXPLAINED.read_text())
    sound: set[str] = set()
    for key, (module, place) in drawn.items():
        known = results.get(key)
        if known and not (known["verdict"] == "survived" and key not in why and (again or rest)):
            continue
        tests = sorted(everything - set(TESTS[module].split())) if rest else TESTS[module].split()
        for test in (t for t in tests if t not in sound):
            told = copy.judge(module, None, [test])
            if told["verdict"] != "survived":
                raise SystemExit(f"test_{test} fails on the code as it is: {told}")
            sound.add(test)
        told = copy.judge(module, place, tests)
        source = (copy.at / "safety" / f"{module}.py").read_bytes()
        lines = [text.split(b"\n")[place.line - 1].strip().decode() for text in (source, place.apply(source))]
        results[key] = {"module": module, "line": place.line, "name": place.name, "kind": place.kind,
                        "original": lines[0], "mutant": lines[1], **told,
                        "first": known["first"] if known else told["verdict"],
                        "judged": sorted({*tests, *(known["judged"] if known else ())})}  # fmt: skip
        RESULTS.with_suffix(".tmp").write_text(json.dumps(results, indent=1) + "\n")
        RESULTS.with_suffix(".tmp").replace(RESULTS)
        print(f"{told['verdict']:9} {told['cpu_s']:6} s  safety/{module}.py:{place.line}  [{told['by']}]", flush=True)
        print(f"    {lines[0]}\n    {lines[1]}", flush=True)


def main() -> None:
    """Judge what is not judged yet and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--modules", nargs="+", help="only these files of safety")
    parser.add_argument("--again", action="store_true", help="judge survivors once more, after a change of the tests")
    parser.add_argument("--rest", action="store_true", help="judge survivors by all other files of tests/safety")
    parser.add_argument("--commit", default="HEAD", help="what is judged, by its own tests")
    parser.add_argument("--folder", type=Path, help="keep the copy of the tree and its compiled kernels here")
    parser.add_argument("--report", action="store_true", help="judge nothing, only write the report")
    args = parser.parse_args()
    counts = shares(ROOT)
    if not args.report:
        _libraries()
        with tempfile.TemporaryDirectory() as temporary:
            copy = Copy((args.folder or Path(temporary)).resolve(), args.commit)
            counts = shares(copy.at)
            drawn = draw(args.modules or list(counts), copy.at, counts)
            judge_all(copy, drawn, again=args.again, rest=args.rest)
    write(list(draw(list(counts), ROOT, counts)), CPU_S)


if __name__ == "__main__":
    main()
