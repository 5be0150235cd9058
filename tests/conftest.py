"""One thread per numerical library, so that two small cores are shared fairly; and no test leaves anything behind."""

import os
import sys
import time
from pathlib import Path

import pytest

# Before numpy, torch or numba are imported by anything.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

sys.path.insert(0, str(Path(__file__).parent))
from leaks import leaked, present  # noqa: E402

GRACE = 5.0
"""How long what a module started may take to go [s]."""


def pytest_configure(config):
    """One torch thread too; torch reads its variable only at import."""
    import torch

    torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    """Real processes in real time may be late on a busy machine: once more, told as R and counted at the end."""
    for item in items:
        if {"real_robot", "ros_ws"} & set(item.path.parts) or item.path.name == "test_processes.py":
            item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.fixture(autouse=True, scope="module")
def nothing_is_left_behind(request):
    """No process, listening port or shared memory outlives the module that made it."""
    before = present()
    yield
    end = time.monotonic() + GRACE
    while (left := leaked(before)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not left, f"{request.node.name} left behind: {left}"
