"""Rows 21 and 22: recorders killed at any moment, disks that take nothing more."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import toy_robot as toy
from matrix import named
from rollouts_and_bundles import write

from palmar.rollouts.read import read
from palmar.safety.types import PalmarError, RolloutRefused

# Row 21 --------------------------------------------------------------------------------------------------------------

RECORDER = """
    import json, sys, time
    sys.path.insert(0, sys.argv[2])
    import numpy as np, toy_robot as toy
    from palmar.rollouts.header import RolloutHeader
    from palmar.rollouts.record import RolloutWriter

    head = RolloutHeader("t", "i", toy.robot(), toy.CONSTRAINTS, 0.01)
    with RolloutWriter(sys.argv[1], head) as out:
        print("ready", flush=True)
        for k in range(10**6):
            out.joint_state(k * 0.001, np.full(2, k), np.full(2, time.monotonic()), np.zeros(2))
            time.sleep(0.001)
"""
WAITS = {f"sigkill-after-{w:.2f}s": w for w in np.round(np.random.default_rng(21).uniform(0.02, 2.5, 20), 2).tolist()}


@pytest.mark.parametrize("wait", named(21, WAITS, tuple(WAITS)[:2]))
def test_a_recorder_killed_at_any_moment_loses_at_most_a_second(tmp_path, wait):
    path, here = tmp_path / "killed.mcap", str(Path(toy.__file__).parent)
    command = [sys.executable, "-c", textwrap.dedent(RECORDER), str(path), here]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        time.sleep(wait)
        os.kill(child.pid, signal.SIGKILL)
        killed = time.monotonic()
    with pytest.raises(RolloutRefused, match="killed.mcap"):
        read(path)
    run = read(path, recover=True)
    assert not run.complete and np.array_equal(run.joints.q[:, 0], np.arange(len(run.joints.q)))
    assert wait < 1.2 or killed - run.joints.qd[-1, 0] < 1.0


# Row 22 --------------------------------------------------------------------------------------------------------------

FULL = """
    import resource, signal, sys
    sys.path.insert(0, sys.argv[2])
    import numpy as np, toy_robot as toy
    from palmar.rollouts.header import RolloutHeader
    from palmar.rollouts.record import RolloutWriter
    from palmar.safety.types import PalmarError

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
    head = RolloutHeader("t", "i", toy.robot(), toy.CONSTRAINTS, 0.01)
    out, wrote = None, 0
    try:
        out = RolloutWriter(sys.argv[1], head)
        rng = np.random.default_rng(0)
        for k in range(60_000):
            out.joint_state(k * 0.001, *rng.normal(size=(3, 2)))
            wrote = k
        out.close()
    except (OSError, PalmarError) as error:
        print(type(error).__name__, wrote, flush=True)
        import os
        os._exit(3)
"""


def limited(tmp_path, size):
    """The file may not grow beyond ``size`` bytes, as on a full disk: the writer says so, what is there is readable."""
    path = tmp_path / "full.mcap"
    command = [sys.executable, "-c", textwrap.dedent(FULL), str(path), str(Path(toy.__file__).parent), str(size)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 3 and "Error" in done.stdout, done.stderr
    assert path.stat().st_size <= size
    with pytest.raises(RolloutRefused):
        read(path)
    if size > 500_000:
        assert len(read(path, recover=True).joints.q) > 100


def not_writable(tmp_path, where):
    with pytest.raises((OSError, PalmarError)):
        write(Path(where) / "a.mcap", n=1)


def exists_as(tmp_path, target):
    (tmp_path / "a.mcap").symlink_to(target)
    with pytest.raises(PalmarError, match="never overwritten"):
        write(tmp_path / "a.mcap", n=1)


def no_directory(tmp_path):
    not_writable(tmp_path, tmp_path / "missing")


def file_for_directory(tmp_path):
    (tmp_path / "f").write_text("")
    not_writable(tmp_path, tmp_path / "f")


DISKS = {
    "full-at-the-header": lambda tmp: limited(tmp, 2_000),
    "full-after-100kB": lambda tmp: limited(tmp, 100_000),
    "full-after-1MB": lambda tmp: limited(tmp, 1_000_000),
    "dev-full": lambda tmp: exists_as(tmp, "/dev/full"),
    "kernel-file-system": lambda tmp: not_writable(tmp, "/proc"),
    "read-only-file-system": lambda tmp: not_writable(tmp, "/sys/kernel"),
    "directory-gone": no_directory,
    "file-in-place-of-directory": file_for_directory,
}


@pytest.mark.parametrize("disk", named(22, DISKS, ("full-after-1MB", "dev-full")))
def test_a_disk_that_takes_nothing_more_is_an_error_with_a_name(tmp_path, disk):
    disk(tmp_path)
