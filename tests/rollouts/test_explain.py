"""A tick explained from its recording, and a run sent through a watching filter."""

import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from palmar.rollouts.explain import explain, find
from palmar.rollouts.header import RolloutHeader
from palmar.rollouts.read import read
from palmar.rollouts.record import RolloutWriter
from palmar.rollouts.rollout import Rollout
from palmar.rollouts.shadow import AFTER, _count, shadow
from palmar.safety.barrier import BarrierConfig
from palmar.safety.chunks import ChunkConfig
from palmar.safety.filter import Filter, FilterConfig
from palmar.safety.types import Chunk, ConfigError, RolloutRefused
from palmar.sim.interface import RobotState
from palmar.sim.robots import load_robot

DT = 0.001
ROBOT = load_robot("fr3_leap")
TEXT = Path(str(files("palmar.configs") / "constraints" / "arm_hand.yaml")).read_text()


def header():
    return RolloutHeader(task="reach", instruction="", robot=ROBOT, constraints=TEXT, control_dt=DT, t0=50.0)


def watching(**config):
    config = FilterConfig(chunks=ChunkConfig(jump=1e3), **config)
    return Filter(ROBOT, header().constraint_set(), config, mode="shadow")


def record(path, goal, *, seconds=1.2):
    """Run a filter on a perfect robot towards ``goal`` for a while, then let its chunks go stale."""
    f, zero = Filter(ROBOT, header().constraint_set()), np.zeros(ROBOT.n)
    t0, seq = 50.0, 0
    f.start(RobotState(t0, 0, ROBOT.home, zero, zero))
    with RolloutWriter(path, header()) as out:
        for k in range(int(seconds / DT)):
            now = t0 + k * DT
            if k % 50 == 20 and k < 700:
                seq += 1
                share = min(1.0, (k + 50) / 700)
                q = (ROBOT.home + share * (goal - ROBOT.home))[None]
                chunk = Chunk(q=q, t=np.array([now + 0.05]), seq=seq, received=now)
                f.offer(chunk)
                out.chunk(chunk)
            state = RobotState(now, k + 1, f.u, f.ud, zero)
            command, verdict = f.tick(state, now)
            out.joint_state(now, state.q, state.qd, state.tau)
            out.intended(now, f.player.reference(now)[0])
            out.command(now, command.q, f.ud, f.udd, f.measurement.uddd)
            out.verdict(now, verdict)
        out.finish(success=None, detail={})
    return read(path)


@pytest.fixture(scope="module")
def low(tmp_path_factory):
    """A run that wants to put the hand through the table."""
    goal = ROBOT.home.copy()
    goal[1] += 0.55
    return record(tmp_path_factory.mktemp("low") / "run.mcap", goal)


@pytest.fixture(scope="module")
def safe(tmp_path_factory):
    goal = ROBOT.home.copy()
    goal[0] += 0.3
    return record(tmp_path_factory.mktemp("safe") / "run.mcap", goal)


def test_an_edited_tick_is_explained_by_the_row_that_stood_in_the_way(low):
    e = explain(low, find(low, "first"), watching())
    assert e.state == "run" and e.changed and e.agrees and e.again == ""
    assert e.active == ("table_clearance",)
    rows = [r for r in e.rows if r.constraint == "table_clearance"]
    assert rows
    for r in rows:
        assert r.between.endswith("and the table")
        assert r.distance > r.limit > 0
        assert r.rate < 0
        assert r.sent == pytest.approx(r.needed, abs=1e-3)
    assert min(r.wanted - r.needed for r in rows) < 0
    j = max(e.joints, key=lambda j: abs(j.sent - j.wanted))
    assert abs(j.sent - j.wanted) == pytest.approx(e.edit, rel=1e-6)
    json.dumps(e.to_json(), allow_nan=False)


def test_every_edited_tick_solved_again_gives_what_was_sent(low):
    v, f = low.verdicts, watching()
    ticks = np.flatnonzero(v.changed & np.array([not r.startswith("unverified") for r in v.reason]) & (v.state == 0))
    assert len(ticks) > 50
    for k in ticks[:: max(1, len(ticks) // 25)]:
        e = explain(low, float(v.t[k] - v.t[0]), f)
        assert e.agrees, (k, e.reason)
        assert {r.constraint for r in e.rows} <= set(e.active)


def test_a_tick_of_another_state_says_since_when_and_why(low):
    e = explain(low, 1.15, watching())
    assert e.state == "hold" and e.reason == "chunk_stale" and e.agrees is None and not e.rows
    assert 0.8 < e.since < 1.0
    assert e.chunk == 14 and e.chunk_age > 0.2


def test_an_unchanged_tick_has_no_changed_joint(safe):
    e = explain(safe, 0.3, watching())
    assert not e.changed and e.agrees and not e.joints


@pytest.mark.parametrize("when", ["noon", "-1", "99"])
def test_a_time_outside_the_run_is_refused_with_what_is_accepted(low, when):
    with pytest.raises(RolloutRefused, match="accepted"):
        find(low, when)


def test_a_run_without_edits_has_no_first_one(safe):
    with pytest.raises(RolloutRefused, match="changed nothing"):
        find(safe, "first")


def test_shadow_counts_what_the_filter_would_have_done_and_nothing_of_it_is_false(low):
    s = shadow(low, watching())
    assert s.ticks == len(low.intended.t)
    assert s.interventions >= 1 and s.changed > 50 and s.edit_max > 1
    assert set(s.by) & {"table_clearance"}
    assert s.violated["table_clearance"] > 50
    assert s.false_trips == 0 and s.not_run == 0


def test_safe_motion_is_left_alone(safe):
    s = shadow(safe, watching())
    assert (s.changed, s.interventions, s.false_trips, s.not_run, s.violated) == (0, 0, 0, 0, {})


def test_a_filter_that_fears_too_much_is_caught(safe):
    timid = watching(barrier=BarrierConfig(brake=0.001, soft=0.001, reach=2.0))
    s = shadow(safe, timid)
    assert s.false_trips == s.interventions > 0
    assert sum(s.false_by.values()) == s.changed


def test_an_intervention_is_false_if_nothing_is_violated_until_a_second_after():
    far = round(AFTER / DT)
    reasons = ["", "a", "a", "", "b", *[""] * (far + 5)]
    edits, bad = np.ones(len(reasons)), [set() for _ in reasons]
    assert _count(reasons, edits, bad, DT).false_trips == 2
    bad[3 + far] = {"x"}  # more than a second after a, less than that after b
    s = _count(reasons, edits, bad, DT)
    assert (s.interventions, s.false_trips, s.false_by) == (2, 1, {"a": 2})


def test_a_filter_that_enforces_cannot_watch_and_a_run_without_intentions_cannot_be_watched(low):
    with pytest.raises(ConfigError, match="shadow"):
        shadow(low, Filter(ROBOT, low.header.constraint_set()))
    empty = Rollout(**{**vars(low), "intended": type(low.intended)(low.intended.t[:0], low.intended.q[:0])})
    with pytest.raises(RolloutRefused, match="no intention"):
        shadow(empty, watching())


def test_the_verb_prints_both(low, safe, capsys):
    from palmar.cli.main import main

    assert main(["filter", "--explain", f"{low.path}@first"]) == 0
    said = capsys.readouterr().out
    assert "table_clearance" in said and "changed joints" in said and "RUN since" in said
    assert main(["filter", "--explain", f"{low.path}@1.15", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reason"] == "chunk_stale"
    assert main(["filter", "--shadow", str(safe.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"][0]["interventions"] == 0
    assert main(["filter", "--explain", str(low.path)]) == 2
    assert "FILE@T" in capsys.readouterr().err
