"""Verbs that run: train, eval, envs, on the smallest task; what they leave behind."""

import ast
import json
import math
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest
from rich.console import Console

from palmar.cli import bench
from palmar.cli.live import Display, bar, clock
from palmar.policies.log import Report

TINY = [
    "task=reach",
    "algo.num_envs=4",
    "algo.steps=8",
    "algo.minibatch=16",
    "algo.iterations=2",
    "engine.threads=1",
]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    from palmar.cli.main import main

    out = tmp_path_factory.mktemp("run") / "tiny"
    assert main(["train", *TINY, "--episodes", "4", "--out", str(out)]) == 0
    return out


def test_training_leaves_a_bundle_and_a_record(run_dir):
    record = json.loads((run_dir / "record.json").read_text())
    assert record["config"]["choices"]["task"] == "reach"
    assert record["config"]["algo"]["steps"] == 8 and record["config"]["algo"]["gamma"] > 0
    assert len(record["constraints"]["hash"]) == 64
    assert record["packages"]["mujoco"] and record["packages"]["torch"]
    assert set(record["git"]) == {"commit", "dirty"}
    assert record["result"]["episodes"] == 4
    contract = json.loads((run_dir / "bundle" / "contract.json").read_text())
    assert contract["task"]["name"] == "reach"
    assert contract["constraints"]["hash"] == record["constraints"]["hash"]


def test_a_bundle_is_evaluated_as_it_was_trained(palmar, run_dir, tmp_path):
    code, out, _ = palmar("eval", run_dir / "bundle", "--episodes", 4, "--json", tmp_path / "e.json")
    assert code == 0 and "of 4 succeeded" in out
    (row,) = json.loads((tmp_path / "e.json").read_text())["rows"]
    assert (row["task"], row["episodes"]) == ("reach", 4)
    assert set(row["constraints"]) >= {"table_force", "workspace"}


def test_eval_says_no_below_the_required_rate(palmar, run_dir):
    assert palmar("eval", run_dir / "bundle", "--episodes", 2, "--require", 1.0)[0] == 1


def test_a_bundle_brings_its_own_task_and_constraints(palmar, run_dir):
    for word in ("task=lift", "constraints.constraints.table_force.budget=9", "robot=fr3_leap"):
        code, _, err = palmar("eval", run_dir / "bundle", word)
        assert code == 2 and "brings its own" in err


def test_a_changed_bundle_is_refused(palmar, run_dir, tmp_path):
    import shutil

    copy = tmp_path / "bundle"
    shutil.copytree(run_dir / "bundle", copy)
    raw = json.loads((copy / "contract.json").read_text())
    raw["constraints"]["text"] = raw["constraints"]["text"].replace("limit: 5.0", "limit: 50.0")
    (copy / "contract.json").write_text(json.dumps(raw))
    code, _, err = palmar("eval", copy)
    assert code == 2 and "constraints" in err and err.count("\n") == 1


def test_a_run_is_never_overwritten(palmar, run_dir):
    before = (run_dir / "record.json").read_bytes()
    code, _, err = palmar("train", *TINY, "--out", run_dir)
    assert code == 2 and "already holds a run" in err
    assert (run_dir / "record.json").read_bytes() == before


def test_envs_lists_tasks_with_their_budgets(palmar):
    rows = {row["task"]: row for row in json.loads(palmar("envs", "--json")[1])["rows"]}
    assert {"lift", "reach"} <= set(rows)
    assert rows["lift"]["instruction"].startswith("lift the ")
    assert rows["lift"]["constraints"]["table_force"]["unit"] == "s"
    assert rows["lift"]["robots"] == ["fr3_leap", "panda_leap"] and "fr3_allegro" in rows["reach"]["robots"]
    shown = palmar("envs", "reach", "task.max_steps=7")[1]
    assert "task.max_steps=7\n" in shown and "task.constraints=[]  (every one of the file)" in shown
    code, _, refused = palmar("envs", "reach", "task.hold=0")
    assert code == 2 and "reach.hold must be positive, got 0" in refused


def report(iteration, **changes):
    known = dict(
        iteration=iteration,
        env_steps=100 * iteration,
        wall_s=2.0 * iteration,
        episodes=3,
        episode_return=1.0,
        success=0.25,
        length=10.0,
        costs={"table_force": 0.5, "grip_force": 0.01, "workspace": math.nan},
        budgets={"table_force": 0.05, "grip_force": 0.1, "workspace": math.inf},
        multipliers={"table_force": 1.5, "grip_force": 0.0, "workspace": 0.0},
        learner={},
        seconds={},
        fps=1234.0,
    )
    return Report(**known | changes)


def test_the_display_shows_costs_against_budgets_and_the_time_left():
    console = Console(force_terminal=True, width=100, record=True, file=open("/dev/null", "w"))
    with Display("reach-ppo", iterations=10, time_limit_s=None, console=console) as display:
        for k in (1, 2, 3):
            display(report(k))
        assert display.left(report(3)) == pytest.approx(14.0)
        console.print(display._page(report(3)))
    text = console.export_text()
    assert "reach-ppo  3/10" in text and "1,234 steps/s" in text
    assert "table force" in text and "0.500" in text and "0.050" in text and "1.50" in text


def test_without_a_terminal_a_line_names_what_is_over_budget(capsys):
    with Display("reach-ppo", iterations=10, time_limit_s=5.0) as display:
        display(report(1))
    said = capsys.readouterr().err
    assert "success 25 % exploring" in said and "over budget: table_force 0.5/0.05" in said


@pytest.mark.parametrize(("value", "full", "share"), [(0.5, 1, 0.5), (2, 1, 1), (0, 0, 0), (1, 0, 1), (math.nan, 1, 0)])
def test_a_bar_is_full_at_the_budget_and_red_beyond(value, full, share):
    drawn = bar(value, full, good="cyan", bad="red")
    assert drawn.completed == share
    assert (drawn.complete_style == "red") == (value > full)


def test_unknown_times_are_not_numbers():
    assert (clock(math.nan), clock(125.0)) == ("–", "2:05")


def test_every_bench_has_a_module_whose_run_takes_what_quick_gives():
    """By the syntax tree: some benches import what is not installed everywhere."""
    for name, known in bench.BENCHES.items():
        tree = ast.parse((files("palmar.benchmarks") / f"{name}.py").read_text())
        (run,) = (n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "run")
        accepted = {a.arg for a in (*run.args.args, *run.args.kwonlyargs)}
        assert {*known.quick, "progress"} <= accepted, name


@pytest.fixture
def children(monkeypatch):
    """Stands in for the processes of ``bench all``: sim works, deploy is refused, urdf dies; notes who was called."""
    calls = []
    code = {"commit": "c", "dirty": False}

    def child(words, **asked):
        name, out = words[4], Path(words[6])
        calls.append(name)
        assert words[7:] == ["--quick"] and asked["capture_output"]
        if name == "deploy":
            return subprocess.CompletedProcess(words, 2, "", "palmar: no rclpy\n")
        if name == "urdf":
            return subprocess.CompletedProcess(words, -11, "", "")
        out.write_text(json.dumps({"rows": [{"n": 1}], "quick": True, "record": {"git": code, "command": []}}))
        return subprocess.CompletedProcess(words, 0, "", "")

    monkeypatch.setattr(bench.subprocess, "run", child)
    monkeypatch.setattr("palmar.rollouts.provenance.git_state", lambda: dict(code))
    monkeypatch.setattr(bench, "BENCHES", {n: bench.BENCHES[n] for n in ("sim", "engines", "deploy", "urdf")})
    return calls, code


def test_all_benches_go_on_after_a_failure_and_where_they_were_stopped(palmar, children, tmp_path):
    (calls, code), path = children, tmp_path / "all.json"
    exit_code, out, _ = palmar("bench", "all", "--quick", "--json", path)
    raw = json.loads(path.read_text())
    assert exit_code == 1 and list(raw) == ["sim", "deploy", "urdf"], "engines needs what is not here"
    assert raw["sim"]["rows"] == [{"n": 1}] and raw["sim"]["record"]["command"] == ["palmar", "bench", "sim", "--quick"]
    assert (raw["deploy"]["failed"], raw["urdf"]["failed"]) == ("no rclpy", "status -11")
    assert "failed: no rclpy" in out
    palmar("bench", "all", "--quick", "--json", path)
    assert calls[3:] == ["deploy", "urdf"], "what was measured with this commit is kept"
    code["commit"] = "d"
    palmar("bench", "all", "--quick", "--json", path)
    assert calls[5:] == ["sim", "deploy", "urdf"], "what was measured with another is not"


def test_all_refuses_a_file_of_something_else(palmar, tmp_path):
    (tmp_path / "a.json").write_text('{"rows": []}')
    code, _, err = palmar("bench", "all", "--json", tmp_path / "a.json")
    assert code == 2 and "not of palmar bench all" in err
    assert palmar("bench", "all", "--commands", "3")[2].startswith("palmar: --commands belongs to bench attack")


def test_a_bench_writes_rows_and_where_they_came_from(palmar, tmp_path, monkeypatch):
    from palmar.benchmarks import sim

    whole = sim.run
    small = {"rounds": 1, "steps": 2, "num_envs": 4, "tasks": ("reach",)}
    monkeypatch.setattr(sim, "run", lambda **asked: whole(**small, progress=asked["progress"]))
    code, out, _ = palmar("bench", "sim", "--quick", "--json", tmp_path / "sim.json")
    raw = json.loads((tmp_path / "sim.json").read_text())
    assert code == 0 and raw["quick"] is True and raw["record"]["packages"]["mujoco"]
    assert {"task", "engine", "env_steps_per_s", "env_ratio", "cost_overhead"} <= set(raw["rows"][0])
    assert "env_ratio" in out
