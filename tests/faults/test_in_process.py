"""Rows 1 to 20 and 27 as far as they run in process, and row 28: pairs of faults.

The twin's physics stands for the robot, the clock is injected; processes, files and real time are in the other
files here.  Hand faults (row 17) act on the twin's joints, for there are no drivers of a real hand.
"""

import pytest
from matrix import named

from palmar.benchmarks.faults import campaign, cases
from palmar.benchmarks.faults_case import Expect, broken
from palmar.benchmarks.injector import Fault, Rig

CASES = {case.id: case for case in cases()}


def parameters():
    for case in CASES.values():
        marks = [] if case.smoke else [pytest.mark.fault]
        yield pytest.param(case, id=case.id, marks=marks)


@pytest.mark.parametrize("case", list(parameters()))
def test_a_named_fault_ends_as_it_must(case):
    assert case.run() == []


@pytest.mark.parametrize("seed", named(28, {f"pair-{seed}": seed for seed in range(200)}, ("pair-0", "pair-1")))
def test_no_pair_of_faults_breaks_an_invariant(seed):
    name, found = campaign(seed)
    assert found == [], name


def test_the_judge_sees_each_kind_of_break():
    """What judges is no rubber stamp: a run without fault passes, and each kind of break is named."""
    rig = Rig(seed=0)
    o = rig.run(200)
    assert broken(o, Expect(calm=True, stop=False, resumes=True)) == []
    assert "left RUN never" in broken(o, Expect(within=5))[0]
    assert "refused" in broken(o, Expect(refused=1))[0]
    assert "expected a stop" in broken(o, Expect(stop=True))[0]
    o.reasons[100] = "Something went wrong."
    assert "is no name" in broken(o, Expect())[0]
    o.reasons[100] = ""
    o.states[100] = type(o.states[0]).STOP
    o.reasons[100] = "operator_stop"
    assert any("without a reset" in x for x in broken(o, Expect()))


def test_a_limit_exceeded_at_one_tick_is_counted():
    rig = Rig(seed=0)
    rig.run(50)
    rig.outcome.sent[30] = rig.outcome.sent[30] + 0.001
    assert any("limits exceeded" in x for x in broken(rig.run(20), Expect()))


def test_a_fault_acts_from_its_begin_to_its_end_only():
    seen = []
    fault = Fault("probe", act=lambda rig: seen.append(rig.k), begin=7, end=9).moved(3)
    Rig(seed=0, faults=(fault,)).run(30)
    assert seen == [10, 11]
