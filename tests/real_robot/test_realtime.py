"""A beat without bursts, and a core of one's own."""

import os
import subprocess
import sys
import time

import pytest

from palmar.real_robot import realtime
from palmar.safety.types import ConfigError


@pytest.fixture
def allowed(monkeypatch):
    """Which cores there are, without having them."""
    return lambda *cores: monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(cores))


def test_auto_is_the_last_core_that_this_process_may_use_where_there_are_enough(allowed):
    allowed(2, 3, 7)
    assert realtime.reserve("auto") == (7,) and realtime.reserve("auto", least=4) == ()
    allowed(5)
    assert realtime.reserve("auto") == ()


def test_cores_by_number_must_be_there_and_leave_one_over(allowed):
    allowed(0, 1, 2)
    assert realtime.reserve((2, 1)) == (1, 2) and realtime.reserve(()) == ()
    for wrong in ((3,), (0, 1, 2), (-1,), "last"):
        with pytest.raises(ConfigError, match=r"accepted 'auto' or a list of \[0, 1, 2\]"):
            realtime.reserve(wrong)
    allowed(0)
    with pytest.raises(ConfigError, match="leaves one over"):
        realtime.reserve((0,))


WHERE = """
import os, subprocess, sys, threading
from palmar.real_robot import realtime
stay = threading.Event()
threading.Thread(target=stay.wait).start()  # threads that are there already move, too
said = realtime.keep([int(sys.argv[1])], inside=sys.argv[2] == "inside")
of = [sorted(os.sched_getaffinity(int(task))) for task in os.listdir("/proc/self/task")]
child = subprocess.run([sys.executable, "-c", "import os; print(sorted(os.sched_getaffinity(0)))"], capture_output=True)
print(said, *of, child.stdout.decode().strip(), sep="|")
stay.set()
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
@pytest.mark.parametrize("side", ["inside", "outside"])
def test_every_thread_and_every_child_stays_on_its_side(side):
    here = sorted(os.sched_getaffinity(0))
    done = subprocess.run(
        [sys.executable, "-c", WHERE, str(here[-1]), side], capture_output=True, text=True, check=True
    )
    said, *found = done.stdout.strip().split("|")
    wanted = here[-1:] if side == "inside" else here[:-1]
    assert len(found) >= 3 and set(found) == {str(wanted)}
    assert said == "on core " + ", ".join(map(str, wanted))


def test_a_core_that_is_not_there_any_more_is_said_and_ends_nothing():
    before = os.sched_getaffinity(0)
    assert realtime.keep([max(before) + 64], inside=True).startswith("on any core (")
    assert os.sched_getaffinity(0) == before
    assert realtime.keep([], inside=True) == "on any core"


def test_missed_periods_are_skipped_and_never_made_up_for():
    beat = realtime.Beat(0.01)
    beat.start()
    time.sleep(0.055)
    now, skipped = beat.wait()
    assert skipped >= 4 and beat.missed == skipped and beat.late_max == beat.late >= 0.04
    first = now - beat.late  # the deadline it waited for
    after, _ = beat.wait()
    assert after - beat.late - first == pytest.approx((1 + skipped) * 0.01, abs=1e-9)
