"""The rehearsal: its judge on made-up runs, and the short one on the real graph."""

import argparse
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy")
import toy_robot as toy

from palmar.cli import rehearse as cli_rehearse
from palmar.cli.main import main
from palmar.real_robot import graph, judge, rehearse, scenarios
from palmar.real_robot.deploy import DeployConfig
from palmar.real_robot.nodes import link
from palmar.real_robot.twin import FAULT
from palmar.rollouts.rollout import Commands, Joints, Verdicts
from palmar.rollouts.schema import STATE_CODES
from palmar.safety.types import ConfigError, State


def run_of(tmp_path):
    return SimpleNamespace(
        robot_model=toy.robot, constraint_set=lambda robot: toy.run_config(tmp_path).constraint_set(robot), period=0.001
    )


def rollout(state, reason, *, moving, margin):
    """Ticks of one millisecond from 10 s on: states and reasons by name, joint speed, margin of joint_position."""
    n = len(state)
    t = 10.0 + 0.001 * np.arange(n)
    ud = np.tile(np.asarray(moving, float)[:, None], 2)
    zero = np.zeros((n, 2))
    verdicts = Verdicts(
        t=t, state=np.array([STATE_CODES.index(s) for s in state]), changed=np.zeros(n, bool), edit=np.zeros(n),
        compute_s=np.zeros(n), margins=np.asarray(margin, float)[:, None], active=np.zeros((n, 1), bool),
        reason=tuple(reason),
    )  # fmt: skip
    return SimpleNamespace(
        verdicts=verdicts, command=Commands(t, zero, ud, zero, zero), joints=Joints(t, zero, ud, zero)
    )


def played(scenario, **changes):
    values = {"begin": 10.05, "undone": 10.5495, "end": 10.6, "resumed": 10.58, "speeds": np.zeros((0, 2))}
    return graph.Played(scenario, **(values | changes))


CRASH = next(s for s in scenarios.SCENARIOS if s.name == "policy crashes")


def story(*, at=60, still=100, reason="policy_died", low=0.1):
    """The policy dies at 50 ms, the filter leaves RUN at ``at``, all stand from ``still`` on."""
    n = 600
    state = [State.RUN] * at + [State.HOLD] * (550 - at) + [State.RUN] * 50
    return rollout(
        state, [""] * at + [reason] * (550 - at) + [""] * 50,
        moving=np.where((np.arange(n) < still) | (np.arange(n) >= 550), 0.2, 0.0), margin=np.full(n, low),
    )  # fmt: skip


def judged(tmp_path, told, **changes):
    return judge.judge(played(CRASH, **changes), told, run_of(tmp_path))


def test_a_scenario_as_it_must_be_passes_with_its_times(tmp_path):
    row = judged(tmp_path, story())
    assert row.ok and row.reason == "policy_died" and row.worst == "joint_position"
    assert row.reaction_ms == pytest.approx(10.0, abs=1e-6) and row.standstill_ms == pytest.approx(49.0, abs=1e-6)
    assert row.resumed_ms == pytest.approx(30.5, abs=1e-6)


@pytest.mark.parametrize(
    ("told", "changes", "problem"),
    [
        (story(at=250), {}, "left RUN after 200"),
        (story(reason="chunk_stale"), {}, "the reason is 'chunk_stale'"),
        (story(still=551), {}, "stood after never"),
        (story(low=-1e-6), {}, "joint_position was violated"),
        (story(), {"resumed": None}, "did not follow the policy again"),
    ],
)
def test_whatever_is_not_as_it_must_be_is_named(tmp_path, told, changes, problem):
    row = judged(tmp_path, told, **changes)
    assert not row.ok and any(problem in p for p in row.problems), row.problems


def test_a_busy_machine_s_reason_does_not_hide_the_one_that_was_expected(tmp_path):
    told = story()
    reason = list(told.verdicts.reason)
    reason[60:70] = ["missed_period"] * 10
    told.verdicts = replace(told.verdicts, reason=tuple(reason))
    assert judged(tmp_path, told).reaction_ms == pytest.approx(20.0, abs=1e-6)


def test_without_a_filter_the_twin_s_truth_says_whether_it_stands(tmp_path):
    t = np.arange(0.0, 1.0, 0.002)
    moving = np.stack([10.05 + t, np.where(t < 0.1, 0.5, 0.0)], axis=1)
    row = judge.judge(played(scenarios.LAST, speeds=moving, resumed=None), story(), run_of(tmp_path))
    assert row.ok and row.standstill_ms == pytest.approx(98.0, abs=0.1)
    never = np.stack([10.05 + t, np.full(len(t), 0.5)], axis=1)
    row = judge.judge(played(scenarios.LAST, speeds=never, resumed=None), story(), run_of(tmp_path))
    assert row.problems == ("the hardware did not stop by itself",)


def test_what_could_not_be_played_is_no_pass(tmp_path):
    row = judge.judge(played(CRASH, blocked="latched state_stale"), story(), run_of(tmp_path))
    assert not row.ok and row.state == "latched" and "does not follow the policy" in row.problems[0]


def test_scenarios_without_a_margin_in_the_file_are_left_out_and_said():
    wanted, left = scenarios.choose(short=False, devices=("twin",), margins=("joint_position",))
    assert {s.name for s in left} == {"person walks in", "person tracker lost"}
    assert wanted[-1].last and len({s.name for s in wanted}) == len(wanted)
    with pytest.raises(ConfigError, match="unknown scenarios"):
        scenarios.choose(short=False, devices=(), margins=(), only=("earthquake",))


def test_the_link_refuses_what_no_network_does():
    for impossible in ({"loss": 1.5}, {"delay": -1.0}, {"people": "cat"}):
        with pytest.raises(ConfigError):
            link.Link(**impossible)
    assert link.walk(0.0) == (link.FAR, link.PACE) and link.walk(60.0) == (link.NEAR, 0.0)


def test_the_hardware_that_was_asked_for_is_rehearsed_on(tmp_path):
    parser = argparse.ArgumentParser()
    cli_rehearse.arguments(parser)
    given = parser.parse_args(["--hardware", "fake", "--out", str(tmp_path), "hand.rate=100.0"])
    config = cli_rehearse.configuration(given)
    assert config.hardware == "fake" and config.hand == {"rate": 100.0} and config.constraints == "shared_cell"
    word = cli_rehearse.configuration(parser.parse_args(["hardware=fake"]))
    assert (word.hardware, word.twin.watchdog) == ("fake", 200)


def test_a_real_robot_is_not_rehearsed_on(capsys):
    assert main(["rehearse", "--hardware", "real"]) == 2
    assert "twin" in capsys.readouterr().err


LATE = {"missed_period", "reading_gap", "state_stale", FAULT}
"""Reasons of a machine that was late; ``palmar rehearse`` fails on it, for nobody should begin a session there."""


def test_the_short_rehearsal_on_the_twin_is_as_it_must_be(tmp_path):
    """Every scenario of the real graph; what a late machine did to one is said, and nothing else is accepted."""
    found = rehearse.rehearse(DeployConfig(out=str(tmp_path), constraints="shared_cell"), short=True)
    assert [r.scenario for r in found.rows] == [s.name for s in (*scenarios.SCENARIOS, scenarios.LAST) if s.short]
    assert found.left_out == () and 0 < found.launch_to_motion_s
    assert [r.violated for r in found.rows] == [()] * len(found.rows)
    late = [(r.scenario, r.reason, r.problems) for r in found.rows if not r.ok]
    assert {reason for _, reason, _ in late} <= LATE, late
    assert (tmp_path / "rehearsal.json").exists() and (tmp_path / "rollout.mcap").exists()
