"""The how-tos, followed: their code runs, their files exist, their commands parse."""

import importlib.util
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from palmar.cli.config import folder
from palmar.cli.wiring import clearance_of
from palmar.rollouts.audit import audit
from palmar.rollouts.header import RolloutHeader
from palmar.rollouts.read import read
from palmar.rollouts.record import RolloutWriter
from palmar.rollouts.report.page import Summary, write_report
from palmar.safety import constraints, margins
from palmar.safety.filter import Filter
from palmar.safety.robot import Limits
from palmar.safety.types import Array, Measurement
from palmar.sim.env import make_env
from palmar.sim.interface import RobotState
from palmar.sim.robots import load_robot
from palmar.sim.tasks.lift import LiftConfig, LiftTask

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def block(page, language, holding=""):
    """The first fenced block of a language that holds a text."""
    found = re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs" / page).read_text(), re.S)
    return next(text for text in found if holding in text)


def test_the_task_of_the_how_to_runs_with_its_costs(tmp_path, monkeypatch):
    path = tmp_path / "home.py"
    path.write_text(block("add_a_task.md", "python"))
    spec = importlib.util.spec_from_file_location("palmar_home_example", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    robot = load_robot("fr3_leap")
    held = constraints.load(folder() / "constraints" / "arm_hand.yaml", robot.limits)
    task = module.HomeTask(module.HomeConfig())
    env = make_env(task, robot, held, num_envs=2, nthread=1)
    first = env.reset(0)
    # The targets go home at full step: the shortest policy that could work.
    for _ in range(env.max_steps - 1):
        step = env.step(np.clip((robot.home - env.io.target)[:, : robot.n_arm] / 0.08, -1, 1))
    assert first.shape == (2, env.obs_dim)
    assert step.cost.shape == (2, 3) and env.constraint_names == task.config.constraints
    assert step.info["success"].all()


@pytest.fixture
def tilt(monkeypatch):
    """The how-to, followed: its margin in the table of margins, its line in the constraint file."""
    names = {"Measurement": Measurement, "Limits": Limits, "Array": Array, "namespace": margins.namespace}
    exec(block("add_a_constraint.md", "python"), names)
    monkeypatch.setitem(margins.MEMORYLESS, "tilted_object", names["tilted_object"])
    text = (folder() / "constraints" / "arm_hand.yaml").read_text().rstrip("\n") + "\n"
    text += block("add_a_constraint.md", "yaml")
    robot = load_robot("fr3_leap")
    return names["tilted_object"], robot, constraints.parse(text, robot.limits), text


def test_the_constraint_of_the_how_to_costs_in_training_when_an_object_tilts(tilt):
    margin, robot, held, _ = tilt
    assert held.names[-1] == "tilted_object"
    task = LiftTask(replace(LiftConfig(), constraints=("tilted_object",)))
    env = make_env(task, robot, held, num_envs=1, nthread=1)
    env.reset(0)
    step = env.step(np.zeros((1, env.action_dim)))
    assert step.cost.shape == (1, 1) and step.cost[0, 0] == 0
    assert step.info["margin"][0, 0] == pytest.approx(0.5, abs=0.05)
    m = env.engine.measure()
    tilted = m.replace(object_quaternion=np.broadcast_to(LYING, m.object_quaternion.shape))
    assert margin(tilted, robot.limits, limit=0.5) == pytest.approx(0.5 - np.pi / 2)
    samples = Measurement(**{k: None if x is None else x[None] for k, x in vars(tilted).items()})
    cost = held.select(("tilted_object",)).over(samples, {}, dt=0.005).cost
    assert cost == pytest.approx(0.005)


def test_the_constraint_of_the_how_to_is_judged_by_the_filter_audited_and_reported(tilt, tmp_path):
    _, robot, held, text = tilt
    rollout = filtered(robot, held, text, tmp_path / "run.mcap")
    k = held.names.index("tilted_object")
    told = rollout.verdicts.margins[:, k]
    assert told[:20] == pytest.approx(0.5)  # no object in sight is no violation
    assert told[20:60] == pytest.approx(0.5)
    assert told[60:] == pytest.approx(0.5 - np.pi / 2)
    found = audit(rollout, held, clearance_of(robot))
    row = found["tilted_object"]
    assert row.cost == pytest.approx(0.040) and row.within_budget and not row.enforced
    page = write_report(tmp_path / "run.html", [rollout], [found], summary=Summary(commands=[]), max_videos=0)
    assert "tilted object" in page.read_text() or "tilted_object" in page.read_text()


LYING = np.array([np.sqrt(0.5), np.sqrt(0.5), 0.0, 0.0])


def filtered(robot, held, text, path):
    """100 ticks of a filter whose object appears after 20 and lies on its side after 60, recorded."""
    filter_, zero = Filter(robot, held), np.zeros(robot.n)
    filter_.start(RobotState(0.0, 0, robot.home, zero, zero))
    head = RolloutHeader(task="lift", instruction="", robot=robot, constraints=text, control_dt=0.001, objects=("red",))
    with RolloutWriter(path, head) as out:
        for i in range(100):
            t = 0.001 * (i + 1)
            pose = np.array([0.5, 0.0, 0.03]), LYING if i >= 60 else np.array([1.0, 0.0, 0.0, 0.0])
            seen = None if i < 20 else (pose[0][None], pose[1][None])
            state = RobotState(t, i + 1, filter_.u, filter_.ud, zero)
            command, verdict = filter_.tick(state, t, objects=seen)
            out.joint_state(t, state.q, state.qd, state.tau)
            out.intended(t, command.q)
            out.command(t, command.q, filter_.ud, filter_.udd, zero)
            out.object_pose(t, "red", *pose)
            out.verdict(t, verdict)
        out.finish(success=None, detail={})
    return read(path)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_link_leads_somewhere(page):
    targets = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text())
    local = [t for t in targets if "://" not in t]
    missing = [t for t in local if not (page.parent / t).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_palmar_command_of_a_page_has_known_verbs_and_options(page, palmar):
    fenced = re.findall(r"```\n(.*?)```", page.read_text(), re.S)
    lines = [line for part in fenced for line in part.splitlines()]
    lines += re.findall(r"`(palmar [a-z][^`]*)`", page.read_text())
    for line in lines:
        match = re.match(r"(?:\S*/)?palmar ([a-z]+)(.*)", line.split("#")[0])
        if not match:
            continue
        verb, rest = match.groups()
        known = palmar(verb, "--help")[1]
        assert known, f"{page.name}: no verb {verb} in {line!r}"
        for option in re.findall(r"(?<= )--[a-z-]+", rest):
            assert option in known, f"{page.name}: {verb} has no {option}"
