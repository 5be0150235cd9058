"""docs/architecture.md against the code: its folders are the table of arrows, its processes are those that start."""

import ast
import re
from pathlib import Path

from palmar.real_robot.processes import NODES

ROOT = Path(__file__).parents[1]
FOLDERS, PROCESSES = re.findall(r"```mermaid\n(.*?)```", (ROOT / "docs/architecture.md").read_text(), re.S)


def table():
    """{folder: folders and modules it may import} of test_layers.py, read as text."""
    tree = ast.parse((ROOT / "tests/test_layers.py").read_text())
    named = {n.targets[0].id: n.value for n in tree.body if isinstance(n, ast.Assign)}
    return ast.literal_eval(named["MAY_IMPORT"])


def reached(arrows):
    """Everything each node reaches over the arrows."""
    closure = {a: {b for x, b in arrows if x == a} for a, _ in arrows}
    while any(
        grown := [(a, c) for a, bs in closure.items() for b in bs for c in closure.get(b, ()) if c not in closure[a]]
    ):
        for a, c in grown:
            closure[a].add(c)
    return {a: bs - {a} for a, bs in closure.items()}


def test_the_picture_of_the_folders_is_the_table_of_arrows():
    drawn = set(re.findall(r"^\s+(\w+) --> (\w+)$", FOLDERS, re.M))
    told = {(a, b.replace("sim.interface", "interface")) for a, bs in table().items() for b in bs}
    told |= {("sim", "interface"), ("interface", "safety")}
    data = {"configs", "assets"}  # read as data; the picture's text says so
    told = {(a, b) for a, b in told if not data & {a, b}}
    assert reached(drawn) == reached(told)


def test_every_folder_is_in_the_picture():
    drawn = set(re.findall(r"^\s+(\w+)\[", FOLDERS, re.M))
    assert drawn == set(table()) - {"configs", "assets"} | {"interface"}


def test_the_picture_of_the_processes_has_every_process_that_starts():
    bold = set(re.findall(r"<b>(\w+)</b>", PROCESSES))
    trees = [ast.parse(p.read_text()) for p in sorted((ROOT / "real_robot").glob("*.py"))]
    calls = [c for tree in trees for c in ast.walk(tree) if isinstance(c, ast.Call) and len(c.args) == 2]
    started = {
        c.args[1].value.split(".")[-1].replace("serve", "fakes")
        for c in calls
        if getattr(c.func, "attr", "") == "start" and isinstance(c.args[1], ast.Constant)
    }
    started |= set(NODES)
    assert started - {"link"} == bold, "link, the bad network, is of a rehearsal only"
