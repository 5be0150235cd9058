"""The command line as a stranger meets it: help that teaches, one-line refusals, exit codes."""

import ast
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from palmar.cli.main import VERBS

CLI = Path(__file__).parents[2] / "cli"
HEAVY = {"torch", "mujoco", "numba", "rclpy", "hydra", "matplotlib", "numpy", "rich"}


def test_help_names_every_verb_and_where_to_start(palmar):
    code, out, _ = palmar("--help")
    assert code == 0
    assert all(f"\n  {verb} " in out for verb in VERBS)
    assert "not safety-rated" in out
    assert palmar()[1] == out


def test_there_is_one_file_per_verb():
    assert not [verb for verb in VERBS if not (CLI / f"{verb}.py").exists()]


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_says_what_it_does_with_two_examples(palmar, verb):
    code, out, _ = palmar(verb, "--help")
    assert code == 0
    assert VERBS[verb] in out
    assert out.count(f"\n  palmar {verb}") >= 2
    assert any(word in out for word in ("Prints", "prints", "Writes", "writes", "leaves")), "where the output goes"
    assert "exit codes:" in out


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_loads_nothing_heavy(verb):
    ask = (
        f"import sys; from palmar.cli.main import main; main({[w for w in (verb, '--help') if w]!r});"
        f"print('LOADED', [m for m in {sorted(HEAVY)!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED []"


def test_help_is_there_in_half_a_second(process):
    def once():
        begin = used()
        process("--help")
        return used() - begin

    def used():  # CPU time: the machine may be busy with something else
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return children.ru_utime + children.ru_stime

    assert min(once() for _ in range(5)) < 0.5


def test_the_version_is_the_packages(palmar):
    from importlib.metadata import version

    assert palmar("--version")[1].strip() == f"palmar {version('palmar')}"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tran"], "unknown verb 'tran', did you mean 'train'? accepted: doctor, envs"),
        (["train", "--time-limt", "3"], "unknown argument '--time-limt', did you mean '--time-limit'?"),
        (["train", "--time-limit", "long"], "argument --time-limit: invalid float value: 'long'"),
        (["train", "--time-limit", "-1"], "--time-limit is -1.0, need seconds > 0"),
        (["train", "--resume"], "--resume needs --out DIR"),
        (["train", "taks=lift"], "unknown group 'taks', did you mean 'task'? accepted: task, engine"),
        (["train", "task=lfit"], "unknown task 'lfit', did you mean 'lift'? accepted: clutter"),
        (["train", "lift"], "'lift' is not of the form group=name or group.key=value"),
        (["train", "algo.gama=0.9"], "algo: unknown key 'gama', did you mean 'gamma'?"),
        (["train", "algo.gamma=high"], "algo.gamma is 'high', need a number"),
        (["train", "algo.gamma=2"], "algo.gamma must be a finite number in [0, 1], got 2.0"),
        (["train", "algo.gamma=${algo.clip}"], "configurations hold plain values only"),
        (["train", "algo.gamma=0.9=["], "cannot read 'algo.gamma=0.9=['"),
        (
            ["train", "algo.budgets.grip_forse=1"],
            "unknown constraint 'grip_forse', did you mean 'grip_force'?",
        ),
        (["train", "engine.threads=-1"], "threads must be in [0, 1024], got -1"),
        (
            ["train", "robot.n_arm=6"],
            "values of robot cannot be changed here, only robot=NAME of ['fr3_allegro', 'fr3_leap'",
        ),
        (
            ["train", "constraints.constraints.table_force.budget=-1"],
            "constraint table_force: budget must be",
        ),
        (["train", "task.tracker.rate=0"], "task.tracker: need rate > 0"),
        (["envs", "lfit"], "unknown task 'lfit', did you mean 'lift'?"),
        (
            ["eval", "nobody"],
            "no folder and no script of lift is called 'nobody'; accepted: a bundle's folder, oracle",
        ),
        (["eval", "oracle", "--episodes", "0"], "--episodes is 0, need at least 1"),
        (["replay"], "the following arguments are required: FILE"),
        (["replay", "nothing.mcap"], "nothing.mcap"),
        (["inspect", __file__], "not an MCAP file"),
        (["bench", "speed"], "invalid choice: 'speed' (choose from"),
        (["deploy", "--bundle", "nowhere"], "is missing or not a plain file"),
        (["deploy", "--bundle", "x", "--mode", "off"], "invalid choice: 'off' (choose from"),
    ],
)
def test_a_wrong_word_gets_one_line_and_exit_code_2(palmar, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    code, out, err = palmar(*words)
    assert (code, out) == (2, "")
    assert said in err
    assert err.startswith("palmar: ") and err.count("\n") == 1 and "Traceback" not in err
    assert not list(tmp_path.iterdir()), "a refused command leaves nothing behind"


def test_debug_shows_where_a_refusal_comes_from(palmar):
    code, _, err = palmar("--debug", "envs", "lfit")
    assert code == 2 and "Traceback" in err and err.rstrip().splitlines()[-1].startswith("palmar: unknown task")


def test_a_bug_is_called_one(palmar, monkeypatch):
    from palmar.cli import envs

    monkeypatch.setattr(envs, "run", lambda args: 1 / 0)
    code, _, err = palmar("envs")
    assert code == 3 and "ZeroDivisionError" in err and "bug in Palmar" in err


def test_an_interrupt_is_quiet(palmar, monkeypatch):
    from palmar.cli import envs

    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(envs, "run", interrupted)
    code, _, err = palmar("envs")
    assert code == 130 and err.strip() == "palmar: interrupted"


def test_a_closed_pipe_is_no_error():
    """As in ``palmar envs | head``, whose reader is gone before the last line."""
    read, write = os.pipe()
    os.close(read)
    words = [sys.executable, "-m", "palmar.cli.main", "--help"]
    done = subprocess.run(words, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("path", sorted(p for p in CLI.glob("*.py") if p.stem in VERBS), ids=lambda p: p.stem)
def test_a_verb_imports_heavy_things_only_when_run(path):
    tree = ast.parse(path.read_text())
    heads = {a.name.split(".")[0] for n in tree.body if isinstance(n, ast.Import) for a in n.names}
    heads |= {(n.module or "").split(".")[0] for n in tree.body if isinstance(n, ast.ImportFrom)}
    assert not heads & HEAVY
